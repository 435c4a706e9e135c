"""`bench inference`: what each arm runs, turns and ratios, and a record to judge claims from."""

import copy
import functools
import json
from types import SimpleNamespace

import pytest
import torch

from labkit import methods
from labkit.bench import inference, inference_values, jobs
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.records import judge, ledger, store

CLAIMS = [claim for claim in ledger.ledger() if claim["record"] == inference.NAME]
REPEATS = 10
RATIOS = {"base": 1.0, "lora": 2.0, "lora merged": 1.0, "ia3": 1.4, "ia3 merged": 1.001,
          "lora own": 1.6, "ia3 own": 1.2, "biases": 1.01,
          "norms": 1.0, "bottleneck": 1.3, "prompt": 1.04, "prefix": 1.05, "prefix from cache": 1.1,
          "hard prompt": 1.03}  # fmt: skip


@pytest.fixture(scope="module")
def models(tiny, tokenizer):
    """The real arms on a tiny base, in fp32 on the CPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("labkit.load_model", lambda: seeded(tiny), raising=False)
        patch.setattr("labkit.load_tokenizer", lambda: tokenizer, raising=False)
        patch.setattr(torch, "bfloat16", torch.float32)  # so that equal functions give equal numbers
        return inference.prepared()


def seeded(tiny):
    with torch.random.fork_rng():  # a model that is read from files draws nothing
        return tiny()


def pretended(changes=()):
    """A job's result: the base's time differs a lot between repeats, each arm's ratio to it a little."""
    base = [0.01 * (1 + repeat % 5) for repeat in range(REPEATS)]
    ratios = RATIOS | dict(changes)
    times = {arm: [one * ratio * (1 + (repeat % 3 - 1) / 1000 * (arm != "base"))
                   for repeat, one in enumerate(base)] for arm, ratio in ratios.items()}  # fmt: skip
    return {
        "times": times,
        "base": {"weights": 1000, "cache bytes a token": 20},
        "extra weights": dict.fromkeys(RATIOS, 0) | {"bottleneck": 33},
        "extra cache bytes": dict.fromkeys(RATIOS, 0) | {"prompt": 2000},
    }


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, jobs.run and files, but pretended jobs."""
    made = SimpleNamespace(started=[], beside=set(), folder=tmp_path / "out", profile="gpu")

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        made.beside.add(beside)
        (folder / f"{name}.log").write_text("")
        code = inference.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(inference, "job", lambda name: {**pretended(), "seconds": 1.0, "peak_bytes": 5})
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))
    monkeypatch.setattr(jobs, "cards", lambda: [None])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(inference.env, "profile", lambda: made.profile)
    return made


def run(world, *more):
    assert bench_main(["inference", "--folder", str(world.folder), *more]) == 0
    return store.read("inference")


# ---- the whole run


def test_a_run_leaves_a_record_with_every_value_that_the_claims_name(world, capsys):
    whole = run(world, "--jobs", "4")
    assert world.started == [f"time_{regime}" for regime in inference.GPU["regimes"]]
    assert world.beside == {1}  # they are timed, so with the card to themselves whatever was asked
    assert "| bottlenecks (Houlsby) | 1.300 [1.299, 1.301] |" in capsys.readouterr().out
    source = judge.Recorded(whole)
    assert {claim["id"] for claim in CLAIMS} == {"adapter-latency", "soft-latency"}
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert len(judge.estimate(band, source).each) == REPEATS, (claim["id"], band)
        assert ledger.conclusion(ledger.judge_all(claim, source)) == "reproduced"
        assert claim["id"] in whole["claims"]
    assert source.value("time.launch-bound.houlsby") is None
    assert store.stale("inference") == []


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    run(world)
    assert len(world.started) == 4
    store.path_of("inference").unlink()
    world.profile = "smoke"
    assert run(world) is None and "a trial" in capsys.readouterr().out
    assert len(world.started) == 8  # the results of another profile do not count


@pytest.mark.parametrize("regime, changes, adapters, soft", [
    ("launch-bound", {"bottleneck": 1.01}, "contradicted here", "reproduced"),
    ("compute-bound", {"bottleneck": 1.02}, "undecided", "reproduced"),
    ("compute-bound", {"lora merged": 1.02}, "contradicted here", "reproduced"),  # within the base's range
    ("launch-bound", {"lora merged": 0.98}, "contradicted here", "reproduced"),
    ("launch-bound", {"ia3 merged": 1.02, "lora": 9.0}, "reproduced", "reproduced"),  # only beside the bands
    ("compute-bound", {"prompt": 1.2}, "reproduced", "contradicted here"),
    ("launch-bound", {"prompt": 1.2}, "reproduced", "reproduced"),  # its claim is of the compute-bound batch
    ("answer-32", {"bottleneck": 1.0, "prompt": 2.0}, "reproduced", "reproduced"),
], ids=str)  # fmt: skip
def test_claims_are_judged_by_ratios_within_a_repeat_in_their_own_regime(regime, changes, adapters, soft):
    found = {f"time_{one}": pretended(changes if one == regime else ()) for one in inference.GPU["regimes"]}
    source = judge.Recorded({"values": inference_values.summary(found, inference.GPU)})
    said = {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}
    assert said == {"adapter-latency": adapters, "soft-latency": soft}


def test_speed_is_that_of_prompt_tuning_over_what_it_is_compared_with():
    found = {f"time_{one}": pretended() for one in inference.GPU["regimes"]}
    speed = {name: each[1] for name, each in inference_values.summary(found, inference.GPU)["speed"].items()}
    assert speed == pytest.approx({"no prompt": 1 / 1.04, "hard prompt": 1.03 / 1.04,
                                   "prefix over no prompt": 1 / 1.05,
                                   "prefix from cache over no prompt": 1 / 1.1})  # fmt: skip


def test_tables_have_a_row_for_each_arm_and_a_column_for_each_regime(world, capsys):
    tables = (inference_values.adapter_table, inference_values.prompt_table, inference_values.size_table)
    assert [make() for make in tables] == 3 * [["not measured yet: python -m labkit bench inference"]]
    found = run(world)["values"]
    adapters, prompts, sizes = (make(found) for make in tables)
    shown = [*inference_values.ADAPTERS, *inference_values.PROMPTS]
    assert sorted(["base", *shown]) == sorted(RATIOS)
    assert len(adapters) == 3 + 9 + 2 and len(prompts) == 3 + 4 + 2 and len(sizes) == 2 + 13 + 2
    assert adapters[0].split("|")[2:-1] == [
        " forward, 1 x 16 ", " forward, 32 x 1,024 ", " 32 answer tokens from 1 prompt of 200 ",
        " 32 answer tokens from 32 prompts of 200 "]  # fmt: skip
    assert adapters[2].startswith("| the base alone | 30.0 ms |")
    assert "A prompt of 100 tokens" in prompts[-1]
    assert "repeats (40, 40, 10, 10 by column)" in adapters[-1]
    assert "| bottlenecks (Houlsby) | 33 | 3.300% | 0.00 MB |" in sizes


def test_one_ratio_in_words_is_of_its_own_regime_and_arm(world, monkeypatch):
    assert inference_values.ratio("launch-bound", "lora").startswith("not measured yet: python -m labkit")
    monkeypatch.setattr(inference, "job", lambda name: {
        **pretended({"lora": 3.0} if name == "time_launch-bound" else ()), "seconds": 1.0, "peak_bytes": 5,
    })  # fmt: skip
    run(world)
    said = {regime: inference_values.ratio(regime, "lora") for regime in ("launch-bound", "compute-bound")}
    assert said["launch-bound"].startswith("LoRA r=16, through peft, forward, 1 x 16: 3.000 [2.99")
    assert said["compute-bound"].startswith("LoRA r=16, through peft, forward, 32 x 1,024: 2.000 [1.99")


# ---- arms


def test_each_method_has_its_default_size():
    for name in inference.METHODS.values():
        assert methods.find(methods.short(name)).name == name
        assert methods.short(name) == name.partition("-")[0]


def test_models_are_frozen_alike_in_bf16(tiny, monkeypatch):
    monkeypatch.setattr("labkit.load_model", lambda: seeded(tiny), raising=False)
    monkeypatch.setattr(inference, "METHODS", {"norms": "norms"})
    monkeypatch.setattr(inference, "OWN", ())
    found = inference.prepared()
    assert set(found) == {"base", "norms"} and not any(model.training for model in found.values())
    weights = [weight for model in found.values() for weight in model.parameters()]
    assert {(weight.dtype, weight.requires_grad) for weight in weights} == {(torch.bfloat16, False)}


def test_a_real_job_times_every_arm_in_every_repeat(monkeypatch, models):
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr(inference, "prepared", lambda: models)
    for name in inference.names(inference.settings())[::2]:  # a forward pass, and answers
        found = inference.job(name)
        assert set(found["times"]) == set(RATIOS) == set(found["extra weights"])
        assert all(len(each) == 2 and min(each) > 0 for each in found["times"].values())
        assert json.loads(json.dumps(found)) == found and found["seconds"] > 0


@torch.no_grad()
def test_arms_compute_what_their_names_say(models):
    calls = inference.calls(models, rows=2, tokens=8, new=0)
    logits = {arm: call() for arm, call in calls.items()}

    def near(one, other):
        return torch.allclose(logits[one], logits[other], atol=1e-5)

    assert near("lora", "lora merged") and near("ia3", "ia3 merged")
    assert near("prefix", "prefix from cache") and near("ia3", "ia3 own")
    twins = ("lora merged", "ia3 merged", "ia3 own", "prefix from cache")
    apart = [arm for arm in logits if arm not in twins]
    assert not any(near(one, other) for one in apart for other in apart if one != other)
    assert torch.equal(calls["prefix from cache"](), logits["prefix from cache"])  # the cache did not grow
    assert torch.equal(calls["base"](), logits["base"])


@torch.no_grad()
def test_own_lora_is_that_of_peft(models):
    """With the same weights: A of either is drawn in its own order."""
    own, ids = copy.deepcopy(models["lora own"]), torch.arange(5, 15)[None]
    there, here = ([weight for name, weight in model.named_parameters() if "lora_" in name]
                   for model in (models["lora"], own))  # fmt: skip
    for weight, new in zip(here, there, strict=True):
        weight.copy_(new)
    through, alone, drawn = (model(ids).logits for model in (models["lora"], own, models["lora own"]))
    assert torch.allclose(alone, through, atol=1e-5) and not torch.allclose(drawn, through, atol=1e-5)


@pytest.mark.parametrize("new", [0, 3])
def test_prompts_come_on_top_of_the_same_text(models, new):
    """The layers see 100 tokens more before the text, but of a prefix from the cache, which is there."""
    seen, cached = {}, set()

    def note(layer, args, options, arm):
        length = options["position_embeddings"][0].shape[1]
        first = options["position_ids"][0, 0].item()
        seen.setdefault(arm, []).append((length, first))
        cached.add(arm if options["past_key_values"] is not None else None)

    for arm, call in inference.calls(models, rows=2, tokens=8, new=new).items():
        model = models["base"] if arm in ("prefix from cache", "hard prompt") else models[arm]
        layer = next(part for name, part in model.named_modules() if name.endswith("layers.0"))
        hook = layer.register_forward_pre_hook(functools.partial(note, arm=arm), with_kwargs=True)
        with torch.no_grad():
            call()
        hook.remove()
    assert cached == (set(RATIOS) if new else {None, "prefix from cache"})
    first = {arm: passes[0] for arm, passes in seen.items()}
    longer = dict.fromkeys(("prompt", "prefix", "hard prompt"), (108, 0))
    assert first == dict.fromkeys(RATIOS, (8, 0)) | longer | {"prefix from cache": (8, 100)}
    steps = {arm: [length for length, _ in passes[1:]] for arm, passes in seen.items()}
    assert steps == dict.fromkeys(RATIOS, [1] * (new - 1))  # with a cache: one token at a time


@torch.no_grad()
def test_answers_go_on_after_the_end_token(models, monkeypatch):
    model, ids = models["base"], torch.tensor([[5, 6, 7]])
    end = inference.answer(model, ids, 1)[0, -1].item()
    monkeypatch.setattr(model.generation_config, "eos_token_id", end)
    options = {"attention_mask": torch.ones_like(ids), "do_sample": False, "pad_token_id": 0}
    assert model.generate(ids, max_new_tokens=4, **options).shape == (1, 4)  # it ends at once
    assert inference.answer(model, ids, 4).shape == (1, 7)
    short = SimpleNamespace(generate=lambda **_: torch.zeros(1, 5))
    with pytest.raises(LabkitError, match="2 answer tokens instead of 4"):
        inference.answer(short, ids, 4)


def test_no_new_weight_is_at_its_start(models):
    for arm, part in (("lora", "lora_B"), ("lora own", "lora_B"), ("biases", "bias"), ("bottleneck", ".up.")):
        found = [weight for name, weight in models[arm].named_parameters() if part in name]
        assert found and all(weight.ne(0).all() for weight in found)
    for arm, part in (("ia3", "ia3_l"), ("ia3 own", ".scale"), ("norms", "norm.weight")):
        found = [weight for name, weight in models[arm].named_parameters() if part in name]
        assert found and not any(weight.eq(1).all() for weight in found)
    assert models["base"].model.norm.weight.eq(1).all()  # untouched
    names = [name for arm in inference.MERGED for name, _ in models[f"{arm} merged"].named_parameters()]
    assert not any("lora" in name or "ia3" in name for name in names)


def test_sizes_are_what_the_arms_keep_and_put_into_the_cache(models):
    found = inference.sizes(models)
    assert {inference.METHODS[arm] for arm in inference.OWN} == {f"lora-r{inference.RANK}", "ia3"}
    hidden, inner, keys, layers = 64, 128, 32, 2
    weights = {
        "lora": 16 * layers * (2 * (hidden + hidden) + 2 * (hidden + keys) + 3 * (hidden + inner)),
        "ia3": layers * (2 * keys + inner),
        "biases": layers * (2 * hidden + 2 * keys + 2 * inner + hidden),
        "bottleneck": 2 * layers * (2 * hidden * 64 + 64 + hidden),
        "prompt": 100 * hidden,
        "prefix": 100 * layers * 2 * keys,
        "prefix from cache": 100 * layers * 2 * keys,
    }
    weights |= {f"{arm} own": weights[arm] for arm in inference.OWN}
    assert found["extra weights"] == dict.fromkeys(RATIOS, 0) | weights
    with torch.no_grad():
        kept = {length: models["base"](torch.ones(1, length, dtype=torch.long)).past_key_values
                for length in (8, 108)}  # fmt: skip
    bytes_of = {length: sum(2 * part.numel() for layer in cache.layers for part in (layer.keys, layer.values))
                for length, cache in kept.items()}  # fmt: skip
    grown = bytes_of[108] - bytes_of[8]
    prompts = ("prompt", "prefix", "prefix from cache", "hard prompt")
    assert found["extra cache bytes"] == dict.fromkeys(RATIOS, 0) | dict.fromkeys(prompts, grown)
    assert 100 * found["base"]["cache bytes a token"] == grown
    assert found["base"]["weights"] == sum(weight.numel() for weight in models["base"].parameters())


def test_arms_take_turns_and_each_follows_every_other_in_some_repeat():
    said = []
    calls = {arm: functools.partial(said.append, arm) for arm in "abcd"}
    found = inference.turns(calls, 2, 40)
    assert {arm: len(each) for arm, each in found.items()} == dict.fromkeys("abcd", 40)
    turns = ["".join(said[first : first + 8]) for first in range(0, len(said), 8)]
    assert turns[0] == "aabbccdd" and len(turns) == 41  # the first warms up
    assert all(sorted(turn[::2]) == list("abcd") and turn[::2] == turn[1::2] for turn in turns)
    assert {pair for turn in turns[1:] for pair in zip(turn[::2], turn[2::2], strict=False)} == {
        (one, other) for one in "abcd" for other in "abcd" if one != other}  # fmt: skip
    once, said[:] = list(said), []
    inference.turns(calls, 2, 40)
    assert said == once
