"""Scores of policies for `bench preferences`: rules kept, KL to the start, length, loss on plain English."""

import math

READ = 32  # answers whose log-probabilities are computed at once
TENTHS = 10  # parts of a run over which its history is averaged
HISTORY = ("loss", "margin", "accuracy", "chosen_logp", "rejected_logp", "chosen_reward",
           "rejected_reward")  # fmt: skip


def policy_scores(policy, tokenizer, rows, seed, asked, divergence=True):
    """`on_policy_scores`, and of greedy answers: held-out rules kept (a count a row), words (a row), and
    whether each is a reply at all, without which no rule counts as kept; the mean shares of rules kept; and
    the loss on plain English, in nats per token."""
    from labkit import generate
    from labkit.methods.preferences import merged, words_of
    from labkit.tasks import general, voice
    from labkit.tasks.voice.rules import is_reply

    with merged(policy):
        texts = generate(policy, tokenizer, rows["prompt"], max_new_tokens=asked["new"], batch_size=512,
                         progress=False)  # fmt: skip
        passages = general.passages()[: asked["passages"]]
        loss = general.perplexity(policy, tokenizer, passages, progress=False).loss
    held = [voice.kept(row["message"], text, voice.HELD_OUT_RULES)
            for row, text in zip(rows, texts, strict=True)]  # fmt: skip
    return {
        **on_policy_scores(policy, tokenizer, rows, seed, asked, divergence),
        "held": [sum(kept.values()) for kept in held],
        "words": list(map(words_of, texts)),
        "reply": [is_reply(row["message"], text) for row, text in zip(rows, texts, strict=True)],
        "held-out": mean([sum(kept.values()) / len(kept) for kept in held]),
        "greedy reward": mean([kept_share(row, text) for row, text in zip(rows, texts, strict=True)]),
        "general loss": loss,
        "examples": texts[:3],
    }


def on_policy_scores(policy, tokenizer, rows, seed, asked, divergence=True):
    """Of `samples` answers a row at temperature 1: reward (share of pair rules kept), tokens, and the share
    that was cut off; of the first of them KL to the start (nats an answer, exact at each position)."""
    from labkit.methods import preferences as pr

    answers = pr.sample(policy, tokenizer, rows["prompt"], n=asked["samples"], seed=int(seed), batch=800,
                        max_new_tokens=asked["new"], progress=False)  # fmt: skip
    away = 0.0
    if divergence:
        first = [some[:1] for some in answers]
        away = pr.divergence(policy, tokenizer, rows["prompt"], first, batch=READ, progress=False).mean
    sides = [(row, one) for row, some in zip(rows, answers, strict=True) for one in some]
    return {
        "KL": away,
        "reward": mean([kept_share(row, one.text) for row, one in sides]),
        "tokens": mean([len(one.ids) for _, one in sides]),
        "cut off": mean([not one.ended for _, one in sides]),
    }


def kept_share(row, text):
    """The reward: the share of pair rules that an answer keeps."""
    from labkit.tasks import voice

    return voice.reward(row["message"], text)


def voice_rows():
    from labkit import load

    return load("voice")


def few(rows, asked):
    """The rows that are scored: all, but in a trial."""
    return rows.select(range(min(asked["rows"] or len(rows), len(rows))))


def mean(numbers):
    return sum(numbers) / len(numbers)


# ---- on the way -----------------------------------------------------------------------------------------


class Looks:
    """Copies of the adapters of `model`, to be scored when its training is over: at its end, its half, its
    quarter, and so on. A policy moves furthest in its first steps, so looks lie closest there."""

    def __init__(self, model, steps, count):
        self.model, self.kept = model, {}
        self.wanted = {max(1, steps >> part) for part in range(count)}

    def __call__(self, step):
        if step in self.wanted:
            self.kept[step] = {name: weight.detach().clone() for name, weight in self._adapters()}

    def _adapters(self):
        return [(name, weight) for name, weight in self.model.named_parameters() if "lora_" in name]

    def finite(self):
        """Is every adapter a number at the end? trl trains on if the loss is none."""
        return all(weight.isfinite().all().item() for _, weight in self._adapters())

    def scores(self, policy, last, seed, asked):
        """[{step, KL, reward}] in the order of steps, from samples; `last` are the scores at the end."""
        import torch

        from labkit import load_tokenizer

        test, path = few(voice_rows()["test"], asked), []
        final = max(self.kept)
        for step, weights in sorted(self.kept.items()):
            with torch.no_grad():
                for name, weight in self._adapters():
                    weight.copy_(weights[name])
            found = last if step == final else on_policy_scores(policy, load_tokenizer(), test, seed, asked)
            path.append({"step": step, "KL": found["KL"], "reward": found["reward"]})
        return path


def tenths(history):
    """The means of HISTORY over tenths of a run, by name."""
    size = max(1, math.ceil(len(history) / TENTHS))
    parts = [history[at : at + size] for at in range(0, len(history), size)]
    return {name: [round(mean([entry[name] for entry in part]), 5) for part in parts] for name in HISTORY}
