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

# %% tags=["setup"]
import math
from statistics import mean

# %%
import logging

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
from IPython.display import Markdown
from peft.utils import merge_utils

from labkit import (
    budget, check, claims, device, env, fit, load, load_model, load_tokenizer, machine, plots, profile,
    record, seed_everything, solve,
)
from labkit.bench import merging_report
from labkit.bench.lora_jobs import plain_text
from labkit.bench.merging_more import unseen_text
from labkit.methods import merging
from labkit.methods.quantize import relative_error
from labkit.tasks.general import passages
from labkit.tasks.general.likelihood import log_probabilities
from labkit.train.precision import Weights, autocast
from labkit.train.rows import encode_all

# %%
SEED, TASKS = 0, ("tickets", "sql")
numbers = budget(
    cpu=dict(steps=10, rate=3e-4, batch=1, length=352, rows=4, lora=3, recovery=2, passages=2,
             texts=2, drops=(0.9, 0.99)),
    gpu=dict(steps=300, rate=1e-4, batch=8, length=512, rows=300, lora=100, recovery=100, passages=100,
             texts=60, drops=(0.5, 0.8, 0.9, 0.95, 0.99)),
    smoke=dict(steps=2, rate=3e-4, batch=1, length=352, rows=2, lora=1, recovery=1, passages=1,
               texts=1, drops=(0.9,)),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. You average a tickets model and a SQL model, weight by weight. What share of each one's gain over the
#    base is left?
# 2. You drop nine of ten entries of a finetune's delta at random, and multiply the rest by 10. What share of
#    its gain is left?
# 3. SLERP goes from one model to the other along an arc, where an average goes straight. How far apart are
#    the losses of the two merges?
# 4. You stack 22 of a model's 30 layers on 23 of them. Is the loss of the deeper model lower, higher by less
#    than half a nat per token, or by more?
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
           for seed, task in enumerate(TASKS)}
deltas = {task: merging.delta(state, base) for task, state in trained.items()}

# %% [markdown]
# A **state** is a dict of tensors. The delta is τ = θ − θ_base, name by name. How far did training go, and in
# which directions?

# %%
def length(state):
    """The norm of all weights as one long vector; `dot` sums products, in fp64."""
    return math.sqrt(merging.dot(state, state))


def cosine(a, b):
    """The cosine between two states, each as one long vector."""
    return merging.dot(a, b) / length(a) / length(b)


for task in TASKS:
    print(f"{task:<8} the delta is {length(deltas[task]) / length(base):.3%} of the base's length")
between = cosine(*deltas.values())
by_tensor = merging.cosines(*trained.values())
print(f"cosine between the deltas: {between:.3f}")
print(f"cosines between the models' {len(by_tensor)} tensors: {min(by_tensor.values()):.6f} at least,",
      f"{sum(value > 0.9995 for value in by_tensor.values())} of them above 0.9995")

# %% tags=["nbval-check-output"]
print("the models are far nearer to each other than their deltas:", min(by_tensor.values()) > between + 0.1)
print("tied embedding and head are one entry:", "lm_head.weight" not in base, f"{len(base)} tensors")

# %% [markdown]
# As vectors, the two models are almost the same one: a finetune is a short step from where it starts. The two
# steps point in different directions, nearly at right angles, so adding one hardly takes from the other. And
# finetunes of one base mostly lie in one valley of the loss: on the straight line between them it stays low
# (**linear mode connectivity**, Frankle et al. 2020). That is why averages of them work at all.
#
# ## What is held out
#
# **Loss** on held-out answers is quick, so it is measured on every machine. **Exact match** needs answers to
# be generated; the GPU budget does that, and the record.

# %%
def held_out(task, split):
    """Some rows of a split, spread evenly."""
    rows = data[task][split]
    count = min(numbers.rows, len(rows))
    return rows.select([i * len(rows) // count for i in range(count)])


def nats(model, coded):
    """Mean loss in nats of (token ids, first one that counts) pairs, in the precision of generation."""
    precision = env.precision(device())
    with Weights(model, precision), autocast(device().type, precision):    # bf16 for speed where it pays
        found = log_probabilities(model, tokenizer, coded, 32, "loss", progress=False)
    return -mean(value for row in found for value in row)


def loss(model, rows):
    """Mean loss over the answers' tokens: those that `fit` gives the weight 1, where prompts have 0."""
    coded = encode_all(rows, tokenizer, length=512)
    return nats(model, [(one.ids, max(1, one.weights.index(1.0))) for one in coded])


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
# The plainest merge: θ = Σ wᵢ θᵢ, with weights whose sum is 1. Of one task it is a **soup** (Wortsman 2022).
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
# Prove both on real weights, two rows of one matrix: what these functions give, against labkit's and peft's
# `merge_utils`. From here on labkit's merges do it for whole models.

# %%
PLACE = "model.layers.12.mlp.up_proj.weight"                               # (1536, 576)


def piece(state):
    return state[PLACE][:2].flatten().cpu()                                # (1152,)


taus = [piece(deltas[task]) for task in TASKS]
origin, *ends = [{"w": piece(state).tolist()} for state in (base, *trained.values())]


def same(theirs, ours, tolerance=1e-5):                                    # a tensor and a list
    return relative_error(theirs.cpu(), torch.tensor(ours)) < tolerance


# %% tags=["nbval-check-output"]
ours = solve("10.1")(ends, [1, 3])["w"]
for weights in ([0.25, 0.75], [0.75, 0.25]):
    theirs = piece(merging.average(list(trained.values()), weights))
    print(f"10.1 with weights 1 and 3 is labkit's with {weights}: {same(theirs, ours)}")
for scales in ([1.0, 1.0], [0.4, -0.8]):
    moved = torch.tensor(solve("10.2")(origin, ends, scales)["w"]) - torch.tensor(origin["w"])
    theirs = merge_utils.task_arithmetic(taus, torch.tensor(scales))
    print(f"10.2 with scales {scales} is peft's: {same(theirs, moved.tolist(), 1e-4)};",
          f"is the first delta alone: {same(taus[0], moved.tolist(), 1e-4)}")

# %% [markdown]
# One number is free: the scale. Sweep it, the same for both deltas, on validation rows, since you are about
# to choose by them. Scale 0 is the base, 0.5 the average, 1 the whole sum.

# %%
SCALES = (0, 0.3, 0.5, 0.8, 1.0)
sweep = {scale: losses(merging.task_arithmetic(base, list(deltas.values()), scale), "validation")
         for scale in SCALES}
alone = {task: loss(merging.put(model, trained[task]), held_out(task, "validation")) for task in TASKS}
kept = {scale: min((sweep[0][task] - found[task]) / (sweep[0][task] - alone[task]) for task in TASKS)
        for scale, found in sweep.items()}                                 # of the task served worse
best = max(SCALES[1:], key=kept.get)
for scale, found in sweep.items():
    print(f"scale {scale:<4}" + "".join(f"   {task} {found[task]:.3f}" for task in TASKS),
          f"  at least {kept[scale]:.0%} of each gain kept")
print("specialists" + "".join(f"  {task} {alone[task]:.3f}" for task in TASKS))

title = f"Scale {best:g} keeps most of both gains: at least {kept[best]:.0%} of each"
fig, axes = plots.figure(title, "scale of both deltas", "validation loss (nats per answer token)")
for task, style, colour in zip(TASKS, ("o-", "s--"), plots.COLOURS, strict=False):
    axes.plot(SCALES, [sweep[scale][task] for scale in SCALES], style, color=colour, label=f"{task}, merged")
    axes.axhline(alone[task], linestyle=":", color=colour, linewidth=1, label=f"{task}, its specialist")
axes.set_ylim(bottom=0)
axes.legend(frameon=False)
plots.show(fig, f"Line plot of validation loss over the scale of both deltas. {title}.")

# %% [markdown]
# Negation: take tickets away, with scale −1. This base has no skill at tickets to forget, so you walk
# backwards from a skill it never had. What is hurt: tickets, or everything? Compare how far both losses rise.

# %%
def plain(model):
    """Mean loss on plain English that no one trained on."""
    return nats(model, [(tokenizer(text).input_ids[:512], 1) for text in passages()[: numbers.passages]])


english = {"base": plain(merging.put(model, base))}
negated = losses(merging.task_arithmetic(base, [deltas["tickets"]], -1))
english["tickets taken away"] = plain(model)
rises = [negated["tickets"] - measured["base"]["tickets"], english["tickets taken away"] - english["base"]]
print(f"tickets loss: base {measured['base']['tickets']:.3f}, taken away {negated['tickets']:.3f};",
      f"a guess among all tokens alike has {math.log(model.config.vocab_size):.2f}")
print("plain English: " + ", ".join(f"{name} {value:.3f}" for name, value in english.items()))
print(f"the rise on tickets is {rises[0] / rises[1]:.0f} times that on plain English")

# %% [markdown]
# The direction is that of tickets, but a full step along it does more than forget: a loss above the guess is
# worse than chance, and plain English pays, too. Longer training makes a longer delta, and more damage.
# Ilharco et al. look for a scale at which a control task hardly suffers.
#
# ## SLERP
#
# An average of two vectors at right angles is shorter than they are: 0.71 for unit vectors. **SLERP**
# (Shoemake 1985) walks along the arc between them, and keeps the length if both have the same:
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

    v is the angle between a and b, in radians: the cosine is their product over their lengths. Where the size
    of that cosine is above 0.9995, one way or opposite ways, mix linearly: (1 - t) a + t b. a, b: lists of
    float of any length. Returns a new list.
    """
    # BEGIN SOLUTION
    def dot(u, v):
        return sum(x * y for x, y in zip(u, v, strict=True))

    cosine = dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))
    first, second = 1 - t, t
    if abs(cosine) <= 0.9995:
        angle = math.acos(cosine)
        first, second = (math.sin(part * angle) / math.sin(angle) for part in (1 - t, t))
    return [first * x + second * y for x, y in zip(a, b, strict=True)]
    # END SOLUTION


# %%
check("10.3", slerp)

# %% tags=["nbval-check-output"]
half = solve("10.3")([1.0, 0.0], [0.0, 1.0], 0.5)
print(f"right angles: SLERP has length {math.hypot(*half):.2f}, the average {math.hypot(0.5, 0.5):.2f}")
ours = solve("10.3")(taus[0].tolist(), taus[1].tolist(), 0.3)
theirs = merging.slerp({"w": taus[0]}, {"w": taus[1]}, 0.3)["w"]
print("10.3 is labkit's on deltas:", same(theirs, ours),
      "and the straight line:", same(0.7 * taus[0] + 0.3 * taus[1], ours))

# %% [markdown]
# mergekit, the tool most people merge with, is not installed here; labkit's tests hold average, sum, TIES and
# SLERP to what mergekit 0.1.5 wrote, to 1e-6. Above a cosine of 0.9995 its SLERP **is** linear, as those of
# these models are. Take the arc all the same, for every tensor: how far is it from the average?

# %%
straight = merging.average(list(trained.values()))
curved = merging.slerp(*trained.values(), 0.5, parallel=1.0)
apart = length(merging.delta(curved, straight)) / length(merging.delta(straight, base))
print(f"from the average, SLERP's model is {apart:.2%} as far as the base is")
measured |= {"average": losses(straight), "SLERP": losses(curved)}
straight = curved = None                                                   # a gigabyte
gap = max(abs(measured["average"][task] - measured["SLERP"][task]) for task in TASKS)
print(f"the third guess: their losses are at most {gap:.4f} nats per token apart")
angle = math.acos(between)
print(f"SLERP of the deltas, half way: task arithmetic, scale {math.sin(angle / 2) / math.sin(angle):.2f}")

# %% [markdown]
# So SLERP of finetunes is their average, or nearly. SLERP of the deltas is task arithmetic with a scale that
# the angle chooses (tensor by tensor, a scale for each), not you.
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

# %% tags=["nbval-check-output"]
zeros, three = [0.0] * len(taus[0]), [*taus, taus[0] - 2 * taus[1]]        # a third opinion
for density in (0.2, 0.5):
    ours = solve("10.4")(zeros, [tau.tolist() for tau in three], density, 1.0)
    theirs, whole = (merge_utils.ties(three, torch.ones(3), kept) for kept in (density, 0.99))
    print(f"10.4 at density {density} is peft's: {same(theirs, ours)};",
          f"untrimmed is something else: {not same(whole, ours, 0.05)}")

# %% [markdown]
# Deltas nearly at right angles disagree on almost half of all signs, as random ones do: most elections here
# settle noise. Whether trimming or electing earns its place, the record's two controls say.
#
# ## DARE
#
# **DARE** (Yu et al. 2023) does not look: it drops entries at random with probability p, and divides what is
# left by 1 − p, so that every sum over the delta keeps its expected value: dropout for deltas, done once.
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

# %% tags=["nbval-check-output"]
def dared(drop, seed):
    """10.5's change of the tickets piece, by draws that peft would make: 1.0 keeps, 0.0 drops."""
    torch.manual_seed(seed)
    noise = torch.bernoulli(torch.full_like(taus[0], 1 - drop)).tolist()
    return solve("10.5")(zeros, taus[0].tolist(), drop, noise)


for drop in (0.5, 0.9):
    torch.manual_seed(SEED)
    theirs = merge_utils.dare_linear(taus[:1], torch.ones(1), 1 - drop)
    print(f"10.5 at {drop} is peft's with the same draws: {same(theirs, dared(drop, SEED))};",
          f"with others: {same(theirs, dared(drop, SEED + 1))}")
draws = [torch.tensor(dared(0.8, seed)) for seed in range(200)]
along = mean((one @ taus[0] / taus[0].square().sum()).item() for one in draws)
print(f"80% dropped, projection on the delta: {along:.1f} rescaled, {along / 5:.1f} not")

# %% [markdown]
# Now drop more and more of the tickets delta, with and without rescaling, the same entries for both:

# %%
tickets = held_out("tickets", "test")
nothing, whole = measured["base"]["tickets"], measured["tickets specialist"]["tickets"]
left = {}
for drop in numbers.drops:
    tau = merging.delta(merging.dare(base, [deltas["tickets"]], drop, seed=SEED, rescale=False), base)
    for name, factor in (("rescaled", 1 / (1 - drop)), ("not rescaled", 1.0)):
        merging.put(model, merging.task_arithmetic(base, [tau], factor))
        left[name, drop] = loss(model, tickets)
        gain = (nothing - left[name, drop]) / (nothing - whole)
        print(f"drop {drop:<5} {name:<13} loss {left[name, drop]:.3f}, {gain:.0%} of the gain is kept")
gain = (nothing - left["rescaled", 0.9]) / (nothing - whole)
print(f"nothing dropped: {whole:.3f}; the base: {nothing:.3f}")
print(f"the second guess: with nine of ten entries gone, {gain:.0%} of the gain is left")

# %% [markdown]
# The same in right answers, with three seeds (claim merge-dare):

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
def kept_of(scores, name):
    specialists = {task: scores[f"{task} specialist"][task] for task in TASKS}
    shares = solve("10.6")(scores["base"], specialists, scores[name]).items()
    return ", ".join(f"{task} {share:.0%}" for task, share in shares if share is not None)


def table(scores, what):
    """Print {model: {task: number}} and, for merges, what is kept."""
    print(f"{what:<22}" + "".join(f"{task:>10}" for task in TASKS) + "    kept of the gain")
    for name, found in scores.items():
        said = kept_of(scores, name) if name in makers else ""
        print(f"{name:<22}" + "".join(f"{found[task]:>10.3f}" for task in TASKS) + f"    {said}")


both = list(deltas.values())
makers = {
    "average": lambda: merging.average(list(trained.values())),
    "SLERP": lambda: merging.slerp(*trained.values(), 0.5, parallel=1.0),
    f"sum, scale {best:g}": lambda: merging.task_arithmetic(base, both, best),
    "TIES, density 0.5": lambda: merging.ties(base, both, density=0.5),
    "DARE, half dropped": lambda: merging.dare(base, both, 0.5, best, seed=SEED),
}
measured |= {name: losses(make()) for name, make in makers.items() if name not in measured}
table(measured, "loss, test rows")
print("the first guess: of the gain in loss the average keeps", kept_of(measured, "average"))
print(f"{numbers.rows} rows a task. The sum's scale is chosen on validation rows and DARE takes the same;")
print("TIES and the average are as they come")

# %% [markdown]
# A loss can fall far before the first answer is right. On the GPU budget, right answers of the same models:
# the exact object for tickets, a query that returns the right rows for SQL.

# %% tags=["gpu"]
# %%gpu
everyone = {"base": lambda: base, **{f"{task} specialist": lambda task=task: trained[task] for task in TASKS},
            **makers}
rows, right = {task: held_out(task, "test") for task in TASKS}, {}
for name, make in everyone.items():
    found = merging.score_all(merging.put(model, make()), tokenizer, rows, batch_size=300, progress=False)
    right[name] = {task: one.exact for task, one in found.items()}
table(right, "right, test rows")
record(right=right)

# %% [markdown]
# One seed, one setting of each method. The record has three seeds, three tasks, settings chosen on validation
# rows, and what a merge has to be held to: one model trained on both tasks (claim merge-multitask).

# %% tags=["recorded"]
Markdown("\n".join(merging_report.merges_table()))

# %% tags=["recorded"]
Markdown("\n".join([*merging_report.sweep_table(), "", *merging_report.negation_table()]))

# %% [markdown]
# ## Soups: one task, several runs
#
# Train one task with several seeds or learning rates, and average the models instead of throwing all but the
# best away. A **greedy** soup adds a model only if validation rows do not get worse. Judge a soup by its best
# parent, not by their mean (claim merge-soup, of the greedy one; the uniform one takes all).

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
            for seed, task in enumerate(TASKS)}
merging.put(model, base)
served, ones = merging.with_adapters(model, adapters), dict.fromkeys(TASKS, 1.0)
for way in ("cat", "linear"):
    merging.combine(served, ones, way, name=way)

# %% tags=["nbval-check-output"]
for way in ("cat", "linear"):
    error = merging.relative_error(served, ones, way)
    print(f"{way:<7} rank {served.peft_config[way].r}; the sum of both updates to 1e-5: {error < 1e-5};",
          f"off by more than a tenth: {error > 0.1}")
matrix = served.base_model.model.model.layers[12].mlp.up_proj
A, B = ([getattr(matrix, f"lora_{one}")[task].weight.detach() for task in TASKS] for one in "AB")
scaling = matrix.scaling["tickets"]
wrong = matrix.get_delta_weight("linear").detach() - matrix.get_delta_weight("cat").detach()
crossed = scaling * (B[0] @ A[1] + B[1] @ A[0])
print("what linear gets wrong is the cross terms, to 1e-4:", relative_error(crossed, wrong) < 1e-4)

# %% [markdown]
# A third way, `svd`, cuts the sum down to a rank: by default that of one adapter, which cannot hold both;
# with `svd_rank` r₁ + r₂ it is exact, too. What the three do to answers:

# %% tags=["recorded"]
Markdown("\n".join(merging_report.lora_table()))

# %% [markdown]
# ## Stacking layers
#
# **Depth up-scaling** (Kim et al. 2023) makes a model deeper: two copies on one another, the last layers
# of the first and the first layers of the second left out. Here layers 0 to 22, then 8 to 29: 45 from 30.
#
# You will read that SOLAR 10.7B was made by merging up to 16 models. Its paper and model card say otherwise
# of the base: **one** model of 32 layers, Llama 2's architecture with Mistral 7B's weights, stacked to 48
# this way, **and then trained on** (claim merge-solar: source wrong). Finetunes of it are another matter.

# %%
model = merging.put(served.unload().requires_grad_(True), base)            # the base again
trained = deltas = both = tau = adapters = served = base = None            # gigabytes, wanted no more
models = {"base": model, "stacked": merging.stack(model, [*range(23), *range(8, 30)])}
before = {name: plain(one) for name, one in models.items()}
print("plain English, nats per token: " + ", ".join(f"{name} {one:.2f}" for name, one in before.items()))
print(f"the fourth guess: the stack's is {before['stacked'] - before['base']:+.2f}")

# %% tags=["nbval-check-output"]
deeper = models["stacked"]
print(f"{deeper.config.num_hidden_layers} layers, {deeper.num_parameters():,} weights,",
      f"{deeper.num_parameters() / model.num_parameters():.2f} times the base's")
print("right after stacking the loss is higher than the base's:", before["stacked"] > before["base"])

# %% [markdown]
# Layer 8 expects what layer 7 puts out, and gets what layer 22 does. But layers only add to what they get, so
# much of what it looks for is still there. Now continue pre-training on the shop's text, and give the base
# the same tokens: else you would compare training with no training. Judge both by the same held-out text.

# %%
judging = unseen_text("test", {"text": numbers.texts})
unread = {name: loss(one, judging) for name, one in models.items()}
runs = {name: fit(one, plain_text(), tokenizer, steps=numbers.recovery, lr=3e-4, batch=numbers.batch,
                  length=numbers.length, seed=SEED, progress=False, prompt_loss_weight=1.0)
        for name, one in models.items()}
after, read = ({name: measure(one) for name, one in models.items()}
               for measure in (plain, lambda one: loss(one, judging)))
for name, run in runs.items():
    print(f"{name:<8} held-out shop text {unread[name]:.2f} to {read[name]:.2f}, plain English",
          f"{before[name]:.2f} to {after[name]:.2f}, {run.seconds:.0f} s")
record(seed=SEED, cosine_of_deltas=between, least_cosine=min(by_tensor.values()), best_scale=best,
       loss=measured, dare={f"{name} {drop}": value for (name, drop), value in left.items()},
       stack_before=before, stack_after=after, text_before=unread, text_after=read)

# %% [markdown]
# Plain English is in no one's training, so it may rise for both. At equal tokens the stack takes 1.4 times
# the compute. Whether it gets below the base, and below a base of equal compute, takes more tokens, tuned
# rates and seeds (claim merge-stack):

# %% tags=["recorded"]
Markdown("\n".join(merging_report.stack_table()))

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

# %% tags=["nbval-check-output", "recorded"]
claims("10")

# %% [markdown]
# ## Take-away
#
# - A finetune is the base plus a short delta. Merge deltas: add, scale, take away.
# - Each method has a scale, a density or a drop rate: choose on validation rows, for all alike, then compare.
# - Weights of finetunes are nearly parallel, so SLERP of models is their average. Their deltas are not.
# - DARE needs its rescaling. Adapters merge exactly once the rank may be r₁ + r₂: `cat`, or `svd` so wide.
# - Count what is kept from the base, task by task. A stack of layers is a start for training, not a model.
# - Which merge? Begin with the sum of deltas and one scale, chosen on validation rows; take another only if
#   it keeps clearly more there. With both tasks' rows at hand, training on both is what a merge has to match.
#
# **Read:** Wortsman et al., *Model soups* (arXiv 2203.05482). Ilharco et al., *Editing Models with Task
# Arithmetic* (2212.04089). Yadav et al., *TIES-Merging* (2306.01708). Yu et al., *Language Models are Super
# Mario* (2311.03099). Kim et al., *SOLAR 10.7B* (2312.15166). Goddard et al., *MergeKit* (2403.13257).
#
# **Next:** 13_prompt_rag_or_finetune asks whether to train at all.
