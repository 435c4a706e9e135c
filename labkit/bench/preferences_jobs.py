"""The jobs of `bench preferences`: each trains one model from a seed's start, and scores it.

Arguments are parts of a job's name, so text; `asked` is `preferences.settings()`, `folder` where jobs leave
results. A start leaves its weights there too, and a job reads what the ones before it left.
"""

import json
import math
import os
from pathlib import Path

from labkit.bench import jobs
from labkit.bench import methods as bench_methods
from labkit.bench import preferences_scores as scoring
from labkit.errors import LabkitError

LOSSES = {"dpo": "sigmoid", "ready": "sigmoid", "balanced": "sigmoid", "ipo": "ipo", "norm": "sigmoid_norm"}
RANK = 16
KIN = {"ipo": (0.3, 1.0, 3.0), "norm": (1.0, 3.0, 10.0)}  # betas to begin with: their losses take means
BETA = 0.1  # of DPO where its rate is chosen
LENGTH_RULES = ("not_too_long", "not_too_short")
SHARES = (1, 2, 4)  # more SFT takes all, half or a quarter of the steps that read as much as DPO
FAILING = 0.001  # a beta that hardly holds on to the start
PARTS = 2  # that GRPO's answers are split into for the backward pass: half the memory of logits


# ---- the start ------------------------------------------------------------------------------------------


def start(rate, seed, asked, folder):
    """Full finetuning of the base on drafts; leaves its weights, and its scores as a policy."""
    from labkit import load_tokenizer

    tokenizer, data = load_tokenizer(), scoring.voice_rows()
    model, run = _drafted(rate, seed, asked, data)
    if not run:
        raise LabkitError(f"the start diverged at the rate {rate} with seed {seed}: sweep again")
    _keep(model, Path(folder) / f"start_{seed}.safetensors")
    test = scoring.few(data["test"], asked)
    found = scoring.policy_scores(model, tokenizer, test, seed, asked, divergence=False)
    return {"policy": found, "held-out loss": run.validation[-1][1]}


def tune_start(rate, seed, asked, folder):
    """As `bench_methods.sweep` wants it: the loss on validation drafts alone decides."""
    _, run = _drafted(rate, seed, asked, scoring.voice_rows())
    loss = run.validation[-1][1] if run else math.inf
    return _tried(0.0, loss) if math.isfinite(loss) else _diverged()


def _drafted(rate, seed, asked, data):
    """(model, Run, or None where the loss was no number) of full finetuning on drafts."""
    from labkit import methods

    model = methods.find("full").prepare(int(seed))
    options = {"steps": asked["start"], "batch": asked["batch"], "length": asked["length"],
               "validation": scoring.few(data["validation"], asked),
               "validate_every": asked["start"]}  # fmt: skip
    return model, _fitted(model, data["train"], rate, seed, options)


def _fitted(model, rows, rate, seed, options):
    from labkit import fit, load_tokenizer

    try:
        return fit(model, rows, load_tokenizer(), lr=float(rate), seed=int(seed), progress=False, **options)
    except LabkitError as error:
        if not str(error).startswith(bench_methods.DIVERGED):
            raise
        return None


def _keep(model, path):
    """Write all weights whole or not at all; the head that is the embedding is written once."""
    from safetensors.torch import save_file

    temporary = path.with_name(f".part-{path.name}")
    try:
        save_file({name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()},
                  temporary)  # fmt: skip
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def started(seed, folder):
    """The model that `start` left for this seed; LabkitError where it left none."""
    import torch
    from safetensors.torch import load_file

    from labkit import load_model

    path = Path(folder) / f"start_{seed}.safetensors"
    if not path.exists():
        raise LabkitError(f"{path} is missing: delete the start_..._{seed}.json beside it, and run again")
    model, state = load_model(), load_file(path)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(state[name])
    return model


# ---- pairs ----------------------------------------------------------------------------------------------


def pairs(seed, asked, folder):
    """On-policy pairs of the start by the pair rules, those without a length signal, and what was sampled.

    `lengths`, `ended` and `kept` are the tokens, whether it ended, and the share of pair rules of every
    sample, a list a message; `kept apart` is that share without LENGTH_RULES; `samples` the first answer to
    each message.
    """
    from labkit import load_tokenizer
    from labkit.methods import preferences as pr
    from labkit.tasks import voice

    rows, tokenizer = messages(asked), load_tokenizer()
    answers = pr.sample(started(seed, folder), tokenizer, rows["prompt"], n=asked["answers"], seed=int(seed),
                        batch=512, max_new_tokens=asked["new"], progress=False)  # fmt: skip
    whole = _of_answers(rows, answers, int(seed))
    rules = [rule for rule in voice.PAIR_RULES if rule not in LENGTH_RULES]

    def kept(row, text):
        found = voice.kept(row["message"], text, rules)
        return sum(found.values()) / len(found)

    def each(score):
        return [[score(row, one) for one in some] for row, some in zip(rows, answers, strict=True)]

    return {
        "pairs": whole.to_list(),
        "balanced": _balanced(whole, int(seed)).to_list(),
        "lengths": each(lambda row, one: len(one.ids)),
        "ended": each(lambda row, one: one.ended),
        "kept": each(lambda row, one: round(voice.reward(row["message"], one.text), 4)),
        "kept apart": each(lambda row, one: round(kept(row, one.text), 4)),
        "samples": [{"prompt": row["prompt"], "text": some[0].text, "tokens": len(some[0].ids)}
                    for row, some in zip(rows, answers, strict=True)],
    }  # fmt: skip


def _of_answers(rows, answers, seed):
    """`on_policy`, but a trial's short answers, of which few end, count as if they had."""
    from labkit import env
    from labkit.methods import preferences as pr

    try:
        return pr.on_policy(rows, answers, seed=seed)
    except LabkitError:
        if env.profile() == "gpu":
            raise
        return pr.on_policy(rows, [[one.text for one in some] for some in answers], seed=seed)


def _balanced(whole, seed):
    """`length_balanced`, but a trial's few pairs, which may have no counterpart, stay as they are."""
    from labkit import env
    from labkit.methods import preferences as pr

    try:
        return pr.length_balanced(whole, seed=seed)
    except LabkitError:
        if env.profile() == "gpu":
            raise
        return whole


def messages(asked):
    """The train messages that all seeds and arms learn from."""
    train = scoring.voice_rows()["train"].shuffle(seed=0)
    return train.select(range(min(asked["messages"], len(train))))


def _left(name, folder):
    return json.loads(jobs.result_file(folder, name).read_text())


# ---- policies -------------------------------------------------------------------------------------------


def sft(rate, share, seed, asked, folder, judged="test"):
    """More SFT, of LoRA adapters, on the chosen answers; of the steps that read as many tokens as DPO
    (`sft_steps`) one in `share`, since it goes over its rows more often than DPO and may pass its best."""
    from labkit import env
    from labkit.methods.lora import adapted

    found, model = _left(f"pairs_{seed}", folder)["pairs"], started(seed, folder)
    env.seed_everything(int(seed))
    policy = adapted(model, RANK)
    steps = max(1, sft_steps(found, asked) // int(share))
    rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in found]
    options = {"steps": steps, "batch": asked["batch"], "length": asked["length"]}
    run = _fitted(policy, rows, rate, seed, options)
    return {**_outcome(policy, seed, asked, judged, bool(run)), "steps": steps}


def sft_steps(pairs, asked):
    """The steps of `fit` that read as many tokens as DPO does on `pairs`.

    DPO reads chosen and rejected with their prompts, once by the policy and once by the reference: four rows
    a pair, of which SFT has one, so that SFT sees a chosen answer about four times as often. Tokens read are
    what counts; SFT also learns from each of them, and DPO only from the policy's half: in multiplications
    (with adapters about 2 a weight and token forward, and 2 backward) SFT gets a third more, 16 to 12, which
    is to its advantage.
    """
    from labkit import load_tokenizer

    tokenizer = load_tokenizer()
    texts = [tokenizer.apply_chat_template([*pair["prompt"], *pair[side]], tokenize=False)
             for pair in pairs for side in ("chosen", "rejected")]  # fmt: skip
    ids = tokenizer(texts, add_special_tokens=False).input_ids
    read = 2 * sum(map(len, ids)) / len(pairs) * asked["steps"] * asked["pairs"]
    return max(1, math.ceil(read / (asked["batch"] * asked["length"])))


def dpo(arm, beta, rate, seed, asked, folder, judged="test"):
    """DPO or its kin: `dpo`, `ipo`, `norm` on on-policy pairs, `balanced` on those without a length signal,
    `ready` on as many ready-made ones. DPO at BETA is also scored on its way, for the spread at equal KL."""
    from labkit import load_tokenizer
    from labkit.methods import preferences as pr

    left, model = _left(f"pairs_{seed}", folder), started(seed, folder)
    data = left["balanced"] if arm == "balanced" else left["pairs"]
    if arm == "ready":
        from labkit.tasks import voice

        ready = voice.load_pairs()["train"].shuffle(seed=int(seed))
        data = ready.select(range(min(len(data), len(ready))))
    looks = scoring.Looks(model, asked["steps"], asked["looks"])
    policy, history = pr.dpo(
        model, data, load_tokenizer(), beta=float(beta), lr=float(rate), steps=asked["steps"],
        batch=asked["pairs"], loss=LOSSES[arm], rank=RANK, seed=int(seed), after_step=looks, progress=False,
    )  # fmt: skip
    found = _outcome(policy, seed, asked, judged, looks.finite())
    if judged == "test" and arm == "dpo" and float(beta) == BETA:
        found["path"] = looks.scores(policy, found["policy"], seed, asked)
    return {**found, "history": scoring.tenths(history)}


def grpo(rate, seed, asked, folder, judged="test"):
    """GRPO with the share of pair rules kept as the reward, on the messages of the pairs; a sweep's run stops
    at a quarter of the steps, of the schedule of all of them."""
    from labkit import load_tokenizer
    from labkit.methods import preferences as pr
    from labkit.tasks import voice

    model = started(seed, folder)
    stop = None if judged == "test" else max(1, asked["rl"] // 4)
    looks = scoring.Looks(model, asked["rl"], asked["looks"])
    policy, _ = pr.grpo(
        model, messages(asked), load_tokenizer(), lambda row, text: voice.reward(row["message"], text),
        lr=float(rate), steps=asked["rl"], batch=asked["prompts"], group=asked["group"], rank=RANK,
        seed=int(seed), max_new_tokens=asked["new"], accumulate=PARTS, stop=stop, after_step=looks,
        progress=False,
    )  # fmt: skip
    found = _outcome(policy, seed, asked, judged, looks.finite())
    if judged == "test":
        found["path"] = looks.scores(policy, found["policy"], seed, asked)
    return found


def _outcome(policy, seed, asked, judged, worked):
    """Scores on test messages; or, for a sweep, what `bench_methods.sweep` wants, on validation messages."""
    from labkit import load_tokenizer
    from labkit.methods import preferences as pr

    rows, tokenizer = scoring.few(scoring.voice_rows()[judged], asked), load_tokenizer()
    if judged == "test":
        if not worked:
            raise LabkitError("this training diverged, at a rate whose sweep did not: look at its pairs")
        return {"policy": scoring.policy_scores(policy, tokenizer, rows, seed, asked)}
    if not worked:
        return _diverged()
    with scoring.fast(policy):
        answers = pr.sample(policy, tokenizer, rows["prompt"], n=asked["answers"], seed=int(seed), batch=512,
                            max_new_tokens=asked["new"], progress=False)  # fmt: skip
    shares = [scoring.kept_share(row, one.text) for row, some in zip(rows, answers, strict=True)
              for one in some]  # fmt: skip
    return _tried(scoring.mean(shares), None)


def _tried(right, loss):
    return {"right": right, "loss": loss, "diverged": False}


def _diverged():
    return {"right": 0.0, "loss": None, "diverged": True}


# ---- reward models --------------------------------------------------------------------------------------


def reward(kind, rate, seed, asked, folder, judged="test"):
    """A reward model of ready-made pairs, `raw` or `balanced` in length.

    Accuracy and calibration on both kinds of test pairs, and the correlation of its reward with the tokens
    of the start's samples. For a sweep: accuracy on pairs whose phrasings it did not see.
    """
    from labkit import load_tokenizer
    from labkit.methods import preferences as pr
    from labkit.tasks import voice

    tokenizer, model = load_tokenizer(), started(seed, folder)
    train = voice.load_pairs(balanced=kind == "balanced")["train"]
    if judged != "test":
        train, unseen = bench_methods.apart(train)
    scorer, _ = pr.reward_model(
        model, train, tokenizer, lr=float(rate), steps=asked["steps"], batch=asked["pairs"], rank=RANK,
        seed=int(seed), progress=False,
    )  # fmt: skip

    def sides(rows):
        texts = [[said[0]["content"] for said in rows[side]] for side in ("chosen", "rejected")]
        return [pr.rewards(scorer, tokenizer, rows["prompt"], some, batch=scoring.READ, progress=False)
                for some in texts]  # fmt: skip

    if judged != "test":
        accuracy = pr.pair_accuracy(*sides(scoring.few(unseen, asked)))
        return _tried(accuracy, None) if math.isfinite(accuracy) else _diverged()
    found = {"accuracy": {}, "calibration error": {}}
    for name in ("raw", "balanced"):
        both = sides(scoring.few(voice.load_pairs(balanced=name == "balanced")["test"], asked))
        found["accuracy"][name] = pr.pair_accuracy(*both)
        found["calibration error"][name] = pr.calibration_error(*both)
    samples = _left(f"pairs_{seed}", folder)["samples"][: asked["rows"]]
    prompts, texts = ([one[key] for one in samples] for key in ("prompt", "text"))
    given = pr.rewards(scorer, tokenizer, prompts, texts, batch=scoring.READ, progress=False)
    return {**found, "correlation": pr.length_correlation(given, [one["tokens"] for one in samples])}
