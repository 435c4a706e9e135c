"""The set-up: versions are stated once and agree everywhere, and the Makefile does what it says."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from labkit import doctor
from labkit.paths import ROOT

LOCK = ROOT / "constraints.txt"
WORKFLOW = ".github/workflows/checks.yml"
FILES = ["requirements.txt", "constraints.txt", "environment.yml", "pyproject.toml", WORKFLOW]
CONDA_PIP = ["-r requirements.txt", "-e ."]
PIN = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.!]+)$")
UNLOCKED = {"pip", "setuptools", "wheel", "labkit"}
TOOLS = {"setuptools", "python", "pip"}  # of the build and of conda, not of the course


def lines(path):
    """The lines of a requirements file without comments."""
    stripped = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return [line for line in stripped if line]


def pinned(path, trouble):
    """`{name: version}` of a file in which every line is `name==version`, without a local suffix."""
    found = {}
    for line in lines(path):
        match = PIN.match(line)
        if not match:
            trouble.append(f"{path.name}: {line!r} is no plain pin")
            continue
        name = canonicalize_name(match[1])
        if name in found:
            trouble.append(f"{path.name}: {name} stands twice")
        found[name] = match[2]
    return found


def elsewhere(folder):
    """`(file, name)` of every package named in a file that must leave versions to requirements.txt."""
    conda = yaml.safe_load((folder / "environment.yml").read_text())["dependencies"]
    named = [("environment.yml", re.split(r"[=<>!~ ]", line)[0]) for line in conda if isinstance(line, str)]
    for section in (line for line in conda if isinstance(line, dict)):
        named += [("environment.yml", line) for line in section["pip"] if line not in CONDA_PIP]
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    wanted = [*project["project"].get("dependencies", []), *project["build-system"]["requires"]]
    for group in project["project"].get("optional-dependencies", {}).values():
        wanted += group
    named += [("pyproject.toml", Requirement(line).name) for line in wanted]
    workflow = yaml.safe_load((folder / WORKFLOW).read_text())
    for job in workflow["jobs"].values():
        for step in job["steps"]:
            found = re.findall(r"pip install ([^\n]*)", step.get("run", ""))
            words = " ".join(found).split()
            named += [("checks.yml", word) for word in words if not word.startswith("-")]
    return [(file, name) for file, name in named if canonicalize_name(name) not in TOOLS]


def trouble_in(folder):
    """What is wrong with the versions stated in a course folder, one line each."""
    trouble = []
    direct = pinned(folder / "requirements.txt", trouble)
    locked = pinned(folder / "constraints.txt", trouble)
    for name, version in direct.items():
        if locked.get(name) != version:
            trouble.append(f"constraints.txt: {name} is {locked.get(name)}, required is {version}")
    trouble += [f"constraints.txt: {name} does not belong" for name in UNLOCKED & set(locked)]
    names = [line.upper() for line in lines(folder / "constraints.txt")]  # as `sort -f` does
    if names != sorted(names):
        trouble.append("constraints.txt: not sorted")
    return trouble + [f"{file}: {name} is stated there too" for file, name in elsewhere(folder)]


@pytest.fixture
def course(tmp_path):
    """A copy of the files that state versions, and of the Makefile."""
    for name in [*FILES, "Makefile"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_version_is_stated_once_and_the_lock_agrees():
    assert trouble_in(ROOT) == []


@pytest.mark.parametrize("file, old, new, heard", [
    ("requirements.txt", "trl==", "Outlines_Core==0.1\ntrl==", "outlines-core stands twice"),
    ("requirements.txt", "trl==", "trl>=", "no plain pin"),
    ("requirements.txt", "torch==2.13.0", "torch==2.13.0+cpu", "no plain pin"),
    ("constraints.txt", "numpy==", "numpy==1", "numpy is 1"),
    ("constraints.txt", "zyzzy", "", None),
    ("constraints.txt", "accelerate==", "wheel==1\naccelerate==", "wheel does not belong"),
    ("constraints.txt", "accelerate==", "zipp==1\naccelerate==", "not sorted"),
    ("environment.yml", "  - pip\n", "  - pip\n  - numpy=2.4\n", "environment.yml: numpy"),
    ("environment.yml", "- -e .", "- -e .\n      - trl==1.0", "environment.yml: trl==1.0"),
    ("pyproject.toml", "[project]\n", '[project]\ndependencies = ["torch>=2"]\n', "pyproject.toml: torch"),
    (WORKFLOW, "run: make gpu-test", "run: pip install -q ruff==0.1", "checks.yml: ruff==0.1"),
])  # fmt: skip
def test_a_version_stated_twice_or_differently_is_noticed(course, file, old, new, heard):
    text = (course / file).read_text()
    (course / file).write_text(text.replace(old, new, 1))
    trouble = trouble_in(course)
    assert any(heard in line for line in trouble) if heard else trouble == []


def missing_from(lock):
    """Installed packages beneath requirements.txt that a lock leaves out; torch pins its CUDA libraries."""
    todo, seen, missing = [Requirement(line) for line in lines(ROOT / "requirements.txt")], set(), set()
    while todo:
        wanted = todo.pop()
        key = canonicalize_name(wanted.name), frozenset(wanted.extras)
        if key in seen or key[0] in UNLOCKED or re.match(r"nvidia-|cuda-|triton$", key[0]):
            continue
        seen.add(key)
        if key[0] not in lock:
            missing.add(key[0])
        for text in importlib.metadata.requires(wanted.name) or []:
            inner = Requirement(text)
            extras = ["", *wanted.extras]
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                todo.append(inner)
    return missing


def test_the_lock_holds_everything_beneath_the_requirements():
    lock = pinned(ROOT / "constraints.txt", [])
    assert missing_from(lock) == set()
    assert missing_from(set(lock) - {"pyarrow"}) == {"pyarrow"}  # the control


def refusing(version):
    """Locked packages that say that they do not install on a Python version."""
    said = {name: importlib.metadata.metadata(name)["Requires-Python"] for name in pinned(LOCK, [])}
    return {name for name, text in said.items() if text and not SpecifierSet(text).contains(version)}


def test_the_oldest_python_is_stated_alike_and_takes_every_locked_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = re.match(r">=([\d.]+),", project)[1]
    makefile = (ROOT / "Makefile").read_text()
    assert re.findall(r"not \((.*?)\) <=", makefile) == 2 * [oldest.replace(".", ", ")]
    assert f"at least {oldest}" in makefile and f"{oldest} or later" in (ROOT / "README.md").read_text()
    assert refusing(oldest) == set()
    assert refusing("3.9.0")  # the control


def test_the_conda_route_and_the_workflow_use_a_python_the_course_supports():
    supported = {"3.11", "3.12"}
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert next(line for line in conda if line.startswith("python=")).split("=")[1] in supported
    assert conda[-1] == {"pip": CONDA_PIP}
    workflow = yaml.safe_load((ROOT / WORKFLOW).read_text())
    assert set(workflow["jobs"]["test"]["strategy"]["matrix"]["python"]) == supported
    runs = {name: [step.get("run") for step in job["steps"]] for name, job in workflow["jobs"].items()}
    assert ".ci/run" in runs["test"] and "make gpu-test" in runs["gpu"]


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text
    assert "CC BY 4.0" in text


# ---- the Makefile, with programs that only write down how they were called


def program(path, body):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)
    return path


def make(folder, *arguments, path="", **variables):
    keep = {"HOME": str(folder / "home"), "PATH": f"{path}:/usr/bin:/bin" if path else os.environ["PATH"]}
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, env={**keep, **variables})  # fmt: skip


def logging(folder, name="python", fails="never"):
    return program(folder / name, f'echo "$*" >> "{folder}/log"; [[ "$*" != *"{fails}"* ]]')


def test_broken_and_foreign_pythons_are_passed_over_and_the_message_says_what_to_do(course):
    program(course / "bin/python3.11", "exit 127")  # a version manager's shim
    program(course / "bin/python3.12", 'exec /bin/false')
    program(course / "bin/python3", "exit 1")
    done = make(course, "lab", path=str(course / "bin"))
    assert done.returncode != 0 and "Python 3.11 or 3.12 is needed" in done.stderr
    assert not (course / ".venv").exists()


@pytest.mark.parametrize("patch, taken", [(2, False), (4, False), (5, True)])
def test_a_python_too_old_for_the_lock_is_refused_and_named(course, patch, taken):
    pretend = f"import sys, platform; sys.version_info = (3, 11, {patch}); " \
              f"platform.python_version = lambda: '3.11.{patch}'"  # fmt: skip
    program(course / "bin/python3.11", f'[ "$1" = -c ] && exec {sys.executable} -c "{pretend}; $2"')
    done = make(course, "lab", PYTHON=str(course / "bin/python3.11"))
    assert ("creating .venv with" in done.stdout) == taken
    assert (f"Found: 3.11.{patch}." in done.stderr and "at least 3.11.5" in done.stderr) == (not taken)
    assert not (course / ".venv").exists()


def lab_flags(course, given):
    """How `make lab` calls JupyterLab, as a list of flags."""
    logging(course / ".venv/bin")
    assert make(course, "lab", f"LAB_FLAGS={given}").returncode == 0
    return (course / ".venv/bin/log").read_text().splitlines()[-1].split()


@pytest.mark.parametrize("given", ["--ip=0.0.0.0", "--ip 0.0.0.0", "--ServerApp.ip=0.0.0.0 --port=8899"])
def test_a_flag_of_ones_own_replaces_the_default_since_jupyterlab_takes_none_twice(course, given):
    flags = lab_flags(course, given)
    assert "--ip=127.0.0.1" not in flags and flags[-len(given.split()):] == given.split()
    assert "--log-level=WARN" in flags and "--ServerApp.root_dir=." in flags


def test_without_flags_of_ones_own_jupyterlab_listens_to_this_machine_alone(course):
    assert lab_flags(course, "").count("--ip=127.0.0.1") == 1


def test_a_python_without_venv_gets_the_debian_remedy(course):
    program(course / "bin/bare", '[[ "$*" != *ensurepip* ]]')
    done = make(course, "lab", PYTHON=str(course / "bin/bare"))
    assert done.returncode != 0 and "apt-get install python3-venv" in done.stderr


@pytest.mark.slow
def test_a_failed_install_leaves_no_stamp(course):
    (course / "requirements.txt").write_text("no-such-package==1\n")
    pip = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    done = make(course, "lesson", "N=00", f"PYTHON={sys.executable}", **pip)
    assert done.returncode != 0 and "No matching distribution" in done.stderr
    assert (course / ".venv/bin/python").exists() and not (course / ".venv/.ready").exists()


def test_set_up_happens_once_and_again_when_a_version_changes(course):
    logging(course / ".venv/bin")
    log = course / ".venv/bin/log"
    assert make(course, "lesson", "N=00").returncode == 0
    assert "install -r requirements.txt -c constraints.txt" in log.read_text()
    log.unlink()
    assert make(course, "lesson", "N=00").returncode == 0
    assert log.read_text().splitlines() == ["-m labkit fetch", "-m labkit lesson 00"]
    os.utime(course / "requirements.txt", (2**32, 2**32))
    assert make(course, "lesson", "N=00").returncode == 0
    assert "install -r requirements.txt" in log.read_text()


@pytest.mark.parametrize("step", ["ruff", "tests", "--check", "solutions/*.ipynb", "notebooks/*.ipynb"])
def test_any_failing_step_fails_make_test(course, step):
    logging(course / ".venv/bin")
    assert make(course, "test").returncode == 0
    logging(course / ".venv/bin", fails=step)
    done = make(course, "test")
    assert done.returncode != 0 and "FAILED" in done.stderr


def test_gpu_test_with_a_given_interpreter_builds_no_environment(course):
    logging(course / "bin", "python3")
    done = make(course, "gpu-test", path=str(course / "bin"), PYTHON="python3")
    assert done.returncode == 0, done.stderr
    calls = (course / "bin/log").read_text()
    assert not (course / ".venv").exists() and "install" not in calls
    assert "-m pytest -q -m gpu tests" in calls and "notebooks/*.ipynb" in calls


def test_ci_demands_the_tools_and_runs_make_test(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci/run", tmp_path / ".ci/run")
    program(tmp_path / "bin/apt-get", "exit 0")
    report = 'echo "$* tools=$LABKIT_REQUIRE_TOOLS"; read -r line && exit 9; exit "$CODE"'
    program(tmp_path / "bin/make", report)
    for code in (0, 3):
        environment = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "CODE": str(code)}
        done = subprocess.run(
            [tmp_path / ".ci/run"], env=environment, capture_output=True, text=True, input="x\n", timeout=30
        )
        assert (done.returncode, done.stdout) == (code, "test tools=1\n"), done.stderr


@pytest.mark.gpu
def test_the_doctor_is_content_with_the_card():
    findings = [*doctor._gpu(), *doctor._bf16(), *doctor._bitsandbytes()]
    assert "FAIL" not in {finding.state for finding in findings} and "none" not in findings[0].detail
