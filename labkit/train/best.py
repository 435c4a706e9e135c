"""Early stopping: the best weights so far."""

import math

import torch


class Best:
    """The best validation loss so far and, where patience is set, the weights that gave it."""

    def __init__(self, patience, saved=None):
        self.patience = patience
        self.loss, self.waited, self.weights = math.inf, 0, None
        if saved:
            self.loss, self.waited, self.weights = saved["loss"], saved["waited"], saved["weights"]

    def state(self):
        return {"loss": self.loss, "waited": self.waited, "weights": self.weights}

    def see(self, loss, trainable):
        """Note a validation loss; is patience at an end?"""
        if self.patience is None:
            return False
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.weights = {name: p.detach().cpu().clone() for name, p in trainable.items()}
        else:
            self.waited += 1
        return self.waited >= self.patience

    @torch.no_grad()
    def restore(self, trainable):
        for name, value in (self.weights or {}).items():
            trainable[name].copy_(value)
