"""The analytic predictor of memory: counts that are known, identities, torch's own account, and refusals."""

import weakref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM, OPTConfig

from labkit.errors import LabkitError
from labkit.memory import SHAPES, Report, Setting, Shape, machine, predict, shape_of
from labkit.memory.predict import _Step
from labkit.memory.tape import Tape, Tensor, rounded

TINY = Shape("tiny", 64, 6, 4, 2, 16, 192, 1000, True, 2048)


def config_of(shape, **changes):
    return LlamaConfig(**{
        "vocab_size": shape.vocab, "hidden_size": shape.hidden, "intermediate_size": shape.inter,
        "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads, "head_dim": shape.head_dim, "use_cache": False,
        "max_position_embeddings": shape.positions, "tie_word_embeddings": shape.tied, **changes,
    })  # fmt: skip


def trained(setting):
    """How many weights a setting trains, by the predictor's account."""
    return sum(n * copies for n, _, copies in _Step(setting, Tape()).model.weights.trained)


# ---- shapes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=lambda shape: shape.name)
def test_a_known_shape_has_exactly_as_many_weights_as_transformers_gives_it(shape):
    with torch.device("meta"):
        model = LlamaForCausalLM(config_of(shape))
    assert shape.weights() == sum(weight.numel() for weight in model.parameters())
    assert shape_of(model, shape.name) == shape


def test_a_shape_with_one_block_less_has_another_count():
    from dataclasses import replace

    shape = SHAPES["7b"]
    assert replace(shape, layers=31).weights() == shape.weights() - shape.block_weights()


def test_known_names_have_the_known_sizes():
    billions = {name: round(shape.weights() / 1e9, 2) for name, shape in SHAPES.items()}
    assert billions == {"smollm2-135m": 0.13, "1b": 1.24, "7b": 6.74, "mistral-7b": 7.24, "13b": 13.02,
                        "65b": 65.29, "70b": 68.98}  # fmt: skip


def test_a_model_that_is_no_llama_is_refused():
    with pytest.raises(LabkitError, match="trace"):
        shape_of(
            OPTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, ffn_dim=128, vocab_size=100)
        )
    with pytest.raises(LabkitError, match="other parts"):
        shape_of(config_of(TINY, attention_bias=True))


# ---- settings -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"method": "magic"}, "method"), ({"precision": "fp8"}, "precision"), ({"seq": 0}, "seq"),
        ({"method": "inference", "checkpointing": True}, "checkpointing"), ({"new_tokens": 5}, "new_tokens"),
        ({"method": "prefix", "checkpointing": True}, "prompt"),
        ({"method": "partial", "blocks": 99}, "blocks"),
        ({"method": "lora", "targets": "q,z"}, "z"), ({"method": "lora", "adapters": "bf16"}, "adapters"),
        ({"method": "dpo", "fused_loss": True}, "fused_loss"), ({"shape": "8b"}, "8b"),
        ({"batch": True}, "batch"), ({"checkpointing": 1}, "checkpointing"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(fields, names):
    with pytest.raises(LabkitError, match=names):
        Setting(**{"shape": TINY, **fields})


def test_settings_and_reports_survive_json():
    import json

    setting = Setting("7b", "lora", targets="v,q", checkpointing=True)
    assert Setting.from_dict(json.loads(json.dumps(setting.to_dict()))) == setting
    assert setting.targets == "q_proj,v_proj"
    report = predict(setting)
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    with pytest.raises(LabkitError, match="colour"):
        Setting.from_dict({"shape": "7b", "colour": "red"})


# ---- identities -----------------------------------------------------------------------------------------


def test_lora_trains_the_counts_that_peft_prints():
    base = Setting("smollm2-135m", "lora", rank=8)
    assert trained(base) == 2_442_240
    assert trained(base.but(targets="q,v")) == 460_800
    assert trained(base.but(rank=16)) != 2_442_240


def test_adam_keeps_8_bytes_for_a_trained_fp32_weight_and_fp32_training_takes_16_in_all():
    report = predict("7b", seq=32, precision="fp32", optimizer="fused", checkpointing=True)
    n = SHAPES["7b"].weights()
    assert report.categories["optimizer"] == pytest.approx(8 * n, rel=1e-4)
    held = sum(report.categories[name] for name in ("weights", "gradients", "optimizer"))
    assert held == pytest.approx(16 * n, rel=0.03)
    half = predict("7b", seq=32, precision="bf16", optimizer="fused", checkpointing=True)
    assert half.categories["optimizer"] == pytest.approx(4 * n, rel=1e-4)


def test_foreach_adamw_takes_one_more_copy_of_the_trained_weights_than_fused():
    setting = Setting("1b", seq=64, precision="bf16")
    more = predict(setting).peak_allocated - predict(setting.but(optimizer="fused")).peak_allocated
    assert predict(setting).moment == "optimizer step"
    assert 0 < more <= 2.01 * SHAPES["1b"].weights()


def test_8_bit_states_take_a_quarter_and_paged_states_leave_the_card():
    setting = Setting("1b", seq=64)
    states = {
        name: predict(setting.but(optimizer=name)).categories for name in ("fused", "8-bit", "paged", "sgd")
    }
    assert states["8-bit"]["optimizer"] == pytest.approx(states["fused"]["optimizer"] / 4, rel=0.03)
    assert states["paged"]["optimizer paged"] == pytest.approx(states["fused"]["optimizer"], rel=0.01)
    assert "optimizer paged" not in states["fused"]
    assert "optimizer" not in states["sgd"]


def test_the_65b_shape_in_nf4_is_near_35_gb_and_its_step_near_what_was_measured():
    # Measured on an H200: 38.4 GB allocated, 6.4 GB of paged states.
    report = predict("65b", method="qlora", rank=64, precision="bf16", adapters="bf16", optimizer="paged",
                     checkpointing=True, seq=512)  # fmt: skip
    adapters = 2 * trained(Setting("65b", "qlora", rank=64))
    assert report.categories["weights"] - adapters == pytest.approx(34.5e9, rel=0.01)
    assert report.peak_allocated == pytest.approx(38.4e9, rel=0.01)
    assert report.categories["optimizer paged"] == pytest.approx(6.4e9, rel=0.01)
    dense = predict("65b", method="lora", rank=64, precision="bf16", adapters="bf16", optimizer="paged",
                    checkpointing=True, seq=512)  # fmt: skip
    assert dense.peak_allocated > 3 * report.peak_allocated


def test_double_quantized_nf4_stores_4_bits_and_an_eighth_a_weight():
    tape = Tape()
    from labkit.memory.linears import Weights

    parts = Weights(tape).nf4(4096 * 4096, "w")
    bits = 8 * sum(part.bytes for part in parts) / 4096**2
    assert 4.12 < bits < 4.14


def test_checkpointing_and_a_fused_loss_take_less_and_plain_attention_takes_more():
    setting = Setting("1b", "lora", batch=2, seq=1024)
    plain = predict(setting).peak_allocated
    assert predict(setting.but(checkpointing=True)).peak_allocated < 0.7 * plain
    assert predict(setting.but(fused_loss=True)).peak_allocated < plain
    scores = 16 * 2 * 32 * 1024 * 1024 * 4  # blocks x batch x heads x seq x seq x fp32
    assert predict(setting.but(attention="math")).peak_allocated - plain > 0.9 * scores


def test_the_kv_cache_grows_by_two_numbers_a_token_head_and_block():
    setting = Setting("7b", "inference", batch=4, seq=512, precision="bf16", new_tokens=1)
    shape = setting.shape
    peaks = [predict(setting.but(new_tokens=tokens)).peak_allocated for tokens in (513, 1025)]
    longer = peaks[1] - peaks[0]
    grown = 2 * 2 * 4 * 512 * shape.key * shape.layers
    assert grown <= longer < 1.1 * grown


def test_fp32_with_grouped_queries_falls_to_attention_with_all_scores():
    assert machine.attention_kernel("flash", 4, True, False) == "math"
    assert machine.attention_kernel("flash", 4, False, False) == "efficient"
    assert machine.attention_kernel("flash", 2, True, False) == "flash"


# ---- the tape -------------------------------------------------------------------------------------------


def test_blocks_that_are_not_played_count_as_if_they_were():
    from dataclasses import replace

    for fields in ({}, {"checkpointing": True}, {"method": "lora"}, {"method": "prefix"}, {"method": "dpo"},
                   {"method": "inference", "new_tokens": 3}, {"method": "partial", "blocks": 5}):  # fmt: skip
        sizes = [
            predict(Setting(replace(TINY, layers=layers), seq=64, optimizer="fused", **fields)).peak_allocated
            for layers in (10, 11, 12)
        ]
        assert sizes[2] - sizes[1] == sizes[1] - sizes[0] > 0, fields


def test_nothing_but_weights_states_gradients_and_ids_outlives_a_step():
    for fields in ({}, {"checkpointing": True}, {"method": "lora"}, {"method": "qlora"}, {"method": "prefix"},
                   {"method": "dpo"}, {"fused_loss": True, "seq": 1200}, {"method": "dora"}):  # fmt: skip
        tape = Tape()
        tape.mark("load")
        step = _Step(Setting(TINY, **fields), tape)
        before = tape.account(0, len(tape.events))
        step.train()
        after = tape.account(0, len(tape.events))
        left = {key: after.get(key, 0) - before.get(key, 0) for key in {*after, *before}}
        left = {key[:2]: size for key, size in left.items() if size}
        assert {category for category, _ in left} <= {"gradients", "workspace"}, (fields, left)


def test_a_tensor_lives_as_long_as_it_is_held():
    tape = Tape()
    held = Tensor(tape, (1000, "n"), 4, "activations", "held")
    Tensor(tape, (1000, "n"), 4, "activations", "dropped")
    assert tape.account(0, len(tape.events)) == {held.key: rounded(4000)}
    del held
    assert not tape.account(0, len(tape.events))


# ---- against torch --------------------------------------------------------------------------------------


class Account(TorchDispatchMode):
    """Bytes that live while real tensors compute, by following every storage to its end."""

    def __init__(self):
        super().__init__()
        self.live, self.now, self.peak = {}, 0, 0

    def see(self, tensor):
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key not in self.live:
            self.live[key] = rounded(storage.nbytes())
            self.now += self.live[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self.gone, key)

    def gone(self, key):
        self.now -= self.live.pop(key)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.see(leaf)
        return out


def counted(setting):
    """(forward, backward) peaks of a real step on the CPU, beyond what lived before it."""
    torch.set_default_dtype(torch.bfloat16 if setting.precision == "bf16" else torch.float32)
    try:
        model = LlamaForCausalLM(config_of(setting.shape)).train()
    finally:
        torch.set_default_dtype(torch.float32)
    if setting.method == "lora":
        import peft

        model = peft.get_peft_model(
            model, peft.LoraConfig(r=setting.rank, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    if setting.checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(0, setting.shape.vocab, (setting.batch, setting.seq))
    account = Account()
    for tensor in [*model.parameters(), *model.buffers(), ids]:
        account.see(tensor)
    before = account.now
    with account:
        account.peak = account.now
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.precision == "bf16 autocast"):
            loss = model(input_ids=ids, labels=ids).loss
        forward, account.peak = account.peak, account.now
        loss.backward()
    return forward - before, account.peak - before


def played(setting, monkeypatch):
    """The same by the predictor, told what differs on a CPU under such an account."""
    monkeypatch.setattr(machine, "attention_kernel", lambda attention, *rest: attention)
    monkeypatch.setattr(machine, "flash_backward", lambda *sizes: 0)
    tape = Tape(in_place=False)  # autograd sums in place only while no mode watches
    tape.mark("load")
    _Step(setting, tape).train()
    living, now, peaks = 0, [], []
    for size, _ in tape.events:
        living += size
        now.append(living)
    marks = dict((moment, place) for place, moment in tape.marks)
    start = now[marks["forward end"] - 1]
    for first, last in (("forward end", "backward"), ("backward", "optimizer step")):
        peaks.append(max(now[marks[first] : marks[last]]) - start)
    return peaks


@pytest.mark.parametrize("precision", ["fp32", "bf16 autocast", "bf16"])
@pytest.mark.parametrize("fields", [{}, {"checkpointing": True}, {"method": "lora"}], ids=str)
@pytest.mark.parametrize("vocab", [64, 2000])
def test_a_played_step_peaks_where_torchs_does(precision, fields, vocab, monkeypatch):
    shape = Shape("tiny", 64, 6, 4, 2, 16, 192, vocab, True, 2048)
    setting = Setting(shape, batch=2, seq=96, precision=precision, **fields)
    forward, backward = counted(setting)
    predicted = played(setting, monkeypatch)
    assert predicted[0] == pytest.approx(forward, rel=0.005)
    assert predicted[1] == pytest.approx(backward, rel=0.002)
    wider = played(setting.but(seq=100), monkeypatch)  # four more tokens a row, and it is another answer
    assert wider[1] != pytest.approx(backward, rel=0.01)


def test_gradients_that_are_views_are_summed_into_a_third_tensor():
    # Tied table in fp32: gradient of the head, gradient of the embedding, and their sum, as torch does.
    shape = Shape("tied", 64, 1, 4, 4, 16, 64, 50_000, True, 2048)
    peak = {
        precision: predict(Setting(shape, seq=2, precision=precision, optimizer="sgd"))
        for precision in ("fp32", "bf16 autocast")
    }
    table = 50_000 * 64 * 4
    gradients = {name: report.categories["gradients"] // table for name, report in peak.items()}
    assert gradients["fp32"] == 1
    extra = {name: report.peak_allocated - report.categories["weights"] - report.categories["workspace"]
             for name, report in peak.items()}  # fmt: skip
    assert round(extra["fp32"] / table) == 3
    assert round(extra["bf16 autocast"] / table) == 2


def test_the_parts_of_a_report_add_up_and_are_explained():
    report = predict("7b", method="qlora", precision="bf16", optimizer="paged", checkpointing=True)
    parts = report.categories
    inside = sum(parts.values()) - parts["context"] - parts["optimizer paged"]
    assert inside == report.peak_allocated <= report.peak_reserved
    assert report.process == report.peak_reserved + parts["context"] + parts["optimizer paged"]
    assert sum(term.bytes for term in report.terms) == sum(parts.values())
    text = "\n".join(report.explain())
    assert "batch x seq x hidden" in text
    assert "peak at the backward" in text
