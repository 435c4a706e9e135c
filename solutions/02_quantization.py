# ---
# jupyter:
#   kernelspec: {display_name: Python 3, language: python, name: python3}
# ---
# Lesson 02. `python -m labkit build 02` makes both notebooks from this file.

# %% [markdown]
# # 02 · Quantization: fewer bits per weight
#
# | You will be able to | You need first | Measured budget |
# |---|---|---|
# | store a model in 8, 4 or 2 bits a weight, count the bytes, and say what it cost | lesson 01 | {{budget}} |
#
# Training and inference read every weight at every step, so a weight's bits are memory and traffic.
# **Quantization** stores weights in fewer bits: a small whole number (a **code**) each, and one **scale**
# that many of them share. You will build the formats that people use, prove yours equal to the libraries',
# find out what they cost this model, and train through the rounding.
#
# Most of this lesson stores and restores weights: what the model then computes with are the restored numbers.
# Two sections round inputs too.

# %%
import torch
from torch.nn.functional import linear

from labkit import (
    budget, check, claims, device, fit, load, load_model, load_tokenizer, machine, plots, profile, record,
    seed_everything, solve,
)
from labkit.bench import quant_report
from labkit.bench.quant_train import GUESSING, answer_loss
from labkit.methods.quantize import (
    FORMATS, LAYOUTS, LEVELS, BitLinear, RoundedLinear, dither, double, fields, file_bytes, from_double,
    from_lookup, grid, int8_matmul, linears, lookup, nf4_code, on_grid, outlier_columns, pack,
    relative_error, replace_linears, round_linears, spacing, straight_through, ternary, value_of, weight_bits,
)
from labkit.tasks.general import passages, perplexity

# %%
SEED = 0
numbers = budget(
    cpu=dict(passages=2, formats=("nf4 double", "int4 asym 32", "int3"), steps=6, lr=1e-4, batch=1,
             length=256, rows=8, twin_steps=25, twin_batch=1, twin_lr=2e-3, twin_width=128, twin_layers=4),
    gpu=dict(passages=187, formats=("int8 row", "int4 sym 64", "int4 full 32", "int4 asym 64", "int4 asym 32",
             "fp4 64", "nf4 64", "nf4 double", "int3", "int2"), steps=200, lr=2e-4, batch=8, length=512,
             rows=500, twin_steps=300, twin_batch=8, twin_lr=1e-3, twin_width=576, twin_layers=8),
    smoke=dict(passages=1, formats=("nf4 double", "int4 asym 32"), steps=1, lr=1e-4, batch=1, length=256,
               rows=2, twin_steps=2, twin_batch=1, twin_lr=2e-3, twin_width=64, twin_layers=2),
)
seed_everything(SEED)
print(f"profile {profile()} on {machine()}")

# %% [markdown]
# ## Predict
#
# Write your answers down first.
#
# 1. You add 1e-5 to a weight of 0.02 that is stored in bf16. What is it then?
# 2. A format stores 4-bit codes in blocks of 64, and one 32-bit number for each block. How many bits does it
#    store for each weight, in all?
# 3. This model fills 269 MB in 16 bits. How large is the file with its linear layers in 4 bits?
# 4. Four formats at the same number of bits: evenly spaced with and without an offset, FP4, and NF4, which
#    was made for normally distributed weights. Which loses least?
#
# ## Bits of a number
#
# A floating-point number is a sign, an exponent and a mantissa: (-1)^s · 2^(e - bias) · (1 + m / 2^p), with p
# bits of mantissa. The exponent buys range, the mantissa buys precision.

# %% tags=["nbval-check-output"]
for kind, layout in LAYOUTS.items():
    sign, exponent, mantissa = fields(0.02, kind)
    largest = torch.finfo(layout.dtype).max
    print(f"{kind}  {sign} {exponent:<8} {mantissa:<23}  largest {largest:.2g},",
          f"gap at 0.02: {spacing(0.02, kind):.2g}")

# %% tags=["nbval-check-output"]
for kind in LAYOUTS:
    print(kind, value_of(*fields(0.02, kind), kind))

# %% [markdown]
# bf16 has fp32's range and two to three digits of precision; fp16 has more precision, and ends at 65,504.
#
# The gap between neighbours is relative: near 0.02, bf16 moves in steps of 1.2e-4. A training step of 1e-5 is
# less than half of that, and rounds away. How many of this model's weights would such a step leave unmoved?

# %% tags=["nbval-check-output"]
weight = torch.tensor(0.02, dtype=torch.bfloat16)
print("0.02 + 1e-5 is still 0.02 in bf16:", (weight + 1e-5 == weight).item())

tokenizer = load_tokenizer()
model = load_model(on=torch.device("cpu"))
every = torch.cat([layer.weight.detach().bfloat16().flatten() for layer in linears(model).values()])
for step in (1e-5, 1e-4, 1e-3):
    unmoved = (every + step == every).sum() / len(every)
    print(f"a step of {step:g} leaves {unmoved:.0%} of {len(every):,} weights as they were")

# %% [markdown]
# That answers question 1: the weight stays what it was. Pure bf16 training at small rates stands still for
# most weights. That is why `fit` keeps weights in fp32
# and computes in bf16 (lesson 01 counted what that costs).
#
# ## Whole numbers and a scale
#
# Now eight bits. `q = round(w / scale)`, `w' = q · scale`; with `scale = max|w| / 127` the largest weight
# just fits. This is **absmax** quantization. The scale may belong to the whole matrix, to a row, or to a
# block.

# %%
def absmax(w, per_row):
    """int8 codes and scale(s) of a matrix (out, in), with one scale in all or one a row."""
    largest = w.abs().amax(dim=1, keepdim=True) if per_row else w.abs().max()
    scale = largest / 127
    return torch.round(w / scale).to(torch.int8), scale


w = model.model.layers[12].mlp.up_proj.weight.detach()                     # (1536, 576), on the CPU

# %% tags=["nbval-check-output"]
for per_row in (False, True):
    codes, scale = absmax(w, per_row)
    print(f"{scale.numel():>4} scales: error {relative_error(w, codes * scale):.1%},",
          f"{codes.unique().numel()} of 255 codes in use")

# %% [markdown]
# The error is ‖w - w'‖ / ‖w‖. One scale for all is set by the one largest weight of the matrix, and everybody
# else pays; a row only pays for its own. Plant one outlier and see.

# %% tags=["nbval-check-output"]
planted = w.clone()
planted[0, 0] = 20.0
for per_row in (False, True):
    codes, scale = absmax(planted, per_row)
    error = relative_error(w[1:], (codes * scale)[1:])
    print(f"{scale.numel():>4} scales: error of the other rows {error:.1%}")

# %% [markdown]
# ## Exercise 02.1: absmax codes
#
# {{exercise:02.1}}
#
# The same for one block, in plain Python, with the case that divides by zero.
#
# {{hint:02.1}}

# %% tags=["exercise"]
def absmax_int8(weights):
    """Codes and scale of a block of weights: the largest |w| becomes 127 or -127.

    weights: list of float. Returns (codes, scale): a list of int, and a float for which codes times scale
    give the weights back, nearly. A block of zeros has codes 0 and scale 0.0.
    """
    # BEGIN SOLUTION
    scale = max(abs(w) for w in weights) / 127
    if scale == 0:
        return [0] * len(weights), 0.0
    return [round(w / scale) for w in weights], scale
    # END SOLUTION


# %%
check("02.1", absmax_int8)

# %% [markdown]
# Weights lie around 0, but what if numbers do not, as after a ReLU? A symmetric range then wastes half of the
# codes. An **asymmetric** format spreads its codes from the smallest to the largest number, and keeps an
# offset: as a code that stands for exactly 0 (a **zero point**), or as the smallest number itself.
#
# ## Exercise 02.2: a zero point
#
# {{exercise:02.2}}
#
# Write the format with a zero point for one block of weights and any number of bits.
#
# {{hint:02.2}}

# %% tags=["exercise"]
def zero_point(weights, bits):
    """Asymmetric codes from 0 to 2^bits - 1, in which one code, `zero`, stands for exactly 0.

    weights: list of float, not all 0. The range is from the smallest to the largest weight, widened to hold
    0 where it does not. scale is the range over the number of steps; zero = round(-low / scale);
    q = round(w / scale) + zero, clipped to the codes that exist: with zero rounded, the largest weight may
    land one beyond. Returns (codes, scale, zero): a list of int, a float, an int.
    """
    # BEGIN SOLUTION
    low, high, top = min(0, *weights), max(0, *weights), 2**bits - 1
    scale = (high - low) / top
    zero = round(-low / scale)
    return [max(0, min(top, round(w / scale) + zero)) for w in weights], scale, zero
    # END SOLUTION


# %%
check("02.2", zero_point)

# %% tags=["nbval-check-output"]
lopsided = [-0.2, 0.0, 0.7, 3.0]
codes, scale, zero = solve("02.2")(lopsided, 4)
print("asymmetric, 4 bits:", codes, "zero is code", zero)
print("restored:", [round((q - zero) * scale, 2) for q in codes])
scale = max(lopsided) / 7
codes = [round(w / scale) for w in lopsided]
print("symmetric, 4 bits: ", codes)
print("restored:", [round(q * scale, 2) for q in codes])

# %% [markdown]
# ## Outliers in activations
#
# If inputs are int8 as well, the product needs no floating point inside. Inputs have their own problem: some
# features are many times larger than the rest. LLM.int8 multiplies features that reach 6 in 16 bits, and
# everything else in int8. (Here such features and their weights are multiplied as they are; bitsandbytes
# restores these weights from int8.) Look at what reaches one layer near the end of this model:

# %%
seen = {}
layer = model.model.layers[27].mlp.down_proj
handle = layer.register_forward_pre_hook(lambda module, inputs: seen.update(x=inputs[0][0].detach()))
with torch.no_grad():
    model(tokenizer(passages()[0], return_tensors="pt").input_ids[:, :128])
handle.remove()
x = seen["x"]                                                               # (128 tokens, 1536 features)

# %% tags=["nbval-check-output"]
right = linear(x, layer.weight.detach())
print(f"largest |x| over the typical one: {round((x.abs().max() / x.abs().median()).item(), -1):.0f}")
print(f"features with outliers: {outlier_columns(x).float().mean():.0%}")
for threshold in (float("inf"), 6.0):
    error = relative_error(right, int8_matmul(x, layer.weight.detach(), threshold))
    print(f"threshold {threshold}: the product is off by {error:.0%}")

# %% [markdown]
# ## Exercise 02.3: find the outlier features
#
# {{exercise:02.3}}
#
# Find the features that LLM.int8 sets apart, given the activations of a few tokens.
#
# {{hint:02.3}}

# %% tags=["exercise"]
def outlier_features(activations, threshold):
    """Which features LLM.int8 keeps in 16 bits: those in which any token reaches the threshold.

    activations: list of rows, one a token, each a list of float, one a feature. A value counts if |x| is at
    least `threshold`. Returns the places of these features, ascending, as a list of int.
    """
    # BEGIN SOLUTION
    columns = zip(*activations, strict=True)
    return [i for i, column in enumerate(columns) if any(abs(x) >= threshold for x in column)]
    # END SOLUTION


# %%
check("02.3", outlier_features)

# %% [markdown]
# ## Four bits: choose the sixteen values
#
# With four bits there are sixteen values, and where they lie matters. Evenly spaced ones are int4; the
# symmetric kind, from -7 to 7, uses fifteen of them. Ones spaced like floating-point numbers are FP4.
# **NF4** puts them at quantiles of the normal distribution, because most weights lie near 0. The list of
# values is the **code book**; a code is a place in it. Values are relative to the largest |w| of a block of
# 64 weights, their absmax.

# %% tags=["nbval-check-output"]
values = [round(value, 3) for value in nf4_code().tolist()]
print("NF4:", values[:8], values[8:], sep="\n")
even = torch.arange(-7, 8) / 7                                              # symmetric int4
print("steps of NF4 around 0 and at its end:", [round(d, 2) for d in nf4_code().diff()[[7, 14]].tolist()])
print("steps of int4:", round(even.diff()[0].item(), 2))

# %%
def nearest(w, code_book, block=64):
    """The place of the nearest value for each weight, and the absmax of each block."""
    blocks = w.reshape(-1, block)                                           # (blocks, 64)
    scale = blocks.abs().amax(dim=1, keepdim=True)                          # (blocks, 1)
    distance = (blocks / scale).unsqueeze(-1) - code_book                   # (blocks, 64, 16)
    return distance.abs().argmin(dim=-1), scale


small = model.model.layers[0].self_attn.k_proj.weight.detach()             # (192, 576)
codes, scale = nearest(small, nf4_code())
restored = (nf4_code()[codes] * scale).reshape(small.shape)

# %% tags=["nbval-check-output"]
print("codes:", codes[0, :8].tolist())
print("block of", codes.shape[1], "weights, error", f"{relative_error(small, restored):.1%}")

# %% [markdown]
# ## Exercise 02.4: look up a code
#
# {{exercise:02.4}}
#
# Write `nearest` for one block in plain Python, for a code book in any order.
#
# {{hint:02.4}}

# %% tags=["exercise"]
def nearest_codes(weights, code_book):
    """The place in `code_book` of the value nearest to each weight, after division by the largest |w|.

    weights: list of float, not all 0; code_book: list of float from -1 to 1, in any order.
    Returns a list of int, as long as weights.
    """
    # BEGIN SOLUTION
    scale = max(abs(w) for w in weights)
    places = range(len(code_book))
    return [min(places, key=lambda i: abs(code_book[i] - w / scale)) for w in weights]
    # END SOLUTION


# %%
check("02.4", nearest_codes)

# %% [markdown]
# ## What is really stored
#
# Codes are not all. Every block of 64 keeps its absmax in 32 bits: half a bit more for each weight. **Double
# quantization** stores the absmax values in 8 bits too: it subtracts their mean, and gives each 256 of them
# one 32-bit scale. These 8-bit codes are places in a code book as well, of 256 values that lie closer and
# closer towards 0.
#
# ## Exercise 02.5: stored bits per weight
#
# {{exercise:02.5}}
#
# Count what a format in blocks stores for each weight, with and without double quantization.
#
# {{hint:02.5}}

# %% tags=["exercise"]
def stored_bits(code_bits, block, scale_bits, group=0, group_bits=0):
    """Bits stored for each weight, scales included.

    Each block of `block` weights stores a code of `code_bits` for each weight, and one scale of `scale_bits`.
    With double quantization, each `group` of scales also shares `group_bits`; group is 0 without it.
    Returns a float.
    """
    # BEGIN SOLUTION
    shared = group_bits / (block * group) if group else 0.0
    return code_bits + scale_bits / block + shared
    # END SOLUTION


# %%
check("02.5", stored_bits)

# %% tags=["nbval-check-output"]
plain, doubled = solve("02.5")(4, 64, 32), solve("02.5")(4, 64, 8, 256, 32)
print(f"NF4 in blocks of 64: {plain} bits; doubly quantized: {doubled:.3f}; saved: {plain - doubled:.3f}")

# %% [markdown]
# Question 2: 4.5 bits, an eighth more than the codes.
#
# The rest of the model is stored as well. This one's embedding is a fifth of its weights and stays in 16
# bits, so a "4-bit model" is not a quarter of the file. (Larger models have larger layers and the same
# vocabulary; there the ratio comes closer to a quarter.)

# %% tags=["nbval-check-output"]
whole = file_bytes(model, FORMATS["bf16"])
for name in ("bf16", "int8 row", "nf4 64", "nf4 double", "int2"):
    form = FORMATS[name]
    size = file_bytes(model, form)
    bits = weight_bits(model, form)
    print(f"{name:<11} {bits:6.3f} bits a weight, file {size / 1e6:4.0f} MB, {size / whole:.0%} of 16-bit")

# %% [markdown]
# Question 3: 116 MB, or 111 with double quantization; not 67.
#
# Is that so? Write one and look. labkit has what you built, for whole matrices: `lookup` gives codes and
# absmax values as `nearest` does, and `from_lookup` the weights back; `double` makes 8-bit codes of absmax
# values, with a scale for each 256 and their mean, and `from_double` gives them back; `pack` puts two codes
# into a byte.

# %% tags=["nbval-check-output"]
from pathlib import Path

from safetensors.torch import save_file

tensors = {}
for name, layer in linears(model).items():
    codes, scale = lookup(layer.weight.detach(), nf4_code())
    small_scale, second, mean = double(scale)
    tensors |= {f"{name}.codes": pack(codes), f"{name}.absmax": small_scale}
    tensors |= {f"{name}.absmax.scale": second, f"{name}.absmax.mean": mean.reshape(1)}
rounded = {f"{name}.weight" for name in linears(model)}
rest = {name: p.detach().bfloat16() for name, p in model.named_parameters() if name not in rounded}
Path("out").mkdir(exist_ok=True)
save_file(tensors | rest, "out/nf4.safetensors")
size = Path("out/nf4.safetensors").stat().st_size
print(f"counted {file_bytes(model, FORMATS['nf4 double']) / 1e6:.1f} MB, written {size / 1e6:.1f} MB")

# %% [markdown]
# ## Prove it: bitsandbytes
#
# bitsandbytes is what QLoRA and `load_in_4bit` use. Quantize a weight of the base with both, on the CPU.

# %% tags=["nbval-check-output"]
import bitsandbytes.functional as bnb

table = bnb.get_4bit_type("nf4", "cpu")
print("code book equal to 2e-7:", torch.allclose(nf4_code(), table, rtol=0, atol=2e-7))
packed, state = bnb.quantize_4bit(small, blocksize=64, quant_type="nf4")
codes, scale = lookup(small, nf4_code())
print("NF4 codes equal:", torch.equal(pack(codes), packed.flatten()))
difference = (from_lookup(codes, scale, nf4_code()) - bnb.dequantize_4bit(packed, state)).abs().max()
print("restored weights equal to 1e-6:", (difference < 1e-6).item())
rows, stats, _ = bnb.int8_vectorwise_quant(small.clone())
ours, scale = absmax(small, per_row=True)
print("int8 codes equal in all but 1 of 1,000:", ((ours != rows).float().mean() < 1e-3).item())

# %% tags=["nbval-check-output"]
packed, state = bnb.quantize_4bit(small, blocksize=64, quant_type="nf4", compress_statistics=True)
codes, scale = lookup(small, nf4_code())
small_scale, second, mean = double(scale)
apart = (small_scale.int() - state.absmax.int()).abs().float()
print("absmax codes differ in fewer than 1%:", (apart > 0).float().mean().item() < 0.01)
print("and by one place at most:", apart.max().item() <= 1)
print("second scale equal:", torch.equal(second.flatten(), state.state2.absmax))
print("mean equal:", torch.equal(mean, state.offset))
print("error of the restored absmax values below 2%:",
      relative_error(scale, from_double(small_scale, second, mean)) < 0.02)

# %% [markdown]
# The few absmax codes that differ lie almost midway between two values; bitsandbytes' CPU kernel sometimes
# takes the farther one.
#
# ## A discovery
#
# Try formats on this base and something odd happens. Blocks of 32 with 4-bit codes and an offset:

# %% tags=["nbval-check-output"]
for name in ("nf4 64", "int4 asym 64", "int4 asym 32"):
    print(f"{name:<13} error {relative_error(w, FORMATS[name].round(w)):.1%}")

# %% [markdown]
# No error at all. Look at 32 neighbouring weights, as steps from the smallest of them:

# %% tags=["nbval-check-output"]
low, step = grid(w)
print(*(f"{place:.0f}" for place in ((w.flatten()[:32] - low[0]) / step[0]).tolist()))
everywhere = all(on_grid(layer.weight.detach()) == 1 for layer in linears(model).values())
print("every weight of every linear layer lies on such a grid:", everywhere)

# %% [markdown]
# These weights have been 4-bit before. The checkpoint that this course ships was stored in just this format
# (llama.cpp's Q4_1) and expanded again, so this format gets it back for free, and a comparison of formats on
# it would be rigged. A lesson for your own work: ask where a checkpoint comes from before you compare on it.
#
# So compare on **dithered** weights too: add uniform noise, one grid step wide. That puts weights about as
# far from the grid as the originals were. (The smallest and the largest of each block were stored nearly
# exactly: dither moves these two farther than storing did. And blocks still begin where they began: a format
# whose own blocks of 32 begin there is still favoured, as you will see.) And compare on normally distributed
# numbers, which were never on a grid.

# %% tags=["nbval-check-output"]
torch.manual_seed(SEED)
gaussian = torch.randn(1024, 1024)
holder = torch.nn.ModuleDict({"layer": torch.nn.Linear(576, 1536, bias=False)})
holder["layer"].weight.data = w.clone()
dithered = dither(holder, SEED)["layer"].weight.detach()
sources = {"base": w, "dithered": dithered, "Gaussian": gaussian}
print(f"weights still on the grid: {on_grid(dithered):.0%}")
for name in ("int4 sym 64", "int4 asym 64", "int4 asym 32", "fp4 64", "e2m1 64", "nf4 64"):
    errors = [relative_error(each, FORMATS[name].round(each)) for each in sources.values()]
    bits = FORMATS[name].bits(gaussian) / gaussian.numel()
    shown = ", ".join(f"{kind} {error:5.1%}" for kind, error in zip(sources, errors, strict=True))
    print(f"{name:<13} {bits} bits: {shown}")

# %% [markdown]
# The 6% are no remainder: the smallest and the largest weight of a block of 32 define the grid that is looked
# for, so these two, 2 of 32, always lie on it.
#
# Two kinds of FP4 are there: E2M1, which hardware has, and the one in bitsandbytes, which wastes a value near
# 0.
#
# ## Who wins at equal bits?
#
# NF4 beats FP4 and symmetric int4 at 4.5 bits. But symmetric int4 leaves one of its sixteen codes unused. The
# "full" one below makes the largest |w| of a block -8, with a scale that may be negative: llama.cpp's Q4_0.
# Asymmetric int4 has the same 4.5 bits, as two 16-bit numbers a block instead of one of 32.
#
# To be fair, give every kind the same freedom of layout: blocks of 16 to 128 weights, scales in 32 or 16
# bits, or in 8 or 4 under a second scale. Among these are NVFP4 (E2M1 in blocks of 16, scales in the 8-bit
# float E4M3) and Q4_K (asymmetric int4, scales and offsets in 6 bits). The four best at each size:

# %% tags=["nbval-check-output"]
for level, kinds in LEVELS.items():
    print(f"at {level}:")
    names = [name for kind in kinds.values() for name in kind]
    errors = {name: relative_error(gaussian, FORMATS[name].round(gaussian)) for name in names}
    for name in sorted(errors, key=errors.get)[:4]:
        print(f"  {errors[name]:5.2%}  {name:<24} {FORMATS[name].about}")

# %% [markdown]
# Question 4: as asked, in plain blocks of 64, the evenly spaced ones with an offset lose least, and NF4
# comes next. With layouts free, the answer depends on the budget. With 4.5 bits, evenly spaced values in
# blocks of 16 lose least on these numbers: the smaller the block, the more evenly its weights fill the
# range up to the largest. Near the 4.13 bits of QLoRA, NF4 comes first, though not in QLoRA's layout, which
# two integer formats beat.
#
# But these are Gaussian numbers, and the error of weights. What counts is what a model says; whether the
# order stays there is measured below.
#
# ## Perplexity
#
# **Perplexity** is e to the loss on plain text (187 passages written for this course, which the base has not
# seen): the lower the better. On a CPU only a few passages are read; the figure shows the recorded run on all
# of them. Restored weights go into the model in 32 bits: only the rounding counts here. Compare within a
# column: dither is noise, and costs something itself.

# %%
texts = passages()[: numbers.passages]


def perplexities(model):
    """Perplexity of a model as it is, and with its linear layers rounded to each format."""
    exact = {place: layer.weight.data for place, layer in linears(model).items()}
    found = {}
    for name in ("not rounded", *numbers.formats):
        for place, layer in linears(model).items():
            layer.weight.data = FORMATS[name].round(exact[place]) if name in FORMATS else exact[place]
        found[name] = perplexity(model, tokenizer, texts, batch_size=16, progress=False).perplexity
    for place, layer in linears(model).items():
        layer.weight.data = exact[place]
    return found


model = load_model()
live = {"base": perplexities(model), "dithered": perplexities(dither(model, SEED))}
plain = {kind: found["not rounded"] for kind, found in live.items()}
for name in live["base"]:
    shown = [f"{kind} {found[name]:9.4g} ({found[name] / plain[kind]:.3g} times)"
             for kind, found in live.items()]
    print(f"{name:<13}", "   ".join(shown))

# %% tags=["nbval-check-output"]
for name, found in live.items():
    print(f"{name}, int4 in blocks of 32 changes nothing:", found["int4 asym 32"] == found["not rounded"])

# %% tags=["recorded"]
quant_report.plot()

# %% [markdown]
# Every format that the recorded run tried, on the base, on five dithered bases and on Gaussian matrices:

# %% tags=["recorded"]
print("\n".join(quant_report.format_table()))

# %% [markdown]
# The order by weight error does not stay. In plain blocks of 64 on dithered bases, NF4 has the lowest mean
# perplexity (59.0), then E2M1 (61.4), asymmetric int4 (61.7), FP4 (63.4) and symmetric int4 (69.5); yet the
# asymmetric one beats NF4 in two of the five dithers. Nor does error foretell perplexity across layouts:
# `e2m1 double 16` errs by 9.37% and gives 54.1, `int4 asym 16 two-level` by 7.69% and gives 56.3.
#
# Mind the best one at 4.5 bits in all five dithers, `int4 asym 32 two-level`, 49.0: its blocks are the base's
# own, and it pulls weights back towards the base. Move its blocks by 16 weights, and the pull goes:

# %% tags=["nbval-check-output"]
noise = (dithered - w).flatten()
for name, shift in (("int4 asym 32 two-level", 0), ("int4 asym 32 two-level", 16), ("nf4 double 16", 0)):
    moved = FORMATS[name].round(dithered.flatten().roll(-shift).view_as(w))
    restored = moved.flatten().roll(shift).view_as(w)
    pull = torch.corrcoef(torch.stack([(restored - dithered).flatten(), noise]))[0, 1].item()
    errors = [relative_error(each, restored) for each in (dithered, w)]
    print(f"{name:<23}moved by {shift:>2}: error to dithered {errors[0]:.1%},",
          f"to base {errors[1]:.1%}, correlation with dither {pull:+.2f}")

# %% [markdown]
# Without this format the best other one has 0.97, 0.97, 1.03, 1.05 and 1.07 times NF4's perplexity, seed by
# seed: undecided. (`ternary` stores 1.6 bits: five values a byte.)
#
# ## Two or three bits: rounding is not enough
#
# With four values for each weight the base is destroyed. **Quantization-aware training** rounds in every
# forward pass and trains the exact weights behind the rounding. But rounding is flat: its gradient is 0
# almost everywhere. The **straight-through estimator** acts, in the backward pass only, as if rounding were
# not there.

# %% tags=["nbval-check-output"]
exact = torch.tensor([0.3, 1.2, -0.7], requires_grad=True)
torch.round(exact).sum().backward()
print("gradient through rounding:", exact.grad.tolist())
exact.grad = None
through = exact + (torch.round(exact) - exact).detach()   # the value of one, the gradient of the other
through.sum().backward()
print("straight through:         ", exact.grad.tolist(), "at", through.tolist())
same = straight_through(exact, torch.round(exact))
print("labkit's gives the same:", torch.equal(same, torch.round(exact)))

# %%
class Rounded(torch.nn.Linear):
    """A linear layer that multiplies with rounded weights and trains the exact ones."""

    def forward(self, x):
        rounded = FORMATS["int2"].round(self.weight)
        return linear(x, self.weight + (rounded - self.weight).detach(), self.bias)


# %% [markdown]
# That is all of it, and `RoundedLinear` is the same for any format. `fit` trains such a model as it is.
#
# Three arms, on support tickets: not rounded (fp32 weights, as `fit` trains them); the same model, rounded to
# 2 bits **after training**; and training that rounds to 2 bits all along. Same rows, steps and learning rate.
# The start is the dithered base; its loss when rounded, untrained, is shown beside them.

# %%
BITS = "int2"
data = load("tickets")
held_out = data["test"].select(range(numbers.rows))
settings = dict(steps=numbers.steps, lr=numbers.lr, batch=numbers.batch, length=numbers.length, seed=SEED)
loss, runs = {}, {}

runs["not rounded"] = fit(model, data["train"], tokenizer, **settings)        # `model` is dithered already
loss["not rounded"] = answer_loss(model, tokenizer, held_out)
loss["rounded after training"] = answer_loss(round_linears(model, FORMATS[BITS]), tokenizer, held_out)

model = dither(load_model(), SEED)
replace_linears(model, RoundedLinear, FORMATS[BITS].round)
loss["rounded, untrained"] = answer_loss(model, tokenizer, held_out)
runs["rounded in training"] = fit(model, data["train"], tokenizer, **settings)
loss["rounded in training"] = answer_loss(model, tokenizer, held_out)

# %%
for name, value in loss.items():
    print(f"{value:7.3f} nats per answer token: {name}")
print(f"{GUESSING:7.3f} = ln {len(tokenizer):,}: a guess among all tokens")
late = min(loss["rounded after training"], GUESSING)
closed = (late - loss["rounded in training"]) / (late - loss["not rounded"])
print(f"training through the rounding closes {closed:.0%} of the gap, in {numbers.steps} steps")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
print("rounding after training costs over 5 nats:", loss["rounded after training"] > loss["not rounded"] + 5)
print("training through it closes part of the gap:", closed > 0)
layer = model.model.layers[0].mlp.up_proj
print("what is trained is what is stored:", torch.equal(layer.rounded(), FORMATS[BITS].round(layer.weight)))

# %% [markdown]
# Where rounding is worse than a guess, the gap ends at the guess: to come down to that takes no knowledge.
# The CPU budget is a few steps; the recorded runs train longer, at 3 and at 2 bits, with three seeds and a
# learning rate tuned for each arm. (The last line is of models of the base's size, trained on five data sets
# from random weights.) Mind what is measured: training on tickets brings back tickets. It does not promise
# the rest of what the model knew.

# %% tags=["recorded"]
print("\n".join(quant_report.training_table()))

# %% [markdown]
# ## The same run as the field writes it
#
# The layers are ordinary modules, so any trainer takes them. trl, without packing, 39 rows a step: about as
# many as `fit` packs into 8 x 512 tokens.

# %% tags=["gpu"]
# %%gpu
from datasets import disable_progress_bars
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

disable_progress_bars()
config = SFTConfig(
    output_dir="/tmp/trl", max_steps=numbers.steps, per_device_train_batch_size=39, learning_rate=numbers.lr,
    warmup_steps=numbers.steps // 10, lr_scheduler_type="linear", bf16=True, gradient_checkpointing=False,
    max_length=512, save_strategy="no", logging_steps=100, report_to="none", disable_tqdm=True, seed=SEED,
)
theirs = dither(load_model(), SEED)
replace_linears(theirs, RoundedLinear, FORMATS[BITS].round)
trainer = SFTTrainer(
    theirs, config, train_dataset=data["train"].select_columns(["prompt", "completion"]),
    processing_class=tokenizer,
)
trainer.remove_callback(PrinterCallback)
seconds = trainer.train().metrics["train_runtime"]
ours = runs["rounded in training"]
print(f"trl: {answer_loss(trainer.model, tokenizer, held_out):.3f} nats after {seconds:.0f} s of training")
print(f"fit: {loss['rounded in training']:.3f} nats after {ours.seconds:.0f} s of training")

# %% [markdown]
# The losses are close; `fit` is faster for the reasons of lesson 01: it
# packs rows and replays CUDA graphs.
#
# ## Three values: BitLinear
#
# log2(3) is 1.58: weights of -1, 0 and 1. **BitNet b1.58** trains such models from the start. Its scale is
# the mean |w|, and inputs are rounded to int8, one scale a token, so that the product needs additions only.
#
# ## Exercise 02.6: three values
#
# {{exercise:02.6}}
#
# Give a list of weights its three codes and its scale.
#
# {{hint:02.6}}

# %% tags=["exercise"]
def ternary_codes(weights):
    """Codes -1, 0 and 1 as in BitNet b1.58: divide by the mean |w|, round, clip.

    weights: list of float, not all 0. Returns (codes, scale): a list of int, and the mean |w|, a float.
    """
    # BEGIN SOLUTION
    scale = sum(abs(w) for w in weights) / len(weights)
    return [max(-1, min(1, round(w / scale))) for w in weights], scale
    # END SOLUTION


# %%
check("02.6", ternary_codes)

# %%
class Bit(torch.nn.Linear):
    """Ternary weights, 8-bit inputs, both rounded straight through."""

    def forward(self, x):
        scale = self.weight.abs().mean()
        w = straight_through(self.weight, torch.round(self.weight / scale).clamp(-1, 1) * scale)
        step = x.abs().amax(dim=-1, keepdim=True).clamp_min(1e-5) / 127
        x = straight_through(x, torch.round(x / step) * step)
        return linear(x, w, self.bias)


# %% [markdown]
# Equal to labkit's and to transformers' own layer, forward and backward. (transformers compiles its rounding,
# which takes longer than this cell; `force_eager` runs it as it is written.)

# %% tags=["nbval-check-output"]
from transformers.integrations.bitnet import AutoBitLinear

torch.manual_seed(SEED)
layers = [Bit(64, 32, bias=False), BitLinear(64, 32, bias=False),
          AutoBitLinear(64, 32, bias=False, online_quant=True)]
inputs = torch.randn(8, 64)
outputs, gradients = [], []
with torch.compiler.set_stance("force_eager"):
    for layer in layers:
        layer.weight.data = layers[0].weight.data
        outputs.append(layer(inputs))
        gradients.append(torch.autograd.grad(outputs[-1].square().sum(), layer.weight)[0])
print("outputs equal to 1e-5:", all(torch.allclose(outputs[0], each, atol=1e-5) for each in outputs))
print("gradients equal to 1e-4:", all(torch.allclose(gradients[0], each, atol=1e-4) for each in gradients))
print("values in use:", ternary(layers[0].weight)[0].unique().tolist())

# %% [markdown]
# Train one from random weights, and a twin that is not rounded, with the same start, rows and steps. It has
# far fewer weights than the base; the loss is on every token, messages too. So few steps only show that it
# trains: which of the twins ends lower says nothing yet.

# %%
from transformers import LlamaConfig, LlamaForCausalLM

shape = LlamaConfig(
    vocab_size=len(tokenizer), hidden_size=numbers.twin_width, intermediate_size=2 * numbers.twin_width,
    num_hidden_layers=numbers.twin_layers, num_attention_heads=4, num_key_value_heads=2,
    tie_word_embeddings=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
)
twins = {}
for name in ("not rounded", "ternary"):
    torch.manual_seed(SEED)
    twin = LlamaForCausalLM(shape).to(device())
    if name == "ternary":
        replace_linears(twin, BitLinear)
    twins[name] = fit(twin, data["train"], tokenizer, steps=numbers.twin_steps, lr=numbers.twin_lr,
                      batch=numbers.twin_batch, length=512, prompt_loss_weight=1.0, seed=SEED)

# %%
ends = {name: sum(run.losses[-5:]) / len(run.losses[-5:]) for name, run in twins.items()}
gap = ends["ternary"] - ends["not rounded"]
title = (f"After {numbers.twin_steps} steps the ternary twin's loss is {abs(gap):.2f} nats "
         f"{'lower' if gap < 0 else 'higher'}")
fig, axes = plots.figure(title, "step", "loss per token (nats)")
for (name, run), style, colour in zip(twins.items(), ("-", "--"), plots.COLOURS, strict=False):
    axes.plot(range(1, run.steps + 1), run.losses, style, color=colour, label=name)
axes.legend(frameon=False)
finding = ", ".join(f"{name} ends at {end:.2f}" for name, end in ends.items())
plots.show(fig, f"Line plot of training loss: {finding}.")

# %% tags=["nbval-check-output", "smoke-skip-compare"]
for name, run in twins.items():
    print(f"{name}: the loss fell by more than a third:", ends[name] < run.losses[0] * 2 / 3)

# %% [markdown]
# On the recorded run ternary ends lower, 0.57 against 0.66: one seed, one rate for both, tuned for neither,
# training loss. In the benchmark (quant-ternary below) they tie: other models, of the base's own size,
# trained on five data sets for 600 steps, each arm at its tuned rate, three seeds, held-out rows (1.40
# against 1.41).
#
# ## Fewer bits, not faster arithmetic
#
# For many tokens, a 4-bit layer first restores its weights to 16 bits, then multiplies in 16 bits. So a large
# product gets no faster. A few tokens at a time are another matter: there the time goes into reading the
# weights, and bitsandbytes has a kernel that reads the codes and restores them as it multiplies.

# %% tags=["gpu"]
# %%gpu
import bitsandbytes
from torch.utils.benchmark import Timer

plain = torch.nn.Linear(4096, 11008, bias=False).to("cuda", torch.bfloat16)
four = bitsandbytes.nn.Linear4bit(4096, 11008, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4")
four.weight = bitsandbytes.nn.Params4bit(plain.weight.data.clone(), requires_grad=False, quant_type="nf4")
four = four.to("cuda")
for tokens in (1, 4096):
    x = torch.randn(tokens, 4096, device="cuda", dtype=torch.bfloat16)
    times = [Timer("layer(x)", globals={"layer": layer, "x": x}).blocked_autorange(min_run_time=0.5).median
             for layer in (plain, four)]
    print(f"{tokens:>5} tokens: bf16 {1e3 * times[0]:.3f} ms, NF4 {1e3 * times[1]:.3f} ms,",
          f"ratio {times[1] / times[0]:.2f}")

# %% [markdown]
# Not on the recorded card: one token takes 2.66 times as long here (1.65 to 1.71 in four of the claim's five
# repeats, 3.1 in the other). bf16 reads 90 MB in 26 µs, 3.5 TB/s, which is much of what this card's memory
# gives. NF4 takes 70 µs for 23 MB: not memory is its limit but the kernel and its call from Python, which
# is why the ratio moves with the host from run to run. Where memory is slower it may turn.

# %%
record(seed=SEED, perplexity=live["base"]["not rounded"], perplexity_nf4=live["base"]["nf4 double"],
       loss_not_rounded=loss["not rounded"], loss_after=loss["rounded after training"],
       loss_in_training=loss["rounded in training"], training_seconds=runs["not rounded"].seconds,
       twin_not_rounded=ends["not rounded"], twin_ternary=ends["ternary"])

# %% [markdown]
# ## What the field says, measured
#
# Every claim of this lesson has an id, and a **band**: the range, fixed before measuring, in which a number
# must lie for the claim to count as reproduced.
#
# - int8 halves 16-bit weights and 4-bit quarters them (quant-bytes). Scales are counted; the whole file is
#   shown beside.
# - NF4 loses less than FP4 and int4 at equal bits (quant-nf4). The best NF4 layout meets the best one of all
#   other kinds at 4.5 and at 4.13 bits: by weight error, dithered and Gaussian, and by perplexity of dithered
#   bases (five seeds of dither). The least favourable counts. By weight error that is Gaussian, at 4.5 bits,
#   against `int4 asym 16 two-level`, which we know no library to ship; by perplexity the format that dither
#   favours, so the first band alone carries the verdict. In plain blocks of 64 (beside), as QLoRA claimed it,
#   NF4 loses to asymmetric int4 only; at 4.13 bits it errs least and has the best perplexity in four of five.
# - Double quantization saves about 0.37 bit per weight (quant-dq).
# - Training with simulated low precision recovers quality lost by rounding (quant-qat). The smaller share of
#   2 and 3 bits counts, and a gap ends at a guess.
# - 1.58-bit training can be stable (quant-ternary).
# - 4-bit weights are storage, not faster arithmetic (quant-slow).

# %% tags=["nbval-check-output", "recorded"]
claims("02")

# %% [markdown]
# ## Take-away
#
# - A scale shared by many weights is set by the worst of them: use blocks, and count the bits that scales
#   take.
# - Compare formats at equal *stored* bits, with the same freedom of layout for each.
# - Know where a checkpoint comes from: this one lies on the grid of one format, which then looks perfect.
# - At two bits rounding destroys a model; training through the rounding wins back part of the task that it
#   trains on.
# - 4-bit weights save memory. For many tokens the arithmetic is still done in 16 bits.
#
# **Read:** Dettmers et al., *QLoRA* (2023), section 3, and *LLM.int8()* (2022). Ma et al., *The Era of 1-bit
# LLMs* (2024). Yoshida, *NF4 Isn't Information Theoretically Optimal (and that's Good)* (2023).
#
# **Next:** 03_data asks which rows to train on; 06_qlora trains adapters on such a 4-bit base.
