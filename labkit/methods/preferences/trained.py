"""Preference training by trl's trainers: DPO and its kin, GRPO, and a Bradley-Terry reward model.

Each function puts fresh LoRA adapters into `model`, trains them, and returns (policy, history). The policy
shares the weights of `model`, which stay as they were, and frozen: with its adapters switched off it is its
own reference, and `policy.unload()` gives `model` back without them. `history` has one dict for each step.
"""

import sys
import tempfile
import warnings
from contextlib import contextmanager

from tqdm import tqdm
from transformers import PrinterCallback, TrainerCallback

from labkit import env
from labkit.errors import LabkitError
from labkit.methods.preferences.reward import scorer
from labkit.methods.preferences.sampling import merged
from labkit.train.precision import Weights, autocast

LOSSES = ("sigmoid", "ipo", "sigmoid_norm")  # DPO, IPO, length-normalised DPO: trl's names

# What trl logs -> the name in a history.
_LOGGED = {
    "loss": "loss", "grad_norm": "grad_norm", "learning_rate": "lr", "entropy": "entropy",
    "rewards/margins": "margin", "rewards/accuracies": "accuracy",
    "logps/chosen": "chosen_logp", "logps/rejected": "rejected_logp",
    "rewards/chosen": "chosen_reward", "rewards/rejected": "rejected_reward",
    "accuracy": "accuracy", "margin": "margin", "mean_reward": "reward",
    "reward": "reward", "reward_std": "reward_std", "kl": "kl", "frac_reward_zero_std": "equal_groups",
    "completions/mean_length": "tokens", "completions/clipped_ratio": "cut_off",
    "clip_ratio/region_mean": "clipped",
}  # fmt: skip


def dpo(
    model, pairs, tokenizer, *, beta=0.1, lr=1e-4, steps=100, batch=16, loss="sigmoid", rank=16, warmup=0.1,
    accumulate=1, seed=0, after_step=None, progress=True,
):  # fmt: skip
    """Direct preference optimisation of LoRA adapters on `pairs`; returns (policy, history).

    `pairs` have prompt, chosen and rejected, as from `voice.load_pairs()` or `on_policy`. A step takes
    `batch` pairs, in `accumulate` parts. `loss` is `sigmoid` (DPO), `ipo`, or `sigmoid_norm`
    (length-normalised DPO); the last two take means over tokens, and so want other betas: see `losses`. A
    history has loss, margin (beta times nats), accuracy, chosen_logp and rejected_logp (nats per answer), and
    chosen_reward and rejected_reward (beta times the nats that each has moved from the reference, so that
    their difference is the margin), of each step's batch. `after_step(step)` may copy weights of `model`, on
    which trl has a forward of its own by then: do not compute with it.
    Raises LabkitError for another loss, no pairs, or a model that has adapters.
    """
    from trl import DPOConfig, DPOTrainer

    if loss not in LOSSES:
        raise LabkitError(f"loss={loss!r}: it may be {', '.join(LOSSES)}")
    data = _columns(pairs, ("prompt", "chosen", "rejected"))

    def trainer(folder):
        settings = DPOConfig(
            **_settings(model, folder, lr, steps, batch, accumulate, warmup, seed),
            beta=beta, loss_type=[loss], max_length=None,
        )  # fmt: skip
        return DPOTrainer(
            model, args=settings, train_dataset=data, processing_class=tokenizer,
            peft_config=_adapters(rank, "CAUSAL_LM"),
        )  # fmt: skip

    return _train(model, trainer, steps, "DPO" if loss == "sigmoid" else loss, progress, after_step)


def grpo(
    model, rows, tokenizer, reward, *, beta=0.04, lr=1e-4, steps=100, batch=8, group=8, max_new_tokens=110,
    temperature=1.0, epsilon=0.2, iterations=1, scale=True, rank=16, warmup=0.1, accumulate=1, seed=0,
    stop=None, after_step=None, progress=True,
):  # fmt: skip
    """Group-relative policy optimisation of LoRA adapters; returns (policy, history).

    A step samples `group` answers to each of `batch` prompts of `rows`, which have a prompt, and
    `reward(row, text)` is a number for each. `accumulate` splits the answers for the backward pass only.
    With `iterations` above 1 the same answers serve as many steps, which is when clipping at 1 ± `epsilon`
    acts. `scale` divides advantages by their group's standard deviation. Loss and KL term are those of
    `grpo_loss`. A history has reward, reward_std, kl (the mean of `k3` over tokens; with beta 0 none),
    tokens (of an answer), cut_off and equal_groups (shares), entropy and clipped. Sampling takes most of the
    time, and about as long for many answers as for few: choose groups large. Answers are sampled with the
    adapters merged, and like the training in `env.precision()`. `stop` ends a run after so many steps of the
    schedule of `steps`, to judge a rate early. `after_step` is that of `dpo`.
    Raises LabkitError for fewer rows than a step takes, or sizes that do not divide.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    rows = _listed(rows, ("prompt",))
    if group < 2 or (batch * group) % accumulate:
        raise LabkitError(
            f"{batch} prompts with groups of {group} in {accumulate} parts: a group wants 2 answers or more, "
            "and their product must divide into the parts"
        )
    if len(rows) < batch:
        raise LabkitError(f"a step takes {batch} prompts, and there are {len(rows)}: pass a smaller batch")
    data = Dataset.from_list([{"prompt": row["prompt"], "row": number} for number, row in enumerate(rows)])

    def judged(completions, row, **_):
        texts = (one if isinstance(one, str) else one[-1]["content"] for one in completions)
        return [float(reward(rows[number], text)) for number, text in zip(row, texts, strict=True)]

    def trainer(folder):
        settings = GRPOConfig(
            **_settings(model, folder, lr, steps, batch * group, accumulate, warmup, seed),
            beta=beta, epsilon=epsilon, num_iterations=iterations, num_generations=group,
            steps_per_generation=accumulate, max_completion_length=max_new_tokens, temperature=temperature,
            scale_rewards="group" if scale else "none",
            # trl's defaults weigh all tokens alike ("dapo") and the KL term by the ratio; the paper neither,
            # so that the gradient of its KL term is that of KL(ref || policy): see `k3`.
            loss_type="grpo", use_bias_correction_kl=False,
        )  # fmt: skip
        made = GRPOTrainer(
            model, reward_funcs=judged, args=settings, train_dataset=data, processing_class=tokenizer,
            peft_config=_adapters(rank, "CAUSAL_LM"),
        )  # fmt: skip
        made.model.generate = _generate_merged(made.model)
        return made

    return _train(model, trainer, stop or steps, "GRPO", progress, after_step)


def reward_model(
    model, pairs, tokenizer, *, lr=1e-4, steps=100, batch=16, rank=16, warmup=0.1, accumulate=1, seed=0,
    progress=True,
):  # fmt: skip
    """A Bradley-Terry reward model on the layers of the language model `model`; returns (scorer, history).

    LoRA adapters and a head are trained on `pairs`, as for `dpo`; `rewards` reads the scorer. Until
    `scorer.unload()`, `model` has the adapters too. A history has loss, margin, accuracy and reward (mean).
    Raises LabkitError for no pairs, or a model that has adapters.
    """
    from trl import RewardConfig, RewardTrainer

    data = _columns(pairs, ("prompt", "chosen", "rejected"))
    _check_plain(model)
    classifier = scorer(model, tokenizer)

    def trainer(folder):
        settings = RewardConfig(
            **_settings(model, folder, lr, steps, batch, accumulate, warmup, seed), max_length=None
        )
        return RewardTrainer(
            classifier, args=settings, train_dataset=data, processing_class=tokenizer,
            peft_config=_adapters(rank, "SEQ_CLS", modules_to_save=["score"]),
        )  # fmt: skip

    return _train(classifier, trainer, steps, "reward model", progress)


def _generate_merged(policy):
    """`policy.generate` with the adapters merged, in the precision of the hardware."""
    generate, on = policy.generate, policy.device
    precision = env.precision(on)

    def generate_merged(*args, **options):
        with merged(policy), Weights(policy, precision), autocast(on.type, precision):
            return generate(*args, **options)

    return generate_merged


# ---- what all of them share -----------------------------------------------------------------------------


def _settings(model, folder, lr, steps, batch, accumulate, warmup, seed):
    """Training arguments as `fit` has them: AdamW without decay, clipping at 1, a linear schedule.

    But trl's warm-up begins at a rate of 0: the first step changes nothing.
    """
    if batch % accumulate:
        raise LabkitError(f"a batch of {batch} does not divide into accumulate={accumulate} parts")
    on = next(model.parameters()).device
    precision = env.precision(on)
    return {
        "output_dir": folder, "save_strategy": "no", "report_to": "none", "disable_tqdm": True,
        "logging_steps": 1, "seed": seed, "max_steps": steps, "learning_rate": lr, "warmup_steps": warmup,
        "lr_scheduler_type": "linear", "weight_decay": 0.0, "max_grad_norm": 1.0,
        "per_device_train_batch_size": batch // accumulate, "gradient_accumulation_steps": accumulate,
        "gradient_checkpointing": False, "use_cpu": on.type == "cpu", "bf16": precision == "bf16",
        "fp16": precision == "fp16", "dataloader_pin_memory": on.type == "cuda",
    }  # fmt: skip


def _adapters(rank, task, **options):
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type=task, **options)


def _train(model, make, steps, label, progress, after_step=None):
    """Take `steps` steps with what `make(folder)` gives; take off all it put on `model` but the adapters."""
    _check_plain(model)
    forward = vars(model).get("forward")
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trainer = make(folder)
        trainer.remove_callback(PrinterCallback)
        bar = _Bar(steps, label, progress, after_step)
        trainer.add_callback(bar)
        try:
            trainer.train()
            history = [_plain(entry) for entry in trainer.state.log_history if "loss" in entry]
        except BaseException:
            trainer.model.unload()
            raise
        finally:
            bar.bar.close()
            policy = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False)
            for part in (policy, model):  # trl put a head of its own there, accelerate its autocast
                vars(part).pop("forward", None)
                vars(part).pop("generate", None)
            if forward is not None:
                model.forward = forward
            policy.zero_grad(set_to_none=True)
            policy.eval()
            trainer.accelerator.free_memory()
    return policy, history


def _plain(entry):
    return {"step": entry["step"]} | {
        name: float(entry[logged]) for logged, name in _LOGGED.items() if logged in entry
    }


def _check_plain(model):
    if hasattr(model, "peft_config") or any("lora_" in name for name, _ in model.named_parameters()):
        raise LabkitError(
            "this model has adapters already, so it could not be its own reference with fresh ones off: "
            "merge them (`merge_and_unload()`), or take them off (`unload()`), first"
        )


def _listed(rows, columns):
    """`rows` as a list of dicts; LabkitError if there is none, or one lacks a column."""
    rows = rows.to_list() if hasattr(rows, "to_list") else list(rows)
    if not rows:
        raise LabkitError("there are no rows to train on: `rows` is empty")
    for number, row in enumerate(rows):
        if missing := [name for name in columns if not row.get(name)]:
            raise LabkitError(f"row {number} has no {' and no '.join(missing)}: every row needs them")
    return rows


def _columns(pairs, columns):
    """A Dataset of these columns alone: trl gives a meaning to some others, such as `margin`."""
    from datasets import Dataset

    return Dataset.from_list([{name: row[name] for name in columns} for row in _listed(pairs, columns)])


@contextmanager
def _quiet():
    """No progress bars of datasets inside, nor warnings from one library to another."""
    from datasets.utils.logging import (
        disable_progress_bar,
        enable_progress_bar,
        is_progress_bar_enabled,
    )

    shown = is_progress_bar_enabled()
    disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
            yield
    finally:
        if shown:
            enable_progress_bar()


class _Bar(TrainerCallback):
    """Progress as elsewhere in the course: one bar, with the number that matters."""

    def __init__(self, steps, label, progress, after_step):
        self.after_step = after_step
        self.bar = tqdm(
            total=steps, disable=not progress, file=sys.stdout, unit="step", mininterval=0.5, desc=label
        )

    def on_step_end(self, args, state, control, **_):
        self.bar.update()
        control.should_training_stop |= state.global_step >= self.bar.total
        if self.after_step:
            self.after_step(state.global_step)

    def on_log(self, args, state, control, logs=None, **_):
        shown = {"reward", "rewards/margins", "margin"} & set(logs or {})
        if shown:
            name = min(shown)
            self.bar.set_postfix_str(f"{name.split('/')[-1].rstrip('s')} {logs[name]:.3f}")
