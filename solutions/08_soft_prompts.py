# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 08. `python -m labkit build 08` makes both notebooks from this file.

# %% [markdown]
# # 08 · Soft prompts: train the input
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | write prompt, prefix and P-tuning, and say what they cost and reach | lessons 01, 03, 05 | {{budget}} |
#
# A prompt changes what a model answers, and no weight. But its words are chosen by hand, from 49,152 of them.
# To the model a word is a vector, and a vector can be trained. A **soft prompt** is a few learned vectors
# before the text: at the input (**prompt tuning**), there but made by a small network (**P-tuning**), or as
# keys and values in every layer (**prefix tuning**). All weights of the model are frozen. You will build all
# three, prove them equal to peft's, see why they pack badly and how to mend that, and train two against LoRA.
#
# Where each puts its vectors: `#` is learned, `o` comes out of learned weights, `.` out of the frozen model:
#
# ```text
#                     prompt tuning        P-tuning             prefix tuning
#                     2 places | text      2 places | text      2 places | text
#
# layer 30, k and v     .   .  | .  .  .     .   .  | .  .  .     #   #  | .  .  .
#    ...                .   .  | .  .  .     .   .  | .  .  .     #   #  | .  .  .
# layer 1, k and v      .   .  | .  .  .     .   .  | .  .  .     #   #  | .  .  .
# embedding             #   #  | .  .  .     o   o  | .  .  .            | .  .  .
#                                            |   |
#                                          MLP(# #), with learned weights
# ```

# %%
import logging
import warnings
from statistics import mean

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # on some CPUs it asks for an optional package
warnings.filterwarnings("ignore", message="Position ids are not supported")  # peft drops them: seen below
import torch
from IPython.display import Markdown
from peft import PrefixTuningConfig, PromptEncoderConfig, PromptTuningConfig, get_peft_model
from torch.nn.functional import scaled_dot_product_attention
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from labkit import (
    budget, check, claims, fit, load, load_model, load_tokenizer, machine, methods, plots, profile, record,
    recorded, score, seed_everything, solve,
)
from labkit.bench import inference_values, methods_report, soft_report
from labkit.memory import SHAPES
from labkit.methods import soft_prompts
from labkit.methods.soft_prompts.modules import START                       # words that soft prompts start as
from labkit.records import store
from labkit.tasks.tickets import PROMPTS
from labkit.train.packing import collate
from labkit.train.rows import Encoded

# %%
SEED = 0
numbers = budget(
    cpu=dict(n=8, steps=14, batch=1, length=256, rows=12),
    gpu=dict(n=100, steps=300, batch=8, length=512, rows=1000),
    smoke=dict(n=4, steps=1, batch=1, length=256, rows=1),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. Prompt tuning with 100 vectors: what share of this model's weights is that? How many times as many has a
#    prefix of 100?
# 2. Prompt tuning, prefix tuning, LoRA r=16, with equal steps and rows: which ends with the lowest test loss,
#    which with the highest?
# 3. You look for the word nearest to each vector of a trained prompt. Do you read an instruction?
# 4. What does a soft prompt of 100 vectors cost when the model answers: in weights to keep, in bytes of cache
#    for each sequence, in time?
#
# ## Hard prompts and few-shot
#
# Lesson 00 tried six **hard** prompts, made of words; those with solved examples are called **few-shot**.
# How long they are, and what the recorded run measured:

# %%
tokenizer, data = load_tokenizer(), load("tickets")
for name, found in recorded("form_json", "prompts tried").items():
    asked = PROMPTS[name](data["train"])(data["test"][0]["message"])
    size = len(tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_dict=False))
    print(f"{name:<40}{size:>6,} tokens: {found['valid_share']:.1%} valid, {found['exact_share']:.1%} exact")

# %% [markdown]
# Words reach the form and hardly ever the content, and long prompts are paid for with every message. Can
# vectors that are no words do better, in fewer places?
#
# ## Build: prompt tuning
#
# Embed the text, put n learned vectors before it, and let the frozen model run on.

# %%
class SoftPrompt(torch.nn.Module):
    """A frozen model with n learned embeddings before each row."""

    def __init__(self, model, start):
        super().__init__()
        self.model = model.requires_grad_(False)
        self.embed = model.get_input_embeddings()
        self.vectors = torch.nn.Parameter(self.embed(start).clone())        # (n, hidden), from n words

    def forward(self, ids, mask):                                           # both (batch, seq)
        rows, n = len(ids), len(self.vectors)
        soft = self.vectors.expand(rows, -1, -1)                            # the same for each row
        words = torch.cat([soft, self.embed(ids)], dim=1)                   # (batch, n + seq, hidden)
        mask = torch.cat([mask.new_ones(rows, n), mask], dim=1)
        return self.model(inputs_embeds=words, attention_mask=mask).logits[:, n:]


# %% [markdown]
# The vectors start at random or as embeddings of words; then step 0 is the hard prompt of these words. peft
# gives the same outputs for the same vectors. Check both on a tiny random model, whose attention is made
# sharp so that it matters what it reads:

# %%
N, HARD = 4, [7, 8, 9, 10]
ids = torch.tensor([[5, 6, 11, 12, 13], [21, 22, 23, 24, 25]])
mask = torch.ones_like(ids)


def tiny():
    """A random Llama of 64 words and two layers, 4 query heads and 2 key and value heads each."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2,
    ))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:                                            # matrices, not the norms
                weight.mul_(6)
    return model.eval().requires_grad_(False)


def same(ours, theirs):
    """Equal to 1e-5, or 1e-5 of the value where that is more?"""
    return torch.allclose(ours, theirs, atol=1e-5, rtol=1e-5)


# %% tags=["nbval-check-output"]
ours, plain = SoftPrompt(tiny(), torch.tensor(HARD)), tiny()(ids).logits
hard = tiny()(torch.cat([torch.tensor([HARD, HARD]), ids], dim=1)).logits[:, N:]
print("step 0 is the hard prompt of these words:", same(ours(ids, mask), hard))
print("and not the model without a prompt:", not same(ours(ids, mask), plain))

theirs = get_peft_model(tiny(), PromptTuningConfig(num_virtual_tokens=N, task_type="CAUSAL_LM")).eval()
right = theirs(input_ids=ids, attention_mask=mask).logits[:, N:]
print("peft's own start is another:", not same(ours(ids, mask), right))
ours.vectors.data = theirs.prompt_encoder["default"].embedding.weight.data.clone()
print("with peft's vectors, peft's outputs:", same(ours(ids, mask), right))

# %% [markdown]
# ## Build: prefix tuning
#
# A prompt acts on the text through attention only: each layer's keys and values at the prompt's places. So
# learn those, in every layer, and skip what leads to them. (This model knows places by **rotary** positions:
# each query and key is turned by an angle that grows with its place. Text behind a prefix of n is turned as
# if it began at place n; peft learns the prefix's keys as they are after turning.) One layer's attention with
# a learned prefix:

# %%
def attend(layer, x, prefix_k, prefix_v, rotation):
    """A layer's attention, where each token also sees a learned prefix.

    x: (batch, seq, hidden). prefix_k, prefix_v: (kv_heads, n, head_dim). rotation: the cosines and sines of
    the text's positions, which begin at n.
    """
    def heads(y):                                                           # (batch, heads, seq, head_dim)
        return y.unflatten(-1, (-1, layer.head_dim)).transpose(1, 2)

    q, k, v = heads(layer.q_proj(x)), heads(layer.k_proj(x)), heads(layer.v_proj(x))
    q, k = apply_rotary_pos_emb(q, k, *rotation)
    k = torch.cat([prefix_k.expand(len(x), -1, -1, -1), k], dim=2)          # (batch, kv_heads, n + seq, ...)
    v = torch.cat([prefix_v.expand(len(x), -1, -1, -1), v], dim=2)
    seq, n = x.shape[1], prefix_k.shape[1]
    sees = torch.ones(seq, n + seq, dtype=torch.bool).tril(n)               # the prefix, and earlier tokens
    y = scaled_dot_product_attention(q, k, v, attn_mask=sees, enable_gqa=True)
    return layer.o_proj(y.transpose(1, 2).flatten(2))


# %% [markdown]
# peft keeps all keys and values in one table, and gives them to the model as a cache that was begun already.
# Run peft's model, note what goes into and comes out of each layer's attention, and compute it again:

# %%
seen = []


def note(layer, args, kwargs, output):
    """Keep what an attention layer got and gave."""
    seen.append((layer, kwargs["hidden_states"], kwargs["position_embeddings"], output[0]))


theirs = get_peft_model(tiny(), PrefixTuningConfig(num_virtual_tokens=N, task_type="CAUSAL_LM")).eval()
for block in theirs.base_model.model.layers:
    block.self_attn.register_forward_hook(note, with_kwargs=True)
with torch.no_grad():
    theirs(input_ids=ids, attention_mask=mask)
table = theirs.prompt_encoder["default"].embedding.weight.detach()          # (n, 64): one place a row
table = table.view(N, 2, 2, 2, 8)                                           # n, layer, k or v, head, head_dim
table = table.permute(1, 2, 3, 0, 4)                                        # layer, k or v, head, n, head_dim

# %% tags=["nbval-check-output"]
for number, (layer, x, rotation, right) in enumerate(seen):
    k, v = table[number]
    print(f"layer {number}: ours is peft's:", same(attend(layer, x, k, v, rotation), right),
          " without the prefix:", same(attend(layer, x, k[:, :0], v[:, :0], rotation), right))

# %% [markdown]
# ## Exercise 08.1: weights of a prefix
#
# {{exercise:08.1}}
#
# {{hint:08.1}}

# %% tags=["exercise"]
def prefix_weights(n, layers, heads, kv_heads, head_dim):
    """Weights that prefix tuning trains: n learned keys and values in every layer, without an encoder.

    heads: query heads of a layer; kv_heads: key and value heads, which groups of query heads share. Each
    head is head_dim wide. Returns an int.
    """
    # BEGIN SOLUTION
    return n * layers * 2 * kv_heads * head_dim
    # END SOLUTION


# %%
check("08.1", prefix_weights)

# %% tags=["nbval-check-output"]
for name in ("smollm2-135m", "7b"):
    s = SHAPES[name]
    prompt, prefix = 100 * s.hidden, solve("08.1")(100, s.layers, s.heads, s.kv_heads, s.head_dim)
    print(f"{name:<13} 100 places: prompt {prompt:>7,} weights ({prompt / s.weights():.3%}),",
          f"prefix {prefix:>10,} ({prefix / s.weights():.2%}), {prefix / prompt:.0f} times as many")

# %% [markdown]
# The first guess: 0.04%, and 20 times as many. And a prefix speaks to each layer directly, where a prompt's
# vector must pass through the frozen ones.
#
# But look at one layer. For the same inputs to it, attention with a prefix is a **mixture**: (1 - a) · what
# the token would see in the text + a · what it sees in the prefix. How it divides its attention within the
# text stays as it was (Petrov et al. 2023). LoRA can change that too. The output differs, so the layers above
# get other inputs, and there the division within the text does move.
#
# <details><summary>Why it is a mixture</summary>
#
# A place j with score s_j gets the share exp(s_j) / Z, where Z sums exp over all places. The prefix gets a in
# all, so that the text's places sum to (1 - a) Z. A text place's share is then (1 - a) · exp(s_j) / ((1 - a)
# Z), which is (1 - a) times its share without a prefix; and likewise a times for a place of the prefix.
#
# </details>
#
# ## Build: P-tuning's encoder
#
# Liu et al. (2021) train the vectors through a small network, so that they move together. After training only
# its n outputs are kept. (Theirs has an LSTM, puts the vectors into a template, and in part of their
# experiments they tune the model too; peft's default, and ours, is the MLP alone, before the text, frozen. Li
# & Liang train prefixes through an MLP too, because it was more stable.)

# %%
class Encoder(torch.nn.Module):
    """n soft words, (n, hidden), as an MLP of n free vectors."""

    def __init__(self, n, hidden, inner):
        super().__init__()
        self.free = torch.nn.Parameter(torch.randn(n, hidden))
        self.mlp = torch.nn.Sequential(
            torch.nn.Linear(hidden, inner), torch.nn.ReLU(), torch.nn.Linear(inner, inner), torch.nn.ReLU(),
            torch.nn.Linear(inner, hidden),
        )

    def forward(self):
        return self.mlp(self.free)


# %% tags=["nbval-check-output"]
config = PromptEncoderConfig(num_virtual_tokens=N, encoder_hidden_size=16, task_type="CAUSAL_LM")
theirs = get_peft_model(tiny(), config).eval()
encoder, mine = theirs.prompt_encoder["default"], Encoder(N, 32, 16)
mine.free.data = encoder.embedding.weight.data.clone()
mine.mlp.load_state_dict(encoder.mlp_head.state_dict())
ours.vectors.data = mine().detach()                                         # all that is kept after training
right = theirs(input_ids=ids, attention_mask=mask).logits[:, N:]
print("with the encoder's outputs as vectors, peft's outputs:", same(ours(ids, mask), right))
large = Encoder(100, 576, 576)
print(f"here, n=100: {sum(weight.numel() for weight in large.parameters()):,} weights are trained,",
      f"{large().numel():,} kept")

# %% [markdown]
# ## Padding
#
# A batch of prompts is padded on the left, so that all rows end together and the next token follows at once.
# Where does the soft prompt go? Attention here sees how far apart two **positions** are. `generate` of
# transformers counts positions by the mask, and padding takes none; there either side of the padding will do.
# But where positions are counted by places in the row, padding between prompt and text is a gap. So put the
# prompt right before the text, and it is right however positions are counted.
#
# ## Exercise 08.2: between padding and text
#
# {{exercise:08.2}}
#
# {{hint:08.2}}

# %% tags=["exercise"]
def add_prompt(ids, mask, prompt):
    """Rows padded on the left, with a soft prompt before the text of each, as a model must get them.

    ids: rows of token ids, equally long. mask: rows alike, 1 on text and 0 on padding, which is on the left
    only; the id of the padding may occur in the text too. prompt: the ids of the soft prompt.
    Returns (ids, mask): new rows, each longer by the prompt, whose words directly precede the text.
    """
    # BEGIN SOLUTION
    places = [row.count(0) for row in mask]
    ids = [row[:at] + prompt + row[at:] for row, at in zip(ids, places, strict=True)]
    return ids, [row[:at] + [1] * len(prompt) + row[at:] for row, at in zip(mask, places, strict=True)]
    # END SOLUTION


# %%
check("08.2", add_prompt)

# %% [markdown]
# A soft prompt with ids: in `labkit.methods.soft_prompts` it is n **new words**, with ids behind the base's,
# which can stand wherever words can. Those of a prefix mark where each layer takes learned keys and values.
# Both start as a hard prompt: a prefix as the keys and values that each layer gives its words. It learns its
# keys before they are turned, peft's after, and peft's starts at random numbers: the same functions, and
# another training. To switch a soft prompt off, leave its words out: the base answers.

# %%
KINDS = {"prompt": soft_prompts.prompt_tuning, "prefix": soft_prompts.prefix_tuning}


def trained(kind, seed=1):
    """The tiny model with a soft prompt that has moved away from its start."""
    model = KINDS[kind](tiny(), N, HARD)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.3 * torch.randn_like(weight))
    return model


# %% tags=["nbval-check-output"]
for kind, add in KINDS.items():
    model = add(tiny(), N, HARD)
    new = torch.tensor(model.prompt_ids).expand(2, -1)                      # ids 64 to 67
    given = model(torch.cat([new, ids], dim=1)).logits[:, N:]
    print(f"{kind}: step 0 is the hard prompt: {same(given, hard)}; without the new words the model is",
          f"the base: {same(model(ids).logits, plain)}")

# %% [markdown]
# Three texts of different lengths, padded, with and without the key-value cache, and each alone:

# %%
TEXTS = [[5, 6, 11, 12, 13], [21, 22, 23, 24, 25, 26, 27, 28], [31, 32, 33]]


def answers(model, texts, **options):
    """Six greedy tokens after each text, all texts in one batch, padded on the left."""
    longest = max(map(len, texts))
    padded = torch.tensor([[0] * (longest - len(text)) + text for text in texts])
    attends = torch.tensor([[0] * (longest - len(text)) + [1] * len(text) for text in texts])
    out = model.generate(input_ids=padded, attention_mask=attends, max_new_tokens=6, do_sample=False,
                         pad_token_id=0, eos_token_id=None, **options)
    return out[:, longest:].tolist()


# %% tags=["nbval-check-output"]
for kind in KINDS:
    model = trained(kind)
    together, alone = answers(model, TEXTS), [answers(model, [text])[0] for text in TEXTS]
    print(f"{kind}: padded as alone: {together == alone};",
          f"without the cache: {answers(model, TEXTS, use_cache=False) == together};",
          f"as before training: {answers(KINDS[kind](tiny(), N, HARD), TEXTS) == together}")

# %% [markdown]
# Now both places, and both ways to count positions. peft puts its prompt before the padding, and in prompt
# tuning it drops the position ids that `generate` made. Of these texts only the second needs no padding:

# %% tags=["nbval-check-output"]
model = trained("prompt")
alone = model(torch.tensor([model.prompt_ids + TEXTS[2]])).logits[0, -1]
between = solve("08.2")([[0, 0, *TEXTS[2]]], [[0, 0, 1, 1, 1]], model.prompt_ids)
before = [model.prompt_ids + [0, 0] + TEXTS[2]], [[1] * N + [0, 0, 1, 1, 1]]
for place, parts in {"between padding and text": between, "before the padding": before}.items():
    padded, attends = map(torch.tensor, parts)
    by_mask = (attends.cumsum(dim=1) - 1).clamp(min=0)
    for how, positions in {"places": None, "the mask": by_mask}.items():
        last = model(padded, attention_mask=attends, position_ids=positions).logits[0, -1]
        print(f"prompt {place}, positions by {how}: as without padding: {same(last, alone)}")

theirs = get_peft_model(tiny(), PromptTuningConfig(num_virtual_tokens=N, task_type="CAUSAL_LM")).eval()
together, apart = answers(theirs, TEXTS), [answers(theirs, [text])[0] for text in TEXTS]
print("peft's prompt tuning, padded as alone:", [a == b for a, b in zip(together, apart, strict=True)])
model.soft_prompt.vectors.data = theirs.prompt_encoder["default"].embedding.weight.data
print("the same vectors as new words, padded as peft's alone:", answers(model, TEXTS) == apart)

# %% [markdown]
# ## Why soft prompts do not pack, and how they do
#
# Short rows train fast when several are packed into one line, each with positions of its own and attention to
# itself alone (lesson 03). peft puts its prompt before the **line**: one prompt, at the first row only. With
# prompt tuning it also drops the position ids, by which transformers tells packed rows apart. New words go
# before each row.

# %% tags=["nbval-check-output"]
first, second = TEXTS[:2]
line = torch.tensor([first + second])
places = torch.tensor([[*range(len(first)), *range(len(second))]])
theirs = get_peft_model(tiny(), PromptTuningConfig(num_virtual_tokens=N, task_type="CAUSAL_LM")).eval()
packed = theirs(input_ids=line, position_ids=places).logits[0, -len(second):]
alone = theirs(input_ids=torch.tensor([second])).logits[0, -len(second):]
print("peft: the second row is the same packed and alone:", same(packed, alone))

model = trained("prompt")
halves = [(row[:2], row[2:]) for row in (first, second)]                    # question and answer of each
rows = [Encoded(model.prompt_ids + q + a, [0.0] * (N + len(q)) + [1.0] * len(a)) for q, a in halves]
batch = collate(rows, [[0, 1]], sum(map(len, rows)))                        # as `fit` packs them
packed = model(input_ids=batch.ids, position_ids=batch.positions, attention_mask=batch.mask()).logits[0]
alone = model(torch.tensor([model.prompt_ids + second])).logits[0]
print("new words: the same packed and alone:", same(packed[-len(second):], alone[-len(second):]))

# %% [markdown]
# ## Exercise 08.3: positions and targets of packed rows
#
# {{exercise:08.3}}
#
# {{hint:08.3}}

# %% tags=["exercise"]
def packed_with_prompts(rows, soft):
    """Positions and targets of rows packed into one line, each row with the soft prompt before it.

    rows: list of (question, answer), two lists of token ids; soft: the ids of the soft prompt's words. The
    line is soft, question, answer of the first row, then those of the second, and so on. Positions count
    from 0 in each row. The target of a place is the token one place later where that is an answer token,
    else -100. Returns (positions, targets), two lists of int as long as the line.
    """
    # BEGIN SOLUTION
    positions, targets = [], []
    for question, answer in rows:
        before = len(soft) + len(question)
        positions += range(before + len(answer))
        targets += [-100] * (before - 1) + list(answer) + [-100]
    return positions, targets
    # END SOLUTION


# %%
check("08.3", packed_with_prompts)

# %% tags=["nbval-check-output"]
positions, targets = solve("08.3")(halves, model.prompt_ids)
print("fit's positions:", positions == batch.positions[0].tolist())
print("fit's targets:", targets == torch.where(batch.weights > 0, batch.targets, -100)[0].tolist())

# %% [markdown]
# ## Train
#
# Prompt tuning, prefix tuning and LoRA on support tickets: the same steps, the same rows in each, the same
# seed. A prompt's places come on top: a step of the GPU budget has some 39 rows and 3,900 tokens of text, so
# 100 vectors double what is computed. The learning rates cannot be the same: a sweep of prompt tuning's
# begins a hundred times as high as one of LoRA's, a prefix's thirty times. The GPU budget takes the best rate
# of each method's recorded sweep. Elsewhere, and as long as there is none, it is the third of the four rates
# that the sweep begins with.
#
# On the CPU budget it is 8 vectors and a few steps, which shows how losses begin to run and not how they end.
# The GPU budget has 100 vectors.

# %%
ARMS = {"prompt tuning": f"prompt-n{numbers.n}", "prefix tuning": f"prefix-n{numbers.n}",
        "LoRA r=16": "lora-r16"}
sweeps = store.read("methods_tickets") if profile() == "gpu" else None
swept = sweeps["values"]["methods"] if sweeps else {}
rates = {}
for arm, name in ARMS.items():
    rates[arm] = swept[name]["rate"] if name in swept else methods.find(name).rates[2]
    print(f"{name:<12} rate {rates[arm]:g}, {'the best recorded' if name in swept else 'third of four'}")

# %% [markdown]
# Where to start? Here it is at `START`, a sentence that might stand before any task, cut or repeated to n. It
# has 20 tokens, so 100 vectors start as five copies of it, which training must move apart. The loss of the
# first step's rows, before any training, with that start and with random words:

# %%
one = dict(steps=1, lr=0.0, batch=numbers.batch, length=numbers.length, seed=SEED, progress=False)
starts = {"random words": None, "START": tokenizer(START, add_special_tokens=False).input_ids}
for start, words in starts.items():
    model = soft_prompts.prompt_tuning(load_model(), numbers.n, words)
    print(f"{fit(model, data['train'], tokenizer, **one).losses[0]:.2f} nats per answer token: {start}")

# %%
size = len(data["test"])
test = data["test"].select([i * size // numbers.rows for i in range(numbers.rows)])
options = dict(steps=numbers.steps, batch=numbers.batch, length=numbers.length, seed=SEED,
               validation=test, validate_every=numbers.steps)
models, runs, exact = {}, {}, {}
for arm, name in ARMS.items():
    print(arm)
    models[arm] = methods.find(name).prepare(SEED)
    runs[arm] = fit(models[arm], data["train"], tokenizer, lr=rates[arm], **options)

# %%
loss = {arm: run.validation[-1][1] for arm, run in runs.items()}
print(f"{'':<15}{'trained weights':>16}{'first loss':>12}{'test loss':>11}{'seconds':>9}")
for arm, run in runs.items():
    print(f"{arm:<15}{run.trainable:>16,}{run.losses[0]:>12.2f}{loss[arm]:>11.3f}{run.seconds:>9.0f}")
print("seconds: training, and the test loss at its end")

# %%
ends = {arm: mean(run.losses[-5:]) for arm, run in runs.items()}
title = "Training loss: " + ", ".join(f"{arm} {ends[arm]:#.2g}" for arm in sorted(ends, key=ends.get))
fig, axes = plots.figure(title, "step (title: mean of the last five)", "loss per answer token (nats)")
for (arm, run), style, colour in zip(runs.items(), ("-", "--", "-."), plots.COLOURS, strict=False):
    axes.plot(range(1, run.steps + 1), run.losses, style, color=colour, label=arm)
axes.set_yscale("log")
every = sum((run.losses for run in runs.values()), [])
ticks = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 4]
axes.set_yticks([tick for tick in ticks if min(every) <= tick <= max(every)])
axes.set_ylim(0.9 * min(every), 1.1 * max(every))
axes.yaxis.set_major_formatter("{x:g}")
axes.minorticks_off()
axes.locator_params(axis="x", integer=True)
axes.legend(frameon=False)
plots.show(fig, f"Line plot of three training losses on a logarithmic axis. {title}.")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
for arm, run in runs.items():
    print(f"{arm}: test loss below the first loss:", loss[arm] < run.losses[0])
print("lowest test loss:", min(loss, key=loss.get))

# %% [markdown]
# That is the second guess, for this budget, one seed and one rate each. LoRA begins at the base's own loss,
# the soft prompts at that of the base with the words of `START`. Exact answers, with the GPU budget:

# %% tags=["gpu"]
# %%gpu
for arm, model in models.items():
    found = score(model, tokenizer, test, batch_size=250, progress=False)
    exact[arm] = found.exact
    print(f"{arm:<15}{found.valid:>8.1%} valid {found.exact:>8.1%} exact")

# %% [markdown]
# ## The same run as the field writes it
#
# peft's prompt tuning in trl's trainer, from the same start. It pads, on the right, where padding does no
# harm; `fit` packs about 39 rows into a step. Answers want padding on the left, and there it comes between
# peft's prompt and the text, as you saw. So its vectors are judged twice: by peft in padded batches, and as
# new words, which answer as peft does one text at a time. The two ways of judging trl's vectors compare:
# padding between prompt and text costs what lies between them. trl and `fit` hardly do: rows come in another
# order, and at such a learning rate runs of other seeds lie several points apart.

# %% tags=["gpu"]
# %%gpu
from datasets import disable_progress_bars
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

disable_progress_bars()
again = methods.find(ARMS["prompt tuning"]).prepare(SEED)                   # new words, at their start
config = PromptTuningConfig(num_virtual_tokens=numbers.n, task_type="CAUSAL_LM")
theirs = get_peft_model(load_model(), config)
vectors = theirs.prompt_encoder["default"].embedding.weight
vectors.data.copy_(again.soft_prompt())

settings = SFTConfig(
    output_dir="/tmp/trl", max_steps=numbers.steps, per_device_train_batch_size=39,
    learning_rate=rates["prompt tuning"], warmup_steps=numbers.steps // 10, lr_scheduler_type="linear",
    bf16=True, gradient_checkpointing=False, max_length=512, save_strategy="no", logging_strategy="no",
    report_to="none", disable_tqdm=True, seed=SEED,
)
rows = data["train"].select_columns(["prompt", "completion"])
trainer = SFTTrainer(theirs, settings, train_dataset=rows, processing_class=tokenizer)
trainer.remove_callback(PrinterCallback)
seconds = trainer.train().metrics["train_runtime"]
again.soft_prompt.vectors.data.copy_(vectors)
for how, model in {"trl, padded by peft": trainer.model, "trl, as new words": again}.items():
    exact[how] = score(model, tokenizer, test, batch_size=250, progress=False).exact
    print(f"{how}: {exact[how]:.1%} exact")
print(f"fit: {exact['prompt tuning']:.1%} exact")
print(f"trl trained for {seconds:.0f} s; fit for {runs['prompt tuning'].seconds:.0f} s, test loss included")

# %% [markdown]
# ## Words near a learned prompt
#
# Are the learned vectors readable? Look for the words nearest to each by **cosine**, the dot product of two
# vectors over the product of their lengths: 1 if they point the same way.

# %%
model = models["prompt tuning"]
words = (starts["START"] * numbers.n)[: numbers.n]                          # where each vector started
for word, near in list(zip(words, soft_prompts.nearest(model, tokenizer, k=3), strict=True))[:8]:
    shown = ", ".join(f"{word!r} {cosine:.2f}" for word, cosine in near["cosine"])
    print(f"started as {tokenizer.decode([word])!r:<16} near {shown}")
embeddings = model.get_input_embeddings().weight
moved, lengths = (model.soft_prompt() - embeddings[words]).norm(dim=-1), embeddings.norm(dim=-1)
print(f"vectors moved by {moved.mean():.1f} on average; a word's embedding is {lengths.mean():.1f} long")

# %% [markdown]
# The third guess. Compare how far vectors moved with how long a word's embedding is. Moved little, a vector's
# nearest word is where it *started*, and says nothing about what it learned; moved far, it is close to no
# word. How far is a matter of rate and steps more than of meaning: Adam moves each number by about the rate
# in a step, so a vector of 576 numbers moves up to √576 = 24 times the rate: 7.2 at the CPU budget's 0.3, and
# far beyond any word at the recorded best rate. Lester et al. found nearest words that cluster by meaning,
# and words of the start that stay. Take care before you read a soft prompt as text.
#
# ## Why it lags, and what is said of scale
#
# Lester et al. (2021, figure 1) train T5 models of five sizes: for small ones prompt tuning lies far below
# tuning all weights, the gap shrinks with size, and near ten billion weights it is closed. Li & Liang (2021)
# report prefix tuning near full finetuning with 0.1% of the weights, on table-to-text with medium and large
# GPT-2. This model has 135 million weights, and the task wants exact objects.
#
# One explanation: a soft prompt mostly brings out what the frozen model can do already, and a larger one can
# do more. One small model cannot test it, and it explains at most what long
# training leaves of the gap: see the last of the tables below. Nor is it a law: in theory a prefix can make a
# suitable transformer approximate any continuous function (Petrov et al. 2024).
#
# The recorded run has three seeds, and each method at the best rate of its own sweep, all at 300 steps
# (claims soft-small, soft-prefix). Prompt and prefix have equally many places there, 100, and so the prefix
# trains 20 times the weights; it has free vectors, without Li & Liang's MLP. P-tuning starts at a random
# encoder, the other two at `START`: its line mixes the encoder with the start. The tables after these hold
# random starts beside it, with 20 vectors. There a random start costs some 5 points, and P-tuning is not
# behind: so neither start nor encoder explains its place with 100 vectors, and this course does not know what
# does.

# %% tags=["recorded"]
SHOWN = ["full", "lora-r16", "prefix-n100", "prompt-n100", "ptuning-n100"]
Markdown(methods_report.text(methods=SHOWN, without=("by seed", "peak", "general loss", "probe")))

# %% [markdown]
# Is that prompt tuning's best? 300 steps are few for it: Lester et al. train for 30,000. So a second recorded
# run asks what more it can reach. First the number of vectors; a prefix of 5 has as many weights as a prompt
# of 100:

# %% tags=["recorded"]
soft_report.plot()

# %% tags=["recorded"]
Markdown("\n".join(soft_report.lengths_table()))

# %% [markdown]
# Then where the vectors start, with P-tuning's encoder among them, and more steps, with LoRA beside:

# %% tags=["recorded"]
Markdown("\n".join([*soft_report.starts_table(), "", *soft_report.steps_table()]))

# %% [markdown]
# It was not its best. With 20 vectors, four times the steps more than double the exact answers, and twelve
# times add a little, to some 11 points behind LoRA's 300 steps, by an interval that reaches past 0. So prompt
# tuning is first of all **slow**: most of its gap at 300 steps is length of training, on this one model, and
# says nothing of scale. LoRA gained nothing from 1,200 steps. Not measured: 100 vectors, a prefix or full
# finetuning for longer. The best rate at 1,200 steps is the highest that was tried, and 3,600 steps took it
# over untuned, so both scores may be low. And where vectors are few it pays to give each layer its own: a
# prefix of 5, with the weights of a prompt of 100, is 21 points above it at 300 steps.
#
# ## What it costs to answer
#
# A soft prompt is a small file. But its places take part of the context, are computed (but for a prefix that
# is kept as a cache), and lie in the cache, for each sequence.
#
# ## Exercise 08.4: bytes in the cache
#
# {{exercise:08.4}}
#
# {{hint:08.4}}

# %% tags=["exercise"]
def cache_bytes(rows, tokens, n, layers, kv_heads, head_dim):
    """Bytes of the key-value cache in bf16 for a batch, and how many of them are the soft prompt's.

    rows: sequences in the batch, each of `tokens` tokens of text after a soft prompt of n words; each keeps
    a cache of its own. Returns [bytes in all, bytes of the soft prompt], two int.
    """
    # BEGIN SOLUTION
    place = 2 * 2 * layers * kv_heads * head_dim                            # 2 bytes, keys and values
    return [rows * (tokens + n) * place, rows * n * place]
    # END SOLUTION


# %%
check("08.4", cache_bytes)

# %% tags=["nbval-check-output"]
for name in ("smollm2-135m", "7b"):
    s = SHAPES[name]
    for rows in (1, 32):
        every, soft = solve("08.4")(rows, 200, 100, s.layers, s.kv_heads, s.head_dim)
        print(f"{name:<13} {rows:>2} x 200 tokens after 100 soft words: {every / 1e6:>8.1f} MB of cache,",
              f"{soft / 1e6:>7.1f} MB of it the prompt's")

model = trained("prompt")
cache = model(torch.tensor([model.prompt_ids + TEXTS[0]] * 3), use_cache=True).past_key_values
held = sum(part.numel() for layer in cache.layers for part in (layer.keys, layer.values))
print("the tiny model's own cache, at 2 bytes:", solve("08.4")(3, 5, N, 2, 2, 8)[0] == 2 * held)

# %% [markdown]
# What is kept is small, 0.1 MB for 100 vectors in 16 bits, 2.3 MB for a prefix of 100; the cache is not: in
# transformers each row keeps a copy of the prompt's part. (Servers that share cached prefixes keep it once.)
# Merged LoRA adds nothing there.
#
# How much longer does reading take, where arithmetic is the limit? With 100 soft words before 1,024 tokens of
# text, the linear layers have 1,124 places to compute, which is 0.91 times the speed. Attention grows faster,
# and by arithmetic makes it about 0.90. That is the edge of the claim's band (soft-latency, at least 0.9), so
# the verdict says as much about the length of the text as about soft prompts: with 200 tokens it would be
# 0.67. Measured:

# %% tags=["recorded"]
Markdown("\n".join(inference_values.prompt_table()))

# %% [markdown]
# That is the fourth guess. Prompt tuning should cost what a hard prompt of its length does, since past the
# embedding nothing tells them apart: where arithmetic is the limit little beside long texts and much beside
# short ones; hardly anything where launches are (lesson 07), or in each token that is generated.
# A prefix costs more. Run with each text, each layer looks for its places; from the cache its places are not
# computed, but a dense mask keeps attention from its fastest kernel, and where arithmetic is the limit that
# costs more than computing them. In the tokens that are generated it costs hardly anything then.
#
# ## Several prompts in one batch
#
# Merged weights cannot do this: rows of one batch with different prompts, so that one model in memory serves
# many tasks at once. With new words it takes n more of them for each prompt:

# %% tags=["nbval-check-output"]
for kind in KINDS:
    apart = [trained(kind, seed) for seed in (1, 2)]
    joined = soft_prompts.join(trained(kind), [soft_prompts.state(one) for one in apart])
    expected = [answers(apart[which], [text])[0] for which, text in zip((1, 0, 1), TEXTS, strict=True)]
    print(f"{kind}: rows with prompts 1, 0, 1 answer as these prompts apart:",
          answers(joined, TEXTS, prompts=[1, 0, 1]) == expected,
          " with 0, 1, 0:", answers(joined, TEXTS, prompts=[0, 1, 0]) == expected)

# %%
record(seed=SEED, n=numbers.n, rates=rates, test_loss=loss, exact=exact,
       seconds={arm: run.seconds for arm, run in runs.items()},
       moved=moved.mean().item(), word_length=lengths.mean().item())

# %% [markdown]
# ## What the field says, measured
#
# - Prompt tuning trains under 0.1% of the weights and is weak on small models (claim soft-small): here on
#   one, at 300 equal steps.
# - Prefix tuning is more powerful than prompt tuning (soft-prefix): at 100 places each, where it has 20 times
#   the weights; in the table of lengths with equal weights too, 5 places against 100. All of it at 300 steps.
# - Soft prompts cost little at inference (soft-latency): prompt tuning does, before 1,024 tokens of
#   text. Prefix tuning lies below the claim's band either way.

# %% tags=["nbval-check-output", "recorded"]
claims("08")

# %% [markdown]
# ## Take-away
#
# - A soft prompt is n learned vectors before the text: embeddings (prompt tuning), the same from an encoder
#   (P-tuning), or keys and values in every layer (prefix tuning). The model is frozen, and the base again
#   when they are left out.
# - It goes right before the text, after the padding, and once before each row that you pack.
# - In a layer, for the inputs that it has, it mixes into what attention reads, and cannot change how
#   attention divides within the text. That it mostly brings out what a model can do already is an
#   explanation, not tested here.
# - At 300 steps prompt tuning is weak, and with more steps most of the gap closes: ask how long a method was
#   trained before you call it weak.
# - Its learning rates are far above LoRA's: the table has the best of each. Tune them.
# - A prompt is tiny to store, a prefix less so. Either switches row by row, and takes its places in context
#   and cache with every answer.
#
# **Read:** Lester et al., *The Power of Scale for Parameter-Efficient Prompt Tuning* (2021, 2104.08691). Li &
# Liang, *Prefix-Tuning* (2021, 2101.00190). Liu et al., *GPT Understands, Too* (2021, 2103.10385). Petrov et
# al., *When Do Prompting and Prefix-Tuning Work?* (2023, 2310.19698), and *Prompting a Pretrained Transformer
# Can Be a Universal Approximator* (2024, 2402.14753).
#
# **Next:** 09_preferences trains on which of two answers is better.
