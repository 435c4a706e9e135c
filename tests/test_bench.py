"""Benchmark jobs: side by side, resumed, and loud when one fails."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from labkit.bench import families, form_json, jobs, main
from labkit.errors import LabkitError
from labkit.paths import ROOT
from labkit.records import ledger


@pytest.fixture
def started(monkeypatch):
    """Replace real jobs by ones that are done at once; returns (name, card) of those started, in order."""
    found = []

    def start(bench, name, folder, card, beside=1):
        found.append((name, card))
        bad = name.startswith("bad")
        (folder / f"{name}.log").write_text("the disk is on fire" if bad else "")
        if not bad:
            jobs.write(folder, name, {"name": name})
        return SimpleNamespace(exitcode=3 if bad else 0, kill=lambda: None)

    monkeypatch.setattr(jobs, "_start", start)
    return found


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_job_runs_once_however_many_run_side_by_side(started, tmp_path, count):
    results = jobs.run("x", ["a", "b", "c"], tmp_path, count)
    assert [results[name]["name"] for name in "abc"] == ["a", "b", "c"]
    assert started == [("a", None), ("b", None), ("c", None)]


@pytest.mark.parametrize(("visible", "count", "found"), [
    (None, 0, [None]), (None, 2, ["0", "1"]), ("2,5", 2, ["2", "5"]),
    ("", 0, [None]), ("GPU-a", 1, ["GPU-a"]),
])  # fmt: skip
def test_jobs_may_use_the_cards_that_are_visible(monkeypatch, visible, count, found):
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert jobs.cards() == found


def test_jobs_spread_over_the_cards(monkeypatch, started, tmp_path):
    monkeypatch.setattr(jobs, "cards", lambda: ["3", "7"])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    jobs.run("x", ["a", "b", "c", "d", "e"], tmp_path, 2)
    assert started == [("a", "3"), ("b", "7"), ("c", "3"), ("d", "7"), ("e", "3")]


def test_a_job_sees_its_card_and_prints_to_its_log(monkeypatch, tmp_path):
    def command(given):
        print(given, *map(os.environ.get, ("CUDA_VISIBLE_DEVICES", "LABKIT_MODEL")), os.getcwd())
        return 5

    monkeypatch.setattr("labkit.__main__.main", command)
    log, given = tmp_path / "a.log", {**os.environ, "LABKIT_MODEL": "mine"}
    work = {"target": jobs._work, "args": (["bench", "x"], log, "7", given)}
    process = multiprocessing.get_context("fork").Process(**work)
    process.start()
    process.join(60)
    assert process.exitcode == 5 and log.read_text() == f"['bench', 'x'] 7 mine {ROOT}\n"


def test_a_job_ends_with_its_benchmark_however_that_ended(tmp_path):
    code = f"""
import os, time
from labkit.bench import jobs

def work(*_):
    jobs._end_with_starter()
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    jobs.PRELOADED.clear()
    jobs._work = work
    jobs.run("x", ["a"], {str(tmp_path)!r})
"""
    script = tmp_path / "bench.py"
    script.write_text(code)
    bench = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    job = int(bench.stdout.readline())
    bench.kill()
    try:
        bench.communicate(timeout=60)  # the pipe ends when the last process that prints to it has ended
    except subprocess.TimeoutExpired:
        os.kill(job, signal.SIGKILL)
        pytest.fail("the job outlived its benchmark")


def test_a_real_job_is_a_process_whose_failure_is_told(tmp_path):
    with pytest.raises(LabkitError, match="job a of nonsense failed(.|\n)*form-json"):
        jobs.run("nonsense", ["a"], tmp_path)


def test_a_second_run_does_only_what_is_missing(started, tmp_path):
    jobs.run("x", ["a", "b"], tmp_path)
    jobs.run("x", ["a", "b", "c"], tmp_path)
    assert [name for name, _ in started] == ["a", "b", "c"]


def test_a_failing_job_is_named_with_its_output_and_the_finished_ones_are_kept(started, tmp_path):
    with pytest.raises(LabkitError, match="job bad of x failed(.|\n)*the disk is on fire"):
        jobs.run("x", ["a", "bad"], tmp_path)
    assert jobs.result_file(tmp_path, "a").exists() and not jobs.result_file(tmp_path, "bad").exists()


def test_one_failing_job_lets_the_others_finish_and_three_end_the_run(started, tmp_path):
    with pytest.raises(LabkitError, match="job bad of x failed; "):
        jobs.run("x", ["bad", "a", "b"], tmp_path)
    assert [name for name, _ in started] == ["bad", "a", "b"]
    with pytest.raises(LabkitError, match="job bad of x failed .and so did bad2, bad3.; "):
        jobs.run("x", ["bad", "bad2", "c", "bad3", "d"], tmp_path)
    assert jobs.result_file(tmp_path, "c").exists() and "d" not in dict(started)


def test_a_result_is_written_whole_and_leaves_no_temporary_file(tmp_path):
    jobs.write(tmp_path, "a", {"valid": 1})
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == {"valid": 1, "bands": ledger.bands()}


def test_an_unknown_benchmark_is_refused_by_name():
    with pytest.raises(LabkitError, match="form-json"):
        main(["nonsense"])


def test_form_json_tries_every_prompt_of_the_fixed_budget_and_three_seeds():
    assert len(form_json._prompts()) == 6 and len(set(form_json.SEEDS)) == 3


# ---- first scores of the families


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """No real jobs: prompt 1 and the rate 2e-4 are best on validation rows and worst on test rows."""
    written = []

    def run(bench, names, folder, count, digest):
        def result(name):
            kind, family, rest = name.split("-", 2)
            best = rest in ("1", "2e-4")
            seen, unseen = (0.9, 0.2) if best else (0.1, 0.8)
            costs = {"seconds": 2.0, "training seconds": 1.0, "peak_bytes": 3}
            made = {"prompt": f"{family} prompt {rest}", "rate": rest, "rows": f"8:0{int(best)}"}
            return {"validation": seen, "test": unseen, "detail": {}, **made, **costs}

        return {name: result(name) for name in names}

    monkeypatch.setattr(jobs, "run", run)
    monkeypatch.setattr(families, "prompts", lambda name: {"a": None, "b": None, "c": None})
    monkeypatch.setattr(families.store, "data_digest", lambda *names: {})
    path = tmp_path / "x.json"
    monkeypatch.setattr(families.store, "write", lambda *args, **whole: written.append(whole) or path)
    return written


def test_what_is_best_on_validation_rows_is_scored_on_test_rows(pretend):
    assert families.main(["--folder", "unused"]) == 0
    [whole] = pretend
    sql, names = whole["values"]["sql"], families.FAMILIES
    assert set(whole["values"]) == set(names)
    assert set(whole["scores"]) == {f"{name}.{how}" for name in names for how in ("prompted", "full")}
    assert (sql["best prompt"], sql["rate"]) == ("sql prompt 1", "2e-4")
    assert sql["full"] == sql["prompted"] == 0.2
    assert whole["scores"]["sql.full"]["rows"] == ["8:01"]


def test_a_trial_of_some_families_writes_no_record(pretend, capsys):
    assert families.main(["--folder", "unused", "--only", "sql"]) == 0
    assert pretend == [] and "sql: best prompt 20.0%" in capsys.readouterr().out


def test_a_job_of_a_family_trains_and_scores_validation_and_test(tiny, tokenizer, monkeypatch):
    monkeypatch.setattr("labkit.load_model", tiny, raising=False)
    monkeypatch.setattr(families, "BUDGET", {"steps": 1, "batch": 1, "length": 256})
    monkeypatch.setattr(families, "TRIED", 2)
    monkeypatch.setattr(families, "SCORED", 3)
    full = families.job("full-tickets-1e-4")
    assert full["rate"] == "1e-4" and full["rows"].startswith("3:") and {"validation", "test"} <= set(full)
    tried = families.job("try-tickets-0")
    assert tried["prompt"] == "one sentence" and "test" not in tried and tried["rate"] is None


def test_a_family_without_prompts_is_named():
    with pytest.raises(LabkitError, match="general"):
        families.prompts("general")
