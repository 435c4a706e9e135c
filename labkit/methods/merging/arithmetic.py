"""Merging as arithmetic on states: dicts of name to fp32 tensor, one entry a weight, tied weights once.

θ is a state, τ = θ − θ_base the delta (task vector) of a finetune. Nothing here changes its arguments, but
for `put`. Each merge needs room for its arguments, the result, and a few copies of the largest tensor.
"""

import math

import torch

from labkit.errors import LabkitError

PARALLEL = 0.9995  # mergekit's threshold, a convention: nearer than that, the arc and the line hardly differ
PIECE = 1 << 16  # entries of a tensor that are held in fp64 at once


# ---- a model's weights as a state -----------------------------------------------------------------------


@torch.no_grad()
def state(model):
    """The weights of a model: name -> fp32 copy on its device. A tied head is the embedding's entry."""
    return {name: weight.detach().float().clone() for name, weight in model.named_parameters()}


@torch.no_grad()
def put(model, state):
    """Load a state into `model` in place, so that tied weights stay tied; returns the model.

    Raises LabkitError, before anything changes, where names or shapes are not the model's.
    """
    weights = dict(model.named_parameters())
    _check_alike([weights, state])
    for name, weight in weights.items():
        weight.copy_(state[name])
    return model


# ---- averages -------------------------------------------------------------------------------------------


@torch.no_grad()
def average(states, weights=None):
    """Σ wᵢ θᵢ, a model soup (Wortsman et al. 2022, arXiv:2203.05482); `weights` are equal unless given.

    Raises LabkitError for states that are not alike, and weights that do not add up to 1.
    """
    _check(states)
    weights = _each(1 / len(states) if weights is None else weights, states)
    if abs(sum(weights) - 1) > 1e-6:
        raise LabkitError(f"the weights add up to {sum(weights):g}: an average wants 1")
    return {name: _weighted(weights, [one[name] for one in states]) for name in states[0]}


def greedy_soup(states, score):
    """(soup, its members' numbers): add finetunes, the best first, while held-out rows do not get worse.

    `score` takes a state and returns a number, higher is better (Wortsman et al. 2022, recipe 1). It must
    look at rows that the final comparison does not use.
    """
    _check(states)
    alone = [score(one) for one in states]
    first, *others = sorted(range(len(states)), key=lambda number: -alone[number])
    members, soup, best = [first], states[first], alone[first]
    for number in others:
        tried = average([states[member] for member in [*members, number]])
        if (value := score(tried)) >= best:
            members, soup, best = [*members, number], tried, value
    return soup, members


@torch.no_grad()
def dot(a, b):
    """The inner product of two states (or deltas), each as one long vector; `dot(a, a)` is a squared length.

    Summed in fp64: in fp32 a sum over an embedding's millions of entries is off by thousandths.
    """
    _check([a, b])
    return sum(_dot(a[name], b[name]) for name in a)


@torch.no_grad()
def cosines(a, b):
    """name -> cosine between the weights of two states (or deltas), each tensor as one long vector.

    Summed as `dot` is: in fp32 a cosine may come out above 1. A tensor of zeros has no direction: its cosine
    is 0.
    """
    _check([a, b])
    return {name: _cosine(a[name], b[name]) for name in a}


def _cosine(a, b):
    lengths = math.sqrt(_dot(a, a) * _dot(b, b))
    return max(-1.0, min(1.0, _dot(a, b) / lengths)) if lengths else 0.0


def _dot(a, b):
    """The sum of products in fp64, of a piece after the other: on a CPU ten times as fast as whole copies."""
    pieces = zip(a.flatten().split(PIECE), b.flatten().split(PIECE), strict=True)
    return float(sum(x.double() @ y.double() for x, y in pieces))


@torch.no_grad()
def slerp(a, b, t, parallel=PARALLEL):
    """From `a` (t = 0) to `b` (t = 1) along an arc, tensor by tensor (Shoemake 1985).

    sin((1 − t) θ) / sin θ · a + sin(t θ) / sin θ · b, θ the angle between the two. Tensors whose cosine is
    beyond ±`parallel` are mixed linearly, as mergekit does: finetunes that moved little are that near, and
    then this is their average (see `cosines`). Those that point exactly one way, or opposite ways, always
    are: their sine is 0. Takes deltas too, whose angles are wide.
    """
    merged = {}
    for name, cosine in cosines(a, b).items():
        first, second = 1 - t, t
        if abs(cosine) < parallel:
            angle = torch.tensor(cosine, dtype=torch.float64).arccos()
            first, second = ((part * angle).sin().div(angle.sin()).item() for part in (1 - t, t))
        merged[name] = first * a[name] + second * b[name]
    return merged


# ---- task arithmetic ------------------------------------------------------------------------------------


@torch.no_grad()
def delta(state, base):
    """τ = θ − θ_base, what finetuning changed (Ilharco et al. 2023, arXiv:2212.04089)."""
    _check([state, base])
    return {name: state[name] - base[name] for name in base}


def task_arithmetic(base, deltas, scales=1.0):
    """θ_base + Σ λₜ τₜ (Ilharco et al. 2023); a negative λ takes a skill away. `scales`: one, or one each."""
    scales = _each(scales, deltas)
    return _merged(base, deltas, lambda parts: _weighted(scales, parts))


# ---- TIES (Yadav et al. 2023, arXiv:2306.01708) ---------------------------------------------------------


def trim(part, density):
    """A tensor with its largest entries, a share `density` of them (at least one), and zeros elsewhere."""
    if not 0 < density <= 1:
        raise LabkitError(f"the density is {density}: a share to keep, above 0 and at most 1")
    flat = part.flatten()
    largest = flat.abs().topk(max(1, int(density * flat.numel())), sorted=False).indices
    return torch.zeros_like(flat).index_copy(0, largest, flat[largest]).reshape(part.shape)


def elected(parts):
    """+1 or −1 for each entry: the sign with the greater total of magnitudes; +1 where they are equal."""
    return torch.where(sum(parts) >= 0, 1.0, -1.0)


def disjoint_mean(parts, signs=None):
    """Mean of those entries that have the sign elected; 0 where none has. Without signs, of all but zeros."""
    agree = [part != 0 if signs is None else part.sign() == signs for part in parts]
    total = sum(part * mask for part, mask in zip(parts, agree, strict=True))
    return total / sum(mask.to(total.dtype) for mask in agree).clamp(min=1)


def ties(base, deltas, density=0.2, scale=1.0, elect=True):
    """θ_base + λ · TIES(τ): trim each delta, elect a sign for each weight, average those that have it.

    Trims tensor by tensor, as mergekit and peft do; the paper's code trims the whole model at once. Without
    `elect` entries that disagree are averaged too: a control, as density 1 is for trimming.
    """

    def combine(parts):
        trimmed = [trim(part, density) for part in parts]
        return scale * disjoint_mean(trimmed, elected(trimmed) if elect else None)

    return _merged(base, deltas, combine)


# ---- DARE (Yu et al. 2023, arXiv:2311.03099) ------------------------------------------------------------


def drop_out(part, drop, generator, rescale=True):
    """A tensor with each entry zero at chance `drop`, the others divided by 1 − drop: its mean stays.

    mergekit instead divides by the share of the sum of magnitudes that is left, close to 1 − drop.
    """
    if not 0 <= drop < 1:
        raise LabkitError(f"the drop rate is {drop}: a share to drop, at least 0 and below 1")
    # Drawn on the CPU, so that a seed means the same weights on every device.
    keep = torch.bernoulli(torch.full(part.shape, 1.0 - drop), generator=generator).to(part.device)
    return part * keep / (1 - drop) if rescale else part * keep


def dare(base, deltas, drop, scales=1.0, seed=0, rescale=True):
    """θ_base + Σ λₜ DARE(τₜ): task arithmetic with deltas of which a share `drop` is dropped at random."""
    scales, generator = _each(scales, deltas), torch.Generator().manual_seed(seed)

    def combine(parts):
        return _weighted(scales, [drop_out(part, drop, generator, rescale) for part in parts])

    return _merged(base, deltas, combine)


def dare_ties(base, deltas, drop, scale=1.0, seed=0):
    """TIES with DARE's random dropping in the place of its trimming (section 3.3 of DARE's paper).

    Takes the mean of the entries that agree, as peft does; mergekit 0.1.5 adds them up unless told otherwise.
    """
    generator = torch.Generator().manual_seed(seed)

    def combine(parts):
        dropped = [drop_out(part, drop, generator) for part in parts]
        return scale * disjoint_mean(dropped, elected(dropped))

    return _merged(base, deltas, combine)


# ---- what they share ------------------------------------------------------------------------------------


@torch.no_grad()
def _merged(base, deltas, combine):
    """`base` plus what `combine` makes of the deltas' tensors, name by name."""
    if not deltas:
        raise LabkitError("there is no delta to merge: give a list of one or more")
    _check([base, *deltas])
    return {name: weight + combine([one[name] for one in deltas]) for name, weight in base.items()}


def _weighted(weights, tensors):
    total = weights[0] * tensors[0]
    for weight, tensor in zip(weights[1:], tensors[1:], strict=True):
        total.add_(tensor, alpha=weight)
    return total


def _each(numbers, states):
    """A list with one number a state, from one for all or a sequence of as many."""
    numbers = [numbers] * len(states) if isinstance(numbers, (int, float)) else list(numbers)
    if len(numbers) != len(states):
        raise LabkitError(f"{len(numbers)} numbers for {len(states)} models: give one for all, or one each")
    return numbers


def _check(states):
    """LabkitError unless there are states, alike, and precise enough to add small changes up."""
    if not states:
        raise LabkitError("there is nothing to merge: give a list of one or more states")
    _check_alike(states)
    for one in states:
        for name, weight in one.items():
            if weight.dtype not in (torch.float32, torch.float64):
                raise LabkitError(f"{name} is {weight.dtype}: take states with `state(model)`, in fp32")


def _check_alike(states):
    """LabkitError unless all states have the names and shapes of the first."""
    wanted, *others = ({name: tuple(weight.shape) for name, weight in one.items()} for one in states)
    for given in others:
        if wanted != given:
            name = min(name for name in wanted | given if wanted.get(name) != given.get(name))
            raise LabkitError(
                f"these are no states of one model: {name} is {given.get(name, 'missing')} in one and "
                f"{wanted.get(name, 'missing')} in another. Take all with `state(model)`, from one base"
            )
