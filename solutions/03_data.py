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
# model sees them, build the loss mask and prove it equal to the libraries', count what padding costs, train
# on clean and on damaged rows, find the damaged ones by code, measure annotators and judges, and let a model
# make rows of its own.
#
# One experiment runs live: clean rows against noisy ones. The others were run once on a GPU, with three seeds
# and a learning rate tuned for each arm, and are shown from that record. The text says which is which.

# %%
import copy
import json
import logging
import re
import zlib
from collections import Counter, defaultdict
from random import Random
from statistics import mean, median

import numpy as np
import torch
from datasets import Dataset, disable_progress_bars
from IPython.display import Markdown

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
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package

# %%
SEED = 0
numbers = budget(
    cpu=dict(steps=24, batch=1, length=384, writer_steps=9, rows=48, scored=16, judged=24, pairs=8, made=6,
             answer=80),
    gpu=dict(steps=300, batch=8, length=512, writer_steps=150, rows=1000, scored=1000, judged=500, pairs=200,
             made=250, answer=80),
    smoke=dict(steps=1, batch=1, length=256, writer_steps=1, rows=2, scored=2, judged=4, pairs=2, made=2,
               answer=4),
)  # fmt: skip
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. A support ticket with its answer is some 100 tokens. What share of them counts in the loss?
# 2. Batches of 32 such rows are padded to the longest of each. What share of the tokens is padding?
# 3. Three of ten training rows are damaged. Is the loss on clean test answers then about the same as after
#    clean rows, half as large again, or twice as large and more?
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
row = data["train"][2]
chat = row["prompt"] + row["completion"]                                    # system, user, assistant
print(tokenizer.apply_chat_template(chat, tokenize=False))

# %% [markdown]
# A template is not neutral. This one puts in a system message of its own where you have none. A model that
# was trained with one and is asked without it has never seen such a prompt:

# %% tags=["nbval-check-output"]
print(tokenizer.apply_chat_template(chat[1:], tokenize=False)[:110])

# %% [markdown]
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
    parts, inside = [], False
    for token, label in zip(ids, labels, strict=True):
        if (label != -100) != inside:
            parts.append("»" if inside else "«")
            inside = not inside
        parts.append(tokenizer.decode([token]))
    return "".join(parts) + ("»" if inside else "")


# %% tags=["nbval-check-output"]
ids, labels = mask(chat)
print(marked(ids, labels))
share = [sum(one.weights) / len(one) for one in encode_all(data["train"], tokenizer, 512)]
print(f"{mean(share):.0%} of the tokens count, on average over {len(share):,} training rows")

# %% [markdown]
# That is the first answer. In a conversation of several turns every assistant's turn counts, and the
# customer's do not. Mind what `completion` means: `fit` and trl take all of it as the answer, so a customer's
# turn inside it would be trained on as well. Make one row for each assistant's turn instead.

# %% tags=["nbval-check-output"]
talk = [
    {"role": "system", "content": "You help customers."}, {"role": "user", "content": "I need an invoice."},
    {"role": "assistant", "content": "For which order?"}, {"role": "user", "content": "N48213."},
    {"role": "assistant", "content": "It is on its way."},
]  # fmt: skip
ids, labels = mask(talk)
print(marked(ids, labels))
one = encode({"prompt": talk[:2], "completion": talk[2:]}, tokenizer)       # what not to do
print("counted by the mask:", sum(label != -100 for label in labels), " by a completion of three turns:",
      int(sum(one.weights)))
rows = [encode({"prompt": talk[:turn], "completion": [talk[turn]]}, tokenizer) for turn in (2, 4)]
print("by one row for each turn:", int(sum(sum(row.weights) for row in rows)))

# %% [markdown]
# ## Tool calls
#
# A model may also answer with a call of a function, a **tool**. There is a format for it: `tools` describe
# the functions, `tool_calls` hold the call, and a message of the role `tool` holds the result. Does this
# template know them?

# %% tags=["nbval-check-output"]
called = {"name": "find_order", "arguments": {"order": "N48213"}}
tools = [{"type": "function", "function": {"name": "find_order", "parameters": {"type": "object"}}}]
ask = [{"role": "system", "content": "You help customers."}, {"role": "user", "content": "Where is N48213?"}]
call = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": called}]}
plain = tokenizer.apply_chat_template(ask, tokenize=False)
print("tools change the text:", tokenizer.apply_chat_template(ask, tools=tools, tokenize=False) != plain)
print(marked(*mask([*ask, call])))

# %% [markdown]
# It does not, and says nothing. The tools are left out, and the call is gone: the model would learn to answer
# nothing and stop. No library warns, because an empty turn is a valid turn. **Read the text of your rows.**
#
# The way out with such a template is to write it all as text: the tools in the system message, the call in
# the content. The result needs a role that is not the assistant's, so that it does not count.

# %% tags=["nbval-check-output"]
as_text = [
    {"role": "system", "content": f"You help customers. Tools: {json.dumps(tools[0]['function']['name'])}"},
    ask[1], {"role": "assistant", "content": f"<tool_call>{json.dumps(called)}</tool_call>"},
    {"role": "tool", "content": '{"status": "sent"}'}, {"role": "assistant", "content": "It has been sent."},
]  # fmt: skip
print(marked(*mask(as_text)))

# %% [markdown]
# ## Exercise 03.1: labels, and the stop token
#
# {{exercise:03.1}}
#
# Rows of a batch are padded to one length, and here, as in many tokenizers, the token that pads is the one
# that ends an answer. A model whose end tokens were masked along with the padding never learns to stop.
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

# %% [markdown]
# The trap is real. transformers' own collator for language modelling masks by id:

# %% tags=["nbval-check-output"]
from transformers import DataCollatorForLanguageModeling

ids, labels = mask(chat)
whole = DataCollatorForLanguageModeling(tokenizer, mlm=False)([{"input_ids": ids}])["labels"][0].tolist()
end = tokenizer.eos_token_id
print("pad and end token are one:", tokenizer.pad_token_id == end)
print("end tokens in the row:", ids.count(end), " with a label: by the collator", whole.count(end),
      "by the mask", labels.count(end))

# %% [markdown]
# ## Prove it: `fit` and trl
#
# Four short rows, their labels, and the loss of the untrained base on them: by hand, by `fit` (a step at rate
# 0) and by trl. To be quick, `fit` trains only the last norm here.

# %%
from trl import SFTConfig, SFTTrainer

base = load_model(on=torch.device("cpu"))
four = data["train"].select([2, 8, 15, 25]).select_columns(["prompt", "completion"])
settings = SFTConfig(output_dir="out/trl", use_cpu=True, bf16=False, per_device_train_batch_size=4,
                     report_to="none", disable_tqdm=True)  # fmt: skip
trainer = SFTTrainer(copy.deepcopy(base), settings, train_dataset=four, processing_class=tokenizer)
base.requires_grad_(False)
base.model.norm.requires_grad_(True)


def first_loss(**options):
    """What `fit` reports for its first step over the four rows, in fp32; nothing moves at rate 0."""
    options = {"batch": 4, "pack": False, **options}
    run = fit(base, four, tokenizer, steps=1, lr=0.0, precision="fp32", progress=False, **options)
    return run.losses[0]


# %% tags=["nbval-check-output"]
ours = [mask(row["prompt"] + row["completion"]) for row in four]
theirs = [(list(row["input_ids"]), list(row["labels"])) for row in trainer.train_dataset]
print("ids and labels equal trl's:", ours == theirs)
by_hand = torch.cat([nll(base, *row) for row in ours]).mean().item()
with torch.no_grad():
    by_trl = trainer.compute_loss(trainer.model, trainer.data_collator(list(trainer.train_dataset))).item()
print("loss equals that of fit to 1e-4:", abs(by_hand - first_loss()) < 1e-4)
print("loss equals that of trl to 1e-4:", abs(by_hand - by_trl) < 1e-4)
everything = torch.cat([nll(base, ids, ids) for ids, _ in ours]).mean().item()
print("and not the loss over all tokens:", abs(by_hand - everything) > 0.1)

# %% [markdown]
# trl can also find the assistant's turns by itself (`assistant_only_loss=True`), if the template marks them.
# This one does not, and there trl does speak up:

# %% tags=["nbval-check-output"]
talks = Dataset.from_list([{"messages": row["prompt"] + row["completion"]} for row in four])
settings.assistant_only_loss = True
try:
    SFTTrainer(trainer.model, settings, train_dataset=talks, processing_class=tokenizer)
except ValueError as error:
    print(str(error).split(" (")[0])

# %% [markdown]
# ## A little loss on the prompt
#
# Prompt tokens may count with a weight w between 0 and 1, as a kind of regularisation:
#
# loss = Σ weight · (-log p) / Σ weight, with weight 1 on the answer and w on the prompt.
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
for weight in (0.0, 0.1, 1.0):
    share = sum(answers) / sum(1 if answer else weight for answer in answers)
    print(f"the prompt weighs {weight}: answers have {share:.0%} of the weight")
same = abs(solve("03.2")(each, answers, 0.1) - first_loss(prompt_loss_weight=0.1)) < 1e-4
print("the loss at 0.1 equals that of fit to 1e-4:", same)

# %% [markdown]
# Does it help? From the record, not live. The table also has the speed of packed and padded batches, for the
# next section.

# %%
Markdown("\n".join(data_report.mask_table()))

# %% [markdown]
# ## Pack or pad
#
# A batch is a rectangle, and rows differ in length. **Padding** fills the rest with tokens that are computed
# and thrown away. **Packing** puts several rows into one line. How much is padding, on real rows?

# %% tags=["nbval-check-output"]
encoded = encode_all(data["train"], tokenizer, 512)
lengths = [len(one) for one in encoded]


def padding(batches):
    """Share of padding in batches of lengths, each padded to its longest."""
    return 1 - sum(map(sum, batches)) / sum(len(batch) * max(batch) for batch in batches)


batches = [lengths[i : i + 32] for i in range(0, len(lengths), 32)]
alike = [sorted(lengths)[i : i + 32] for i in range(0, len(lengths), 32)]
steps = plan(lengths, batch=8, length=512, seed=SEED)
filled = [next(steps) for _ in range(100)]
room = 1 - sum(lengths[n] for bins in filled for one in bins for n in one) / (len(filled) * 8 * 512)
print(f"rows of {min(lengths)} to {max(lengths)} tokens, {mean(lengths):.0f} on average")
print(f"32 rows padded to the longest: {padding(batches):.0%} padding; rows of like length together:",
      f"{padding(alike):.1%}")
print(f"packed into 8 lines of 512: {room:.1%} empty, {mean(len(sum(bins, [])) for bins in filled):.0f} rows")

# %% [markdown]
# That is the second answer, and these rows are much alike. With lengths from 20 to 2,000 the longest row
# decides, and most of a batch is padding. Sorting by length avoids it too, but then like rows
# always come together.
#
# Packed rows must not see each other. That takes a mask in blocks.
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
short = [{"prompt": text, "completion": answer} for text, answer in
         (("Red or green? ", "Red."), ("2 + 2 = ", "4"), ("Is the tent blue? ", "Yes, it is."))]  # fmt: skip
small = encode_all(short, tokenizer, 64)
batch = collate(small, [[0, 1, 2]], sum(map(len, small)))
seen, positions = solve("03.3")([len(one) for one in small])
print("the mask of fit is equal:", batch.mask()[0, 0].tolist() == seen)
print("its positions are equal:", batch.positions[0].tolist() == positions)

# %%
title = f"Three rows of {', '.join(str(len(one)) for one in small)} tokens in one line: each sees itself only"
fig, axes = plots.figure(title, "token that is looked at", "token that looks")
axes.imshow(np.array(seen), cmap="Blues", vmin=-0.2, vmax=1.4)
axes.grid(visible=False)
plots.show(fig, f"A square matrix with three triangles along its diagonal, and nothing outside. {title}.")

# %% [markdown]
# If the mask is right, packing changes nothing but speed: the loss of packed rows is that of single ones. And
# with the usual mask, where a token sees all before it?

# %%
three = encoded[:3]
batch = collate(three, [[0, 1, 2]], sum(map(len, three)))
causal = torch.ones(batch.mask().shape, dtype=torch.bool).tril()
running = torch.arange(batch.ids.shape[1])[None]


def packed_loss(mask, positions):
    """Loss of the three packed rows under a mask and with positions."""
    with torch.no_grad():
        logits = base(input_ids=batch.ids, attention_mask=mask, position_ids=positions).logits[0]
    each = torch.nn.functional.cross_entropy(logits, batch.targets[0], reduction="none")
    return ((each * batch.weights[0]).sum() / batch.weights.sum()).item()


apart = packed_loss(batch.mask(), batch.positions)

# %% tags=["nbval-check-output"]
single = torch.cat([nll(base, *mask(data["train"][i]["prompt"] + data["train"][i]["completion"]))
                    for i in range(3)]).mean().item()  # fmt: skip
print("packed and single rows have one loss, to 1e-4:", abs(apart - single) < 1e-4)
print("rows that see each other have another:", abs(packed_loss(causal, running) - single) > 1e-2)
print("positions that run on change it, to 1e-4:", abs(packed_loss(batch.mask(), running) - single) > 1e-4)

# %% [markdown]
# Look at the last line. This model uses rotary positions: only the distance between two tokens enters, and
# inside a row that is the same wherever it begins. So with the right mask, positions hardly matter here. Give
# them all the same: models with absolute positions need them, and libraries that attend without a mask find
# the rows by where positions start again.
#
# ## Train: clean rows against noisy ones
#
# This is live. `corrupt` damages three of ten training rows: another row's answer, one wrong field, an answer
# cut short, or one about something else. Rate, steps, adapter and seed are the same.

# %%
clean = data["train"]
noisy = corrupt(clean, 0.3, SEED, task="tickets")
test = data["test"].select([i * len(data["test"]) // numbers.rows for i in range(numbers.rows)])
options = dict(steps=numbers.steps, batch=numbers.batch, length=numbers.length, lr=3e-3, seed=SEED)
on_device = copy.deepcopy(base).to(device())

# %% tags=["nbval-check-output"]
print(Counter(noisy["damage"]).most_common())
i = noisy["damage"].index("wrong_field")
print(noisy[i]["message"], noisy[i]["completion"][0]["content"], "the gold: " + noisy[i]["answer"], sep="\n")


# %%
def train(rows, **more):
    """(model, Run) of a fresh LoRA adapter of rank 16, trained on rows."""
    seed_everything(SEED)
    model = adapted(copy.deepcopy(on_device), 16)
    return model, fit(model, rows, tokenizer, **{**options, **more})


models, runs = {}, {}
for name, rows in {"clean": clean, "noisy": noisy}.items():
    models[name], runs[name] = train(rows, validation=test, validate_every=numbers.steps)
    print(f"{name}: {runs[name]}")

# %%
losses = {name: run.validation[-1][1] for name, run in runs.items()}         # after the last step
some = test.select(range(numbers.scored))
scores = {name: score(model, tokenizer, some, batch_size=128, max_new_tokens=numbers.answer, progress=False)
          for name, model in models.items()}  # fmt: skip
for name, said in scores.items():
    print(f"{name}: test loss {losses[name]:.3f}; {said.valid:.0%} valid, {said.exact:.1%} exact of {said.n}")
print(f"test loss, noisy over clean: {losses['noisy'] / losses['clean']:.2f}")

# %%
title = f"Test loss {losses['clean']:.2g} after clean rows, {losses['noisy']:.2g} after noisy ones"
fig, axes = plots.figure(title, "step", "training loss per answer token (nats)")
for (name, run), style, colour in zip(runs.items(), ("-", "--"), plots.COLOURS, strict=False):
    axes.plot(range(1, run.steps + 1), run.losses, style, color=colour, label=f"{name} rows")
every = runs["clean"].losses + runs["noisy"].losses
axes.set_yscale("log")
axes.minorticks_off()
axes.set_yticks([tick for tick in (0.001, 0.01, 0.1, 0.2, 0.5, 1, 2) if min(every) <= tick <= max(every)])
axes.yaxis.set_major_formatter("{x:g}")
axes.xaxis.get_major_locator().set_params(integer=True)
axes.legend(frameon=False)
plots.show(fig, f"Line plot of two training losses on a logarithmic axis. {title}.")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
print("clean rows give the lower test loss:", losses["clean"] < losses["noisy"])
for name in models:
    print(f"{name}: the test loss is below half the first step's:", losses[name] < runs[name].losses[0] / 2)

# %% [markdown]
# The third answer is in the loss on test answers, all of them clean. Do not read it off the training loss:
# that of the noisy run is high because its rows cannot be predicted. On the CPU budget each run sees under
# 100 rows and is still learning the form; a GPU run shows more.
#
# Loss and answers are two questions. A model that has seen noise hedges and spreads its probability, which
# the loss notices at once, and the likeliest answer may still be right. Here the answer is what counts, so
# the record has exact match.
#
# ## The same run as the field writes it
#
# trl's trainer on both. On the GPU budget `fit` packs about 39 rows into a step, so trl gets 39.

# %% tags=["gpu"]
# %%gpu
from peft import LoraConfig

settings = SFTConfig(
    output_dir="out/trl", max_steps=numbers.steps, per_device_train_batch_size=39, learning_rate=3e-3,
    warmup_steps=numbers.steps // 10, lr_scheduler_type="linear", bf16=True, gradient_checkpointing=False,
    max_length=512, save_strategy="no", logging_steps=100, report_to="none", disable_tqdm=True, seed=SEED,
)  # fmt: skip
for name, rows in {"clean": clean, "noisy": noisy}.items():
    trainer = SFTTrainer(
        load_model(), settings, train_dataset=rows.select_columns(["prompt", "completion"]),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        processing_class=tokenizer,
    )  # fmt: skip
    seconds = trainer.train().metrics["train_runtime"]
    found = score(trainer.model, tokenizer, some, batch_size=250, progress=False)
    print(f"{name}: trl {found.exact:.1%} exact after {seconds:.0f} s, fit {scores[name].exact:.1%}")

# %% [markdown]
# ## Quality, diversity, quantity: the record
#
# From here to the next heading nothing runs live. Is it better to have 1,000 clean rows or 10,000 noisy ones?
# Two things are mixed up in that question, so they are taken apart: right answers, and how many ways of
# saying things the rows have (claim data-quality).

# %%
Markdown("\n".join(data_report.quality_table()))

# %% [markdown]
# How much noise may 10,000 rows have before 1,000 clean ones are better?

# %%
Markdown("\n".join(data_report.noise_table()))

# %%
whole = markdown.values("data")
if whole:
    shares = sorted(map(int, whole["noise"]))
    bar = 100 * mean(whole["quality"]["clean diverse 1k"])
    flips = ", ".join("never" if one is None else f"{one:.0%}" for one in whole["flips at"])
    title = f"10,000 rows fall below 1,000 clean ones at this share of damage, by seed: {flips}"
    fig, axes = plots.figure(title, "damaged rows (%)", "exact match on test (%)")
    means = [100 * mean(whole["noise"][str(share)]) for share in shares]
    axes.plot(shares, means, "o-", color=plots.COLOURS[0], label="10,000 rows, mean of the seeds")
    axes.axhline(bar, linestyle="--", color=plots.COLOURS[1], label="1,000 clean rows")
    axes.legend(frameon=False)
    said = ", ".join(f"{share}% {value:.0f}" for share, value in zip(shares, means, strict=True))
    plots.show(fig, f"Line plot of exact match over damaged rows: {said}; dashed line at {bar:.0f}.")

# %% [markdown]
# **Mixing in other tasks** is said to hurt, and sometimes to help (data-mix). In equal steps a mix sees the
# task less often, which alone may cost; so it is also given the steps to see it as often:

# %%
Markdown("\n".join(data_report.mix_table()))

# %% [markdown]
# **A pilot** of 50 rows should tell whether a task is worth a thousand (data-pilot). That is a test only if
# it can also say no, so one of these two tasks cannot be learned from its rows:

# %%
Markdown("\n".join(data_report.pilot_table()))

# %% [markdown]
# **The learning curve**: what does doubling the rows bring (data-returns), and does little data favour LoRA
# and much data full finetuning (data-crossover)?

# %%
Markdown("\n".join(data_report.returns_table()))

# %%
if whole:
    curves = {"LoRA r=16": whole["returns"]["lora"], "full": whole["returns"]["full"]}
    counts = sorted(map(int, whole["returns"]["lora"]))
    said = "; ".join(f"{name} {mean(curve[str(counts[0])]):.0%} and {mean(curve[str(counts[-1])]):.0%}"
                     for name, curve in curves.items())  # fmt: skip
    title = f"With {counts[0]} and {counts[-1]:,} rows: {said}"
    fig, axes = plots.figure(title, "training rows (logarithmic)", "exact match on test (%)")
    for (name, curve), style, colour in zip(curves.items(), ("o-", "s--"), plots.COLOURS, strict=False):
        axes.plot(counts, [100 * mean(curve[str(n)]) for n in counts], style, color=colour, label=name)
        axes.plot([n for n in counts for _ in curve[str(n)]],
                  [100 * one for n in counts for one in curve[str(n)]], style[0], color=colour, alpha=0.3)
    axes.set_xscale("log")
    axes.set_xticks(counts, [f"{n:,}" for n in counts])
    axes.minorticks_off()
    axes.legend(frameon=False)
    plots.show(fig, f"Line plot of exact match over training rows, seeds as pale points. {title}.")

# %% [markdown]
# **Working shown**: rows that write the steps out before the answer (data-cot). Longer answers also give the
# model more tokens to compute in, so a control writes as many dots instead:

# %%
Markdown("\n".join(data_report.cot_table()))

# %% [markdown]
# **Bias**: after "The plumber said that", how much likelier is *he* than *she*? Measured on jobs and
# sentences that no training row has, before and after training on curated rows (data-bias):

# %%
Markdown("\n".join(data_report.bias_table()))

# %% [markdown]
# **Collapse**: each generation is trained on what the one before wrote (data-collapse). The loss is taken on
# real passages:

# %%
Markdown("\n".join(data_report.collapse_table()))

# %% [markdown]
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

    known, found = [pairs(text) for text in train], []
    for place, own in enumerate(map(pairs, test)):
        if any(len(own & other) / len(own | other) >= limit for other in known):
            found.append(place)
    return found
    # END SOLUTION


# %%
check("03.4", leaked)

# %% [markdown]
# That compares all with all: 4,000 by 5,000 texts are 20 million pairs, and a web corpus would never end.
# **MinHash** gives every text a short signature instead. Hash all shingles and keep the smallest hash: two
# texts have the same smallest one with a probability that is their Jaccard similarity. With 128 hash
# functions the share of equal numbers estimates it. And texts that agree in a whole **band** of four numbers
# land in one bucket; only those are compared.

# %%
HASHES, BAND, PRIME = 128, 4, 2**31 - 1
draw = np.random.default_rng(SEED)
FACTORS, TERMS = draw.integers(1, PRIME, HASHES), draw.integers(0, PRIME, HASHES)


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
    buckets = defaultdict(set)
    for place, one in enumerate(pieces[0]):
        for start, band in enumerate(signature(one).reshape(-1, BAND)):
            buckets[start, band.tobytes()].add(place)
    found = set()
    for place, one in enumerate(pieces[1]):
        for start, band in enumerate(signature(one).reshape(-1, BAND)):
            found |= {(other, place) for other in buckets.get((start, band.tobytes()), ())}
    return {(i, j): jaccard(pieces[0][i], pieces[1][j]) for i, j in found}


def jaccard(a, b):
    return len(a & b) / len(a | b)


# %% [markdown]
# First against the exact number, on texts that differ by more and more words. Then plant copies of test
# messages in the training rows, 40 exact and 100 with a small edit, and look for them: how many are found,
# and how many rows are flagged that nobody planted?

# %% tags=["nbval-check-output"]
words = data["train"][14]["message"].split()
for changed in (0, 1, 3, 8, 16):
    other = [f"word{i}" if i < changed else word for i, word in enumerate(words)]
    a, b = shingles(" ".join(words)), shingles(" ".join(other))
    print(f"{changed:2} words changed: Jaccard {jaccard(a, b):.2f}, by MinHash "
          f"{(signature(a) == signature(b)).mean():.2f}")  # fmt: skip

# %% tags=["nbval-check-output"]
asked = data["test"].select(range(2000))
copies = list(asked["message"][:40])
edited = corrupt(asked.select(range(40, 140)), 1.0, SEED, "near_duplicate", task="tickets")
copies += [row["prompt"][-1]["content"] for row in edited]
messages = list(data["train"]["message"])
pairs = near(messages + copies, asked["message"])
print(f"{len(pairs):,} of {len(messages + copies) * len(asked):,} pairs share a bucket and are compared")
for limit in (0.9, 0.8, 0.5, 0.3):
    alike = {i for (i, _), similarity in pairs.items() if similarity >= limit}
    planted, alarms = {i for i in alike if i >= len(messages)}, {i for i in alike if i < len(messages)}
    print(f"limit {limit}: {len(planted)} of {len(copies)} copies found,",
          f"{len(alarms)} of {len(messages):,} other rows flagged")  # fmt: skip
exact = set(asked["message"]) & set(messages + copies)
print(f"by equal text alone: {len(exact)} of {len(copies)}")

# %% [markdown]
# Equal text finds the exact copies and little more. The limit decides the rest: too low, and honest rows that
# merely sound alike are thrown away.
#
# Where do such pairs come from in real work? From a split by row. These messages were made from sentence
# templates, as real rows are often paraphrases of a few sources. A random split puts the same sentence on
# both sides:
#
# ## Exercise 03.5: split by group
#
# {{exercise:03.5}}
#
# {{hint:03.5}}

# %% tags=["exercise"]
def split_by_group(groups, least):
    """Split rows so that no group is on both sides: paraphrases of one sentence belong together.

    groups: list of str, the group of each row. Test takes whole groups in alphabetical order until it has at
    least `least` rows. Returns (train, test), a tuple of two lists of places in groups, ascending.
    """
    # BEGIN SOLUTION
    held = set()
    for name in sorted(set(groups)):
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
order = Random(SEED).sample(range(len(groups)), len(groups))
splits = {"by row": (order[400:], order[:400]), "by group": solve("03.5")(groups, 400)}
for name, (ours, theirs) in splits.items():
    known = {groups[i] for i in ours}
    pairs = near([messages[i] for i in ours], [messages[i] for i in theirs])
    double = len({j for (_, j), similarity in pairs.items() if similarity >= 0.6})
    share = sum(groups[i] in known for i in theirs) / len(theirs)
    print(f"split {name}: {len(theirs)} rows held out, {share:.0%} from templates that training has;",
          f"near duplicates at 0.6: {double}")  # fmt: skip

# %% [markdown]
# A score on the first split says how well a model has learned these sentences, one on the second how well it
# takes new ones. The course's test split is of the second kind.
#
# And there is a leak that no comparison of texts finds: choosing. Whoever tries ten settings and reports the
# best of ten test scores has trained on the test split, by hand.
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
# values must stand in the message; what is missing must be what the intent needs and the answer does not
# give; and one message has one answer.

# %%
NUMBERS = "zero one two|pair|couple three four five six seven eight nine ten eleven twelve|dozen".split()
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


# %% tags=["nbval-check-output"]
bad = [damage != "" for damage in noisy["damage"]]


def flags():
    """Which of the noisy rows the rules flag."""
    return [bool(faults(row["message"], row["completion"][0]["content"])) for row in noisy]


flagged = flags()
alarms = [i for i, flag in enumerate(flagged) if flag and not bad[i]]
print(f"{sum(flagged):,} rows flagged, {len(alarms)} of them clean, among these:")
for i in alarms[:3]:
    print(f"{faults(noisy[i]['message'], noisy[i]['answer'])}: {noisy[i]['message'][:98]}")

# %% [markdown]
# Read what your rules flag, before you drop any of it: they have faults too. This one does not know "half a
# dozen". Dropping these rows would have left a model that has never seen six said that way.

# %% tags=["nbval-check-output"]
NUMBERS[6] += "|half a dozen"
flagged = flags()
for kind in ("", "truncated", "off_topic", "wrong_label", "wrong_field"):
    hits = [flag for flag, damage in zip(flagged, noisy["damage"], strict=True) if damage == kind]
    print(f"{kind or 'clean':<12} {sum(hits):4} of {len(hits):,} flagged")
both = sum(flag and wrong for flag, wrong in zip(flagged, bad, strict=True))
print(f"found: {both / sum(bad):.0%} of the damage; right: {both / sum(flagged):.1%} of what is flagged")

# %% [markdown]
# That is the fourth answer. What is left are wrong intents and urgencies: no rule says what a message means.
# For those you need a second answer to the same message. Suppose every tenth message was labelled
# twice, and some of the second labels are wrong:

# %% tags=["nbval-check-output"]
again = corrupt(clean.select(range(0, 4000, 10)), 0.25, SEED + 1, "wrong_label", task="tickets")
answers_to = defaultdict(set)
for row in [*clean, *again]:
    text = " ".join(re.findall("[a-z0-9]+", row["message"].lower()))
    answers_to[text].add(row["completion"][0]["content"])
conflicts = sum(len(answers) > 1 for answers in answers_to.values())
print(f"messages with two different answers: {conflicts}; planted: {400 - again['damage'].count('')}")

# %% [markdown]
# Does it help to drop what the rules flag? On the GPU budget, the same training once more:

# %% tags=["gpu"]
# %%gpu
kept = noisy.select([i for i, flag in enumerate(flagged) if not flag])
rest = f"noisy, the {len(kept):,} rows that pass the rules"
cleaned, run = train(kept, validation=test, validate_every=numbers.steps)
found = {**scores, rest: score(cleaned, tokenizer, some, batch_size=128, progress=False)}
for name, loss in {**losses, rest: run.validation[-1][1]}.items():
    print(f"{found[name].exact:6.1%} exact, test loss {loss:.3f}: {name}")

# %% [markdown]
# ## Two annotators
#
# Where do two careful people disagree? Where the instruction leaves room. "Say how urgent it is" does: is a
# message that names a day urgent? Two annotators are simulated here on real rows of the course. Both read the
# message as the gold answer does, and slip in 3 of 100 rows. The second one also takes every named day for a
# deadline. Then the guideline gets one more sentence, "a date alone makes nothing urgent", and is followed.
#
# How well do they agree? Not by the share of equal labels: if most messages are normal, two people who never
# read them agree often. **Cohen's kappa** takes chance away: (agreement - chance) / (1 - chance).
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

# %% [markdown]
# By hand: of 10 rows both say yes to 4 and no to 3; the first says yes to 2 more, the second to 1. Agreement
# is 0.7; chance is 0.6 · 0.5 + 0.4 · 0.5 = 0.5; kappa is 0.2 / 0.5 = 0.4.

# %% tags=["nbval-check-output"]
first = ["yes"] * 4 + ["no"] * 3 + ["yes"] * 2 + ["no"]
second = ["yes"] * 4 + ["no"] * 3 + ["no"] * 2 + ["yes"]
print(f"kappa {solve('03.7')(first, second):.2f}")


def annotate(row, seed, dates_are_urgent):
    """One annotator's label of a message's urgency."""
    gold, dice = json.loads(row["answer"]), Random(f"{seed}/{row['id']}")
    if dice.random() < 0.03:
        return dice.choice(["low", "normal", "high"])
    return "high" if dates_are_urgent and "date" in gold and gold["urgency"] == "normal" else gold["urgency"]


shown = data["validation"]
one = [annotate(row, "one", False) for row in shown]
for guideline, deadline in (("say how urgent it is", True), ("... a date alone makes nothing urgent", False)):
    two = [annotate(row, "two", deadline) for row in shown]
    agreed = mean(a == b for a, b in zip(one, two, strict=True))
    print(f"{guideline:<38} agreement {agreed:.0%}, kappa {solve('03.7')(one, two):.2f}")

# %% [markdown]
# One sentence was worth more than any number of further annotators: they would have split the same way. When
# kappa is low, read the rows on which people disagree, and write down what they did not know.
#
# ## A model as judge
#
# A judge that is a model is asked, not programmed. Here the base judges tickets of which half are damaged: it
# sees message and answer, and whichever of " yes" and " no" is likelier counts. The executable judge compares
# with the gold answer. This is live, and small on a CPU.

# %%
def preference(texts, left, right):
    """log p(left) - log p(right) of two next words, for each text."""
    inputs = tokenizer(texts, add_special_tokens=False, padding_side="left", padding=True,
                       return_tensors="pt")  # fmt: skip
    a, b = (tokenizer(word, add_special_tokens=False).input_ids[0] for word in (left, right))
    head, kind = on_device.get_output_embeddings().weight, precision(device())
    found = []
    for start in range(0, len(texts), 64):
        part = {name: rows[start : start + 64].to(device()) for name, rows in inputs.items()}
        with torch.no_grad(), Weights(on_device, kind), autocast(device().type, kind):
            hidden = on_device.model(**part).last_hidden_state[:, -1]
        found += (hidden.float() @ (head[a] - head[b])).tolist()             # in fp32: no ties by rounding
    return found


def verdicts(name, said, right):
    """Print how a judge's verdicts agree with the executable ones (both lists of bool)."""
    agreed = mean(a == b for a, b in zip(said, right, strict=True))
    both = [["yes" if one else "no" for one in each] for each in (said, right)]
    beyond = f"{solve('03.7')(*both):.2f}" if len(set(map(tuple, both))) > 1 else "none"
    print(f"{name}: yes to {mean(said):.0%}, agrees in {agreed:.0%}, kappa {beyond}")


# %%
judged = corrupt(data["test"].select(range(numbers.judged)), 0.5, SEED, task="tickets")
given = [row["completion"][0]["content"] for row in judged]
right = tickets.score(given, judged).exact_rows
sure = preference([f"Message: {row['message']}\nForm: {row['completion'][0]['content']}\n"
                   "Is the form right, yes or no? Answer:" for row in judged], " yes", " no")  # fmt: skip
verdicts(f"the base on {len(right)} tickets", [value > 0 for value in sure], right)
middle = median(sure)
verdicts("the same, yes to the surer half   ", [value > middle for value in sure], right)
verdicts("rules of this lesson, no gold     ",
         [not faults(row["message"], text) for row, text in zip(judged, given, strict=True)], right)

# %% [markdown]
# The fifth answer: compare the agreement with 50%, which a judge gets who always says the same. That is why
# kappa stands beside it. A judge of this size knows nothing about tickets. Large models do better, and have
# the same kinds of bias; so measure them as you do here.
#
# Judges are also asked which of two answers is better. Here are two replies to a customer, one of which keeps
# more of the shop's rules (24 executable ones); each pair is shown in both orders.

# %%
replies = [row for row in load("voice")["test"]
           if voice.judge(row["message"], row["reply"], row["draft"], rules=None) == 1]  # fmt: skip
replies = replies[: numbers.pairs]


def compare(row, a, b):
    return f"Customer: {row['message']}\n\nReply A: {a}\n\nReply B: {b}\n\nThe better reply is reply"


orders = [compare(row, row["reply"], row["draft"]) for row in replies]
orders += [compare(row, row["draft"], row["reply"]) for row in replies]
first = [value > 0 for value in preference(orders, " A", " B")]
better = first[: len(replies)] + [not one for one in first[len(replies) :]]
longer = [len(row["reply"]) > len(row["draft"]) for row in replies] * 2
stable = mean(a == b for a, b in zip(better[: len(replies)], better[len(replies) :], strict=True))
long = mean(a == b for a, b in zip(better, longer, strict=True))
print(f"{len(replies)} pairs in both orders: picks the first reply in {mean(first):.0%}, the better one in",
      f"{mean(better):.0%}, the longer one in {long:.0%};")  # fmt: skip
print(f"sticks to its choice when the order is turned in {stable:.0%}")

# %% [markdown]
# Which of the two stands first should not matter. Where it does, ask in both orders, and count a pair only if
# the choice is the same; where length matters, compare replies of like length.
#
# ## Rows made by a model
#
# Rows can be made: from templates (all of the course's are), by a model that writes them, or by models that
# play both sides. Two things keep that honest. Every row carries its **provenance**, so that a batch that
# turns out bad can be taken out again; and every row must pass checks that no model has a say in.
#
# **Reverse instruction**: start from the answer, and let a model write the message that it would answer. The
# base does not know what is wanted, so a second adapter is trained on the rows turned round, briefly.
#
# **Back-translation**: then let the model that was trained on clean rows read the message, and keep it only
# if the answer comes back.

# %%
WRITE = "Write the customer's message that was filed as this JSON object."


def turned(message, answer):
    """A row that asks for the message, given the answer."""
    prompt = [{"role": "system", "content": WRITE}, {"role": "user", "content": answer}]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": message}]}


fresh = tickets.build("train", numbers.made, seed=1)                        # not the rows of training
wanted = [tickets.render_answer(row["answer"]) for row in fresh]
prompts = [turned("", answer)["prompt"] for answer in wanted]
print("the base:", generate(on_device, tokenizer, prompts[:1], max_new_tokens=30, progress=False)[0])
writer, run = train([turned(row["message"], row["answer"]) for row in clean], steps=numbers.writer_steps)
print(run)

# %%
written = generate(writer, tokenizer, prompts, max_new_tokens=min(numbers.answer, 50), progress=False)
back = generate(models["clean"], tokenizer, [tickets.render(text) for text in written],
                max_new_tokens=numbers.answer, progress=False)  # fmt: skip
for answer, text, again in list(zip(wanted, written, back, strict=True))[:2]:
    print(f"\nanswer  {answer}\nwritten {text}\nread    {again}")

# %% [markdown]
# **Self-play**: one model plays the customer and the shop. Customers often forget the order number, so the
# shop should ask for it, and the customer, who is told a number, should give it. Four examples show how. The
# checks: the shop asks for the order, and the customer's second turn says the number. Then the right answer
# is known: that of the first message, with the order filled in.

# %%
SHOTS = (("N51902", "I want to send my tent back.", "I am sorry to hear that. What is the order number?"),
         ("N77315", "Where is the invoice for my boots?", "I can look it up. What is the order number?"),
         ("N20468", "Please cancel it, I changed my mind.", "Of course. What is the order number?"),
         ("N93640", "The jacket is too small.", "I can change it. What is the order number?"))  # fmt: skip
SHOTS = "".join(f"Customer with order {number}: {said}\nAgent: {asked}\nCustomer with order {number}: "
                f"The order number is {number}.\n\n" for number, said, asked in SHOTS)  # fmt: skip
forgot = [row for row in clean if json.loads(row["answer"])["missing"] == ["order"]][: numbers.made]
held = [f"N{Random(row['id']).randrange(10000, 100000)}" for row in forgot]
start = [f"{SHOTS}Customer with order {number}: {row['message']}\nAgent:"
         for number, row in zip(held, forgot, strict=True)]  # fmt: skip
short = dict(max_new_tokens=min(numbers.answer, 20), progress=False)
asks = [text.split("\n")[0].strip() for text in generate(on_device, tokenizer, start, **short)]
start = [f"{text} {ask}\nCustomer with order {number}:"
         for text, ask, number in zip(start, asks, held, strict=True)]  # fmt: skip
tells = [text.split("\n")[0].strip() for text in generate(on_device, tokenizer, start, **short)]
for row, ask, tell in list(zip(forgot, asks, tells, strict=True))[:2]:
    print(f"customer  {row['message']}\nagent     {ask}\ncustomer  {tell}\n")

# %% [markdown]
# A dialogue that passes becomes a row of several turns:

# %%
asked_and_told = [["order" in ask.lower() and "?" in ask, number[1:] in tell]
                  for ask, tell, number in zip(asks, tells, held, strict=True)]  # fmt: skip
best = max(range(len(forgot)), key=lambda i: sum(asked_and_told[i]))
gold = {**json.loads(forgot[best]["answer"]), "order": held[best], "missing": []}
turns = [{"role": "assistant", "content": asks[best]}, {"role": "user", "content": tells[best]}]
final = {"role": "assistant", "content": tickets.render_answer(gold)}
print("checks passed:", sum(asked_and_told[best]), "of 2")
print(marked(*mask([*forgot[best]["prompt"], *turns, final])))

# %% [markdown]
# The shop's question counts here too, since a model wrote it and it passed. Now all rows, each with where it
# comes from and which checks it passed:

# %%
ADAPTER = f"LoRA r16, seed {SEED}"
rows = [{"source": "template", "by": "tickets.build", "parent": row["phrasing"], "text": row["message"],
         "checks": [not faults(row["message"], answer)]} for row, answer in zip(fresh, wanted, strict=True)]
for row, answer, text, again in zip(fresh, wanted, written, back, strict=True):
    said = not faults(text, answer)
    common = {"by": f"SmolLM2-135M, {ADAPTER}", "parent": row["id"], "text": text}
    rows.append({"source": "reverse instruction", **common, "checks": [said]})
    rows.append({"source": "and back-translation", **common,
                 "checks": [said, tickets.parse(again) == json.loads(answer)]})
for row, ask, tell, passed in zip(forgot, asks, tells, asked_and_told, strict=True):
    rows.append({"source": "self-play", "by": "SmolLM2-135M", "parent": row["id"], "asked": ask, "text": tell,
                 "checks": passed})

print(f"{'source':<22}{'made':>6}{'kept':>6}{'yield':>8}{'distinct':>10}")
yields = {}
for source in dict.fromkeys(row["source"] for row in rows):
    made = [row for row in rows if row["source"] == source]
    kept = [row["text"] for row in made if all(row["checks"])]
    different = len({re.sub("[0-9]", "0", text.lower()) for text in kept})
    yields[source] = len(kept) / len(made)
    print(f"{source:<22}{len(made):>6}{len(kept):>6}{yields[source]:>8.0%}{different:>10}")
print(json.dumps(rows[-1]))

# %% [markdown]
# Read the last two columns together (`distinct` takes all digits as one). A yield says how much passes, not
# what it is worth. Messages that pass back-translation are those that the reader understands already. And a
# model that has found a sentence which passes tends to say it every time. The checks see no dullness: count
# what is different, keep real rows in the mix, and look at the collapse table above.

# %%
record(seed=SEED, clean_loss=losses["clean"], noisy_loss=losses["noisy"], clean_exact=scores["clean"].exact,
       noisy_exact=scores["noisy"].exact, training_seconds=sum(run.seconds for run in runs.values()),
       judge_agrees=mean((value > 0) == one for value, one in zip(sure, right, strict=True)),
       picks_first=mean(first), picks_better=mean(better), yields=yields)  # fmt: skip

# %% [markdown]
# ## Your own rows
#
# `load("my.csv")` gives your own data in the same form as the course's, checks every row, and splits off
# validation and test where there are none; see the top README. What this lesson did, in the order of a
# working day: read ten rows as text, count tokens and what counts in the loss, split by group, look for
# duplicates between the splits, write down the rules that every right answer keeps and count who breaks them,
# have fifty rows labelled twice. All of it costs less than one training run.

# %%
from pathlib import Path

path = Path("out/my.csv")
path.parent.mkdir(exist_ok=True)
lines = [f'"{row["message"].replace(chr(34), "")}",{json.loads(row["answer"])["intent"]}' for row in clean]
size = path.write_text("\n".join(["text,label", *lines]), encoding="utf-8")

# %% tags=["nbval-check-output"]
mine = load("out/my.csv")
print({split: len(part) for split, part in mine.items()})
print(mine["train"][0]["prompt"], mine["train"][0]["completion"])

# %% [markdown]
# ## What the field says, measured
#
# - 1,000 diverse accurate rows beat 10,000 noisy uniform ones (claim data-quality).
# - Adding unrelated data can hurt (data-mix). Gains diminish with quantity (data-returns).
# - 50 to 100 rows show whether finetuning helps (data-pilot).
# - Little data favours PEFT, much data full finetuning (data-crossover).
# - Step-by-step rows can nearly double accuracy (data-cot).
# - Curated rows rebalance a learned association (data-bias).
# - Training on model output over generations degrades; mixing real rows prevents it (data-collapse).

# %% tags=["nbval-check-output"]
claims("03")

# %% [markdown]
# ## Take-away
#
# - Read rows as the model sees them. A template may add a system message and drop a tool call, silently.
# - The loss is taken on the answer, its end token included; mask by place, never by id. Packed rows must not
#   see each other.
# - Rules that need no right answer find most bad rows. Agreement beyond chance shows where the guideline is
#   at fault.
# - Split by group, look for near duplicates, choose on validation, and open the test split once.
# - Rows made by a model want provenance, executable checks, and a count of how many are different.
#
# **Read:** Zhou et al., *LIMA: Less Is More for Alignment* (2023). Lee et al., *Deduplicating Training Data
# Makes Language Models Better* (2022). Li et al., *Self-Alignment with Instruction Backtranslation* (2023).
# Shumailov et al., *AI models collapse when trained on recursively generated data* (2024).
#
# **Next:** 04_full_finetuning trains every weight.
