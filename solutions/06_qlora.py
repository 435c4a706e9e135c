# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 06. `python -m labkit build 06` makes both notebooks from this file.

# %% [markdown]
# # 06 · QLoRA: train on a 4-bit base
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | finetune on a base in 4 bits, say what that saves, and merge the result | lessons 02, 05 | {{budget}} |
#
# LoRA trains a few million weights beside a frozen base, and for a large model the base is then nearly all of
# the memory. A frozen weight takes no gradient and is never stepped; it is only multiplied with. So it can be
# stored coarsely, and restored at the moment it is needed. The adapter learns on top of the coarse base, and
# stays in 16 or 32 bits.
#
# That is **QLoRA** (Dettmers et al. 2023). The paper has three parts: the data type **NF4** and **double
# quantization**, both from lesson 02, and a **paged optimizer**. You will build the layer, prove it equal to
# the libraries', count what it saves (not always anything), train it beside LoRA, and fall into the trap
# that waits at the end: merging.

# %%
import copy
import logging

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
from torch.nn.functional import linear

from labkit import (
    budget, check, claims, fit, load, load_model, load_tokenizer, machine, plots, profile, record, score,
    seed_everything, solve,
)
from labkit.bench import qlora_report
from labkit.bench.quant_train import answer_loss
from labkit.memory import SHAPES, Setting, predict
from labkit.methods.four_bit import dequantized, four_bit_of, merge_into
from labkit.methods.lora import adapted
from labkit.methods.quantize import (
    FORMATS, file_bytes, from_lookup, linears, lookup, nf4_code, pack, relative_error, unpack,
)  # fmt: skip

# %%
SEED, RANK = 0, 16
numbers = budget(
    cpu=dict(steps=24, batch=1, length=256, lr=3e-3, rows=16, test_rows=16, answer=80),
    gpu=dict(steps=300, batch=8, length=512, lr=3e-3, rows=500, test_rows=1000, answer=80),
    smoke=dict(steps=1, batch=1, length=256, lr=3e-3, rows=1, test_rows=1, answer=2),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. A 7B base takes 13.5 GB in 16 bits. How many GB is it in 4 bits, everything included?
# 2. Does QLoRA take less memory than LoRA when you train the 135M base of this course?
# 3. Does a step take less time than LoRA's?
# 4. You merge the trained adapter into the 4-bit weights and store the result in 4 bits. What is left of
#    what it learned?
#
# ## Two codes in a byte
#
# In 4 bits a weight is a **code**, a place in the list of NF4's sixteen values (the **code book**). Every 64
# weights share their largest |w|, the **absmax**. Memory comes in bytes, so two codes share one.
#
# ## Exercise 06.1: two codes in a byte
#
# {{exercise:06.1}}
#
# {{hint:06.1}}

# %% tags=["exercise"]
def unpack_codes(packed, count):
    """The first `count` 4-bit codes of a list of bytes, two codes in each, the first in the upper half.

    packed: list of int from 0 to 255; where count is odd, the lower half of the last byte holds no code.
    Returns a list of int from 0 to 15.
    """
    # BEGIN SOLUTION
    return [code for byte in packed for code in (byte // 16, byte % 16)][:count]
    # END SOLUTION


# %%
check("06.1", unpack_codes)

# %% [markdown]
# On a layer of the base, with lesson 02's functions. `pack` and your `unpack_codes` undo each other:

# %% tags=["nbval-check-output"]
tokenizer, base = load_tokenizer(), load_model(on=torch.device("cpu"))
plain = base.model.layers[12].mlp.up_proj                                   # (1536, 576), fp32
codes, absmax = lookup(plain.weight.detach(), nf4_code())
packed = pack(codes)
print(f"{codes.numel():,} weights: {packed.numel():,} bytes of codes, {absmax.numel():,} absmax values")
print("codes come back:", solve("06.1")(packed[:4].tolist(), 8) == codes.flatten()[:8].tolist())

# %% [markdown]
# The absmax values are 32-bit numbers, half a bit for each weight. **Double quantization** stores them in 8
# bits: their mean is subtracted, and 256 of them share a 32-bit scale. Restoring goes the way back: first the
# absmax values, then the weights.
#
# ## Exercise 06.2: restore a layer's weights
#
# {{exercise:06.2}}
#
# {{hint:06.2}}

# %% tags=["exercise"]
def restore_weights(codes, code_book, small, table, second, mean, block, group):
    """Weights from 4-bit codes and doubly quantized absmax values.

    Each `block` of weights shares an absmax, each `group` of absmax values shares a number of `second`.
    absmax of block b = table[small[b]] * (its number of `second`) + mean; weight = code_book[code] * absmax.
    codes, small: lists of int, places in code_book and in table; second: list of float; mean: float.
    Returns a list of float, as long as codes.
    """
    # BEGIN SOLUTION
    absmax = [table[s] * second[b // group] + mean for b, s in enumerate(small)]
    return [code_book[code] * absmax[i // block] for i, code in enumerate(codes)]
    # END SOLUTION


# %%
check("06.2", restore_weights)

# %% [markdown]
# Is that what the field stores? Ask bitsandbytes for its parts, and restore its first weights in plain
# Python:

# %% tags=["nbval-check-output"]
import bitsandbytes as bnb

theirs, state = bnb.functional.quantize_4bit(plain.weight.detach(), quant_type="nf4", blocksize=64,
                                             compress_statistics=True)
first = solve("06.1")(theirs.flatten()[:512].tolist(), 1024)
ours = solve("06.2")(first, state.code.tolist(), state.absmax[:16].tolist(), state.state2.code.tolist(),
                     state.state2.absmax.tolist(), state.offset.item(), 64, 256)
right = bnb.functional.dequantize_4bit(theirs, state).flatten()[:1024]
print("equal to 1e-6:", (torch.tensor(ours) - right).abs().max().item() < 1e-6)

# %% [markdown]
# ## Build
#
# y = W x + (alpha / r) · B A x, with W in 4 bits. One detail decides whether this saves anything. To send the
# gradient on to the layers below, a linear layer needs its W again in the backward pass, and PyTorch keeps
# for that what the forward pass multiplied with: the **restored** W, in full size, for all layers at once.
# So the product gets a backward pass of its own, which restores W a second time.

# %%
class Product(torch.autograd.Function):
    """x W^T, where W is restored whenever it is needed, and not kept in between."""

    @staticmethod
    def forward(ctx, x, restore):
        ctx.restore = restore
        return linear(x, restore())

    @staticmethod
    def backward(ctx, gradient):
        return gradient @ ctx.restore(), None                               # to x; W gets none


class QLoRALinear(torch.nn.Module):
    """A linear layer stored in NF4, and a trainable change of rank r beside it."""

    def __init__(self, layer, r, alpha):
        super().__init__()
        codes, absmax = lookup(layer.weight.detach(), nf4_code())
        self.shape, self.scaling = codes.shape, alpha / r                   # (out, in)
        self.register_buffer("packed", pack(codes))                         # (out * in / 2,), uint8
        self.register_buffer("absmax", absmax)                              # (out * in / 64, 1)
        self.A = torch.nn.Parameter(torch.randn(r, self.shape[1]) / self.shape[1] ** 0.5)
        self.B = torch.nn.Parameter(torch.zeros(self.shape[0], r))

    def restore(self):
        codes = unpack(self.packed).reshape(self.shape)
        return from_lookup(codes, self.absmax, nf4_code())

    def forward(self, x):
        return Product.apply(x, self.restore) + self.scaling * linear(linear(x, self.A), self.B)


# %% tags=["nbval-check-output"]
def kept(function, x):
    """Shapes of what `function(x)` keeps for its backward pass."""
    found = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: found.append(tuple(t.shape)) or t, lambda t: t):
        function(x)
    return found


layer = QLoRALinear(plain, r=RANK, alpha=2 * RANK)
x = torch.randn(8, 576, requires_grad=True)
print("a plain product keeps the restored W:", kept(lambda x: linear(x, layer.restore()), x))
print("Product keeps:", kept(lambda x: Product.apply(x, layer.restore), x))
layer(x).square().sum().backward()
print("what has a gradient:", [name for name, weight in layer.named_parameters() if weight.grad is not None])

# %% [markdown]
# At the start B is zero, so the layer gives what the rounded W alone gives: not what the layer gave before.
# Training begins at a slightly different model.
#
# ## Prove it: bitsandbytes and peft
#
# The same layer as the field builds it: bitsandbytes' `Linear4bit` with peft's LoRA around it, in fp32 on the
# CPU, without double quantization (lesson 02 compared that). It stays in training mode: one forward pass in
# eval mode makes bitsandbytes on some CPUs rearrange the weights for speed, and what expects the old order
# then gets garbage.

# %%
four = bnb.nn.Linear4bit(576, 1536, bias=False, compute_dtype=torch.float32, quant_type="nf4",
                         compress_statistics=False)  # fmt: skip
four.weight = bnb.nn.Params4bit(plain.weight.detach().clone(), requires_grad=False, quant_type="nf4",
                                compress_statistics=False)  # fmt: skip
config = LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=["0"])
wrapped = get_peft_model(torch.nn.Sequential(four).to("cpu"), config).train()
lora = wrapped.base_model.model[0]
A, B = lora.lora_A["default"].weight, lora.lora_B["default"].weight
with torch.no_grad():
    B.normal_(std=0.02)
    layer.A.copy_(A)
    layer.B.copy_(B)

# %% tags=["nbval-check-output"]
x = torch.randn(32, 576, requires_grad=True)
outputs = {"ours": layer(x), "theirs": wrapped(x)}
weights = {"ours": (layer.A, layer.B, x), "theirs": (A, B, x)}
slopes = {name: torch.autograd.grad(y.square().sum(), weights[name]) for name, y in outputs.items()}
print("outputs equal to 1e-5:", relative_error(outputs["theirs"], outputs["ours"]) < 1e-5)
for name, ours, right in zip("ABx", slopes["ours"], slopes["theirs"], strict=True):
    print(f"gradient of {name} equal to 1e-5:", relative_error(right, ours) < 1e-5)

# %% [markdown]
# ## Count the bytes
#
# The embedding and the head are looked up and multiplied with once; they stay in 16 bits, like the norms.
#
# ## Exercise 06.3: bytes of a 4-bit base
#
# {{exercise:06.3}}
#
# {{hint:06.3}}

# %% tags=["exercise"]
def base_gb(linear, other):
    """GB (10**9 bytes) of a base in NF4 with double quantization, all of it.

    linear: weights in linear layers, 4 bits each; each 64 of them share an 8-bit absmax, and each 256 absmax
    values share 32 bits. other: the remaining weights (embedding, head, norms), which stay in 16 bits.
    Leave the few bytes for each layer out, and round nothing. Returns a float.
    """
    # BEGIN SOLUTION
    bits = 4 + 8 / 64 + 32 / (64 * 256)
    return (linear * bits + other * 16) / 8 / 1e9
    # END SOLUTION


# %%
check("06.3", base_gb)

# %% tags=["nbval-check-output"]
NAMES = ("smollm2-135m", "1b", "7b", "65b")
for name in NAMES:
    s = SHAPES[name]
    blocks = s.layers * s.linear_weights()
    in_16, in_4 = 2 * s.weights() / 1e9, solve("06.3")(blocks, s.weights() - blocks)
    print(f"{name:<13} 16 bits {in_16:7.2f} GB, 4 bits {in_4:6.2f} GB, ratio {in_16 / in_4:.1f};",
          f"{1 - blocks / s.weights():.0%} of the weights stay in 16 bits")

# %% [markdown]
# That is the first guess: 3.9 GB. The ratio is 3.9 at most (16 over 4.13 bits), 3.5 at 7B, and 2.4 for this
# course's base, whose embedding is a fifth of it. The same count, by lesson 02's function on the real model:

# %% tags=["nbval-check-output"]
size = file_bytes(base, FORMATS["nf4 double"]) / 1e9
s = SHAPES["smollm2-135m"]
blocks = s.layers * s.linear_weights()
print("equal to 0.1%:", abs(solve("06.3")(blocks, s.weights() - blocks) / size - 1) < 1e-3)

# %% [markdown]
# ## What a step takes
#
# The base is only part of it. What 4 bits save is the base's bytes, and nothing else: the adapter's gradients
# and AdamW's states are what they were in LoRA.
#
# The **paged optimizer** is the third part. Its states lie in managed memory: the driver moves them between
# the card and the computer's own memory, page by page, when the card runs short. That is slow, and better
# than stopping where one long batch needs a little more. As long as there is room they stay on the card.
# torch does not count them in its peak, so look for them apart.
#
# ## Exercise 06.4: what 4 bits save, and what is paged
#
# {{exercise:06.4}}
#
# {{hint:06.4}}

# %% tags=["exercise"]
def step_bytes(base_bytes, adapter_weights, paged):
    """Bytes of a QLoRA step by where they come from, activations apart.

    base_bytes: of the frozen base, as stored. The adapter's weights, their gradients and AdamW's two states
    are fp32. paged: True if a paged optimizer keeps the states where they may leave the card.
    Returns a dict of int: "base", "adapter", "gradients", "states" (on the card for good) and "paged".
    """
    # BEGIN SOLUTION
    states = 8 * adapter_weights
    return {"base": base_bytes, "adapter": 4 * adapter_weights, "gradients": 4 * adapter_weights,
            "states": 0 if paged else states, "paged": states if paged else 0}  # fmt: skip
    # END SOLUTION


# %%
check("06.4", step_bytes)

# %% [markdown]
# A whole step, by lesson 01's predictor: one row of 512 tokens, checkpointing, 16-bit weights and
# activations, rank 64 on all linear layers, QLoRA with the paged optimizer.

# %% tags=["nbval-check-output"]
print(f"{'peak in GB':<14}{'full':>9}{'LoRA':>9}{'QLoRA':>9}{'its pages':>11}{'QLoRA / LoRA':>14}")
for name in NAMES:
    step = Setting(name, seq=512, precision="bf16", checkpointing=True, rank=64)
    reports = [predict(step.but(method=method)) for method in ("full", "lora")]
    reports.append(predict(step.but(method="qlora", optimizer="paged")))
    peaks = [report.peak_allocated / 1e9 for report in reports]
    pages = reports[-1].categories.get("optimizer paged", 0) / 1e9
    shown = "".join(f"{peak:>9.2f}" for peak in peaks)
    print(f"{name:<14}{shown}{pages:>11.2f}{peaks[2] / peaks[1]:>14.2f}")

# %% [markdown]
# (bitsandbytes pages the states of matrices of 100,000 weights and more only. At 135M none is that large.)
#
# At 65B the base is nearly all, and a quarter of it fits one card of 48 GB. At 135M the rest weighs more than
# the base, and 4 bits do not touch the rest. In the course's own recipe they do worse:

# %% tags=["nbval-check-output"]
for method in ("lora", "qlora"):
    report = predict("smollm2-135m", method=method, batch=8, seq=512, precision="bf16 autocast")
    parts = {name: report.categories.get(name, 0) / 1e9 for name in ("weights", "casts", "activations")}
    print(f"{method:<6} peak {report.peak_allocated / 1e9:.2f} GB:",
          ", ".join(f"{name} {size:.2f}" for name, size in parts.items()))

# %% [markdown]
# The second guess: here QLoRA takes **more**. The weights shrink by 0.37 GB, and most 16-bit copies that
# autocast keeps go too. But bitsandbytes gives its result in the dtype of its input, which is fp32 after
# a norm, where a plain layer under autocast gives bf16. So what follows is kept in twice the bytes. With
# checkpointing, or with everything in bf16, as large models are trained, this does not happen.
#
# On a card, lesson 01's `measure` runs such steps in a process of its own:

# %% tags=["gpu"]
# %%gpu
from labkit.memory.apart import measure_apart

small = Setting("smollm2-135m", batch=8, seq=512)
large = Setting("7b", seq=512, precision="bf16", checkpointing=True, rank=64)
steps = {"135M LoRA": small.but(method="lora"), "135M QLoRA": small.but(method="qlora"),
         "7B QLoRA, paged": large.but(method="qlora", optimizer="paged")}  # fmt: skip
print(f"{'':<18}{'predicted':>12}{'measured':>12}{'error':>8}   process")
for name, step in steps.items():
    said, seen = predict(step), measure_apart(step)
    print(f"{name:<18}{said.peak_allocated / 1e9:>9.3f} GB{seen.peak_allocated / 1e9:>9.3f} GB"
          f"{said.peak_allocated / seen.peak_allocated - 1:>8.1%}   {seen.process / 1e9:.2f} GB")  # fmt: skip

# %% [markdown]
# ## Train
#
# LoRA and QLoRA on support tickets: the same rows, steps, seed and learning rate, 3e-3, which was the best of
# four for both in a recorded sweep on the GPU budget. `prepare_model_for_kbit_training` freezes everything
# and puts what is not in 4 bits into fp32; `adapted` adds peft's LoRA to all linear layers.
#
# On a CPU bitsandbytes is slow, so the CPU budget is a few short steps. They show how the two losses run, and
# not how well either ends.

# %%
data = load("tickets")
settings = dict(steps=numbers.steps, batch=numbers.batch, length=numbers.length, lr=numbers.lr, seed=SEED)
frozen = four_bit_of(load_model())
restored = dequantized(frozen)                          # for later: what the codes stand for, in fp32
frozen = prepare_model_for_kbit_training(frozen, use_gradient_checkpointing=False)
seed_everything(SEED)
qlora = adapted(frozen, RANK)
seed_everything(SEED)
lora = adapted(load_model(), RANK)

# %% tags=["nbval-check-output"]
both = zip(lora.named_parameters(), qlora.named_parameters(), strict=True)
pairs = [(one, two) for (name, one), (_, two) in both if "lora_" in name]
nearly = all(torch.allclose(one, two, rtol=2**-8) for one, two in pairs)    # peft rounds QLoRA's to bf16 once
print("adapters start alike, to bf16's precision:", nearly)
print(f"trainable weights: {sum(one.numel() for one, _ in pairs):,} in both")
stored = {weight.dtype for name, weight in qlora.named_parameters() if "base_layer" in name}
print("the frozen linear layers are stored as", stored)

# %%
runs = {}
runs["LoRA"] = fit(lora, data["train"], tokenizer, **settings)
print(runs["LoRA"])

# %%
runs["QLoRA"] = fit(qlora, data["train"], tokenizer, **settings)
print(runs["QLoRA"])

# %%
ends = {name: sum(run.losses[-5:]) / len(run.losses[-5:]) for name, run in runs.items()}
said = ", ".join(f"{end:#.2g} with {name}" for name, end in ends.items())
title = f"After {numbers.steps} steps the loss is {said} (mean of the last five)"
fig, axes = plots.figure(title, "step", "loss per answer token (nats)")
for (name, run), style, colour in zip(runs.items(), ("-", "--"), plots.COLOURS, strict=False):
    axes.plot(range(1, run.steps + 1), run.losses, style, color=colour, label=name, linewidth=1.5)
axes.set_yscale("log")
axes.minorticks_off()
every = runs["LoRA"].losses + runs["QLoRA"].losses
axes.set_yticks([tick for tick in (0.001, 0.01, 0.1, 0.2, 0.5, 1, 2) if min(every) <= tick <= max(every)])
axes.yaxis.set_major_formatter("{x:g}")
axes.legend(frameon=False)
plots.show(fig, f"Line plot of two training losses on a logarithmic axis. {title}.")

# %% [markdown]
# Judge both on test messages, phrased in ways that training never showed: the loss on the right answer, and
# the shares of answers that are valid JSON of the right form, and exact. (After the few steps of the CPU
# budget hardly any answer is exact; look at the loss.)

# %%
held_out = data["test"].select(range(numbers.rows))
test = data["test"].select(range(numbers.test_rows))
loss, scores = {}, {}
for name, model in {"LoRA": lora, "QLoRA": qlora}.items():
    loss[name] = answer_loss(model, tokenizer, held_out)
    scores[name] = score(model, tokenizer, test, max_new_tokens=numbers.answer, progress=False)
    run, said = runs[name], scores[name]
    print(f"{name:<6} test loss {loss[name]:.3f}, {said.valid:.0%} valid, {said.exact:.1%} exact;",
          f"{run.seconds:.0f} s, {run.tokens_per_second:,.0f} tokens/s, peak {run.peak_bytes / 1e9:.1f} GB")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
starts = runs["QLoRA"].losses[0] / runs["LoRA"].losses[0]
print("the losses start within 30% of each other:", abs(starts - 1) < 0.3)
for name, run in runs.items():
    print(f"{name}: the loss fell by more than half:", ends[name] < run.losses[0] / 2)

# %% [markdown]
# The starting loss is not the same, because the 4-bit base is not the same model. Training makes up for it.
# (On a CPU the peak is the whole process's, both models included. On a GPU it is each run's own.)
#
# The third guess: the products are as many and as large as LoRA's, and restoring weights is work on top. On a
# CPU you saw what that costs; the table at the end has both timed on a GPU, with the card to themselves.
#
# ## The same run as the field writes it
#
# `BitsAndBytesConfig` loads the base in 4 bits, `peft_config` adds the adapter, and the optimizer is paged,
# with 8-bit states. trl keeps a QLoRA adapter in bf16, as the paper does; `fit` keeps it in fp32.

# %% tags=["gpu"]
# %%gpu
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from trl import SFTConfig, SFTTrainer

base.save_pretrained("/tmp/base")
quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                               bnb_4bit_compute_dtype=torch.bfloat16)  # fmt: skip
model = AutoModelForCausalLM.from_pretrained("/tmp/base", quantization_config=quantized, dtype=torch.float32,
                                             device_map={"": 0})  # fmt: skip
config = SFTConfig(
    output_dir="/tmp/trl", max_steps=numbers.steps, per_device_train_batch_size=39, learning_rate=numbers.lr,
    warmup_steps=numbers.steps // 10, lr_scheduler_type="linear", bf16=True, gradient_checkpointing=False,
    optim="paged_adamw_8bit", max_length=512, save_strategy="no", logging_steps=100, report_to="none",
    disable_tqdm=True, seed=SEED,
)  # fmt: skip
trainer = SFTTrainer(
    model, config, train_dataset=data["train"].select_columns(["prompt", "completion"]),
    peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    processing_class=tokenizer,
)  # fmt: skip
seconds = trainer.train().metrics["train_runtime"]
theirs = score(trainer.model, tokenizer, test, progress=False)
print(f"trl: {theirs.exact:.1%} exact after {seconds:.0f} s of training")
print(f"fit: {scores['QLoRA'].exact:.1%} exact after {runs['QLoRA'].seconds:.0f} s of training")

# %% [markdown]
# ## The merge trap
#
# For serving, the update is added to the base: W + (alpha / r) · B A. But which W? Three are at hand: the
# weights of the 16-bit checkpoint, what the 4-bit codes stand for, and the 4-bit codes themselves.
#
# ## Exercise 06.5: merge into the right base
#
# {{exercise:06.5}}
#
# {{hint:06.5}}

# %% tags=["exercise"]
def merged(fresh, restored, a, b, alpha):
    """The weights of a layer with its adapter merged into the 16-bit base: W + alpha / r * B A.

    fresh: the weights as the 16-bit checkpoint has them; restored: the same after storage in 4 bits; both
    lists of rows (out x in). a: r rows of `in` numbers; b: `out` rows of r numbers. Returns new rows.
    """
    # BEGIN SOLUTION
    columns, scale = list(zip(*a, strict=True)), alpha / len(a)
    change = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in b]
    return [[w + scale * u for w, u in zip(*pair, strict=True)] for pair in zip(fresh, change, strict=True)]
    # END SOLUTION


# %%
check("06.5", merged)

# %% [markdown]
# Why not into 4 bits? The restored weights lie on the sixteen values of NF4. Add an update to one, store it
# in 4 bits again, and it goes to the nearest value: back to where it was, unless the update is larger than
# half the step to the next value. Those steps are not equal.
#
# ## Exercise 06.6: does the update survive?
#
# {{exercise:06.6}}
#
# {{hint:06.6}}

# %% tags=["exercise"]
def codes_that_move(codes, absmax, update, code_book):
    """Which weights of a block get another code when an update is merged and rounded to 4 bits again.

    The weight with code q is code_book[q] * absmax before the update; afterwards it gets the code of the
    value nearest to it. code_book: ascending list of float; its steps differ. update: list of float, as long
    as codes. absmax stays as it is, and no weight lands midway between two values. Returns a list of bool.
    """
    # BEGIN SOLUTION
    places = range(len(code_book))
    wanted = [code_book[q] + u / absmax for q, u in zip(codes, update, strict=True)]
    nearest = [min(places, key=lambda i: abs(code_book[i] - value)) for value in wanted]
    return [new != old for new, old in zip(nearest, codes, strict=True)]
    # END SOLUTION


# %%
check("06.6", codes_that_move)

# %% [markdown]
# How much of an update comes through? Take its part along the update itself: with got = W' - W, the share is
# (got · update) / (update · update), 1 if all is there and 0 if nothing is. First with an update of rank 16
# made of random numbers, so that its size can be chosen:

# %%
def survives(before, update, after):
    """The share of `update` that is in `after` - `before`."""
    return ((after - before) * update).sum().item() / update.square().sum().item()


def resized(update, size, w):
    """`update`, made `size` times as large as `w` (Frobenius norms)."""
    return update * (size * w.norm() / update.norm())


NF4, BF16 = FORMATS["nf4 double"], FORMATS["bf16"]

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
w = plain.weight.detach()                                                   # of the checkpoint
held = NF4.round(w)                                                         # of the 4-bit base
chance = torch.randn(1536, RANK) @ torch.randn(RANK, 576)
print(f"rounding to NF4 moves the weights by {relative_error(w, held):.0%}")
for size in (0.003, 0.01, 0.03, 0.1, 0.3):
    update = resized(chance, size, w)
    shares = survives(held, update, NF4.round(held + update)), survives(w, update, BF16.round(w + update))
    print(f"an update of {size:>5.1%}: {shares[0]:>4.0%} survives in 4 bits, {shares[1]:.0%} in bf16")

# %% [markdown]
# An update well below the rounding error is rounded away. bf16 rounds too, some sixty times more finely.
#
# Now the adapter that you trained. Merge it three ways. (`merge_into` reads A and B only, and adds their
# product to plain weights; so it does not matter that the 4-bit layers were rearranged when you judged them.)

# %%
models = {
    "into the 16-bit base": merge_into(load_model(), qlora),
    "into the restored base": merge_into(copy.deepcopy(restored), qlora),
}
models["into 4 bits"] = dequantized(four_bit_of(models["into the restored base"]))

# %%
before = {name: layer.weight.detach() for name, layer in linears(restored).items()}
after = {way: {name: layer.weight.detach() for name, layer in linears(model).items()}
         for way, model in models.items()}  # fmt: skip
updates = {name: after["into the restored base"][name] - w for name, w in before.items()}
sizes = {name: (update.norm() / before[name].norm()).item() for name, update in updates.items()}
again = after["into 4 bits"]
shares = {name: survives(before[name], update, again[name]) for name, update in updates.items()}

# %% tags=["nbval-check-output"]
name = "model.layers.12.mlp.up_proj"
adapter = qlora.get_base_model().get_submodule(name)
own = adapter.get_delta_weight("default").detach()
print("the restored base took all of the update:", relative_error(own, updates[name]) < 1e-3)
fresh = dict(linears(load_model()))[name].weight.detach()
got = after["into the 16-bit base"][name] - fresh
print("the 16-bit base too:", relative_error(own, got) < 1e-3)

# %%
middle = sorted(sizes.values())[len(sizes) // 2]
came = sorted(shares.values())[len(shares) // 2]
print(f"the update is {middle:.1%} of the weights in the median layer (from {min(sizes.values()):.1%}",
      f"to {max(sizes.values()):.1%}); {came:.0%} of it survives in 4 bits")  # fmt: skip

# %%
curve = [0.003 * 2 ** (k / 2) for k in range(16)]
lines = {"bf16, random update": (BF16, w, "-"), "NF4, random update": (NF4, held, "--")}
title = f"A merge into 4 bits keeps {came:.0%} of the trained update (median layer)"
fig, axes = plots.figure(title, "size of the update over size of the weights", "share that survives")
for (label, (form, start, style)), colour in zip(lines.items(), plots.COLOURS, strict=False):
    found = [survives(start, resized(chance, size, w), form.round(start + resized(chance, size, w)))
             for size in curve]  # fmt: skip
    axes.plot(curve, found, style, color=colour, label=label)
axes.plot(list(sizes.values()), list(shares.values()), "o", markersize=4, alpha=0.6, color=plots.COLOURS[2],
          label="NF4, the trained update, a point for each layer")  # fmt: skip
axes.set_xscale("log")
axes.set_xticks([0.003, 0.01, 0.03, 0.1, 0.3], ["0.3%", "1%", "3%", "10%", "30%"])
axes.set_ylim(-0.05, 1.1)
axes.legend(frameon=False, fontsize=8)
plots.show(fig, f"Share of an update that survives over its relative size. {title}; bf16 keeps nearly all.")

# %% [markdown]
# And what do the merged models say? The loss on test answers, beside the adapter as it was trained and the
# 4-bit base without it:

# %%
loss["the 4-bit base, untrained"] = answer_loss(restored, tokenizer, held_out)
for way, model in models.items():
    loss[way] = answer_loss(model, tokenizer, held_out)
for name, value in loss.items():
    print(f"{value:7.3f} nats per answer token: {name}")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
gain = loss["the 4-bit base, untrained"] - loss["QLoRA"]
print("merged into the restored base, the loss is as trained to 2% of the gain:",
      abs(loss["into the restored base"] - loss["QLoRA"]) < 0.02 * gain)
print("the merge into 4 bits is the worst of the three:",
      loss["into 4 bits"] > max(loss["into the 16-bit base"], loss["into the restored base"]))

# %% [markdown]
# With the GPU budget, exact answers:

# %% tags=["gpu"]
# %%gpu
print(f"{scores['QLoRA'].exact:6.1%} exact: as trained")
for way, model in models.items():
    print(f"{score(model, tokenizer, test, progress=False).exact:6.1%} exact: merged {way}")

# %% [markdown]
# Note two things. The restored base is the model that the adapter was trained on, so merging into it changes
# nothing but the rounding of the sum. The 16-bit base is another model, nearer to the original: what it adds
# is the rounding error that the adapter had learned to live with. Which of them is better is a question to
# measure. Both take 16 bits a weight; to serve in 4 bits, keep the adapter apart.
#
# And the fourth guess: the smaller the update, the less of it is left. A long training at a high rate makes a
# large one, so a merge that seemed fine for one adapter can lose the next. peft warns when you call
# `merge_and_unload` on a 4-bit model, and does it.

# %%
record(seed=SEED, lora_loss=loss["LoRA"], qlora_loss=loss["QLoRA"], lora_exact=scores["LoRA"].exact,
       qlora_exact=scores["QLoRA"].exact, lora_seconds=runs["LoRA"].seconds,
       qlora_seconds=runs["QLoRA"].seconds, lora_peak=runs["LoRA"].peak_bytes,
       qlora_peak=runs["QLoRA"].peak_bytes, update_size=middle, update_share=came,
       merged_16_bit=loss["into the 16-bit base"], merged_restored=loss["into the restored base"],
       merged_4_bit=loss["into 4 bits"])  # fmt: skip

# %% [markdown]
# ## What the field says, measured
#
# - 4-bit weights are storage, not faster arithmetic (claim quant-slow, from lesson 02).
# - QLoRA is within 1% of 16-bit LoRA (qlora-quality). The claim is judged on dithered bases (lesson 02): the
#   shipped base has been in 4 bits before.
# - QLoRA needs about a quarter of the base memory (qlora-memory).
# - Merge into a 16-bit base, not the 4-bit one (qlora-merge).
# - QLoRA on 7B fits about 6 GB (mem-qlora6), and 65B one card of 48 GB (mem-65b).

# %% tags=["nbval-check-output"]
claims("06")

# %% [markdown]
# All that the recorded run measured: three seeds, each arm at the best of its own sweep.

# %%
print("\n".join(qlora_report.lines()))

# %% [markdown]
# ## Take-away
#
# - A frozen weight may be coarse: store it in 4 bits, restore it for each product, and do not keep it.
# - What is saved is the base's bytes, about 3.5 times at 7B; gradients, states and activations stay.
# - At 135M there is little to save, and autocast can turn it into a loss. Predict before you choose.
# - It costs time: restoring is work on top, at every step, forward and backward.
# - Merge into 16-bit weights. In 4 bits an update smaller than half a step is rounded away.
#
# **Read:** Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs* (2023), sections 3 and 4. Li et
# al., *LoftQ* (2023), which starts the adapter at the rounding error.
#
# **Next:** 07_adapters asks what else can be trained beside a frozen base.
