"""Checkpoints: all that a killed run needs to go on to the same losses."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import torch

from labkit.errors import LabkitError


def fingerprint(encoded, settings, trainable):
    """A digest of rows, settings and trainable shapes: a checkpoint only fits its own run."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for row in encoded:
        digest.update(repr((row.ids, row.weights)).encode())
    for name, parameter in trainable.items():
        digest.update(f"{name}{tuple(parameter.shape)}".encode())
    return digest.hexdigest()


def save(path, state, trainable, optimizer, scaler):
    """Write the checkpoint to a temporary name, then rename it: a kill never leaves half a file."""
    path = Path(path)
    whole = {
        **state,
        "weights": {name: parameter.detach().cpu() for name, parameter in trainable.items()},
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(whole, temporary)
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise LabkitError(
            f"checkpoint {path} cannot be written ({str(error).splitlines()[0]}). "
            "Free disk space, or name a file on another disk"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def resume(path, mark, trainable, optimizer, scaler):
    """Load `path` into weights, optimizer and generators; returns the saved state, or None without a file."""
    if not Path(path).exists():
        return None
    if Path(path).is_dir():
        raise LabkitError(f"checkpoint {path} is a folder. Name a file, in this folder for instance")
    try:
        whole = torch.load(path, map_location="cpu", weights_only=True)
        written_for = whole["fingerprint"]
    except Exception as error:  # torch.load raises half a dozen types for a damaged file
        raise LabkitError(f"checkpoint {path} cannot be read ({type(error).__name__}). Delete it") from error
    if written_for != mark:
        raise LabkitError(
            f"checkpoint {path} belongs to another run (other rows, settings or method). "
            "Delete it, or pass another path"
        )
    with torch.no_grad():
        for name, parameter in trainable.items():
            parameter.copy_(whole["weights"][name])
    optimizer.load_state_dict(whole["optimizer"])
    scaler.load_state_dict(whole["scaler"])
    torch.set_rng_state(whole["rng"])
    for card, state in enumerate(whole["cuda_rng"][: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(state, card)  # written where there were more cards, perhaps
    return whole
