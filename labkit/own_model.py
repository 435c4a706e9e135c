"""A model of the learner's own, named by `LABKIT_MODEL`: load it, or say why that is impossible."""

import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from huggingface_hub import snapshot_download

from labkit.errors import LabkitError

# Words in the class names of models that write text; BERT's kin load as causal models all the same.
CAUSAL = ("CausalLM", "LMHead", "ConditionalGeneration")
HUB_SECONDS = 5  # wait this long for the hub; transformers itself retries for the best part of a minute


def load_own(loader, **options):
    """What `LABKIT_MODEL` names, through `loader`, a transformers Auto class; `options` go to it.

    Raises LabkitError for a folder or hub id that does not exist or cannot be loaded.
    """
    name = os.environ["LABKIT_MODEL"]
    path = Path(name).expanduser()
    if name.startswith((".", "/", "~")) and not path.is_dir():
        raise LabkitError(
            f"LABKIT_MODEL={name} is not a folder. Correct it, or unset it for the default model"
        )
    try:
        if path.is_dir():
            name = str(path)
        elif not hub_answers():
            name = snapshot_download(name, local_files_only=True)
        return loader.from_pretrained(name, **options)
    except Exception as error:  # a folder that holds no model fails in half a dozen ways
        reason = "\n".join(f"  {line}" for line in str(error).strip().splitlines()[-3:])
        raise _refusal(reason) from error


def load_own_model(**options):
    """The causal language model that `LABKIT_MODEL` names, refused where it is of another kind."""
    from transformers import AutoModelForCausalLM

    model, info = load_own(AutoModelForCausalLM, output_loading_info=True, **options)
    stated = model.config.architectures or []
    if stated and not any(word in name for name in stated for word in CAUSAL):
        raise _refusal(f"  its config says {', '.join(stated)}")
    if info["missing_keys"]:
        raise _refusal(f"  it lacks weights: {', '.join(sorted(info['missing_keys'])[:3])}")
    return model


def _refusal(reason):
    name = os.environ["LABKIT_MODEL"]
    return LabkitError(
        f"LABKIT_MODEL={name} could not be loaded as a causal language model:\n{reason}\n"
        "Name a folder or hub id of one, or unset LABKIT_MODEL for the default model"
    )


def hub_answers():
    """Can the model hub be reached? Behind a proxy we cannot tell, and say yes."""
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    hub = urlparse(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    try:
        port = hub.port or (80 if hub.scheme == "http" else 443)
        socket.create_connection((hub.hostname, port), timeout=HUB_SECONDS).close()
    except OSError:
        return False
    return True
