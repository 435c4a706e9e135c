# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 05. `python -m labkit build 05` makes both notebooks from this file.

# %% [markdown]
# # 05 · LoRA: low-rank adaptation
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | write LoRA, choose its rank, alpha and rate, merge it, swap it | lessons 00 and 01 | {{budget}} |
#
# Lesson 01 counted what training a weight costs: its gradient and AdamW's two states, 12 bytes beside the
# weight itself. So train fewer of them. **LoRA** freezes the model and trains a small change beside each
# linear layer.
#
# The change of a matrix W is written as the product of two thin ones, W + s · B A, with a **rank** r that is
# far smaller than W. You will build it, prove it equal to peft, train it against full finetuning, and look
# into the change that full finetuning makes.

# %%
import copy
import logging
import math
from pathlib import Path
from statistics import mean

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
from IPython.display import Markdown
from peft import LoraConfig, PeftModel, get_peft_model

from labkit import (
    budget, check, claims, device, fit, generate, load, load_model, load_tokenizer, machine, plots, profile,
    record, score, seed_everything, solve,
)
from labkit.bench import lora_report, methods_report
from labkit.memory import SHAPES, Setting, predict
from labkit.methods.low_rank import (
    LoRALinear, energy, linear_shapes, lora_weights, low_rank, shuffled, updates,
)
from labkit.methods.quantize import linears
from labkit.records import store

# %%
SEED = 0
numbers = budget(
    cpu=dict(steps=14, batch=1, length=512, rows=16, voice_steps=4, answer=80),
    gpu=dict(steps=300, batch=8, length=512, rows=1000, voice_steps=60, answer=80),
    smoke=dict(steps=1, batch=1, length=256, rows=2, voice_steps=1, answer=4),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. LoRA of rank 16 beside every linear layer but the head: what share of this model's weights is that?
# 2. Is LoRA's best learning rate lower than full finetuning's, equal, or higher?
# 3. With rank 1 each layer's change is one column times one row. How many points of exact answers does that
#    lose against rank 16, if both have their best rate?
# 4. You add LoRA and have trained nothing yet. Do the outputs change?
#
# ## The change is factored, not W
#
# You will read "W ≈ A × B" in many places. That is not LoRA, and would ruin the model: W is not of low rank.
# LoRA keeps W as it is and factors the **change**:
#
# y = W x + s · B (A x), with A of shape (r, in), B of shape (out, r), and s = alpha / r.
#
# A takes x down to r numbers, B brings them up to the width of the output. That is r · (in + out) weights
# beside in · out. (claims lora-formula and lora-rank) In training, peft can drop a share of A's inputs at
# random (`lora_dropout`, 0 unless you ask); outside training nothing is dropped.

# %% tags=["nbval-check-output"]
for out, inside, r in ((500, 500, 4), (1024, 1024, 16), (4096, 4096, 16)):
    count = lora_weights({"W": (out, inside)}, r)
    print(f"{out} x {inside}, r={r}: {count:,} weights of {out * inside:,}, {count / out / inside:.2%}")

# %% [markdown]
# ## Exercise 05.1: the forward pass
#
# {{exercise:05.1}}
#
# In plain Python, for one token. A has r rows, so r is `len(A)`.
#
# {{hint:05.1}}

# %% tags=["exercise"]
def lora_forward(x, W, A, B, alpha):
    """W x + (alpha / r) B A x, for one token.

    x: list of `in` floats. W: (out, in), A: (r, in), B: (out, r), each a list of rows. Returns a list of
    `out` floats.
    """
    # BEGIN SOLUTION
    def times(matrix, vector):
        return [sum(w * v for w, v in zip(row, vector, strict=True)) for row in matrix]

    change = times(B, times(A, x))
    return [y + alpha / len(A) * c for y, c in zip(times(W, x), change, strict=True)]
    # END SOLUTION


# %%
check("05.1", lora_forward)

# %% [markdown]
# ## Exercise 05.2: a start that changes nothing
#
# {{exercise:05.2}}
#
# A starts as small random numbers, uniform within 1/√in, as peft has it; B starts at 0.
#
# {{hint:05.2}}

# %% tags=["exercise"]
def init_lora(noise, inside, out, r):
    """Starting A (r, inside) and B (out, r) of a LoRA layer: step 0 must change nothing, step 1 must learn.

    B starts at 0. A takes its numbers from noise, a list of more floats than you need, uniform between -1 and
    1: in order, row by row, divided by the square root of `inside`. Returns (A, B), each a list of rows of
    float.
    """
    # BEGIN SOLUTION
    A = [[value / inside**0.5 for value in noise[i * inside : (i + 1) * inside]] for i in range(r)]
    return A, [[0.0] * r for _ in range(out)]
    # END SOLUTION


# %%
check("05.2", init_lora)

# %% [markdown]
# ## Build
#
# Forward pass and start, as a module.

# %%
class LoRA(torch.nn.Module):
    """W x + (alpha / r) B A x: W is frozen, A and B are trained."""

    def __init__(self, linear, r, alpha):
        super().__init__()
        out, inside = linear.weight.shape
        self.linear = linear.requires_grad_(False)                         # W: (out, in)
        self.A = torch.nn.Parameter(torch.empty(r, inside).uniform_(-1, 1) / math.sqrt(inside))
        self.B = torch.nn.Parameter(torch.zeros(out, r))
        self.scaling = alpha / r

    def forward(self, x):                                                  # (batch, seq, in)
        return self.linear(x) + self.scaling * (x @ self.A.T @ self.B.T)   # (batch, seq, out)


def with_lora(model, r, alpha):
    """Freeze a model and put LoRA beside every linear layer but the head, in place."""
    model.requires_grad_(False)
    for name, layer in linears(model).items():
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, LoRA(layer, r, alpha))
    return model


# %% tags=["nbval-check-output"]
tokenizer = load_tokenizer()
base = load_model(on=torch.device("cpu"))
base_weights = base.num_parameters()
inputs = tokenizer("The tent arrived with a", return_tensors="pt")
ours = with_lora(copy.deepcopy(base), r=16, alpha=32)

attention = ours.model.layers[0].self_attn
for name in ("q_proj", "v_proj"):
    layer = getattr(attention, name)
    print(name, "W", *layer.linear.weight.shape, " A", *layer.A.shape, " B", *layer.B.shape)
trained = sum(weight.numel() for weight in ours.parameters() if weight.requires_grad)
print(f"{trained:,} trained weights, {trained / base_weights:.1%} of the base's {base_weights:,}")

# %% [markdown]
# The first guess: 3.6%. And v is narrower than q: this model has 9 query heads and 3 key and value heads, so
# LoRA on k and v is smaller too. Many counts that go round forget this.
#
# ## Why B starts at 0
#
# B is 0, so B A is 0, and step 0 computes what the base computes. Why not let both be 0? Look at the
# gradients. With G the gradient of the loss with respect to the output, that of B is s · G (A x)ᵀ and that of
# A is s · Bᵀ G xᵀ. Each contains the other matrix.

# %% tags=["nbval-check-output"]
seed_everything(SEED)
layer = base.model.layers[12].mlp.up_proj
x, target = torch.randn(64, 576), torch.randn(64, 1536)
for a, b in (("random", "zero"), ("zero", "zero"), ("random", "random")):
    start = LoRA(copy.deepcopy(layer), r=4, alpha=8)
    start.A.data *= a == "random"
    start.B.data += 0.1 * torch.randn(1536, 4) * (b == "random")
    (start(x) - target).square().mean().backward()
    learns = [name for name in "AB" if getattr(start, name).grad.abs().max() > 0]
    same = torch.equal(start(x), layer(x))
    print(f"A {a}, B {b}: output unchanged {same}, gradients of {' and '.join(learns) or 'neither'}")

# %% [markdown]
# With A random and B zero, B learns in the first step, and A from the second on. With both zero nothing ever
# moves. With both random the model is damaged before training begins.

# %% tags=["nbval-check-output"]
with torch.no_grad():
    logits = {name: model(**inputs).logits for name, model in (("base", base), ("LoRA", ours))}
print("step 0 gives the base's logits, to the last bit:", torch.equal(logits["base"], logits["LoRA"]))

# %% [markdown]
# The fourth guess: no output changes.

# %% [markdown]
# ## Exercise 05.3: count the trained weights
#
# {{exercise:05.3}}
#
# Mind grouped-query attention: how wide are k and v?
#
# {{hint:05.3}}

# %% tags=["exercise"]
def count_lora(hidden, layers, heads, kv_heads, head_dim, inter, vocab, r, targets):
    """Weights that LoRA of rank r trains in a Llama-like model.

    targets: list of names among "q", "k", "v", "o", "gate", "up", "down", adapted in every layer. q and o
    connect `hidden` with all `heads`, k and v `hidden` with the `kv_heads`, each `head_dim` wide; gate, up
    and down connect `hidden` with `inter`. Embedding and head (`vocab`) stay as they are. Returns an int.
    """
    # BEGIN SOLUTION
    q, kv = heads * head_dim, kv_heads * head_dim
    width = {"q": q, "k": kv, "v": kv, "o": q, "gate": inter, "up": inter, "down": inter}
    return layers * sum(r * (hidden + width[name]) for name in targets)
    # END SOLUTION


# %%
check("05.3", count_lora)

# %% tags=["nbval-check-output"]
ATTENTION, MLP = ["q", "k", "v", "o"], ["gate", "up", "down"]


def count(shape, r, targets):
    """Trained weights of a known shape, by the reference of exercise 05.3."""
    s = SHAPES[shape]
    return solve("05.3")(s.hidden, s.layers, s.heads, s.kv_heads, s.head_dim, s.inter, s.vocab, r, targets)


for targets in (["q", "v"], ATTENTION, MLP, ATTENTION + MLP):
    here, large = count("smollm2-135m", 16, targets), count("7b", 16, targets)
    print(f"r=16 on {' '.join(targets):<20} here {here:>9,} ({here / base_weights:.2%}),",
          f"7B {large:>10,}, {2 * large / 1e6:3.0f} MB in 16 bits")
same = count("smollm2-135m", 16, ATTENTION + MLP) == trained == lora_weights(linear_shapes(base), 16)
print("equal to what the module trains, and to labkit's count:", same)

# %% [markdown]
# The share is larger in a small model: r · (in + out) grows with the width, W with its square. A 7B model has
# 14 GB of 16-bit weights, and an adapter of it tens of MB (claim lora-size).
#
# ## Prove it: peft
#
# peft is what the field uses. Put random numbers into A and B, because a B of 0 would hide every error, copy
# them into peft's model, and compare logits and gradients in fp32.

# %%
config = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
theirs = get_peft_model(copy.deepcopy(base), config)
torch.manual_seed(SEED)
pairs = []
for name in linears(base):
    mine, other = ours.get_submodule(name), theirs.get_submodule(f"base_model.model.{name}")
    torch.nn.init.normal_(mine.B, std=0.02)
    other.lora_A["default"].weight.data = mine.A.data.clone()
    other.lora_B["default"].weight.data = mine.B.data.clone()
    pairs += [(mine.A, other.lora_A["default"].weight), (mine.B, other.lora_B["default"].weight)]

# %% tags=["nbval-check-output"]
outputs = [model(**inputs, labels=inputs.input_ids) for model in (ours, theirs)]
sum(output.loss for output in outputs).backward()
far = (outputs[0].logits - logits["base"]).abs().max()
apart = (outputs[0].logits - outputs[1].logits).abs().max()
print(f"{len(pairs)} matrices copied; the adapter changes the logits by more than 1: {bool(far > 1)}")
print("logits equal to 1e-5 of the largest:", bool(apart <= 1e-5 * outputs[1].logits.abs().max()))
off_by = max((a.grad - b.grad).norm() / b.grad.norm() for a, b in pairs)
print("gradients equal to 1e-4, all of them:", bool(off_by < 1e-4))

# %% [markdown]
# It is the same method. From here on the lesson trains peft's, which also saves, loads and swaps adapters.
# `labkit.methods.low_rank` has ours again, with dropout, rsLoRA and merging.

# %% [markdown]
# ## Train: every weight against 3.6% of them
#
# The same rows, steps and tokens a step; each with a learning rate that did well for it in trials of 300
# steps. On the CPU budget both see some 70 of the 4,000 rows.

# %%
ours = theirs = outputs = pairs = mine = other = None                      # their memory is wanted below
data = load("tickets")
size = len(data["test"])
test = data["test"].select([i * size // numbers.rows for i in range(numbers.rows)])
options = dict(steps=numbers.steps, batch=numbers.batch, length=numbers.length, seed=SEED)
FULL_LR, LORA_LR = 3e-4, 3e-3
runs, scores = {}, {}

full = load_model()
runs["full"] = fit(full, data["train"], tokenizer, lr=FULL_LR, **options)
print(runs["full"])
scores["full"] = score(full, tokenizer, test, batch_size=250, max_new_tokens=numbers.answer)

# %%
seed_everything(SEED)
model = get_peft_model(load_model(), config)
runs["LoRA"] = fit(model, data["train"], tokenizer, lr=LORA_LR, **options)
print(runs["LoRA"])
scores["LoRA"] = score(model, tokenizer, test, batch_size=250, max_new_tokens=numbers.answer)

# %%
print("        trained weights   loss at end   valid   exact  seconds  tokens/s")
ends = {name: mean(run.losses[-10:]) for name, run in runs.items()}
for name, run in runs.items():
    found = scores[name]
    print(f"{name:<7}{run.trainable:>16,}{ends[name]:>14.3f}{found.valid:>8.1%}{found.exact:>8.1%}"
          f"{run.seconds:>9.0f}{run.tokens_per_second:>10,.0f}")
print(f"on {numbers.rows} test rows")

# %%
share = runs["LoRA"].trainable / runs["full"].trainable
title = f"Loss at the end: {ends['LoRA']:.2f} with {share:.1%} of the weights, {ends['full']:.2f} with all"
fig, axes = plots.figure(title, "step", "loss per answer token (nats)")
for (name, run), style, colour in zip(runs.items(), ("-", "--"), plots.COLOURS, strict=False):
    axes.plot(range(1, run.steps + 1), run.losses, style, color=colour, label=name)
axes.set_yscale("log")
axes.yaxis.set_major_formatter("{x:g}")
axes.yaxis.set_minor_formatter("")
axes.legend(frameon=False)
finding = ", ".join(f"{name} from {run.losses[0]:.2f} to {ends[name]:.2g}" for name, run in runs.items())
plots.show(fig, f"Line plot of training loss over {numbers.steps} steps: {finding}.")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
for name, run in runs.items():
    print(f"{name}: the loss fell by more than half:", ends[name] < 0.5 * run.losses[0])

# %% [markdown]
# One seed and few rows: this shows that both learn, not which is better. The record of methods below has
# three seeds, 5,000 rows, and a learning rate tuned for each. Do not compare the two peaks that `fit`
# printed: the fully finetuned model was still in memory when LoRA trained. A loss near 0 beside answers that
# are wrong is no contradiction: the training rows are known by heart, the test messages have new phrasings.
#
# ## The same run as the field writes it
#
# trl makes the adapter itself from `peft_config`. On the GPU budget `fit` packs about 39 rows into a step, so
# trl gets 39.

# %% tags=["gpu"]
# %%gpu
from datasets import disable_progress_bars
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

disable_progress_bars()
settings = SFTConfig(
    output_dir="/tmp/trl", max_steps=numbers.steps, per_device_train_batch_size=39,
    learning_rate=LORA_LR, warmup_steps=numbers.steps // 10, lr_scheduler_type="linear", bf16=True,
    gradient_checkpointing=False, max_length=512, save_strategy="no", logging_strategy="no",
    report_to="none", disable_tqdm=True, seed=SEED,
)
trainer = SFTTrainer(
    load_model(), settings, train_dataset=data["train"].select_columns(["prompt", "completion"]),
    peft_config=config, processing_class=tokenizer,
)
trainer.remove_callback(PrinterCallback)
seconds = trainer.train().metrics["train_runtime"]
theirs = score(trainer.model, tokenizer, test, batch_size=250, progress=False)
print(f"trl: {theirs.exact:.1%} exact after {seconds:.0f} s of training")
print(f"fit: {scores['LoRA'].exact:.1%} exact after {runs['LoRA'].seconds:.0f} s of training")

# %% [markdown]
# ## Is the update low-rank?
#
# LoRA assumes that some change of low rank is enough. Is the one that full finetuning makes of low rank? You
# have just trained every weight, so look: subtract, and take the **singular values** of the difference. A
# matrix is a sum of rank-1 matrices; the singular values are their sizes, the largest first. For comparison,
# shuffle the entries of the same change: same numbers, no structure.

# %%
start = base.state_dict()
change = updates(start, full.state_dict())
PLACE = "model.layers.12.mlp.up_proj.weight"
update = change[PLACE]                                                     # (1536, 576)
kinds = {"the update": update, "the same, shuffled": shuffled(update, SEED), "W itself": start[PLACE]}
held = {name: energy(matrix).tolist() for name, matrix in kinds.items()}

RANKS = (1, 4, 16, 64, 256)
print("share of the squared norm that the first directions hold, by rank")
print(f"{'':<20}" + "".join(f"{rank:>8}" for rank in RANKS))
for name, shares in held.items():
    print(f"{name:<20}" + "".join(f"{shares[rank - 1]:>8.1%}" for rank in RANKS))

# %%
first, mixed = (held[name][15] for name in ("the update", "the same, shuffled"))
title = f"16 of 576 directions hold {first:.0%} of the update, and {mixed:.0%} once it is shuffled"
fig, axes = plots.figure(title, "place of the singular value", "size (1 = the largest of the update)")
largest = torch.linalg.matrix_norm(update, 2).item()
for name, style, colour in zip(list(kinds)[:2], ("-", "--"), plots.COLOURS, strict=False):
    values = (torch.linalg.svdvals(kinds[name]) / largest).tolist()
    axes.plot(range(1, len(values) + 1), values, style, color=colour, label=name)
axes.axvline(16, color="grey", linewidth=1, linestyle=":", label="rank 16")
axes.set_xscale("log")
axes.set_ylim(bottom=0)
axes.xaxis.set_major_formatter("{x:g}")
axes.legend(frameon=False)
plots.show(fig, f"Line plot of singular values of one layer's update and of its shuffled twin. {title}.")

# %% tags=["nbval-check-output"]
print("the update is nearer to rank 16 than its shuffled twin:", first > 1.5 * mixed)
print("W itself is not of low rank, 16 directions hold under 15%:", held["W itself"][15] < 0.15)
cut = low_rank(update, 16)
lost = ((update - cut).norm() / update.norm()).item() ** 2
print("what cutting to rank 16 loses is the rest:", abs(lost - (1 - first)) < 1e-3)

# %% [markdown]
# The update has structure: a few directions are much larger than the rest. But it is not of low rank: a long
# tail follows. Whether the tail matters is another question, and one that only a score can answer. So cut
# every layer's update to rank 16, the nearest matrix of that rank, and score the model again. Embedding and
# norms keep their whole change: rank 0 says what they reach alone. The shuffled update is cut the same way,
# but its score says little: a shuffled change is noise whether you cut it or not (the ledger's second line,
# that it loses, any noise would meet). What shuffling is good for is the comparison of shares above.

# %% tags=["gpu"]
# %%gpu
@torch.no_grad()
def with_change(cut):
    """The fully finetuned model, each linear layer's change replaced by `cut` of it."""
    weights = dict(full.named_parameters())
    for name, delta in change.items():
        weights[name].copy_(start[name].to(delta.device) + cut(delta))
    return full


for name, cut in {
    "rank 0": torch.zeros_like,
    "rank 16, shuffled": lambda delta: low_rank(shuffled(delta, SEED), 16),
    "rank 16": lambda delta: low_rank(delta, 16),
    "whole": lambda delta: delta,
}.items():
    found = score(with_change(cut), tokenizer, test, batch_size=250, progress=False)
    print(f"{name:<18}{found.exact:.1%} exact")

# %% [markdown]
# The recorded run has three seeds and six ranks (claim lora-lowrank). From here on three kinds of rows are
# scored, and their numbers do not compare: *test* rows have phrasings that no training saw; *validation* rows
# are new, but in the phrasings of training, and nearly all right; *held-out phrasings* are a fifth of the
# training's, kept from a training of its own: by them a learning rate is chosen.

# %% tags=["recorded"]
Markdown("\n".join(lora_report.low_rank_table()))

# %% [markdown]
# This cuts the change that full finetuning happened to make. That some change of low rank does the job is
# another claim: train it as one, and the records below say what ranks 1 and 16 reach.

# %% [markdown]
# ## Exercise 05.4: the nearest matrix of a rank
#
# {{exercise:05.4}}
#
# Nearest: with the smallest sum of squared differences. By the theorem of Eckart and Young that is the sum
# of the first terms, those with the largest singular values.
#
# {{hint:05.4}}

# %% tags=["exercise"]
def truncate(U, S, V, rank):
    """The matrix of this rank that is nearest to U diag(S) V.

    U: (out, k) and V: (k, in), lists of rows; S: list of k singular values, the largest first, as
    torch.linalg.svd gives them. rank: at most k. Returns a matrix (out, in), as a list of rows.
    """
    # BEGIN SOLUTION
    columns = range(len(V[0]))
    return [[sum(row[i] * S[i] * V[i][j] for i in range(rank)) for j in columns] for row in U]
    # END SOLUTION


# %%
check("05.4", truncate)

# %% tags=["nbval-check-output"]
full = change = kinds = None                                               # gigabytes, wanted no more
small = torch.randn(6, 5, generator=torch.Generator().manual_seed(SEED))
parts = [part.tolist() for part in torch.linalg.svd(small, full_matrices=False)]
mine = torch.tensor(solve("05.4")(*parts, 2))
print("equal to labkit's low_rank:", torch.allclose(mine, low_rank(small, 2), atol=1e-5))
print("rank:", torch.linalg.matrix_rank(mine).item())

# %% [markdown]
# ## Alpha, and what happens as r grows
#
# s = alpha / r scales the change. It acts like a learning rate, so rank and rate cannot be told apart unless
# you know what s does. Three habits: alpha fixed, alpha = 2r, and **rsLoRA**, which divides by √r instead.
# Take one AdamW step on one layer. Measure the norm of the change, s · ‖B A‖, and what the output sees of it,
# s · ‖B A x‖, for the x that the layer gets from a real text.

# %%
def seen_by(layer, text):
    """What a layer of the base gets of a text (tokens, in), and the loss's gradient at its output."""
    seen, ids = [], tokenizer(text, return_tensors="pt")
    hook = layer.register_forward_hook(lambda _, given, output: seen.extend((given[0], output)))
    loss = base(**ids, labels=ids.input_ids).loss
    hook.remove()
    x, output = seen
    return x[0].detach(), torch.autograd.grad(loss, output)[0][0]


def first_change(r, alpha, rslora):
    """Norms after one AdamW step at 1e-3: of one layer's change, and of its output's, mean of the tokens."""
    torch.manual_seed(SEED)
    adapted = LoRALinear(copy.deepcopy(layer), r, alpha, rslora=rslora)
    optimizer = torch.optim.AdamW([adapted.lora_A, adapted.lora_B], lr=1e-3)
    adapted(x).backward(slope)
    optimizer.step()
    change = adapted.delta().detach()
    return change.norm().item(), (x @ change.T).norm(dim=-1).mean().item()


# %% tags=["nbval-check-output"]
habits = {"alpha = 16": (lambda r: 16, False), "alpha = 2r": (lambda r: 2 * r, False),
          "rsLoRA, alpha = 16": (lambda r: 16, True)}
base.requires_grad_(True)
x, slope = seen_by(layer, data["test"][0]["message"])                      # (tokens, 576), (tokens, 1536)
taken = {name: [first_change(r, alpha(r), rslora) for r in (4, 16, 64)]
         for name, (alpha, rslora) in habits.items()}
for place, what in enumerate(("norm of the change", "of the output's")):
    print(f"{what:<20}" + "".join(f"{f'r={r}':>8}" for r in (4, 16, 64)) + "   r=64 over r=4")
    for name, each in taken.items():
        norms = [pair[place] for pair in each]
        print(f"{name:<20}" + "".join(f"{norm:>8.3f}" for norm in norms) + f"{norms[-1] / norms[0]:>12.1f}")

# %% [markdown]
# Why: AdamW's first step moves every entry of B by the learning rate, up or down, whatever the scaling. As a
# matrix, B A is then a sum of r terms of about equal size in different directions: its norm grows as √r, and
# rsLoRA's √r evens that out. But the output sees B A x. The signs in column j of B follow those of A x in
# place j, so on inputs like those of the step all r columns push the same way, and the sum grows nearly as r.
# Alpha = 2r passes that on: a larger rank takes larger steps, and may want a lower rate. With rsLoRA about √r
# is left of it, and alpha fixed, which divides by r, comes nearest to level.
#
# Is one learning rate then right for all ranks? This is the first step of one layer; what is best after
# hundreds must be measured.
#
# ## Exercise 05.5: keep the scaling
#
# {{exercise:05.5}}
#
# {{hint:05.5}}

# %% tags=["exercise"]
def same_scaling(alpha, r, new_r, rslora):
    """The alpha that keeps the scaling of the change when the rank goes from r to new_r.

    The scaling is alpha / r, or alpha / sqrt(r) with rslora=True. Returns a float.
    """
    # BEGIN SOLUTION
    ratio = new_r / r
    return alpha * (math.sqrt(ratio) if rslora else ratio)
    # END SOLUTION


# %%
check("05.5", same_scaling)

# %% [markdown]
# ## Rank, targets and learning rate: the record
#
# Everything in this section is recorded, on a GPU. Each method was swept over learning rates, 3 times apart
# and with one seed; where the best was the lowest or the highest, further ones were tried. It is peft's LoRA,
# with alpha = 2r unless the name says otherwise: `a32` is alpha = 32 at every rank, as r=16 has it, and
# `rslora` has alpha = 8, with √16 = 4 the same scaling at r=16. `qv`, `attn` and `mlp` say which layers have
# an adapter; without, all linear ones have. *General loss* is the loss on plain English, and the *probe* the
# share of right answers to questions about the world (25% by chance): what was forgotten, see below.

# %% tags=["recorded"]
whole = store.read("methods_tickets")
methods = whole["values"]["methods"] if whole else {}
kin = {name: found for name, found in methods.items() if name.startswith(("full", "lora", "rslora", "dora"))}
kin = dict(sorted(kin.items(), key=lambda pair: (pair[0].rpartition("-r")[0], pair[1]["trainable"])))
only = whole and {**whole, "values": {**whole["values"], "methods": kin}}
Markdown("\n".join(methods_report.lines(only)) if kin else methods_report.text())

# %% tags=["recorded"]
print("exact, one seed, on rows that choose the learning rate")
for name, found in kin.items():
    sweep = sorted((float(rate), value) for rate, value in found["rates"].items())
    print(f"{name:<14}" + "  ".join(f"{rate:g}: {value:.1%}" for rate, value in sweep))

# %% tags=["recorded"]
shown = [name for name in ("full", "lora-r1", "lora-r16", "lora-r256") if name in kin]
if len(shown) == 4:
    times = kin["lora-r16"]["rate"] / kin["full"]["rate"]
    title = f"On this grid LoRA r=16 is best at {times:.2g} times the learning rate of full finetuning"
    fig, axes = plots.figure(title, "learning rate", "exact on rows that choose the rate (%)")
    styles = zip(("o-", "s--", "^-.", "D:"), plots.COLOURS, strict=False)
    for name, (style, colour) in zip(shown, styles, strict=False):
        sweep = sorted((float(rate), 100 * value) for rate, value in kin[name]["rates"].items())
        axes.plot(*zip(*sweep, strict=True), style, color=colour, label=name)
    axes.set_xscale("log")
    axes.legend(frameon=False)
    best = ", ".join(f"{name} best at {kin[name]['rate']:g}" for name in shown)
    plots.show(fig, f"Line plot of score over learning rate: {best}.")

# %% [markdown]
# The second guess is in the best rates, the third in the gap of two ranks, each at its best rate:

# %% tags=["recorded"]
for name in shown:
    rates = kin[name]["rates"].values()
    print(f"{name:<10} best at {kin[name]['rate']:g}; all rates tried: {min(rates):.1%} to {max(rates):.1%}")
print(lora_report.gap("lora-r16", "lora-r1"))

# %% [markdown]
# Where one method's scores differ more over rates than methods do at their best, a comparison at one rate
# says more about the rate than about the methods. And one seed is little to choose a rate by: the table of
# what is forgotten, below, has three seeds at each rate: there 1e-3 and 3e-3 are level for LoRA.
#
# And is one rate right for all ranks? In this record alpha = 2r wants a lower one as r grows, down to full
# finetuning's at r=256; with alpha = 32 at r=64 too (`lora-a32-r64`) it stays where r=16 has it. That is the
# order that the first step above suggests.
#
# Does the best rate move with the batch (claim hp-lr)? Steps stay the same, so a larger batch sees more rows.
# And these are rates at alpha = 2r: half the alpha wants a higher one.

# %% tags=["recorded"]
Markdown("\n".join(lora_report.batch_table()))

# %% [markdown]
# **DoRA** splits W into the length and the direction of each output row (peft's way of it), trains the
# lengths, and adapts the directions by LoRA. It trains little more; whether it scores more, claim lora-dora
# says. One seed chose the rates: where two are nearly equal in the sweep above, another seed may choose the
# other, and the score moves with it.
#
# ## What is forgotten
#
# A model that learns tickets loses something elsewhere: the loss on plain English, which no method trained
# on, rises. Less so with LoRA, as is often said? Both that loss and the score depend on the learning rate. So
# compare at equal scores (claim lora-forget). Each point is one seed at one rate; runs with less than half of
# the best score, which LoRA's two highest rates gave, are left out. Right is better and low is better: a
# point with one of the other method to its lower right is beaten, whatever rates lie between.

# %% tags=["recorded"]
lora_report.plot()

# %% tags=["recorded"]
Markdown("\n".join(lora_report.forget_table()))

# %% [markdown]
# ## Merge
#
# B A has the shape of W, so after training the change can be added to W: the same outputs to rounding, and
# one matrix product instead of three. `merge_and_unload` does it, and gives back an ordinary model. In 16
# bits rounding is coarser, and a small change beside a large W may be lost in it.

# %% tags=["nbval-check-output"]
extra = solve("05.3")(576, 30, 9, 3, 64, 1536, 49152, 16, ATTENTION + MLP)
inside = sum(layer.weight.numel() for layer in linears(base).values())
print(f"unmerged, a token takes {extra / inside:.1%} more multiplications in the linear layers; merged, none")

model = model.cpu()
merged = copy.deepcopy(model).merge_and_unload()
print("a plain model again:", type(merged) is type(base), merged.num_parameters() == base_weights)
with torch.no_grad():
    apart, together = (each(**inputs).logits for each in (model, merged))
print("same logits to 1e-5 of the largest:", bool((apart - together).abs().max() <= 1e-5 * apart.abs().max()))
print("and not the base's:", bool((apart - logits["base"]).abs().max() > 1e-2))
merged = None

# %% [markdown]
# The extra products are few, but each is more kernels to launch and more passes over memory. What does that
# cost where a kernel has little to do, and where it has much (claim lora-merge)? The claim's band asks only
# whether unmerged is slower; how much slower, read here:

# %% tags=["recorded"]
Markdown("\n".join(lora_report.merge_table()))

# %% [markdown]
# Merging has a trap: nothing in W says that it was done. Twice is wrong, and so is a base in 4 bits that was
# never meant to hold such numbers (lesson 06).
#
# ## Exercise 05.6: merge
#
# {{exercise:05.6}}
#
# {{hint:05.6}}

# %% tags=["exercise"]
def merge(layer):
    """The layer with its change inside W, and a merged layer as it is.

    layer: a dict with "W" (out, in), "A" (r, in), "B" (out, r), each a list of rows, "alpha", "dropout" (the
    share of inputs of A that training drops) and "merged" (bool). Returns a new dict with the same keys:
    W + (alpha / r) B A and merged True; A, B, alpha and dropout unchanged. Do not change `layer` itself.
    """
    # BEGIN SOLUTION
    if layer["merged"]:
        return dict(layer)
    A, B = layer["A"], layer["B"]
    columns = list(zip(*A, strict=True))
    change = [[sum(b * a for b, a in zip(row, column, strict=True)) for column in columns] for row in B]
    scaling = layer["alpha"] / len(A)
    rows = zip(layer["W"], change, strict=True)
    return {**layer, "merged": True,
            "W": [[w + scaling * d for w, d in zip(*pair, strict=True)] for pair in rows]}
    # END SOLUTION


# %%
check("05.6", merge)

# %% [markdown]
# ## Two adapters on one base
#
# Unmerged adapters have their own advantage: one base in memory, many adapters beside it. Train a second one,
# for another job: replying to customers in the shop's voice (`voice`). The tickets adapter stands by, frozen.

# %%
from labkit.tasks import tickets, voice

model = model.to(device())
model.add_adapter("voice", config)
model.set_adapter("voice")
replies = load("voice", quality="gold")["train"]
voiced = fit(model, replies, tokenizer, lr=LORA_LR, batch=numbers.batch, length=numbers.length,
             steps=numbers.voice_steps, seed=SEED)
print(voiced)
model.save_pretrained("out/adapters")  # the first adapter in this folder, the other in voice/

# %% tags=["nbval-check-output"]
files = {"tickets": Path("out/adapters"), "voice": Path("out/adapters/voice")}
for name, folder in files.items():
    size = (folder / "adapter_model.safetensors").stat().st_size
    print(f"{name}: {size / 1e6:.1f} MB, 4 bytes a weight: {0 <= size - 4 * trained < 100_000};",
          f"in 16 bits it would be {2 * trained / 1e6:.1f} MB, the base {2 * base_weights / 1e6:.0f} MB")

# %% [markdown]
# Load both onto a fresh base, and switch. So few steps on replies teach the shop's tone before its answers.

# %%
served = PeftModel.from_pretrained(load_model(), files["tickets"], adapter_name="tickets")
served.load_adapter(files["voice"], adapter_name="voice")
message = "Hi, I would like to return my Kestrel 2 tent from order 48213, it came on 3 March. It is urgent!"
for name, prompt in (("tickets", tickets.render(message)), ("voice", voice.render(message))):
    served.set_adapter(name)
    answer = generate(served, tokenizer, [prompt], max_new_tokens=numbers.answer, progress=False)[0]
    print(f"{name}: {answer}\n")

# %% tags=["nbval-check-output"]
served = served.cpu()
seen = {}
with torch.no_grad():
    for name in ("tickets", "voice"):
        served.set_adapter(name)
        seen[name] = served(**inputs).logits
    served.set_adapter("tickets")
    again = served(**inputs).logits
    with served.disable_adapter():
        off = served(**inputs).logits
print("the two adapters give different outputs:", bool((seen["tickets"] - seen["voice"]).abs().max() > 1e-2))
print("back to the first, same output:", torch.equal(again, seen["tickets"]))
print("it is what the trained model gave:", torch.allclose(again, apart, atol=1e-4))
print("off, the base's output:", torch.equal(off, logits["base"]))

# %% [markdown]
# An adapter belongs to the base that it was trained on. If the base changes, the adapter's change is added to
# other weights. How much of it is lost then (claim lora-rebase):

# %% tags=["recorded"]
Markdown("\n".join(lora_report.rebase_table()))

# %% [markdown]
# ## Memory and time
#
# The predictor of lesson 01, for a step of the plain loop, 8 x 512 tokens, bf16 autocast, LoRA of rank 16 on
# all linear layers, and on q and v alone:

# %% tags=["nbval-check-output"]
step = Setting("smollm2-135m", method="lora", batch=8, seq=512)
settings = {"full": step.but(method="full"), "LoRA": step, "LoRA q,v": step.but(targets="q,v")}
reports = {name: predict(setting) for name, setting in settings.items()}
print(f"{'GB':<17}" + "".join(f"{name:>10}" for name in reports))
for kind in ("weights", "optimizer", "casts", "activations", "logits and loss", "workspace"):
    sizes = [report.categories.get(kind, 0) / 1e9 for report in reports.values()]
    print(f"{kind:<17}" + "".join(f"{size:>10.2f}" for size in sizes))
print(f"{'peak':<17}" + "".join(f"{report.peak_allocated / 1e9:>10.2f}" for report in reports.values()))
print(f"{'at':<17}" + "".join(f"{report.moment:>10}" for report in reports.values()))
saved = [report.categories["activations"] / report.peak_allocated for report in reports.values()]
print(f"{'activations':<17}" + "".join(f"{share:>10.0%}" for share in saved) + " of the peak")

# %% [markdown]
# The peak is at the start of the backward pass: all activations are there, and no gradient yet. Gradients
# come as activations go, so at this size only the two optimizer states count in full. Not so elsewhere:

# %% tags=["nbval-check-output"]
both = [predict(step.but(precision="bf16", method=method)).categories for method in ("full", "lora")]
print("all in bf16 but the adapters, activations: full {:.2f} GB, LoRA {:.2f} GB".format(
    *(each["activations"] / 1e9 for each in both)))
large = predict(Setting("7b", method="full", batch=1, seq=512, precision="bf16"))
kept = (large.categories["gradients"] + large.categories["optimizer"]) / 1e9
print(f"7B in bf16, 1 x 512 tokens, full: gradients and states are {kept:.0f} GB of a peak of",
      f"{large.peak_allocated / 1e9:.0f} GB, at the {large.moment}")

# %% tags=["gpu"]
# %%gpu
from labkit.memory.apart import measure_apart

print(f"{'':<9}{'predicted':>12}{'measured':>12}{'error':>8}")
for name, setting in settings.items():
    said, measured = reports[name].peak_allocated, measure_apart(setting).peak_allocated
    print(f"{name:<9}{said / 1e9:>9.3f} GB{measured / 1e9:>9.3f} GB{said / measured - 1:>8.1%}")

# %% [markdown]
# LoRA saves gradients and states: nearly all of them. The weights stay. What it saves of the activations
# depends on where the adapters are: A's gradient needs the layer's input, as W's does, so an adapted layer
# keeps it, and only a layer without an adapter need not. It depends on the recipe too: in a bf16 model peft's
# adapters are fp32, their inputs are kept a second time in fp32, and LoRA's activations are larger than full
# finetuning's. Here, with long batches, activations are the largest part; in the 7B model with a short batch,
# gradients and states are.
#
# Time: a step of full finetuning is three products a weight, forward, the gradient of the input, the gradient
# of the weight, each two operations a token. LoRA spares the third for W, and needs all three for A and B.
# Attention, which has no weights, costs both the same.

# %% tags=["nbval-check-output"]
forward = 30 * 2 * 2 * 512 * 576                     # layers, products, operations, tokens to look at, width
attention = forward + 2.5 * forward                  # backward: 2, and 0.5 if scores are made again (flash)
for name, more in (("products with weights", 0), ("and attention", attention)):
    operations = [6 * base_weights + more, 4 * base_weights + 6 * trained + more]
    print(f"{name}: LoRA needs {operations[1] / operations[0]:.2f} of full finetuning's operations")

# %% [markdown]
# "Two thirds" is what is said; counted, it is nearer to three quarters (claim lora-flops; its band, 0.63 to
# 0.75, lets that pass). And operations are not time: the small products, and the passes that scale and
# add, are kernels and memory traffic of their own (claim lora-speed). In the last column, below 1 means that
# LoRA is the slower one:

# %% tags=["recorded"]
Markdown("\n".join(lora_report.speed_table()))

# %%
record(seed=SEED, full_exact=scores["full"].exact, lora_exact=scores["LoRA"].exact,
       full_seconds=runs["full"].seconds, lora_seconds=runs["LoRA"].seconds, full_loss=ends["full"],
       lora_loss=ends["LoRA"], energy_16=first, energy_16_shuffled=mixed)

# %% [markdown]
# ## What the field says, measured
#
# - LoRA matches full finetuning with a few percent of the weights (claim lora-match); 0.1% of them give 95%
#   of its performance (lora-95): on q and v, r=2 is the largest rank below 0.1% here.
# - The counts often quoted (lora-rank), the formula (lora-formula) and the size of an adapter (lora-size).
# - Finetuning updates are low-rank (lora-lowrank): scores after truncation, not shares of a norm.
# - LoRA is sensitive to rank, and larger helps up to a point (lora-sensitive): each rank at the best of rates
#   3 times apart.
# - Merged weights cost nothing (lora-merge); LoRA trains ten times faster (lora-speed), with two thirds of
#   the operations (lora-flops).
# - LoRA forgets less (lora-forget): at matched task scores. DoRA scores higher than LoRA (lora-dora).
# - If the base changes, retrain every adapter (lora-rebase).
# - LoRA's useful learning rate is 1e-5 to 1e-4 (hp-lr): the best one, at alpha = 2r. Little data favours it
#   (data-crossover, lesson 03).

# %% tags=["nbval-check-output", "recorded"]
claims("05")

# %% [markdown]
# ## Take-away
#
# - y = W x + s · B A x: the change is factored. B starts at 0, so step 0 is the base.
# - r (in + out) weights a layer; look at the shapes, k and v may be narrower than q.
# - Tune the learning rate for each rank and scaling, and do not take over that of full finetuning.
# - LoRA saves gradients and optimizer states. With adapters on all layers it saves few activations or none,
#   and about a quarter of the operations, which need not be time.
# - Merge for speed, once, into the base it was trained on; keep adapters apart to swap them.
#
# **Read:** Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (2021), section 4. Kalajdzievski,
# *A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA* (2023). Biderman et al., *LoRA Learns Less
# and Forgets Less* (2024). Liu et al., *DoRA* (2024).
#
# **Next:** 06_qlora puts the frozen base into four bits.
