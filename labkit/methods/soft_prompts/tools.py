"""What to do with a trained soft prompt: fold, save, restore and join it, and look for its nearest words."""

import torch
from torch.nn.functional import normalize

from labkit.errors import LabkitError
from labkit.methods.soft_prompts.modules import Encoder, Table


@torch.no_grad()
def fold(model):
    """Keep what encoders put out and drop the encoders; outputs stay the same. Returns `model`."""
    for part in _parts(model).values():
        if isinstance(part.soft_prompt, Encoder):
            part.soft_prompt = Table(part.soft_prompt())
    return model


def state(model):
    """The weights of a soft prompt: name -> tensor on the CPU, as safetensors takes them."""
    return {name: weight.detach().cpu().clone() for name, weight in _weights(model).items()}


@torch.no_grad()
def restore(model, state):
    """Put what `state` gave into `model`, made alike; returns it. Raises LabkitError for others' states."""
    weights = _weights(model)
    _check(weights, state)
    for name, weight in weights.items():
        weight.copy_(state[name])
    return model


@torch.no_grad()
def join(model, states):
    """Give `model` the soft prompts of several `states`; `generate(prompts=[1, 0, ...])` chooses row by row.

    `prompt_ids`, which `fit` uses, stay the first one's; those of prompt k are k n higher. `model` must have
    one prompt of the same kind, and be folded, as the states: raises LabkitError otherwise.
    """
    weights = _weights(model)
    for some in states:
        _check(weights, some)
    for name, part in _parts(model).items():
        if isinstance(part.soft_prompt, Encoder):
            raise LabkitError("fold these soft prompts, and take their states again, before joining them")
        vectors = torch.cat([some[f"{name}.vectors"] for some in states])
        part.soft_prompt = Table(vectors.to(part.soft_prompt.vectors.device))
    model.prompt_count = len(states)
    return model


@torch.no_grad()
def nearest(model, tokenizer, k=5):
    """The words nearest to each learned vector: a list of {"cosine": [...], "distance": [...]}.

    Each holds k pairs (word, value), the nearest first: by cosine, and by Euclidean distance. Raises
    LabkitError for prefixes, whose keys and values are no embeddings.
    """
    if set(_parts(model)) != {"soft_prompt"}:
        raise LabkitError("only prompt tuning and P-tuning learn word embeddings, and so have nearest words")
    vectors, words = model.soft_prompt(), model.get_input_embeddings().weight[: len(tokenizer)]
    cosines = normalize(vectors, dim=-1) @ normalize(words, dim=-1).T
    found = {
        "cosine": cosines.topk(k),
        "distance": torch.cdist(vectors, words).topk(k, largest=False),
    }

    def pairs(best, number):
        tokens, values = best.indices[number].tolist(), best.values[number].tolist()
        return [(tokenizer.decode([token]), value) for token, value in zip(tokens, values, strict=True)]

    return [{by: pairs(best, number) for by, best in found.items()} for number in range(len(vectors))]


def _parts(model):
    """name of a soft prompt -> the module that has it, the model itself or its layers' attention."""
    parts = {
        f"{name}.soft_prompt".lstrip("."): part
        for name, part in model.named_modules() if "soft_prompt" in part._modules
    }  # fmt: skip
    if not parts:
        raise LabkitError("this model has no soft prompt: make one, with prompt_tuning for example")
    return parts


def _weights(model):
    """name -> tensor of all that soft prompts hold, an encoder's fixed start too."""
    return {
        f"{name}.{inner}": weight
        for name, part in _parts(model).items()
        for inner, weight in part.soft_prompt.state_dict().items()
    }


def _check(weights, state):
    """LabkitError unless `state` has the names and shapes of `weights`."""
    wanted, given = ({name: tuple(one.shape) for name, one in some.items()} for some in (weights, state))
    if wanted != given:
        name = min(name for name in wanted | given if wanted.get(name) != given.get(name))
        raise LabkitError(
            f"these soft prompts differ: {name} is {given.get(name, 'missing')} in the state and "
            f"{wanted.get(name, 'missing')} in the model. Make the model with the same method and number of "
            "vectors, and fold both or neither"
        )
