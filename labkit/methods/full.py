"""Train the base's own weights: all of them, or those of the last blocks."""

from labkit.errors import LabkitError
from labkit.methods import register


@register("full", "every weight", rates=(3e-5, 1e-4, 3e-4, 1e-3))
def full():
    """The base with every weight trainable."""
    from labkit import load_model

    return load_model().requires_grad_(True)


@register(
    "partial", "the last {} blocks with their norms, and the norm after them; embedding and head stay frozen",
    rates=(1e-4, 3e-4, 1e-3, 3e-3), letter="",
)  # fmt: skip
def partial(blocks):
    """The base with its last `blocks` blocks and its final norm trainable.

    The head stays frozen, since in this base it is the embedding too: training it would train the input.
    """
    from labkit import load_model

    model = load_model().requires_grad_(False)
    body = model.base_model
    if not (hasattr(body, "layers") and hasattr(body, "norm")):
        raise LabkitError(f"partial: {type(body).__name__} has no `layers` and `norm`. Use another base")
    if blocks > len(body.layers):
        raise LabkitError(f"partial-{blocks}: this base has {len(body.layers)} blocks. Ask for fewer")
    for part in [*body.layers[-blocks:], body.norm]:
        part.requires_grad_(True)
    return model
