"""The jobs of `bench preferences` that train on pairs: each from a seed's start, and scores what it made.

Arguments are parts of a job's name, so text; `asked` is `preferences.settings()`, `folder` where jobs leave
results. `preferences_start` has the jobs that they begin from.
"""

import math

from labkit.bench import methods as bench_methods
from labkit.bench import preferences_scores as scoring
from labkit.bench.preferences_start import diverged, fitted, left, messages, started, tried
from labkit.errors import LabkitError

LOSSES = {"dpo": "sigmoid", "ready": "sigmoid", "balanced": "sigmoid", "ipo": "ipo", "norm": "sigmoid_norm"}
RANK = 16
KIN = {"ipo": (0.3, 1.0, 3.0), "norm": (1.0, 3.0, 10.0)}  # betas to begin with: their losses take means
BETA = 0.1  # of DPO where its rate is chosen
SHARES = (1, 2, 4)  # more SFT takes all, half or a quarter of the steps that read as much as DPO
FAILING = 0.001  # a beta that hardly holds on to the start
PARTS = 2  # that GRPO's answers are split into for the backward pass: half the memory of logits


# ---- policies -------------------------------------------------------------------------------------------


def sft(rate, share, seed, asked, folder, judged="test"):
    """More SFT, of LoRA adapters, on the chosen answers; of the steps that read as many tokens as DPO
    (`sft_steps`) one in `share`, since it goes over its rows more often than DPO and may pass its best."""
    from labkit import env
    from labkit.methods.lora import adapted

    found, model = left(f"pairs_{seed}", folder)["pairs"], started(seed, folder)
    env.seed_everything(int(seed))
    policy = adapted(model, RANK)
    steps = max(1, sft_steps(found, asked) // int(share))
    rows = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in found]
    options = {"steps": steps, "batch": asked["batch"], "length": asked["length"]}
    run = fitted(policy, rows, rate, seed, options)
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

    made, model = left(f"pairs_{seed}", folder), started(seed, folder)
    data = made["balanced"] if arm == "balanced" else made["pairs"]
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
    at half of the steps, of the schedule of all of them: whole ones would take as long as the finals."""
    from labkit import load_tokenizer
    from labkit.methods import preferences as pr
    from labkit.tasks import voice

    model = started(seed, folder)
    stop = None if judged == "test" else max(1, asked["rl"] // 2)
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
        return diverged()
    answers = pr.sample(policy, tokenizer, rows["prompt"], n=asked["answers"], seed=int(seed), batch=512,
                        max_new_tokens=asked["new"], progress=False)  # fmt: skip
    shares = [scoring.kept_share(row, one.text) for row, some in zip(rows, answers, strict=True)
              for one in some]  # fmt: skip
    return tried(scoring.mean(shares), None)


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
        return tried(accuracy, None) if math.isfinite(accuracy) else diverged()
    found = {"accuracy": {}, "calibration error": {}}
    for name in ("raw", "balanced"):
        both = sides(scoring.few(voice.load_pairs(balanced=name == "balanced")["test"], asked))
        found["accuracy"][name] = pr.pair_accuracy(*both)
        found["calibration error"][name] = pr.calibration_error(*both)
    samples = left(f"pairs_{seed}", folder)["samples"][: asked["rows"]]
    prompts, texts = ([one[key] for one in samples] for key in ("prompt", "text"))
    given = pr.rewards(scorer, tokenizer, prompts, texts, batch=scoring.READ, progress=False)
    return {**found, "correlation": pr.length_correlation(given, [one["tokens"] for one in samples])}
