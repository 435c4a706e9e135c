"""Bring your own data: trained on in small, chosen on validation rows, resumed, and said in plain words."""

import json
import os
from pathlib import Path

import pytest

from labkit.bench import byod, byod_report, jobs
from labkit.errors import LabkitError

LABELS = ("return", "delay", "praise")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder to work in with a CSV of 60 rows, sorted by label; the smoke profile."""
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.chdir(tmp_path)
    lines = [f"Message {i} about my parcel,{LABELS[i // 20]}\n" for i in range(60)]
    Path("my.csv").write_text("text,category\n" + "".join(lines))
    return Path("my.csv")


@pytest.fixture
def small(tiny, tokenizer, monkeypatch):
    """The tiny model in place of the base model."""
    monkeypatch.setattr(byod.base_model, "load_model", tiny)
    monkeypatch.setattr(byod.base_model, "load_tokenizer", lambda: tokenizer)


@pytest.fixture
def pretend(small, monkeypatch):
    """No training: 0.002 is best on validation and worst on test; returns the jobs asked for."""
    asked = []

    def job(name, settings, progress=False):
        asked.append(name)
        best = name.startswith("lr-0.002")
        return {"validation": 0.9 if best else 0.5, "test": 1 / 3 if best else 1.0, "detail": {"valid": 1.0},
                "test rows": "3:80" if best else "3:e0", "training seconds": 2.0, "seconds": 3.0,
                "peak_bytes": 7, "mistakes": [["a question", "an answer", "another"]]}  # fmt: skip

    monkeypatch.setattr(byod, "job", job)
    return asked


def test_a_run_trains_scores_prints_and_writes_only_what_it_is_told_to(data, small, capsys):
    before = set(Path.cwd().iterdir())
    arguments = "my.csv --rows 24 --lr 1e-3 2e-3 --seeds 0 1 --out result.json".split()
    assert byod.main(arguments) == 0
    text = capsys.readouterr().out
    for words in ("24 train, 3 validation, 3 test rows, 3 labels", "'Answer with the label.'", "chosen",
                  "95% interval", "commonest answer", "wrong: 'Message"):  # fmt: skip
        assert words in text
    whole = json.loads(Path("result.json").read_text())
    exact = whole["exact"]
    assert set(whole["validation by rate"]) == {"0.001", "0.002"}
    assert set(whole["exact by seed"]) == {"0", "1"}
    assert exact["rows"] == 3 and exact["low"] <= exact["mean"] <= exact["high"]
    assert whole["settings"]["method"] == "lora" and whole["settings"]["steps"] == 2
    assert "torch" in whole["versions"] and whole["machine"]["device"] and whole["wall seconds"] > 0
    assert {path.name for path in set(Path.cwd().iterdir()) - before} == {"out", "result.json"}


def test_full_finetuning_trains_every_weight_at_its_own_rates(data, small, monkeypatch):
    trained = []
    fit = __import__("labkit").fit

    def watched(model, rows, tokenizer, **options):
        trained.append((sum(p.numel() for p in model.parameters() if p.requires_grad), options["lr"]))
        return fit(model, rows, tokenizer, **options)

    monkeypatch.setattr("labkit.fit", watched, raising=False)
    byod.main(["my.csv", "--rows", "8", "--full"])
    byod.main(["my.csv", "--rows", "8", "--lr", "1e-3"])
    assert [rate for _, rate in trained] == [*byod.RATES["full"], 1e-3]
    assert trained[0][0] > 10 * trained[2][0]


def test_the_rate_is_chosen_on_validation_rows_and_only_then_tested(data, pretend, capsys):
    byod.main(["my.csv", "--seeds", "3", "4", "4", "--out", "result.json"])
    assert pretend == ["lr-0.001-seed-3", "lr-0.002-seed-3", "lr-0.002-seed-4"]
    whole = json.loads(Path("result.json").read_text())
    assert whole["rate"] == 0.002 and whole["exact"]["mean"] == 1 / 3
    assert whole["exact by seed"] == {"3": 1 / 3, "4": 1 / 3}
    assert "'a question' -> 'an answer', wanted 'another'" in capsys.readouterr().out


def test_a_second_run_does_only_what_is_missing_and_other_data_everything(data, pretend):
    byod.main(["my.csv"])
    byod.main(["my.csv", "--seeds", "0", "1"])
    assert pretend == ["lr-0.001-seed-0", "lr-0.002-seed-0", "lr-0.002-seed-1"]
    data.write_text(data.read_text().replace("Message 7 ", "Message seven "))
    byod.main(["my.csv"])
    assert len(pretend) == 5
    byod.main(["my.csv", "--steps", "5"])
    assert len(pretend) == 7


def test_jobs_side_by_side_are_processes_that_find_their_settings(data, small, monkeypatch):
    started = []

    def run(bench, names, folder, count, digest):
        started.append((bench, list(names), count))
        assert Path(folder).is_absolute()
        for name in names:  # what each process does
            byod.main(["--job", name, "--folder", str(folder)])
        return {name: json.loads(jobs.result_file(folder, name).read_text()) for name in names}

    monkeypatch.setattr(jobs, "run", run)
    byod.main(["my.csv", "--rows", "8", "--jobs", "2", "--lr", "1e-3"])
    assert started == [("byod", ["lr-0.001-seed-0"], 2)]


def test_a_sample_of_a_sorted_file_has_every_label_and_is_nested():
    from datasets import Dataset

    rows = Dataset.from_list([{"id": f"line {i}", "answer": LABELS[i // 100]} for i in range(300)])
    few, more = byod.sample(rows, 30), byod.sample(rows, 60)
    assert set(few["answer"]) == set(LABELS) and set(few["id"]) < set(more["id"])
    assert few["id"] == sorted(few["id"], key=lambda one: int(one.split()[1])) and len(few) == 30
    assert byod.sample(rows, None) is rows and byod.sample(rows, 300) is rows


def test_steps_are_eight_passes_up_to_the_budget(data, small):
    options = byod._options(["my.csv", "--batch", "1", "--length", "64"])
    options.most_steps = 800
    some, settings = byod._prepare(options)
    tokens = sum(len(encoded) for encoded in _encoded(some["train"]))
    assert abs(settings["steps"] - 8 * tokens / 64) <= 1
    options.most_steps = 9
    assert byod._prepare(options)[1]["steps"] == 9
    options.steps = 11
    assert byod._prepare(options)[1]["steps"] == 11


def _encoded(rows):
    from labkit.train.rows import encode

    return [encode(row, byod.base_model.load_tokenizer()) for row in rows]


def test_the_default_budget_on_a_gpu_is_800_steps_at_two_rates_and_every_test_row():
    assert (byod.GPU["steps"], byod.GPU["batch"], byod.GPU["length"]) == (800, 8, 512)
    assert byod.RATES["lora"] == [1e-3, 2e-3] and byod.GPU["test"] is None


def test_the_system_sentence_names_the_column_and_may_be_given(data, small):
    def sentence(*arguments):
        return byod._prepare(byod._options(["my.csv", *arguments]))[1]["load"].get("system")

    assert sentence() == "Answer with the label."
    assert sentence("--answer", "category") == "Answer with the category."
    assert sentence("--system", "Sort it.") == "Sort it."
    data.write_text("text,answer\n" + "".join(f"question {i},answer number {i}\n" for i in range(30)))
    assert sentence() is None


REFUSED = {
    "no data": ([], "name your data"),
    "a file that does not exist": (["mine.csv"], "Did you mean 'my.csv'"),
    "a column that does not exist": (["my.csv", "--prompt", "txt"], "no column 'txt'"),
    "preferences": (["pairs.jsonl"], "holds preferences"),
    "rows too long": (["my.csv", "--length", "8"], "60 of 60 rows"),
    "a result in no folder": (["my.csv", "--out", "no/such/x.json"], "no is no|no/such is no folder"),
    "a result that is a folder": (["my.csv", "--out", "."], "is a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_work_is_refused_before_anything_is_trained(data, pretend, name):
    lines = [json.dumps({"prompt": f"q{i}", "chosen": "a", "rejected": "b"}) for i in range(9)]
    Path("pairs.jsonl").write_text("\n".join(lines))
    arguments, words = REFUSED[name]
    with pytest.raises(LabkitError, match=words):
        byod.main(arguments)
    assert pretend == [] and not Path("out").exists()


@pytest.mark.parametrize("arguments", [["--lr", "0"], ["--lr", "x"], ["--steps", "0"], ["--seeds", "a"]])
def test_wrong_numbers_are_refused_by_name(data, arguments, capsys):
    with pytest.raises(SystemExit):
        byod.main(["my.csv", *arguments])
    assert arguments[0] in capsys.readouterr().err


def test_a_result_that_cannot_be_written_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(LabkitError, match="No space left.*is kept"):
        byod_report.write(tmp_path / "x.json", {"a": 1})
    assert list(tmp_path.iterdir()) == []


def test_a_course_family_is_sent_to_its_own_benchmark():
    with pytest.raises(LabkitError, match="course family.*labkit bench families"):
        byod.main(["sql"])
