# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 10. `python -m labkit build 10` makes both notebooks from this file.

# %% [markdown]
# # 10 · Model merging: combine models without training
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | merge finetunes five ways, and say how much of each survives | lessons 04 and 05 | {{budget}} |
#
# Two colleagues finetuned the same base: one model fills in tickets, the other writes SQL. You want one model
# that does both, and have no time to train. Can you add their weights?
#
# Often you can. A finetune is the base plus a **delta**, and deltas are vectors: they can be averaged, added,
# taken away, trimmed. You will train two specialists, write five merges from scratch, prove them, and score
# what each leaves of both skills. Then you will stack layers of one model on top of each other.

# %%
import logging
import math
from statistics import mean

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
from IPython.display import Markdown
from peft.utils import merge_utils

from labkit import (
    budget, check, claims, device, env, fit, load, load_model, load_tokenizer, machine, plots, profile,
    record, seed_everything, solve,
)
from labkit.bench import merging_report
from labkit.bench.full_jobs import handbook_rows
from labkit.methods import merging
from labkit.methods.quantize import relative_error
from labkit.tasks.general import passages
from labkit.tasks.general.likelihood import log_probabilities
from labkit.train.precision import Weights, autocast
from labkit.train.rows import encode_all

# %%
SEED, TASKS = 0, ("tickets", "sql")
numbers = budget(
    cpu=dict(steps=10, rate=3e-4, batch=1, length=352, rows=4, lora=3, recovery=3, passages=2,
             drops=(0.9, 0.99)),
    gpu=dict(steps=300, rate=1e-4, batch=8, length=512, rows=300, lora=100, recovery=100, passages=100,
             drops=(0.5, 0.8, 0.9, 0.95, 0.99)),
    smoke=dict(steps=2, rate=3e-4, batch=1, length=352, rows=2, lora=1, recovery=1, passages=1,
               drops=(0.9,)),
)  # fmt: skip
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. You average a tickets model and a SQL model, weight by weight. How much of each one's gain over the base
#    is left: nothing, half, nearly all?
# 2. You drop entries of a finetune's delta at random. How many of them can go before its score falls by a
#    point?
# 3. SLERP goes from one model to the other along an arc, where an average goes straight. How many points is
#    that worth?
# 4. You stack 22 of a model's 30 layers on 23 of them. Is the loss of the deeper model lower, a little
#    higher, or far higher?
#
# ## Two specialists
#
# Each is the base, every weight finetuned on one task, with seed 0 for tickets and 1 for SQL. `specialist`
# trains it once on a machine and keeps it in the folder `specialists` of labkit's cache, 0.5 GB each, so the
# next run of this lesson is quicker. Merging itself trains nothing.

# %%
tokenizer, data = load_tokenizer(), {task: load(task) for task in TASKS}
model = load_model()
base = merging.state(model)                                                # {name: fp32 weights}
settings = dict(steps=numbers.steps, batch=numbers.batch, length=numbers.length, progress=False)
trained = {task: merging.specialist(task, lr=numbers.rate, seed=seed, **settings)
           for seed, task in enumerate(TASKS)}  # fmt: skip
deltas = {task: merging.delta(state, base) for task, state in trained.items()}

# %% [markdown]
# A **state** is a dict of tensors. The delta is τ = θ − θ_base, name by name. How far did training go, and in
# which directions?

# %%
def length(state):
    """The norm of all weights as one long vector."""
    return math.sqrt(sum(part.double().square().sum().item() for part in state.values()))


def cosine(a, b):
    """The cosine between two states, each as one long vector."""
    return sum((a[name].double() * b[name]).sum().item() for name in a) / length(a) / length(b)


for task in TASKS:
    print(f"{task:<8} the delta is {length(deltas[task]) / length(base):.3%} of the base's length")
between = cosine(*deltas.values())
by_tensor = merging.cosines(*trained.values())
print(f"cosine between the deltas: {between:.3f}")
print(f"cosines between the models' {len(by_tensor)} tensors: {min(by_tensor.values()):.6f} at least,",
      f"{sum(value > 0.9995 for value in by_tensor.values())} of them above 0.9995")  # fmt: skip

# %% tags=["nbval-check-output"]
print("the models are far nearer to each other than their deltas:", min(by_tensor.values()) > between + 0.1)
print("tied embedding and head are one entry:", "lm_head.weight" not in base, f"{len(base)} tensors")

# %% [markdown]
# As vectors, the two models are almost the same one: a finetune is a short step from where it starts. The two
# steps point in different directions, nearly at right angles. That is why adding them may work.
#
# ## What is held out
#
# **Loss** on the answers of held-out rows is quick, so it is measured on every machine. **Exact match** needs
# answers to be generated; the GPU budget does that, and the record.

# %%
def held_out(task, split):
    """Some rows of a split, spread evenly."""
    rows = data[task][split]
    count = min(numbers.rows, len(rows))
    return rows.select([i * len(rows) // count for i in range(count)])


def nats(model, coded):
    """Mean loss in nats of (token ids, first one that counts) pairs, in the precision of generation."""
    precision = env.precision(device())
    with Weights(model, precision), autocast(device().type, precision):
        found = log_probabilities(model, tokenizer, coded, 32, "loss", progress=False)
    return -mean(value for row in found for value in row)


def loss(model, rows):
    """Mean loss over the answers' tokens."""
    return nats(model, [(one.ids, one.weights.index(1.0)) for one in encode_all(rows, tokenizer, length=512)])


def losses(state, split="test"):
    """{task: loss} of a state."""
    merging.put(model, state)
    return {task: loss(model, held_out(task, split)) for task in TASKS}


measured = {"base": losses(base)} | {f"{task} specialist": losses(trained[task]) for task in TASKS}
for name, found in measured.items():
    print(f"{name:<20}" + "".join(f"{task} {found[task]:.3f}   " for task in TASKS))

# %% tags=["nbval-check-output", "smoke-skip-compare"]
for task in TASKS:
    better = measured[f"{task} specialist"][task] < 0.8 * measured["base"][task]
    print(f"the {task} specialist's loss on {task} is over a fifth below the base's:", better)

# %% [markdown]
# ## Build: average
#
# The plainest merge: θ = Σ wᵢ θᵢ, with weights that add up to 1. For models of one task it is called a
# **soup** (Wortsman et al. 2022).
#
# ## Exercise 10.1: average
#
# {{exercise:10.1}}
#
# {{hint:10.1}}

# %% tags=["exercise"]
def average(models, weights):
    """The weighted average of finetunes of one base.

    models: list of {name: list of float}, all with the same names and lengths. weights: a positive number
    for each model; they need not add up to 1, so divide by what they add up to. Returns a new
    {name: list of float}.
    """
    # BEGIN SOLUTION
    total = sum(weights)
    return {name: [sum(w * x for w, x in zip(weights, entries, strict=True)) / total
                   for entries in zip(*(one[name] for one in models), strict=True)]
            for name in models[0]}
    # END SOLUTION


# %%
check("10.1", average)

# %% [markdown]
# On tensors all merges share one line: for each name, take that tensor of every delta, combine, add the base.
# An average of models is the base plus the average of their deltas, so it fits in too.

# %%
def merge(base, deltas, combine):
    """base + combine([that tensor of each delta]), tensor by tensor."""
    return {name: part + combine([one[name] for one in deltas]) for name, part in base.items()}


def scaled(scales):
    """Σ λₜ τₜ: task arithmetic. With scales that add up to 1 it makes an average of the models."""
    return lambda parts: sum(scale * part for scale, part in zip(scales, parts, strict=True))


# %% [markdown]
# ## Task arithmetic: add, and take away
#
# Why should the scales add up to 1? **Task arithmetic** (Ilharco et al. 2023) adds whole deltas,
# θ = θ_base + Σ λₜ τₜ. A negative λ walks away from a skill.
#
# ## Exercise 10.2: task arithmetic
#
# {{exercise:10.2}}
#
# {{hint:10.2}}

# %% tags=["exercise"]
def task_arithmetic(base, models, scales):
    """The base plus, for each finetune, its scale times its delta, model - base.

    base: {name: list of float}; models: list of the same; scales: a number for each model, below 0 to take
    a skill away. Returns a new {name: list of float}.
    """
    # BEGIN SOLUTION
    return {name: [b + sum(s * (one[name][i] - b) for s, one in zip(scales, models, strict=True))
                   for i, b in enumerate(start)]
            for name, start in base.items()}
    # END SOLUTION


# %%
check("10.2", task_arithmetic)

# %% [markdown]
# Prove both on one layer of the real deltas, against labkit's and peft's `merge_utils`.

# %%
def layer(state):
    """The tensors of layer 12, on the CPU."""
    return {name: part.cpu() for name, part in state.items() if ".layers.12." in name}


place = "model.layers.12.mlp.up_proj.weight"                               # (1536, 576)
small, taus = layer(base), [layer(deltas[task]) for task in TASKS]
models, parts = [layer(trained[task]) for task in TASKS], [tau[place] for tau in taus]

# %% tags=["nbval-check-output"]
ours = merge(small, taus, scaled((0.5, 0.5)))
same = [torch.allclose(ours[name], part, atol=1e-6) for name, part in merging.average(models).items()]
print(f"the average, equal to labkit's to 1e-6: {all(same)}, {len(same)} tensors")
for scales in ((1.0, 1.0), (0.4, -0.8)):
    theirs = merge_utils.task_arithmetic(parts, torch.tensor(scales))
    same = [relative_error(theirs, scaled(own)(parts)) < 1e-6 for own in (scales, (0.5, 0.5))]
    print(f"scales {scales}: equal to peft's to 1e-6: {same[0]}; to the average: {same[1]}")

# %% [markdown]
# One number is free: the scale. Sweep it, the same for both deltas, on validation rows, since you are about
# to choose by them. Scale 0 is the base, 0.5 the average, 1 the whole sum.

# %%
SCALES = (0, 0.3, 0.5, 0.8, 1.0)
sweep = {scale: losses(merging.task_arithmetic(base, list(deltas.values()), scale), "validation")
         for scale in SCALES}  # fmt: skip
alone = {task: loss(merging.put(model, trained[task]), held_out(task, "validation")) for task in TASKS}
best = min(SCALES[1:], key=lambda scale: sum(sweep[scale].values()))
for scale, found in sweep.items():
    print(f"scale {scale:<4}" + "".join(f"   {task} {found[task]:.3f}" for task in TASKS))
print("specialists" + "".join(f"  {task} {alone[task]:.3f}" for task in TASKS))

title = f"The sum of both losses is lowest at scale {best:g}: " + ", ".join(
    f"{task} {sweep[best][task]:.2f}" for task in TASKS)  # fmt: skip
fig, axes = plots.figure(title, "scale of both deltas", "validation loss (nats per answer token)")
for task, style, colour in zip(TASKS, ("o-", "s--"), plots.COLOURS, strict=False):
    axes.plot(SCALES, [sweep[scale][task] for scale in SCALES], style, color=colour, label=f"{task}, merged")
    axes.axhline(alone[task], linestyle=":", color=colour, linewidth=1, label=f"{task}, its specialist")
axes.set_ylim(bottom=0)
axes.legend(frameon=False)
plots.show(fig, f"Line plot of validation loss over the scale of both deltas. {title}.")

# %% [markdown]
# Negation: take tickets away, with scale −1. The model should get worse at tickets, and not much worse at
# plain English. Is it forgetting that skill, or everything?

# %%
def plain(model):
    """Mean loss on plain English that no one trained on."""
    return nats(model, [(tokenizer(text).input_ids[:512], 1) for text in passages()[: numbers.passages]])


english = {"base": plain(merging.put(model, base))}
negated = losses(merging.task_arithmetic(base, [deltas["tickets"]], -1))
english["tickets taken away"] = plain(model)
print(f"tickets loss: base {measured['base']['tickets']:.3f}, taken away {negated['tickets']:.3f}")
print("plain English: " + ", ".join(f"{name} {value:.3f}" for name, value in english.items()))

# %% tags=["nbval-check-output", "smoke-skip-compare"]
print("worse at tickets than the base:", negated["tickets"] > measured["base"]["tickets"])

# %% [markdown]
# ## SLERP
#
# An average of two vectors at right angles is shorter than they are: 0.71 for unit vectors. **SLERP**
# (Shoemake 1985) walks along the arc between them, and keeps the length:
# sin((1 − t) ν) / sin ν · a + sin(t ν) / sin ν · b, with ν the angle between a and b.
#
# ## Exercise 10.3: SLERP
#
# {{exercise:10.3}}
#
# {{hint:10.3}}

# %% tags=["exercise"]
def slerp(a, b, t):
    """From vector a (t = 0) to vector b (t = 1) along an arc: (sin((1 - t) v) a + sin(t v) b) / sin(v).

    v is the angle between a and b, in radians: the cosine is their product over their lengths. Where that
    cosine is above 0.9995, mix linearly: (1 - t) a + t b. a, b: lists of float of any length. Returns a new
    list.
    """
    # BEGIN SOLUTION
    def dot(u, v):
        return sum(x * y for x, y in zip(u, v, strict=True))

    cosine = dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
    first, second = 1 - t, t
    if cosine <= 0.9995:
        angle = math.acos(max(-1.0, cosine))
        first, second = (math.sin(part * angle) / math.sin(angle) for part in (1 - t, t))
    return [first * x + second * y for x, y in zip(a, b, strict=True)]
    # END SOLUTION


# %%
check("10.3", slerp)

# %% [markdown]
# On a tensor, as one long vector:

# %%
def arc(a, b, t, parallel=0.9995):
    """SLERP of two tensors; above the cosine `parallel` it is the straight line."""
    cosine = ((a * b).sum() / a.norm() / b.norm()).item()
    if abs(cosine) > parallel:
        return (1 - t) * a + t * b
    angle = math.acos(cosine)
    return (math.sin((1 - t) * angle) * a + math.sin(t * angle) * b) / math.sin(angle)


# %% tags=["nbval-check-output"]
first, second = torch.eye(2)
half = arc(first, second, 0.5)
print(f"right angles: SLERP has length {half.norm():.2f}, the average {((first + second) / 2).norm():.2f}")
a, b = parts                                                               # two deltas, an angle apart
ends = [part / part.norm() for part in parts]                              # both of length 1
turned, whole = (math.acos((ends[0] * other).sum().item()) for other in (arc(*ends, 0.3), ends[1]))
print("t = 0.3 is 30% of the angle:", abs(turned - 0.3 * whole) < 0.01)
theirs = merging.slerp({"w": a}, {"w": b}, 0.3)["w"]
print("equal to labkit's to 1e-5:", relative_error(theirs, arc(a, b, 0.3)) < 1e-5)

# %% [markdown]
# mergekit, the tool most people merge with, is not installed here; labkit's tests hold average, sum, TIES and
# SLERP to what mergekit 0.1.5 wrote, to 1e-6. Above a cosine of 0.9995 its SLERP **is** linear, and you have
# seen the cosines of these models. Take the arc all the same, for every tensor: how far is it from the
# average?

# %%
straight = merging.average(list(trained.values()))
curved = merging.slerp(*trained.values(), 0.5, parallel=1.0)
apart = length(merging.delta(curved, straight)) / length(merging.delta(straight, base))
measured["average"], measured["SLERP"] = losses(straight), losses(curved)
straight = curved = None                                                   # a gigabyte
print(f"from the average, SLERP's model is {apart:.2%} as far as the base is")
angle = math.acos(between)
print(f"SLERP of the deltas, half way: task arithmetic, scale {math.sin(angle / 2) / math.sin(angle):.2f}")
if best != 0.5:
    measured[f"sum, scale {best:g}"] = losses(merging.task_arithmetic(base, list(deltas.values()), best))

# %% [markdown]
# So SLERP of finetunes is their average, or nearly (the third guess). SLERP of the deltas is task arithmetic
# with a scale that the angle chooses, not you.
#
# ## TIES
#
# Where two deltas disagree about the sign of a change, a sum cancels it. **TIES** (Yadav et al. 2023) asks
# how much of a delta matters: **trim** each to its largest entries, **elect** for each weight the sign with
# the greater total, and average those entries that have it.
#
# ## Exercise 10.4: TIES
#
# {{exercise:10.4}}
#
# {{hint:10.4}}

# %% tags=["exercise"]
def ties(base, deltas, density, scale):
    """TIES: base + scale * merged, for one tensor as a flat list.

    Trim: in each delta keep the int(density * length) entries that are largest in size; the others become 0.
    Elect: for each place the sign of the sum of trimmed deltas. Merge: for each place the mean of those
    trimmed entries that have that sign, 0 where none has. base: list of float; deltas: list of such lists.
    Returns a list of float.
    """
    # BEGIN SOLUTION
    trimmed = []
    for delta in deltas:
        order = sorted(range(len(delta)), key=lambda i: abs(delta[i]), reverse=True)
        keep = set(order[: int(density * len(delta))])
        trimmed.append([x if i in keep else 0.0 for i, x in enumerate(delta)])
    result = []
    for start, entries in zip(base, zip(*trimmed, strict=True), strict=True):
        agree = [x for x in entries if x * sum(entries) > 0]
        result.append(start + scale * (sum(agree) / len(agree) if agree else 0.0))
    return result
    # END SOLUTION


# %%
check("10.4", ties)

# %%
def trim(tau, density):
    """Keep the largest entries, a share `density`; zeros elsewhere."""
    flat = tau.flatten()
    largest = flat.abs().topk(int(density * len(flat))).indices
    return torch.zeros_like(flat).index_copy(0, largest, flat[largest]).view_as(tau)


def trimmed_and_elected(parts, density):
    """TIES for one tensor of each delta."""
    trimmed = torch.stack([trim(part, density) for part in parts])         # (models, *shape)
    sign = torch.where(trimmed.sum(0) >= 0, 1.0, -1.0)                     # elect
    agree = trimmed.sign() == sign
    return (trimmed * agree).sum(0) / agree.sum(0).clamp(min=1)            # the mean of those that agree


# %% tags=["nbval-check-output"]
for density in (0.2, 0.5):
    ours, theirs = trimmed_and_elected(parts, density), merge_utils.ties(parts, torch.ones(2), density)
    print(f"density {density}: equal to peft's to 1e-6: {relative_error(theirs, ours) < 1e-6};",
          f"untrimmed is something else: {relative_error(theirs, trimmed_and_elected(parts, 1)) > 0.05}")

# %% [markdown]
# How often do the two disagree here, and how much of a delta is in its largest fifth?

# %%
for density in (1.0, 0.2):
    kept = [trim(part, density) for part in parts]
    both = (kept[0] != 0) & (kept[1] != 0)
    against = (kept[0].sign() != kept[1].sign())[both].float().mean().item()
    energy = (kept[0].norm() / a.norm()).item() ** 2
    print(f"density {density}: both move {both.float().mean():.1%} of the weights, and disagree on",
          f"{against:.1%} of those; {energy:.0%} of tickets' squared length is kept")  # fmt: skip
measured["TIES, density 0.5"] = losses(merging.ties(base, list(deltas.values()), density=0.5))

# %% [markdown]
# ## DARE
#
# **DARE** (Yu et al. 2023) does not look: it drops entries at random with probability p, and divides what is
# left by 1 − p, so that every sum over the delta keeps its expected value. It is dropout for deltas, once,
# before adding.
#
# ## Exercise 10.5: DARE
#
# {{exercise:10.5}}
#
# {{hint:10.5}}

# %% tags=["exercise"]
def dare(base, model, drop, noise):
    """The base plus a model's delta after DARE: entries dropped at random, the others rescaled.

    All but drop are lists of float of one length. Entry i of the delta, model - base, is dropped where
    noise[i] < drop; noise is uniform from 0 to 1. What is left is divided so that the delta's expected value
    stays. Returns a list of float.
    """
    # BEGIN SOLUTION
    return [b + (m - b) / (1 - drop) if n >= drop else b for b, m, n in zip(base, model, noise, strict=True)]
    # END SOLUTION


# %%
check("10.5", dare)

# %%
def dropped(tau, drop, rescale=True):
    """DARE for one tensor of a delta: the seed is torch's."""
    left = tau * torch.bernoulli(torch.full_like(tau, 1 - drop))
    return left / (1 - drop) if rescale else left


# %% tags=["nbval-check-output"]
for drop in (0.5, 0.9):
    torch.manual_seed(SEED)
    ours = sum(dropped(part, drop) for part in parts)
    torch.manual_seed(SEED)
    theirs = merge_utils.dare_linear(parts, torch.ones(2), 1 - drop)
    other = sum(dropped(part, drop) for part in parts)                     # other draws
    same = [relative_error(theirs, own) < 1e-5 for own in (ours, other)]
    print(f"drop {drop}: equal to peft's to 1e-5 with the same draws: {same[0]}; with others: {same[1]}")
means = [mean((dropped(a, 0.8, rescale) * a).sum().item() for _ in range(30)) / a.square().sum().item()
         for rescale in (True, False)]  # fmt: skip
print(f"what is left points along the delta: {means[0]:.1f} of it rescaled, {means[1]:.1f} not")

# %% [markdown]
# mergekit divides otherwise: by the share of the sum of sizes that chance left, so that the L1 norm stays.
# Now drop more and more of the tickets delta, with and without rescaling, the same entries for both:

# %%
left = dropped(a, 0.9, rescale=False)
print(f"90% dropped: the paper multiplies the rest by 10, mergekit by {a.abs().sum() / left.abs().sum():.2f}")

tickets = held_out("tickets", "test")
start, whole = measured["base"]["tickets"], measured["tickets specialist"]["tickets"]
left = {}
for drop in numbers.drops:
    tau = merging.delta(merging.dare(base, [deltas["tickets"]], drop, seed=SEED, rescale=False), base)
    for name, factor in (("rescaled", 1 / (1 - drop)), ("not rescaled", 1.0)):
        merging.put(model, merging.task_arithmetic(base, [tau], factor))
        left[name, drop] = loss(model, tickets)
        kept = (start - left[name, drop]) / (start - whole)
        print(f"drop {drop:<5} {name:<13} loss {left[name, drop]:.3f}, {kept:.0%} of the gain is kept")
tau = None
print(f"nothing dropped: {whole:.3f}; the base: {start:.3f}")
measured["DARE, half dropped"] = losses(merging.dare(base, list(deltas.values()), 0.5, best, seed=SEED))

# %% tags=["nbval-check-output", "smoke-skip-compare"]
off = {name: abs(left[name, 0.9] - whole) for name in ("rescaled", "not rescaled")}
print("90% dropped, rescaled is nearer to the specialist's loss:", off["rescaled"] < off["not rescaled"])

# %% [markdown]
# The second guess, in points, with three seeds (claim merge-dare):

# %% tags=["recorded"]
Markdown("\n".join(merging_report.dare_table()))

# %% [markdown]
# ## How much survives
#
# A merged model's score says little by itself: the base can do something already. So count from the base:
# the share of the specialist's **gain** that the merged model keeps.
#
# ## Exercise 10.6: the share kept
#
# {{exercise:10.6}}
#
# {{hint:10.6}}

# %% tags=["exercise"]
def share_kept(base, specialists, merged):
    """For each task the share of its specialist's gain over the base that a merged model keeps.

    base and merged: {task: score}; specialists: {task: score of the specialist of that task, on that task}.
    1.0 is all of the gain, and below 0 is worse than the base. Scores or losses, the same formula. None where
    the specialist has the base's score. Returns {task: float or None}.
    """
    # BEGIN SOLUTION
    gains = {task: specialists[task] - start for task, start in base.items()}
    return {task: (merged[task] - base[task]) / gain if gain else None for task, gain in gains.items()}
    # END SOLUTION


# %%
check("10.6", share_kept)

# %%
def table(scores, what):
    """Print {model: {task: number}} and, for merges, the share of each specialist's gain that is kept."""
    alone = {task: scores[f"{task} specialist"][task] for task in TASKS}
    print(f"{what:<22}" + "".join(f"{task:>10}" for task in TASKS) + "    kept of the gain")
    for name, found in scores.items():
        merged = name != "base" and "specialist" not in name
        shares = solve("10.6")(scores["base"], alone, found).items() if merged else ()
        said = ", ".join(f"{task} {share:.0%}" for task, share in shares if share is not None)
        print(f"{name:<22}" + "".join(f"{found[task]:>10.3f}" for task in TASKS) + f"    {said}")


table(measured, "loss, test rows")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
for task in TASKS:
    print(f"the average is better than the base on {task}:",
          measured["average"][task] < measured["base"][task])  # fmt: skip

# %% [markdown]
# A loss can fall far before the first answer is right. On the GPU budget, right answers of the same models:
# the exact object for tickets, a query that returns the right rows for SQL.

# %% tags=["gpu"]
# %%gpu
both = list(deltas.values())
makers = {
    "base": lambda: base, **{f"{task} specialist": lambda task=task: trained[task] for task in TASKS},
    "average": lambda: merging.average(list(trained.values())),
    f"sum, scale {best:g}": lambda: merging.task_arithmetic(base, both, best),
    "SLERP": lambda: merging.slerp(*trained.values(), 0.5, parallel=1.0),
    "TIES, density 0.5": lambda: merging.ties(base, both, density=0.5),
    "DARE, half dropped": lambda: merging.dare(base, both, 0.5, best, seed=SEED),
}
rows, right = {task: held_out(task, "test") for task in TASKS}, {}
for name, make in makers.items():
    found = merging.score_all(merging.put(model, make()), tokenizer, rows, batch_size=300, progress=False)
    right[name] = {task: one.exact for task, one in found.items()}
table(right, "right, test rows")
record(right=right)

# %% [markdown]
# One seed, one setting of each method. The record has three seeds, three tasks, and settings chosen on
# validation rows; the first guess is in it, and claim merge-multitask.

# %% tags=["recorded"]
Markdown("\n".join(merging_report.merges_table()))

# %% tags=["recorded"]
Markdown("\n".join([*merging_report.sweep_table(), "", *merging_report.negation_table()]))

# %% [markdown]
# ## Soups: one task, several runs
#
# Train one task with several seeds or learning rates, and average the models instead of throwing all but the
# best away. A **greedy** soup adds a model only if validation rows do not get worse. Judge a soup by its best
# parent, not by their mean (claim merge-soup).

# %% tags=["recorded"]
Markdown("\n".join(merging_report.soups_table()))

# %% [markdown]
# ## Merging adapters
#
# LoRA's delta is a product, s · B A. The sum of two such deltas is B₁A₁ + B₂A₂. Adding the factors instead
# gives (B₁ + B₂)(A₁ + A₂), which has two **cross terms** that nobody trained, B₁A₂ and B₂A₁. Putting the
# factors side by side, [B₁ B₂] times A₁ on top of A₂, gives the sum exactly, with rank r₁ + r₂. peft calls
# these `linear` and `cat`.

# %%
adapters = {task: merging.specialist(task, method="lora-r4", lr=3e-3, seed=seed,
                                     **{**settings, "steps": numbers.lora})
            for seed, task in enumerate(TASKS)}  # fmt: skip
merging.put(model, base)
served, ones = merging.with_adapters(model, adapters), dict.fromkeys(TASKS, 1.0)
for way in ("cat", "linear"):
    merging.combine(served, ones, way, name=way)

# %% tags=["nbval-check-output"]
for way in ("cat", "linear"):
    error = merging.relative_error(served, ones, way)
    print(f"{way:<7} rank {served.peft_config[way].r}; the sum of both updates to 1e-5: {error < 1e-5};",
          f"off by more than a tenth: {error > 0.1}")  # fmt: skip
place = served.base_model.model.model.layers[12].mlp.up_proj
A, B = ([getattr(place, f"lora_{one}")[task].weight.detach() for task in TASKS] for one in "AB")
scaling = place.scaling["tickets"]
wrong = place.get_delta_weight("linear").detach() - place.get_delta_weight("cat").detach()
crossed = scaling * (B[0] @ A[1] + B[1] @ A[0])
print("what linear gets wrong is the cross terms, to 1e-4:", relative_error(crossed, wrong) < 1e-4)

# %% [markdown]
# A third way, `svd`, cuts the sum down to the rank of one adapter, which cannot hold both. What the three do
# to answers:

# %% tags=["recorded"]
Markdown("\n".join(merging_report.lora_table()))

# %% [markdown]
# ## Stacking layers
#
# Merges so far keep the shape. **Depth up-scaling** (Kim et al. 2023) makes a model deeper: two copies of it
# on top of each other, the last layers of the first and the first layers of the second left out. Here layers
# 0 to 22, then 8 to 29: 45 layers from 30.
#
# You will read that SOLAR 10.7B was made by merging up to 16 models. Its paper says otherwise: it is **one**
# model of 32 layers, stacked to 48 this way, **and then trained on** (claim merge-solar: source wrong).

# %%
model = merging.put(served.unload().requires_grad_(True), base)            # the base again
trained = deltas = adapters = served = base = None                         # gigabytes, wanted no more
models = {"base": model, "stacked": merging.stack(model, [*range(23), *range(8, 30)])}
before = {name: plain(one) for name, one in models.items()}
print("plain English, nats per token: " + ", ".join(f"{name} {one:.2f}" for name, one in before.items()))

# %% tags=["nbval-check-output"]
deeper = models["stacked"]
print(f"{deeper.config.num_hidden_layers} layers, {deeper.num_parameters():,} weights,",
      f"{deeper.num_parameters() / model.num_parameters():.2f} times the base's")  # fmt: skip
print("right after stacking the loss is higher than the base's:", before["stacked"] > before["base"])

# %% [markdown]
# The fourth guess. Layer 8 expects what layer 7 puts out, and gets what layer 22 does. But layers only add to
# what they get, so much of what it looks for is still there. Now continue pre-training, on documents of the
# course's handbook, and give the base the same tokens: else you would compare training with no training.

# %%
documents, options = handbook_rows("pretrain")
runs = {name: fit(one, documents, tokenizer, steps=numbers.recovery, lr=3e-4, batch=numbers.batch,
                  length=numbers.length, seed=SEED, progress=False, **options)
        for name, one in models.items()}  # fmt: skip
after = {name: plain(one) for name, one in models.items()}
for name, run in runs.items():
    print(f"{name:<8} training loss {run.losses[0]:.2f} to {run.losses[-1]:.2f}, plain English",
          f"{before[name]:.2f} to {after[name]:.2f}, {run.seconds:.0f} s")  # fmt: skip
record(seed=SEED, cosine_of_deltas=between, least_cosine=min(by_tensor.values()), best_scale=best,
       loss=measured, dare={f"{name} {drop}": value for (name, drop), value in left.items()},
       stack_before=before, stack_after=after)  # fmt: skip

# %% tags=["nbval-check-output", "smoke-skip-compare"]
first, last = runs["stacked"].losses[0], runs["stacked"].losses[-1]
print("training brought the stacked model's loss down:", last < first)

# %% [markdown]
# Whether the deeper model gets below the base takes more tokens, tuned rates and seeds (claim merge-stack):

# %% tags=["recorded"]
Markdown("\n".join(merging_report.stack_table()))

# %% tags=["recorded"]
if curves := merging_report.recovery_points():
    (steps, there), (_, here) = (curves[name][-1] for name in ("base", "stacked"))
    title = f"After {steps:,} steps: stacked {here:.3f}, base {there:.3f}"
    fig, axes = plots.figure(title, "steps of continued pre-training", "loss on unseen text (nats per token)")
    for (name, points), style, colour in zip(curves.items(), ("o-", "s--"), plots.COLOURS, strict=False):
        axes.plot(*zip(*points, strict=True), style, color=colour, label=name)
    axes.legend(frameon=False)
    plots.show(fig, f"Line plot of loss over steps, a stack of layers beside the base. {title}.")

# %% [markdown]
# ## Representations side by side
#
# A last way needs no common base: run both models, and put their final hidden states side by side. A linear
# probe reads the intent of a ticket from them. That costs two forward passes, and gives the probe twice the
# inputs, so one control is one model twice:

# %% tags=["recorded"]
Markdown("\n".join(merging_report.probes_table()))

# %% [markdown]
# ## What the field says, measured

# %% tags=["nbval-check-output"]
claims("10")

# %% [markdown]
# ## Take-away
#
# - A finetune is the base plus a short delta. Merge deltas: add, scale, take away.
# - Each method has a scale, a density or a drop rate: choose on validation rows, for all alike, then compare.
# - Finetunes of one base are nearly parallel, so SLERP of them is their average.
# - DARE needs its rescaling; TIES its trimming and its election. Adapters merge exactly by `cat` alone.
# - Count what is kept from the base, task by task. A stack of layers is a start for training, not a model.
#
# **Read:** Wortsman et al., *Model soups* (arXiv 2203.05482). Ilharco et al., *Editing Models with Task
# Arithmetic* (2212.04089). Yadav et al., *TIES-Merging* (2306.01708). Yu et al., *Language Models are Super
# Mario* (2311.03099). Kim et al., *SOLAR 10.7B* (2312.15166). Goddard et al., *Arcee's MergeKit*
# (2403.13257).
#
# **Next:** 13_prompt_rag_or_finetune asks whether to train at all.
