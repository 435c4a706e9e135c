"""`bench qlora`: its jobs on a tiny model, its record judged by the claims, what its numbers stand for."""

import functools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import labkit
from labkit import tasks
from labkit.bench import jobs, methods, qlora, qlora_jobs, qlora_report, qlora_values, train_engines
from labkit.bench import main as bench_main
from labkit.errors import LabkitError
from labkit.memory import Report, Setting, predict
from labkit.methods.quantize import FORMATS, linears, relative_error
from labkit.records import judge, ledger, stats, store

CLAIMS = [claim for claim in ledger.ledger() if claim["id"].startswith("qlora-")]
LOST = {"merged into de-quantized": 0.0, "merged into 4-bit": 0.1}  # share of right rows that a merge spoils
YES = "reproduced"


@pytest.fixture
def world(monkeypatch, tmp_path):
    """Real main, sweep, jobs.run, files and predictions of memory, but pretended trainings and times."""
    made = SimpleNamespace(started=[], folder=tmp_path / "out", best=1e-3, profile="gpu", lost=dict(LOST))

    def job(name):
        kind, *rest = name.split("_")
        if kind == "memory":
            return {**qlora_jobs.memory(*rest), "predicted": None, "seconds": 1.0, "peak_bytes": 5}
        if kind == "time":
            each = {"lora-r16": 100.0, "lora-r16-half": 75.0, "qlora-r16": 150.0 + int(rest[0])}
            return {"step ms": dict.fromkeys(qlora_jobs.ENGINES, each), "seconds": 1.0, "peak_bytes": 5}
        arm, rate, seed, which = rest
        if kind == "sweep":
            off = abs(math.log10(float(rate) / made.best))
            return {"right": 0.98 - off / 10, "loss": off, "diverged": False, "seconds": 1.0, "peak_bytes": 5}
        right = np.random.default_rng(int(seed)).random(5000) < (0.80 if which == "dithered" else 0.78)
        ways = qlora_jobs.merges(which, seed, None) if arm == "qlora-r16" else {}
        flags = {way: right & (np.random.default_rng(9).random(5000) >= made.lost.get(way, 0.0))
                 for way in [qlora_jobs.UNMERGED, *ways]}  # fmt: skip
        return {"flags": {way: stats.pack_rows(some) for way, some in flags.items()}, "path": "CUDA graph",
                "training seconds": 9.0, "seconds": 1.0, "peak_bytes": 5}  # fmt: skip

    def start(bench, name, folder, card, beside=1):
        made.started.append(name)
        (folder / f"{name}.log").write_text("")
        code = qlora.main(["--job", name, "--folder", str(folder)])
        return SimpleNamespace(exitcode=code, kill=lambda: None)

    monkeypatch.setattr(qlora_jobs, "job", job)
    monkeypatch.setattr(jobs, "_start", start)
    monkeypatch.setattr(store, "code_digest", functools.cache(store.code_digest))
    monkeypatch.setattr(store, "data_digest", functools.cache(store.data_digest))
    monkeypatch.setattr(jobs, "cards", lambda: [None])
    monkeypatch.setattr(jobs.time, "sleep", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    monkeypatch.setattr(qlora.env, "profile", lambda: made.profile)
    known = {name: {"task": "tickets", "split": "test", "rows": [stats.pack_rows([True] * 5000)]}
             for name in ("lora-r16", "qlora-r16")}  # fmt: skip
    store.write("methods_tickets", "gpu", seed=0, seconds=1, peak_bytes=1, digest={}, scores=known,
                values={"settings": qlora_jobs.GPU, "methods": {"qlora-r16": {"rate": 0.003}}})  # fmt: skip
    return made


def run(world):
    assert bench_main(["qlora", "--folder", str(world.folder)]) == 0
    return store.read("qlora")


def verdicts(whole):
    source = judge.Recorded(whole)
    return {claim["id"]: ledger.conclusion(ledger.judge_all(claim, source)) for claim in CLAIMS}


# ---- the whole run


def test_a_run_leaves_a_record_with_every_score_and_value_that_the_claims_name(world, capsys):
    whole = run(world)
    source = judge.Recorded(whole)
    for claim in CLAIMS:
        for band in [*claim["bands"], *claim["beside"]]:
            assert judge.estimate(band, source) is not None, (claim["id"], band)
    assert verdicts(whole) == {"qlora-quality": YES, "qlora-memory": YES, "qlora-merge": YES}
    assert {claim["id"] for claim in CLAIMS} <= set(whole["claims"]) and store.stale("qlora") == []
    assert all(ledger.record_of(claim) for claim in CLAIMS)
    assert {claim["record"] for claim in CLAIMS} == {qlora.NAME} and len(CLAIMS) == 3
    assert len(world.started) == len(set(world.started)) == 8 + 9 + 16 + 3
    text = capsys.readouterr().out.splitlines()
    assert max(map(len, text)) <= 110
    assert sum("+0.0 [" in line for line in text) == 2 + 4         # two gaps of LoRA, four harmless merges
    [bad] = [line for line in text if line.startswith("merged into 4-bit")]
    assert bad.split()[3].startswith("-7.") and bad.split()[6].startswith("-7.")
    [eager] = [line for line in text if line.startswith("eager")]
    assert eager.endswith(" 1.51 and 2.01")


@pytest.mark.parametrize("lost, said", [
    ({}, "undecided"),                                                    # 0 is where the band ends
    ({"merged into 16-bit": 0.1, "merged into 4-bit": 0.2}, "contradicted here"),
    ({"merged into 4-bit": 0.1, "merged into 16-bit, then 4-bit": 0.2}, "contradicted here"),
    ({"merged into 4-bit": 0.1, "merged into 16-bit, then 4-bit": 0.1}, "undecided"),   # bits, not bases
])  # fmt: skip
def test_the_claim_on_merging_stands_only_where_the_restored_base_loses_and_sixteen_bits_do_not(
    world, lost, said
):
    world.lost = lost
    whole = run(world)
    assert verdicts(whole)["qlora-merge"] == said and verdicts(whole)["qlora-quality"] == YES


def test_a_second_run_starts_nothing_and_without_a_gpu_there_is_no_record(world, capsys):
    run(world)
    before = len(world.started)
    run(world)
    assert len(world.started) == before
    store.path_of("qlora").unlink()
    world.profile = "smoke"
    assert bench_main(["qlora", "--folder", str(world.folder)]) == 0
    assert len(world.started) > before and store.read("qlora") is None
    assert "a trial" in capsys.readouterr().out


def test_both_arms_begin_with_the_same_rates_and_go_on_beyond_an_end(world):
    world.best = 2e-2
    whole = run(world)
    sweeps = [name for name in world.started if name.startswith("sweep_")]
    rates = {arm: sorted(float(name.split("_")[2]) for name in sweeps if arm in name.split("_"))
             for arm in qlora_jobs.ARMS}  # fmt: skip
    assert rates["lora-r16"] == rates["qlora-r16"] == [3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1]
    assert {name.split("_")[4] for name in sweeps} == {"dithered"}
    assert whole["values"]["rates"] == {"lora, dithered": 0.03, "qlora, dithered": 0.03, "unmerged": 0.003}
    finals = {name for name in world.started if name.startswith("final_")}
    assert {f"final_qlora-r16_0.003_{seed}_base" for seed in qlora.SEEDS} < finals and len(finals) == 9
    assert whole["values"]["sweeps"]["lora"]["at an end"] is False


@pytest.mark.parametrize("steps", [None, 200])
def test_without_the_rate_on_the_base_as_it_is_at_this_budget_nothing_starts(world, steps):
    path = store.path_of("methods_tickets")
    if steps:
        path.write_text(path.read_text().replace('"steps": 300', f'"steps": {steps}'))
    else:
        path.unlink()
    with pytest.raises(LabkitError, match="bench methods --methods"):
        bench_main(["qlora", "--folder", str(world.folder)])
    assert world.started == []


def test_an_arm_that_diverges_at_every_rate_is_said(world, monkeypatch):
    monkeypatch.setattr(qlora_jobs, "job", lambda name: {"right": 0.0, "loss": None, "diverged": True})
    with pytest.raises(LabkitError, match="lora-r16 failed at every rate.*diverged"):
        bench_main(["qlora", "--folder", str(world.folder)])


# ---- trainings


@functools.cache
def few_rows(family, **options):
    return {split: rows.select(range(40)) for split, rows in tasks.load(family, **options).items()}


@pytest.fixture
def small(monkeypatch, tiny):
    """Jobs run under the smoke budget on a tiny model."""
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setitem(qlora_jobs.SMOKE, "length", 256)
    monkeypatch.setattr("labkit.load_model", tiny, raising=False)
    monkeypatch.setattr("labkit.load", few_rows, raising=False)
    monkeypatch.setattr("labkit.env.precision", lambda on=None: "bf16")
    monkeypatch.setattr("labkit.tasks.tickets.MAX_NEW_TOKENS", 4, raising=False)


@pytest.mark.parametrize("arm", qlora_jobs.ARMS)
def test_a_final_scores_the_model_and_for_four_bits_every_merge(small, monkeypatch, arm):
    scored = []
    monkeypatch.setattr(qlora_jobs, "exact", lambda model, rows: scored.append((model, rows)) or
                        SimpleNamespace(exact_rows=[True, False]))  # fmt: skip
    found = qlora_jobs.job(f"final_{arm}_0.001_1_dithered")
    expected = [qlora_jobs.UNMERGED, *(qlora_report.WAYS if arm == "qlora-r16" else [])]
    assert list(found["flags"]) == expected and len(scored) == len(expected)
    assert set(found["flags"].values()) == {stats.pack_rows([True, False])} and found["seconds"] > 0
    assert scored[0][0].peft_config and all(not hasattr(model, "peft_config") for model, _ in scored[1:])
    assert scored[0][1]["id"] == few_rows("tickets")["test"]["id"][:2]


def test_a_sweep_scores_unseen_phrasings_and_a_loss_that_is_not_finite_is_a_result(small, monkeypatch):
    seen = []
    monkeypatch.setattr(qlora_jobs, "exact", lambda model, rows: seen.extend(rows["id"]) or
                        SimpleNamespace(exact=0.5))  # fmt: skip
    found = qlora_jobs.job("sweep_lora-r16_0.001_0_dithered")
    assert found["right"] == 0.5 and 5 < found["loss"] < 15 and found["diverged"] is False
    trained_on, unseen = methods.apart(few_rows("tickets")["train"])
    assert seen == unseen["id"][:2] and not set(unseen["phrasing"]) & set(trained_on["phrasing"])
    for message, said in (("the loss is nan at step 3", True), ("the disk is full", None)):
        def fit(*_, message=message, **__):
            raise LabkitError(message)

        monkeypatch.setattr("labkit.fit", fit, raising=False)
        if said:
            assert qlora_jobs.job("sweep_lora-r16_0.1_0_dithered")["diverged"] is True
        with pytest.raises(LabkitError, match=message):
            qlora_jobs.job(f"{'final' if said else 'sweep'}_lora-r16_0.1_0_dithered")


def test_models_of_every_merge_can_be_scored(small):
    model = qlora_jobs.adapted(qlora_jobs.four_bit_of(qlora_jobs.base_of("base", 0)), 4)
    rows = qlora_jobs.few(few_rows("tickets")["test"])
    for make in (lambda: model, *qlora_jobs.merges("base", 0, model).values()):
        assert len(qlora_jobs.exact(make(), rows).exact_rows) == 2


@pytest.mark.parametrize("arm", qlora_jobs.ARMS)
def test_a_seed_decides_which_adapters_an_arm_begins_with(small, monkeypatch, arm):
    def adapter(seed):
        monkeypatch.setattr("labkit.fit", lambda model, *_, **__: None, raising=False)
        model, _ = qlora_jobs.train(arm, "0.001", seed, "base", few_rows("tickets")["train"])
        return next(weight for name, weight in model.named_parameters() if "lora_A" in name)

    assert torch.equal(adapter("1"), adapter("1")) and not torch.equal(adapter("1"), adapter("2"))


def test_seeds_dither_differently_and_both_arms_alike(small, tiny):
    def weight(which, seed):
        return qlora_jobs.base_of(which, seed).model.layers[0].mlp.up_proj.weight

    assert torch.equal(weight("dithered", "1"), weight("dithered", 1))
    assert not torch.equal(weight("dithered", 1), weight("dithered", 2))
    assert torch.equal(weight("base", 1), tiny().model.layers[0].mlp.up_proj.weight)


def test_each_merge_is_what_its_name_says(small, tiny):
    model = qlora_jobs.adapted(qlora_jobs.four_bit_of(tiny()), 4)
    for name, weight in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.02)
    made = {way: make() for way, make in qlora_jobs.merges("base", 0, model).items()}
    assert list(made) == list(qlora_report.WAYS)
    for way in ("merged into 4-bit", "merged into 16-bit, then 4-bit"):
        assert made[way].model.layers[0].mlp.up_proj.weight.dtype == torch.uint8
        made[way] = qlora_jobs.dequantized(made[way])
    place = "model.layers.1.mlp.down_proj"
    layer = model.get_base_model().get_submodule(place)
    update = 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    plain = linears(tiny())[place].weight
    restored = linears(qlora_jobs.dequantized(qlora_jobs.four_bit_of(tiny())))[place].weight
    weights = {way: linears(one)[place].weight for way, one in made.items()}
    halves = {way for way, weight in weights.items() if torch.equal(weight.bfloat16().float(), weight)}
    assert halves == {"merged into 16-bit", "merged into de-quantized"}
    assert {one.dtype for model in made.values() for one in model.parameters()} == {torch.float32}
    assert relative_error(plain + update, weights["merged into 32-bit"]) < 1e-6
    assert 1e-6 < relative_error(plain + update, weights["merged into 16-bit"]) < 0.01
    assert relative_error(restored + update, weights["merged into de-quantized"]) < 0.01
    assert relative_error(restored + update, plain + update) > 0.05   # the two bases differ that much
    form = FORMATS["nf4 double"]
    for way, sums, other in (("merged into 4-bit", restored + update, plain + update),
                             ("merged into 16-bit, then 4-bit", plain + update, restored + update)):
        assert relative_error(form.round(sums), weights[way]) < 0.04   # few codes lie on an edge
        assert relative_error(form.round(other), weights[way]) > 0.05 < relative_error(sums, weights[way])


# ---- memory


def test_bytes_are_predicted_and_marked_without_a_card_and_where_a_step_does_not_fit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = predict(qlora_jobs.setting("65B", "lora-r16", "plain"))
    found = qlora_jobs.memory("65B", "lora-r16", "plain")
    assert found["predicted"] == "no card" and found["peak"] == said.peak_allocated
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)

    def failing(message):
        def measure(asked):
            raise LabkitError(message)

        return measure

    monkeypatch.setattr(qlora_jobs, "measure", failing("lora on 65b does not fit this card: 139 GiB"))
    assert qlora_jobs.memory("65B", "lora-r16", "plain") == {**found, "predicted": "does not fit"}
    monkeypatch.setattr(qlora_jobs, "measure", failing("3.0 GB of this card are in use"))
    with pytest.raises(LabkitError, match="in use"):
        qlora_jobs.memory("65B", "lora-r16", "plain")


def test_a_measured_base_is_the_weights_without_the_adapters(monkeypatch):
    report = Report({"weights": 10**9, "activations": 5}, 2 * 10**9, 3 * 10**9, 4 * 10**9, "backward")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(qlora_jobs, "measure", lambda asked: report)
    found = qlora_jobs.memory("135M", "qlora-r16", "checkpointing")
    base, rest = 10**9 - 4 * 4884480, 28_346_688
    assert found == {"base": base, "fp32 rest": base + 2 * rest, "peak": 2 * 10**9, "process": 4 * 10**9,
                     "predicted": None}  # fmt: skip
    asked = qlora_jobs.setting("135M", "qlora-r16", "checkpointing")
    assert asked == Setting("smollm2-135m", "qlora", precision="bf16", optimizer="fused", checkpointing=True)


@pytest.mark.parametrize("shape, ratio, with_fp32", [("135M", 0.415, 0.626), ("7B", 0.287, 0.326),
                                                      ("65B", 0.264, 0.272)])  # fmt: skip
def test_a_base_of_two_bytes_a_weight_shrinks_to_its_ratio(shape, ratio, with_fp32, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    plain, four = (qlora_jobs.memory(shape, arm, "checkpointing") for arm in qlora_jobs.ARMS)
    asked = qlora_jobs.setting(shape, "lora-r16", "plain")
    assert plain["base"] == pytest.approx(2 * asked.shape.weights(), rel=1e-3)
    assert four["base"] / plain["base"] == pytest.approx(ratio, abs=2e-3)
    assert four["fp32 rest"] / plain["base"] == pytest.approx(with_fp32, abs=2e-3)


# ---- time and tables


def test_times_are_taken_of_every_arm_by_both_engines_and_no_arm_is_always_first(monkeypatch):
    order, taken = [], dict(zip(qlora_jobs.TIMED, (1.0, 0.5, 2.0), strict=True))
    monkeypatch.setenv("LABKIT_PROFILE", "smoke")
    monkeypatch.setattr(qlora_jobs, "prepared", lambda arm: arm)
    for name in ("eager", "plain", "graph"):
        def engine(model, rows, tokenizer, name=name, **counts):
            order.append((name, model, counts["batch"]))
            return {"step ms": taken[model]}

        monkeypatch.setitem(train_engines.ENGINES, name, engine)
    found = {f"time_{repeat}": qlora_jobs.job(f"time_{repeat}") for repeat in range(3)}
    values = qlora_values.times(found)
    ratios = {"lora": [2.0] * 3, "lora, 16-bit base": [4.0] * 3}
    assert values["time ratio"] == {"eager": ratios, "fit": ratios}
    assert values["step ms"]["fit"] == {"lora": [1.0] * 3, "lora, 16-bit base": [0.5] * 3, "qlora": [2.0] * 3}
    assert {name for name, _, _ in order} == {"eager", "plain"} and {batch for _, _, batch in order} == {1}
    assert [arm for _, arm, _ in order[::6]] == list(qlora_jobs.TIMED)
    assert qlora_jobs.GPU["fit"] == "graph"


def test_sixteen_bit_lora_has_linear_weights_in_bf16_and_trains(small):
    stored = {}
    for arm in qlora_jobs.TIMED[:2]:
        model = qlora_jobs.prepared(arm)
        stored[arm] = {name: weight.dtype for name, weight in model.named_parameters()}
    plain, half = stored.values()
    assert set(plain.values()) == {torch.float32} and list(plain) == list(half)
    assert {name for name in half if half[name] == torch.bfloat16} == {n for n in half if "base_layer" in n}
    counts = {"batch": 1, "length": 256, "whole": 1, "timed": 1}
    for engine in ("eager", "plain"):
        done = train_engines.ENGINES[engine](model, few_rows("tickets")["train"], labkit.load_tokenizer(),
                                             rate=1e-3, **counts)  # fmt: skip
        assert 5 < done["loss"] < 15


def test_tables_say_so_before_anything_is_measured(monkeypatch, tmp_path):
    monkeypatch.setattr(store, "MEASUREMENTS", tmp_path)
    tables = (qlora_report.quality_table, qlora_report.merge_table, qlora_report.memory_table,
              qlora_report.time_table, qlora_report.lines)  # fmt: skip
    assert all(table() == [qlora_report.MISSING] for table in tables)


def test_predictions_are_marked_in_the_table(world):
    whole = run(world)
    assert not any("*" in line for line in qlora_report.memory_table(whole))
    whole["values"]["memory"]["65B"]["checkpointing"]["lora"]["predicted"] = "does not fit"
    whole["values"]["predicted"] = ["65B, lora, checkpointing"]
    *shapes, deepest, note = qlora_report.memory_table(whole)
    assert deepest.count("*") == 2 and "*" not in "".join(shapes) and note.startswith("*: predicted")
