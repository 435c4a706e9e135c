# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 03. `python -m labkit build 03` makes both notebooks from this file.

# %% [markdown]
# # 03 · Data: what a model learns from, and what spoils it
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | mask, pack, check, clean, split, label and make training rows | lesson 00 | {{budget}} |
#
# Most of what a finetune can do was decided before training began, by its rows. Here you look at rows as the
# model sees them, mask and pack them as the libraries do, train on clean and on damaged ones, find the
# damaged ones by code, measure annotators and judges, and let a model make rows of its own.
#
# One experiment runs live: clean rows against noisy ones. The others need a GPU and are shown from a record,
# with three seeds and a learning rate tuned for each arm, by the first seed, where the table does not say
# otherwise; where the record is not made yet, the cell says so.

# %%
import copy
import json
import logging
import re
import zlib
from collections import Counter, defaultdict
from itertools import groupby
from random import Random
from statistics import mean, median

import numpy as np
import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
from datasets import disable_progress_bars
from IPython.display import Markdown
from transformers import DataCollatorForLanguageModeling
from trl import SFTConfig, SFTTrainer

from labkit import (
    budget, check, claims, device, fit, generate, load, load_model, load_tokenizer, machine, plots, profile,
    record, score, seed_everything, solve,
)
from labkit.bench import data_report, markdown
from labkit.env import precision
from labkit.methods.lora import adapted
from labkit.tasks import tickets, voice
from labkit.tasks.corrupt import corrupt
from labkit.train.packing import collate, plan
from labkit.train.precision import Weights, autocast
from labkit.train.rows import encode, encode_all

disable_progress_bars()

# %%
SEED = 0
numbers = budget(
    cpu=dict(steps=13, batch=1, length=384, writer_steps=4, rows=16, judged=64, pairs=6, made=4, answer=80),
    gpu=dict(steps=300, batch=8, length=512, writer_steps=150, rows=1000, judged=500, pairs=200, made=250,
             answer=80),
    smoke=dict(steps=1, batch=1, length=256, writer_steps=1, rows=2, judged=4, pairs=2, made=2, answer=4),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict: write your answers down first
#
# 1. A support ticket with its answer is some 100 tokens. What share of them counts in the loss?
# 2. Batches of 32 such rows are padded to the longest of each. What share of the tokens is padding?
# 3. Three of ten training rows are damaged. Is the loss on clean test answers then about the same as after
#    clean rows, 1.2 times that, half as large again, or twice as large and more?
# 4. A piece of code reads messages and answers, and no right answers. What share of the damage does it find?
# 5. The base model judges answers, half of them wrong, with yes or no. How many of 100 verdicts are right?
#
# ## What the model really sees
#
# A row is a list of messages. The **chat template**, a small program that comes with the tokenizer, turns it
# into one text with markers. That text, as token ids, is all that the model ever sees.

# %% tags=["nbval-check-output"]
tokenizer = load_tokenizer()
data = load("tickets")
ticket = data["train"][2]
chat = ticket["prompt"] + ticket["completion"]                              # system, user, assistant
print(tokenizer.apply_chat_template(chat, tokenize=False))
print(tokenizer.apply_chat_template(chat[1:], tokenize=False)[:110])        # without our system message

# %% [markdown]
# A template is not neutral: where a row has no system message, this one puts in its own. A model that was
# trained with one and is asked without it has never seen such a prompt.
#
# ## Build: the loss mask
#
# The model predicts each next token, and the loss is the mean of -log p over the tokens that **count**: those
# of the assistant, the end token included. Which tokens are the assistant's? Those by which the text grows
# when an assistant's message is added, after the words that ask for one.

# %%
def mask(messages):
    """Token ids of a chat, and labels: the id where the loss is taken, -100 elsewhere."""
    def ids_of(count, ask=False):
        return tokenizer.apply_chat_template(messages[:count], add_generation_prompt=ask, return_dict=False)

    ids = ids_of(len(messages))
    labels = [-100] * len(ids)
    for number, message in enumerate(messages):
        if message["role"] == "assistant":
            start, end = len(ids_of(number, ask=True)), len(ids_of(number + 1))
            labels[start:end] = ids[start:end]
    return ids, labels


def nll(model, ids, labels):
    """-log p of each token that counts, given the tokens before it."""
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=model.device)).logits[0, :-1].float()  # t predicts t + 1
    targets = torch.tensor(labels[1:], device=model.device)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")[targets != -100]


def marked(ids, labels):
    """The text of a row; what counts in the loss stands between « and »."""
    parts = []
    for counts, run in groupby(zip(ids, labels, strict=True), key=lambda pair: pair[1] != -100):
        text = tokenizer.decode([token for token, _ in run])
        parts.append(f"«{text}»" if counts else text)
    return "".join(parts)


# %% tags=["nbval-check-output"]
ids, labels = mask(chat)
print(marked(ids, labels))
encoded = encode_all(data["train"], tokenizer, 512)
counting = mean(sum(one.weights) / len(one) for one in encoded)
print(f"Guess 1: {counting:.0%} of the tokens count, on average over {len(encoded):,} training rows")

# %% [markdown]
# Look at the end. The template closes a turn with `<|im_end|>` and a line break, and both count. Generation
# stops at `<|im_end|>`; the line break behind it is learned and never written.
#
# In a conversation of several turns every assistant's turn counts, and the customer's do not. But `fit` and
# trl take all of a `completion` as the answer: make one row for each assistant's turn.

# %% tags=["nbval-check-output"]
talk = [{"role": role, "content": content} for role, content in (
    ("system", "You help customers."), ("user", "I need an invoice."), ("assistant", "For which order?"),
    ("user", "N48213."), ("assistant", "It is on its way."))]
ids, labels = mask(talk)
print(marked(ids, labels))
joined = encode({"prompt": talk[:2], "completion": talk[2:]}, tokenizer)    # what not to do
print("tokens that count: by the mask", sum(label != -100 for label in labels),
      " by a completion of three turns", int(sum(joined.weights)))

# %% [markdown]
# ## Tool calls
#
# A model may also answer with a call of a function, a **tool**. `tools` describe the functions, `tool_calls`
# hold the call, a message of the role `tool` its result. Does this template know them?

# %% tags=["nbval-check-output"]
called = {"name": "find_order", "arguments": {"order": "N48213"}}
tools = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
ask = [{"role": "system", "content": "You help customers."}, {"role": "user", "content": "Where is N48213?"}]
call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": called}]}
plain = tokenizer.apply_chat_template(ask, tokenize=False)
print("tools change the text:", tokenizer.apply_chat_template(ask, tools=tools, tokenize=False) != plain)
print(marked(*mask([*ask, call])))

# %% [markdown]
# It does not, and says nothing: tools and call are gone, and these rows would teach the model to answer
# nothing. No library warns, for an empty turn is valid. **Read the text of your rows.** With such a template,
# write tools and call as text into the contents, and give results a role that is not the assistant's.
#
# ## Exercise 03.1: labels, and the stop token
#
# {{exercise:03.1}}
#
# Rows of a batch are padded to one length, and here, as in many tokenizers, the token that pads is the one
# that ends an answer. If end tokens are masked along with the padding, these rows do not teach the model to
# stop. (The line break is left out here.)
#
# {{hint:03.1}}

# %% tags=["exercise"]
def padded_labels(prompt, answer, length, pad):
    """Token ids and labels of one training row, padded on the right to `length` tokens.

    prompt, answer: lists of int; the answer ends with the end token, whose id is `pad` too. A label is the
    token's own id where the loss is taken (on the whole answer) and -100 elsewhere. The model compares
    position t with label t + 1 by itself. Returns (ids, labels), a tuple of two lists of `length` int.
    """
    # BEGIN SOLUTION
    room = length - len(prompt) - len(answer)
    return prompt + answer + [pad] * room, [-100] * len(prompt) + answer + [-100] * room
    # END SOLUTION


# %%
check("03.1", padded_labels)

# %% tags=["nbval-check-output"]
# The trap is real: transformers' own collator for language modelling masks by id.
ids, labels = mask(chat)
by_id = DataCollatorForLanguageModeling(tokenizer, mlm=False)([{"input_ids": ids}])["labels"][0].tolist()
end = tokenizer.eos_token_id                                                # the pad token, too
print("end tokens in the row:", ids.count(end), " with a label: by the collator", by_id.count(end),
      "by the mask", labels.count(end))

# %% [markdown]
# ## Prove it: `fit` and trl
#
# Four short rows, their labels, and the loss of the untrained base on them: by hand, by `fit` (a step at rate
# 0) and by trl. To be quick, `fit` trains only the last norm here.

# %%
base = load_model(on=torch.device("cpu"))
four = data["train"].select([2, 8, 15, 25]).select_columns(["prompt", "completion"])
settings = SFTConfig(output_dir="out/trl", use_cpu=True, bf16=False, per_device_train_batch_size=4,
                     report_to="none", disable_tqdm=True)
trainer = SFTTrainer(copy.deepcopy(base), settings, train_dataset=four, processing_class=tokenizer)
base.requires_grad_(False)
base.model.norm.requires_grad_(True)


def first_loss(**options):
    """What `fit` reports for its first step over the four rows, in fp32; nothing moves at rate 0."""
    return fit(base, four, tokenizer, steps=1, lr=0.0, batch=4, pack=False, precision="fp32", progress=False,
               **options).losses[0]


# %% tags=["nbval-check-output"]
ours = [mask(row["prompt"] + row["completion"]) for row in four]
by_library = [(list(row["input_ids"]), list(row["labels"])) for row in trainer.train_dataset]
print("ids and labels equal trl's:", ours == by_library)
by_hand = torch.cat([nll(base, *row) for row in ours]).mean().item()
with torch.no_grad():
    by_trl = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset))).item()
print("loss equals that of fit to 1e-4:", abs(by_hand - first_loss()) < 1e-4)
print("loss equals that of trl to 1e-4:", abs(by_hand - by_trl) < 1e-4)
everything = torch.cat([nll(base, ids, ids) for ids, _ in ours]).mean().item()
print("and not the loss over all tokens:", abs(by_hand - everything) > 0.1)

# %% [markdown]
# ## A little loss on the prompt
#
# Prompt tokens may count with a weight w between 0 and 1, as a kind of regularisation. The loss is then Σ
# weight · (-log p) / Σ weight, with weight 1 on the answer and w on the prompt.
#
# ## Exercise 03.2: a weight for the prompt
#
# {{exercise:03.2}}
#
# {{hint:03.2}}

# %% tags=["exercise"]
def prompt_weighted(nll, is_answer, weight):
    """The loss of a row whose answer tokens weigh 1 and whose prompt tokens weigh `weight`.

    nll: list of float, -log p of each token; is_answer: list of bool, as long. The weighted mean: with weight
    0 it is the mean over the answer, with weight 1 the mean over all. Returns a float.
    """
    # BEGIN SOLUTION
    weights = [1.0 if answer else weight for answer in is_answer]
    return sum(w * value for w, value in zip(weights, nll, strict=True)) / sum(weights)
    # END SOLUTION


# %%
check("03.2", prompt_weighted)

# %% tags=["nbval-check-output"]
each = torch.cat([nll(base, ids, ids) for ids, _ in ours]).tolist()         # all but each row's first token
answers = [label != -100 for _, labels in ours for label in labels[1:]]
part = sum(answers) / sum(1 if answer else 0.1 for answer in answers)
print(f"where the prompt weighs 0.1, answers have {part:.0%} of the weight, not {mean(answers):.0%}")
same = abs(solve("03.2")(each, answers, 0.1) - first_loss(prompt_loss_weight=0.1)) < 1e-4
print("that loss equals that of fit to 1e-4:", same)

# %% [markdown]
# Does it help? From the record, not live; with the speed of packed and padded batches, for the next section.

# %% tags=["recorded"]
Markdown("\n".join(data_report.mask_table()))

# %% [markdown]
# ## Pack or pad
#
# A batch is a rectangle, and rows differ in length. **Padding** fills the rest with tokens that are computed
# and thrown away. **Packing** puts several rows into one line. How much is padding, on real rows?

# %% tags=["nbval-check-output"]
lengths = [len(one) for one in encoded]
batches = [lengths[i : i + 32] for i in range(0, len(lengths), 32)]
padding = 1 - sum(lengths) / sum(len(batch) * max(batch) for batch in batches)
steps = plan(lengths, batch=8, length=512, seed=SEED)
filled = [next(steps) for _ in range(100)]
room = 1 - sum(lengths[n] for bins in filled for one in bins for n in one) / (len(filled) * 8 * 512)
print(f"rows of {min(lengths)} to {max(lengths)} tokens, {mean(lengths):.0f} on average")
print(f"Guess 2: {padding:.0%} of 32 rows padded to the longest is padding")
print(f"packed into 8 lines of 512: {room:.1%} empty, {mean(len(sum(bins, [])) for bins in filled):.0f} rows")

# %% [markdown]
# These rows are much alike. With lengths from 20 to 2,000 most of a batch is padding. Sorting by length
# avoids it too, but then like rows always come together. Packed rows must not see each other: that takes a
# mask in blocks.
#
# ## Exercise 03.3: packed rows that do not see each other
#
# {{exercise:03.3}}
#
# {{hint:03.3}}

# %% tags=["exercise"]
def packed(lengths):
    """What a token of a packed row may look at, and its position.

    lengths: list of int, the tokens of each row, side by side in this order. Returns (mask, positions):
    mask[i][j] is True if token i may look at token j (itself, and earlier tokens of its own row); positions
    count from 0 in every row.
    """
    # BEGIN SOLUTION
    row = [number for number, length in enumerate(lengths) for _ in range(length)]
    mask = [[row[i] == row[j] and j <= i for j in range(len(row))] for i in range(len(row))]
    return mask, [inside for length in lengths for inside in range(length)]
    # END SOLUTION


# %%
check("03.3", packed)

# %% tags=["nbval-check-output"]
three = encoded[:3]
batch = collate(three, [[0, 1, 2]], sum(map(len, three)))
seen, positions = solve("03.3")([len(one) for one in three])
print("the mask of fit is equal:", batch.mask()[0, 0].tolist() == seen)
print("its positions are equal:", batch.positions[0].tolist() == positions)

# %% [markdown]
# If the mask is right, packing changes nothing but speed: the loss of packed rows is that of single ones. And
# with the usual mask, where a token sees all before it?

# %% tags=["nbval-check-output"]
def packed_loss(mask, positions):
    """Loss of the three packed rows under a mask and with positions."""
    with torch.no_grad():
        logits = base(input_ids=batch.ids, attention_mask=mask, position_ids=positions).logits[0]
    each = torch.nn.functional.cross_entropy(logits, batch.targets[0], reduction="none")
    return ((each * batch.weights[0]).sum() / batch.weights.sum()).item()


single = torch.cat([nll(base, *mask(data["train"][i]["prompt"] + data["train"][i]["completion"]))
                    for i in range(3)]).mean().item()
causal = torch.ones(batch.mask().shape, dtype=torch.bool).tril()
running = torch.arange(batch.ids.shape[1])[None]
apart = packed_loss(batch.mask(), batch.positions)
print("packed and single rows have one loss, to 1e-4:", abs(apart - single) < 1e-4)
print("rows that see each other have a lower one:", packed_loss(causal, running) < single - 1e-2)
print("positions that run on change it, to 1e-4:", abs(packed_loss(batch.mask(), running) - single) > 1e-4)

# %% [markdown]
# Rows that see each other have a *lower* loss, for neighbours work as examples of the task. So this bug looks
# like progress, until the model is asked about one message alone. And positions that run on? Rotary ones
# enter by distance only, which inside a row stays the same. Pass them anyway: other models need them, and
# libraries that attend without a mask find the rows by where they start again.
#
# ## Train: clean rows against noisy ones
#
# This is live. `corrupt` damages three of ten training rows: another row's answer, one wrong field, an answer
# cut short, or one about something else. Rate, steps, adapter and seed are the same.

# %% tags=["nbval-check-output"]
clean = data["train"]
noisy = corrupt(clean, 0.3, SEED, task="tickets")
test = data["test"].select([i * len(data["test"]) // numbers.rows for i in range(numbers.rows)])
options = dict(steps=numbers.steps, batch=numbers.batch, length=numbers.length, lr=3e-3, seed=SEED)
on_device = copy.deepcopy(base).to(device())
print(Counter(noisy["damage"]).most_common())
damaged = noisy[noisy["damage"].index("wrong_field")]
print(damaged["message"], damaged["completion"][0]["content"], "the gold: " + damaged["answer"], sep="\n")


# %%
def train(examples, **more):
    """(model, Run) of a fresh LoRA adapter of rank 16, trained on examples."""
    seed_everything(SEED)
    model = adapted(copy.deepcopy(on_device), 16)
    return model, fit(model, examples, tokenizer, **{**options, **more})


models, runs, exact = {}, {}, {}
for name, examples in {"clean": clean, "noisy": noisy}.items():
    models[name], runs[name] = train(examples, validation=test, validate_every=numbers.steps)
    print(f"{name}: {runs[name]}")

# %%
losses = {name: run.validation[-1][1] for name, run in runs.items()}         # after the last step
ends = {name: mean(run.losses[-max(1, numbers.steps // 3):]) for name, run in runs.items()}
for name in runs:
    print(f"{name}: loss {ends[name]:.3f} in the last third of training, {losses[name]:.3f} on test rows")
print(f"Guess 3: after noisy rows the test loss is {losses['noisy'] / losses['clean']:.2f} times as high")

# %%
title = (f"Clean, noisy: training loss {ends['clean']:.2g}, {ends['noisy']:.2g} at the end; "
         f"test loss {losses['clean']:.2g}, {losses['noisy']:.2g}")
fig, axes = plots.figure(title, "step", "loss per answer token (nats)")
for (name, run), style, marker, colour in zip(runs.items(), ("-", "--"), "os", plots.COLOURS, strict=False):
    axes.plot(range(1, run.steps + 1), run.losses, style, color=colour, label=f"training, {name} rows")
    axes.plot([run.steps], [losses[name]], marker, color=colour, label=f"clean test rows, after {name} ones")
axes.set_ylim(bottom=0)
axes.legend(frameon=False)
plots.show(fig, f"Two training losses as lines, two test losses as points. {title}.")

# %% [markdown]
# Do not read the damage off the training loss: noisy rows cannot be predicted, so theirs is high. On the CPU
# budget a run sees under 60 rows, with one seed, and is still learning the form: its ratio is a sketch. And
# loss and answers are two questions: a model that has seen noise spreads its probability, which the loss
# notices at once, while the likeliest answer may still be right. The record has exact match.
#
# The same two runs as the field writes them; about 39 rows fill a step of the GPU budget:

# %% tags=["gpu"]
# %%gpu
from peft import LoraConfig
from transformers import PrinterCallback

lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
asked = SFTConfig(
    output_dir="out/trl", max_steps=numbers.steps, per_device_train_batch_size=39, learning_rate=3e-3,
    warmup_steps=numbers.steps // 10, lr_scheduler_type="linear", bf16=True, gradient_checkpointing=False,
    max_length=512, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
    seed=SEED,
)
for name, some in {"clean": clean, "noisy": noisy}.items():
    by_trl = SFTTrainer(load_model(), asked, train_dataset=some.select_columns(["prompt", "completion"]),
                        peft_config=lora, processing_class=tokenizer)
    by_trl.remove_callback(PrinterCallback)
    by_trl.train()
    found = score(by_trl.model, tokenizer, test, batch_size=250, progress=False)
    print(f"{name}, by trl: {found.exact:.1%} exact")

# %% [markdown]
# ## The record: which rows, and how many
#
# From here to the next heading of this size nothing runs live. All arms of a table take equal steps where no
# column says otherwise: 125 rows are then seen 32 times as often as 4,000.
#
# ### 1,000 clean rows, or 10,000 noisy ones?
#
# Two things are mixed up here, so they are taken apart: right answers, and how many ways of saying things the
# rows have (claim data-quality). And how much noise may 10,000 rows have?

# %% tags=["recorded"]
Markdown("\n".join([*data_report.quality_table(), "", *data_report.noise_table()]))

# %%
if measured := markdown.values("data"):
    percents, flip = sorted(map(int, measured["noise"])), measured["flips at"]
    title = f"10,000 rows stay above 1,000 clean ones up to {max(percents)}% damage, by means of seeds"
    if flip is not None:
        title = f"10,000 rows fall below 1,000 clean ones at {flip:.0%} damage, by means of seeds"
    by_seed = [[100 * share for share in measured["noise"][str(one)]] for one in percents]
    few = 100 * mean(measured["quality"]["clean diverse 1k"])
    fig, axes = plots.figure(title, "damaged rows (%)", "exact match on test (%)")
    names = ["10,000 rows, by seed", *["_"] * (len(by_seed[0]) - 1)]          # one line of the legend
    axes.plot(percents, by_seed, "o-", color=plots.COLOURS[0], label=names)
    axes.axhline(few, linestyle="--", color=plots.COLOURS[1], label="1,000 clean rows, mean")
    axes.legend(frameon=False)
    said = ", ".join(f"{percent}% {mean(each):.0f}" for percent, each in zip(percents, by_seed, strict=True))
    plots.show(fig, f"Exact match, mean of seeds, by damage: {said}; dashed, 1,000 clean rows: {few:.0f}.")

# %% [markdown]
# ### How many rows, and only of the task?
#
# Rows of other tasks are said to hurt, and sometimes to help (data-mix). In equal steps a mix sees the task
# less often, which alone may cost; so it is also given the steps to see it as often. A pilot of 50 rows
# should tell whether a task is worth a thousand (data-pilot). That is a test only if it can also say no, so
# one of its two tasks cannot be learned from its rows. Then, what does each doubling bring (data-returns),
# and does little data favour LoRA, much data full finetuning (data-crossover)?

# %% tags=["recorded"]
tables = (data_report.mix_table, data_report.pilot_table, data_report.returns_table)
Markdown("\n\n".join("\n".join(table()) for table in tables))

# %%
if measured:
    curves = {"LoRA r=16": measured["returns"]["lora"], "full": measured["returns"]["full"]}
    sizes = sorted(map(int, curves["full"]))
    said = "; ".join(f"{name} {mean(curve[str(sizes[0])]):.0%} and {mean(curve[str(sizes[-1])]):.0%}"
                     for name, curve in curves.items())
    title = f"With {sizes[0]} and {sizes[-1]:,} rows: {said}"

# %%
if measured:
    fig, axes = plots.figure(title, "training rows (logarithmic)", "exact match on test (%)")
    for (name, curve), style, colour in zip(curves.items(), ("o-", "s--"), plots.COLOURS, strict=False):
        axes.plot(sizes, [100 * mean(curve[str(n)]) for n in sizes], style, color=colour, label=name)
        axes.plot([n for n in sizes for _ in curve[str(n)]],
                  [100 * one for n in sizes for one in curve[str(n)]], style[0], color=colour, alpha=0.3)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{n:,}" for n in sizes])
    axes.minorticks_off()
    axes.legend(frameon=False)
    plots.show(fig, f"Line plot of exact match over training rows, seeds as pale points. {title}.")

# %% [markdown]
# The pilots of 50 rows are not tuned: they take the learning rate of those of 100.
#
# ### Does it help to show the working?
#
# Rows may write the steps out before the answer (data-cot). Longer answers also give the model more tokens to
# compute in, so a control writes as many dots instead.

# %% tags=["recorded"]
Markdown("\n".join(data_report.cot_table()))

# %% [markdown]
# ### What else do rows teach?
#
# **Bias**: after "The plumber said that", how much likelier is *he* than *she*? Measured on jobs and
# sentences that no training row has, before and after training on curated rows (data-bias). **Collapse**:
# each generation is trained on what the one before wrote, and its loss is taken on real passages
# (data-collapse).

# %% tags=["recorded"]
Markdown("\n".join([*data_report.bias_table(), "", *data_report.collapse_table()]))

# %% [markdown]
# In each of these two tables one learning rate serves all arms: that of the counterfactual rows in the first,
# the best one for real passages in the second. Here the record ends.
#
# ## Find duplicates and leaks
#
# A test row that stands in training as well, word for word or nearly, is no test. How alike are two texts?
# Take the sets of their short word sequences, **shingles**, and compare the sets by their Jaccard similarity:
# what they share, over all that they have.
#
# ## Exercise 03.4: near duplicates across splits
#
# {{exercise:03.4}}
#
# {{hint:03.4}}

# %% tags=["exercise"]
def leaked(train, test, limit):
    """Places in `test` of texts that stand in `train` too, nearly.

    train, test: lists of str. A text is the set of its pairs of neighbouring words, in lower case. Near are
    two texts whose sets reach the Jaccard similarity |A and B| / |A or B| >= limit. Returns the places in
    test, ascending, as a list of int.
    """
    # BEGIN SOLUTION
    def pairs(text):
        words = text.lower().split()
        return set(zip(words, words[1:], strict=False))

    known = [pairs(text) for text in train]
    return [place for place, own in enumerate(map(pairs, test))
            if any(len(own & other) / len(own | other) >= limit for other in known)]
    # END SOLUTION


# %%
check("03.4", leaked)

# %% [markdown]
# That compares all with all: 4,000 by 5,000 texts are 20 million pairs, and a web corpus would never end.
# **MinHash** gives every text a short signature instead. Hash all shingles and keep the smallest hash: two
# texts have the same smallest one with a probability that is their Jaccard similarity J. Take 128 hash
# functions. Texts that agree in a whole **band** of four numbers land in one bucket, and only those are
# compared: a pair meets in one of the 32 bands with probability 1 - (1 - J⁴)³².
#
# To try it, copies of test messages are planted in training, 100 each with 0, 1, 3 and 8 words replaced. How
# many are found at which limit, and how many others are flagged?

# %%
HASHES, BAND, PRIME = 128, 4, 2**31 - 1
FACTORS, TERMS = np.random.default_rng(SEED).integers(1, PRIME, (2, HASHES))


def shingles(text, size=3):
    """The word sequences of a text, in lower case and with every digit made 0."""
    words = re.findall(r"[a-z]+|0", re.sub("[0-9]", "0", text.lower()))
    return {" ".join(words[i : i + size]) for i in range(max(1, len(words) - size + 1))}


def signature(pieces):
    """(HASHES,) smallest values of as many hash functions over the shingles of a text."""
    codes = np.array([zlib.crc32(piece.encode()) % PRIME for piece in pieces])
    return ((codes[:, None] * FACTORS + TERMS) % PRIME).min(axis=0)


def near(train, test):
    """{(place in train, place in test): Jaccard similarity} of texts that share a bucket."""
    pieces = [[shingles(text) for text in texts] for texts in (train, test)]
    buckets = defaultdict(lambda: ([], []))
    for side in (0, 1):
        for place, one in enumerate(pieces[side]):
            for start, band in enumerate(signature(one).reshape(-1, BAND)):
                buckets[start, band.tobytes()][side].append(place)
    met = {(i, j) for left, right in buckets.values() for i in left for j in right}
    return {(i, j): len(pieces[0][i] & pieces[1][j]) / len(pieces[0][i] | pieces[1][j]) for i, j in met}


# %% tags=["nbval-check-output"]
asked, messages = list(data["test"]["message"][:2000]), list(data["train"]["message"])
pool, dice = " ".join(messages).split(), Random(SEED)


def replaced(text, count):
    """A text with `count` of its words replaced by words of training messages."""
    words = text.split()
    for place in dice.sample(range(len(words)), min(count, len(words))):
        words[place] = dice.choice(pool)
    return " ".join(words)


copies = [replaced(text, (0, 1, 3, 8)[place // 100]) for place, text in enumerate(asked[:400])]
pairs = near(messages + copies, asked)
print(f"{len(pairs):,} of {len(messages + copies) * len(asked):,} pairs share a bucket and are compared")
print("words replaced      0    1    3    8   others flagged   chance of a shared bucket")
for limit in (1.0, 0.8, 0.6, 0.5):
    alike = {i - len(messages) for (i, _), similarity in pairs.items() if similarity >= limit}
    hits = [sum(100 * kind <= i < 100 * kind + 100 for i in alike) for kind in range(4)]
    print(f"limit {limit:<9}", *(f"{one:4}" for one in hits), f"{sum(i < 0 for i in alike):16}",
          f"{1 - (1 - limit**BAND) ** (HASHES // BAND):27.0%}")

# %% [markdown]
# One changed word breaks three shingles of some twenty, so a strict limit misses it, and no sensible limit
# finds a copy with eight. A low limit costs twice: honest rows that merely sound alike are thrown away, and
# the bands let few pairs through (23% at 0.3). For low limits take shorter bands.
#
# Where do such pairs come from in real work? From a split by row. These messages were made from sentence
# templates, as real rows are often paraphrases of a few sources: a random split puts one sentence on both
# sides.
#
# ## Exercise 03.5: split by group
#
# {{exercise:03.5}}
#
# {{hint:03.5}}

# %% tags=["exercise"]
def split_by_group(groups, order, least):
    """Split rows so that no group is on both sides: paraphrases of one sentence belong together.

    groups: list of str, the group of each row; order: list of str, each group once. Test takes whole groups
    in this order until it has at least `least` rows. Returns (train, test), a tuple of two lists of places
    in groups, ascending.
    """
    # BEGIN SOLUTION
    held = set()
    for name in order:
        if sum(group in held for group in groups) >= least:
            break
        held.add(name)
    places = range(len(groups))
    return [i for i in places if groups[i] not in held], [i for i in places if groups[i] in held]
    # END SOLUTION


# %%
check("03.5", split_by_group)

# %% tags=["nbval-check-output"]
groups = data["train"]["phrasing"]
by_name = sorted(set(groups))
drawn = Random(SEED).sample(range(len(groups)), len(groups))
shuffled = Random(SEED).sample(by_name, len(by_name))
splits = {"by row": (drawn[400:], drawn[:400]), "by group, alphabetical": solve("03.5")(groups, by_name, 400),
          "by group, shuffled": solve("03.5")(groups, shuffled, 400)}
for name, (seen, held) in splits.items():
    pairs = near([messages[i] for i in seen], [messages[i] for i in held])
    double = len({j for (_, j), similarity in pairs.items() if similarity >= 0.6})
    known = {groups[i] for i in seen}
    intents = {json.loads(data["train"]["answer"][i])["intent"] for i in held}
    print(f"{name:<23} {len(held)} rows of {len(intents):2} intents held out; template in training:",
          f"{sum(groups[i] in known for i in held)}, near duplicate at 0.6: {double}")

# %% [markdown]
# Look at what is held out. Names begin with the intent here, so alphabetical order holds out cancellations
# and nothing else: shuffle the groups, with a seed.
#
# And look at the first line. Every row of that test has its template in training, but by its text hardly one
# in twenty is near a training row. MinHash does not find this leak; **provenance** does, knowing where each
# row came from. A score on that split says how well a model has learned these sentences, one on the last
# split how well it takes new ones. The course's test split is of the last kind.
#
# There is one more leak that no comparison of texts finds: choosing. Whoever tries ten settings and reports
# the best of ten test scores has trained on the test split, by hand.
#
# ## Exercise 03.6: choose on validation, report test
#
# {{exercise:03.6}}
#
# {{hint:03.6}}

# %% tags=["exercise"]
def reported(runs):
    """The test score to report: that of the learning rate which is best on validation.

    runs: list of dict with "rate" (float), "seed" (int), "validation" and "test" (scores, higher is better);
    every rate was run with the same seeds. The best rate is the one with the highest mean validation score
    over seeds. Returns the mean test score of that rate's runs, a float.
    """
    # BEGIN SOLUTION
    def average(name, rate):
        found = [run[name] for run in runs if run["rate"] == rate]
        return sum(found) / len(found)

    best = max({run["rate"] for run in runs}, key=lambda rate: average("validation", rate))
    return average("test", best)
    # END SOLUTION


# %%
check("03.6", reported)

# %% [markdown]
# ## Find bad rows by code
#
# Which rows are damaged? You need no right answers to find out, only rules that every right answer keeps. Its
# values must stand in the message, and what is missing must be what the intent needs and the answer does not
# give.

# %%
NUMBERS = "zero one two|pair|couple three four five six seven eight nine ten eleven twelve|dozen".split()
NUMBERS[6] += "|half a dozen"
MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()


def stands(key, value, text):
    """Does the value of a field stand in a message, in any of the ways to write it?"""
    if key == "order":
        return value[1:] in text
    if key == "product":                       # one word of it: customers shorten names, and misspell them
        return any(word in text for word in value.lower().split())
    if key == "quantity":
        said = NUMBERS[value] if value < len(NUMBERS) else value
        return bool(re.search(rf"\b({value}|{said})\b", text))
    month, day = map(int, value.split("-"))
    return bool(re.search(rf"\b0?{day}(st|nd|rd|th)?\b", text)
                and re.search(rf"{MONTHS[month - 1]}|\b0?{month}\b", text))


def faults(message, answer):
    """What is wrong with an answer, by rules alone: a list of names, empty if nothing was found."""
    form, text = tickets.parse(answer), message.lower()
    if form is None:
        return ["form"]
    found = [key for key in ("product", "order", "quantity", "date")
             if key in form and not stands(key, form[key], text)]
    lacking = [key for key in tickets.NEEDS[form["intent"]] if key not in form]
    return found + ["missing"] * (form["missing"] != lacking)


def flags(part):
    """The faults of each row's answer."""
    return [faults(row["message"], row["completion"][0]["content"]) for row in part]


# %% [markdown]
# Rules have faults too: read what they flag before you drop it. A first draft of these, tried on training
# rows, did not know "half a dozen", and a model trained on what it kept would not have either. It was mended
# with a look at which training rows are clean. So judge it on other rows: damaged test rows, which played no
# part.

# %% tags=["nbval-check-output"]
unseen = corrupt(data["test"], 0.3, SEED, task="tickets")
verdict = list(zip(unseen["damage"], flags(unseen), strict=True))
print("            no JSON of the form   by the rules   neither")
for kind in ("", "truncated", "off_topic", "wrong_label", "wrong_field"):
    found = ["form" if one == ["form"] else "rules" if one else "" for fault, one in verdict if fault == kind]
    print(f"{kind or 'clean':<12}{found.count('form'):19}{found.count('rules'):15}{found.count(''):10}")
spoiled = [one for fault, one in verdict if fault]
print(f"Guess 4: {mean(bool(one) for one in spoiled):.0%} of the damage is found;",
      f"{mean(bool(one) for one in spoiled if one != ['form']):.0%} of the damage that parses")

# %% [markdown]
# Half of the damage does not even parse, which is the easy part. What is left are wrong intents and
# urgencies, and facts left out: no rule says what a message means. That takes people, in the next section.
# Does it help to drop what the rules flag? On the GPU budget, the same training once more, and exact match:

# %% tags=["gpu"]
# %%gpu
kept = noisy.select([i for i, found in enumerate(flags(noisy)) if not found])
models["kept"], runs["kept"] = train(kept, validation=test, validate_every=numbers.steps)
for name, model in models.items():
    exact[name] = score(model, tokenizer, test, batch_size=128, progress=False).exact
    print(f"{name}: {exact[name]:.1%} exact, test loss {runs[name].validation[-1][1]:.3f}")

# %% [markdown]
# ## Two annotators
#
# Where do two careful people disagree? Where the instruction leaves room: is a message that names a day
# urgent? Two annotators are simulated on real rows. Both read the message as the gold answer does, and slip
# in 3 of 100 rows. The second also takes every named day for a deadline. Then the guideline gets one more
# sentence, and is followed.
#
# The share of equal labels says little: if most messages are normal, two people who never read them agree
# often. **Cohen's kappa** takes chance away: (agreement - chance) / (1 - chance).
#
# ## Exercise 03.7: agreement beyond chance
#
# {{exercise:03.7}}
#
# {{hint:03.7}}

# %% tags=["exercise"]
def kappa(first, second):
    """Cohen's kappa of two annotators: (agreement - chance) / (1 - chance).

    first, second: lists of labels (str) of the same rows. `agreement` is the share of rows with equal labels;
    `chance` is what two annotators would reach who drew labels at random, each with their own shares.
    Returns a float; chance is below 1.
    """
    # BEGIN SOLUTION
    size = len(first)
    agreement = sum(a == b for a, b in zip(first, second, strict=True)) / size
    chance = sum(first.count(label) * second.count(label) for label in set(first)) / size**2
    return (agreement - chance) / (1 - chance)
    # END SOLUTION


# %%
check("03.7", kappa)

# %% tags=["nbval-check-output"]
def annotate(row, seed, dates_are_urgent):
    """One annotator's label of a message's urgency."""
    gold, dice = json.loads(row["answer"]), Random(f"{seed}/{row['id']}")
    if dice.random() < 0.03:
        return dice.choice([level for level in ("low", "normal", "high") if level != gold["urgency"]])
    return "high" if dates_are_urgent and "date" in gold and gold["urgency"] == "normal" else gold["urgency"]


anna = [annotate(row, "one", False) for row in data["validation"]]
for guideline, deadline in (("say how urgent it is", True), ("... a date alone makes nothing urgent", False)):
    ben = [annotate(row, "two", deadline) for row in data["validation"]]
    agreed = mean(a == b for a, b in zip(anna, ben, strict=True))
    print(f"{guideline:<38} agreement {agreed:.0%}, kappa {solve('03.7')(anna, ben):.2f}")

# %% [markdown]
# In this simulation one sentence was all that lacked. When kappa is low, read the rows on which people
# disagree, and write down what they did not know.
#
# ## A model as judge
#
# The base sees message and answer of tickets, half of them damaged; whichever of " yes" and " no" is likelier
# counts. An executable judge compares with the gold answer. This is live.

# %%
def preference(texts, left, right):
    """log p(left) - log p(right) of two next words, for each text."""
    inputs = tokenizer(texts, add_special_tokens=False, padding_side="left", padding=True,
                       return_tensors="pt")
    a, b = (tokenizer(word, add_special_tokens=False).input_ids[0] for word in (left, right))
    head, kind = on_device.get_output_embeddings().weight, precision(device())
    found = []
    for start in range(0, len(texts), 64):
        part = {name: each[start : start + 64].to(device()) for name, each in inputs.items()}
        with torch.no_grad(), Weights(on_device, kind), autocast(device().type, kind):
            hidden = on_device.model(**part).last_hidden_state[:, -1]
        found += (hidden.float() @ (head[a] - head[b])).tolist()             # in fp32: no ties by rounding
    return found


def verdicts(name, said):
    """Print how a judge's verdicts agree with the executable ones (both lists of bool); returns the share."""
    agreed = mean(a == b for a, b in zip(said, right, strict=True))
    both = [["yes" if one else "no" for one in each] for each in (said, right)]
    beyond = f"{solve('03.7')(*both):.2f}" if len(set(map(tuple, both))) > 1 else "none"
    print(f"{name}: yes to {mean(said):.0%}, agrees in {agreed:.0%}, kappa {beyond}")
    return agreed


# %%
judged = corrupt(data["test"].select(range(numbers.judged)), 0.5, SEED, task="tickets")
given = [row["completion"][0]["content"] for row in judged]
right = tickets.score(given, judged).exact_rows
sure = preference([f"Message: {row['message']}\nForm: {row['completion'][0]['content']}\n"
                   "Is the form right, yes or no? Answer:" for row in judged], " yes", " no")
agrees = verdicts(f"the base on {len(right)} tickets", [value > 0 for value in sure])
surer = [value > median(sure) for value in sure]
verdicts("the same, yes to the surer half", surer)
verdicts("rules of this lesson, no gold", [not one for one in flags(judged)])
print(f"Guess 5: {agrees:.0%} of the base's verdicts are right; always no would be {1 - mean(right):.0%}")
accepted = {}
for kind in ("", "truncated", "wrong_field", "off_topic", "wrong_label"):
    said = [yes for yes, damage in zip(surer, judged["damage"], strict=True) if damage == kind]
    accepted[kind] = sum(said) / max(1, len(said))
    print(f"{kind or 'clean':<12} in the surer half: {sum(said)} of {len(said)}")
print("answers cut short rank above right ones:", accepted["truncated"] > accepted[""])

# %% [markdown]
# Where answers cut short rank above right ones, the judge goes by looks (8 rows a kind may be chance). Large
# models judge better, with biases of place and length too (Zheng et al. 2023, arXiv:2306.05685).
#
# Judges are also asked which of two answers is better. Of these two replies to a customer, one keeps more of
# the shop's rules (24 executable ones). If the first is always called A, place and letter are mixed up: so
# each pair is shown in both orders, and with both ways to name them.

# %%
replies = [row for row in load("voice")["test"]
           if voice.judge(row["message"], row["reply"], row["draft"], rules=None) == 1][: numbers.pairs]
pairs = [(row["message"], row["reply"], row["draft"]) for row in replies]
pairs += [(message, draft, reply) for message, reply, draft in pairs]       # the other order
margins = {}                                                                # of the one shown first
for a, b in ("AB", "BA"):
    texts = [f"Customer: {message}\n\nReply {a}: {one}\n\nReply {b}: {other}\n\nThe better reply is reply"
             for message, one, other in pairs]
    margins[a] = preference(texts, f" {a}", f" {b}")
    print(f"the first is called {a}: picks the first in {mean(margin > 0 for margin in margins[a]):.0%},",
          f"margin {mean(margins[a]):+.2f}")
summed = np.array(list(margins.values())).sum(axis=0).reshape(2, -1)
picks = (summed[0] - summed[1] > 0).tolist()                                # over both orders and namings
longer = [len(row["reply"]) > len(row["draft"]) for row in replies]
print(f"{len(replies)} pairs, by the margin over orders and namings: picks the better in {mean(picks):.0%},",
      f"the longer in {mean(a == b for a, b in zip(picks, longer, strict=True)):.0%}")

# %% [markdown]
# Compare the first two lines. If the letter decides, the pick turns with it; if the place does, it stays. In
# the average both cancel. What is left is judgement, and length: compare replies of like length, too.
#
# ## Rows made by a model
#
# Rows can be made: from templates (all of the course's are), by a model that writes them, or by models that
# play both sides. To keep that honest, every row carries its **provenance**, so that a bad batch can be taken
# out again, and must pass checks that no model has a say in.
#
# **Instruction back-translation**: start from the answer, and let a model write the message that it would
# answer. The base does not know what is wanted, so a second adapter is trained on the rows turned round,
# briefly. **Round trip**: then let the model that was trained on clean rows read the message, and keep it
# only if the answer comes back.

# %%
WRITE = "Write the customer's message that was filed as this JSON object."


def turned(message, answer):
    """A row that asks for the message, given the answer."""
    prompt = [{"role": "system", "content": WRITE}, {"role": "user", "content": answer}]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": message}]}


fresh = tickets.build("train", numbers.made, seed=1)                        # not the rows of training
wanted = [tickets.render_answer(row["answer"]) for row in fresh]
prompts = [turned("", answer)["prompt"] for answer in wanted]
writer, run = train([turned(row["message"], row["answer"]) for row in clean], steps=numbers.writer_steps)
print(run)

# %%
written = generate(writer, tokenizer, prompts, max_new_tokens=min(numbers.answer, 50), progress=False)
back = generate(models["clean"], tokenizer, [tickets.render(text) for text in written],
                max_new_tokens=numbers.answer, progress=False)
for answer, text, again in list(zip(wanted, written, back, strict=True))[:2]:
    print(f"\nanswer  {answer}\nwritten {text}\nread    {again}")

# %% [markdown]
# **Self-play**: one model plays the customer and the shop. Customers often forget the order number: the shop
# should ask for it, and the customer, who is told a number, should give it. One example shows how. The checks
# are these two, and the right answer is known: that of the first message, with the order filled in.

# %%
SHOT = ("Customer with order N51902: I want to send my tent back.\nAgent: I am sorry to hear that. What is "
        "the order number?\nCustomer with order N51902: The order number is N51902.\n\n")
forgot = [row for row in clean if json.loads(row["answer"])["missing"] == ["order"]][: numbers.made]
held = [f"N{Random(row['id']).randrange(10000, 100000)}" for row in forgot]
start = [f"{SHOT}Customer with order {number}: {row['message']}\nAgent:"
         for number, row in zip(held, forgot, strict=True)]
brief = dict(max_new_tokens=min(numbers.answer, 20), progress=False)
asks = [text.split("\n")[0].strip() for text in generate(on_device, tokenizer, start, **brief)]
start = [f"{text} {ask}\nCustomer with order {number}:"
         for text, ask, number in zip(start, asks, held, strict=True)]
tells = [text.split("\n")[0].strip() for text in generate(on_device, tokenizer, start, **brief)]
print(f"customer  {forgot[0]['message']}\nagent     {asks[0]}\ncustomer  {tells[0]}")

# %%
known, made = set(messages), []
WRITER = f"SmolLM2-135M, LoRA r16, {numbers.writer_steps} steps, seed {SEED}; {WRITE!r}; greedy, 50 tokens"
PLAYER = f"SmolLM2-135M; {SHOT!r}; greedy, 20 tokens a turn"


def keep(source, by, parent, text, *checks):
    passed = all(checks) and text not in known
    made.append({"source": source, "by": by, "parent": parent, "text": text, "passed": passed})


for row, answer, text, again in zip(fresh, wanted, written, back, strict=True):
    parent, message, sound = f"seed1/{row['id']}", row["message"], not faults(text, answer)
    keep("template", "tickets.build, seed 1", row["phrasing"], message, not faults(message, answer))
    keep("back-translation", WRITER, parent, text, sound)
    keep("and round trip", WRITER, parent, text, sound, tickets.parse(again) == json.loads(answer))
for row, ask, tell, number in zip(forgot, asks, tells, held, strict=True):
    asked_for = "order" in ask.lower() and "?" in ask
    keep("self-play", PLAYER, row["id"], f"{ask} {tell}", asked_for, number[1:] in tell)

print(f"{'source':<18}{'made':>6}{'kept':>6}{'yield':>8}{'distinct':>10}")
yields = {}
for source in ("template", "back-translation", "and round trip", "self-play"):
    of_source = [one for one in made if one["source"] == source]
    passed = [one["text"] for one in of_source if one["passed"]]
    yields[source] = len(passed) / len(of_source)
    distinct = len({re.sub("[0-9]", "0", text.lower()) for text in passed})
    print(f"{source:<18}{len(of_source):>6}{len(passed):>6}{yields[source]:>8.0%}{distinct:>10}")

# %% [markdown]
# `distinct` counts kept texts that the source wrote, digits aside: messages, and the two turns of self-play.
# A yield does not say what rows are worth. Messages that pass the round trip are those that the reader
# understands already, and a model that has found a sentence which passes tends to say it every time. So count
# what is different, keep real rows in the mix, and look at the collapse table above.

# %%
record(seed=SEED, clean_loss=losses["clean"], noisy_loss=losses["noisy"], judge_agrees=agrees, yields=yields,
       exact=exact, picks_better=mean(picks),
       training_seconds=sum(run.seconds for run in runs.values()))

# %% [markdown]
# ## Your own rows
#
# `load("my.csv")` gives your own data in the same form, checks every row, and splits off validation and test
# where there are none; see the top README. It keeps equal prompts together, not groups: split by those
# yourself, into two files. Read ten rows as text, count what counts in the loss, look for duplicates between
# the splits, count who breaks the rules, have fifty rows labelled twice: less work than one training run.
#
# ## What the field says, measured

# %% tags=["nbval-check-output", "recorded"]
claims("03")

# %% [markdown]
# ## Take-away
#
# - Read rows as the model sees them. A template may add a system message and drop a tool call, silently.
# - The loss is on the answer and its end token; mask by place, not by id. Packed rows must not meet.
# - Rules that need no right answer find most bad rows; disagreement shows where the guideline is at fault.
# - Split by group, look for near duplicates, choose on validation, and open the test split once.
# - Rows made by a model want provenance, executable checks, and a count of how many are different.
#
# **Read:** Zhou et al. 2023, *LIMA: Less Is More for Alignment*. Lee et al. 2022, *Deduplicating Training
# Data Makes Language Models Better*. Li et al. 2023, *Self-Alignment with Instruction Backtranslation*.
# Shumailov et al. 2024, *AI models collapse when trained on recursively generated data*.
#
# **Next:** 04_full_finetuning trains every weight.
