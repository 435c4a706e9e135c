"""The command line: `python -m labkit COMMAND`."""

import argparse
import sys
from importlib import import_module

from labkit.errors import LabkitError

COMMANDS = {
    "doctor": ("check this machine, one line per check", "labkit.doctor"),
    "fetch": ("fetch, verify and convert the base model", None),
    "lesson": ("run a lesson headless and say what it cost: lesson 00", "labkit.execute"),
    "build": ("make notebooks from solutions/*.py: build [NN] [--check] [--execute]", "labkit.build"),
    "grade": ("grade submissions: grade FOLDER --seed SECRET --report grades.csv", "labkit.exercises.grade"),
    "exercises": ("make variants, re-test a claim: exercises --help", "labkit.exercises.retest.command"),
    "archive": ("run a lesson's training and keep it for catch_up: archive 05", "labkit.workshop.archive"),
    "bundle": ("write an archive that installs with no network: bundle OUT.tar", "labkit.workshop.bundle"),
    "bench": ("measure: bench train, methods, memory, quant ...; byod FILE (yours)", "labkit.bench"),
}


def main(argv=None):
    """Run one command; returns the exit code. A LabkitError is printed without a traceback."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m labkit",
        description="The Finetuning Workbook's helper.",
        epilog="\n".join(f"  {name:<9} {text}" for name, (text, _) in COMMANDS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    command = parser.parse_args(argv[:1]).command
    try:
        return _run(command, argv[1:])
    except LabkitError as error:
        print(f"labkit {command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"labkit {command}: interrupted", file=sys.stderr)
        return 130


def _run(command, rest):
    if command in ("doctor", "fetch"):  # these take no options, but --help must not start them
        usage = argparse.ArgumentParser(prog=f"python -m labkit {command}", description=COMMANDS[command][0])
        usage.parse_args(rest)
    if command == "doctor":
        return import_module("labkit.doctor").main()
    if command == "fetch":
        print(f"base model ready in {import_module('labkit.base_model').fetch()}")
        return 0
    return import_module(COMMANDS[command][1]).main(rest) or 0


if __name__ == "__main__":
    sys.exit(main())
