"""Wheels of the course's locked packages for this machine or another, and what among them is missing."""

import errno
import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from dataclasses import dataclass
from email.parser import HeaderParser

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename
from tqdm import tqdm

from labkit.doctor import pins
from labkit.errors import LabkitError

PYTHONS = ("3.11", "3.12")


@dataclass(frozen=True)
class Target:
    """A machine to install on: its name, its markers (PEP 508), and the tags of wheels it takes, best first.

    Without tags it is this machine, and pip knows what it takes.
    """

    name: str
    markers: dict
    tags: tuple = ()

    @property
    def python(self):
        return self.markers["python_version"]


def _linux(machine):
    newest_first = [f"manylinux_2_{minor}_{machine}" for minor in range(28, 16, -1)]
    return ("Linux", machine, (*newest_first, f"manylinux2014_{machine}"))


PLATFORMS = {
    "linux-x86_64": _linux("x86_64"),
    "linux-aarch64": _linux("aarch64"),
    "macos-arm64": ("Darwin", "arm64", ("macosx_14_0_arm64",)),
}


def target(name=None, python=None):
    """The Target of a name in PLATFORMS and a Python such as "3.12"; by default this machine."""
    here = default_environment()
    if name is None and python in (None, here["python_version"]):
        return Target(_here(), here)
    name = name or _here()
    if name not in PLATFORMS:
        raise LabkitError(f"--platform {name} is not known; it may be {', '.join(PLATFORMS)}")
    system, machine, tags = PLATFORMS[name]
    python = python or here["python_version"]
    full = here["python_full_version"] if python == here["python_version"] else f"{python}.9"
    return Target(name, here | {
        "sys_platform": system.lower(), "platform_system": system, "platform_machine": machine,
        "python_version": python, "python_full_version": full,
    }, tags)  # fmt: skip


def _here():
    return f"{platform.system()}-{platform.machine()}".lower().replace("darwin", "macos")


def fetch(course, folder, aim):
    """Download wheels of the course's locked packages, and of what these want on the Target, into a folder.

    torch is of the build installed here, where that is the locked version and `aim` is this machine.
    """
    locked = pins((course / "constraints.txt").read_text())
    same = dict.fromkeys(locked, "==")
    if "torch" in locked and not aim.tags:
        locked["torch"], same["torch"] = _torch_build(locked["torch"]), "==="  # == takes any build's
    required = pins((course / "requirements.txt").read_text())
    direct = [f"{name}=={version}" for name, version in required.items()]
    direct += tomllib.loads((course / "pyproject.toml").read_text())["build-system"]["requires"]
    asked = [f"{name}{same[name]}{version}" for name, version in locked.items()]
    names = {canonicalize_name(name) for name in locked}
    asked += [line for line in direct if _name(line) not in names]
    folder.mkdir(parents=True)
    print(f"== wheels for {aim.name}, Python {aim.python}, torch {locked.get('torch', 'none')}", flush=True)
    names = set()
    while asked:
        twice = [line for line in asked if _name(line) in names]
        if twice:
            raise LabkitError(
                f"the downloaded wheels want {', '.join(twice)}, which constraints.txt contradicts. "
                "Renew it with `make lock`"
            )
        names.update(map(_name, asked))
        _download(asked, folder, aim)
        asked = missing(folder, direct, aim.markers)


def missing(folder, wanted, markers):
    """Requirements beneath `wanted` (all as text) that no wheel in `folder` meets under these markers."""
    wheels = {}
    for wheel in sorted(folder.glob("*.whl")):
        name, version, *_ = parse_wheel_filename(wheel.name)
        wheels[name] = version, wheel
    todo, seen, lacking = [Requirement(line) for line in wanted], set(), set()
    while todo:
        one = todo.pop()
        name = canonicalize_name(one.name)
        if name not in wheels or not one.specifier.contains(wheels[name][0], prereleases=True):
            lacking.add(f"{name}{one.specifier}")
        elif (name, *sorted(one.extras)) not in seen:
            seen.add((name, *sorted(one.extras)))
            todo += _requirements(wheels[name][1], markers, one.extras)
    return sorted(lacking)


def _name(requirement):
    return canonicalize_name(Requirement(requirement).name)


def _torch_build(locked):
    """The version of torch to take: the installed one, with its build (2.13.0+cpu), if that is locked."""
    try:
        installed = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return locked
    return installed if installed.split("+")[0] == locked else locked


def _download(asked, folder, aim):
    """Have pip download wheels for these requirements alone, with a bar; LabkitError if one is missing."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:",
               "--progress-bar=off", "--disable-pip-version-check", "--dest", str(folder)]  # fmt: skip
    if aim.tags:
        command += ["--implementation=cp", f"--python-version={aim.markers['python_full_version']}"]
        command += [f"--platform={tag}" for tag in aim.tags]
    variables = {**os.environ, "TMPDIR": str(folder.parent), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as errors, tqdm(total=len(asked), unit="wheel", disable=None) as bar:
        with subprocess.Popen([*command, *asked], stdout=subprocess.PIPE, stderr=errors, text=True,
                              env=variables) as pip:  # fmt: skip
            for line in pip.stdout:
                if line.startswith(("Collecting ", "Processing ")):
                    bar.update()
        errors.seek(0)
        said = errors.read()
    if "No space left" in said:
        raise OSError(errno.ENOSPC, "No space left on device")
    if pip.returncode:
        raise LabkitError(_pip_trouble(said, aim, asked))


def _pip_trouble(said, aim, asked):
    lines = [line for line in said.splitlines() if line.startswith("ERROR")] or [said.strip()[-500:]]
    text = "\n  ".join([f"pip could not download all wheels for {aim.name}, Python {aim.python}:", *lines])
    torch = next((line for line in asked if line.startswith("torch=") and "+" in line), None)
    if torch and "torch" in "".join(lines):
        return (f"{text}\nThis build of torch comes from an index of its own: export PIP_EXTRA_INDEX_URL="
                f"https://download.pytorch.org/whl/{torch.rpartition('+')[2]} and try again")  # fmt: skip
    return f"{text}\nCheck that a Python package index is reachable, and try again: pip keeps what it has"


def _requirements(wheel, markers, extras):
    """What a wheel's metadata requires under these markers, with these extras."""
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        header = HeaderParser().parsestr(opened.read(name).decode())
    found = [Requirement(line) for line in header.get_all("Requires-Dist", [])]
    sets = [markers | {"extra": extra} for extra in ("", *extras)]
    return [one for one in found if not one.marker or any(one.marker.evaluate(each) for each in sets)]
