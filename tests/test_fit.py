"""`fit`: equal to a plain loop, resumable, honest about what it cannot do, and tidy afterwards."""

import json
import math
import signal

import peft
import pytest
import torch

from labkit.errors import LabkitError
from labkit.train import RESULTS, fit, loop
from labkit.train import precision as mixed
from labkit.train import step as stepping
from labkit.train.packing import collate, plan
from labkit.train.rows import encode_all
from labkit.train.schedule import rate

LENGTH = 256
QUICK = {"lr": 3e-3, "batch": 2, "length": LENGTH, "precision": "fp32", "progress": False}


def train(model, rows, tokenizer, steps=4, **options):
    return fit(model, rows, tokenizer, steps=steps, **{**QUICK, **options})


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def assert_usable(model):
    """The model has its head, evaluates, and holds no gradients."""
    assert model(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, 49152)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


# ---- equal to a plain loop


def plain_loop(model, rows, tokenizer, steps, lr, batch, length, warmup=0.1):
    """What a learner would write: full logits, cross-entropy on the answers, AdamW, clipping."""
    encoded = encode_all(rows, tokenizer, length)
    bins = plan([len(row) for row in encoded], batch, length, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    ramp = max(1, round(warmup * steps))
    losses = []
    model.train()
    for step in range(steps):
        rise, fall = (step + 1) / ramp, (steps - step) / (steps - ramp)
        optimizer.param_groups[0]["lr"] = lr * min(1.0, rise, fall)
        one = collate(encoded, next(bins), length)
        out = model(input_ids=one.ids, position_ids=one.positions, attention_mask=one.mask(), use_cache=False)
        targets = one.targets.masked_fill(one.weights == 0, -100)
        loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), targets.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def test_a_plain_loop_gives_the_same_losses(tiny, tokenizer, tickets):
    ours = train(tiny(), tickets, tokenizer, steps=10)
    plain = plain_loop(tiny(), tickets, tokenizer, 10, QUICK["lr"], QUICK["batch"], LENGTH)
    assert ours.losses == pytest.approx(plain, abs=1e-5)
    assert plain[-1] < plain[0] - 0.1  # there was something to learn
    other = plain_loop(tiny(), tickets, tokenizer, 3, 1.2 * QUICK["lr"], QUICK["batch"], LENGTH)
    assert other[1:] != pytest.approx(ours.losses[1:3], abs=1e-3)  # the control: another rate shows


def test_the_schedules_rise_and_fall_as_they_say():
    linear = [rate(step, 10, 0.2, "linear") for step in range(10)]
    assert linear == pytest.approx([0.5, 1, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    cosine = [rate(step, 10, 0.2, "cosine") for step in range(10)]
    assert cosine[2] == 1 and cosine[6] == pytest.approx(0.5) and cosine[9] < 0.05
    assert [rate(step, 10, 0.2, "constant") for step in (0, 1, 9)] == [0.5, 1, 1]
    assert rate(0, 1, 0.1, "linear") == 1


# Steps of a model whose weights are a formula: losses of RESULTS 1.
PINNED = [11.66604, 10.73553, 10.59660, 10.43666, 10.21076, 10.14248]


def test_the_numbers_of_fit_are_those_that_records_were_made_with(tiny, tokenizer, tickets):
    """If this fails on purpose, raise labkit.train.RESULTS and put the new numbers here."""
    model = tiny()
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            places = torch.arange(weight.numel(), dtype=torch.float64)
            weight.copy_((0.05 * torch.sin(places * (number + 1.7)) + (weight.ndim == 1)).view_as(weight))
    options = {"accumulate": 2, "schedule": "cosine", "weight_decay": 0.1, "prompt_loss_weight": 0.1}
    losses = train(model, tickets, tokenizer, steps=6, **options).losses
    assert RESULTS == 1 and losses == pytest.approx(PINNED, abs=2e-4)
    assert losses[-1] < losses[0] - 0.05


def test_gradients_from_before_do_not_count(tiny, tokenizer, tickets):
    clean, model = train(tiny(), tickets, tokenizer).losses, tiny()
    model(torch.tensor([[5, 6, 7]]), labels=torch.tensor([[5, 6, 7]])).loss.backward()
    assert train(model, tickets, tokenizer).losses == clean


# ---- what the loss counts


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_the_first_loss_is_the_weighted_mean_computed_by_hand(tiny, tokenizer, tickets, share):
    model, rows = tiny(), tickets[:2]
    total = weight = 0.0
    for row in encode_all(rows, tokenizer, LENGTH, share):
        with torch.no_grad():
            logs = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        for position, target in enumerate(row.ids[1:]):
            total -= row.weights[position + 1] * logs[position, target].item()
            weight += row.weights[position + 1]
    run = train(model, rows, tokenizer, steps=1, pack=False, prompt_loss_weight=share)
    assert run.losses[0] == pytest.approx(total / weight, abs=1e-5)


def test_the_end_token_is_trained_on(tiny, tokenizer):
    model, rows = tiny(), [{"prompt": "2+2=", "completion": " 4"}]
    ids = torch.tensor([tokenizer("2+2= 4").input_ids])

    def chance():
        with torch.no_grad():
            return model(ids).logits[0, -1].softmax(-1)[tokenizer.eos_token_id].item()

    before = chance()
    train(model, rows, tokenizer, steps=40, batch=1, length=32, lr=1e-2)
    assert before < 0.01 and chance() > 0.5


def test_two_half_batches_equal_one_whole_batch(tiny, tokenizer, tickets):
    rows = sorted(tickets, key=lambda row: len(row["completion"][0]["content"]))
    rows = [rows[0], rows[-1], rows[1], rows[-2]]
    counts = [sum(row.weights) for row in encode_all(rows, tokenizer, LENGTH)]
    assert max(counts) > 1.5 * min(counts)  # averaging batch by batch would show
    whole = train(tiny(), rows, tokenizer, batch=4, pack=False, clip=None)
    halves = train(tiny(), rows, tokenizer, batch=2, accumulate=2, pack=False, clip=None)
    assert halves.losses == pytest.approx(whole.losses, abs=1e-6)
    assert halves.tokens == whole.tokens
    single = train(tiny(), rows, tokenizer, batch=2, pack=False, clip=None)
    assert single.losses != pytest.approx(whole.losses, abs=1e-3)


def test_tokens_and_trainable_weights_are_counted(tiny, tokenizer, tickets):
    model = tiny()
    run = train(model, tickets[:8], tokenizer, steps=4, pack=False)
    assert run.tokens == sum(len(row) for row in encode_all(tickets[:8], tokenizer, LENGTH))
    assert run.trainable == sum(parameter.numel() for parameter in model.parameters())
    assert run.steps == 4 and run.seconds > 0 and run.peak_bytes > 1e8
    assert run.tokens_per_second == pytest.approx(run.tokens / run.seconds)
    assert "4 steps" in str(run) and "fp32" in str(run)


def test_string_rows_train_as_chat_rows_of_the_same_text_do(tiny, tokenizer, tickets):
    def text(row):
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        return {"prompt": prompt, "completion": row["completion"][0]["content"]}

    rows = tickets[:4]
    strings = [text(row) for row in rows]
    chat = encode_all(rows, tokenizer, LENGTH)
    plain = encode_all(strings, tokenizer, LENGTH)
    newline = tokenizer("\n").input_ids
    assert [row.ids + newline for row in plain] == [row.ids for row in chat]
    run = train(tiny(), strings, tokenizer, steps=3, lr=1e-2)
    assert run.losses[-1] < run.losses[0]


# ---- seeds, precisions, wrappers


def test_the_same_seed_gives_the_same_losses_and_another_seed_another_order(tiny, tokenizer, tickets):
    first, again, other = (train(tiny(), tickets, tokenizer, seed=seed).losses for seed in (0, 0, 1))
    assert first == again
    assert first != other


@pytest.mark.parametrize("precision, reach", [("bf16", 0.05), ("fp16", 0.05)])
def test_a_reduced_precision_runs_and_stays_near_fp32(tiny, tokenizer, tickets, precision, reach):
    model = tiny()
    run = train(model, tickets, tokenizer, steps=3, batch=1, precision=precision)
    full = train(tiny(), tickets, tokenizer, steps=3, batch=1)
    assert run.precision == precision
    assert run.losses == pytest.approx(full.losses, abs=reach) and run.losses != full.losses
    assert run.losses[-1] < run.losses[0]
    assert model.dtype == torch.float32  # autocast: the weights stay as they are
    assert_usable(model)


def test_the_hardware_chooses_the_precision_where_none_is_given(tiny, tokenizer, tickets, monkeypatch):
    monkeypatch.setattr(loop.env, "precision", lambda on: "fp32")
    assert train(tiny(), tickets, tokenizer, steps=1, precision=None).precision == "fp32"


def test_gradient_checkpointing_gives_equal_losses(tiny, tokenizer, tickets):
    model = tiny()
    run = train(model, tickets, tokenizer, gradient_checkpointing=True)
    assert run.losses == pytest.approx(train(tiny(), tickets, tokenizer).losses, abs=1e-6)
    assert not model.is_gradient_checkpointing
    assert_usable(model)


def with_lora(model, **options):
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM", **options)
    return peft.get_peft_model(model, config).eval()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_on_a_lora_model_only_the_adapter_moves(tiny, tokenizer, tickets, checkpointing):
    model = with_lora(tiny())
    before = weights_of(model)
    run = train(model, tickets, tokenizer, lr=1e-2, steps=6, gradient_checkpointing=checkpointing)
    after = weights_of(model)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if "lora_" in name}
    assert run.losses[-1] < run.losses[0]
    assert run.trainable == sum(before[name].numel() for name in moved)
    assert_usable(model)


@pytest.mark.parametrize("options", [None, {}, {"use_dora": True}, {"use_rslora": True}])
def test_weights_cast_once_a_step_give_the_losses_of_casting_at_every_use(
    tiny, tokenizer, tickets, monkeypatch, options
):
    def fresh():
        return tiny() if options is None else with_lora(tiny(), **options)

    run = train(fresh(), tickets, tokenizer, precision="bf16", accumulate=2, lr=1e-2)
    monkeypatch.setattr(mixed, "_linear_weights", lambda model: [])
    plain = train(fresh(), tickets, tokenizer, precision="bf16", accumulate=2, lr=1e-2)
    assert run.losses == pytest.approx(plain.losses, abs=2e-3)
    other = train(fresh(), tickets, tokenizer, precision="bf16", lr=1e-2)
    assert other.losses != pytest.approx(plain.losses, abs=2e-3)  # the control: half the rows show


@pytest.mark.parametrize("options", [{}, {"use_dora": True}, {"use_rslora": True}])
def test_frozen_weights_come_back_as_they_were(tiny, tokenizer, tickets, options):
    model, seen = with_lora(tiny(), **options), []
    before = weights_of(model)
    layer = model.base_model.model.model.layers[0].mlp.down_proj.get_base_layer()
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(module.weight.dtype))
    train(model, tickets, tokenizer, steps=3, precision="bf16")
    # DoRA takes norms of the base's weight, which must stay exact.
    assert set(seen) == {torch.float32 if "use_dora" in options else torch.bfloat16}
    after = weights_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before if "lora_" not in name)
    assert not all(torch.equal(before[name], after[name]) for name in before if "lora_" in name)


def test_cast_weights_come_back_after_an_error_and_embeddings_are_left_alone(tiny):
    model = with_lora(tiny())
    before = {name: weight.dtype for name, weight in model.named_parameters()}
    with pytest.raises(KeyError), mixed.Weights(model, "bf16"):
        cast = [name for name, weight in model.named_parameters() if weight.dtype == torch.bfloat16]
        raise KeyError
    linears = 7 * model.config.num_hidden_layers
    assert len(cast) == 3 * linears  # of the base, and both matrices of each adapter
    assert not any("embed" in name or "lm_head" in name for name in cast)
    assert before == {name: weight.dtype for name, weight in model.named_parameters()}
    with mixed.Weights(model, "fp32"):  # the control: nothing to cast to
        assert before == {name: weight.dtype for name, weight in model.named_parameters()}


def test_a_tied_embedding_stays_tied_and_an_untied_head_is_trained(tiny, tokenizer, tickets):
    tied, untied = tiny(), tiny(tie_word_embeddings=False)
    heads = [model.lm_head.weight.detach().clone() for model in (tied, untied)]
    for model in (tied, untied):
        train(model, tickets, tokenizer, steps=1)
        assert_usable(model)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert untied.lm_head.weight is not untied.model.embed_tokens.weight
    for head, model in zip(heads, (tied, untied), strict=True):
        assert not torch.equal(head, model.lm_head.weight)


def test_weight_decay_is_for_matrices(tiny, tokenizer, tickets):
    plain, decayed = tiny(), tiny()
    train(plain, tickets, tokenizer, steps=1, lr=0.1)
    train(decayed, tickets, tokenizer, steps=1, lr=0.1, weight_decay=0.5)
    left, right = weights_of(plain), weights_of(decayed)
    for name in left:
        assert torch.equal(left[name], right[name]) == ("norm" in name), name


# ---- resuming


def crash_at(monkeypatch, step, how):
    """Let the batch of this step (counted from one) end the run."""
    real, calls = stepping.batch_nll, []

    def counted(*arguments):
        calls.append(1)
        if len(calls) == step:
            how()
        return real(*arguments)

    monkeypatch.setattr(stepping, "batch_nll", counted)


class Killed(Exception):
    """Stands for a kill."""


def kill():
    raise Killed


RESUMABLE = {"steps": 9, "lr": 1e-2, "checkpoint_every": 2, "patience": 99, "validate_every": 3}


@pytest.fixture(scope="module")
def straight(tiny, tokenizer, tickets):
    """The run of `RESUMABLE` that nobody kills."""
    return train(with_lora(tiny(), lora_dropout=0.2), tickets, tokenizer, validation=tickets[:3], **RESUMABLE)


@pytest.mark.parametrize("step", [1, 6, 9])
def test_a_killed_run_goes_on_to_the_same_losses(
    tiny, tokenizer, tickets, tmp_path, monkeypatch, straight, step
):
    options = {**RESUMABLE, "validation": tickets[:3], "checkpoint": tmp_path / "deep" / "run.pt"}
    with monkeypatch.context() as patch, pytest.raises(Killed):
        crash_at(patch, step, kill)
        train(with_lora(tiny(), lora_dropout=0.2), tickets, tokenizer, **options)
    assert options["checkpoint"].exists() == (step > 2)
    torch.manual_seed(999)  # a new process would not know the state of the generator
    run = train(with_lora(tiny(), lora_dropout=0.2), tickets, tokenizer, **options)
    assert run.losses == straight.losses
    assert run.validation == straight.validation and run.tokens == straight.tokens
    assert run.seconds > 0
    assert list(options["checkpoint"].parent.glob("*")) == []  # a finished run deletes its checkpoint


def test_dropout_after_resuming_depends_on_the_restored_generator(
    tiny, tokenizer, tickets, tmp_path, monkeypatch
):
    def model():
        return with_lora(tiny(), lora_dropout=0.5)

    straight = train(model(), tickets, tokenizer, steps=6, lr=1e-2)
    file = tmp_path / "run.pt"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        crash_at(patch, 4, kill)
        train(model(), tickets, tokenizer, steps=6, lr=1e-2, checkpoint=file, checkpoint_every=2)
    monkeypatch.setattr(torch, "set_rng_state", lambda state: None)  # forget to restore it
    run = train(model(), tickets, tokenizer, steps=6, lr=1e-2, checkpoint=file, checkpoint_every=2)
    assert run.losses[:2] == straight.losses[:2] and run.losses != straight.losses


SIGKILLED = """
import os, signal, sys
sys.path.insert(0, "tests")
import torch
torch.set_num_threads({threads})
from conftest import make_tiny
from test_fit import RESUMABLE, crash_at, train, with_lora
from labkit import load_tokenizer
class Patch:
    setattr = staticmethod(setattr)
crash_at(Patch, 7, lambda: os.kill(os.getpid(), signal.SIGKILL))
import json
rows = json.load(open(sys.argv[2]))
model = with_lora(make_tiny(), lora_dropout=0.2)
train(model, rows, load_tokenizer(), checkpoint=sys.argv[1], validation=rows[:3], **RESUMABLE)
"""


@pytest.mark.slow
def test_a_run_killed_by_the_system_goes_on_to_the_same_losses(
    tiny, tokenizer, tickets, tmp_path, labkit_command, straight
):
    file, rows = tmp_path / "run.pt", tmp_path / "rows.json"
    rows.write_text(json.dumps(tickets))
    done = labkit_command(str(file), str(rows), script=SIGKILLED.format(threads=torch.get_num_threads()))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rows.json", "run.pt"]
    assert 2 <= len(torch.load(file, weights_only=True)["losses"]) <= 6
    model = with_lora(tiny(), lora_dropout=0.2)
    resumed = train(model, tickets, tokenizer, checkpoint=file, validation=tickets[:3], **RESUMABLE)
    assert resumed.losses == pytest.approx(straight.losses, abs=1e-5)


@pytest.fixture
def stopped(tiny, tokenizer, tickets, tmp_path, monkeypatch):
    """The checkpoint of a run that was killed at step 4, two steps saved."""
    file = tmp_path / "run.pt"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        crash_at(patch, 4, kill)
        train(tiny(), tickets, tokenizer, steps=6, checkpoint=file, checkpoint_every=2)
    return file


@pytest.mark.parametrize("change", ["rows", "settings", "model"])
def test_a_checkpoint_of_another_run_is_refused_and_kept(tiny, tokenizer, tickets, stopped, change):
    model, rows, options = tiny(), tickets, {}
    if change == "rows":
        rows = tickets[1:]
    elif change == "settings":
        options = {"lr": 1e-3}
    else:
        model = with_lora(model)
    before = stopped.read_bytes()
    with pytest.raises(LabkitError, match="another run.*Delete it"):
        train(model, rows, tokenizer, steps=6, checkpoint=stopped, checkpoint_every=2, **options)
    assert stopped.read_bytes() == before
    assert_usable(model)


def test_how_often_a_checkpoint_is_written_may_change(tiny, tokenizer, tickets, stopped):
    run = train(tiny(), tickets, tokenizer, steps=6, checkpoint=stopped, checkpoint_every=1)
    assert run.steps == 6


@pytest.mark.parametrize("damage", ["half", "text", "other", "folder"])
def test_a_damaged_checkpoint_is_refused(tiny, tokenizer, tickets, stopped, damage):
    if damage == "half":
        stopped.write_bytes(stopped.read_bytes()[: stopped.stat().st_size // 2])
    elif damage == "text":
        stopped.write_text("not a checkpoint")
    elif damage == "other":
        torch.save([torch.zeros(3)], stopped)
    else:
        stopped.unlink()
        stopped.mkdir()
    words = "is a folder" if damage == "folder" else "cannot be read.*Delete it"
    with pytest.raises(LabkitError, match=words):
        train(tiny(), tickets, tokenizer, steps=6, checkpoint=stopped, checkpoint_every=2)


def test_a_checkpoint_that_cannot_be_written_is_named_and_the_model_stays_usable(
    tiny, tokenizer, tickets, tmp_path
):
    (tmp_path / "file").write_text("in the way")
    model = tiny()
    with pytest.raises(LabkitError, match="cannot be written"):
        train(model, tickets, tokenizer, checkpoint=tmp_path / "file" / "run.pt", checkpoint_every=1)
    assert_usable(model)


# ---- early stopping


def test_early_stopping_puts_the_best_weights_back(tiny, tokenizer, tickets, monkeypatch):
    curve = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    seen = []
    model = tiny()

    def held_out(*_):
        seen.append(weights_of(model))
        return next(curve)

    monkeypatch.setattr(loop, "_held_out_loss", held_out)
    options = {"steps": 5, "validation": tickets[:2], "validate_every": 1}
    run = train(model, tickets, tokenizer, patience=2, **options)
    assert run.stopped_early and run.steps == 4
    assert [loss for _, loss in run.validation] == [3.0, 2.0, 2.5, 2.4]
    assert same(seen[1], weights_of(model)) and not same(seen[-1], weights_of(model))
    assert_usable(model)


def test_without_patience_nothing_stops_and_the_last_weights_stay(tiny, tokenizer, tickets, monkeypatch):
    model, seen = tiny(), []

    def held_out(*_):
        seen.append(weights_of(model))
        return float(len(seen))

    monkeypatch.setattr(loop, "_held_out_loss", held_out)
    run = train(model, tickets, tokenizer, validation=tickets[:2], validate_every=1)
    assert run.steps == 4 and not run.stopped_early
    assert same(seen[-1], weights_of(model))


def test_validation_is_the_mean_over_answer_tokens_and_changes_nothing(tiny, tokenizer, tickets):
    held_out = tickets[:3]
    model = with_lora(tiny(), lora_dropout=0.3)
    run = train(model, tickets, tokenizer, validation=held_out, validate_every=2)
    assert [step for step, _ in run.validation] == [2, 4]
    total = weight = 0.0
    for row in encode_all(held_out, tokenizer, LENGTH):
        with torch.no_grad():
            logs = model(torch.tensor([row.ids])).logits[0].log_softmax(-1)
        total -= sum(w * logs[n, t].item() for n, (t, w) in
                     enumerate(zip(row.ids[1:], row.weights[1:], strict=True)))  # fmt: skip
        weight += sum(row.weights[1:])
    assert run.validation[-1][1] == pytest.approx(total / weight, abs=1e-5)
    without = train(with_lora(tiny(), lora_dropout=0.3), tickets, tokenizer)
    assert run.losses == without.losses


# ---- errors


def test_a_loss_that_is_not_finite_names_the_step_and_its_rows(tiny, tokenizer, tickets, monkeypatch):
    model, real, calls = tiny(), stepping.batch_nll, []

    def spoil(*arguments):
        calls.append(1)
        return real(*arguments) * (math.nan if len(calls) == 3 else 1)

    monkeypatch.setattr(stepping, "batch_nll", spoil)
    lengths = [len(row) for row in encode_all(tickets, tokenizer, LENGTH)]
    third = [bins for bins, _ in zip(plan(lengths, 2, LENGTH, 0), range(3), strict=False)][2]
    rows = ", ".join(str(number) for numbers in third for number in numbers)
    with pytest.raises(LabkitError, match=rf"the loss is nan at step 3 \(rows {rows}\).*learning rate"):
        train(model, tickets, tokenizer)
    assert not model.training and all(parameter.grad is None for parameter in model.parameters())


def test_a_far_too_high_learning_rate_ends_in_that_error(tiny, tokenizer, tickets):
    with pytest.raises(LabkitError, match="the loss is (nan|inf) at step"):
        train(tiny(), tickets, tokenizer, lr=1e30, steps=6)


@pytest.mark.parametrize("batch, advice", [(4, "batch=2, accumulate=6"), (1, "a smaller length")])
def test_cuda_out_of_memory_names_the_budget_to_change(tiny, tokenizer, tickets, batch, advice):
    def out_of_memory(*_):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    model = tiny()
    hook = model.model.layers[1].register_forward_pre_hook(out_of_memory)
    with pytest.raises(LabkitError, match=rf"batch={batch}, length=256 .*Pass {advice}") as caught:
        train(model, tickets, tokenizer, batch=batch, accumulate=3, gradient_checkpointing=True)
    assert "gradient_checkpointing=True" in str(caught.value)
    hook.remove()
    assert not model.is_gradient_checkpointing
    assert_usable(model)


def test_an_error_in_the_backward_pass_leaves_a_usable_model(tiny, tokenizer, tickets):
    def fail(gradient):
        raise RuntimeError("planted")

    model = tiny()
    hook = model.model.embed_tokens.weight.register_hook(fail)
    with pytest.raises(RuntimeError, match="planted"):
        train(model, tickets, tokenizer)
    hook.remove()
    assert_usable(model)
    assert train(model, tickets, tokenizer).steps == 4


@pytest.mark.parametrize("notebook", [True, False])
def test_an_interrupt_in_a_notebook_keeps_what_was_trained(
    tiny, tokenizer, tickets, monkeypatch, capsys, tmp_path, notebook
):
    whole, killed, plan = tiny(), tiny(), {"steps": 6, "schedule": "constant", "warmup": 0.0}
    expected = train(whole, tickets, tokenizer, **{**plan, "steps": 3})
    seen = []

    def interrupt(*arguments):
        seen.append(1)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return rate(*arguments)

    monkeypatch.setattr(loop, "rate", interrupt)
    monkeypatch.setattr(loop, "in_notebook", lambda: notebook)
    saved = tmp_path / "run.pt"
    options = {**plan, "checkpoint": saved, "checkpoint_every": 1}
    if notebook:
        run = train(killed, tickets, tokenizer, **options)
        assert run.interrupted and not expected.interrupted
        assert (run.losses, run.tokens) == (expected.losses, expected.tokens)
        assert "stopped after 3 of 6 steps" in capsys.readouterr().out
    else:
        with pytest.raises(KeyboardInterrupt):
            train(killed, tickets, tokenizer, **options)
    assert saved.exists() and same(weights_of(killed), weights_of(whole))
    assert_usable(killed)


@pytest.mark.parametrize("options, words", [
    ({"schedule": "step"}, "schedule='step'.*linear.*cosine.*constant"),
    ({"schedule": "step", "warmup": 1.0}, "schedule='step'"),
    ({"length": 16}, "row 0 has .* packed row length of 16"),
    ({"validation": []}, "no rows"),
])  # fmt: skip
def test_a_setting_that_cannot_work_is_refused_before_training(tiny, tokenizer, tickets, options, words):
    model = tiny()
    before = weights_of(model)
    with pytest.raises(LabkitError, match=words):
        train(model, tickets, tokenizer, **options)
    assert same(before, weights_of(model))
    assert_usable(model)


def test_a_model_with_nothing_to_train_is_refused(tiny, tokenizer, tickets):
    with pytest.raises(LabkitError, match="nothing to train"):
        train(tiny().requires_grad_(False), tickets, tokenizer)


def test_attention_that_would_let_packed_rows_see_each_other_is_refused(tiny, tokenizer, tickets):
    model = tiny()
    model.set_attn_implementation("eager")
    with pytest.raises(LabkitError, match="'eager' attention.*set_attn_implementation"):
        train(model, tickets, tokenizer)
    model.set_attn_implementation("sdpa")
    assert train(model, tickets, tokenizer, steps=1).steps == 1


def test_layers_that_look_back_less_far_than_rows_are_long_are_refused(tiny, tokenizer, tickets):
    model = tiny()
    model.config.sliding_window = LENGTH // 2
    with pytest.raises(LabkitError, match="look back 128 tokens, and rows may have 256"):
        train(model, tickets, tokenizer)
    model.config.sliding_window = LENGTH
    assert train(model, tickets, tokenizer, steps=1).steps == 1


# ---- progress


def test_progress_names_the_precision_and_can_be_silenced(tiny, tokenizer, tickets, capsys):
    train(tiny(), tickets, tokenizer, steps=1, progress=True)
    assert "training in fp32" in capsys.readouterr().out
    train(tiny(), tickets, tokenizer, steps=1)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("rows, says", [
    ({"train": [], "test": []}, "'train', 'test'.*data\\['train'\\]"), ("my.csv", "labkit.load\\('my.csv'\\)")
])  # fmt: skip
def test_splits_or_a_path_in_place_of_rows_are_told(tiny, tokenizer, rows, says):
    with pytest.raises(LabkitError, match=says):
        train(tiny(), rows, tokenizer)
