"""Specialists: finetunes of the base on one task each, trained once a machine and kept in labkit's cache.

A file is kept for what decides its weights: task and data, method, settings, base, machine and libraries.
"""

import hashlib
import json
import os
from pathlib import Path

from labkit import base_model, env
from labkit.errors import LabkitError

ROWS = {"voice": {"quality": "gold"}}  # options of `load`: replies to learn the voice from, no drafts
METHODS = ("full", "lora")


def specialist(task, *, steps, lr, method="full", seed=0, batch=4, length=512, progress=True):
    """The weights of the base, finetuned with `method` on the training rows of `task`: name -> fp32 tensor.

    On the device of `env`: a state (all weights) for `full`, an adapter's (`with_adapters`) for `lora-rN`.
    The first call trains by `fit` and keeps the result in `folder()`, for `full` 4 bytes a weight (0.54 GB);
    later ones read it. Two processes that want the same one train it once. Raises LabkitError for an unknown
    task, another method, a full disk and a damaged file.
    """
    from safetensors.torch import load_file

    settings = {"task": task, "method": _method(method).name, "seed": seed, "steps": steps, "lr": lr,
                "batch": batch, "length": length}  # fmt: skip
    path = _path(settings)
    if not path.exists():  # asked first, so that a cache that others wrote need only be read
        _make(path, settings, progress)
    try:
        return load_file(path, device=str(env.device()))
    except Exception as error:  # safetensors raises its own types for a damaged file
        raise LabkitError(f"{path} cannot be read ({error}). Delete it: it is trained again") from error


def folder():
    """Where specialists are kept: delete it to free its disk space, or to train them again."""
    return base_model.cache_dir() / "specialists"


def score_all(model, tokenizer, rows, **options):
    """{task: Scores} of a model on {task: rows}, each by the task's own judge; `options` go to `score`."""
    from labkit import score

    return {task: score(model, tokenizer, some, task=task, **options) for task, some in rows.items()}


def kept(merged, base, specialist):
    """The share of a specialist's gain over the base that a merged model keeps: 1 is all, below 0 is a loss.

    All three are scores on the specialist's task. Raises LabkitError for a specialist without a gain.
    """
    if specialist <= base:
        raise LabkitError(f"the specialist scores {specialist:g}, the base {base:g}: no gain to keep")
    return (merged - base) / (specialist - base)


def _method(name):
    from labkit import methods

    found = methods.find(name)
    if found.name.partition("-")[0] not in METHODS:
        raise LabkitError(f"a specialist is trained with {' or '.join(METHODS)}, not {name}: merging wants "
                          "weights or LoRA adapters")  # fmt: skip
    return found


def _make(path, settings, progress):
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with base_model._lock(path.with_suffix(".lock")):
            if not path.exists():
                _write(path, _train(settings, progress), settings)
    except OSError as error:
        raise LabkitError(
            f"cannot keep a specialist in {folder()} ({error}). "
            "Free disk space, or set LABKIT_CACHE to a folder on another disk that you may write to"
        ) from error


def _train(settings, progress):
    from labkit import fit, load, load_tokenizer
    from labkit.methods.merging.arithmetic import state

    options = {key: settings[key] for key in ("steps", "lr", "batch", "length", "seed")}
    task = settings["task"]
    rows = load(task, **ROWS.get(task, {}))["train"]
    model = _method(settings["method"]).prepare(settings["seed"])
    fit(model, rows, load_tokenizer(), progress=progress, **options)
    if hasattr(model, "peft_config"):
        from peft import get_peft_model_state_dict

        return {name: weight.float() for name, weight in get_peft_model_state_dict(model).items()}
    return state(model)


def _write(path, weights, settings):
    """Write the file whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_name(f".part-{path.name}")
    try:
        whole = {name: weight.detach().cpu().contiguous() for name, weight in weights.items()}
        save_file(whole, temporary, metadata={"settings": json.dumps(settings)})
        temporary.chmod(0o644)  # safetensors lets only the owner read; a cache may be shared
        os.replace(temporary, path)
    except SafetensorError as error:  # what safetensors makes of a full disk
        raise OSError(str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def _path(settings):
    """The file of a specialist: its name says what it is, and ends in a digest of all that decides it."""
    from labkit.records import store
    from labkit.tasks import FAMILIES

    task, method = settings["task"], _method(settings["method"])
    if task not in FAMILIES:
        raise LabkitError(f"there is no task {task!r}. There are: {', '.join(FAMILIES)}")
    parts = [
        settings, ROWS.get(task), store.data_digest(task), store.code_digest(method.module),
        store.training_digest(), store.versions(), _base(), env.machine(), env.precision(),
    ]  # fmt: skip
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    return folder() / f"{task}-{method.name}-{digest[:16]}.safetensors"


def _base():
    """What tells one base from another: the embedded file's digest, or an own model's name and files."""
    if base_model.is_default():
        return [base_model.GGUF_SHA256, base_model.CONVERSION]
    named = Path(os.environ["LABKIT_MODEL"]).expanduser()
    files = [one for one in sorted(named.iterdir()) if one.is_file()] if named.is_dir() else []
    return [str(named), *([one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in files)]
