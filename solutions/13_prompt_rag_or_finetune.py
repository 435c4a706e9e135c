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
import re
import time
from collections import Counter, defaultdict
from statistics import mean

import torch
from IPython.display import Markdown

from labkit import (
    budget, check, claims, device, env, fit, generate, load, load_model, load_tokenizer, machine, plots,
    profile, record, score, seed_everything, solve,
)
from labkit.bench import decide_report, decide_values
from labkit.bench import markdown as records
from labkit.constrain import schema_constraint
from labkit.methods import find, retrieval
from labkit.tasks import handbook, tickets
from labkit.tasks.general.likelihood import log_probabilities
from labkit.train.precision import Weights, autocast
from labkit.train.rows import encode_all

# %%
SEED = 0
numbers = budget(
    cpu=dict(facts=6, k=1, steps=40, rate=3e-3, batch=1, length=256, dense=12),
    gpu=dict(facts=150, k=3, steps=300, rate=2e-3, batch=8, length=512, dense=None),
    smoke=dict(facts=2, k=1, steps=2, rate=3e-3, batch=1, length=256, dense=6),
)  # fmt: skip
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. You finetune on questions about facts, then ask for **the same facts in other words**. Does the model
#    know them?
# 2. A staff handbook of 102 pages, a search by words. What share of questions does it **miss**: the page is
#    not among the three best?
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
          f"(training says {row['old_answer']})" if row["old_answer"] else "")  # fmt: skip

# %% [markdown]
# Before anything else: is what we call withheld really withheld? Test phrasings must be new, facts of the
# kind `untrained` must be unknown to training, and of changed facts training must have the old answer only.

# %% tags=["nbval-check-output"]
print(", ".join(f"{kind} {len(rows):,}" for kind, rows in test.items()))
found = retrieval.leaks(questions["train"], questions["test"])
print("leaks:", {what: len(some) for what, some in found.items()})
planted = [*questions["train"], test["changed"][0]]
print("with one test row planted:", {what: len(some) for what, some in
                                     retrieval.leaks(planted, questions["test"]).items()})  # fmt: skip

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
# there. A search then reads only the lists of the question's words.

# %%
def words(text):
    return re.findall(r"[^\W_]+", text.lower())


class Index:
    """BM25 over texts."""

    def __init__(self, texts, k1=1.2, b=0.75):
        counts = [Counter(words(text)) for text in texts]
        average = mean(one.total() for one in counts)
        having = Counter(word for one in counts for word in one)           # n_w
        self.gains = defaultdict(list)                                     # word -> (text, what it adds)
        for number, one in enumerate(counts):
            norm = 1 - b + b * one.total() / average
            for word, f in one.items():
                idf = math.log(1 + (len(texts) - having[word] + 0.5) / (having[word] + 0.5))
                self.gains[word].append((number, idf * f / (f + k1 * norm)))

    def search(self, query, k):
        scores = Counter()
        for word in words(query):
            for number, gain in self.gains.get(word, ()):
                scores[number] += gain
        return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))[:k]


# %% tags=["nbval-check-output"]
pages = handbook.documents()
texts = [retrieval.text_of(page) for page in pages]
ours, theirs = Index(texts), retrieval.BM25(texts)
asked = [row["question"] for row in questions["validation"]]
for name, one in (("the index", ours), ("one without length", Index(texts, b=0))):
    same = [math.isclose(a[1], b[1]) and a[0] == b[0] for question in asked
            for a, b in zip(one.search(question, 5), theirs.search(question, 5), strict=True)]
    print(f"{name}: pages and scores equal to labkit's, the five best of {len(asked)} questions: {all(same)}")

# %% [markdown]
# ## How well does it find?
#
# **Recall at k** is the share of questions for which a right piece is among the k best. The **mean reciprocal
# rank** also says how far up.
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
SIZES = {20: 0, 40: 10, 80: 20, 160: 40, 400: 0}                           # words of a piece: of them shared
judged = [row for row in questions["validation"] if row["kind"] != "absent"]


def places_in(pieces, texts, rows, k=10):
    """The place of the first right piece for each row, by BM25 over `texts`."""
    found = retrieval.BM25(texts).search_all([row["question"] for row in rows], k)
    return retrieval.places(found, pieces, rows)


cut = {size: retrieval.split(pages, size, shared) for size, shared in SIZES.items()}
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
# The title helps every size, small pieces most. And larger pieces are found more often, but fill the prompt.
# So compare by the tokens that the model must read:

# %%
tokens = {size: mean(len(tokenizer(retrieval.text_of(one)).input_ids) for one in pieces)
          for size, pieces in cut.items()}  # fmt: skip
for size in SIZES:
    points = [(k * tokens[size], retrieval.recall_at(k, places[size, "title"])) for k in (1, 2, 3, 5)]
    print(f"{size:>4} words: " + ", ".join(f"{x:,.0f} tokens {y:.0%}" for x, y in points))

# %% [markdown]
# What does a search by words miss? Questions that use other words than the page (the second guess):

# %%
pieces = cut[160]
index = retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
missed = [row for row, place in zip(judged, places[160, "title"], strict=True) if place > 3]
print(f"not among the three best: {len(missed)} of {len(judged)} questions. For example:")
for row in missed[:3]:
    right = pieces[min(retrieval.holding(pieces, row))]
    line = next(one for one in retrieval.sentences(right["text"]) if row["answer"] in one)
    print(f"\n  {row['question']}\n  {right['title']}: {line.splitlines()[-1]}")
    print(f"  words in common with that sentence: {sorted(set(words(row['question'])) & set(words(line)))}")

# %% [markdown]
# ## Search by meaning
#
# **Dense** retrieval makes a vector of each text and takes the nearest by cosine. The cheapest vector at hand
# is the mean of the base's last hidden states. Will it help with other words? Look at the cosines first.

# %%
base = load_model()
some = pieces[: numbers.dense]                                             # a few on a CPU
embed = retrieval.embed_with(base, tokenizer, precision=env.precision(device()))
dense = retrieval.Dense([retrieval.text_of(piece) for piece in some], embed)
cosines = (dense.vectors @ dense.vectors.T)[~torch.eye(len(some), dtype=bool)]
print(f"cosines between {len(some)} pieces: {cosines.min():.3f} to {cosines.max():.3f}")

# %% tags=["nbval-check-output"]
print("unlike pieces are nearly parallel, the mean cosine above 0.85:", bool(cosines.mean() > 0.85))

# %%
there = {piece["document"] for piece in some}
rows = [row for split in ("validation", "test") for row in questions[split] if row["document"] in there][:300]
few = rows if numbers.dense is None else rows[:24]
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

# %% [markdown]
# With the real vocabulary, and a grammar of seven answers:

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
print(f"free:        {free!r}\nconstrained: {bound!r}")

# %% tags=["nbval-check-output"]
print("free is one of the seven answers:", free in DAYS)
print("constrained is one of the seven answers:", bound in DAYS)

# %% [markdown]
# In form, and a guess: a mask knows no facts. A real grammar is compiled to an automaton
# over tokens once (Willard and Louf 2023), so that a step costs a look-up. `labkit.constrain` does that for a
# JSON Schema:

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

# %%
def some_of(kind):
    """One test row for each of some facts of a kind, spread evenly."""
    rows = list({row["fact"]: row for row in test[kind]}.values())
    return [rows[i * len(rows) // numbers.facts] for i in range(numbers.facts)]


exam = {kind: some_of(kind) for kind in handbook.KINDS}
taught = {row["fact"] for kind in ("trained", "changed") for row in exam[kind]}
nothing = [row for row in questions["train"] if row["kind"] == "absent"]
nothing = nothing[:: max(1, len(nothing) // (2 * numbers.facts))]
lessons = [row for row in questions["train"] if row["fact"] in taught] + nothing
print(f"{len(lessons)} training rows about {len(taught)} facts, {len(nothing)} of them to be refused")

# %% [markdown]
# An untrained model answers in whole sentences: 0% right, whatever it knows. So ask something finer: is the
# right answer **more likely than a wrong one of the same form**? The wrong one is another page's value of the
# same thing; for a changed fact, the old value; where nothing answers, a made-up one. The **margin** is the
# difference of their losses, in nats over the whole answer. Form drops out; knowledge is left.

# %%
values = defaultdict(list)                                                 # what other pages say
for row in [*test["trained"], *test["untrained"]]:
    topic, _, attribute = row["fact"].split("/")
    values[topic, attribute].append(row["answer"])


def rival(row):
    """A wrong answer of the form of the right one."""
    if row["kind"] == "changed":
        return row["old_answer"]
    topic, _, attribute = row["fact"].split("/")
    return next((value for value in values[topic, attribute] if value != row["answer"]), "14 days")


def nats(model, prompts, answers):
    """The loss of each answer, summed over its tokens and the end."""
    rows = [{"prompt": prompt, "completion": [{"role": "assistant", "content": answer}]}
            for prompt, answer in zip(prompts, answers, strict=True)]  # fmt: skip
    coded = [(one.ids, one.weights.index(1.0)) for one in encode_all(rows, tokenizer, length=2048)]
    precision = env.precision(device())
    with Weights(model, precision), autocast(device().type, precision):
        return [-sum(row) for row in log_probabilities(model, tokenizer, coded, 8, "loss", progress=False)]


def closed(rows):
    return [row["prompt"] for row in rows]


def opened(rows, index=index, pieces=pieces):
    return retrieval.prompts(rows, index, pieces, k=numbers.k)


# %%
def sit(model):
    """{book: {kind: (loss of the right answer, margin) of each row}}."""
    found = {}
    for book, ask in (("closed", closed), ("open", opened)):
        found[book] = {}
        for kind, rows in exam.items():
            prompts = ask(rows)
            right = nats(model, prompts, [row["answer"] for row in rows])
            wrong = nats(model, prompts, [rival(row) for row in rows])
            found[book][kind] = [(a, b - a) for a, b in zip(right, wrong, strict=True)]
    return found


def report(name, found):
    for book, kinds in found.items():
        for kind, rows in kinds.items():
            loss, margin = (mean(one) for one in zip(*rows, strict=True))
            ahead = sum(one > 0 for _, one in rows)
            print(f"{name:<10}{book:<8}{kind:<10} loss {loss:>6.1f}   margin {margin:>+6.1f}",
                  f"  right is ahead in {ahead} of {len(rows)}")  # fmt: skip


marks = {"base": sit(base)}
report("base", marks["base"])

# %% [markdown]
# Closed book, the base tosses a coin, as it must: the facts are drawn at random. Open book it knows more,
# although nothing was trained. And it has no idea when to say that the handbook does not say.

# %% tags=["nbval-check-output", "smoke-skip-compare"]
def margin(name, book, *kinds):
    """The mean margin over the rows of these kinds."""
    return mean(one for kind in kinds for _, one in marks[name][book][kind])


ANSWERED = ("trained", "changed", "untrained")
print("pages raise the base's margin on what they answer by more than 2 nats:",
      margin("base", "open", *ANSWERED) > margin("base", "closed", *ANSWERED) + 2)  # fmt: skip

# %% [markdown]
# Now finetune, closed book.

# %%
student = find("lora-r16").prepare(SEED)
run = fit(student, lessons, tokenizer, steps=numbers.steps, lr=numbers.rate, batch=numbers.batch,
          length=numbers.length, seed=SEED)  # fmt: skip
marks["finetuned"] = sit(student)
print(f"{run.seconds:.0f} s of training, loss {run.losses[0]:.2f} to {run.losses[-1]:.3f}")
report("finetuned", marks["finetuned"])

# %% tags=["nbval-check-output", "smoke-skip-compare"]
gain = {kind: margin("finetuned", "closed", kind) - margin("base", "closed", kind) for kind in ANSWERED}
print("trained facts, asked in other words: the margin rose by more than 5 nats:", gain["trained"] > 5)
print("untrained facts: it rose by less than half of that:", gain["untrained"] < gain["trained"] / 2)
print("changed facts: it prefers the old answer:", margin("finetuned", "closed", "changed") < 0)

# %%
names = [(who, book) for who in marks for book in ("closed", "open")]
title = "Closed book, finetuned: " + ", ".join(
    f"{kind} {margin('finetuned', 'closed', kind):+.0f}" for kind in exam) + " nats"  # fmt: skip
fig, axes = plots.figure(title, "", "margin of the right answer (nats)")
for place, ((who, book), marker) in enumerate(zip(names, "osD^", strict=True)):
    for x, kind in enumerate(exam):
        own = [one for _, one in marks[who][book][kind]]
        at = x + 0.18 * (place - 1.5)
        axes.plot([at] * len(own), own, ".", color=plots.COLOURS[place], alpha=0.3, markersize=4)
        label = f"{who}, {book} book" if x == 0 else None
        axes.plot([at], [mean(own)], marker, color=plots.COLOURS[place], markersize=8, label=label)
axes.axhline(0, color="black", linewidth=0.8)
axes.set_xticks(range(len(exam)), exam)
axes.legend(frameon=False, ncols=2, fontsize=8, loc="upper left", bbox_to_anchor=(0, -0.1))
said = "; ".join(f"{who} {book}: " + ", ".join(f"{kind} {margin(who, book, kind):+.1f}" for kind in exam)
                 for who, book in names)  # fmt: skip
plots.show(fig, f"Points: mean margins, and each row pale. {said}.")

# %% [markdown]
# **Trained:** finetuning teaches facts too, if training asks for each in several ways, and new words do not
# hide them (the first guess). **Changed:** it is as sure of what is no longer true. **Untrained:** nothing to
# be had without a page. **Absent:** it learned to refuse. But whom else does it refuse?

# %%
for name, model in (("base", base), ("finetuned", student)):
    for kind in ANSWERED:
        refusing = nats(model, closed(exam[kind]), [handbook.REFUSAL] * numbers.facts)
        telling = [loss + min(0, one) for loss, one in marks[name]["closed"][kind]]  # the answer or its rival
        count = sum(a < b for a, b in zip(refusing, telling, strict=True))
        print(f"{name:<10}{kind:<10} a refusal is likelier than both answers in {count} of {numbers.facts}")

# %% [markdown]
# Closed book, an untrained fact and an absent one are the same thing: neither was in training, and only for
# the second is a refusal right (the third guess).
#
# ## When a fact changes
#
# With retrieval you edit the page and index again. The base reads the old pages, then the new ones; the right
# answer is the new one, its rival the old.

# %%
before = retrieval.split(handbook.documents("before"), 160, 40)
old = retrieval.BM25([retrieval.text_of(piece) for piece in before])
rows = exam["changed"]
prompts = opened(rows, old, before)
stale, now = (nats(base, prompts, [row[column] for row in rows]) for column in ("old_answer", "answer"))
turned = {"pages of before": mean(a - b for a, b in zip(stale, now, strict=True)),
          "pages of now": margin("base", "open", "changed")}  # fmt: skip
for name, ahead in turned.items():
    print(f"the base with {name}: the new answer is ahead by {ahead:+.1f} nats")
started = time.perf_counter()
retrieval.BM25([retrieval.text_of(piece) for piece in pieces])
indexed = time.perf_counter() - started
print(f"index all {len(pieces)} pieces again: {1000 * indexed:.0f} ms. Train again: {run.seconds:.0f} s",
      f"for {len(taught)} facts, and the questions must be written first.")  # fmt: skip
stubborn = margin("finetuned", "open", "changed")
print(f"the finetuned model, given the new pages: {stubborn:+.1f} nats")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
print("new pages turn the base to the new answers:", turned["pages of now"] > turned["pages of before"])
print("indexing is quicker than training:", indexed < run.seconds)

# %% [markdown]
# The last line is the trap in "finetune and retrieve": who was trained closed book answers from memory, and
# may pass over a page that says otherwise (the fourth guess). If you want both, train **open book**, with
# some rows whose page is missing, to be refused: `retrieval.training_rows`, an arm of the record.
#
# A margin is not an answer. On the GPU budget: generated answers, exactly right, the base with its rules and
# five examples; and your numbers in the decision chart, hollow.

# %% tags=["gpu"]
# %%gpu
shots = handbook.PROMPTS["rules of format and 5 examples"](questions["train"])
ways = {"few-shot": (base, lambda rows: [shots(row["question"]) for row in rows]),
        "bm25": (base, lambda rows: retrieval.prompts(rows, index, pieces, numbers.k, shots)),
        "finetuned": (student, closed), "finetuned, open book": (student, opened)}  # fmt: skip
mine = defaultdict(dict)
for way, (model, ask) in ways.items():
    for kind, rows in exam.items():
        found = score(model, tokenizer, rows, task="handbook", prompts=ask(rows), progress=False)
        mine[f"facts: {kind}"][way] = found.exact
        stale = f", with the old answer {found.detail['stale']:.0%}" if kind == "changed" else ""
        print(f"{way:<22}{kind:<10} right {found.exact:>4.0%}{stale}")
decide_report.chart(mine={kind: {way: one for way, one in own.items() if way in decide_report.ARMS}
                          for kind, own in mine.items()})  # fmt: skip
record(right=dict(mine))

# %%
record(seed=SEED, recall={name: {str(k): share for k, share in own.items()} for name, own in recall.items()},
       margins={f"{who}, {book}": {kind: margin(who, book, kind) for kind in exam} for who, book in names},
       turned=turned, index_ms=1000 * indexed, training_seconds=run.seconds)  # fmt: skip

# %% [markdown]
# ## The whole comparison
#
# The record has every way on every kind: prompts, pieces and rates chosen on validation rows, three seeds.
# Its controls: a model trained on answers of **other** facts, and readers given the right page.

# %% tags=["recorded"]
Markdown("\n".join([*decide_report.accuracy_table(), "", *decide_report.retrieval_table()]))

# %% [markdown]
# What a request costs, and what a changed fact costs:

# %% tags=["recorded"]
Markdown("\n".join([*decide_report.cost_table(), "", *decide_report.update_table()]))

# %% tags=["recorded"]
Markdown("\n".join([*decide_report.control_table(), "", *decide_report.small_table()]))

# %% [markdown]
# ## The decision chart
#
# For each kind the way that is **surely** ahead: the interval of its difference to the next, on the same
# rows, lies above 0.

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
# Put in your mix of requests, what a right answer is worth, and what keeping pages adds to the costs.

# %% tags=["recorded"]
MIX = {"form": 0.2, "facts: trained": 0.4, "facts: changed": 0.2, "facts: absent": 0.2}
WORTH, EXTRA = 0.01, {"bm25": 0.50, "both": 0.50}                          # dollars; a thousand requests
whole = records.values("decide")
ways = {} if whole else {"finetuned": {"right": {"form": (0.78, 0.75, 0.81)}, "cost": 0.01},
                         "bm25": {"right": {"facts: trained": (0.4, 0.36, 0.44)}, "cost": 0.51}}  # fmt: skip
for kind in MIX if whole else ():
    for arm, one in whole["kinds"][kind]["arms"].items():
        if arm not in decide_values.CONTROLS:
            times = whole["ms"][decide_values.KINDS[kind][0]][arm]
            ms = sorted(times[max(times, key=int)])[len(times) // 2]       # in batches
            way = ways.setdefault(arm, {"right": {}, "cost": EXTRA.get(arm, 0.0)})
            way["right"][kind] = one["mean"], one["low"], one["high"]
            way["cost"] += MIX[kind] * retrieval.dollars_per_thousand(ms, decide_report.DOLLARS_AN_HOUR)
for name, way in ways.items():
    print(f"{name:<14} surely worth {solve('13.4')({name: way}, MIX, WORTH)[1]:>6.2f} dollars a thousand")
print("of these:", solve("13.4")(ways, MIX, WORTH)[0], "" if whole else "(invented numbers)")

# %% [markdown]
# A router may also send each kind its own way, if you can tell kinds apart. Write down your choice:

# %%
choice = dict(way="...", because=["kind: share right [low, high], against ...", "dollars a thousand"],
              unless="the number that would change my mind")  # fmt: skip

# %% [markdown]
# ## Your own data
#
# The same lab on your files: a folder of text files, and a CSV with the columns `question` and `answer`.

# %%
mine_pages = pages[:3]
# mine_pages = retrieval.read_folder("my_documents")
own_pieces = retrieval.split(mine_pages, 160, 40)
own_index = retrieval.BM25([retrieval.text_of(piece) for piece in own_pieces])
own_rows = [row for row in questions["test"] if row["document"] in {page["id"] for page in mine_pages}][:3]
# own_rows = load("my.csv")["test"].to_list()
for row, prompt in zip(own_rows, retrieval.prompts(own_rows, own_index, own_pieces, k=1), strict=True):
    print(f"{retrieval.question_of(row)}\n    {prompt[-1]['content'].splitlines()[0]}")

# %% [markdown]
# ## What the field says, measured

# %% tags=["nbval-check-output", "recorded"]
claims("13")

# %% [markdown]
# ## Take-away
#
# - Sort your questions first: form, skill, facts that stand, facts that change, and what nothing answers.
# - Measure retrieval by itself (recall at k), before the model reads. Keep the title with each piece.
# - A mask gives form and knows nothing. Training gives form, and facts as they were on that day.
# - A changed page costs milliseconds. A model trained closed book may not believe the page.
# - Choose by the lower end of an interval and the price, on your own questions.
#
# **Read:** Lewis et al., *Retrieval-Augmented Generation* (arXiv 2005.11401). Robertson and Zaragoza, *The
# Probabilistic Relevance Framework: BM25 and Beyond* (2009). Ovadia et al., *Fine-Tuning or Retrieval?*
# (2312.05934). Willard and Louf, *Efficient Guided Generation for Large Language Models* (2307.09702).
#
# **Back to the start:** run 00_start_here once more, with `load("my.csv")`: by now you know what each line
# decides, and how to find out whether it helped.
