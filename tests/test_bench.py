"""Benchmark jobs: side by side, resumed, and loud when one fails."""

import subprocess
import sys

import pytest

from labkit.bench import form_json, jobs, main
from labkit.errors import LabkitError

WRITES = "import json, sys; json.dump({'name': sys.argv[1]}, open(sys.argv[2], 'w'))"
FAILS = "print('the disk is on fire'); raise SystemExit(3)"


@pytest.fixture
def started(monkeypatch):
    """Replace real jobs by tiny ones; returns the names started, in order."""
    names = []

    def start(bench, name, folder):
        names.append(name)
        with open(folder / f"{name}.log", "w") as log:
            code = FAILS if name.startswith("bad") else WRITES
            command = [sys.executable, "-c", code, name, str(jobs.result_file(folder, name))]
            return subprocess.Popen(command, stdout=log, stderr=log)

    monkeypatch.setattr(jobs, "_start", start)
    return names


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_job_runs_once_however_many_run_side_by_side(started, tmp_path, count):
    results = jobs.run("x", ["a", "b", "c"], tmp_path, count)
    assert results == {name: {"name": name} for name in "abc"}
    assert sorted(started) == ["a", "b", "c"]


def test_a_second_run_does_only_what_is_missing(started, tmp_path):
    jobs.run("x", ["a", "b"], tmp_path)
    jobs.run("x", ["a", "b", "c"], tmp_path)
    assert started == ["a", "b", "c"]


def test_a_failing_job_is_named_with_its_output_and_the_finished_ones_are_kept(started, tmp_path):
    with pytest.raises(LabkitError, match="job bad of x failed(.|\n)*the disk is on fire"):
        jobs.run("x", ["a", "bad"], tmp_path)
    assert jobs.result_file(tmp_path, "a").exists() and not jobs.result_file(tmp_path, "bad").exists()


def test_a_result_is_written_whole_and_leaves_no_temporary_file(tmp_path):
    jobs.write(tmp_path, "a", {"valid": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_an_unknown_benchmark_is_refused_by_name():
    with pytest.raises(LabkitError, match="form-json"):
        main(["nonsense"])


def test_form_json_tries_every_prompt_of_the_fixed_budget_and_three_seeds():
    assert len(form_json._prompts()) == 6 and len(set(form_json.SEEDS)) == 3
