"""What a call of `fit` will take of a card, by prediction, and which smaller budget would do."""

from labkit.errors import LabkitError


def setting_of(model, *, batch, length, precision="bf16", checkpointing=False):
    """The memory Setting of a call of `fit` on `model`; None where there is no prediction for it.

    There is one for Llama-like models with every weight trained and for LoRA, DoRA, QLoRA and IA³ of peft.
    """
    from labkit.memory import Setting, shape_of

    fields = {"batch": batch, "seq": length, "optimizer": "fused", "fused_loss": True,
              "checkpointing": checkpointing,
              "precision": "fp32" if precision == "fp32" else "bf16 autocast"}  # fmt: skip
    try:
        config = getattr(model, "peft_config", None)
        if config:
            fields |= _of_peft(model, next(iter(config.values())))
        elif not all(weight.requires_grad for weight in model.parameters()):
            return None
        return Setting(shape_of(model), **fields)
    except (LabkitError, AttributeError, KeyError):
        return None


def _of_peft(model, config):
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind == "IA3":
        return {"method": "ia3"}
    if kind != "LORA":
        raise LabkitError(f"no prediction for peft's {kind}")
    four_bit = getattr(model, "is_loaded_in_4bit", False)
    method = "qlora" if four_bit else "dora" if config.use_dora else "lora"
    targets = {str(name).split(".")[-1] for name in config.target_modules}
    return {"method": method, "rank": config.r, "targets": ",".join(sorted(targets))}


def smaller(setting, room):
    """The first smaller budget whose step fits `room` bytes (peak reserved): (arguments of `fit`, bytes).

    Tried in turn: half the batch and twice `accumulate`, again and again, which leaves the step as it is;
    then checkpointing as well; then a shorter length too. (None, None) where nothing fits.
    """
    batches = [setting.batch >> halvings for halvings in range(1, setting.batch.bit_length())]
    tries = [{"batch": batch} for batch in batches]
    if not setting.checkpointing:
        tries += [{"batch": batch, "checkpointing": True} for batch in [setting.batch, *batches]]
    shorter = [length for length in (1024, 512, 256, 128, 64) if length < setting.seq]
    tries += [{"batch": 1, "checkpointing": True, "seq": length} for length in shorter]
    for change in tries:
        size = peak(setting.but(**change))
        if size <= room:
            return _arguments(setting, setting.but(**change)), size
    return None, None


def peak(setting):
    """Bytes that torch's allocator takes at the peak of a step, by prediction."""
    from labkit.memory import predict

    return predict(setting).peak_reserved


def weights(setting):
    """Bytes of the weights alone, which lie on the card before training begins."""
    from labkit.memory import predict

    return predict(setting).categories.get("weights", 0)


def advice(setting, room, accumulate=1):
    """What a step takes by prediction, what room there is, and what to pass to `fit` instead: as text."""
    says = f"By prediction the step takes {_gb(peak(setting))} and there is room for {_gb(room)}. "
    change, size = smaller(setting, room)
    if change is None:
        return says + "No smaller batch or length fits: close other notebooks that use the card"
    if "accumulate" in change:
        change["accumulate"] *= accumulate
    passed = ", ".join(f"{name}={value}" for name, value in change.items())
    return says + f"Pass {passed}: that takes {_gb(size)}"


def _arguments(setting, changed):
    """What to pass to `fit` to come from one setting to the other."""
    passed = {}
    if changed.batch != setting.batch:
        passed = {"batch": changed.batch, "accumulate": -(-setting.batch // changed.batch)}
    if changed.seq != setting.seq:
        passed["length"] = changed.seq
    if changed.checkpointing != setting.checkpointing:
        passed["gradient_checkpointing"] = True
    return passed


def _gb(size):
    return f"{size / 1e9:.1f} GB"
