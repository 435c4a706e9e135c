"""The jobs of `bench data` that score no answers: an association, training on one's own output, speed.

Bias. Every arm takes equal steps at one rate, that of the counterfactual rows: it is chosen by what a user of
such rows could see, the log-odds on jobs and sentences of training, among rates that change the perplexity of
every second general passage by at most 2%. Reported are jobs and sentences that no training shows, and the
other passages.

Collapse. A generation is the base, finetuned; the first on real passages about people at work, each later one
on as many passages that the one before sampled, unprompted but for a fixed request. Loss is taken on real
passages that neither train nor choose the rate. One rate for all, the one with the lowest loss on other
real passages after training on real ones: later generations do not choose by what they would not have.
"""

import math
from random import Random

from labkit.bench import methods as bench_methods
from labkit.bench.data_jobs import Arm, trained
from labkit.errors import LabkitError

GENTLE = (1e-4, 3e-4, 1e-3)  # rates of LoRA that may leave perplexity alone
WITHIN = 0.02  # change of perplexity that a rate is allowed, as in the claim
FAR = 1e9  # stands for the change of perplexity of a training that diverged
ROWS = ("counterfactual", "balanced", "skewed", "voice")  # the last has neither jobs nor pronouns
GENERATIONS = 5  # after the one on real passages
REAL = 0.1  # share of real passages where they are mixed in
WAYS = ("replace", "accumulate", "real10")  # the last replaces all but 10%
LONGEST = 64  # tokens of a sampled passage, about three times the mean
ASK = "Write about somebody at work."


def job_rows(which):
    """Training rows of the bias jobs: a variant of the jobs family, or replies that have no he or she."""
    from labkit import load

    if which == "voice":
        return load("voice", quality="gold")["train"]
    return load("jobs", variant=which)["train"]


def adapted(rows, rate, seed, steps, asked, **options):
    """(model, Run) of the base with LoRA r16, trained on rows."""
    from labkit import fit, load_tokenizer, methods

    method = methods.find("lora-r16")
    model = method.prepare(int(seed))
    run = fit(
        model, rows, load_tokenizer(), steps=steps, lr=float(rate), seed=int(seed), batch=asked["batch"],
        length=asked["length"], progress=False, **method.options, **options,
    )  # fmt: skip
    return model, run


# ---- bias -----------------------------------------------------------------------------------------------


def sweep_bias(rate, seed, asked):
    """`right` is 0 within the allowed change of perplexity and falls below it; `loss` is the log-odds."""
    from labkit import load_model

    before = general_loss(load_model(), 0, asked)
    try:
        model, _ = adapted(job_rows("counterfactual"), rate, seed, asked["few"], asked)
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return {"right": -FAR, "loss": None, "diverged": True}
    change = abs(math.exp(general_loss(model, 0, asked) - before) - 1)
    beyond = max(0.0, change - WITHIN) if math.isfinite(change) else FAR
    return {"right": -beyond, "loss": association(model, "seen", asked)["log-odds"], "diverged": False}


def bias(which, rate, seed, asked):
    """The association and the loss on plain English after training on the rows that `which` names."""
    model, _ = adapted(job_rows(which), rate, seed, asked["few"], asked)
    return measured(model, asked)


def untrained(asked):
    """The same of the base."""
    from labkit import load_model

    return measured(load_model(), asked)


def measured(model, asked):
    """Association on unseen probes, after the chat prompt and as bare text, and general loss."""
    return {"chat": association(model, "unseen", asked),
            "bare": association(model, "unseen", asked, chat=False),
            "general loss": general_loss(model, 1, asked)}  # fmt: skip


def general_loss(model, half, asked):
    """Nats per token on every second passage of plain English, from the first (0) or the second (1) on."""
    from labkit import load_tokenizer
    from labkit.tasks.general import passages, perplexity

    texts = passages()[half::2]
    texts = texts[: bench_methods._most(asked, len(texts))]
    return perplexity(model, load_tokenizer(), texts, progress=False).loss


def association(model, part, asked, chat=True):
    """Mean absolute he/she log-odds over probes (above 0: he), and each job's mean signed log-odds.

    `chat` puts the request that training has in front of the probe; else the probe is bare text.
    """
    from labkit import load, load_tokenizer
    from labkit.tasks import jobs
    from labkit.tasks.general.likelihood import log_probabilities

    tokenizer, pieces = load_tokenizer(), []
    rows = load("jobs")[f"probes_{part}"].to_list()
    rows = rows[: bench_methods._most(asked, len(rows))]
    words = [tokenizer(word, add_special_tokens=False).input_ids for word in jobs.CONTINUATIONS]
    for row in rows:
        begun = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, tokenize=False)
        ids = tokenizer((begun if chat else "") + row["text"], add_special_tokens=False).input_ids
        pieces += [(ids + word, len(ids)) for word in words]
    found = [sum(one) for one in log_probabilities(model, tokenizer, pieces, 64, "probes", progress=False)]
    pairs = list(zip(found[::2], found[1::2], strict=True))
    signed = jobs.by_job(pairs, [row["job"] for row in rows], signed=True)
    return {"log-odds": jobs.mean_absolute_log_odds(pairs), "by job": signed}


# ---- collapse -------------------------------------------------------------------------------------------


def sweep_collapse(rate, seed, asked):
    """The loss on real passages that choose the rate, after training on real ones."""
    try:
        _, run = adapted(real_rows(asked, int(seed)), rate, seed, asked["few"], asked,
                         validation=held_out(asked, judging=True), validate_every=asked["few"])  # fmt: skip
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return {"right": 0.0, "loss": None, "diverged": True}
    return {"right": 0.0, "loss": run.validation[-1][1], "diverged": False}


def collapse(way, rate, seed, asked):
    """Loss on real passages after each generation, and the share of its sampled passages that are distinct.

    `replace`: a generation has only samples of the one before. `accumulate`: the real passages and all
    samples so far, in equal steps; it has real rows anyway, so there is no variant of it with 10% more.
    `real10`: replace, but a tenth of the rows are real ones, drawn anew for each generation.
    """
    from labkit import load_tokenizer

    real, tokenizer = real_rows(asked, int(seed)), load_tokenizer()
    rows, losses, distinct = real, [], []
    for generation in range(asked["generations"] + 1):
        model, run = adapted(rows, rate, seed, asked["few"], asked, validation=held_out(asked),
                             validate_every=asked["few"])  # fmt: skip
        losses.append(run.validation[-1][1])
        if generation == asked["generations"]:
            break
        texts = sampled(model, tokenizer, len(real), 1000 * int(seed) + generation)
        distinct.append(len(set(texts)) / len(texts))
        rows = following(way, rows, real, [passage(text) for text in texts], f"{seed}/{generation}")
    return {"losses": losses, "distinct": distinct}


def following(way, rows, real, made, seed):
    """The rows of the next generation, from those of this one, the real ones, and what it has made."""
    if way == "accumulate":
        return [*rows, *made]
    if way == "replace":
        return made
    kept = round(REAL * len(made))
    return made[: len(made) - kept] + Random(f"collapse/{seed}").sample(real, kept)


def sampled(model, tokenizer, count, seed, batch=250):
    """`count` passages drawn at temperature 1 from the whole distribution; empty ones are drawn again."""
    import torch

    from labkit import env
    from labkit.train.precision import Weights, autocast

    on, found = next(model.parameters()).device, []
    precision = env.precision(on)
    text = tokenizer.apply_chat_template(passage("")["prompt"], add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt").input_ids.to(on)
    torch.manual_seed(seed)
    model.eval()
    with torch.no_grad(), Weights(model, precision), autocast(on.type, precision):
        for _ in range(10 + 10 * count // batch):
            if len(found) >= count:
                return found[:count]
            many = ids.expand(min(batch, count), -1)
            out = model.generate(
                input_ids=many, attention_mask=torch.ones_like(many), max_new_tokens=LONGEST,
                do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
                pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
            )  # fmt: skip
            texts = tokenizer.batch_decode(out[:, ids.shape[1] :], skip_special_tokens=True)
            found += [one for one in texts if one.strip()]
    raise LabkitError(f"only {len(found)} of {count} sampled passages have any text: lower the learning rate")


def real_rows(asked, seed):
    """Real passages to begin with; each seed has its own."""
    from labkit.tasks import jobs

    return [passage(row["text"]) for row in jobs.build("train", asked["passages"], seed=seed)]


def held_out(asked, judging=False):
    """Real passages with the jobs and sentences of training that training does not have.

    Those that choose the rate are the validation split; the others are built after them.
    """
    from labkit.tasks import jobs

    size = jobs.SPLITS["validation"]
    rows = jobs.build("validation", 2 * size)
    rows = rows[:size] if judging else rows[size:]
    return [passage(row["text"]) for row in rows[: bench_methods._most(asked, size)]]


def passage(text):
    """A row that asks for any passage: nothing in its prompt says which."""
    from labkit.tasks import jobs

    prompt = [{"role": "system", "content": jobs.SYSTEM}, {"role": "user", "content": ASK}]
    return {"prompt": prompt, "completion": [{"role": "assistant", "content": text}]}


# ---- speed ----------------------------------------------------------------------------------------------


def speed(how, rate, asked):
    """Tokens a second on 1,000 tickets: `packed` as it comes, `stepped` without a CUDA graph, or `padded`."""
    arm = Arm(options={"fast": False}) if how == "stepped" else Arm(padded=how == "padded")
    _, run = trained(arm, rate, 0, asked)
    return {"tokens/s": run.tokens_per_second, "path": run.path, "steps": run.steps,
            "training seconds": run.seconds}  # fmt: skip
