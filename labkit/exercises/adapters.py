"""Score submitted LoRA adapters on tickets drawn from the secret seed: rows that nobody has trained on.

An adapter is numbers and a few settings, so no code of it runs: the numbers come from safetensors, never from
a pickle, and of its settings a few are read and checked. The phrasings of the test split are public, its rows
for a seed are not.
"""

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from labkit.exercises.check import one_line
from labkit.exercises.report import Result

WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"
LARGEST = {WEIGHTS: 256 * 2**20, SETTINGS: 64 * 2**10}  # bytes
LARGEST_HEADER = 2**20  # bytes
LARGEST_RANK = 256
POINTS = 10
DTYPES = {"F32": 4, "F16": 2, "BF16": 2}
MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# Settings that change what the numbers mean, and the values with which they do not.
PLAIN = {
    "peft_type": ("LORA",), "bias": ("none", None), "fan_in_fan_out": (False, None),
    "modules_to_save": (None, []), "exclude_modules": (None, []), "use_qalora": (False, None),
    "arrow_config": (None,), "kasa_config": (None,), "velora_config": (None,), "monteclora_config": (None,),
    "rank_pattern": (None, {}), "alpha_pattern": (None, {}), "layers_to_transform": (None, []),
    "layer_replication": (None,), "trainable_token_indices": (None,), "target_parameters": (None, []),
    "lora_bias": (False, None), "alora_invocation_tokens": (None,), "use_bdlora": (None, False),
}  # fmt: skip


class Refused(Exception):
    """The adapter is not scored; the message is for the learner."""


@dataclass(frozen=True)
class Settings:
    """What is taken from adapter_config.json."""

    r: int
    lora_alpha: float
    target_modules: tuple
    use_rslora: bool
    use_dora: bool


def grade(folders, seed, rows, parts, load=None):
    """Score adapters, {name: folder}, on `rows` tickets drawn from `seed`; returns a Result for each.

    Points are the share of exact answers in tenths, rounded down. `load()` gives (model, tokenizer): the base
    unless said otherwise. One bad adapter does not stop the rest.
    """
    from labkit import load_model, load_tokenizer

    tickets = draw(seed, rows)
    loaded, results = [], []
    for name, folder in folders.items():
        try:
            content = [_content(Path(folder), file) for file in (WEIGHTS, SETTINGS)]
            key = _key(content, seed, rows)
            found = parts.get(key, name)
            if found is None:
                settings = read_settings(content[1])
                check_header(content[0], settings)
                if not loaded:
                    loaded += load() if load else (load_model(), load_tokenizer())
                found = [_result(name, *score(*loaded, content[0], settings, tickets))]
                parts.put(key, found)
        except Refused as error:
            found = [Result(name, "adapter", 0, POINTS, one_line(str(error)))]
        except Exception as error:
            loaded.clear()  # it may be half-changed
            why = one_line(f"could not be scored: {type(error).__name__}: {error}")
            found = [Result(name, "adapter", 0, POINTS, why)]
        results += found
    return results


def draw(seed, rows):
    """`rows` tickets of the test split from a grammar seed of their own, as prompts and golds."""
    from labkit.tasks import tickets

    own = hashlib.sha256(f"{seed}\nadapter".encode()).hexdigest()
    return [{**row, "prompt": tickets.render(row["message"])} for row in tickets.build("test", rows, own)]


def _content(folder, name):
    """The bytes of a submitted file, within its limit; refuses links and what is not there."""
    path = folder / name
    if path.is_symlink() or not path.is_file():
        pickles = [p.name for p in folder.glob("adapter_model.*") if p.suffix != ".safetensors"]
        why = f": {pickles[0]} may hold code and is not loaded, save as safetensors" if pickles else ""
        raise Refused(f"there is no plain file {name}{why}")
    with path.open("rb") as file:
        content = file.read(LARGEST[name] + 1)
    if len(content) > LARGEST[name]:
        raise Refused(f"{name} is larger than {LARGEST[name]:,} bytes")
    return content


def read_settings(content):
    """The Settings in the bytes of adapter_config.json; raises Refused for all but plain LoRA."""
    try:
        given = json.loads(content)
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise Refused(f"{SETTINGS} is not readable")
    for key, allowed in PLAIN.items():
        if given.get(key, allowed[0]) not in allowed:
            raise Refused(f"{SETTINGS}: {key} = {str(given[key])[:40]} is not supported: use LoRA, DoRA")
    rank, alpha, modules = (given.get(key) for key in ("r", "lora_alpha", "target_modules"))
    if type(rank) is not int or not 1 <= rank <= LARGEST_RANK:
        raise Refused(f"{SETTINGS}: r must be a whole number from 1 to {LARGEST_RANK}")
    if type(alpha) not in (int, float) or not math.isfinite(alpha) or abs(alpha) > 1e6:
        raise Refused(f"{SETTINGS}: lora_alpha must be a number")
    modules = list(MODULES) if modules == "all-linear" else modules
    modules = {str(m).rpartition(".")[2] for m in modules} if isinstance(modules, list) else set()
    if not modules or not modules <= set(MODULES):
        raise Refused(f"{SETTINGS}: target_modules must be a list of some of {', '.join(MODULES)}")
    flags = (given.get(key, False) for key in ("use_rslora", "use_dora"))
    return Settings(rank, alpha, tuple(sorted(modules)), *(flag is True for flag in flags))


def check_header(content, settings):
    """Read the header of safetensors by hand: names, dtypes and sizes must be those of such an adapter."""
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length]) if length <= LARGEST_HEADER else None
        header.pop("__metadata__", None)
        tensors = [(name, t["dtype"], math.prod(t["shape"]), t["data_offsets"]) for name, t in header.items()]
        total = sum(stop - start for *_, (start, stop) in tensors)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, struct.error):
        raise Refused(f"{WEIGHTS} is not a readable safetensors file") from None
    if not tensors or total != len(content) - 8 - length:
        raise Refused(f"{WEIGHTS} is cut off, or holds more than its header says")
    for name, dtype, count, (start, stop) in tensors:
        if dtype not in DTYPES or stop - start != count * DTYPES[dtype]:
            raise Refused(f"{WEIGHTS}: {name[:60]} is {dtype} or of a wrong size: save fp32, fp16 or bf16")
        if ".lora_" not in name or not any(f".{module}." in name for module in settings.target_modules):
            raise Refused(f"{WEIGHTS}: {name[:80]} is no weight of such an adapter")


def score(model, tokenizer, weights, settings, tickets):
    """The tickets Scores of an adapter on the base `model`, which is as it was afterwards; raises Refused."""
    import torch
    from peft import LoraConfig, get_peft_model, set_peft_model_state_dict
    from safetensors.torch import load

    from labkit.evaluate import score as scored

    state = load(weights)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in state.values()):
        raise Refused("its weights are not all finite numbers")
    fields = {**vars(settings), "target_modules": list(settings.target_modules)}
    config = LoraConfig(**fields, task_type="CAUSAL_LM")
    adapted = get_peft_model(model, config)
    try:
        wanted = {n: t.shape for n, t in adapted.state_dict().items() if ".lora_" in n}
        got = {_named(n): t.shape for n, t in state.items()}
        if wanted != got:
            differing = sorted(wanted.items() ^ got.items(), key=str)[0][0]
            raise Refused(f"its weights do not fit this base model and its settings: see {differing[-80:]}")
        set_peft_model_state_dict(adapted, state)
        return scored(adapted, tokenizer, tickets, progress=False), len(tickets)
    finally:
        adapted.unload()


def _named(name):
    """A tensor's name in the file, as peft names it in the model."""
    return name.removesuffix(".weight") + ".default.weight"


def _result(name, scores, rows):
    from labkit.records.stats import wilson

    low, high = wilson(scores.exact, rows)
    share = f"{scores.exact:.1%} of {rows} rows exact (95%: {low:.1%} to {high:.1%})"
    return Result(name, "adapter", math.floor(scores.exact * POINTS), POINTS, share)


def _key(content, seed, rows):
    digests = [hashlib.sha256(c).hexdigest() for c in (*content, Path(__file__).read_bytes())]
    return hashlib.sha256(json.dumps([digests, seed, rows, "adapter"]).encode()).hexdigest()
