"""The jobs of `bench lora` that train and score: the update's rank, forgetting, another base.

Arguments are parts of a job's name, so text; `asked` is `lora.settings()`.
"""

from labkit.bench import methods as bench_methods
from labkit.bench.answers import scored
from labkit.errors import LabkitError
from labkit.records import stats

RANKS = (0, 1, 4, 16, 64, 256)
CUT = 16
TESTED = (("full", 0), ("full", CUT), ("shuffled", CUT))  # the cuts that are scored on test rows
RANK = 16  # of the adapter that is put on another base
PRETRAINING = 1e-4  # the rate of continued pre-training
CHANGED, SLIGHTLY = "changed base", "slightly changed base"


def fitted(model, rows, tokenizer, rate, seed, asked, **options):
    """Train `model` on rows with the bench's budget, which `options` may change; returns it."""
    from labkit import fit

    budget = {name: asked[name] for name in ("steps", "batch", "length")}
    fit(model, rows, tokenizer, lr=float(rate), seed=int(seed), progress=False, **{**budget, **options})
    return model


def exact(model, tokenizer, data, split, asked):
    """The Scores of a model on the rows of a split of tickets, all but in a trial."""
    rows = data[split]
    rows = rows.select(range(bench_methods._most(asked, len(rows))))
    return scored(model, tokenizer, "tickets", rows)


def packed(model, tokenizer, data, asked):
    """Exact matches on test rows, packed."""
    return stats.pack_rows(exact(model, tokenizer, data, "test", asked).exact_rows)


# ---- is the update low-rank? ----------------------------------------------------------------------------


def lowrank(rate, seed, asked):
    """Full finetuning, and its update cut to a few ranks, beside the same cuts of the update shuffled.

    Every linear layer's update is cut by itself; what the embedding (which is the head) and the norms learned
    stays whole in every variant, and is all that rank 0 leaves. Test rows for the whole update and for the
    cuts TESTED; validation rows, and the mean share of the squared norm that is kept (energy), for every
    rank (shuffled, rank 0 would be the same model again).
    """
    from labkit import load, load_tokenizer, methods
    from labkit.methods.low_rank import shuffled, updates

    data, tokenizer = load("tickets"), load_tokenizer()
    model = methods.find("full").prepare(int(seed))
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    fitted(model, data["train"], tokenizer, rate, seed, asked)
    changes = updates(before, model.state_dict())
    found = {"rows": {"full": packed(model, tokenizer, data, asked)}, "energy": {},
             "validation": {"whole": exact(model, tokenizer, data, "validation", asked).exact}}  # fmt: skip
    for kind in ("full", "shuffled"):
        if kind == "shuffled":
            changes = {name: shuffled(change, int(seed)) for name, change in changes.items()}
        factors = {name: factored(change) for name, change in changes.items()}
        ranks = [rank for rank in RANKS if rank or kind == "full"]
        found["energy"][kind] = {str(rank): _mean([kept(s, rank) for _, s, _ in factors.values()])
                                 for rank in ranks}  # fmt: skip
        found["validation"][kind] = {}
        for rank in ranks:
            put(model, before, {name: cut(parts, rank) for name, parts in factors.items()})
            scores = exact(model, tokenizer, data, "validation", asked)
            found["validation"][kind][str(rank)] = scores.exact
            if (kind, rank) in TESTED:
                found["rows"][f"{kind}, rank {rank}"] = packed(model, tokenizer, data, asked)
    return found


def factored(update):
    """Singular vectors and values of an update, in fp32: one decomposition serves every rank."""
    import torch

    return torch.linalg.svd(update.float(), full_matrices=False)


def cut(factors, rank):
    """The matrix of `rank` nearest to the one that was factored, as `labkit.methods.low_rank.low_rank`."""
    u, s, vh = factors
    return (u[:, :rank] * s[:rank]) @ vh[:rank]


def kept(values, rank):
    """Share of the squared norm (energy) that the first `rank` of a matrix's singular values hold."""
    squares = values.double().square()
    return (squares[:rank].sum() / squares.sum()).item()


def put(model, before, changes):
    """Set the weights that `changes` names to those of `before` plus the change."""
    import torch

    weights = model.state_dict()
    with torch.no_grad():
        for name, change in changes.items():
            weights[name].copy_(before[name] + change)


# ---- what is forgotten ----------------------------------------------------------------------------------


def forget(method, rate, seed, asked):
    """Share right of phrasings kept from training, loss on plain English, knowledge probe; no loss if it
    diverged."""
    from labkit import load, load_tokenizer, methods

    tokenizer = load_tokenizer()
    seen, unseen = bench_methods.apart(load("tickets")["train"])
    model = methods.find(method).prepare(int(seed))
    try:
        fitted(model, seen, tokenizer, rate, seed, asked)
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return {"right": 0.0, "general loss": None, "probe": None}
    general = bench_methods._general(model, tokenizer, asked)
    return {"right": exact(model, tokenizer, {"unseen": unseen}, "unseen", asked).exact,
            "general loss": general["general loss"], "probe": general["probe"]}  # fmt: skip


# ---- another base ---------------------------------------------------------------------------------------


def rebase(rate, seed, asked):
    """An adapter on the base it was trained on, and on that base after continued pre-training.

    Continued pre-training: every weight, on `plain_text`, as many steps as the adapter had ("changed base"),
    or `weaker` steps ("slightly changed base"). "retrained" is a new adapter, trained on the changed base.
    """
    from labkit import env, load, load_model, load_tokenizer, methods
    from labkit.methods.lora import adapted

    data, tokenizer, method = load("tickets"), load_tokenizer(), methods.find(f"lora-r{RANK}")
    model = fitted(method.prepare(int(seed)), data["train"], tokenizer, rate, seed, asked)
    rows, change = {"own base": packed(model, tokenizer, data, asked)}, {}
    for name, steps in ((SLIGHTLY, asked["weaker"]), (CHANGED, asked["steps"])):
        base = load_model()
        before = {place: weight.detach().clone() for place, weight in base.named_parameters()}
        change[name] = {"general loss before": english(base, tokenizer, asked)}
        options = {"steps": steps, "prompt_loss_weight": 1.0}
        fitted(base, plain_text(), tokenizer, PRETRAINING, seed, asked, **options)
        change[name] |= {"general loss after": english(base, tokenizer, asked),
                         "weights moved": moved(before, dict(base.named_parameters()))}  # fmt: skip
        other = transplanted(model, base)
        rows[name] = packed(other, tokenizer, data, asked)
    base = other.unload()
    env.seed_everything(int(seed))
    again = fitted(adapted(base, RANK), data["train"], tokenizer, rate, seed, asked)
    rows["retrained"] = packed(again, tokenizer, data, asked)
    return {"rows": rows, "change": change}


def english(model, tokenizer, asked):
    """Loss on the passages of plain English, in nats per token."""
    from labkit.tasks.general import passages, perplexity

    texts = passages()
    texts = texts[: bench_methods._most(asked, len(texts))]
    return perplexity(model, tokenizer, texts, progress=False).loss


def transplanted(model, base):
    """`base` with the adapter that lies on `model`, a LoRA of rank RANK on all linear layers."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    from labkit.methods.lora import adapted

    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    other = adapted(base, RANK)
    set_peft_model_state_dict(other, state)
    return other.eval()


def plain_text():
    """Rows of plain text that is not about tickets, to be learned from the second word on.

    All that the course has: the handbook's documents, the shop's messages with the replies that keep every
    rule, sentences about people at work, questions about a database; 0.26 million tokens. `general` is left
    out: it says what was forgotten, and nothing may train on it.
    """
    from labkit import load
    from labkit.tasks import handbook

    voice = load("voice", quality="gold")["train"]
    texts = [f"{one['title']}\n{one['text']}" for one in handbook.documents()]
    texts += [f"{row['message']}\n{row['reply']}" for row in voice]
    texts += [*load("jobs")["train"]["text"], *load("sql")["train"]["question"]]
    halves = [text.partition(" ") for text in texts]
    return [{"prompt": first, "completion": space + rest} for first, space, rest in halves]


def moved(before, after):
    """Norm of the change of all weights over their norm before; both {name: weight}."""
    change = sum((after[name] - weight).double().square().sum().item() for name, weight in before.items())
    size = sum(weight.double().square().sum().item() for weight in before.values())
    return (change / size) ** 0.5


def _mean(numbers):
    return sum(numbers) / len(numbers)
