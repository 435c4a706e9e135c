"""`bench memory`: what it asks, that predictions come first and stay, and what it makes of measurements."""

import json

import pytest

from labkit.bench import jobs, main, memory, memory_claims, memory_grid, memory_peers, memory_report
from labkit.errors import LabkitError
from labkit.memory import Report, Setting, predict
from labkit.memory.cards import CARDS, OFFERS
from labkit.memory.report import Term
from labkit.records import judge, ledger, store

ROOM = 76 * 2**30


@pytest.fixture(scope="module")
def sets():
    return memory_grid.settings(3, ROOM)


# ---- which settings -------------------------------------------------------------------------------------


def test_the_grid_has_at_least_60_settings_and_every_pair_of_values_that_can_be(sets):
    possible = set()
    for fields in memory_grid._product():
        if (setting := memory_grid._setting(fields)) is not None:
            possible.update(memory_grid.pairs(setting))
    held = {pair for setting in sets["grid"].values() for pair in memory_grid.pairs(setting)}
    assert len(sets["grid"]) >= 60 and held == possible
    fewer = {pair for setting in list(sets["grid"].values())[:8] for pair in memory_grid.pairs(setting)}
    assert fewer != possible


def test_at_least_30_are_drawn_by_seed_and_none_is_in_the_grid(sets):
    again, other = memory_grid.settings(3, ROOM), memory_grid.settings(4, ROOM)
    assert len(sets["drawn"]) >= 30
    assert not set(sets["drawn"].values()) & set(sets["grid"].values())
    assert list(again["drawn"]) == list(sets["drawn"]) != list(other["drawn"])
    assert list(other["grid"]) == list(sets["grid"])


def test_a_small_card_leaves_out_what_it_cannot_hold(monkeypatch):
    with pytest.raises(LabkitError, match="too few"):
        memory_grid.settings(0, 2**28)
    monkeypatch.setattr(memory_grid, "_possible", lambda room: (range(40), []))
    monkeypatch.setattr(memory_grid, "name", lambda kind, one: str(one))
    shapes = [{one.shape.name for one in memory_grid.settings(0, room)["others"].values()}
              for room in (16 * 2**30, ROOM)]  # fmt: skip
    assert "65b" not in shapes[0] and "65b" in shapes[1]


def test_names_of_jobs_tell_settings_apart():
    one = Setting("1b")
    assert memory_grid.name("grid", one) == memory_grid.name("grid", Setting("1b"))
    assert memory_grid.name("grid", one) != memory_grid.name("grid", one.but(seq=513))


# ---- what others predict --------------------------------------------------------------------------------


def test_accelerates_arithmetic_is_accelerates_own():
    from accelerate.commands.estimate import estimate_training_usage

    weights = Setting("7b").shape.weights()
    for precision, theirs in (("fp32", "float32"), ("bf16", "bfloat16")):
        own = memory_peers.accelerate(Setting("7b", precision=precision))
        assert own == max(estimate_training_usage(4 * weights, theirs).values())
    assert memory_peers.accelerate(Setting("7b", precision="fp32")) != own


def test_deepspeeds_formulas_give_20_and_18_bytes_a_weight():
    setting = Setting("7b")
    assert memory_peers.zero_2(setting) == 20 * setting.shape.weights()
    largest = 4 * setting.shape.vocab * setting.shape.hidden
    assert memory_peers.zero_3(setting) == 18 * setting.shape.weights() + largest


def test_formulas_are_asked_only_what_they_know(monkeypatch):
    monkeypatch.delenv("LABKIT_PEERS", raising=False)
    settings = {
        "mixed": Setting("1b"), "fused": Setting("1b", optimizer="fused", precision="fp32"),
        "8-bit": Setting("1b", optimizer="8-bit"), "lora": Setting("1b", method="lora"),
        "inference": Setting("1b", method="inference"),
    }  # fmt: skip
    found = {name: set(answers) for name, answers in memory_peers.predictions(settings).items()}
    assert found == {
        "mixed": {"accelerate", "deepspeed zero-2", "deepspeed zero-3"}, "fused": {"accelerate"},
        "8-bit": set(), "lora": set(), "inference": set(),
    }  # fmt: skip


def test_packages_are_asked_where_they_are_and_left_out_where_not(monkeypatch, tmp_path):
    settings = {"a": Setting("1b"), "b": Setting("1b", method="prompt")}
    monkeypatch.delenv("LABKIT_PEERS", raising=False)
    assert set(memory_peers.predictions(settings)["a"]) == {
        "accelerate",
        "deepspeed zero-2",
        "deepspeed zero-3",
    }
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncat > /dev/null\necho \'{"a": {"ftuneai": 7}}\'\n')
    python.chmod(0o755)
    monkeypatch.setenv("LABKIT_PEERS", str(python))
    found = memory_peers.predictions(settings)
    assert found["a"]["ftuneai"] == 7 and "ftuneai" not in found["b"]
    python.write_text("#!/bin/sh\necho broken >&2\nexit 3\n")
    with pytest.raises(LabkitError, match="broken"):
        memory_peers.predictions(settings)


# ---- predictions first ----------------------------------------------------------------------------------


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """No tracing, no card: 3 tiny settings a set, measured at 2% more than predicted. Returns a runner."""
    order = []

    def engine(setting):
        order.append("predict")
        return Report({}, 1000, 1100, 1500, "backward", engine="x")

    def run(bench, names, folder, count, digest):
        order.append("measure")
        assert (bench, count) == ("memory", 1) and (folder / memory.PREDICTIONS).exists()
        report = Report({"weights": 5}, 1020, 1100, 1500, "backward").to_dict()
        return {name: {"report": report, "wall": 1.0, "bands": ledger.bands()} for name in names}

    sets = {kind: {memory_grid.name(kind, one): one for one in ones} for kind, ones in {
        "grid": [Setting("smollm2-135m"), Setting("1b")], "drawn": [Setting("1b", seq=1024)],
    }.items()}  # fmt: skip
    monkeypatch.setattr(memory, "predict", engine)
    monkeypatch.setattr(memory, "trace", engine)
    monkeypatch.setattr(memory.memory_grid, "settings", lambda seed, room: sets)
    monkeypatch.setattr(memory.env, "device", lambda: type("device", (), {"type": "cuda"}))
    monkeypatch.setattr(jobs, "run", run)
    written = []
    monkeypatch.setattr(store, "write", lambda *a, **k: written.append(k) or tmp_path / "memory.json")

    def go(*more):
        return main(["memory", "--folder", str(tmp_path), *more])

    return go, order, written, tmp_path


def test_predictions_are_written_before_anything_is_measured(pretend, capsys):
    go, order, written, folder = pretend
    assert go("--no-claims") == 0
    assert order == ["predict"] * 6 + ["measure"] and not written
    said = json.loads((folder / memory.PREDICTIONS).read_text())
    assert len(said["predictions"]) == len(said["settings"]) == 3
    assert "| predict | allocated | 3 of 3 | 1.96% | 1.96% | -2.0% | 100% |" in capsys.readouterr().out


def test_predictions_once_written_stay_and_other_code_or_seeds_are_refused(pretend, monkeypatch):
    go, order, _, folder = pretend
    go("--predict-only")
    first = (folder / memory.PREDICTIONS).read_bytes()
    assert go("--no-claims") == 0 and order == ["predict"] * 6 + ["measure"]
    assert (folder / memory.PREDICTIONS).read_bytes() == first
    with pytest.raises(LabkitError, match="other seed"):
        go("--seed", "9")
    monkeypatch.setattr(memory, "predicting_code", lambda: {"labkit/memory/predict.py": "changed"})
    with pytest.raises(LabkitError, match=r"other .*labkit/memory/predict\.py"):
        go("--no-claims")


def test_a_record_holds_what_it_depends_on_and_what_the_claim_is_judged_by(pretend, monkeypatch):
    go, _, written, _ = pretend
    monkeypatch.setattr(memory_claims, "SETTINGS", {})
    assert go() == 0
    (record,) = written
    assert {"labkit/memory/predict.py", "labkit/bench/memory_grid.py"} <= set(record["digest"])
    assert record["values"]["median error"] == pytest.approx(0.0196, abs=1e-4)
    assert record["peak_bytes"] == 1500 and record["values"]["drawn"] == 1


def test_without_a_card_only_predictions_are_to_be_had(pretend, monkeypatch):
    go, order, _, _ = pretend
    monkeypatch.setattr(memory.env, "device", lambda: type("device", (), {"type": "cpu"}))
    with pytest.raises(LabkitError, match="--predict-only"):
        go()
    assert go("--predict-only") == 0 and "measure" not in order


def test_a_setting_that_does_not_fit_is_a_result_and_another_failure_is_not(monkeypatch, tmp_path):
    file = {"settings": {"a": Setting("1b").to_dict()}}
    (tmp_path / memory.PREDICTIONS).write_text(json.dumps(file))

    def fails(text):
        def measure(_):
            raise LabkitError(text)

        monkeypatch.setattr(memory, "measure", measure)

    fails("full on 1b does not fit this card")
    assert memory._one(tmp_path, "a") == 0
    assert json.loads((tmp_path / "a.json").read_text())["does not fit"]
    fails("in use by other processes")
    with pytest.raises(LabkitError, match="in use"):
        memory._one(tmp_path, "a")


# ---- errors ---------------------------------------------------------------------------------------------


def test_errors_are_shares_of_what_was_measured_and_signed_in_the_worst():
    found = memory_report.summary([0.01, -0.02, 0.005, 0.0, -0.3])
    assert found["median"] == 0.01 and found["worst"] == -0.3 and found["under"] == 0.4
    assert found["95th percentile"] == pytest.approx(0.02 + 0.8 * 0.28)
    assert memory_report.summary([0.1])["95th percentile"] == 0.1


def test_deepspeeds_formulas_are_held_against_states_and_not_the_peak():
    terms = [
        Term("gradients", "held when the optimizer begins", 40),
        Term("workspace", "peak by the load", 7),
    ]
    categories = {"weights": 40, "optimizer": 60, "optimizer paged": 20, "activations": 500}
    report = Report(categories, 600, 660, 700, "backward", terms).to_dict()
    written = {
        "made": "now", "sha256": "0", "asked": {"seed": 1}, "sets": {"grid": ["a", "b"]},
        "settings": {"a": {}, "b": {}},
        "predictions": {"a": {"predict": {"allocated": 600}, "deepspeed zero-2": {"states": 200}},
                        "b": {"predict": {"allocated": 600}}},
    }  # fmt: skip
    values = memory_report.values(written, {name: {"report": report} for name in "ab"})
    assert values["errors"]["all"]["deepspeed zero-2"]["states"]["worst"] == pytest.approx(200 / 160 - 1)
    text = "\n".join(memory_report.lines(values))
    assert "| deepspeed zero-2 | states | 1 of 2 |" in text and "| predict | allocated | 2 of 2 |" in text


def test_what_did_not_fit_is_listed_and_counts_in_no_error():
    report = Report({}, 100, 110, 150, "backward").to_dict()
    engine = {"allocated": 90, "reserved": 110, "process": 165}
    written = {
        "made": "now", "sha256": "0", "asked": {"seed": 1}, "sets": {"grid": ["a"], "drawn": ["b"]},
        "settings": {"a": {}, "b": {}}, "predictions": {name: {"predict": engine} for name in "ab"},
    }  # fmt: skip
    values = memory_report.values(written, {"a": {"report": report}, "b": {"does not fit": "too large"}})
    assert values["errors"]["all"]["predict"]["process"]["worst"] == pytest.approx(0.1)
    assert values["median error"] == pytest.approx(0.1) and "drawn" in values["errors"]
    text = "\n".join(memory_report.lines(values))
    assert "- a: -10.00%" in text and "- b did not fit" in text


# ---- claims ---------------------------------------------------------------------------------------------


def pretended_claims():
    def found(name):
        setting = Setting.from_dict(memory_claims.SETTINGS[name])
        weights = setting.shape.weights()
        if name.startswith("squeezed"):
            sizes = {"48.0": 1, "44.5": 0} if "65b" in name else {"8.0": 1, "7.6": 1, "6.5": 1, "6.25": 0}
            return {"fits": sizes}
        item = 2 if setting.precision == "bf16" else 4
        states = {"8-bit": 2, "sgd": 0}.get(setting.optimizer, 2 * item) * weights
        report = Report({"optimizer": states}, 10 * weights, 11 * weights, 12 * weights, "backward").to_dict()
        report["terms"] = [
            {"category": "", "name": "held when the optimizer begins", "formula": "",
             "bytes": item * weights},
            {"category": "", "name": "held when the backward pass begins", "formula": "",
             "bytes": weights * setting.seq * setting.batch // 2000},
        ]  # fmt: skip
        flops = {"lora": 4}.get(setting.method, 6) + 2 * setting.checkpointing
        return {"report": report, "FLOPs": flops, "seconds": 1.0}

    return {name: found(name) for name in memory_claims.SETTINGS}


def test_every_band_of_the_memory_claims_finds_its_number():
    error = {"median": 0.0, "95th percentile": 0.0}
    errors = dict.fromkeys(("allocated", "reserved", "process"), error)
    values = memory_claims.values(pretended_claims()) | {
        "median error": 0.0, "95th percentile of error": 0.0,
        "errors": {"all": {"predict": errors, "trace": errors}},
    }  # fmt: skip
    source = judge.Recorded({"values": values, "scores": {}})
    bands = [band for claim in ledger.ledger() if claim.get("record") == "memory"
             for band in (*claim["bands"], *claim["beside"])]  # fmt: skip
    assert len(bands) > 15
    assert [band["value"] for band in bands if judge.estimate(band, source) is None] == []
    assert judge.estimate({"value": "peak.of nothing"}, source) is None


def test_numbers_of_claims_are_what_they_say():
    values = memory_claims.values(pretended_claims())
    assert values["bytes per weight"] == {"pure bf16": 6.0, "fp32 autocast": 12.0, "8-bit": 6.0}
    assert values["deviation from the recipe's rule"] == {"pure bf16": 0, "fp32 autocast": 0, "8-bit": 0}
    assert values["checkpointing"]["full"]["FLOPs ratio"] == pytest.approx(8 / 6)
    assert values["checkpointing"]["LoRA"]["FLOPs ratio"] == pytest.approx(6 / 4)
    assert values["crossing"] == pytest.approx(
        800, rel=0.01
    )  # half a byte a weight for 1,000 tokens, 0.4 wanted
    assert values["smallest"] == 6.5 * 2**30
    assert values["completes on 48 GB"] == {"offered": 0, "nominal": 1}


def test_claims_about_cards_are_judged_by_what_such_a_card_offers():
    claims = {claim["id"]: claim for claim in ledger.ledger()}
    ceilings = {band["at_most"] for band in claims["mem-lora16"]["bands"]}
    assert ceilings == {int(CARDS["16 GB"])} and int(CARDS["16 GB"]) < 16 * 2**30
    for name, card in (("mem-qlora6", "8 GB"), ("mem-65b", "48 GB")):
        band = claims[name]["bands"][0]
        assert band["value"] == f"completes on {card}.offered" and f"{OFFERS[card]} GiB" in band["says"]
        setting = Setting.from_dict(memory_claims.DEEP if card == "48 GB" else memory_claims.QLORA)
        tried = memory_claims.sizes(card) if card == "48 GB" else memory_claims.largest_first(setting)
        assert tried[:2] == [float(card.split()[0]), OFFERS[card]] and tried == sorted(tried, reverse=True)


def test_the_timed_steps_have_the_shape_that_the_claim_names_and_fit_the_card():
    timed = {name: Setting.from_dict(one) for name, one in memory_claims.SETTINGS.items() if "timed" in name}
    assert len(timed) == 4
    for setting in timed.values():
        assert (setting.shape.name, setting.batch * setting.seq, setting.precision) == ("7b", 1024, "bf16")
        assert predict(setting).process < ROOM


def test_inference_is_measured_in_16_bits():
    assert Setting.from_dict(memory_claims.SETTINGS["orders-inference"]).precision == "bf16"


def test_a_part_that_was_not_measured_leaves_the_others():
    results = pretended_claims()
    results["timed-plain"] = {"does not fit": "so"}
    values = memory_claims.values(results)
    assert "checkpointing" not in values and "crossing" in values


def test_the_crossing_lies_between_neighbours_or_beyond_the_ends():
    assert memory_claims.crossing((1, 2, 4), (0.1, 0.3, 0.5), 0.2) == pytest.approx(1.5)
    assert memory_claims.crossing((1, 2, 4), (0.1, 0.3, 0.5), 0.4) == pytest.approx(3)
    assert memory_claims.crossing((1, 2), (0.1, 0.2), 0.3) == pytest.approx(3)
    with pytest.raises(LabkitError):
        memory_claims.crossing((1,), (0.1,), 0.2)
