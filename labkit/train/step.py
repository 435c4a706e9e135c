"""One optimizer step: forward, backward, clipping, AdamW. What a CUDA graph captures is this, too."""

import torch

from labkit.train.loss import weighted_nll
from labkit.train.precision import autocast


class Step:
    """Call it with the batches of one step and the learning rate; it returns the loss as a tensor.

    `forward` is the headless model (see `headless`), `head` its output layer, `weights` the entered
    `Weights`, `stepped` what the optimizer steps (name -> tensor). `graphable` makes AdamW keep its learning
    rate and step count on the card, as a graph needs.
    """

    def __init__(self, forward, head, weights, stepped, groups, *, precision, clip, on, maskless, graphable):
        self.forward, self.head, self.weights, self.stepped = forward, head, weights, stepped
        self.precision, self.clip, self.on, self.maskless = precision, clip, on, maskless
        self.graphable = graphable
        self.rate = torch.zeros((), device=on) if graphable else 0.0
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, fused=True, capturable=graphable)
        self.scaler = torch.amp.GradScaler(on.type, enabled=precision == "fp16")

    def __call__(self, batches, rate):
        self.set_rate(rate)
        return self.take([one.to(self.on) for one in prepared(batches)])

    def set_rate(self, rate):
        """Set the learning rate, in every group: a checkpoint may have brought its own."""
        if self.graphable:
            self.rate.fill_(rate)
        else:
            self.rate = rate
        for group in self.optimizer.param_groups:
            group.update(lr=self.rate, capturable=self.graphable)

    def take(self, batches):
        """The step itself, on batches that lie on the device; their weights add up to 1."""
        total = torch.zeros((), device=self.on)
        for one in batches:
            loss = batch_nll(self.forward, self.head, one, self.precision, self.maskless)
            self.scaler.scale(loss).backward()
            self.weights.gather()
            total += loss.detach()
        self.scaler.unscale_(self.optimizer)
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.stepped.values(), self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.weights.spread()
        self.forget_gradients()
        return total

    def forget_gradients(self):
        """Drop every gradient, those of 16-bit copies too: a step that was broken off may have left some."""
        self.optimizer.zero_grad(set_to_none=True)
        for weight in self.weights.trained:
            weight.grad = None

    def bytes(self):
        """How many bytes AdamW's state and the 16-bit copies take."""
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return sum(value.nbytes for value in [*states, *(half for _, _, half in self.weights.pairs)])

    def fresh(self):
        """Forget what AdamW has gathered, in place, as at the start of a run."""
        for state in self.optimizer.state.values():
            for value in state.values():
                value.zero_()


def prepared(batches):
    """Divide the weights by their sum over all batches: one each would weigh short batches too much."""
    total = sum(one.weights.sum().item() for one in batches)
    for one in batches:
        one.weights /= total
    return batches


def batch_nll(model, head, batch, precision, maskless=False):
    """Weighted negative log-likelihood, summed over one Batch; `model` is headless (see `headless`).

    With `maskless` the model attends by the boundaries of rows (see `packed_attention`).
    """
    if maskless:
        length = batch.ids.shape[1]
        apart = {"cu_seq_lens_q": batch.boundaries, "max_length_q": length}
    else:
        apart = {"attention_mask": batch.mask()}
    with autocast(batch.ids.device.type, precision):
        out = model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **apart)
        return weighted_nll(out.logits, head, batch.targets, batch.weights, batch.counted)
