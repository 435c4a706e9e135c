"""What takes the steps of a run: the plain step, or its CUDA graph where that is possible."""

from contextlib import ExitStack, contextmanager

from labkit.train import graph as graphs
from labkit.train.attention import maskless, packed_attention
from labkit.train.blocks import compiled_blocks
from labkit.train.loss import headless
from labkit.train.precision import Weights
from labkit.train.schedule import groups
from labkit.train.step import Step, batch_nll


class Engine:
    """Call it with the batches of a step and a learning rate; it returns the loss as a tensor.

    `stepped` is what the optimizer steps (name -> tensor), and `path` how steps are taken.
    """

    def __init__(self, step, graph=None, compiled=False):
        self.step, self.graph, self.compiled = step, graph, compiled
        self.stepped, self.optimizer, self.scaler = step.stepped, step.optimizer, step.scaler

    def __call__(self, batches, rate):
        return (self.graph or self.step)(batches, rate)

    def loss_of(self, batch):
        """Weighted negative log-likelihood summed over one Batch, which lies on the device."""
        step = self.step
        return batch_nll(step.forward, step.head, batch, step.precision, step.maskless)

    @property
    def path(self):
        """`plain` or `CUDA graph`, with `compiled blocks` where they are."""
        way = "CUDA graph" if self.graph and self.graph.graph else "plain"
        return f"{way}, compiled blocks" if self.compiled else way


@contextmanager
def engine(model, trainable, *, on, precision, clip, weight_decay, graphed, compile, shape, reuse):
    """An Engine for `model`, whose weights, head and attention are made ready inside and put back after.

    `graphed`: take steps as a CUDA graph; `shape` is what its tensors' sizes depend on. With `reuse` a graph
    that an earlier run of the same shape left is used again, and this run's is kept for the next.
    """
    settings = {"precision": precision, "clip": clip, "weight_decay": weight_decay, "compile": compile,
                "shape": shape}  # fmt: skip
    wanted = graphs.signature(model, **settings) if graphed else None
    held = graphs.kept(model, wanted if reuse else None)
    weights = held.step.weights if held else Weights(model, precision)
    without_mask = maskless(model, on, precision)
    with ExitStack() as stack:
        stack.enter_context(weights)
        head = stack.enter_context(headless(model))
        stack.enter_context(packed_attention(model, without_mask))
        stack.enter_context(compiled_blocks(model, compile))
        if held:
            graph, step = held, held.step
            step.forward, step.head = model, head
            step.fresh()
        else:
            stepped = weights.stepped(trainable)
            step = Step(
                model, head, weights, stepped, groups(stepped, weight_decay), precision=precision, clip=clip,
                on=on, maskless=without_mask, graphable=graphed,
            )  # fmt: skip
            graph = graphs.GraphStep(step, wanted) if graphed else None
        try:
            yield Engine(step, graph, compile)
        finally:
            step.forget_gradients()
            step.forward = step.head = None  # a kept graph must not keep the model alive
        if graph and reuse:
            graphs.keep(model, graph)
