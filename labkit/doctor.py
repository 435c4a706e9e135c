"""`python -m labkit doctor`: one line per check of this machine, with the remedy where one fails."""

import importlib.metadata
import logging
import os
import platform
import re
import shutil
import sys
from dataclasses import dataclass

from labkit import env
from labkit.errors import LabkitError
from labkit.paths import DATA, REQUIREMENTS, ROOT

# Versions outside the pin that the course was run with: inclusive, compared by their first two numbers.
TESTED = {"python": ((3, 11), (3, 12)), "torch": ((2, 11), (2, 13))}
MEMORY_BYTES = 8e9
DISK_BYTES = 2e9


@dataclass
class Finding:
    """One line of the report: `state` is OK, DIFFERS or FAIL; `remedy` is empty when OK."""

    what: str
    state: str
    detail: str
    remedy: str = ""

    def __str__(self):
        line = f"{self.state:<8} {self.what:<14} {self.detail}"
        return f"{line}\n{'':<24}-> {self.remedy}" if self.remedy else line


def main():
    """Print every finding; returns 1 if any is FAIL, else 0."""
    findings = list(examine())
    for finding in findings:
        print(finding)
    failed = sum(finding.state == "FAIL" for finding in findings)
    ready = "ready: open lesson 00 with `make lab`"
    print(f"\n{failed} of {len(findings)} checks failed" if failed else f"\n{ready}")
    return 1 if failed else 0


def examine():
    """Yield a Finding per check; a check that breaks is itself a FAIL, never a traceback."""
    for check in (_python, _versions, _cores, _memory, _disk, _gpu, _bf16, _bitsandbytes, _base_model, _data):
        try:
            yield from check()
        except Exception as error:  # whatever is broken here is what the learner must hear about
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            remedy = str(error) if isinstance(error, LabkitError) else "run `make lab` to set up again"
            yield Finding(check.__name__.strip("_").replace("_", " "), "FAIL", reason, remedy)


def pins(text=None):
    """The pinned versions of requirements.txt, name to version."""
    text = REQUIREMENTS.read_text() if text is None else text
    return dict(re.findall(r"^([A-Za-z0-9_.-]+)==([^\s;#]+)", text, re.MULTILINE))


def compare(name, found, pinned):
    """Finding for one version against its pin; `found` None means not installed."""
    if found is None:
        return Finding(name, "FAIL", f"not installed, the course needs {pinned}", "make lab")
    plain, detail = found.split("+")[0], f"{found}, pinned {pinned}"
    if plain == pinned:
        return Finding(name, "OK", found)
    if name in TESTED and TESTED[name][0] <= _two(plain) <= TESTED[name][1]:
        return Finding(name, "DIFFERS", detail, "works; numbers may differ a little")
    if name not in TESTED and _two(plain) == _two(pinned):
        return Finding(name, "DIFFERS", detail, "probably works; `make lab` puts it right")
    return Finding(name, "FAIL", detail, "run `make lab` and use its .venv")


def _two(version):
    numbers = re.findall(r"\d+", version)[:2]
    return tuple(int(number) for number in numbers)


def _python():
    version = platform.python_version()
    low, high = TESTED["python"]
    inside = low <= sys.version_info[:2] <= high
    yield Finding("Python", "OK" if inside else "FAIL", f"{version} in {sys.prefix}",
                  "" if inside else "install Python 3.11 or 3.12, then `make clean lab`")  # fmt: skip


def _versions():
    wanted = pins()
    findings = []
    for name, pinned in wanted.items():
        try:
            found = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found = None
        findings.append(compare(name, found, pinned))
    good = sum(finding.state == "OK" for finding in findings)
    yield Finding("packages", "OK", f"{good} of {len(findings)} as pinned in requirements.txt")
    yield from (finding for finding in findings if finding.state != "OK" or finding.what == "torch")


def _cores():
    count = env.cores()
    yield Finding("cores", "OK" if count >= 2 else "DIFFERS", str(count),
                  "" if count >= 2 else "lessons are timed on two cores; expect twice the time")  # fmt: skip


def _memory():
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    enough = total >= 0.9 * MEMORY_BYTES
    yield Finding("memory", "OK" if enough else "FAIL", f"{total / 1e9:.1f} GB",
                  "" if enough else "lessons need 8 GB: close programs, or use a larger machine")  # fmt: skip


def _disk():
    free = shutil.disk_usage(ROOT).free
    enough = free >= DISK_BYTES
    yield Finding("disk", "OK" if enough else "FAIL", f"{free / 1e9:.0f} GB free",
                  "" if enough else f"free {DISK_BYTES / 1e9:.0f} GB under {ROOT}")  # fmt: skip


def _gpu():
    import torch

    if not torch.cuda.is_available():
        yield Finding("GPU", "OK", "none: lessons run on the CPU, GPU cells show recorded output")
        return
    free, total = torch.cuda.mem_get_info()
    state = "OK" if free > 0.5 * total else "DIFFERS"
    card = f"{torch.cuda.get_device_name(0)}, {total / 2**30:.0f} GiB, {free / 2**30:.0f} GiB free"
    remedy = "" if state == "OK" else "another program uses the card: `nvidia-smi` says which"
    yield Finding("GPU", state, card, remedy)


def _bf16():
    kind = env.precision()
    text = {
        "bf16": "fast: training uses bf16 autocast",
        "fp16": "not on this card: training uses fp16 with loss scaling",
        "fp32": "not fast on this CPU: training uses fp32, about a third of the speed",
    }[kind]
    fast = kind == "bf16"
    yield Finding("bf16", "OK" if fast else "DIFFERS", text, "" if fast else "nothing to do")


def _bitsandbytes():
    import torch
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    weight = torch.linspace(-1, 1, 4096, device=env.device()).reshape(64, 64)
    error = (dequantize_4bit(*quantize_4bit(weight)) - weight).abs().max().item()
    good = error < 0.2
    yield Finding("bitsandbytes", "OK" if good else "FAIL", f"4-bit round trip, largest error {error:.2f}",
                  "" if good else "reinstall it: pip install --force-reinstall bitsandbytes")  # fmt: skip


def _base_model():
    from labkit import base_model

    if not base_model.is_default():
        yield Finding("base model", "DIFFERS", f"LABKIT_MODEL={os.environ['LABKIT_MODEL']}",
                      "recorded results are about the default model, not this one")  # fmt: skip
        return
    folder = base_model.model_dir()
    if not (folder / "complete.json").exists():
        yield Finding("base model", "FAIL", f"not in {folder}", "python -m labkit fetch")
        return
    base_model.fetch()  # raises where the files are damaged
    yield Finding("base model", "OK", f"{base_model.NAME} in {folder}")


def _data():
    from labkit.tasks import FAMILIES, files

    for name in FAMILIES:
        sizes = ", ".join(f"{rows:,} {part}" for part, rows in files.verify(DATA / name).items())
        yield Finding("data", "OK", f"{name}: {sizes}; checksums right")
    count = len(list((DATA / "measurements").glob("*.json")))
    yield Finding("records", "OK" if count else "DIFFERS", f"{count} measurement files",
                  "" if count else "GPU cells have no recorded output to show")  # fmt: skip
