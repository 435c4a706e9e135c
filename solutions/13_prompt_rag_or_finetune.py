# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 13. `python -m labkit build 13` makes both notebooks from this file.

# %% [markdown]
# # 13 · Prompt, retrieve or finetune: decide by measurement
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | say from measurements which of the three a question wants | lessons 00, 03 and 05 | {{budget}} |
#
# "Finetuning is for form, retrieval is for facts" may be the most repeated advice of the field. You will test
# it: one base, one judge, questions of four kinds. You build the search engine and the constrained decoder
# from scratch, finetune on facts, change some of the facts afterwards, and ask again. In the end you choose,
# from a table with intervals and prices.

# %%
import math
import time
from collections import defaultdict
from statistics import mean

import torch
from IPython.display import Markdown

from labkit import (
    budget, check, claims, device, env, fit, generate, load, load_model, load_tokenizer, machine, plots,
    profile, record, score, seed_everything, solve,
)
from labkit.bench import decide_facts, decide_report
from labkit.bench import markdown as records
from labkit.constrain import schema_constraint
from labkit.methods import find, retrieval
from labkit.records import stats
from labkit.tasks import handbook, tickets
from labkit.tasks.handbook.answers import refuses
from labkit.tasks.general.likelihood import log_probabilities
from labkit.train.precision import Weights, autocast
from labkit.train.rows import encode_all

# %%
SEED = 0
numbers = budget(
    cpu=dict(facts=4, k=2, steps=56, rate=1e-3, batch=1, length=256, dense=16, own=4, own_steps=4),
    gpu=dict(facts=100, k=4, steps=300, rate=1e-3, batch=8, length=512, dense=None, own=200, own_steps=200),
    smoke=dict(facts=2, k=1, steps=2, rate=1e-3, batch=1, length=256, dense=6, own=2, own_steps=1),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. You finetune on questions about facts, then ask for **the same facts in other words**. Does the model
#    know them?
# 2. A staff handbook of 102 pages, cut into pieces of 80 words, and a search by words. What share of
#    questions does it **miss**: none of the three best pieces states the answer?
# 3. Nobody ever wrote down the answer. Who says **"The handbook does not say."**: the base, the base with
#    pages, the finetuned model?
# 4. A fact **changes** after training. What does that cost with retrieval, and what with finetuning? And if
#    you give the finetuned model the new page?
#
# ## Four kinds of question
#
# **Form:** a customer's message becomes strict JSON. **Skill:** a question becomes a SQL query. **Facts:**
# what stands in the handbook of a shop that does not exist, so that no model can know it. And questions that
# **nothing answers**. Facts come in three sorts: trained ones, ones that changed after training, and ones
# that only the pages state.

# %%
tokenizer, questions = load_tokenizer(), {split: rows.to_list() for split, rows in load("handbook").items()}
test = {kind: [row for row in questions["test"] if row["kind"] == kind] for kind in handbook.KINDS}
for name, family in (("form", "tickets"), ("skill", "sql")):
    row = load(family)["test"][1]
    print(f"{name}: {row['prompt'][-1]['content']}\n    {row['completion'][0]['content']}")
for kind, rows in test.items():
    row = rows[1]
    print(f"{kind}: {row['question']}\n    {row['answer']}",
          f"(training says {row['old_answer']})" if row["old_answer"] else "")

# %% [markdown]
# Before anything else: is what we call withheld really withheld? Test phrasings must be new, facts of the
# kind `untrained` must be unknown to training, and of changed facts training must have the old answer only.

# %% tags=["nbval-check-output"]
print(", ".join(f"{kind} {len(rows):,}" for kind, rows in test.items()))
found = retrieval.leaks(questions["train"], questions["test"])
print("leaks:", {what: len(some) for what, some in found.items()})
planted = [*questions["train"], test["changed"][0]]
print("with one test row planted:", {what: len(some) for what, some in
                                     retrieval.leaks(planted, questions["test"]).items()})

# %% [markdown]
# ## Build: search by words
#
# **BM25** (Robertson and Zaragoza 2009) scores a text by the words that it shares with the question. Three
# ideas: a rare word says more (**idf**); a word's tenth occurrence says little more than its ninth (**k1**);
# a long text has words by chance (**b**).
#
# ## Exercise 13.1: BM25
#
# {{exercise:13.1}}
#
# {{hint:13.1}}

# %% tags=["exercise"]
def bm25(query, document, documents, k1, b):
    """The BM25 score of a document: the sum over the query's words w of idf(w) * f / (f + k1 * norm).

    f counts w in the document; norm = 1 - b + b * len(document) / (mean length of documents). idf(w) is
    ln(1 + (n - n_w + 0.5) / (n_w + 0.5)), where n_w of the n documents have w. A word that the query repeats
    counts again. query and document: lists of words; documents: all of them, `document` too. A float.
    """
    # BEGIN SOLUTION
    norm = 1 - b + b * len(document) / mean(len(one) for one in documents)
    total = 0.0
    for word in query:
        f, having = document.count(word), sum(word in one for one in documents)
        idf = math.log(1 + (len(documents) - having + 0.5) / (having + 0.5))
        total += idf * f / (f + k1 * norm)
    return total
    # END SOLUTION


# %%
check("13.1", bm25)

# %% [markdown]
# An index does the same for all texts at once: it keeps, for each word, which texts have it and what it adds
# there. A search then reads only the lists of the question's words. `retrieval.BM25` is one. Does it agree
# with you?

# %% tags=["nbval-check-output"]
words = retrieval.words
pages = handbook.documents()
some = [words(retrieval.text_of(page)) for page in pages[::5]]
index = retrieval.BM25([retrieval.text_of(page) for page in pages[::5]])
for name, b in (("your score", 0.75), ("yours without length", 0.0)):
    pairs = [(solve("13.1")(words(row["question"]), some[number], some, 1.2, b), score)
             for row in questions["validation"][:3] for number, score in index.search(row["question"], 5)]
    print(f"{name} is labkit's, five pages for each of three questions:",
          all(math.isclose(*pair) for pair in pairs))

# %% [markdown]
# ## How well does it find?
#
# **Recall at k** is the share of questions for which a right piece is among the k best: one is enough. (Where
# several are wanted, as elsewhere in search, it is the share of the right ones; this one is also called hit
# rate.) The **mean reciprocal rank** also says how far up.
#
# ## Exercise 13.2: recall and reciprocal rank
#
# {{exercise:13.2}}
#
# {{hint:13.2}}

# %% tags=["exercise"]
def recall_and_rank(scores, right, k):
    """(recall at k, mean reciprocal rank) of a search, as floats.

    scores: for each question {piece number: score} of the pieces found; the highest score is best, and of
    equal scores the smaller piece number. right: for each question the list of pieces that answer it.
    A question whose list is empty has no answer and does not count. The place of a question is that of its
    first right piece, from 1. Recall at k: the share of places up to k. Reciprocal rank: 1 / place, whatever
    k is; 0 if no right piece was found.
    """
    # BEGIN SOLUTION
    places = []
    for found, own in zip(scores, right, strict=True):
        order = sorted(found, key=lambda piece: (-found[piece], piece))
        if own:
            places.append(min((n for n, piece in enumerate(order, 1) if piece in own), default=math.inf))
    return sum(place <= k for place in places) / len(places), sum(1 / place for place in places) / len(places)
    # END SOLUTION


# %%
check("13.2", recall_and_rank)

# %% [markdown]
# Pages are long, and a prompt costs by the token. So cut pages into **pieces**. But a piece from the middle
# of a page says "the shop opens at 8:10" and not which shop: put the page's title with each. What is that
# worth? We choose on validation rows; test rows are for later.

# %%
SIZES = (20, 40, 80, 160, 400)                                             # words of a piece
judged = [row for row in questions["validation"] if row["kind"] != "absent"]


def places_in(pieces, texts, rows, k=10):
    """The place of the first right piece for each row, by BM25 over `texts`."""
    found = retrieval.BM25(texts).search_all([row["question"] for row in rows], k)
    return retrieval.places(found, pieces, rows)


cut = {size: retrieval.split(pages, size, size // 4) for size in SIZES}    # a quarter shared with the next
places = {}
for size, pieces in cut.items():
    places[size, "title"] = places_in(pieces, [retrieval.text_of(piece) for piece in pieces], judged)
    places[size, "text alone"] = places_in(pieces, [piece["text"] for piece in pieces], judged)

# %% tags=["nbval-check-output"]
print("recall, %         ", *(f"{name:>10} @{k}" for name in ("title", "text alone") for k in (1, 3)))
for size, pieces in cut.items():
    shares = [100 * retrieval.recall_at(k, places[size, name]) for name in ("title", "text alone")
              for k in (1, 3)]
    print(f"{size:>4} words, {len(pieces):>5,} pieces", *(f"{share:>12.1f}" for share in shares))

# %% [markdown]
# The title helps every size, small pieces most. Larger pieces are found more often, partly because there are
# fewer to choose from, and they fill the prompt. So compare by the tokens that the model must read:

# %%
tokens = {size: mean(len(tokenizer(retrieval.text_of(one)).input_ids) for one in pieces)
          for size, pieces in cut.items()}
for size in SIZES:
    points = [(k * tokens[size], retrieval.recall_at(k, places[size, "title"])) for k in (1, 2, 3, 5, 8)]
    print(f"{size:>4} words: " + ", ".join(f"{x:,.0f} tokens {y:.0%}" for x, y in points))

# %% [markdown]
# For a few hundred tokens several short pieces hold the answer more often than one long one, and between 40
# and 160 words the size hardly matters. We go on with 80. What does a search by words miss? Questions that
# use other words than the page (the second guess):

# %%
pieces = cut[80]
index = retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
missed = [row for row, place in zip(judged, places[80, "title"], strict=True) if place > 3]
print(f"not among the three best: {len(missed)} of {len(judged)} questions, {len(missed) / len(judged):.0%}")
for row in missed[:3]:
    right = pieces[min(retrieval.holding(pieces, row))]
    line = next(one for one in retrieval.sentences(right["text"]) if row["answer"] in one)
    both = sorted(set(words(row["question"])) & set(words(line)))
    print(f"\n  {row['question']}\n  {line.splitlines()[-1]}\n  words in common: {both}")

# %% [markdown]
# ## Search by meaning
#
# **Dense** retrieval makes a vector of each text and takes the nearest by cosine. The cheapest vector at hand
# is the mean of the base's last hidden states. Will it help with other words? Look at the cosines first.

# %%
base = load_model()
some = pieces[: numbers.dense]                                             # the first few on a CPU
embed = retrieval.embed_with(base, tokenizer, precision=env.precision(device()))
dense = retrieval.Dense([retrieval.text_of(piece) for piece in some], embed)
cosines = (dense.vectors @ dense.vectors.T)[~torch.eye(len(some), dtype=bool)]
print(f"cosines between {len(some)} pieces: {cosines.min():.3f} to {cosines.max():.3f}, nearly parallel")

# %%
there = {piece["document"] for piece in some}
rows = [row for split in ("validation", "test") for row in questions[split] if row["document"] in there][:300]
few = rows if numbers.dense is None else rows[:20]
asked = [row["question"] for row in few]
by_words = retrieval.BM25([retrieval.text_of(piece) for piece in some])
recall = {}
for name, one in (("BM25", by_words), ("dense, the base", dense)):
    at = retrieval.places(one.search_all(asked, 3), some, few)
    recall[name] = {k: retrieval.recall_at(k, at) for k in (1, 3)}
    print(f"{name:<16} recall at 1 {recall[name][1]:.0%}, at 3 {recall[name][3]:.0%} ({len(few)} questions)")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
print("words find more than the base's states do:", recall["BM25"][3] > recall["dense, the base"][3])

# %% [markdown]
# The base's states predict the next token; nothing ever asked those of a question to lie near those of its
# answer. An **encoder** was trained for that: `retrieval.load_embedder("folder or hub id")`, if you have one,
# takes the place of `embed`.
#
# ## Constrained decoding: form without training
#
# For form there is a rival that trains nothing: let the model choose only among tokens that keep the answer
# inside a grammar. At each step the logits of all others become minus infinity.
#
# ## Exercise 13.3: the mask
#
# {{exercise:13.3}}
#
# {{hint:13.3}}

# %% tags=["exercise"]
def allowed_tokens(answers, tokens, end, so_far):
    """Which tokens may come next, as a list of bool, one for each token.

    answers: the texts that may be written. tokens: the texts of the vocabulary, each of one character or
    more. so_far: what is written already. A token may come if so_far and the token together are the beginning
    of an answer, or all of it. The token at index `end` ends the answer, whatever its text: it may come if
    so_far is an answer.
    """
    # BEGIN SOLUTION
    allowed = [any(answer.startswith(so_far + token) for answer in answers) for token in tokens]
    allowed[end] = so_far in answers
    return allowed
    # END SOLUTION


# %%
check("13.3", allowed_tokens)

# %%
vocabulary = [token.replace("Ġ", " ") for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))]
end = tokenizer.eos_token_id


@torch.no_grad()
def answer_within(model, prompt, answers):
    """The greedy answer among `answers`, token by token."""
    text = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, tokenize=False)
    ids, written = tokenizer(text).input_ids, ""
    while True:
        logits = model(torch.tensor([ids], device=device())).logits[0, -1]  # (vocabulary,)
        mask = torch.tensor(solve("13.3")(answers, vocabulary, end, written), device=device())
        token = logits[: len(mask)].masked_fill(~mask, float("-inf")).argmax().item()
        if token == end:
            return written
        ids, written = [*ids, token], written + vocabulary[token]


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
prompt = handbook.render("On which weekday does the Logistics team meet?")
free = generate(base, tokenizer, [prompt], max_new_tokens=24, progress=False)[0]
bound = answer_within(base, prompt, DAYS)
print(f"free:        {free!r}, one of the seven: {free in DAYS}")
print(f"constrained: {bound!r}, one of the seven: {bound in DAYS}")

# %% [markdown]
# The form is right and the day is a guess: a mask knows no facts. It also takes the likeliest *next* token
# each time, which need not lead to the likeliest of the seven answers. A real grammar is compiled to an
# automaton over tokens once (Willard and Louf 2023), so that a step costs a look-up. `labkit.constrain` does
# that for a JSON Schema:

# %%
rows = load("tickets")["test"].select(range(2))
constraint = schema_constraint(tokenizer, tickets.SCHEMA)
prompts, told = list(rows["prompt"]), {}
for name, one, most in (("free", None, 40), ("constrained", constraint, 100)):
    told[name] = generate(base, tokenizer, prompts, constraint=one, max_new_tokens=most, progress=False)
for name, answers in told.items():
    print(f"{name}: {answers[0][:150]!r}\n")
print(f"right: {rows[0]['answer']}")

# %% tags=["nbval-check-output"]
for name, answers in told.items():
    print(f"{name}: answers of valid form: {sum(tickets.valid(tickets.parse(one)) for one in answers)} of 2")

# %% [markdown]
# ## Train: closed book against open book
#
# Now the contrast that matters. **Closed book**: the question alone. **Open book**: the best pieces that BM25
# finds stand before it. The base and a LoRA finetune on questions about facts take both exams.
#
# Test asks once about some facts of each kind. Training has the trained and the changed ones in four other
# phrasings, the changed ones with old answers, and questions that nothing answers.
#
# First ask something finer than a right answer: is it **more likely than a wrong one**? Questions come in
# pairs about the same thing, such as two opening hours, with answers of as many tokens: each has the other's
# answer for its rival, so that both or none are taught. For a changed fact the rival is the old value. The
# **margin** is the difference of their losses, in nats over the whole answer. It says nothing of all other
# answers: those come below.

# %%
ANSWERED = ("trained", "changed", "untrained")


def size(text):
    return len(tokenizer(text).input_ids)


def pairs_of(kind):
    """Pairs of a kind's questions about the same thing, with other answers of as many tokens."""
    groups = defaultdict(dict)
    for row in test[kind]:
        topic, _, attribute = row["fact"].split("/")
        groups[topic, attribute, size(row["answer"])].setdefault(row["answer"], row)
    groups = [list(group.values()) for group in groups.values()]
    return [pair for rows in groups for pair in zip(rows[::2], rows[1::2], strict=False)]


def spread(some, count):
    return [some[i * len(some) // count] for i in range(count)]


once = {kind: list({row["fact"]: row for row in test[kind]}.values()) for kind in ("changed", "absent")}
alike = [row for row in once["changed"] if size(row["old_answer"]) == size(row["answer"])]
exam = {"trained": [], "changed": spread(alike, numbers.facts), "untrained": [],
        "absent": spread(once["absent"], numbers.facts)}
rival = {row["id"]: row["old_answer"] for row in exam["changed"]}
for kind in ("trained", "untrained"):
    for first, second in spread(pairs_of(kind), numbers.facts // 2):
        exam[kind] += first, second
        rival |= {first["id"]: second["answer"], second["id"]: first["answer"]}
taught = {row["fact"] for kind in ("trained", "changed") for row in exam[kind]}
nothing = spread([row for row in questions["train"] if row["kind"] == "absent"], 2 * numbers.facts)
lessons = [row for row in questions["train"] if row["fact"] in taught] + nothing
print(f"{len(lessons)} training rows about {len(taught)} facts, {len(nothing)} of them to be refused")

# %%
def nats(model, prompts, answers):
    """The loss of each answer, summed over its tokens and the end."""
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}
            for prompt, answer in zip(prompts, answers, strict=True)]
    coded = [(one.ids, one.weights.index(1.0)) for one in encode_all(rows, tokenizer, length=2048)]
    precision = env.precision(device())
    with Weights(model, precision), autocast(device().type, precision):
        return [-sum(row) for row in log_probabilities(model, tokenizer, coded, 8, "loss", progress=False)]


def closed(rows):
    return [row["prompt"] for row in rows]


def opened(rows, index=index, pieces=pieces):
    return retrieval.prompts(rows, index, pieces, k=numbers.k)


def margins(model, prompts, rows):
    """The loss of a rival minus that of the right answer, for each row."""
    if not rows:
        return []                                                          # a small budget may show no page
    right, wrong = (nats(model, prompts, [one(row) for row in rows])
                    for one in (lambda row: row["answer"], lambda row: rival[row["id"]]))
    return [b - a for a, b in zip(right, wrong, strict=True)]


found = {kind: index.search_all([row["question"] for row in exam[kind]], numbers.k) for kind in ANSWERED}
shown = {kind: [place < math.inf for place in retrieval.places(found[kind], pieces, exam[kind])]
         for kind in ANSWERED}


# %% [markdown]
# Not every row gets its page. Count them apart: without it there is nothing to read.

# %%
BOOKS = ("closed", "open, shown", "open, not shown")


def sit(model):
    """{book: {kind: [margin of each row]}}; open book by whether the right piece is in the prompt."""
    marks = {book: {} for book in BOOKS}
    for kind in ANSWERED:
        marks["closed"][kind] = margins(model, closed(exam[kind]), exam[kind])
        pairs = list(zip(margins(model, opened(exam[kind]), exam[kind]), shown[kind], strict=True))
        for book, wanted in (("open, shown", True), ("open, not shown", False)):
            marks[book][kind] = [one for one, here in pairs if here == wanted]
    return marks


def report(who):
    print(f"{who:<16}" + "".join(f"{kind:>20}" for kind in ANSWERED))
    for book, kinds in marks[who].items():
        said = [f"{mean(own):+.1f} ({sum(one > 0 for one in own)} of {len(own)})" if own else "no row"
                for own in kinds.values()]
        print(f"{book:<16}" + "".join(f"{one:>20}" for one in said))


def margin(who, book, *kinds):
    """The mean margin over the rows of these kinds; no number where there are none."""
    own = [one for kind in kinds for one in marks[who][book][kind]]
    return mean(own) if own else math.nan


marks = {"base": sit(base)}
report("base")

# %% [markdown]
# Closed book, the base tosses a coin: facts are drawn at random. Given the page it knows more, untrained.

# %% tags=["nbval-check-output", "smoke-skip-compare"]
same = [one for kind in ANSWERED
        for one, here in zip(marks["base"]["closed"][kind], shown[kind], strict=True) if here]
print("the right page raises the base's margin on the same questions:",
      margin("base", "open, shown", *ANSWERED) > mean(same or [0]))

# %%
student = find("lora-r16").prepare(SEED)
run = fit(student, lessons, tokenizer, steps=numbers.steps, lr=numbers.rate, batch=numbers.batch,
          length=numbers.length, seed=SEED)
marks["finetuned"] = sit(student)
print(f"{run.seconds:.0f} s of training, loss {run.losses[0]:.2f} to {run.losses[-1]:.3f}")
report("finetuned")
first = {row["fact"]: row for row in reversed(lessons)}
known = [{**row, "prompt": first[row["fact"]]["prompt"]} for row in exam["trained"]]
print(f"trained facts, asked in words of training: {mean(margins(student, closed(known), known)):+.1f},",
      f"in new words: {margin('finetuned', 'closed', 'trained'):+.1f}")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
gain = {kind: margin("finetuned", "closed", kind) - margin("base", "closed", kind) for kind in ANSWERED}
print("trained facts, asked in other words: the margin rose by more than 1 nat:", gain["trained"] > 1)
print("untrained facts: it rose by less than half of that:", gain["untrained"] < gain["trained"] / 2)
print("changed facts: it prefers the old answer:", margin("finetuned", "closed", "changed") < 0)

# %%
said = {who: ", ".join(f"{kind} {margin(who, 'open, shown', kind):+.0f}" for kind in ANSWERED)
        for who in marks}
title = f"Nats with the right page shown. Base: {said['base']};\nfinetuned: {said['finetuned']}"
fig, axes = plots.figure(title, "", "margin of the right answer (nats)")
for who, colour in (("base", 0), ("finetuned", 1)):
    for book, marker, step in zip(BOOKS, "osD", (0, 1, 2), strict=True):
        for x, kind in enumerate(ANSWERED):
            own, at = marks[who][book][kind], x + 0.13 * (2 * step + colour - 2.5)
            axes.plot([at] * len(own), own, ".", color=plots.COLOURS[colour], alpha=0.3, markersize=4)
            label = f"{who}, {book}" if x == 0 else None
            axes.plot([at], [margin(who, book, kind)], marker, color=plots.COLOURS[colour], markersize=8,
                      label=label)
axes.axhline(0, color="black", linewidth=0.8)
axes.set_xticks(range(len(ANSWERED)), ANSWERED)
axes.legend(frameon=False, ncols=2, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.1))
plots.show(fig, f"Points: the mean margins printed above, and each row pale. {title}")

# %% [markdown]
# **Trained:** finetuning moves facts too, in new words less than in those of training (the first guess).
# **Changed:** it prefers what is no longer true. **Untrained:** nothing to be had without a page.
#
# ## What they say
#
# A margin is not an answer. So let all of them answer. For the base, the **prompt** is the third way: rules
# of format with five examples, closed book; and rules of reading, with three examples that have a passage.

# %%
shots = handbook.PROMPTS["rules of format and 5 examples"](questions["train"])
reading = retrieval.READERS["rules of reading and 3 examples with a passage"](
    questions["train"], index, pieces)
ways = {"few-shot": (base, lambda rows: [shots(row["question"]) for row in rows]),
        "bm25": (base, lambda rows: retrieval.prompts(rows, index, pieces, numbers.k, reading)),
        "finetuned": (student, closed), "finetuned, open book": (student, opened)}
rows = [row for kind in handbook.KINDS for row in exam[kind]]
right, refused = {}, {}
for way, (model, ask) in ways.items():
    told = score(model, tokenizer, rows, task="handbook", prompts=ask(rows), progress=False)
    right[way], refused[way] = told.exact_rows, [refuses(answer) for answer in told.answers]
    for kind in handbook.KINDS:
        own = [n for n, row in enumerate(rows) if row["kind"] == kind]
        good, no = (sum(flags[n] for n in own) for flags in (right[way], refused[way]))
        other = len(own) - no - (good if kind != "absent" else 0)
        print(f"{way:<22}{kind:<10} right {good:>3}   refused {no:>3}   else {other:>3}   of {len(own)}")

# %% [markdown]
# Read "refused" twice (the third guess): on absent questions it is right, on all others wrong. Who refuses
# everything is perfect on the first and useless; so from here on absent questions count **net**: the share
# refused of what nothing answers, minus the share refused of what has an answer. Closed book, an untrained
# fact and an absent one are the same thing: neither was in training.
#
# Your numbers in the decision chart, hollow, with intervals over facts: a LoRA on a few facts. The record's,
# beside which they will stand, are of every weight and all facts: do not compare the two.

# %%
mine = defaultdict(dict)
for way in ("few-shot", "bm25", "finetuned"):
    parts = {kind: [n for n, row in enumerate(rows) if row["kind"] == kind] for kind in handbook.KINDS}
    for kind in ANSWERED:
        mine[f"facts: {kind}"][way] = stats.share([right[way][n] for n in parts[kind]], parts[kind])
    having = [n for kind in ANSWERED for n in parts[kind]]
    both = (stats.share([refused[way][n] for n in some], some) for some in (parts["absent"], having))
    mine["facts: absent"][way] = decide_facts.apart(*both)
decide_report.chart(mine=mine)

# %% [markdown]
# ## When a fact changes
#
# With retrieval you edit the page and index again. The base reads the old pages, then the new ones; the right
# answer is the new one, its rival the old. Only questions whose new page is shown count.

# %%
before = retrieval.split(handbook.documents("before"), 80, 20)
old = retrieval.BM25([retrieval.text_of(piece) for piece in before])
rows = [row for row, here in zip(exam["changed"], shown["changed"], strict=True) if here]
turned = {"pages of before": mean(margins(base, opened(rows, old, before), rows) or [0]),
          "pages of now": mean(marks["base"]["open, shown"]["changed"] or [0])}
for name, ahead in turned.items():
    print(f"the base with {name}: the new answer is ahead by {ahead:+.1f} nats")
started = time.perf_counter()
retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
indexed = time.perf_counter() - started
print(f"index all {len(pieces)} pieces again: {1000 * indexed:.0f} ms. Train again: {run.seconds:.0f} s",
      f"for {len(taught)} facts, and the questions must be written first.")
stubborn = margin("finetuned", "open, shown", "changed")
print(f"the finetuned model, the new page in its prompt: {stubborn:+.1f} nats ({len(rows)} questions)")

# %% [markdown]
# The last number is what to look at before you "finetune and retrieve" (the fourth guess): below the base's
# with the same pages, who was trained closed book holds on to its memory although the page says otherwise.
# If you want both, train **open book**, with passages in training rows: an arm of the record.

# %%
record(seed=SEED, recall={name: {str(k): share for k, share in own.items()} for name, own in recall.items()},
       margins={f"{who}, {book}": {kind: margin(who, book, kind) for kind in ANSWERED
                                   if marks[who][book][kind]} for who in marks for book in BOOKS},
       right={way: sum(flags) / len(flags) for way, flags in right.items()},
       refused={way: sum(flags) / len(flags) for way, flags in refused.items()},
       turned=turned, index_ms=1000 * indexed, training_seconds=run.seconds)

# %% [markdown]
# ## The whole comparison
#
# The record has prompts on form, skill and facts, a mask on form, pages on facts, finetuning of every weight
# on all, with passages on facts. For skill neither a mask nor similar examples were tried. Choices are on
# rows that are not test rows; what is trained has three seeds. Controls: a model trained on answers of
# **other** facts, and readers given the right page. Until it is made, one line stands for its tables.

# %% tags=["recorded"]
Markdown("\n".join(decide_report.lines()))

# %% [markdown]
# ## The decision chart
#
# For each kind the way that is **ahead in this record**: the interval of its paired difference to every other
# lies above 0. Where none is, several are named.

# %% tags=["recorded"]
decide_report.chart()

# %% [markdown]
# ## Exercise 13.4: choose
#
# {{exercise:13.4}}
#
# {{hint:13.4}}

# %% tags=["exercise"]
def choose(ways, mix, worth):
    """The way to answer that is surely worth most, and how much, for a thousand requests: (name, dollars).

    ways: {name: {"right": {kind: (mean, low, high)}, "cost": dollars for a thousand requests}}; shares right
    from 0 to 1 with the ends of their intervals. mix: {kind: share of the requests}; they add up to 1.
    worth: dollars that one right answer brings. Count with `low`, as you want to be sure; a kind that a way
    has no number for brings nothing. Then take off the cost.
    """
    # BEGIN SOLUTION
    values = {}
    for name, way in ways.items():
        right = sum(share * way["right"][kind][1] for kind, share in mix.items() if kind in way["right"])
        values[name] = 1000 * worth * right - way["cost"]
    best = max(values, key=values.get)
    return best, values[best]
    # END SOLUTION


# %%
check("13.4", choose)

# %% [markdown]
# ## Your case
#
# Kinds first: if you can tell them apart, a router sends each its own way. Then one way for all questions to
# the handbook. Put in your numbers; the price of the card is the example in data/prices.json. Each change
# costs training where weights hold the facts, indexing where pages do; writing it is not in it. A sum of
# lower ends is cautious, and no exact 95% bound. Write down your choice, and what would change your mind.

# %% tags=["recorded"]
MIX = {"facts: trained": 0.4, "facts: changed": 0.2, "facts: untrained": 0.2, "facts: absent": 0.2}
WORTH, CHANGES, REQUESTS = 0.01, 1, 1_000                                  # dollars; a day; a day
whole = records.values("decide")
for kind in whole["kinds"] if whole else ():
    ways = decide_report.ways({kind: 1.0}, CHANGES, REQUESTS)
    print(f"{kind:<18} alone: {solve('13.4')(ways, {kind: 1.0}, WORTH)[0]}")
ways = decide_report.ways(MIX, CHANGES, REQUESTS) if whole else {}
for name, way in ways.items():
    print(f"{name:<14} worth {solve('13.4')({name: way}, MIX, WORTH)[1]:>6.2f} dollars a thousand")
print("of these:", solve("13.4")(ways, MIX, WORTH)[0] if whole else records.missing("decide"))

# %% [markdown]
# ## Your own data
#
# The same lab on your files. Change one line, the first: to a folder of documents (`.txt`, `.md`), with a
# CSV in it if you have rows with the columns `question` and `answer`; or to such a CSV alone. Documents
# alone are searched; rows alone are prompted and finetuned. A CPU's few rows only show that everything runs.

# %%
OWN = "handbook"                                                           # such as "my_folder" or "my.csv"
documents, own = retrieval.own(OWN)
train, asked = own.get("train", []), own.get("test", [])[: numbers.own]
if documents:
    own_pieces = retrieval.split(documents, 80, 20)
    own_index = retrieval.BM25([retrieval.text_of(piece) for piece in own_pieces])
    wondered = [retrieval.question_of(row) for row in asked] or ["When does it open?"]
    found = own_index.search_all(wondered, numbers.k)
    for question, best in list(zip(wondered, found, strict=True))[:3]:
        print(question, "->", retrieval.text_of(own_pieces[best[0][0]])[:80] if best else "nothing found")
    at = retrieval.places(found, own_pieces, asked) if asked else []
    print(f"recall at {numbers.k}: {retrieval.recall_at(numbers.k, at):.0%} of {len(asked)}")

# %%
if asked:
    turns = [turn for row in train[:5] for turn in (row["prompt"][-1], row["completion"][0])]
    tries = {"few-shot": (base, [[*row["prompt"][:-1], *turns, row["prompt"][-1]] for row in asked])}
    if documents:
        tries["bm25"] = base, retrieval.prompts(asked, own_index, own_pieces, numbers.k)
    pupil = find("lora-r16").prepare(SEED)
    fit(pupil, train, tokenizer, steps=numbers.own_steps, lr=numbers.rate, batch=numbers.batch,
        length=numbers.length, seed=SEED, progress=False)
    tries["finetuned"] = pupil, closed(asked)
    for way, (model, prompts) in tries.items():
        told = score(model, tokenizer, asked, task=OWN if OWN == "handbook" else "own_data", prompts=prompts,
                     progress=False)
        found = stats.share(told.exact_rows, range(len(asked)))
        print(f"{way:<10} right {found.mean:.0%} [{found.low:.0%}, {found.high:.0%}]: {told.answers[0]!r}")

# %% [markdown]
# ## What the field says, measured

# %% tags=["nbval-check-output", "recorded"]
claims("13")

# %% [markdown]
# ## Take-away
#
# - Sort your questions first: form, skill, facts that stand, facts that change, and what nothing answers.
# - Measure retrieval by itself (recall at k), before the model reads. Keep the title with each piece.
# - Count refusals twice: of what nothing answers, and of what has an answer.
# - A mask gives form and knows nothing. Training gives form, and facts as they were on that day.
# - A changed page costs milliseconds. Whether a model trained closed book believes the page, you must
#   measure.
# - Choose by the lower end of an interval and the price, on your own questions.
#
# **Read:** Lewis et al., *Retrieval-Augmented Generation* (arXiv 2005.11401). Robertson and Zaragoza, *The
# Probabilistic Relevance Framework: BM25 and Beyond* (2009). Ovadia et al., *Fine-Tuning or Retrieval?*
# (2312.05934). Willard and Louf, *Efficient Guided Generation for Large Language Models* (2307.09702).
