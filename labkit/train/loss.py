"""Cross-entropy on the tokens that count, never holding more than 1,024 positions' logits."""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from labkit.errors import LabkitError

CHUNK = 1024  # positions whose logits exist at once: 1024 x 49,152 x 4 bytes = 0.2 GB


def weighted_nll(hidden, head, targets, weights, counted=None, chunk=CHUNK):
    """Sum over positions of weight x negative log-likelihood of the target.

    `hidden` (batch, length, d); `targets` and `weights` (batch, length); `counted` the flat numbers of the
    positions that reach the head, by default those of weight other than 0. Beyond one chunk, logits
    are recomputed in the backward pass, so that only (chunk, vocabulary) of them exist at a time.
    """
    if counted is None:
        counted = weights.flatten().nonzero().flatten()
    hidden = hidden.flatten(0, 1).index_select(0, counted)
    targets, weights = targets.flatten()[counted], weights.flatten()[counted]
    if len(targets) <= chunk:
        return _nll(hidden, head, targets, weights)
    total = hidden.new_zeros((), dtype=torch.float32)
    for part in zip(hidden.split(chunk), targets.split(chunk), weights.split(chunk), strict=True):
        # Nothing here is random: there is no generator state to keep, and to look for it would end a capture.
        again = {"use_reentrant": False, "preserve_rng_state": False}
        total = total + checkpoint(lambda h, t, w: _nll(h, head, t, w), *part, **again)
    return total


def _nll(hidden, head, targets, weights):
    return (F.cross_entropy(head(hidden).float(), targets, reduction="none") * weights).sum()


@contextmanager
def headless(model):
    """Inside, `model(...).logits` are the last hidden states; yields the output head.

    Works through wrappers such as PEFT's, because the head is swapped where the model looks for it.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config.get_text_config()
    for setting in ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier"):
        if getattr(config, setting, None) not in (None, 1, 1.0):
            raise LabkitError(f"`fit` cannot train this model: it changes logits after the head ({setting})")
    head = inner.get_output_embeddings()
    inner.set_output_embeddings(torch.nn.Identity())
    try:
        yield head
    finally:
        inner.set_output_embeddings(head)
