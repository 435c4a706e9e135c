"""The bundle: it holds what is committed and all wheels, or is not written; it installs with no network.

The course here is a small git repository with the real Makefile, and the index a folder of tiny wheels.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_offline import tool, unshare

from labkit import base_model
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.workshop import bundle, wheels

# A build backend of four lines, since the real one is no tiny wheel; the package it installs is this folder.
BACKEND = """\
import shutil
def build_editable(folder, config_settings=None, metadata_directory=None):
    shutil.copy("labkit-0.1-py3-none-any.whl", folder)
    return "labkit-0.1-py3-none-any.whl"
"""
PROJECT = """\
[build-system]
requires = ["builder>=1"]
build-backend = "backend"
backend-path = ["."]
[project]
name = "labkit"
version = "0.1"
"""
# `python -m labkit fetch` leaves what it was given where a test can look.
FETCH = """\
import os, socket, alpha, gamma
names = [name for _, name in socket.if_nameindex()]
open("fetched", "w").write(open(os.environ["LABKIT_BASE_GGUF"]).read() + " ".join(names))
"""
MODEL = "four bits a weight"


def wheel(folder, name, version="1.0", *requires, tag="py3-none-any"):
    """Write a wheel that holds a module of its name and nothing else."""
    info = f"{name}-{version}.dist-info"
    metadata = "\n".join(["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}",
                          *(f"Requires-Dist: {line}" for line in requires)])  # fmt: skip
    with zipfile.ZipFile(folder / f"{name}-{version}-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", metadata + "\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/RECORD", "")


def git(folder, *arguments):
    person = ["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *person, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def index(tmp_path, monkeypatch):
    """The only package index that pip knows: alpha wants beta (locked) and gamma (not); builder builds."""
    folder = tmp_path / "index"
    folder.mkdir()
    here, there = ('sys_platform == "linux"', 'sys_platform == "darwin"')
    wheel(folder, "alpha", "1.0", "beta>=1", f"gamma; {here}", f"delta; {there}")
    for name in ("beta", "gamma", "builder"):
        wheel(folder, name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    return folder


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A committed course that requires alpha, and a model's file of a few bytes."""
    folder = tmp_path / "course"
    (folder / "labkit").mkdir(parents=True)
    for name, text in {
        "requirements.txt": "alpha==1.0\n", "constraints.txt": "# locked\nalpha==1.0\nbeta==1.0\n",
        "pyproject.toml": PROJECT, "backend.py": BACKEND, "ipykernel.py": "",
        "labkit/__init__.py": "", "labkit/__main__.py": FETCH,
    }.items():  # fmt: skip
        (folder / name).write_text(text)
    wheel(folder, "labkit", "0.1")
    shutil.copy(ROOT / "Makefile", folder)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "all")
    (tmp_path / "own.gguf").write_text(MODEL)
    monkeypatch.setenv("LABKIT_BASE_GGUF", str(tmp_path / "own.gguf"))
    monkeypatch.setattr(base_model, "GGUF_BYTES", len(MODEL))
    monkeypatch.setattr(base_model, "GGUF_SHA256", hashlib.sha256(MODEL.encode()).hexdigest())
    return folder


@pytest.fixture
def unpacked(course, index, tmp_path):
    """The bundle of that course, written and unpacked in a folder with a space in its name."""
    bundle.write(tmp_path / "out.tar", wheels.target(), course)
    with tarfile.open(tmp_path / "out.tar") as archive:
        archive.extractall(tmp_path / "usb stick")
    return tmp_path / "usb stick" / bundle.FOLDER


def install(folder, *before, **variables):
    ours = ("PIP_", "LABKIT_", "PYTHON")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    variables = {**kept, "PYTHON": sys.executable, **variables}
    return subprocess.run([*before, "sh", str(folder / "install.sh")], env=variables, capture_output=True,
                          text=True, timeout=120)  # fmt: skip


def wheels_in(folder):
    return sorted(path.name.split("-")[0] for path in (folder / "bundle/wheels").iterdir())


# ---- what is in it


def test_it_holds_what_is_committed_and_all_wheels_with_their_checksums(course, index, tmp_path, capsys):
    (course / "backend.py").write_text("changed\n")
    (course / "notes.txt").write_text("of my own\n")
    manifest = bundle.write(tmp_path / "out.tar", wheels.target(), course)
    assert "not committed stay out" in capsys.readouterr().out
    with tarfile.open(tmp_path / "out.tar") as archive:
        names = {entry.name: entry for entry in archive.getmembers() if entry.isfile()}
        read = {name: archive.extractfile(entry).read() for name, entry in names.items()}
    top = bundle.FOLDER
    assert read[f"{top}/backend.py"].decode() == BACKEND and f"{top}/notes.txt" not in names
    assert {(entry.uid, entry.uname) for entry in names.values()} == {(0, "")}
    assert json.loads(read[f"{top}/bundle/manifest.json"]) == manifest
    listed = {f"{top}/{name}" for name in manifest["files"]} | {f"{top}/bundle/manifest.json"}
    assert listed == {name for name in names if name.startswith(f"{top}/bundle/")}
    for name, entry in manifest["files"].items():
        data = read[f"{top}/{name}"]
        assert entry == {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    found = {Path(name).name.split("-")[0] for name in manifest["files"] if name.endswith(".whl")}
    assert found == {"alpha", "beta", "gamma", "builder"}  # gamma: alpha wants it, on Linux
    assert list(tmp_path.glob(".part-*")) == []


@pytest.mark.parametrize("lost", ["beta", "gamma", "builder"])
def test_a_wheel_that_no_index_has_is_named_and_nothing_is_written(course, index, tmp_path, lost):
    (index / f"{lost}-1.0-py3-none-any.whl").unlink()
    (tmp_path / "out.tar").write_text("an earlier one")
    with pytest.raises(LabkitError, match=f"could not download(.|\n)*{lost}"):
        bundle.write(tmp_path / "out.tar", wheels.target(), course)
    assert (tmp_path / "out.tar").read_text() == "an earlier one" and not list(tmp_path.glob(".part-*"))


def test_a_lock_that_contradicts_what_a_package_wants_is_no_endless_loop(course, index, tmp_path):
    wheel(index, "alpha", "1.0", "beta>=2")
    wheel(index, "beta", "2.0")
    with pytest.raises(LabkitError, match=r"want beta>=2.*constraints.txt contradicts"):
        wheels.fetch(course, tmp_path / "wheels", wheels.target())


def test_a_model_that_is_not_the_course_s_is_refused(course, index, tmp_path):
    (tmp_path / "own.gguf").write_text(MODEL.replace("four", "five"))
    with pytest.raises(LabkitError, match="SHA-256"):
        bundle.write(tmp_path / "out.tar", wheels.target(), course)
    assert not (tmp_path / "out.tar").exists()


def test_a_folder_without_git_is_refused(index, tmp_path, monkeypatch):
    (tmp_path / "plain").mkdir()
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    with pytest.raises(LabkitError, match="in a clone"):
        bundle.write(tmp_path / "out.tar", wheels.target(), tmp_path / "plain")


def test_what_is_missing_follows_markers_extras_and_versions(tmp_path):
    here = wheels.target().markers
    wheel(tmp_path, "a", "1.0", "b[fast]>=1", 'old; python_version < "3"')
    wheel(tmp_path, "b", "1.5", 'c; extra == "fast"', 'd; extra == "other"')
    assert wheels.missing(tmp_path, ["a"], here) == ["c"]
    wheel(tmp_path, "c", "2.0+cpu")
    assert wheels.missing(tmp_path, ["a"], here) == []
    assert wheels.missing(tmp_path, ["a", "b[other]", "c==3"], here) == ["c==3", "d"]
    assert wheels.missing(tmp_path, ["a"], here | {"python_version": "2.7"}) == ["old"]


# ---- for which machine


@pytest.mark.slow
def test_torch_is_of_the_build_that_is_installed(course, index, tmp_path, monkeypatch):
    for version in ("2.0", "2.0+cpu", "2.0+cu130"):  # pip alone takes the last
        wheel(index, "torch", version)
    (course / "constraints.txt").write_text("alpha==1.0\nbeta==1.0\ntorch==2.0\n")

    def taken(installed, aim):
        monkeypatch.setattr(wheels.importlib.metadata, "version", lambda name: installed)
        shutil.rmtree(tmp_path / "wheels", ignore_errors=True)
        wheels.fetch(course, tmp_path / "wheels", aim)
        return [path.name.split("-")[1] for path in (tmp_path / "wheels").glob("torch-*")]

    assert taken("2.0+cpu", wheels.target()) == ["2.0+cpu"]
    assert taken("2.0", wheels.target()) == ["2.0"]
    assert taken("2.0+cpu", wheels.target("linux-aarch64")) == ["2.0+cu130"]  # the index decides
    assert wheels._torch_build("2.1") == "2.1"  # another version than the installed one is locked
    with pytest.raises(LabkitError, match="PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cu999"):
        taken("2.0+cu999", wheels.target())


@pytest.mark.parametrize("name, fits, other", [
    ("linux-x86_64", "manylinux_2_28_x86_64", "manylinux_2_35_x86_64"),
    ("linux-aarch64", "manylinux_2_17_aarch64.manylinux2014_aarch64", "manylinux_2_28_x86_64"),
    ("macos-arm64", "macosx_11_0_arm64", "macosx_26_0_arm64"),
])  # fmt: skip
def test_another_machine_gets_wheels_and_packages_of_its_own(course, index, tmp_path, name, fits, other):
    (index / "beta-1.0-py3-none-any.whl").unlink()
    wheel(index, "beta", tag=f"cp312-cp312-{other}")
    wheel(index, "beta", tag=f"cp311-cp311-{fits}")
    wheel(index, "delta")
    aim = wheels.target(name, "3.12")
    with pytest.raises(LabkitError, match=f"{name}, Python 3.12(.|\n)*beta"):
        wheels.fetch(course, tmp_path / "wheels", aim)
    wheel(index, "beta", tag=f"cp312-cp312-{fits}")
    shutil.rmtree(tmp_path / "wheels")
    wheels.fetch(course, tmp_path / "wheels", aim)
    found = {path.name.split("-")[0] for path in (tmp_path / "wheels").iterdir()}
    assert found == {"alpha", "beta", "builder", "delta" if name.startswith("macos") else "gamma"}
    wanted = f'wanted="3.12 {"Darwin arm64" if name.startswith("macos") else f"Linux {name[6:]}"}"'
    assert wanted in bundle.installer(aim)


# ---- installing


def test_a_damaged_or_missing_file_is_named_before_anything_is_installed(unpacked):
    alpha, model = unpacked / "bundle/wheels/alpha-1.0-py3-none-any.whl", unpacked / "bundle/model"
    data = bytearray(alpha.read_bytes())
    data[40] ^= 1
    alpha.write_bytes(data)
    (model / base_model.GGUF).write_text(MODEL[:-1])
    (unpacked / "bundle/wheels/gamma-1.0-py3-none-any.whl").unlink()
    done = install(unpacked)
    assert done.returncode != 0 and not (unpacked / ".venv").exists()
    for said in ("alpha-1.0-py3-none-any.whl is damaged", "gamma-1.0-py3-none-any.whl is missing",
                 f"{base_model.GGUF} has 17 bytes instead of 18"):  # fmt: skip
        assert said in done.stderr


def test_another_python_is_refused_with_the_remedy(unpacked, tmp_path):
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.10 Linux x86_64\n")
    other.chmod(0o755)
    done = install(unpacked, PYTHON=str(other))
    assert done.returncode != 0 and "PYTHON=/path/to/python" in done.stderr
    assert not (unpacked / ".venv").exists()


@pytest.mark.slow
def test_it_installs_with_the_network_cut_off(unpacked, demand):
    works = tool("unshare") and subprocess.run([*unshare(), "true"], capture_output=True).returncode == 0
    demand(works, "unshare, and the right to make a network namespace (root, or user namespaces)")
    done = install(unpacked, *unshare())
    assert done.returncode == 0, done.stdout + done.stderr
    assert (unpacked / "fetched").read_text() == MODEL + "lo"  # by the venv's Python, with alpha and gamma
    assert (unpacked / ".venv/.ready").exists() and "ready: make lab" in done.stdout
    again = subprocess.run(["make", "-n", "setup"], cwd=unpacked, capture_output=True, text=True)
    assert "pip" not in again.stdout  # `make lab` does not go to an index afterwards


# ---- the container, as far as it can be read


def test_the_container_files_name_what_exists():
    docker = (ROOT / "Dockerfile").read_text()
    stages = re.findall(r"^FROM \S+ AS (\w+)$", docker, re.MULTILINE)
    settings = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text())
    assert settings["build"]["target"] in stages
    assert f"useradd --create-home --shell /bin/bash {settings['remoteUser']} " in docker
    assert docker.index("USER learner") < docker.index("RUN PIP_NO_CACHE_DIR=1 make setup")
    assert re.search(r"^ARG BASE=python:3\.1[12]-slim$", docker, re.MULTILINE)


def test_the_image_holds_all_that_set_up_and_lessons_need_and_no_environment():
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    top = {line.split("/")[0] for line in listed.splitlines()}
    left_out = {name for name in top if name[0] != "."} - kept
    assert left_out <= {"environment.yml", "Dockerfile"}
