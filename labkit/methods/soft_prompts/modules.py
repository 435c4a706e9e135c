"""Prompt tuning, P-tuning and prefix tuning on rows that are packed, padded, cached or checkpointed.

`prompt_tuning`, `p_tuning` and `prefix_tuning` freeze a model in place and add the trained parts to it.
Measurements depend on this file.
"""

from functools import wraps
from types import SimpleNamespace

import torch
from torch import nn
from torch.nn.functional import embedding

from labkit.errors import LabkitError

# Where `prompt` and `prefix` start: words of the base, on a task that might be any.
START = "Read the message, follow the instructions exactly, and answer only in the form that is asked for."


# ---- the learned vectors --------------------------------------------------------------------------------


class Table(nn.Module):
    """n free vectors: (n, size)."""

    def __init__(self, vectors):
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone().float())

    def forward(self):
        return self.vectors


class Encoder(nn.Module):
    """n vectors, (n, size), as an MLP of n free ones, (n, width): P-tuning's encoder, as peft's default.

    Liu et al. (2021, arXiv:2103.10385) train the vectors through an encoder, so that they move together, and
    keep its outputs alone afterwards (see `fold`). With `start`, (n, size), the MLP's last layer begins at
    zero, and what it puts out is added to `start`.
    """

    def __init__(self, n, width, hidden, size, start=None):
        super().__init__()
        self.free = nn.Parameter(torch.randn(n, width))
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, size)
        )
        self.register_buffer("start", start)
        if start is not None:
            nn.init.zeros_(self.mlp[-1].weight)
            nn.init.zeros_(self.mlp[-1].bias)

    def forward(self):
        vectors = self.mlp(self.free)
        return vectors if self.start is None else self.start + vectors


def _placed(outputs, places, vectors):
    """`outputs` (batch, length, size), but `vectors[place]` where `places` (batch, length) are 0 or more."""
    learned = embedding(places.clamp(min=0), vectors).to(outputs.dtype)
    return torch.where((places >= 0)[..., None], learned, outputs)


# ---- prompt tuning and P-tuning: learned word embeddings ------------------------------------------------


def prompt_tuning(model, n, start=None):
    """Add n learned word embeddings to `model` (Lester et al. 2021, arXiv:2104.08691); returns it.

    They start as the embeddings of the token ids `start`, repeated or cut to n (repeats start equal), or of
    random words. Raises LabkitError for a model that has a soft prompt, fewer than 1 vector, and ids that are
    no words.
    """
    ids = _start_ids(model, n, start)
    return _attach(model, n, _forward_with_prompt, Table(model.get_input_embeddings()(ids)))


def p_tuning(model, n, start=None, hidden=None):
    """Add n word embeddings that come from an `Encoder`, `hidden` wide (by default as the model); returns it.

    They start where the encoder's random weights put them, or with `start` as in `prompt_tuning`.
    """
    ids = _start_ids(model, n, start)
    embeddings = model.get_input_embeddings()
    width = embeddings.weight.shape[1]
    vectors = None if start is None else embeddings(ids).detach().clone()
    encoder = Encoder(n, width, hidden or width, width, vectors).to(embeddings.weight.device)
    return _attach(model, n, _forward_with_prompt, encoder)


def _forward_with_prompt(self, input_ids=None, **options):
    if input_ids is None:  # the caller embedded the words
        return self.without_prompt.forward(self, **options)
    places = input_ids - self.prompt_ids[0]  # below 0 are the base's own words
    words = self.get_input_embeddings()(input_ids.masked_fill(places >= 0, 0))
    words = _placed(words, places, self.soft_prompt())
    return self.without_prompt.forward(self, inputs_embeds=words, **options)


# ---- prefix tuning: learned keys and values in every layer ----------------------------------------------


class PrefixAttention(nn.Module):
    """Attention that reads learned keys and values at a prompt's places (Li & Liang 2021, arXiv:2101.00190).

    `soft_prompt()` gives (n, keys + values): what `k_proj` and `v_proj` would put out there, so keys before
    their rotation. A rotation can be undone: the functions are those of prefixes given after it, as peft's.
    What a place computes for itself, layer by layer, nothing reads; peft saves that work.
    """

    def __init__(self, attention, soft_prompt):
        super().__init__()
        attention.k_proj, attention.v_proj = Placed(attention.k_proj), Placed(attention.v_proj)
        self.attention, self.soft_prompt = attention, soft_prompt

    def forward(self, *args, prompt_places=None, **options):
        if prompt_places is None:
            raise LabkitError("this model keeps arguments from its attention: prefix tuning cannot reach it")
        projections = self.attention.k_proj, self.attention.v_proj
        sizes = [one.linear.out_features for one in projections]
        for one, vectors in zip(projections, self.soft_prompt().split(sizes, dim=-1), strict=True):
            one.learned = prompt_places, vectors
        outputs = self.attention(*args, **options)
        for one in projections:
            one.learned = None
        return outputs


class Placed(nn.Module):
    """A projection with `learned` (places, vectors) put into its outputs, while there are any."""

    def __init__(self, linear):
        super().__init__()
        self.linear, self.learned = linear, None

    def forward(self, x):
        outputs = self.linear(x)
        return outputs if self.learned is None else _placed(outputs, *self.learned)


def prefix_tuning(model, n, start=None, hidden=None):
    """Add n learned keys and values to every layer of `model` (arXiv:2101.00190); returns it.

    They start as those that the base computes for the token ids `start`, repeated or cut to n, or for random
    words: before training the prefix does what these words would. With `hidden` they are trained through an
    `Encoder` of that width in each layer, as Li & Liang's through their MLP; without, as free vectors. Raises
    LabkitError as `prompt_tuning` does, and for a model whose layers have no `self_attn` with `k_proj` and
    `v_proj`.
    """
    ids = _start_ids(model, n, start)
    layers = getattr(model.base_model, "layers", [])
    known = [hasattr(getattr(layer, "self_attn", None), "k_proj") for layer in layers]
    if not all(known) or not known:
        raise LabkitError(f"prefix tuning wants self_attn.k_proj in each layer of {type(model).__name__}")
    for layer, vectors in zip(layers, _keys_and_values(model, layers, ids), strict=True):
        width = model.get_input_embeddings().weight.shape[1]
        made = Encoder(n, width, hidden, vectors.shape[1], vectors) if hidden else Table(vectors)
        layer.self_attn = PrefixAttention(layer.self_attn, made.to(vectors.device))
    return _attach(model, n, _forward_with_prefix)


@torch.no_grad()
def _keys_and_values(model, layers, ids):
    """What `k_proj` and `v_proj` of each layer put out for these token ids: (n, keys + values) a layer."""
    found = []
    projections = [part for layer in layers for part in (layer.self_attn.k_proj, layer.self_attn.v_proj)]
    hooks = [one.register_forward_hook(lambda _, __, out: found.append(out[0])) for one in projections]
    try:
        model(input_ids=ids[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [torch.cat(pair, dim=-1).float() for pair in zip(found[::2], found[1::2], strict=True)]


def _forward_with_prefix(self, input_ids=None, **options):
    # Places go with the arguments, not by an attribute: a checkpointed layer computes again with its own.
    if input_ids is None:
        places = torch.full(options["inputs_embeds"].shape[:2], -1, device=options["inputs_embeds"].device)
        return self.without_prompt.forward(self, prompt_places=places, **options)
    places = input_ids - self.prompt_ids[0]
    ids = input_ids.masked_fill(places >= 0, 0)  # any word: what it computes nothing reads
    return self.without_prompt.forward(self, input_ids=ids, prompt_places=places, **options)


# ---- what they share ------------------------------------------------------------------------------------


def _start_ids(model, n, start):
    """n token ids on the model's device: `start` repeated or cut, or random ones."""
    words = model.get_input_embeddings().weight
    if getattr(model, "prompt_ids", None):
        raise LabkitError("this model has a soft prompt already: begin with a fresh one")
    if n < 1:
        raise LabkitError(f"a soft prompt of {n} vectors: it must have at least 1")
    if start is None:
        return torch.randint(len(words), (n,)).to(words.device)
    if not len(start) or not all(0 <= token < len(words) for token in start):
        raise LabkitError(f"`start` must be token ids from 0 to {len(words) - 1}, and at least one")
    return torch.tensor((list(start) * -(-n // len(start)))[:n], device=words.device)


def _attach(model, n, forward, soft_prompt=None):
    """Freeze the base and make its `forward` and `generate` know the n new words."""
    words = model.get_input_embeddings().weight.shape[0]
    if soft_prompt is not None:  # a prefix is in the layers
        model.soft_prompt = soft_prompt
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("soft_prompt" in name.split("."))
    model.prompt_ids, model.prompt_count = list(range(words, words + n)), 1
    model.active_peft_config = SimpleNamespace(is_prompt_learning=True)  # as on a model of peft
    # As torch's parametrize does it. transformers looks at a class's name and at its forward's arguments.
    kind = type(model)
    own = {"forward": wraps(kind.forward)(forward), "generate": _generate, "without_prompt": kind}
    model.__class__ = type(kind.__name__, (kind,), own)
    return model


def _generate(self, input_ids, attention_mask=None, prompts=None, **options):
    """`generate` of transformers with the soft prompt in each row; what comes back is without it.

    `prompts` says which one, row by row, where `join` gave the model several. Raises LabkitError for a cache
    that was begun elsewhere, without the prompt.
    """
    if options.get("past_key_values") is not None:
        raise LabkitError("a soft prompt comes before all of the text: pass no past_key_values")
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
    (rows, length), n = input_ids.shape, len(self.prompt_ids)
    chosen = [0] * rows if prompts is None else list(prompts)
    if len(chosen) != rows or not set(chosen) <= set(range(self.prompt_count)):
        raise LabkitError(f"`prompts` must give each of {rows} rows a number below {self.prompt_count}")
    soft = torch.tensor([[n * number + word for word in self.prompt_ids] for number in chosen])
    soft = soft.to(input_ids.device)
    ids, mask = put_before(input_ids, attention_mask, soft)
    if options.get("max_length"):
        options["max_length"] += n
    out = self.without_prompt.generate(self, input_ids=ids, attention_mask=mask, **options)
    sequences = out if torch.is_tensor(out) else out.sequences
    text = input_ids.repeat_interleave(len(sequences) // rows, dim=0)  # several of a row, if asked for
    sequences = torch.cat([text, sequences[:, length + n :]], dim=1)
    if torch.is_tensor(out):
        return sequences
    out.sequences = sequences
    return out


def put_before(ids, mask, prompt):
    """`ids` and `mask` (rows, length) with `prompt` (rows, n) before each row's first real token.

    Padding stays on the left of the prompt. Between a prompt and its text it would be a gap wherever
    positions are counted by places; counted by the mask, as in transformers' `generate`, it would be none.
    """
    (rows, length), n = ids.shape, prompt.shape[1]
    column = torch.arange(length + n, device=ids.device).expand(rows, -1)
    first = mask.long().argmax(dim=1, keepdim=True)
    inside = (column >= first) & (column < first + n)
    source = torch.where(column < first, column, column - n).clamp(0, length - 1)
    new = prompt.gather(1, (column - first).clamp(0, n - 1))
    return torch.where(inside, new, ids.gather(1, source)), mask.gather(1, source).masked_fill(inside, 1)


# ---- methods by name ------------------------------------------------------------------------------------


def prompt(n):
    """The base with a prompt of n learned word embeddings, which start as the words of START."""
    return prompt_tuning(*_base_and_start(n))


def ptuning(n):
    """The base with a prompt of n word embeddings from an encoder, which starts at random as in the paper."""
    model, n, _ = _base_and_start(n)
    return p_tuning(model, n)


def prefix(n):
    """The base with n learned keys and values in every layer, which start as those of START."""
    return prefix_tuning(*_base_and_start(n))


def _base_and_start(n):
    from labkit import load_model, load_tokenizer

    return load_model(), n, load_tokenizer()(START, add_special_tokens=False).input_ids
