"""What others predict for a setting: two formulas that the field uses, and two packages, if they are there.

Each is asked only what it claims to know, and held against the figure that it claims to foretell: `states`
are weights, gradients and optimizer states. The packages are called in an environment of their own:
LABKIT_PEERS names a Python that has them
(`python -m venv peers && peers/bin/pip install fitcheck-llm==0.3.1 ftuneai==0.4.1`). All sizes in bytes.
"""

import json
import os
import subprocess

from labkit.errors import LabkitError

# Which of the measured figures each claims to foretell.
AGAINST = {"accelerate": "allocated", "deepspeed zero-2": "states", "deepspeed zero-3": "states",
           "fitcheck-llm": "process", "ftuneai": "process"}  # fmt: skip


def accelerate(setting):
    """accelerate/commands/estimate.py (1.15), estimate_training_usage: the largest of model, gradients,
    optimizer and step, from the bytes of all weights in fp32. It knows full training with Adam only."""
    size = 4 * setting.shape.weights()
    return 4 * size if setting.precision == "fp32" else 2 * size


def zero_2(setting):
    """deepspeed/runtime/zero/stage_1_and_2.py, estimate_zero2_model_states_mem_needs: 1 card, no offload."""
    return (4 + 16) * setting.shape.weights()


def zero_3(setting):
    """deepspeed/runtime/zero/stage3.py, estimate_zero3_model_states_mem_needs, one card, no offload: 18 bytes
    a weight, and the largest layer in 4."""
    shape = setting.shape
    return 4 * shape.vocab * shape.hidden + 18 * shape.weights()


def predictions(settings):
    """{name: {peer: bytes}} for {name: Setting}; a peer that refuses a setting or is not there is missing."""
    found = {name: {} for name in settings}
    for name, setting in settings.items():
        if setting.method != "full" or setting.optimizer not in ("adamw", "fused"):
            continue
        found[name]["accelerate"] = accelerate(setting)
        if setting.precision == "bf16 autocast":  # both formulas are for mixed precision with fp32 masters
            found[name] |= {"deepspeed zero-2": zero_2(setting), "deepspeed zero-3": zero_3(setting)}
    for name, more in _packages(settings).items():
        found[name] |= more
    return found


def _packages(settings):
    python = os.environ.get("LABKIT_PEERS")
    if not python:
        return {}
    asked = {
        name: setting.to_dict() | {"weights": setting.shape.weights(), "all targets": setting.adapted()}
        for name, setting in settings.items()
        if setting.method in ("full", "lora", "qlora")
    }
    done = subprocess.run(
        [python, "-c", SCRIPT], input=json.dumps(asked), capture_output=True, text=True, timeout=600
    )
    if done.returncode:
        raise LabkitError(f"LABKIT_PEERS={python} failed:\n{done.stderr[-1000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# Each is asked for what comes nearest: its full training in 16 bits keeps fp32 masters, as autocast does.
SCRIPT = """
import json, sys
found = {}
asked = json.load(sys.stdin)
def fitcheck(s):
    import fitcheck
    from fitcheck.config_parser import ModelConfig
    h = s["shape"]
    model = ModelConfig(h["name"], s["weights"], h["hidden"], h["layers"], h["heads"], h["kv_heads"],
                        h["inter"], h["vocab"], h["head_dim"], h["tied"])
    optimizer = {"adamw": "adamw", "fused": "adamw", "8-bit": "adamw8bit", "sgd": "sgd", "paged": "adamw",
                 "paged 8-bit": "adamw8bit"}[s["optimizer"]]
    training = fitcheck.TrainingConfig(
        precision="fp32" if s["precision"] == "fp32" else "bf16",
        quantization="nf4" if s["method"] == "qlora" else "none", double_quant=s["method"] == "qlora",
        optimizer=optimizer,
        optimizer_dtype="bf16" if s["precision"] == "bf16" and s["method"] == "full" else "fp32",
        batch_size=s["batch"], seq_len=s["seq"], lora_rank=None if s["method"] == "full" else s["rank"],
        lora_targets=s["all targets"], grad_checkpoint=s["checkpointing"],
        flash_attn=s["attention"] == "flash")
    return fitcheck.estimate(model, training, fitcheck.get_gpu("h100")).total_mib * 2**20
def ftune(s):
    from ftuneai.core.memory import MemoryEstimator
    from ftuneai.core import models as m
    h = s["shape"]
    dtype = "bfloat16" if s["precision"] == "bf16" else "float32"
    model = m.ModelSpec(h["name"], s["weights"], h["hidden"], h["layers"], h["heads"], h["kv_heads"],
                        h["inter"], h["vocab"], max(h["positions"], s["seq"]), dtype)
    optimizer = {"8-bit": "adam_8bit", "paged 8-bit": "adam_8bit", "sgd": "sgd"}.get(s["optimizer"], "adamw")
    few = {("q_proj", "v_proj"): "attention", ("q_proj", "k_proj", "v_proj", "o_proj"): "attention_all"}
    config = m.TrainingConfig(
        method=m.FineTuneMethod(s["method"]), batch_size=s["batch"], seq_length=s["seq"],
        gradient_checkpointing=s["checkpointing"], optimizer=m.OptimizerType(optimizer), lora_rank=s["rank"],
        lora_target=m.LoRATarget(few.get(tuple(s["all targets"]), "all_linear")),
        flash_attention=s["attention"] == "flash")
    return MemoryEstimator(model, config).estimate().total_gb * 2**30
for name, setting in asked.items():
    found[name] = {}
    for peer, ask in (("fitcheck-llm", fitcheck), ("ftuneai", ftune)):
        try:
            found[name][peer] = int(ask(setting))
        except (ImportError, ValueError, TypeError, KeyError) as error:
            print(peer, name, error, file=sys.stderr)
print(json.dumps(found))
"""
