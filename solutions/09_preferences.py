# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 09. `python -m labkit build 09` makes both notebooks from this file.

# %% [markdown]
# # 09 · Preferences: reward models, DPO, RL
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | build pairs, derive and train DPO, write GRPO, and judge what each did | lessons 00 and 05 | {{budget}} |
#
# So far every row had one right answer. A reply to a customer has none: some replies are better than others,
# and it is easier to say which than to write a better one. The field's way has three stages:
#
# 1. **Supervised finetuning** (SFT): show answers, and the model imitates them.
# 2. **Preferences**: let the model answer several times, and have people, or rules, say which is better.
# 3. **Optimise**: train a **reward model** on these verdicts and follow it by reinforcement learning (RLHF,
#    with PPO or GRPO); or train on the pairs at once, without either (**DPO**).
#
# A CPU run is a few steps on a few short answers: it shows the **mechanism**. The GPU run and the record show
# what the methods are worth.

# %%
import copy
import logging
import tempfile

import torch

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
from datasets import Dataset
from IPython.display import Markdown
from torch.nn.functional import logsigmoid
from transformers import LlamaConfig, LlamaForCausalLM
from trl import DPOConfig, DPOTrainer

from labkit import (
    LabkitError, budget, check, claims, device, fit, load, load_model, load_tokenizer, machine, plots,
    profile, record, seed_everything, solve,
)
from labkit.bench import preferences_report
from labkit.methods import lora
from labkit.methods import preferences as pr
from labkit.methods.preferences.sampling import prompt_ids
from labkit.tasks import general, voice

# %% tags=["setup"]
import math
from statistics import mean, stdev

# %%
SEED, BETA, SMALL = 0, 0.1, 0.001
numbers = budget(
    cpu=dict(start=7, batch=1, length=512, rows=8, group=4, words=72, reward=3, steps=3, pairs=2, rate=1e-3,
             betas=(BETA,), tested=3, shown=3, texts=1, hand=10, grpo=(2, 1, 4, 16)),
    gpu=dict(start=60, batch=8, length=512, rows=300, group=4, words=110, reward=40, steps=100, pairs=16,
             rate=1e-4, betas=(BETA, SMALL), tested=200, shown=64, texts=60, hand=110, grpo=(15, 8, 8, 80)),
    smoke=dict(start=1, batch=1, length=256, rows=2, group=2, words=20, reward=1, steps=2, pairs=2, rate=1e-3,
               betas=(BETA,), tested=2, shown=1, texts=1, hand=8, grpo=(1, 1, 2, 4)),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. DPO prefers the chosen answer to the rejected one. Does the chosen answer's own probability rise or fall?
# 2. DPO against SFT on the chosen answers, at equal compute: in what share of messages is DPO's reply better?
# 3. Replies have about 50 words before DPO. How many after it?
# 4. beta of 0.03, 0.1 or 1, all else equal: which run ends closest to where it began?
#
# ## A judge, and rules it must not see
#
# The task is `voice`: replies in the voice of an outdoor shop, judged by executable rules. 17 of them build
# pairs; 7 more are **held out**: they judge the end and never choose a pair. Otherwise you would measure how
# well a model learns your rules, not whether it became better.

# %% tags=["nbval-check-output"]
ready = voice.load_pairs()["train"]
print(f"{len(voice.PAIR_RULES)} rules build pairs; held out: {', '.join(voice.HELD_OUT_RULES)}")
kept = {side: [sum(voice.kept(pair["message"], pair[side][0]["content"], voice.HELD_OUT_RULES).values())
               for pair in ready.select(range(300))] for side in ("chosen", "rejected")}
print("pairs in which both sides keep as many held-out rules:",
      f"{mean(a == b for a, b in zip(kept['chosen'], kept['rejected'], strict=True)):.0%}")
for name, pairs in {"ready-made": ready, "length-balanced": pr.length_balanced(ready)}.items():
    print(f"{name}: {len(pairs)} pairs, chosen is longer in {mean(g > 0 for g in pr.length_gaps(pairs)):.0%}")

# %% [markdown]
# Both sides of a ready-made pair keep as many held-out rules, by construction: such pairs carry no held-out
# signal. The last lines are a warning. In the ready-made pairs the chosen reply is the longer one in 70%:
# whoever learns "longer is better" is right that often. `length_balanced` keeps a subset where length says
# nothing.
#
# ## Start: finetune on drafts of mixed quality, which leave room to improve

# %%
tokenizer, data = load_tokenizer(), load("voice")
start = load_model()
print(fit(start, data["train"], tokenizer, steps=numbers.start, lr=3e-4, batch=numbers.batch,
          length=numbers.length, seed=SEED))

# %% [markdown]
# ## On-policy pairs
#
# Pairs teach most where the model is: let rules judge its **own** answers, several to each message. An
# answer's reward is the share of the 17 rules that it keeps; a text that is no reply to the message, such as
# one of too many words, keeps none, however civil it is. What own answers buy over ready-made pairs is a row
# of the record's table below.

# %%
def reward(row, text):                                                     # share of the pair rules kept
    return voice.reward(row["message"], text)


rows = data["train"].select(range(numbers.rows)).to_list()
answers = pr.sample(start, tokenizer, [row["prompt"] for row in rows], n=numbers.group,
                    max_new_tokens=numbers.words, seed=SEED)
rewards = torch.tensor([[reward(row, one.text) for one in some]
                        for row, some in zip(rows, answers, strict=True)])
shown = int(rewards.std(-1).argmax())                                      # where answers differ most
print(rows[shown]["message"])
for one, share in zip(answers[shown], rewards[shown].tolist(), strict=True):
    print(f"\n{share:.0%} of the rules kept{'' if one.ended else ' (cut off)'}: {one.text}")

# %% [markdown]
# ## Exercise 09.1: a pair
#
# {{exercise:09.1}}
#
# {{hint:09.1}}

# %% tags=["exercise"]
def pair_of(answers, rules):
    """A preference pair from one prompt's judged answers: the best and the worst by the rules named.

    answers: list of tuples (text, kept) where kept says of each rule (a str) whether the text keeps it; it
    holds more rules than `rules`, those that pairs may be built from. Among equals the first counts. Returns
    a tuple (chosen, rejected) of texts, or None where all answers are equally good.
    """
    # BEGIN SOLUTION
    counts = [sum(kept[name] for name in rules) for _, kept in answers]
    if min(counts) == max(counts):
        return None
    return answers[counts.index(max(counts))][0], answers[counts.index(min(counts))][0]
    # END SOLUTION


# %%
check("09.1", pair_of)

# %% [markdown]
# `on_policy` does that for all messages, with the answers that ended. One that was cut off makes no pair:
# trl would put the end token behind it, and the model would learn to stop in the middle of a sentence.

# %%
def build_pairs(rows, answers):
    try:
        return pr.on_policy(rows, answers, seed=SEED).to_list()
    except LabkitError as error:                                           # on a small budget
        print(f"ready-made pairs instead: {error}")
        return ready.select(range(numbers.shown)).to_list()


pairs = build_pairs(rows, answers)
gaps = pr.length_gaps(pairs)
print(f"{len(pairs)} pairs from {numbers.rows} messages")
print(f"chosen is longer in {sum(g > 0 for g in gaps)}, shorter in {sum(g < 0 for g in gaps)},",
      f"by {mean(gaps):+.1f} words on average")

# %% [markdown]
# ## A reward model
#
# **Bradley-Terry** gives each answer a number r and says: chosen wins with probability sigmoid(r(chosen) -
# r(rejected)). The loss is minus the log of that. Only differences count: a constant added to all rewards of
# a prompt changes nothing. Remember that; DPO lives on it. (A reward is of use without any training: sample n
# answers and keep the one it likes best, **best-of-n**.)

# %% tags=["nbval-check-output"]
def bradley_terry_loss(chosen, rejected):                                  # (pairs,) each
    return -logsigmoid(chosen - rejected).mean()


chosen, rejected = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([1.0, 0.5, 1.0])
print("chances of chosen:", [round(p, 2) for p in (chosen - rejected).sigmoid().tolist()])
loss = bradley_terry_loss(chosen, rejected)
for name, a, b in (("both", 7, 7), ("one", 7, 0)):
    same = torch.allclose(loss, bradley_terry_loss(chosen + a, rejected + b))
    print(f"the same loss with 7 added to {name}: {same}")

# %% [markdown]
# The reward model is the language model with another head: one number, read at the last token. Train it on
# the ready-made pairs, with the planted length signal, by trl's `RewardTrainer`.

# %%
judged = voice.load_pairs()["test"].select(range(2 * numbers.tested))
some = ready.shuffle(seed=SEED).select(range(numbers.reward * numbers.pairs))
scorer, _ = pr.reward_model(start, some, tokenizer, steps=numbers.reward, batch=numbers.pairs, lr=3e-4,
                            seed=SEED)
sides = {side: [pair[side][0]["content"] for pair in judged] for side in ("chosen", "rejected")}
found = {side: pr.rewards(scorer, tokenizer, judged["prompt"], texts) for side, texts in sides.items()}
_ = scorer.unload()                                                        # `start` is as it was

# %%
accuracy = pr.pair_accuracy(found["chosen"], found["rejected"])
calibration = pr.calibration_error(found["chosen"], found["rejected"])
lengths = [pr.words_of(text) for texts in sides.values() for text in texts]
correlation = pr.length_correlation(found["chosen"] + found["rejected"], lengths)
print(f"{len(judged)} test pairs: {accuracy:.0%} right, calibration error {calibration:.2f},",
      f"correlation of reward and words {correlation:+.2f}")
record(**{"reward accuracy": accuracy, "reward model and words": correlation})

# %% [markdown]
# (Calibration: of the pairs in which it claims 80%, it should be right in 80%.) A reward model that does
# worse on balanced pairs has learnt some length. The record has one of balanced pairs too, made so from the
# outset (`load_pairs(balanced=True)`). Then it says how the rules' own reward goes with the length of the
# start's samples, under a reward that caps length: 15 to 60 words (claim pref-length).

# %% tags=["recorded"]
Markdown("\n".join([*preferences_report.reward_table(), "", *preferences_report.length_table()]))

# %% [markdown]
# ## DPO: the reward model inside the policy
#
# RLHF looks for a policy p that earns reward and stays near a **reference**, the model it began as: maximise
# mean r(y) - beta · KL(p ‖ ref), the mean over answers y of p. Its optimum is known:
#
# p*(y) = ref(y) · exp(r(y) / beta) / Z.
#
# Z makes the sum 1; to compute it you would have to add up over all answers there are. Solve for r instead:
#
# r(y) = beta · log(p*(y) / ref(y)) + beta · log Z.
#
# Put that into Bradley-Terry, where only differences count: **Z cancels** (it is the same for both answers to
# a prompt). What is left is a loss on the
# policy itself:
#
# loss = -log sigmoid(beta · margin), with
#
# margin = log(p(chosen) / ref(chosen)) - log(p(rejected) / ref(rejected)).
#
# No reward model, no sampling. Check both steps on a world of six answers:

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
ref, r, beta = torch.randn(6).double().softmax(-1), torch.randn(6).double(), 0.5


def objective(p):                                                          # (..., 6) -> (...)
    return (p * r).sum(-1) - beta * (p * (p / ref).log()).sum(-1)


best = (ref.log() + r / beta).softmax(-1)                                  # ref exp(r / beta) / Z
others = torch.cat([torch.rand(50_000, 6).double().softmax(-1),
                    (best.log() + 0.05 * torch.randn(50_000, 6)).softmax(-1)])
print("none of 100,000 others is better:", bool((objective(others) < objective(best)).all()))
implied = beta * (best / ref).log()
print("the implied reward is r but for one constant:", torch.allclose(implied - implied[0], r - r[0]))

# %% [markdown]
# ## Exercise 09.2: an answer's log-probability
#
# {{exercise:09.2}}
#
# {{hint:09.2}}

# %% tags=["exercise"]
def sequence_logp(scores, ids, mask):
    """log p(answer | prompt) in nats: one number for the whole answer.

    ids: token ids of prompt, answer and padding, in this order. mask: 1 on the answer's tokens, else 0.
    scores[t][v]: log p(token t + 1 is v | tokens 0 to t), as a model puts it out. Returns a float.
    """
    # BEGIN SOLUTION
    return sum(scores[t - 1][ids[t]] for t in range(1, len(ids)) if mask[t])
    # END SOLUTION


# %%
check("09.2", sequence_logp)

# %% [markdown]
# ## Exercise 09.3: the loss
#
# {{exercise:09.3}}
#
# {{hint:09.3}}

# %% tags=["exercise"]
def dpo_loss(pairs, beta):
    """The DPO loss of a batch: the mean over pairs of -log sigmoid(beta * margin).

    pairs: list of tuples (chosen, rejected, ref_chosen, ref_rejected) of log-probabilities: of the two
    answers by the policy, then by the reference. margin: by how much more than the reference the policy
    prefers chosen. Returns a float.
    """
    # BEGIN SOLUTION
    margins = [(chosen - ref_chosen) - (rejected - ref_rejected)
               for chosen, rejected, ref_chosen, ref_rejected in pairs]
    return sum(math.log1p(math.exp(-beta * margin)) for margin in margins) / len(margins)
    # END SOLUTION


# %%
check("09.3", dpo_loss)

# %% [markdown]
# What does a step push, in which direction, and how hard?
#
# ## Exercise 09.4: the gradient
#
# {{exercise:09.4}}
#
# {{hint:09.4}}

# %% tags=["exercise"]
def dpo_gradient(chosen, rejected, ref_chosen, ref_rejected, beta):
    """The derivative of -log sigmoid(beta * margin) by each of the four log-probabilities, while training.

    margin as in 09.3. Training moves the policy and holds the reference still. Returns a tuple of four floats
    in the order of the arguments.
    """
    # BEGIN SOLUTION
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    size = beta / (1 + math.exp(beta * margin))                            # beta * sigmoid(-beta * margin)
    return -size, size, 0.0, 0.0
    # END SOLUTION


# %%
check("09.4", dpo_gradient)

# %% [markdown]
# The two answers are pushed in opposite directions, and equally hard; the reference is held still. The loss
# asks for a **difference**: it does not ask that chosen rises.
#
# ## Build
#
# In tensors, with two variants that change one thing each. **IPO** asks for a margin of 1 / (2 beta), and no
# more: DPO's loss has its best value at an infinite margin. **Length-normalised DPO** takes means over
# tokens, so that a long answer has no larger log-ratio for being long.

# %%
def token_logps(logits, ids):                                              # of all tokens but the first
    scores = logits[:, :-1].float().log_softmax(-1)                        # (batch, seq - 1, vocab)
    return scores.gather(-1, ids[:, 1:, None]).squeeze(-1)                 # (batch, seq - 1)


def sequence_logps(logits, ids, mask):                                     # mask (batch, seq) -> (batch,)
    return (token_logps(logits, ids) * mask[:, 1:]).sum(-1)                # the SUM over the answer


def dpo(chosen, rejected, ref_chosen, ref_rejected, beta):                 # (pairs,) each
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return -logsigmoid(beta * margin).mean()


def ipo(chosen, rejected, ref_chosen, ref_rejected, beta):
    margin = (chosen - ref_chosen) - (rejected - ref_rejected)
    return (margin - 1 / (2 * beta)).square().mean()


def mean_logps(logits, ids, mask):
    return sequence_logps(logits, ids, mask) / mask[:, 1:].sum(-1)         # these go into `dpo`


# %% [markdown]
# ## Prove it: trl
#
# Two small random models, four made-up rows, padded: loss and all gradients, against trl's trainer. (trl's
# `ipo` takes means over tokens, where the paper has sums.)

# %%
def small(seed):
    torch.manual_seed(seed)
    shape = LlamaConfig(vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3)
    return LlamaForCausalLM(shape).eval()


policy, reference = small(0), small(1)
made = {name: torch.zeros(4, 10, dtype=torch.long)
        for name in ("input_ids", "attention_mask", "completion_mask")}
for row, (prompt, answer) in enumerate([(4, 5), (3, 2), (4, 3), (3, 6)]):  # two chosen, then two rejected
    made["input_ids"][row, : prompt + answer] = torch.randint(3, 40, (prompt + answer,))
    made["attention_mask"][row, : prompt + answer] = 1
    made["completion_mask"][row, prompt : prompt + answer] = 1

# %%
def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return [loss.item(), *(weight.grad.clone() for weight in model.parameters())]


def ours(loss, logps, beta=0.5):
    def sides(model):
        logits = model(made["input_ids"], attention_mask=made["attention_mask"]).logits
        return logps(logits, made["input_ids"], made["completion_mask"]).chunk(2)

    with torch.no_grad():
        still = sides(reference)
    return gradients(policy, loss(*sides(policy), *still, beta))


def theirs(kind, beta=0.5):
    settings = DPOConfig(output_dir=tempfile.mkdtemp(), beta=beta, loss_type=[kind], use_cpu=True, bf16=False,
                         report_to="none", disable_tqdm=True, gradient_checkpointing=False)
    rows = Dataset.from_list([{"prompt": "a", "chosen": " b", "rejected": " c"}])
    trainer = DPOTrainer(copy.deepcopy(policy), copy.deepcopy(reference), settings, train_dataset=rows,
                         processing_class=tokenizer)
    return gradients(trainer.model, trainer.compute_loss(trainer.model, made))


def apart(ours, theirs):
    pairs = zip(map(torch.as_tensor, ours), map(torch.as_tensor, theirs), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


expected = {kind: theirs(kind) for kind in ("sigmoid", "ipo", "sigmoid_norm")}

# %% tags=["nbval-check-output"]
recipes = {"sigmoid": (dpo, sequence_logps), "ipo": (ipo, mean_logps), "sigmoid_norm": (dpo, mean_logps)}
for kind, recipe in recipes.items():
    print(f"{kind}: loss and gradients equal to 1e-5: {apart(ours(*recipe), expected[kind]) < 1e-5}")
print("DPO with means for sums differs:", apart(ours(dpo, mean_logps), expected["sigmoid"]) > 1e-2)

# %% [markdown]
# ## Train: DPO against SFT on the chosen answers
#
# Is it the pairs that teach, or the good answers in them? Train LoRA copies of the start: **SFT** on the
# chosen answers alone, **DPO**, and on the GPU budget DPO with a far too small beta. Equal compute, in tokens
# read: DPO reads both answers of a pair, with the policy and with the reference, so SFT reads a chosen one
# four times as often. No rate here is tuned. In the record SFT, DPO, GRPO and reward models have tuned rates
# (GRPO's after half of its steps), arms on pairs share DPO's, GRPO's beta stays at 0.04, and SFT may stop at
# a half or a quarter of its steps.
# (Packed rows keep a few percent empty, so that `fit` reports a little less than is announced.)

# %%
def tokens_of(pair, side):
    text = tokenizer.apply_chat_template([*pair["prompt"], *pair[side]], tokenize=False)
    return len(tokenizer(text, add_special_tokens=False).input_ids)


each = mean(tokens_of(pair, "chosen") + tokens_of(pair, "rejected") for pair in pairs)
tokens = 2 * numbers.steps * numbers.pairs * each
sft_steps = max(1, round(tokens / (numbers.batch * numbers.length)))
print(f"DPO: {numbers.steps} steps of {numbers.pairs} pairs; SFT: {sft_steps} steps, {tokens:,.0f} tokens")

chosen_rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in pairs]
arms = {"SFT": lora.adapted(copy.deepcopy(start), 16)}
print(fit(arms["SFT"], chosen_rows, tokenizer, steps=sft_steps, lr=1e-3, batch=numbers.batch,
          length=numbers.length, seed=SEED))

# %%
histories = {}
for name, beta in zip(("DPO", f"DPO, beta {SMALL}"), numbers.betas, strict=False):
    arms[name], histories[name] = pr.dpo(copy.deepcopy(start), pairs, tokenizer, beta=beta, lr=numbers.rate,
                                         steps=numbers.steps, batch=numbers.pairs, seed=SEED)

# %% tags=["nbval-check-output"]
probe = torch.tensor(prompt_ids([rows[0]["prompt"]], tokenizer), device=device())
with torch.no_grad(), arms["DPO"].disable_adapter():
    same = torch.equal(arms["DPO"](probe).logits, start(probe).logits)
print("the reference is the start, bit for bit:", same)
print("the margin begins at 0:", abs(histories["DPO"][0]["margin"]) < 1e-3)

# %% [markdown]
# ## Measure: what moved?
#
# Log-probabilities of pairs trained on, answer and end token, as changes from the start. Look at **both**
# bars: a margin grows when chosen rises, and as well when chosen falls and rejected falls faster.

# %%
def tensors(prompt, answers):
    """One prompt with several answers, token ids: model inputs, and the mask of answer tokens."""
    prompt = prompt_ids([prompt], tokenizer)[0]
    whole = {"input_ids": [prompt + ids for ids in answers]}
    padded = tokenizer.pad(whole, padding_side="right", return_tensors="pt").to(device())
    mask = padded.attention_mask.clone()
    mask[:, : len(prompt)] = 0
    return padded, mask


@torch.no_grad()
def pair_logps(model, pairs):                                              # (pairs, 2), nats
    found = []
    for pair in pairs:
        texts = [pair[side][0]["content"] + tokenizer.eos_token for side in ("chosen", "rejected")]
        padded, mask = tensors(pair["prompt"], tokenizer(texts).input_ids)
        found.append(sequence_logps(model(**padded).logits, padded.input_ids, mask))
    return torch.stack(found).cpu()


few = pairs[: numbers.shown]
before = pair_logps(start, few)
change = {name: (pair_logps(arm, few) - before).mean(0).tolist() for name, arm in arms.items()}

# %%
title = "DPO moves chosen answers by {:+.1f} nats, rejected ones by {:+.1f}".format(*change["DPO"])
fig, axes = plots.figure(title, "", "change of log-probability (nats an answer)")
for place, (side, hatch) in enumerate({"chosen": "", "rejected": "//"}.items()):
    heights = [values[place] for values in change.values()]
    at = [x + 0.4 * place - 0.2 for x in range(len(change))]
    bars = axes.bar(at, heights, 0.36, label=side, hatch=hatch, color=plots.COLOURS[place], edgecolor="white")
    axes.bar_label(bars, [f"{height:+.1f}" for height in heights], fontsize=8, padding=1)
axes.axhline(0, color="black", linewidth=0.8)
axes.margins(y=0.15)
axes.set_xticks(range(len(change)), [f"DPO, beta {BETA}" if name == "DPO" else name for name in change])
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
said = "; ".join(f"{name}: chosen {a:+.1f}, rejected {b:+.1f}" for name, (a, b) in change.items())
plots.show(fig, f"Bars of changes of log-probability. {said} nats.")
record(**{f"{name} chosen": values[0] for name, values in change.items()})

# %% [markdown]
# That is the first guess, on your budget. (These are pairs trained on, so they move far more than new
# answers, over which KL is measured below.) In a few steps a beta of 0.001 would do the same, since AdamW
# takes the scale out of a gradient. Later they part: at 0.1 the sigmoid saturates and a pair that is won
# stops pushing; at
# 0.001 all push as long as you train. **The failure to know**: the margin grows and grows, while chosen falls
# too, only slower than rejected, and probability goes to texts that nobody judged. A log of the margin does
# not show it: plot the chosen answer's log-probability, and measure KL. The record, by beta:

# %% tags=["recorded"]
Markdown("\n".join(preferences_report.failure_table()))

# %% [markdown]
# Now new messages. Wins are by the held-out rules, ties half, of sampled answers (in the record of greedy
# ones). **Length controlled**: a logistic regression of the verdict on tanh(difference in words / its
# standard deviation), read where that is 0. **KL**: nats an answer from the start. Perplexity of plain
# English says what else was touched.

# %%
test = data["test"].select(range(numbers.tested)).to_list()
asked = [row["prompt"] for row in test]
replies = {name: pr.sample(arm, tokenizer, asked, n=1, max_new_tokens=numbers.words, seed=SEED)
           for name, arm in {"start": start, **arms}.items()}
divergence = {name: pr.divergence(arm, tokenizer, asked, replies[name]).mean for name, arm in arms.items()}
passages = [text[:400] for text in general.passages()[: numbers.texts]]
perplexity = {name: general.perplexity(arm, tokenizer, passages, progress=False).perplexity
              for name, arm in {"start": start, **arms}.items()}

# %%
clusters = [row["phrasing"] for row in test]


def wins(ours, theirs):
    verdicts, gaps = pr.compare(test, *([one for one, in replies[name]] for name in (ours, theirs)))
    rates = pr.win_rate(verdicts, clusters), pr.length_controlled(verdicts, gaps, clusters)
    return [f"{rate.mean:.0%} [{rate.low:.0%}, {rate.high:.0%}]" for rate in rates]


print(f"{'':<17}{'wins over start':>18}{'length-controlled':>19}{'KL':>7}{'words':>7}{'perplexity':>12}")
for name in replies:
    said = wins(name, "start") if name != "start" else ["", ""]
    words = mean(pr.words_of(some[0].text) for some in replies[name])
    kl = divergence.get(name, 0.0)
    print(f"{name:<17}{said[0]:>18}{said[1]:>19}{kl:>7.2f}{words:>7.1f}{perplexity[name]:>12.1f}")
    record(**{f"{name} KL": kl, f"{name} words": words, f"{name} perplexity": perplexity[name]})
print("DPO over SFT: {}, length-controlled {}".format(*wins("DPO", "SFT")))

# %% [markdown]
# One seed, few messages: brackets are 95% intervals over other phrasings, and on the CPU budget they say
# that nothing is known yet. On the GPU budget compare the KL of both betas. The recorded run has several
# seeds and tuned rates: the second, third and fourth guess.

# %% tags=["recorded"]
Markdown("\n".join(preferences_report.arms_table()))

# %% [markdown]
# ## GRPO: no pairs, only a reward
#
# Where a reward can be **computed**, as here, you need no pairs. Sample a group of answers to a prompt; what
# counts is how much better each one is than its group. That is its **advantage**.
#
# ## Exercise 09.5: advantages
#
# {{exercise:09.5}}
#
# {{hint:09.5}}

# %% tags=["exercise"]
def group_advantages(rewards, group):
    """GRPO's advantages: (reward - mean of its group) / (standard deviation of its group + 1e-4).

    rewards: the `group` answers to the first prompt, then those to the second, and so on. The deviation is
    the sample's, which divides by group - 1. Returns a list of float in the same order.
    """
    # BEGIN SOLUTION
    out = []
    for begin in range(0, len(rewards), group):
        values = rewards[begin : begin + group]
        out += [(value - mean(values)) / (stdev(values) + 1e-4) for value in values]
    return out
    # END SOLUTION


# %%
check("09.5", group_advantages)

# %% [markdown]
# Then raise the probability of each token of a good answer, lower that of a bad one. Answers are expensive,
# so one may take several steps on them. ratio = p(token) / p_old(token) says how far the policy has gone
# since it sampled them, and beyond 1 ± epsilon there is nothing more to gain.
#
# ## Exercise 09.6: the clipped gain
#
# {{exercise:09.6}}
#
# {{hint:09.6}}

# %% tags=["exercise"]
def clipped_gain(new, old, advantage, epsilon):
    """GRPO's gain of one answer: the mean over tokens of min(ratio * A, clipped * A).

    new, old: log-probabilities of the answer's tokens, by the policy that is trained and by the one that
    sampled. ratio = new / old, as probabilities; clipped: the ratio, but no less than 1 - epsilon and no more
    than 1 + epsilon. advantage: A, one float, which may be negative. Returns a float.
    """
    # BEGIN SOLUTION
    ratios = [math.exp(a - b) for a, b in zip(new, old, strict=True)]
    clipped = [min(max(ratio, 1 - epsilon), 1 + epsilon) for ratio in ratios]
    gains = [min(ratio * advantage, other * advantage) for ratio, other in zip(ratios, clipped, strict=True)]
    return sum(gains) / len(gains)
    # END SOLUTION


# %%
check("09.6", clipped_gain)

# %% [markdown]
# All of GRPO in one cell. The last term holds the policy near the reference: with q = ref / policy,
# k3 = q - log q - 1 estimates KL(policy ‖ ref) at each token, and is never negative. (Its gradient is on
# average that of KL(ref ‖ policy), which pulls the same way.)

# %%
def grpo_loss(new, old, reference, rewards, mask, beta=0.04, epsilon=0.2):  # rewards (group,)
    advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-4)
    ratio, A = (new - old).exp(), advantages[:, None]
    gain = torch.min(ratio * A, ratio.clamp(1 - epsilon, 1 + epsilon) * A)
    log_q = reference - new                                                # (group, tokens)
    k3 = log_q.exp() - log_q - 1
    return (((beta * k3 - gain) * mask).sum(-1) / mask.sum(-1)).mean()


# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
new, old = torch.randn(2, 4, 6).double() - 2                               # (group, tokens) each
made_rewards, everywhere = torch.tensor([0.2, 0.9, 0.5, 0.4]).double(), torch.ones(4, 6)
A = solve("09.5")(made_rewards.tolist(), 4)
slow = -mean(solve("09.6")(*one, 0.2) for one in zip(new.tolist(), old.tolist(), A, strict=True))
fast = grpo_loss(new, old, new, made_rewards, everywhere)
print("by the plain references, to 1e-9:", abs(fast.item() - slow) < 1e-9)
held = grpo_loss(new, old, old, made_rewards, everywhere)
print("the KL term only ever adds:", bool(held > fast))

# %% [markdown]
# Two steps by hand on the same answers, those printed above (cut short on small budgets). One step of this
# rate moves an answer by many nats, so most ratios leave 1 ± epsilon at once: there the gain is flat, and
# what drives the second step is the KL term and the tokens that went the wrong way. That is clipping:

# %%
padded, mask = tensors(rows[shown]["prompt"], [one.ids[: numbers.hand] for one in answers[shown]])
mask = mask[:, 1:]                                                         # as of `token_logps`
hand = lora.adapted(copy.deepcopy(start), 16)
optimizer = torch.optim.AdamW([weight for weight in hand.parameters() if weight.requires_grad], lr=1e-3)
losses, totals = [], []
for _ in range(3):
    new = token_logps(hand(**padded).logits, padded.input_ids)
    if not losses:
        old = new.detach()                                                 # the sampler, and the reference
    loss = grpo_loss(new, old, old, rewards[shown].to(device()), mask)
    losses.append(loss.item())
    totals.append((new.detach() * mask).sum(-1).tolist())
    if len(losses) < 3:                                                    # the third look takes no step
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
for share, *path in zip(rewards[shown].tolist(), *totals, strict=True):
    print(f"reward {share:.0%}: log-probability " + " -> ".join(f"{total:.1f}" for total in path))

# %% tags=["nbval-check-output"]
print("the first loss is 0 (ratios of 1, advantages that add up to 0):", abs(losses[0]) < 1e-4)
hand = optimizer = new = old = loss = None                                 # their memory is wanted below

# %% [markdown]
# The same by trl, with new answers at every step: all ratios are 1, and clipping never acts (it does with
# `iterations` above 1). On the CPU budget this shows that it runs, not that it learns: trl's first step has a
# rate of 0, so both steps print the same policy, on two messages.

# %%
steps, batch, group, length = numbers.grpo
_, history = pr.grpo(copy.deepcopy(start), rows, tokenizer, reward, steps=steps, batch=batch, group=group,
                     max_new_tokens=length, lr=numbers.rate, seed=SEED)
for entry in history[:: max(1, len(history) // 4)]:
    print(f"step {entry['step']}: reward {entry['reward']:.2f} ± {entry['reward_std']:.2f},",
          f"{entry['tokens']:.0f} tokens, KL {entry['kl']:.3f} a token,",
          f"groups of equal rewards {entry['equal_groups']:.0%}")

# %% [markdown]
# **PPO**, the older way, trains another network, often of the policy's size, the **value network**, which
# guesses at every token what reward will come; its guesses become advantages token by token (generalised
# advantage estimation, GAE). GRPO puts the group's mean in its place: no value network, no GAE, one advantage
# for all tokens of an answer. Clipping is PPO's.
#
# ## Reward for KL: the record
#
# Going further away earns more reward, up to a point. So compare what methods earn **at equal distance**:

# %% tags=["recorded"]
Markdown("\n".join(preferences_report.frontier_table()))

# %% tags=["recorded"]
preferences_report.show_frontier()

# %% [markdown]
# ## What the field says, measured
#
# A word on power: with 8 seeds the interval of a ratio of two spreads reaches from 0.45 to 2.2 times what was
# found, so that only methods whose spreads differ more than twofold can be told apart.

# %% tags=["nbval-check-output", "recorded"]
claims("09")

# %% [markdown]
# ## Take-away
#
# - A reward model knows differences only; look at its accuracy on pairs where length says nothing.
# - DPO is Bradley-Terry with beta · log(policy / reference) as the reward; log-probabilities are summed.
# - It asks for a margin, not for probable good answers: watch the chosen log-probability, and KL.
# - GRPO needs a reward and no pairs: advantages in a group, a clipped ratio, a KL term, no value network.
# - Judge by rules that built no pair, at equal length and equal compute, with intervals.
#
# **Read:** Rafailov et al., *Direct Preference Optimization* (arXiv 2305.18290), section 4. Ouyang et al.,
# *Training language models to follow instructions* (2203.02155). Azar et al., *IPO* (2310.12036). Shao et
# al., *DeepSeekMath* (2402.03300), section 4.1: GRPO. Dubois et al., *Length-Controlled AlpacaEval*
# (2404.04475).
#
# **Next:** 10_merging puts finetuned models together without training.
