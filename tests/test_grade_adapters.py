"""Submitted adapters: scored with the numbers that were handed in, or refused in plain words."""
# ruff: noqa: E501 (a table: one refusal a line where it fits)

import json
import struct
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from labkit.errors import LabkitError
from labkit.exercises import adapters
from labkit.exercises.grade import collect
from labkit.exercises.report import Parts

WEIGHTS, SETTINGS = adapters.WEIGHTS, adapters.SETTINGS


@pytest.fixture
def submitted(tmp_path, tiny):
    """Make a folder with an adapter whose weights are not 0, and the model it was saved from."""

    def make(name="ada", **options):
        torch.manual_seed(1)
        given = {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "down_proj"], "task_type": "CAUSAL_LM"}
        model = get_peft_model(tiny(), LoraConfig(**{**given, **options}))
        for weight_name, weight in model.named_parameters():
            if "lora_B" in weight_name:
                torch.nn.init.normal_(weight)
        model.save_pretrained(tmp_path / name)
        return tmp_path / name, model.eval()

    return make


@pytest.fixture
def scored(monkeypatch):
    """Stands in for the tickets score: keeps the logits of what was to be scored, and says 87% exact."""
    seen = []

    def score(model, tokenizer, rows, **options):
        with torch.no_grad():
            seen.append(model(torch.arange(8)[None]).logits)
        return SimpleNamespace(exact=0.87)

    monkeypatch.setattr("labkit.evaluate.score", score)
    return seen


def grade(folders, model, parts=None):
    return adapters.grade(folders, "s", 40, parts or Parts(None), lambda: (model, None))


@pytest.mark.parametrize("options", [
    {}, {"use_rslora": True}, {"use_dora": True}, {"target_modules": "all-linear", "r": 1},
])  # fmt: skip
def test_an_adapter_is_scored_as_it_was_handed_in_and_leaves_the_base_as_it_was(submitted, scored, tiny, options):
    folder, learners = submitted(**options)
    base = tiny()
    with torch.no_grad():
        wanted, before = learners(torch.arange(8)[None]).logits, base(torch.arange(8)[None]).logits
    (result,) = grade({"ada": folder}, base)
    assert (result.submission, result.exercise, result.points, result.max_points) == ("ada", "adapter", 8, 10)
    assert result.message.startswith("87.0% of 40 rows exact (95%: ")
    assert torch.allclose(scored[0], wanted, atol=1e-5) and not torch.allclose(wanted, before, atol=1e-2)
    with torch.no_grad():
        assert torch.equal(base(torch.arange(8)[None]).logits, before)
    assert not [n for n, _ in base.named_parameters() if "lora" in n]


def settings(**changes):
    def change(folder):
        path = folder / SETTINGS
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


def tensors(change):
    def changed(folder):
        state = load_file(folder / WEIGHTS)
        change(state, next(n for n in state if "lora_A" in n))
        save_file(state, folder / WEIGHTS)

    return changed


def pickled(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def linked(folder):
    (folder / WEIGHTS).rename(folder / "elsewhere")
    (folder / WEIGHTS).symlink_to(folder / "elsewhere")


def content(make, name=WEIGHTS):
    return lambda folder: (folder / name).write_bytes(make((folder / name).read_bytes()))


BAD = {
    "a pickle": (pickled, "adapter_model.bin may hold code and is not loaded"),
    "a link": (linked, "there is no plain file adapter_model.safetensors"),
    "no settings": (lambda folder: (folder / SETTINGS).unlink(), "there is no plain file adapter_config.json"),
    "settings that are none": (content(lambda old: b"[" * 10**4, SETTINGS), "adapter_config.json is not readable"),
    "large settings": (content(lambda old: b" " * 10**5, SETTINGS), "is larger than 65,536 bytes"),
    "another method": (settings(peft_type="IA3"), "peft_type = IA3 is not supported"),
    "more than an adapter": (settings(modules_to_save=["lm_head"]), "modules_to_save = ['lm_head'] is not"),
    "a rank for each layer": (settings(rank_pattern={"q": 9}), "rank_pattern = {'q': 9} is not supported"),
    "a rank that fills the memory": (settings(r=10**9), "r must be a whole number from 1 to 256"),
    "another rank": (settings(r=4), "its weights do not fit this base model and its settings"),
    "no alpha": (settings(lora_alpha=float("nan")), "lora_alpha must be a number"),
    "modules by a pattern": (settings(target_modules="(a+)+$"), "target_modules must be a list"),
    "unknown modules": (settings(target_modules=["q_proj", "lm_head"]), "target_modules must be a list"),
    "fewer modules": (settings(target_modules=["q_proj"]), "is no weight of such an adapter"),
    "cut off": (content(lambda old: old[:-8]), "is cut off, or holds more than its header says"),
    "no safetensors": (content(lambda old: b"\x80\x04K\x01."), "is not a readable safetensors file"),
    "an endless header": (content(lambda old: struct.pack("<Q", 2**62) + old[8:]), "not a readable safetensors"),
    "no numbers": (tensors(lambda s, a: s[a].fill_(float("nan"))), "its weights are not all finite numbers"),
    "whole numbers": (tensors(lambda s, a: s.update({a: s[a].long()})), "is I64 or of a wrong size"),
    "one missing": (tensors(lambda s, a: s.pop(a)), "its weights do not fit this base model"),
    "another shape": (tensors(lambda s, a: s.update({a: s[a][:, :5].clone()})), "do not fit this base model"),
    "a weight of the base": (
        tensors(lambda s, a: s.update({"model.embed_tokens.weight": s[a].clone()})), "is no weight of such an adapter"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_adapter_is_refused_and_does_not_stop_the_rest(submitted, scored, tiny, name):
    change, report = BAD[name]
    bad, good = submitted("bad")[0], submitted("good")[0]
    change(bad)
    first, second = grade({"bad": bad, "good": good}, tiny())
    assert (first.points, first.max_points) == (0, 10) and report in first.message
    assert first.message.isprintable() and (second.points, len(scored)) == (8, 1)


def test_a_weights_file_over_the_limit_is_not_read(submitted, scored, tiny, monkeypatch):
    folder, _ = submitted()
    monkeypatch.setitem(adapters.LARGEST, WEIGHTS, 1000)
    (result,) = grade({"ada": folder}, tiny())
    assert "is larger than 1,000 bytes" in result.message and not scored


def test_rows_come_from_the_seed_and_are_none_of_the_course():
    from labkit.tasks import tickets

    first, again, other = (adapters.draw(seed, 30) for seed in ("a", "a", "b"))
    assert first == again and first != other
    messages = [row["message"] for row in first]
    assert messages != [row["message"] for row in tickets.build("test", 30, "a")]
    committed = {row["message"] for split in tickets.SPLITS for row in tickets.read(split)}
    assert len(committed.intersection(messages)) <= 3       # a short message may come up twice


def test_a_score_is_kept_for_a_run_that_goes_on(submitted, scored, tiny, tmp_path):
    folder, _ = submitted()
    first = grade({"ada": folder}, tiny(), Parts(tmp_path / "parts"))
    assert grade({"bob": folder}, tiny(), Parts(tmp_path / "parts", resume=True))[0].message == first[0].message
    assert len(scored) == 1
    grade({"bob": folder}, tiny(), Parts(tmp_path / "parts"))
    assert len(scored) == 2


def test_folders_of_adapters_are_found_only_when_asked_for(submitted, tmp_path):
    submitted("eve/run/last")
    assert list(collect(tmp_path, adapters=True)[1]) == ["eve/run/last"]
    with pytest.raises(LabkitError, match="no notebooks"):
        collect(tmp_path)
