"""Merging without touching weights: the hidden states of several models, side by side, under one probe."""

import torch

from labkit.errors import LabkitError


@torch.no_grad()
def concatenated(models, ids, mask=None):
    """The last hidden states of several models for one text: (batch, seq, sum of their widths), fp32.

    `ids` and `mask` are (batch, seq). Costs a forward pass of each model. Raises LabkitError without models.
    """
    from peft import PeftModel

    if not models:
        raise LabkitError("there is no model to run: give a list of one or more")
    on = next(models[0].parameters()).device
    ids, mask = ids.to(on), None if mask is None else mask.to(on)
    plain = [model.get_base_model() if isinstance(model, PeftModel) else model for model in models]
    outputs = [model.base_model(input_ids=ids, attention_mask=mask, use_cache=False) for model in plain]
    return torch.cat([one.last_hidden_state.float() for one in outputs], dim=-1)


def last_token(hidden, mask):
    """The state of each row's last token, (batch, size), padded left or right: it has read all the others."""
    places = torch.arange(mask.shape[1], device=mask.device) * mask
    return hidden[torch.arange(len(hidden), device=hidden.device), places.argmax(dim=1).to(hidden.device)]


@torch.no_grad()
def probe(train, labels, test, penalty=1.0):
    """Classes that a linear probe gives to `test` (rows, size), fitted on `train` (rows, size) and `labels`.

    Ridge regression onto one-hot classes, features standardized by the training rows, solved exactly: no
    seed, no learning rate. `labels` (rows,) are whole numbers from 0. `penalty`, for each row, holds the
    weights down: wider features want more of it, so choose it on held-out rows for each width.
    """
    mean, spread = train.double().mean(0), train.double().std(0).clamp_min(1e-6)
    x, unseen = ((one.double() - mean) / spread for one in (train, test))
    y = torch.nn.functional.one_hot(labels.to(x.device)).double()
    ridge = penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weights = torch.linalg.solve(x.T @ x + ridge, x.T @ y)  # x has mean 0
    return (unseen @ weights + y.mean(0)).argmax(dim=1)
