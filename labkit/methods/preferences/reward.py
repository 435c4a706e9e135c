"""A reward model: a causal language model's own layers under a head that puts out one number."""

import copy
import sys

import numpy as np
import torch
from tqdm import tqdm

from labkit.errors import LabkitError

BINS = 10


def scorer(model, tokenizer):
    """A sequence classifier with one output over the layers of the causal language model `model`.

    The layers are shared, not copied: what trains one trains both. The head starts at 0, so that all rewards
    do. It reads the last token that is not padding.
    """
    from transformers import AutoModelForSequenceClassification

    config = copy.deepcopy(model.config)
    config.num_labels, config.pad_token_id = 1, tokenizer.pad_token_id
    with torch.device("meta"):  # no memory for layers that are replaced at once
        classifier = AutoModelForSequenceClassification.from_config(config)
    if not isinstance(getattr(classifier, "score", None), torch.nn.Linear):
        raise LabkitError(f"{type(classifier).__name__} has no linear head named `score`: use another model")
    setattr(classifier, classifier.base_model_prefix, model.base_model)
    weight = next(model.parameters())
    classifier.score = torch.nn.Linear(classifier.score.in_features, 1, bias=False, device=weight.device)
    torch.nn.init.zeros_(classifier.score.weight)
    return classifier.eval()


@torch.no_grad()
def rewards(scorer, tokenizer, prompts, texts, *, batch=32, progress=True):
    """The reward of each of `texts` as the answer to the prompt at the same place, as floats.

    A prompt is a list of messages. `scorer` is what `reward_model` or `scorer` returned. Runs without
    autocast: rewards rounded to bf16 would tie.
    """
    whole = [
        tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": text}], tokenize=False)
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    rows = tokenizer(whole, add_special_tokens=False).input_ids if whole else []
    order = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    on, training, found = next(scorer.parameters()).device, scorer.training, [0.0] * len(rows)
    scorer.eval()
    bar = tqdm(total=len(rows), disable=not progress, file=sys.stdout, unit="answer", desc="rewards")
    with bar:
        for start in range(0, len(order), batch):
            numbers = order[start : start + batch]
            padded = tokenizer.pad(
                {"input_ids": [rows[number] for number in numbers]}, padding_side="right", return_tensors="pt"
            ).to(on)
            out = scorer(**padded, use_cache=False).logits[:, 0].float().tolist()
            for number, value in zip(numbers, out, strict=True):
                found[number] = value
            bar.update(len(numbers))
    scorer.train(training)
    return found


def pair_accuracy(chosen, rejected):
    """The share of pairs whose chosen answer has the higher reward, ties counting half."""
    margins = np.asarray(chosen) - np.asarray(rejected)
    return float(((margins > 0) + 0.5 * (margins == 0)).mean())


def calibration_error(chosen, rejected, bins=BINS):
    """Expected calibration error, 0 to 1: how far confidence and accuracy lie apart on average.

    The confidence in a pair is the probability that Bradley-Terry gives the answer with the higher reward,
    0.5 to 1; pairs of like confidence, in `bins` bins of equal width, should be right that often (Guo et al.
    2017, arXiv:1706.04599, eq. 3).
    """
    margins = np.asarray(chosen, dtype=float) - np.asarray(rejected, dtype=float)
    confidence = 1 / (1 + np.exp(-np.abs(margins)))
    right = (margins > 0) + 0.5 * (margins == 0)
    place = np.minimum((2 * bins * (confidence - 0.5)).astype(int), bins - 1)
    apart = np.bincount(place, weights=right - confidence, minlength=bins)
    return float(np.abs(apart).sum() / len(margins))


def length_correlation(values, lengths):
    """Pearson's correlation of rewards and lengths over answers, -1 to 1; 0 where either never varies."""
    values, lengths = np.asarray(values, dtype=float), np.asarray(lengths, dtype=float)
    if len(values) < 2 or values.std() == 0 or lengths.std() == 0:
        return 0.0
    return float(np.corrcoef(values, lengths)[0, 1])
