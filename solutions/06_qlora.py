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
import weakref

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
)
from labkit.records import store

# %%
SEED, RANK = 0, 16
numbers = budget(
    cpu=dict(steps=16, batch=1, length=256, lr=3e-3, rows=12, test_rows=12, answer=80),
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
# 4. You add the trained update to the 4-bit weights and store the sum in 4 bits. What is left of the update?
#    And if you add it to the checkpoint's weights before you store them in 4 bits?
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
# On a layer of the base, with lesson 02's functions. `pack` and `unpack_codes` undo each other. (Cells call
# the lesson's own, `solve("06.1")`, so that a mistake in yours does not go on.)

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
# for that what the forward pass multiplied with: the **restored** W, in full size, for all layers at once. (A
# plain W lies in memory anyway, and keeping it costs nothing; a restored one is a tensor of its own.) So the
# product gets a backward pass of its own, which restores W a second time: in a `torch.autograd.Function`,
# `forward` leaves in `ctx` what `backward` will need.

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
def kept(product, x):
    """Is a W that was restored in the forward pass of `product(x, restore)` still in memory after it?"""
    made = []

    def restore():
        weight = layer.restore()
        made.append(weakref.ref(weight.untyped_storage()))                  # which does not keep it alive
        return weight

    output = product(x, restore)                                            # as long as this is there
    return output is not None and any(reference() is not None for reference in made)


layer = QLoRALinear(plain, r=RANK, alpha=2 * RANK)
x = torch.randn(8, 576, requires_grad=True)
print("a plain product keeps the restored W:", kept(lambda x, restore: linear(x, restore()), x))
print("Product keeps it:", kept(Product.apply, x))
layer(x).square().sum().backward()
for name, weight in layer.named_parameters():
    print(f"the gradient of {name} is zero: {weight.grad.abs().max().item() == 0}")

# %% [markdown]
# At the start B is zero, so the layer gives what the rounded W alone gives: not what the layer gave before.
# Training begins at a slightly different model. And since A's gradient is a product with B, it is zero too,
# until the first step has moved B. (W is a buffer and no parameter: it cannot have a gradient.)
#
# ## Prove it: bitsandbytes and peft
#
# The same layer as the field builds it: bitsandbytes' `Linear4bit` with peft's LoRA around it, in fp32 on the
# CPU, without double quantization (lesson 02 compared that). It stays in training mode: one forward pass in
# eval mode makes bitsandbytes on some CPUs rearrange the weights for speed, and what expects the old order
# then gets garbage.

# %%
four = bnb.nn.Linear4bit(576, 1536, bias=False, compute_dtype=torch.float32, quant_type="nf4",
                         compress_statistics=False)
four.weight = bnb.nn.Params4bit(plain.weight.detach().clone(), requires_grad=False, quant_type="nf4",
                                compress_statistics=False)
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
# bitsandbytes replaces linear layers, and the embedding is none. The head is one, and is left out all the
# same, by convention and for accuracy; here it is the embedding itself. Both stay in 16 bits, like the norms.
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
# course's base, whose embedding is a fifth of it. (peft's `prepare_model_for_kbit_training`, which most
# tutorials call, puts the 16-bit rest into fp32: then it is 4.4 GB at 7B, and a ratio of 3.1.)
#
# The same count, by lesson 02's function on the real model:

# %% tags=["nbval-check-output"]
size = file_bytes(base, FORMATS["nf4 double"]) / 1e9
s = SHAPES["smollm2-135m"]
blocks = s.layers * s.linear_weights()
print("equal to 0.1%:", abs(solve("06.3")(blocks, s.weights() - blocks) / size - 1) < 1e-3)

# %% [markdown]
# ## What a step takes
#
# The base is only part of it. What 4 bits save is the base's bytes, and the 16-bit copies that autocast makes
# of an fp32 base: the adapter's gradients and AdamW's states are what they were in LoRA.
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
    Returns a list of five: base, adapter, gradients, states that are on the card for good, paged states.
    """
    # BEGIN SOLUTION
    states = 8 * adapter_weights
    on_card, pages = (0, states) if paged else (states, 0)
    return [base_bytes, 4 * adapter_weights, 4 * adapter_weights, on_card, pages]
    # END SOLUTION


# %%
check("06.4", step_bytes)

# %% [markdown]
# A whole step, by lesson 01's predictor: one row of 512 tokens, checkpointing, 16-bit weights and
# activations, rank 64 on all linear layers, the paged optimizer in all three. The pages are added to what
# torch counts; the last column has those of LoRA and of QLoRA, whose adapters are alike.

# %% tags=["nbval-check-output"]
def pages(report):
    """GB of states in pages."""
    return report.categories.get("optimizer paged", 0) / 1e9


print(f"{'peak + pages, GB':<18}{'full':>9}{'LoRA':>9}{'QLoRA':>9}{'QLoRA / LoRA':>15}{'pages of each':>16}")
for name in NAMES:
    step = Setting(name, seq=512, precision="bf16", checkpointing=True, rank=64, optimizer="paged")
    reports = [predict(step.but(method=method)) for method in ("full", "lora", "qlora")]
    sums = [report.peak_allocated / 1e9 + pages(report) for report in reports]
    shown = "".join(f"{size:>9.2f}" for size in sums)
    print(f"{name:<18}{shown}{sums[2] / sums[1]:>15.2f}{pages(reports[2]):>16.2f}")

# %% tags=["nbval-check-output"]
deep = Setting("65b", "qlora", seq=512, precision="bf16", checkpointing=True, rank=64, optimizer="paged")
claimed = deep.but(adapters="bf16", optimizer="8-bit")
for name, step in {"fp32 adapters, 32-bit states": deep, "bf16 adapters, 8-bit states": claimed}.items():
    report = predict(step)
    print(f"65B, {name}: {report.process / 1e9:.1f} GB of the process, {pages(report):.1f} of them pages")

# %% [markdown]
# (bitsandbytes pages the states of matrices of 100,000 weights and more only. No adapter's is that large at
# 135M.)
#
# At 65B the base is nearly all. One card of 48 GB offers a program 47.8 (44.5 GiB), and by this prediction,
# the CUDA context included, the first recipe takes more: it runs there only because its pages may leave the
# card. The claims at the end (mem-65b, mem-qlora6) are measured with less: bf16 adapters and 8-bit states.
#
# At 135M the rest weighs more than the base, and 4 bits do not touch the rest. Without checkpointing, eight
# rows of 512 tokens; the first pair is this course's recipe:

# %% tags=["nbval-check-output"]
for precision, adapters in (("bf16 autocast", "fp32"), ("bf16", "fp32"), ("bf16", "bf16")):
    for method in ("lora", "qlora"):
        report = predict("smollm2-135m", method=method, batch=8, precision=precision, adapters=adapters)
        parts = {name: report.categories.get(name, 0) / 1e9 for name in ("weights", "casts", "activations")}
        print(f"{precision:<13} {adapters} adapters  {method:<6} peak {report.peak_allocated / 1e9:.2f} GB:",
              ", ".join(f"{name} {size:.2f}" for name, size in parts.items()))

# %% [markdown]
# The second guess: in the first pair QLoRA takes **more**. The weights shrink by 0.37 GB, and most 16-bit
# copies that autocast keeps go too. But bitsandbytes gives its result in the dtype of its input, which is
# fp32 after a norm, where a plain layer under autocast gives bf16. So what follows is kept in twice the
# bytes. In bf16 with fp32 adapters, peft's default, LoRA keeps as much itself; only bf16 adapters avoid it in
# both. With checkpointing, or with one row, little is kept, and QLoRA takes less in each pair: batch,
# precision and checkpointing decide.
#
# On a card, lesson 01's `measure` runs such steps in a process of its own:

# %% tags=["gpu"]
# %%gpu
from labkit.memory.apart import measure_apart

small = Setting("smollm2-135m", batch=8, seq=512)
large = Setting("7b", seq=512, precision="bf16", checkpointing=True, rank=64)
steps = {"135M LoRA": small.but(method="lora"), "135M QLoRA": small.but(method="qlora"),
         "7B QLoRA, paged": large.but(method="qlora", optimizer="paged")}
print(f"{'':<18}{'predicted':>12}{'measured':>12}{'error':>8}   process")
for name, step in steps.items():
    said, seen = predict(step), measure_apart(step)
    print(f"{name:<18}{said.peak_allocated / 1e9:>9.3f} GB{seen.peak_allocated / 1e9:>9.3f} GB"
          f"{said.peak_allocated / seen.peak_allocated - 1:>8.1%}   {seen.process / 1e9:.2f} GB")

# %% [markdown]
# ## Train
#
# LoRA and QLoRA on support tickets: the same rows, steps, seed and learning rate, 3e-3, one of the four that
# the course's sweeps of both begin with (3e-4 to 1e-2). One rate for both is fair only if it suits both. What
# the sweep on the GPU budget found best is printed here once it is recorded, and the tables at the end have
# each method at its own.
#
# `prepare_model_for_kbit_training` freezes everything and puts what is not in 4 bits into fp32; `adapted`
# adds peft's LoRA to all linear layers.
#
# On a CPU bitsandbytes is slow, so the CPU budget is a few short steps. They show how the two losses run, and
# not how well either ends.

# %%
swept = store.read("methods_tickets")
for method in ("lora-r16", "qlora-r16"):
    found = swept and swept["values"]["methods"].get(method)
    print(f"best recorded rate of {method}:", f"{found['rate']:g}" if found else "not recorded yet")

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
axes.set_yticks([tick for tick in (0.001, 0.01, 0.1, 0.3, 0.5, 1, 2) if min(every) <= tick <= max(every)])
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
          f"{run.seconds:.0f} s, {run.tokens_per_second:,.0f} tokens/s")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
starts = runs["QLoRA"].losses[0] / runs["LoRA"].losses[0]
print("the losses start within 30% of each other:", abs(starts - 1) < 0.3)
for name, run in runs.items():
    print(f"{name}: the loss fell by more than half:", ends[name] < run.losses[0] / 2)

# %% [markdown]
# The starting loss is not the same, because the 4-bit base is not the same model. Training makes up for it.
# (The peak that `fit` prints is of all that lies in memory: both models and the restored base. For a step's
# own, ask `measure_apart`, as above.)
#
# The third guess: the products are as many and as large as LoRA's, and restoring weights is work on top, in
# the forward and in the backward pass. So the prediction is that a step takes longer. Autocast has work of
# its own: it would cast LoRA's fp32 base to 16 bits at each use, and `fit` spares that by keeping 16-bit
# copies of the linear weights. You saw both times on this machine. The tables at the end have them on a GPU,
# with the card to themselves, and LoRA on a 16-bit base beside them.
#
# ## The same run as the field writes it
#
# `BitsAndBytesConfig` loads the base in 4 bits, `peft_config` adds the adapter, and the optimizer is paged.
# Data, steps and rate are the same. What differs: trl pads rows here, where `fit` packs them (40 rows have
# about as many tokens as a packed step of 8 × 512); the optimizer's states are in 8 bits, not 32; and trl
# keeps a QLoRA adapter in bf16, as the paper does, where `fit` keeps it in fp32.

# %% tags=["gpu"]
# %%gpu
import tempfile

from datasets import disable_progress_bars
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PrinterCallback
from trl import SFTConfig, SFTTrainer

disable_progress_bars()
folder = tempfile.TemporaryDirectory()
base.save_pretrained(f"{folder.name}/base")
quantized = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                               bnb_4bit_compute_dtype=torch.bfloat16)
model = AutoModelForCausalLM.from_pretrained(f"{folder.name}/base", quantization_config=quantized,
                                             dtype=torch.float32, device_map={"": 0})
config = SFTConfig(
    output_dir=folder.name, max_steps=numbers.steps, per_device_train_batch_size=40, learning_rate=numbers.lr,
    warmup_steps=numbers.steps // 10, lr_scheduler_type="linear", bf16=True, gradient_checkpointing=False,
    optim="paged_adamw_8bit", max_length=512, save_strategy="no", logging_strategy="no",
    report_to="none", disable_tqdm=True, seed=SEED,
)
trainer = SFTTrainer(
    model, config, train_dataset=data["train"].select_columns(["prompt", "completion"]),
    peft_config=LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"),
    processing_class=tokenizer,
)
trainer.remove_callback(PrinterCallback)
seconds = trainer.train().metrics["train_runtime"]
folder.cleanup()
theirs = score(trainer.model, tokenizer, test, progress=False)
print(f"trl: {theirs.exact:.1%} exact after {seconds:.0f} s of training")
print(f"fit: {scores['QLoRA'].exact:.1%} exact after {runs['QLoRA'].seconds:.0f} s of training")

# %% [markdown]
# ## The merge trap
#
# For serving, the update is added to the base: W + (alpha / r) · B A. But which W? Two are at hand: the
# weights of the checkpoint, from before they were stored in 4 bits, and what the 4-bit codes stand for, the
# restored ones. And the sum may be stored in 16 bits, or in 4 again. For 16 bits the restored base is the
# model that the adapter was trained on. The exercise takes the checkpoint's, which matters for 4 bits.
#
# ## Exercise 06.5: merge into the checkpoint's weights
#
# {{exercise:06.5}}
#
# {{hint:06.5}}

# %% tags=["exercise"]
def merged(fresh, restored, a, b, alpha):
    """The weights of a layer with its adapter merged into the checkpoint's: W + alpha / r * B A.

    fresh: the weights as the checkpoint has them; restored: the same after storage in 4 bits; both lists of
    rows (out x in). a: r rows of `in` numbers; b: `out` rows of r numbers. Returns new rows.
    """
    # BEGIN SOLUTION
    columns, scale = list(zip(*a, strict=True)), alpha / len(a)
    change = [[sum(x * y for x, y in zip(row, column, strict=True)) for column in columns] for row in b]
    return [[w + scale * u for w, u in zip(*pair, strict=True)] for pair in zip(fresh, change, strict=True)]
    # END SOLUTION


# %%
check("06.5", merged)

# %% [markdown]
# Why not the restored weights? They lie on the sixteen values of NF4. Add an update to one, store the sum in
# 4 bits again, and it goes to the nearest value: back to where it was, unless the update is larger than half
# the step to the next value. Those steps are not equal.
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
    as codes. absmax stays as it is (a real storage takes the new largest |w|), and no weight lands midway
    between two values. Returns a list of bool.
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
# The weights of the checkpoint lie anywhere between those values. (So do this course's, which have been in 4
# bits before, but on another grid.) Does that matter, when the sum is stored in 4 bits all the same? Take
# both sums, restored weights plus update and checkpoint plus update, and see how far each leads in 4 bits
# from the 4-bit base.
#
# How much of the update comes through? Take its part along the update itself: with got = W' - W, the share is
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
coarse, fine = relative_error(w, held), relative_error(w, BF16.round(w))
print(f"rounding moves weights by {coarse:.1%} in NF4, by {fine:.2%} in bf16: {coarse / fine:.0f} times less")
print(f"{'size of the update':<20}{'restored to 4 bits':>20}{'checkpoint to 4 bits':>22}{'to bf16':>10}")
for size in (0.003, 0.01, 0.03, 0.1, 0.3):
    update = resized(chance, size, w)
    shares = (survives(held, update, NF4.round(held + update)), survives(held, update, NF4.round(w + update)),
              survives(w, update, BF16.round(w + update)))
    print(f"{size:<20.1%}{shares[0]:>20.0%}{shares[1]:>22.0%}{shares[2]:>10.0%}")

# %% [markdown]
# Add a small update to **restored** weights, round to 4 bits again, and it is gone. A large one, of the size
# of the rounding error or more, mostly survives.
#
# Add it to the **checkpoint's** weights, and it comes through at any size. Some of those weights lie so near
# the edge between two values that even a small push takes them over, and the larger the push, the more of
# them. Say that values are 1 apart and the update is 0.1: about one weight in ten crosses an edge, and moves
# by 1. So the update arrives with noise around it, and the sum over many weights is right.
#
# Now the adapter that you trained. Merge it into both bases, and store each sum in 4 bits too. (Here the
# first two sums stay in fp32, so that nothing else is rounded; bf16 would round more finely than NF4 by the
# factor above. `merge_into` reads A and B only, and adds their product to plain weights; so it does not
# matter that the 4-bit layers were rearranged when you judged them.)

# %%
CHECKPOINT, RESTORED = "into the checkpoint", "into the restored base"
models = {CHECKPOINT: merge_into(load_model(), qlora), RESTORED: merge_into(copy.deepcopy(restored), qlora)}
for way in (CHECKPOINT, RESTORED):
    models[f"{way}, then 4 bits"] = dequantized(four_bit_of(models[way]))

# %%
before = {name: layer.weight.detach() for name, layer in linears(restored).items()}
after = {way: {name: layer.weight.detach() for name, layer in linears(model).items()}
         for way, model in models.items()}
updates = {name: after[RESTORED][name] - w for name, w in before.items()}
sizes = {name: (update.norm() / before[name].norm()).item() for name, update in updates.items()}
shares = {way: {name: survives(before[name], update, after[f"{way}, then 4 bits"][name])
                for name, update in updates.items()} for way in (CHECKPOINT, RESTORED)}

# %% tags=["nbval-check-output"]
name = "model.layers.12.mlp.up_proj"
adapter = qlora.get_base_model().get_submodule(name)
own = adapter.get_delta_weight("default").detach()
print("the restored base took all of the update:", relative_error(own, updates[name]) < 1e-3)
fresh = dict(linears(load_model()))[name].weight.detach()
print("the checkpoint too:", relative_error(own, after[CHECKPOINT][name] - fresh) < 1e-3)

# %%
middle = sorted(sizes.values())[len(sizes) // 2]
came = {way: sorted(each.values())[len(each) // 2] for way, each in shares.items()}
print(f"the update is {middle:.1%} of the weights in the median layer (from {min(sizes.values()):.1%}",
      f"to {max(sizes.values()):.1%})")
for way, share in came.items():
    print(f"merged {way}, then stored in 4 bits: {share:.0%} of it is there")

# %%
curve = [0.003 * 2 ** (k / 2) for k in range(16)]
starts = {CHECKPOINT: (w, "-", "x"), RESTORED: (held, "--", "o")}
title = f"In 4 bits {came[CHECKPOINT]:.0%} of the update is there, or {came[RESTORED]:.0%}, by the base"
fig, axes = plots.figure(title, "size of the update over size of the weights", "share that survives")
for (way, (start, style, marker)), colour in zip(starts.items(), plots.COLOURS, strict=False):
    found = [survives(held, update, NF4.round(start + update))
             for update in (resized(chance, size, w) for size in curve)]
    axes.plot(curve, found, style, color=colour, label=f"{way}, random update")
    axes.plot(list(sizes.values()), list(shares[way].values()), marker, markersize=4, alpha=0.6, color=colour,
              label=f"{way}, trained, a point a layer")
axes.set_xscale("log")
axes.set_xticks([0.003, 0.01, 0.03, 0.1, 0.3], ["0.3%", "1%", "3%", "10%", "30%"])
axes.legend(frameon=False, fontsize=8)
plots.show(fig, f"Share of an update that is there in 4 bits over its size, for two bases. {title}.")

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
      abs(loss[RESTORED] - loss["QLoRA"]) < 0.02 * gain)

# %% [markdown]
# With the GPU budget, exact answers:

# %% tags=["gpu"]
# %%gpu
print(f"{scores['QLoRA'].exact:6.1%} exact: as trained")
for way, model in models.items():
    print(f"{score(model, tokenizer, test, progress=False).exact:6.1%} exact: merged {way}")

# %% [markdown]
# The restored base is the model that the adapter was trained on, so merging into it changes nothing but the
# rounding of the sum. The checkpoint is another model: with it goes the rounding error that the adapter had
# learned to live with. Either is served in 16 bits; what the checkpoint costs on the recorded run, with its
# interval, is in the table at the end.
#
# To serve in 4 bits, keep the adapter apart, or merge into the checkpoint's weights and quantize the sum: the
# table has the cost of that too. Never round the restored sum again.
#
# That is the fourth guess: of a small update in restored weights little is left, and most of a large one. A
# long training at a high rate makes a large one, so a merge that seemed fine for one adapter can lose the
# next. peft warns when you call `merge_and_unload` on a 4-bit model, and does it.

# %%
record(seed=SEED, lora_loss=loss["LoRA"], qlora_loss=loss["QLoRA"], lora_exact=scores["LoRA"].exact,
       qlora_exact=scores["QLoRA"].exact, lora_seconds=runs["LoRA"].seconds,
       qlora_seconds=runs["QLoRA"].seconds, update_size=middle, share_checkpoint=came[CHECKPOINT],
       share_restored=came[RESTORED], merged_checkpoint=loss[CHECKPOINT], merged_restored=loss[RESTORED],
       merged_checkpoint_4_bit=loss[f"{CHECKPOINT}, then 4 bits"],
       merged_restored_4_bit=loss[f"{RESTORED}, then 4 bits"])

# %% [markdown]
# ## What the field says, measured
#
# - 4-bit weights are storage, not faster arithmetic (claim quant-slow, from lesson 02).
# - QLoRA is within 1% of 16-bit LoRA (qlora-quality). This claim and the one on merging are judged on
#   dithered bases (lesson 02): the shipped base has been in 4 bits before.
# - QLoRA needs about a quarter of the base memory (qlora-memory).
# - Merge into a 16-bit base, not the 4-bit one (qlora-merge).
# - QLoRA on 7B fits about 6 GB (mem-qlora6), and 65B one card of 48 GB (mem-65b).

# %% tags=["nbval-check-output", "recorded"]
claims("06")

# %% [markdown]
# All that the recorded run measured: three seeds, each arm at the best of its own sweep. "Into 16-bit" is
# into the checkpoint's weights and "into de-quantized" into the restored base, both kept in 16 bits. Memory
# is of one row of 512 tokens in pure bf16. Times are of the 135M model: "eager" takes every step as it is
# written, "fit" captures it; the two ratios are over LoRA on an fp32 base and on a 16-bit one. (The row "the
# base as it is" comes from `bench methods`, with 5,000 rows; all else has 2,000.)
# Claim quant-slow above timed a compute-bound step of larger layers, these are steps of a small model.

# %% tags=["recorded"]
print("\n".join(qlora_report.lines()))

# %% [markdown]
# ## Take-away
#
# - A frozen weight may be coarse: store it in 4 bits, restore it for each product, and do not keep it.
# - What is saved is the base's bytes, about 3.5 times at 7B; gradients, states and activations stay.
# - At 135M there is little to save, and autocast can turn it into a loss. Predict before you choose.
# - Restoring is work on top, forward and backward: expect it to cost time, and time it on your card.
# - Merged into the restored base, kept in 16 bits, the model stays as it was trained. To end in 4 bits,
#   keep the adapter apart, or merge into the checkpoint's weights and quantize. Never round the restored sum
#   again: an update smaller than half a step is lost there.
#
# **Read:** Dettmers et al., *QLoRA: Efficient Finetuning of Quantized LLMs* (2023), sections 3 and 4. Li et
# al., *LoftQ* (2023), which starts the adapter at the rounding error.
#
# **Next:** 07_adapters asks what else can be trained beside a frozen base.
