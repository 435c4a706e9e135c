"""Tracing a step without memory, against what the CPU's allocator gives out for the same step in earnest."""

import importlib
import logging

import pytest
import torch
from torch import nn

from labkit.errors import LabkitError
from labkit.memory import Setting, Shape, replay, trace
from labkit.memory.ghost import SPACE, Ghosts
from labkit.memory.recipe import Recipe, build_model
from labkit.memory.tracker import LOAD, Event, Storage, Tracker

tracing = importlib.import_module(
    "labkit.memory.trace"
)  # the module; the name in the package is the function
TINY = Shape("tiny", 64, 2, 4, 4, 16, 128, 1000, True, 512)


def small(**fields):
    """A setting that runs in earnest in a moment; the plain attention is the same on every device."""
    return Setting(TINY, **{"batch": 3, "seq": 128, "attention": "math", **fields})


def traced_step(setting):
    """Highest bytes of traced steps beyond weights and optimizer states; nothing rounded, no cuBLAS."""
    return traced(tracing._of_setting(setting))


def traced(build):
    tracker = Tracker(Ghosts())
    with tracing._stand_ins(tracker, "math"), tracker:
        events = tracing.steps(tracing._run(tracker, build))
    now = highest = base = 0
    for event in events:
        if event.what == "touch" or event.storage.made_by == "cuBLAS":
            continue
        now += event.storage.bytes if event.what == "take" else -event.storage.bytes
        highest = max(highest, now)
        if event.phase == LOAD:
            base = now
    states = {id(event.storage): event.storage.bytes for event in events
              if event.storage.category == "optimizer"}  # fmt: skip
    return highest - base - sum(states.values())


def real_step(setting):
    """The same of real steps, as the CPU's allocator reports to torch's profiler."""
    return real(Recipe(setting, "cpu").step)


def real(step):
    step()  # makes the optimizer's states
    now = highest = 0
    for event in memory_events(step):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


def memory_events(step):
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    return sorted(events, key=lambda event: event.start_ns())


@pytest.mark.parametrize(
    "fields",
    [
        {"precision": "fp32"}, {}, {"precision": "bf16"}, {"method": "lora"}, {"method": "dora"},
        {"method": "lora", "precision": "bf16"}, {"method": "adapter"}, {"method": "prompt"},
        {"method": "prefix"},
        {"method": "ia3"}, {"method": "dpo"}, {"method": "partial", "blocks": 1}, {"fused_loss": True},
    ],
    ids=lambda fields: " ".join(map(str, fields.values())) or "full, autocast",
)  # fmt: skip
def test_a_traced_step_takes_what_the_real_step_takes_to_the_byte(fields):
    traced, real = traced_step(small(**fields)), real_step(small(**fields))
    assert abs(traced / real - 1) < 1e-4


@pytest.mark.parametrize("precision", ["fp32", "bf16 autocast"])
def test_the_two_gradients_of_a_shared_embedding_are_summed_as_in_earnest(precision):
    """Into a third tensor where the first is a view of a product, in place where it was cast from one."""
    few = small(precision=precision, batch=1, seq=16, optimizer="fused")  # they are the most here
    assert abs(traced_step(few) / real_step(few) - 1) < 1e-4
    copies = 2 if precision == "fp32" else 1
    assert traced_step(few) > 4 * (TINY.weights() + copies * TINY.vocab * TINY.hidden)


def test_a_checkpointed_step_too_but_for_the_state_of_the_cpus_generator():
    traced, real = traced_step(small(checkpointing=True)), real_step(small(checkpointing=True))
    state = torch.get_rng_state().nbytes  # which checkpointing keeps for each block, on the CPU
    assert 0 <= real - traced <= TINY.layers * state + 128


def test_the_comparison_would_see_a_small_difference():
    assert abs(traced_step(small(seq=129)) / real_step(small()) - 1) > 1e-3
    assert abs(traced_step(small(method="lora", rank=17)) / real_step(small(method="lora")) - 1) > 1e-4


class Fork(nn.Module):
    """Three uses of one tensor, so that three gradients meet."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2**18))

    def forward(self):
        """A sum."""
        h = self.weight * 2
        return (h.exp() + h.tanh() + h.sin()).sum()


def test_gradients_that_meet_are_summed_in_place_as_autograd_does():
    def step_of(model):
        def step():
            model().backward()
            model.zero_grad()

        return step

    def taken(events):
        return sum(event.storage.bytes for event in events if event.what == "take" and event.phase != LOAD)

    tracker, fork = Tracker(Ghosts()), Fork()
    with tracker:
        events = tracing._run(tracker, tracing._of_factories(Fork, step_of))
    ever = sum(event.nbytes() for event in memory_events(step_of(fork)) if event.nbytes() > 0)
    assert abs(taken(tracing._in_place(events)) - ever) < 100
    assert taken(events) > ever + fork.weight.nbytes


# ---- identities -----------------------------------------------------------------------------------------


def test_adam_keeps_8_bytes_for_every_trained_fp32_weight():
    weights, slack = TINY.weights(), 2 * 512 * 30  # each tensor is rounded up to 512 bytes
    found = trace(small()).categories["optimizer"]
    assert 8 * weights <= found < 8 * weights + slack
    assert not 8 * weights <= trace(small(optimizer="8-bit")).categories["optimizer"] < 8 * weights + slack
    assert "optimizer" not in trace(small(optimizer="sgd")).categories


def test_fp32_with_adamw_takes_16_bytes_a_weight_at_the_optimizer_step_and_foreach_4_more():
    shape = Shape("wide", 256, 2, 4, 4, 64, 512, 1000, False)
    found = trace(Setting(shape, seq=8, precision="fp32"))
    kept = sum(found.categories[name] for name in ("weights", "gradients", "optimizer"))
    assert found.moment == "optimizer step"
    assert kept / shape.weights() == pytest.approx(16, rel=0.01)
    room = found.categories["workspace"] - 2 * 32 * 2**20
    assert room / shape.weights() == pytest.approx(4, rel=0.01)
    fused = trace(Setting(shape, seq=8, precision="fp32", optimizer="fused"))
    assert fused.peak_allocated < found.peak_allocated - 3 * shape.weights()


@pytest.mark.parametrize(("targets", "count"), [("all-linear", 2_442_240), ("q,v", 460_800)])
def test_lora_of_rank_8_trains_as_many_weights_as_peft_says(targets, count):
    setting = Setting("smollm2-135m", method="lora", rank=8, targets=targets)
    with Tracker(Ghosts()):
        model = build_model(setting, torch.device("cpu"))
    assert sum(weight.numel() for weight in model.parameters() if weight.requires_grad) == count


def test_nf4_layers_made_by_hand_are_those_that_bitsandbytes_makes():
    import bitsandbytes as bnb

    def sizes(packed, state):
        kept = [packed, state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code]
        return [(tensor.numel(), tensor.dtype) for tensor in kept]

    model = build_model(small(method="qlora"), torch.device("cpu")).base_model.model
    layer = model.model.layers[0].mlp.down_proj.base_layer
    own = bnb.functional.quantize_4bit(torch.randn(64, 128), compress_statistics=True, quant_type="nf4")
    assert sizes(layer.weight.data, layer.weight.quant_state) == sizes(*own)
    single = bnb.functional.quantize_4bit(torch.randn(64, 128), compress_statistics=False, quant_type="nf4")
    assert single[1].state2 is None


def test_65b_in_nf4_is_near_35_gb():
    tracker = Tracker(Ghosts())
    tracker.phase = LOAD
    with tracker:
        model = build_model(Setting("65b", method="qlora", precision="bf16"), torch.device("cpu"))
        played = replay.play(tracker.events)
    adapters = sum(weight.nbytes for weight in model.parameters() if weight.requires_grad)
    assert 34e9 < played.allocated - adapters < 36e9
    assert played.phase == "load"


# ---- what else a trace says -------------------------------------------------------------------------------


def test_paged_states_lie_outside_torchs_peak_and_inside_the_process():
    shape = Shape("wide", 512, 2, 4, 4, 128, 1024, 1000, False)
    paged, plain = (trace(Setting(shape, seq=16, optimizer=name)) for name in ("paged", "fused"))
    outside = paged.categories["optimizer paged"]
    assert outside > 7 * shape.weights()
    assert paged.peak_allocated < plain.peak_allocated - 0.9 * outside
    assert paged.process >= paged.peak_reserved + outside
    assert "optimizer paged" not in plain.categories


def test_categories_sum_to_the_peak():
    found = trace(small())
    inside = sum(
        size for name, size in found.categories.items() if name not in ("context", "optimizer paged")
    )
    assert inside == found.peak_allocated <= found.peak_reserved < found.process


def test_checkpointing_keeps_less_and_scores_in_full_keep_more():
    plain = trace(small(seq=256))
    assert trace(small(seq=256, checkpointing=True)).peak_allocated < plain.peak_allocated
    assert trace(small(seq=256, attention="flash")).peak_allocated < plain.peak_allocated


def test_grouped_queries_in_fp32_fall_to_the_plain_attention():
    grouped = Shape("grouped", 64, 2, 4, 2, 16, 128, 1000, True, 512)

    def peaks(shape, precision):
        setting = Setting(shape, seq=512, precision=precision)
        return trace(setting).peak_allocated, trace(setting.but(attention="math")).peak_allocated

    fused, plain = peaks(grouped, "fp32")
    assert fused == plain
    for shape, precision in ((TINY, "fp32"), (grouped, "bf16")):
        fused, plain = peaks(shape, precision)
        assert fused < plain


def test_any_model_can_be_traced():
    from transformers import GPT2Config, GPT2LMHeadModel

    def model():
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=64, n_head=4, vocab_size=500))

    def step_of(model):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        ids = torch.randint(0, 500, (2, 64))

        def step():
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            optimizer.zero_grad()

        return step

    found, count = trace(model, step_of), sum(weight.numel() for weight in model().parameters())
    assert found.categories["weights"] >= 4 * count
    assert found.categories["optimizer"] == pytest.approx(4 * count, rel=0.05)  # the momentum


def test_a_step_that_reads_a_value_is_refused_and_one_that_reads_what_is_known_is_not():
    def step_of(reads):
        def make(model):
            def step():
                loss = model(torch.ones(4, 8)).sum()
                loss.backward()
                reads(loss)

            return step

        return make

    with pytest.raises(LabkitError, match="reads a tensor's value"):
        trace(lambda: nn.Linear(8, 1024).to(torch.bfloat16).float(), step_of(lambda loss: loss.item()))
    assert trace(lambda: nn.Linear(8, 1024), step_of(lambda _: torch.arange(9).sum().item())).peak_allocated


def test_ghosts_take_no_memory():
    with Tracker(Ghosts()):
        held = [torch.zeros(SPACE // 64, dtype=torch.float32) for _ in range(8)]  # 8 times 64 GiB
        product = held[0].view(2**16, -1) @ held[1].view(2**16, -1).T
    assert product.shape == (2**16, 2**16)
    with pytest.raises(LabkitError, match="more than a trace can lay out"), Tracker(Ghosts()):
        torch.zeros(SPACE)


def test_bitsandbytes_restores_weights_for_many_rows_and_not_for_few():
    from labkit.memory.kernels import gemm_4bit_extra

    def extra(rows):
        return gemm_4bit_extra((torch.empty(rows, 4096, dtype=torch.bfloat16, device="meta"), None,
                                (11008, 4096), None, 64))  # fmt: skip

    assert extra(2) == 0
    assert extra(2048) >= 2 * 11008 * 4096


# ---- the allocator --------------------------------------------------------------------------------------


def test_the_allocator_shares_small_segments_and_rounds_large_ones():
    allocator = replay.Allocator()
    first = allocator.take(1)
    allocator.take(2**20)
    assert allocator.reserved == 2 * 2**20  # 512 bytes and 1 MiB lie in one small segment
    allocator.take(2**20 + 1)
    assert allocator.reserved == 22 * 2**20
    allocator.take(11 * 2**20 + 1)  # more than 10 MiB: does the rest of the 20 MiB segment hold it? yes
    assert allocator.reserved == 22 * 2**20
    allocator.take(31 * 2**20)
    assert allocator.reserved == 54 * 2**20
    allocator.give_back(first)
    allocator.take(512)
    assert allocator.reserved == 54 * 2**20


def test_free_neighbours_merge_and_a_hole_too_small_does_not_serve():
    allocator = replay.Allocator()
    parts = [allocator.take(5 * 2**20) for _ in range(4)]  # one segment of 20 MiB
    allocator.give_back(parts[0])
    allocator.give_back(parts[2])
    allocator.take(8 * 2**20)
    assert allocator.reserved == 40 * 2**20  # two holes of 5 MiB are none of 8
    allocator.give_back(parts[1])
    allocator.take(15 * 2**20)
    assert allocator.reserved == 40 * 2**20  # three of 5 in a row are one of 15


def test_the_peak_counts_a_kernels_own_room_for_its_length():
    stay, room = Storage(512, "weights", "load", ""), Storage(1024, "workspace", "backward", "")
    events = [Event("take", stay, "load"), Event("touch", room, "backward")]
    played = replay.play(events)
    assert (played.allocated, played.held) == (1536, {"weights": 512, "workspace": 1024})
    assert (played.phase, played.reserved) == ("backward", 2**21)
    assert replay.play(events[:1]).allocated == 512
    assert replay.play([*events, Event("give back", stay, "backward")]).allocated == 1536
    assert replay.play([*events[:1], Event("give back", stay, "load"), events[1]]).allocated == 1024


@pytest.mark.parametrize(("mib", "allocated"), [(6.5, 20.0), (6.25, 18.75)])
def test_a_block_whose_rest_is_not_worth_splitting_off_counts_whole(mib, allocated):
    """Three in a segment of 20 MiB: 0.5 MiB stays with the last, 1.25 MiB does not."""
    events = [Event("take", Storage(int(mib * 2**20), "weights", "load", ""), "load") for _ in range(3)]
    played = replay.play(events)
    assert played.allocated == played.held["weights"] == allocated * 2**20
    assert played.reserved == 20 * 2**20


def test_cublas_workspaces_come_before_all_else_as_when_measured():
    made = [Storage(512, "weights", LOAD, "empty"), Storage(2**25, "workspace", "forward", "cuBLAS"),
            Storage(512, "activations", "forward", "mm")]  # fmt: skip
    events = [Event("take", storage, storage.phase) for storage in made]
    order = [event.storage.made_by for event in tracing.steps(events)]
    assert order[:3] == ["cuBLAS", "empty", "mm"] and order.count("cuBLAS") == 1


def test_of_bitsandbytes_warnings_only_the_one_about_an_optional_kernel_is_silenced():
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")

    def passes(text):
        return bool(logger.filter(logger.makeRecord(logger.name, logging.WARNING, "", 0, text, ("x",), None)))

    assert not passes("Failed to load CPU gemm_4bit_forward from kernels-community: %s")
    assert passes("another warning: %s")
