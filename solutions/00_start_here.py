# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 00. `python -m labkit build 00` makes both notebooks from this file.

# %% [markdown]
# # 00 · Your first finetune, in minutes
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | finetune a real language model, and say in numbers what changed | Python, some PyTorch | {{budget}} |
#
# An outdoor shop gets thousands of messages. You want each of them as one strict JSON object that a
# program can file. In this lesson you watch a small language model fail at that, train it, and watch it
# get better. The budget above is for the whole lesson, on the machines named; CPUs that compute in bf16 (a
# 16-bit number format) are faster than the one measured.
#
# Run the cells from top to bottom with Shift+Enter. Two of them are exercises: write a few lines, then run
# the `check` cell below, which names the usual mistakes. Nothing later depends on your answers.

# %%
import json
from collections import Counter
from pathlib import Path

import torch

from labkit import (
    budget, check, claims, fit, generate, load, load_model, load_tokenizer, machine, plots, profile,
    record, recorded, score, seed_everything, solve,
)

# %% [markdown]
# ## The machine
#
# The course runs on two CPU cores or on a GPU. The same cells run on both, with another budget (the
# **profile**); one cell near the end needs a GPU and elsewhere shows what a recorded run printed.
# `python -m labkit doctor` in a terminal checks everything else.

# %%
SEED = 0
numbers = budget(
    cpu=dict(steps=85, lr=4e-3, batch=1, length=512, test_rows=128, base_rows=16),
    gpu=dict(steps=300, lr=2e-3, batch=8, length=512, test_rows=1000, base_rows=250),
    smoke=dict(steps=3, lr=3e-3, batch=1, length=256, test_rows=4, base_rows=2),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}: {numbers.steps} training steps")

# %% [markdown]
# ## The base model
#
# SmolLM2-135M-Instruct: small enough to train on a laptop, built like the large ones. Its
# weights here were stored in 4 bits and expanded again, so it is not the original checkpoint.

# %%
tokenizer = load_tokenizer()
model = load_model()

# %% tags=["nbval-check-output"]
shape, base_weights = model.config, model.num_parameters()
print(f"{base_weights:,} weights in {shape.num_hidden_layers} layers of width {shape.hidden_size}")
print(f"{shape.num_attention_heads} query heads share {shape.num_key_value_heads} key and value heads")
print(f"{shape.vocab_size:,} tokens; input and output embedding are one matrix:", shape.tie_word_embeddings)

# %% [markdown]
# A model reads token ids, not text. A chat is one long row of them, with markers around each turn:
# `<|im_start|>` begins one, `<|im_end|>` (the **end token**) closes it.

# %% tags=["nbval-check-output"]
question = [{"role": "system", "content": "You are helpful."}, {"role": "user", "content": "Name a fruit."}]
print(tokenizer.apply_chat_template(question, tokenize=False, add_generation_prompt=True))
ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_dict=False)
print([(token, tokenizer.decode(token)) for token in ids])

# %% [markdown]
# Everything after `<|im_start|>assistant` is the model's to write, one token at a time, each the most
# likely next one. Chat with it:

# %%
chat = [{"role": "user", "content": "What is the capital of France? Answer in one short sentence."}]
print(generate(model, tokenizer, [chat], max_new_tokens=30, progress=False)[0])

# %% [markdown]
# ## The task
#
# The messages were written by a program, for a shop that does not exist, so that no model has seen them
# and every answer can be checked by code. No phrasing of the test split occurs in training, and some of its
# products are new.

# %% tags=["nbval-check-output"]
data = load("tickets")
print({split: len(rows) for split, rows in data.items()})
row = data["train"][2]
print(row["message"])
print(row["answer"])
print(Counter(json.loads(answer)["intent"] for answer in data["train"]["answer"]).most_common(3))

# %% [markdown]
# `intent`, `urgency` and `missing` are always there; `product`, `order`, `quantity` and `date` only when
# the message gives them. `missing` lists what this intent needs and the message lacks: an invoice needs the
# order, a warranty claim the product. Order numbers are written as `N` and five digits, dates as `MM-DD`,
# product names as in the catalogue. The right answer of a row is called its **gold** answer.
#
# An answer is **valid** if it is JSON of this form: only these keys, an intent from the list, a number as
# quantity. It is **exact** if it also equals the gold answer.
#
# ## Predict
#
# Write your guesses down before you go on. They cost nothing, and a guess that was wrong is
# remembered.
#
# 1. Given the rules and solved examples in its prompt, how often does this model give **valid JSON** of
#    the right form? How often the **exact** object?
# 2. And after a short training, on messages phrased in ways it never saw?

# %% [markdown]
# ## Exercise 00.1: score strict JSON
#
# {{exercise:00.1}}
#
# A program will read these answers, so nearly right is wrong. Score a list of answers: the share whose
# JSON object equals the gold object. Key order and white space do not matter; text that is not
# JSON, or that wraps the JSON in a sentence, is wrong. The course's `score` counts like this.
#
# {{hint:00.1}}

# %% tags=["exercise"]
def exact_match(answers, golds):
    """Share of answers whose JSON object equals the gold object.

    answers: list of str, as a model wrote them; golds: list of dict, equally long.
    Returns a float from 0 to 1. The order of keys and white space do not matter; an answer that is
    not valid JSON, or is more than JSON, is wrong.
    """
    # BEGIN SOLUTION
    right = 0
    for answer, gold in zip(answers, golds, strict=True):
        try:
            right += json.loads(answer) == gold
        except ValueError:                       # not JSON: wrong
            pass
    return right / len(golds)
    # END SOLUTION


# %%
check("00.1", exact_match)

# %% [markdown]
# ## Before training: prompting
#
# Six prompts were tried, from one sentence to full rules with twenty solved examples. Here is the one that
# gave most valid answers in the recorded run; the table at the end shows all six. On a CPU it is tried on few
# messages only, because so long a prompt is slow.

# %%
from labkit.tasks.tickets import PROMPTS

size = len(data["test"])
test = data["test"].select([i * size // numbers.test_rows for i in range(numbers.test_rows)])
few = test.select(range(numbers.base_rows))
best = recorded("form_json", "best prompt")
ask = PROMPTS[best](data["train"])
prompts = [ask(row["message"]) for row in few]
before = score(model, tokenizer, few, prompts=prompts)
print(f"{best}, {before.n} rows: {before.valid:.0%} valid, {before.exact:.0%} exact")

# %%
for row, answer in list(zip(few, before.answers, strict=True))[:3]:
    print(f"message  {row['message']}\ngold     {row['answer']}\nmodel    {answer}\n")

# %% [markdown]
# It nearly always catches the form. The content is wrong: it guesses the intent and copies values out of the
# examples. Not one of the prompts gets the content out of this model. So change the weights.
#
# ## What training sees
#
# A training row is a prompt and the answer we want. The model predicts every next token; the **loss** is
# how surprised it was (minus the log of the probability it gave the right token). We take the loss on the
# answer only: there is no point in learning to write customers' messages. (The chat template adds a line
# break after the end token; it is trained on too.)

# %% tags=["nbval-check-output"]
row = data["train"][2]
prompt_ids = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
whole_ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
answer_ids = whole_ids[len(prompt_ids):]
print(f"{len(prompt_ids)} prompt tokens, {len(answer_ids)} answer tokens")
print("it ends with the end token and a line break:", repr(tokenizer.decode(answer_ids[-2:])))
print([tokenizer.decode(token) for token in answer_ids[:12]])

# %% [markdown]
# ## Exercise 00.2: where the loss is taken
#
# {{exercise:00.2}}
#
# Libraries mark positions without loss by the label `-100`. Return the labels for a prompt and an
# answer: `-100` on the prompt, the token's own id on the answer, its end token included. The model itself
# compares position t with token t + 1, so do not shift anything.
#
# {{hint:00.2}}

# %% tags=["exercise"]
def loss_labels(prompt_ids, answer_ids):
    """Labels for training on `prompt_ids + answer_ids`, with the loss on the answer only.

    prompt_ids, answer_ids: lists of int; the end token is part of answer_ids.
    Returns a list of int as long as both together: a token's own id where the loss is taken,
    -100 where it is not. The model shifts labels by one itself.
    """
    # BEGIN SOLUTION
    return [-100] * len(prompt_ids) + list(answer_ids)
    # END SOLUTION


# %%
check("00.2", loss_labels)

# %% [markdown]
# From here on the lesson uses its own version, `solve("00.2")`, whatever yours does.

# %% tags=["nbval-check-output"]
labels = solve("00.2")(prompt_ids, answer_ids)
print("positions with loss:", sum(label != -100 for label in labels), "of", len(labels))

# %% [markdown]
# ## Add an adapter
#
# Training all 135 million weights works, and lesson 04 does it. Here you freeze them and add an
# **adapter**: a small trainable detour to every linear layer of its blocks: **LoRA**. Lesson 05 builds it
# from scratch. For now, see that it is small (`r` sets its size), and that before training it changes
# nothing: the **logits**, the model's raw scores for every possible next token, stay the same.

# %%
from peft import LoraConfig, get_peft_model

inputs = tokenizer("The tent arrived with a", return_tensors="pt").to(model.device)
with torch.no_grad():
    logits_before = model(**inputs).logits
adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
model = get_peft_model(model, adapter)

# %% tags=["nbval-check-output"]
trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
print(f"{trainable:,} trainable weights, {trainable / base_weights:.1%} of the base's")
with torch.no_grad():
    print("same output as before:", torch.equal(model(**inputs).logits, logits_before))

# %% [markdown]
# ## Train
#
# This is the whole of it. `fit` is a plain training loop: take a few rows, compute the loss, nudge every
# trainable weight in the direction that lowers it, repeat. `batch` × `length` is how many tokens a step may
# hold; as many rows as fit are packed into it. On the CPU budget that is about five rows a step, some 420 of
# the 4,000; on the GPU budget 39, so that every row is seen about three times. The learning rate, a few
# thousandths, is high: LoRA wants about ten times what full finetuning does (lesson 05 measures it).

# %%
run = fit(
    model, data["train"], tokenizer, steps=numbers.steps, batch=numbers.batch, length=numbers.length,
    lr=numbers.lr, seed=SEED,
)
print(run)

# %%
start, end = run.losses[0], sum(run.losses[-10:]) / len(run.losses[-10:])
plots.losses(run, f"The loss falls from {start:.1f} to {end:.2g} in {run.steps} steps")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
print("the loss fell by more than 80%:", end < 0.2 * start)

# %% [markdown]
# ## After training
#
# Same model and messages, more of them. No rules and no examples in the prompt: one sentence and the message.

# %%
after = score(model, tokenizer, test, batch_size=128)
print(f"{after.n} rows: {after.valid:.0%} valid, {after.exact:.0%} exact")

# %% [markdown]
# `score` gives what exercise 00.1 gives:

# %% tags=["nbval-check-output"]
golds = [json.loads(answer) for answer in test["answer"]]
print("same share of exact answers:", solve("00.1")(after.answers, golds) == after.exact)

# %%
for row, answer in list(zip(test, after.answers, strict=True))[:3]:
    print(f"message  {row['message']}\ngold     {row['answer']}\nmodel    {answer}\n")

# %%
series = {}
for name, scores in {"best prompt": before, "after LoRA": after}.items():
    series[f"{name} ({scores.n} rows)"] = {"valid": scores.valid, "exact": scores.exact} | scores.fields
finding = f"Exact answers: {before.exact:.0%} by prompting, {after.exact:.0%} after training"
plots.before_and_after(series, finding)

# %% tags=["nbval-check-output", "smoke-skip-compare"]
print("valid in at least 90%:", after.valid >= 0.90)
print("exact at least 20 points above the best prompt:", after.exact - before.exact >= 0.20)

# %%
record(seed=SEED, exact_before=before.exact, valid_before=before.valid, exact_after=after.exact,
       valid_after=after.valid, training_seconds=run.seconds, tokens=run.tokens,
       tokens_per_second=run.tokens_per_second, rows_after=after.n, rows_before=before.n)

# %% [markdown]
# On the CPU budget most objects still have something wrong: good form, not yet a clerk. On the GPU budget
# about four of five are exactly right, after some 28 times the tokens.
#
# Look at the bars. Form is nearly always right, then what can be copied (order, quantity, date), then what
# must be judged (intent, urgency). A field counts as right too where it is rightly left out, so compare
# bars of one field, not fields with each other.
#
# ## The same adapter, off and on
#
# The base weights never changed. Switch the adapter off and the old model is back, to the last bit; switch
# it on and it writes tickets. One base can carry many such adapters, each a small file:

# %% tags=["nbval-check-output", "smoke-skip-compare"]
with torch.no_grad(), model.disable_adapter():
    print("adapter off, same output as the base model:", torch.equal(model(**inputs).logits, logits_before))
with torch.no_grad():
    print("adapter on, same output:", torch.equal(model(**inputs).logits, logits_before))

# %% tags=["nbval-check-output"]
model.save_pretrained("out/tickets-adapter")  # PeftModel.from_pretrained(load_model(), this folder) loads it
size = Path("out/tickets-adapter/adapter_model.safetensors").stat().st_size
print(f"adapter file: {size / 1e6:.1f} MB; base model: {base_weights * 4 / 1e6:.0f} MB (4 bytes a weight)")

# %% [markdown]
# Now write to it yourself. Change the message and run the cell again.

# %%
from labkit.tasks.tickets import render

mine = "Hi, I would like to return my Kestrel 2 tent from order 48213, it came on 3 March. It is urgent!"
with model.disable_adapter():
    print("off:", generate(model, tokenizer, [render(mine)], progress=False, max_new_tokens=40)[0])
print("on: ", generate(model, tokenizer, [render(mine)], progress=False)[0])

# %% [markdown]
# ## The same run as the field writes it
#
# `fit` is ours, so that you can read it. Most people use `trl`'s SFTTrainer. Here are the same data,
# method and number of steps in its words. On the GPU budget `fit` packs about 39 rows into a step, so trl
# gets 39; it pads them to equal length. Expect scores that are alike, not equal: the rows come in another
# order. Without a GPU you see what the recorded run printed.

# %% tags=["gpu"]
# %%gpu
from datasets import disable_progress_bars
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

disable_progress_bars()
settings = SFTConfig(
    output_dir="/tmp/trl", max_steps=numbers.steps, per_device_train_batch_size=39, learning_rate=numbers.lr,
    warmup_steps=numbers.steps // 10, lr_scheduler_type="linear", bf16=True, gradient_checkpointing=False,
    max_length=512, save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True,
    seed=SEED,
)
trainer = SFTTrainer(
    load_model(), settings, train_dataset=data["train"].select_columns(["prompt", "completion"]),
    peft_config=adapter, processing_class=tokenizer,
)
trainer.remove_callback(PrinterCallback)
seconds = trainer.train().metrics["train_runtime"]
theirs = score(trainer.model, tokenizer, test, batch_size=250, progress=False)
print(f"on {after.n} test rows")
print(f"trl: {theirs.valid:.1%} valid, {theirs.exact:.1%} exact after {seconds:.0f} s of training")
print(f"fit: {after.valid:.1%} valid, {after.exact:.1%} exact after {run.seconds:.0f} s of training")

# %% [markdown]
# ## What the field says, measured
#
# > Finetuning makes output strictly valid JSON where prompting is fragile. (claim form-json)
#
# The ranges that would count as yes (bands) were fixed first. Then the task's difficulty was set on trial
# runs of this same model, so the result is about this task and model. Each value stands beside its 95%
# interval: where the score would likely fall with other test phrasings and other training seeds.

# %% tags=["nbval-check-output", "recorded"]
claims("00")

# %% [markdown]
# So the sentence does not hold here as it stands: ten examples gave 96% valid JSON, constrained decoding
# all of it. Prompting is fragile all the same: the six range from 0% to over 90%, and twenty examples did
# worse than ten. Finetuning comes out between 98.3% and 100.0%, which may or may not reach the 99% asked
# for; more phrasings and more seeds would decide. What finetuning changes is the content: from under 1%
# exact to 78%.
#
# Everything that was tried:
#
# {{form-json}}
#
# Constrained decoding forbids every token that would break the form. It enforces the form, if the answer
# ends in time, and leaves exact answers where they were.

# %% [markdown]
# ## Take-away
#
# - Supervised finetuning: show prompt and answer, take the loss on the answer, step, repeat.
# - A small adapter is enough to teach a form, and it can be switched off.
# - Valid is not right: prompting gave valid JSON with wrong content. Count exact answers.
# - A prompt costs tokens at every request; training costs once.
# - A measured number needs its rows, its interval and its machine beside it.
#
# **Read:** Hu et al., *LoRA: Low-Rank Adaptation of Large Language Models* (2021). Ouyang et al., *Training
# language models to follow instructions with human feedback* (2022), section 3.
#
# **Next:** 01_memory_math asks where the memory goes, and predicts it before it measures.
