"""Merging LoRA adapters through peft's `add_weighted_adapter`: `cat` is exact, `linear` is not.

Adapters are told by name: `weights` is {adapter: weight}.
"""

import torch

from labkit.errors import LabkitError

MERGED = "merged"
WAYS = ("cat", "svd", "linear")


def with_adapters(model, states):
    """`model`, a plain one, with several LoRA adapters, {adapter: state as `specialist` gives it}.

    Changed in place, and returned inside a peft model. Adapters are those of `labkit.methods.lora` on all
    linear layers, alpha = 2r, of the rank that a state has. The first is active. Raises LabkitError for an
    empty dict, and states that hold no such adapter.
    """
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict

    if not states:
        raise LabkitError("there is no adapter to add: give {name: state} with one or more")
    for name, state in states.items():
        ranks = {len(weight) for key, weight in state.items() if "lora_A" in key}
        if len(ranks) != 1:
            raise LabkitError(f"{name} is no LoRA adapter of one rank: train it with method='lora-r16', say")
        rank = ranks.pop()
        config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
        if hasattr(model, "peft_config"):
            model.add_adapter(name, config)
        else:
            model = get_peft_model(model, config, adapter_name=name)
        result = set_peft_model_state_dict(model, state, adapter_name=name)
        if strange := result.unexpected_keys:
            raise LabkitError(f"{name} was trained on another model: this one has no {strange[0]}")
    return model.eval()


def combine(model, weights, how="cat", name=MERGED):
    """Add the adapter `name`, merged from `weights`, to peft's `model`, and make it the active one.

    `cat` puts the A and the B matrices side by side: its rank is the sum of ranks, and its update the sum of
    weighted updates, exactly. `linear` adds A to A and B to B, which must have one rank, and multiplies the
    sums: every A meets every B. `svd` cuts the sum of updates down to the largest rank among the adapters.
    Raises LabkitError for an unknown way or adapter, a name that is taken, and fewer than two adapters, which
    peft merges by another rule than asked for.
    """
    known = list(model.peft_config)
    if how not in WAYS:
        raise LabkitError(f"there is no way {how!r} to combine adapters. There are: {', '.join(WAYS)}")
    if strange := [one for one in weights if one not in known]:
        raise LabkitError(f"this model has no adapter {strange[0]!r}. It has: {', '.join(known)}")
    if name in known:  # peft would keep the old one and say nothing
        raise LabkitError(f"this model has an adapter {name!r} already: delete_adapter it, or name another")
    if len(weights) < 2:
        raise LabkitError("combining wants two adapters or more")
    model.add_weighted_adapter(
        list(weights), list(weights.values()), name, combination_type=how, svd_full_matrices=False
    )
    model.set_adapter(name)
    return model


@torch.no_grad()
def relative_error(model, weights, name=MERGED):
    """‖U − Σ wᵢ Uᵢ‖ / ‖Σ wᵢ Uᵢ‖, over all layers: U the update s B A of `name`, Uᵢ those it came from.

    About 0 for `cat`. Raises LabkitError where the updates add up to nothing.
    """
    wrong = right = 0.0
    for layer in model.modules():
        if name in getattr(layer, "lora_A", {}):
            wanted = sum(weight * layer.get_delta_weight(one) for one, weight in weights.items())
            wrong += (layer.get_delta_weight(name) - wanted).double().square().sum().item()
            right += wanted.double().square().sum().item()
    if not right:
        raise LabkitError(f"the updates of {', '.join(weights)} add up to nothing: nothing to compare")
    return (wrong / right) ** 0.5
