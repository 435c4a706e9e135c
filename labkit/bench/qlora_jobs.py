"""The jobs of `bench qlora`: a training with its scores, a step's memory, a step's time."""

import math
import time

from labkit import env
from labkit.bench import jobs
from labkit.errors import LabkitError
from labkit.memory import Setting, measure, predict
from labkit.methods.four_bit import dequantized, four_bit_of, in_16_bits, merge_into
from labkit.methods.lora import DEFAULT, adapted

GPU = {"steps": 300, "batch": 8, "length": 512, "rows": 2000, "whole": 25, "timed": 60,
       "step batch": 5, "fit": "graph"}  # fmt: skip
SMOKE = {"steps": 1, "batch": 1, "length": 512, "rows": 2, "whole": 1, "timed": 1,
         "step batch": 1, "fit": "plain"}  # fmt: skip
ARMS = ("lora-r16", "qlora-r16")
FOUR_BIT = ARMS[1]
HALF = "lora-r16-half"  # LoRA on linear weights in bf16, as with large models: no copies of an fp32 base
TIMED = (ARMS[0], HALF, FOUR_BIT)
REPEATS = 3
SHAPES = {"135M": "smollm2-135m", "1B": "1b", "7B": "7b", "65B": "65b"}
KEEPING = {"checkpointing": True, "plain": False}  # with gradient checkpointing and without
ENGINES = ("eager", "fit")  # the tutorial's loop, and `fit`, with its CUDA graph where there is a card
MEMORY = [f"memory_{shape}_{arm}_{keeping}" for shape in SHAPES for arm in ARMS for keeping in KEEPING]
TIMES = [f"time_{repeat}" for repeat in range(REPEATS)]
UNMERGED = "unmerged"
GENERATED = {"cuda": 250, "cpu": 64}  # rows of a batch that answers; only speed and memory depend on it


def settings():
    """The numbers of this profile."""
    return vars(env.budget(cpu=SMOKE, gpu=GPU, smoke=SMOKE))


def job(name):
    """One job by name, its kind and what that function takes; returns what `jobs.write` stores."""
    started = time.perf_counter()
    kind, *rest = name.split("_")
    result = {"sweep": tune, "final": final, "memory": memory, "time": times}[kind](*rest)
    return {**result, **jobs.cost(started)}


# ---- score ----------------------------------------------------------------------------------------------


def tune(arm, rate, seed, which):
    """Share right of rows with phrasings kept from the training, and the loss there; none if it diverged."""
    from labkit import load
    from labkit.bench.methods import apart

    seen, unseen = apart(load("tickets")["train"])
    rows = few(unseen)
    try:
        model, run = train(arm, rate, seed, which, seen, validation=rows, validate_every=settings()["steps"])
    except LabkitError as error:
        if "the loss is" not in str(error):
            raise
        return {"right": 0.0, "loss": None, "diverged": True}
    loss = run.validation[-1][1]
    return {"right": exact(model, rows).exact, "loss": loss if math.isfinite(loss) else None,
            "diverged": False}  # fmt: skip


def final(arm, rate, seed, which):
    """Which test rows are right; where the base was in 4 bits, also after each merge."""
    from labkit import load
    from labkit.records import stats

    data = load("tickets")
    model, run = train(arm, rate, seed, which, data["train"])
    ways = {UNMERGED: lambda: model, **(merges(which, seed, model) if arm == FOUR_BIT else {})}
    rows = few(data["test"])
    return {"flags": {way: stats.pack_rows(exact(make(), rows).exact_rows) for way, make in ways.items()},
            "training seconds": run.seconds, "path": run.path}  # fmt: skip


def train(arm, rate, seed, which, rows, **held_out):
    """(model, Run) of LoRA on a base in fp32, computing in bf16, or in NF4; `held_out` goes to `fit`.

    Of one seed the arms' adapters start alike, but that peft rounds those over 4-bit layers to bf16 once.
    """
    import torch

    from labkit import fit, load_tokenizer

    torch.set_float32_matmul_precision("high")
    base, asked = base_of(which, seed), settings()
    base = four_bit_of(base) if arm == FOUR_BIT else base
    env.seed_everything(int(seed))
    model = adapted(base, DEFAULT)
    run = fit(
        model, rows, load_tokenizer(), steps=asked["steps"], lr=float(rate),
        batch=asked["batch"], length=asked["length"], seed=int(seed), progress=False, **held_out,
    )  # fmt: skip
    return model, run


def few(rows):
    """The rows that are scored: all, but in a trial."""
    return rows.select(range(min(len(rows), settings()["rows"] or len(rows))))


def base_of(which, seed):
    """A freshly loaded base in fp32: as it is (`base`), or dithered with `seed` (`dithered`)."""
    from labkit import load_model
    from labkit.methods.quantize import dither

    return load_model() if which == "base" else dither(load_model(), int(seed))


def merges(which, seed, model):
    """way -> a function that gives the trained `model` merged that way, each into fresh weights of its base.

    "merged into 16-bit" is what the field advises: the update is added to the 16-bit checkpoint, which is
    not what the adapter was trained on, and the sum is rounded to bf16. "merged into 32-bit" is the same
    without rounding of the stored weights. "merged into 16-bit, then 4-bit" rounds that sum to NF4.
    "merged into 4-bit" is what the field warns of, and what peft's merge_and_unload does to a 4-bit layer:
    its weights are restored, the update is added, the sum is rounded to NF4 again. "merged into
    de-quantized" stops before that last rounding and keeps the sum in bf16: the weights that the adapter was
    trained on, at the size of a 16-bit model. Only merged linear weights are ever rounded: the rest is in
    fp32 in all, and a GPU multiplies in bf16 in all, as while training.
    """

    def fresh():
        return base_of(which, seed)

    def restored():
        return dequantized(four_bit_of(fresh()))

    return {
        "merged into 16-bit": lambda: in_16_bits(merge_into(in_16_bits(fresh()), model)),
        "merged into 32-bit": lambda: merge_into(fresh(), model),
        "merged into 16-bit, then 4-bit": lambda: four_bit_of(merge_into(in_16_bits(fresh()), model)),
        "merged into de-quantized": lambda: in_16_bits(merge_into(restored(), model)),
        "merged into 4-bit": lambda: four_bit_of(merge_into(restored(), model)),
    }


def exact(model, rows):
    """Scores of the model's answers to rows of tickets."""
    from labkit import load_tokenizer, score

    batch = GENERATED[next(model.parameters()).device.type]
    return score(model, load_tokenizer(), rows, task="tickets", batch_size=batch, progress=False)


# ---- memory ---------------------------------------------------------------------------------------------


def setting(shape, arm, keeping):
    """One step of rank-16 LoRA on 1 x 512 tokens in bf16, with fp32 adapters, as peft makes them, and AdamW.

    The arm decides in how many bits the base's linear weights are, and nothing else.
    """
    return Setting(SHAPES[shape], arm.removesuffix("-r16"), precision="bf16", optimizer="fused",
                   checkpointing=KEEPING[keeping])  # fmt: skip


def memory(shape, arm, keeping):
    """Bytes of the base's weights and of the whole step, measured in this process, which does nothing else.

    Predicted, with the reason in `predicted`, where the step does not fit the card, and in a trial without
    one. `base` is of every weight but the adapters', embedding and norms included; `peak` is of torch's
    allocator; `process` adds the CUDA context. `fp32 rest` is by arithmetic: the base with what is not in
    linear layers in fp32, as peft's prepare_model_for_kbit_training leaves it.
    """
    import torch

    asked, why = setting(shape, arm, keeping), None
    if not torch.cuda.is_available():
        report, why = predict(asked), "no card"
    else:
        try:
            report = measure(asked)
        except LabkitError as error:
            if "does not fit" not in str(error):
                raise
            report, why = predict(asked), "does not fit"
    base, shape = report.categories["weights"] - adapter_bytes(asked), asked.shape
    rest = shape.weights() - shape.layers * shape.linear_weights()
    return {"base": base, "fp32 rest": base + 2 * rest, "peak": report.peak_allocated,
            "process": report.process, "predicted": why}  # fmt: skip


def adapter_bytes(asked):
    """Bytes of a setting's adapters, in fp32: r (in + out) weights a linear layer."""
    each = sum(inputs + outputs for inputs, outputs in asked.shape.linears().values())
    return 4 * asked.rank * each * asked.shape.layers


# ---- time -----------------------------------------------------------------------------------------------


def times(repeat):
    """Milliseconds a step by engine and arm, one after the other, so that a slow moment meets all."""
    from labkit import load, load_tokenizer
    from labkit.bench.train_engines import ENGINES as RUN

    asked, rows, tokenizer = settings(), load("tickets")["train"], load_tokenizer()
    counts = {"batch": asked["step batch"], **{name: asked[name] for name in ("length", "whole", "timed")}}
    turn = int(repeat) % len(TIMED)
    arms = TIMED[turn:] + TIMED[:turn]  # none is always first
    found = {}
    for engine in ENGINES:
        for arm in arms:
            model = prepared(arm)
            taken = RUN[asked.get(engine, engine)](model, rows, tokenizer, rate=1e-3, **counts)
            found.setdefault(engine, {})[arm] = taken["step ms"]
    return {"step ms": found}


def prepared(arm):
    """The model of an arm whose step is timed."""
    import torch

    from labkit import load_model, methods
    from labkit.methods.quantize import linears

    if arm != HALF:
        return methods.find(arm).prepare(0)
    base = load_model()
    for layer in linears(base).values():
        layer.to(torch.bfloat16)
    env.seed_everything(0)
    return adapted(base, DEFAULT)
