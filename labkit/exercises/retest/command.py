"""What stands beside the lessons' exercises: a cohort's variants, and a claim of the ledger to re-test."""

import argparse

from labkit.exercises import vary
from labkit.exercises.grade import CLAIM_NOTEBOOK


def main(argv=None):
    """The command `python -m labkit exercises`; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m labkit exercises", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("vary", help="make a cohort's own variants", add_help=False)
    claim = commands.add_parser("claim", help="make the folder in which a claim is re-tested")
    claim.add_argument("--id", required=True, help="the claim's id in data/CLAIMS.md, such as lora-match")
    claim.add_argument("--out", help="folder to write (default: the id)")
    seal = commands.add_parser("seal", help="seal prediction and design, before anything is run")
    seal.add_argument("folder", nargs="?", default=".", help="the re-test's folder (default: this one)")
    if argv and argv[0] == "vary":
        return vary.main(argv)
    options = parser.parse_args(argv)
    from labkit.exercises.retest import learner

    if options.command == "claim":
        print(f"open {learner.make(options.id, options.out or options.id) / CLAIM_NOTEBOOK}")
    else:
        print(f"sealed: {learner.seal(options.folder)}  (send this to your instructor before you run)")
    return 0
