"""Quantizers against bitsandbytes and transformers, on random and on the base's own weights; honest bytes."""

import struct
import subprocess
import sys

import bitsandbytes.functional as bnb
import pytest
import torch
from torch import nn

from labkit.errors import LabkitError
from labkit.methods import quantize as Q
from labkit.train import fit

CODES = {"nf4": Q.nf4_code, "fp4": Q.fp4_code}


@pytest.fixture(scope="module")
def gaussian():
    torch.manual_seed(0)
    return torch.randn(192, 576) * 0.02


@pytest.fixture(scope="module", params=["random", "real"])
def weight(request, gaussian):
    """A random matrix, and three of the base's own."""
    if request.param == "random":
        return gaussian
    block = request.getfixturevalue("base").model.layers[7]
    parts = (block.self_attn.k_proj, block.self_attn.o_proj, block.mlp.up_proj)
    return torch.cat([part.weight.detach() for part in parts])


def without_sign_of_zero(codes, kind):
    """FP4 has two names for 0, 0000 and 1000."""
    return torch.where(codes == 8, 0, codes) if kind == "fp4" else codes


# ---- bits


def test_the_bits_of_a_number_are_those_that_the_machine_stores():
    for number in (0.02, -1.5, 1e-40, 0.0, 65504.0, 3.0e38):
        stored = f"{struct.unpack('>I', struct.pack('>f', number))[0]:032b}"
        assert "".join(Q.fields(number, "fp32")) == stored
    assert "".join(Q.fields(0.02, "bf16")) != f"{struct.unpack('>I', struct.pack('>f', 0.02))[0]:032b}"[:16]
    assert Q.fields(1.5, "bf16") == ("0", "01111111", "1000000")


@pytest.mark.parametrize("kind", Q.LAYOUTS)
def test_a_number_comes_back_from_its_bits_by_the_formula(kind):
    dtype = Q.LAYOUTS[kind].dtype
    for number in (0.02, -3.75, 1e-7, 0.0, -1000.0):
        assert Q.value_of(*Q.fields(number, kind), kind) == torch.tensor(number).to(dtype).item()
    assert Q.value_of(*Q.fields(float("inf"), kind), kind) == float("inf")
    assert Q.value_of(*Q.fields(0.02, kind), kind) != Q.value_of(*Q.fields(0.021, kind), kind)


def test_a_small_step_is_lost_on_a_bf16_weight_and_kept_by_fp32_and_by_a_small_bf16_weight():
    step = 1e-5
    assert Q.spacing(0.02, "bf16") == 2**-13 and Q.spacing(0.02, "fp16") == 2**-16
    assert torch.tensor(0.02, dtype=torch.bfloat16) + step == torch.tensor(0.02, dtype=torch.bfloat16)
    assert torch.tensor(0.02) + step != torch.tensor(0.02)
    assert torch.tensor(0.001, dtype=torch.bfloat16) + step != torch.tensor(0.001, dtype=torch.bfloat16)


def test_an_unknown_layout_is_refused_by_name():
    with pytest.raises(LabkitError, match="'fp8'.*bf16"):
        Q.fields(1.0, "fp8")


# ---- integers


def test_absmax_by_row_equals_bitsandbytes_and_by_tensor_does_not(weight):
    theirs, stats, _ = bnb.int8_vectorwise_quant(weight.clone())
    codes, scale = Q.absmax(weight, per="row")
    assert torch.equal(scale.flatten(), stats / 127)
    # They multiply by 127 / absmax, we divide by absmax / 127: a weight on the border may round either way.
    apart = codes.int() - theirs.int()
    assert apart.abs().max() <= 1 and (apart != 0).float().mean() < 1e-3
    wrong, _ = Q.absmax(weight, per="tensor")
    assert (wrong != theirs).float().mean() > 0.5


def test_every_integer_format_restores_to_half_a_step_and_zero_to_zero():
    w = torch.tensor([[0.0, 1.0, -2.0, 0.3], [5.0, 5.1, 5.2, 5.3]])
    codes, scale = Q.absmax(w, bits=4, per="row")
    assert (Q.from_absmax(codes, scale) - w).abs().max() <= scale.max() / 2 and codes.abs().max() == 7
    codes, scale, zero = Q.zero_point(w, bits=4, per="row")
    restored = Q.from_zero_point(codes, scale, zero)
    assert (restored - w).abs().max() <= scale.max() and restored[0, 0] == 0 and codes.max() == 15
    codes, scale, low = Q.affine(w, bits=4, per="row", stored=torch.float32)
    assert ((Q.from_affine(codes, scale, low) - w).abs() <= scale / 2 + 1e-6).all()
    # a range that does not hold 0 is what an offset of its own is for
    assert scale[1] < Q.zero_point(w, bits=4, per="row")[1][1] / 10


@pytest.mark.parametrize("name", Q.FORMATS)
def test_zeros_and_constants_survive_every_format_without_nan(name):
    form = Q.FORMATS[name]
    assert torch.equal(form.round(torch.zeros(16, 256)), torch.zeros(16, 256))
    for constant in (0.5, -0.5):
        w = torch.full((16, 256), constant)
        assert torch.allclose(form.round(w), w, rtol=0.01)
    assert form.round(torch.randn(16, 256).bfloat16()).dtype == torch.bfloat16


def test_the_full_range_uses_all_codes_and_gives_the_largest_weight_the_last_one():
    w = torch.tensor([[1.0, -8.0, 7.0, 3.2], [8.0, -1.0, 7.6, -7.0]])
    codes, scale = Q.full_range(w, per="row")
    assert codes.tolist() == [[1, -8, 7, 3], [-8, 1, -8, 7]] and scale.tolist() == [[1.0], [-1.0]]
    restored = Q.from_absmax(codes, scale)
    assert restored[0].tolist() == [1, -8, 7, 3] and restored[1, 0] == 8
    assert Q.absmax(w, bits=4, per="row")[0].min() == -7                    # one code fewer
    torch.manual_seed(0)
    w = torch.randn(64, 256)
    codes, scale = Q.full_range(w, per=32)
    assert set(codes.unique().tolist()) == set(range(-8, 8)) and (scale < 0).any() and (scale > 0).any()
    # llama.cpp's Q4_0: d = max / -8 with the sign of max, restored as (q - 8) · d
    block = w.flatten()[:32]
    d = block[block.abs().argmax()] / -8
    assert codes.flatten()[:32].tolist() == (block / d + 8.5).int().clamp_max(15).sub(8).tolist()


def test_scales_in_few_bits_are_within_half_a_step_keep_their_sign_and_never_vanish():
    torch.manual_seed(0)
    scale = torch.randn(300, 1)
    scale[5] = 1e-6                                                         # would be rounded to 0
    for bits in (4, 8):
        restored, second = Q.whole_scales(scale, bits, signed=True)
        step = second.repeat_interleave(256, dim=0)[:300]
        rest = scale.abs() > step
        assert ((restored - scale).abs() <= step * 0.5001)[rest].all()
        assert torch.equal(restored.sign(), scale.sign()) and restored[5] == step[5]
        assert second.shape == (2, 1) and len((restored / step).round().unique()) <= 2**bits - 2
    fine, coarse = (Q.whole_scales(scale.abs(), 4, signed)[0] for signed in (False, True))
    assert Q.relative_error(scale.abs(), fine) < Q.relative_error(scale.abs(), coarse)


def test_no_block_is_lost_where_a_neighbour_is_a_hundred_times_as_large():
    torch.manual_seed(0)
    w = torch.randn(64, 256) * torch.where(torch.arange(64) == 9, 100, 1)[:, None]
    for name in ("nf4 32 4-bit", "int4 full 32 4-bit", "int4 asym 64 two-level", "int4 asym 16 two-level"):
        small = Q.FORMATS[name].round(w)[:9]
        assert torch.isfinite(small).all() and small.abs().max() > 0, name


def test_blocks_that_do_not_divide_the_weights_are_refused():
    with pytest.raises(LabkitError, match="100 weights do not divide"):
        Q.absmax(torch.ones(10, 10), per=64)
    with pytest.raises(LabkitError, match="6 blocks of 32"):
        Q.two_level(torch.ones(6, 32))


# ---- LLM.int8


@pytest.fixture(scope="module")
def activations():
    """Ordinary values, and three features with outliers."""
    torch.manual_seed(1)
    x = torch.randn(16, 576)
    x[:, [3, 99, 400]] *= 40
    return x


def test_outlier_columns_and_the_codes_of_the_rest_equal_bitsandbytes(activations):
    theirs, _, columns = bnb.int8_vectorwise_quant(activations.clone(), threshold=6.0)
    apart = Q.outlier_columns(activations)
    assert columns.tolist() == apart.nonzero().flatten().tolist() and len(columns) >= 3
    assert Q.outlier_columns(activations, 100).sum() < len(columns)  # not the threshold
    # They keep the values below the threshold of an outlier column in a row's absmax, we leave all out.
    rest = activations.clone()
    rest[activations.abs() >= 6] = 0
    assert ((Q.absmax(rest, per="row")[0].int() - theirs.int())[:, ~apart].abs() <= 1).all()


def test_splitting_outliers_off_makes_the_product_several_times_as_exact(activations, gaussian):
    right = activations @ gaussian.T
    split = Q.relative_error(right, Q.int8_matmul(activations, gaussian))
    whole = Q.relative_error(right, Q.int8_matmul(activations, gaussian, threshold=float("inf")))
    assert split < 0.01 and whole > 3 * split


# ---- code books


@pytest.mark.parametrize("kind", CODES)
def test_code_books_are_computed_and_equal_bitsandbytes_tables(kind):
    table = bnb.get_4bit_type(kind, "cpu")
    assert torch.allclose(CODES[kind](), table, rtol=0, atol=2e-7)
    even = torch.linspace(-1, 1, 16)
    assert not torch.allclose(even, table, atol=0.01)


def test_the_eight_bit_dynamic_map_equals_bitsandbytes_and_e2m1_is_the_hardware_one():
    assert torch.equal(Q.dynamic_code(), bnb.create_dynamic_map())
    assert (6 * Q.e2m1_code()[:8]).tolist() == pytest.approx([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    assert sorted(Q.e2m1_code().tolist()) != pytest.approx(sorted(Q.fp4_code().tolist()))


@pytest.mark.parametrize("kind", CODES)
@pytest.mark.parametrize("per", [32, 64, 128])
def test_codes_and_restored_weights_equal_bitsandbytes(weight, kind, per):
    packed, state = bnb.quantize_4bit(weight, blocksize=per, quant_type=kind)
    theirs = without_sign_of_zero(Q.unpack(packed.flatten()), kind)
    codes, scale = Q.lookup(weight, CODES[kind](), per)
    assert torch.equal(without_sign_of_zero(codes.flatten(), kind), theirs)
    assert torch.equal(scale.flatten(), state.absmax)
    ours, theirs = Q.from_lookup(codes, scale, CODES[kind]()), bnb.dequantize_4bit(packed, state)
    if weight.shape[1] % per == 0:  # bitsandbytes' CPU kernel errs on blocks that reach over a row's end
        assert (ours - theirs).abs().max() <= 1e-6 * scale.max()


@pytest.mark.parametrize("wrong", ["code book", "block size"])
def test_a_wrong_code_book_or_block_size_would_be_noticed(weight, wrong):
    packed, _ = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    code, per = (torch.linspace(-1, 1, 16), 64) if wrong == "code book" else (Q.nf4_code(), 32)
    codes, _ = Q.lookup(weight, code, per)
    assert (codes.flatten() != Q.unpack(packed.flatten())).float().mean() > 0.05


def test_double_quantization_equals_bitsandbytes_but_for_its_kernels_rounding(weight):
    packed, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4", compress_statistics=True)
    codes, scale = Q.lookup(weight, Q.nf4_code())
    small, second, mean = Q.double(scale)
    assert torch.equal(second.flatten(), state.state2.absmax) and torch.equal(mean, state.offset)
    # bitsandbytes' CPU kernel sometimes takes the second nearest of two almost equally near values.
    apart = small.int() - state.absmax.int()
    assert apart.abs().max() <= 1 and (apart != 0).float().mean() < 0.01
    ours, code = Q.from_double(small, second, mean), Q.dynamic_code()
    theirs = (code[state.absmax.long()] * second.repeat_interleave(256)[: len(small)] + mean)[:, None]
    assert (ours - scale).abs().sum() <= (theirs - scale).abs().sum()
    restored = Q.from_lookup(codes, ours, Q.nf4_code())
    same = (apart == 0).repeat_interleave(64).reshape(weight.shape)
    difference = (restored - bnb.dequantize_4bit(packed, state)).abs()
    assert difference[same].max() < 1e-6 * scale.max() and difference.max() < 0.02 * scale.max()
    assert (Q.double(scale, per=128)[0] != state.absmax).float().mean() > 0.05      # another block size


def test_packing_two_codes_a_byte_equals_bitsandbytes_and_comes_back(weight):
    packed, _ = bnb.quantize_4bit(weight, quant_type="nf4")
    codes, _ = Q.lookup(weight, Q.nf4_code())
    assert torch.equal(Q.pack(codes), packed.flatten())
    assert torch.equal(Q.unpack(Q.pack(codes)), codes.flatten())
    assert not torch.equal(Q.pack(codes.flatten().flip(0)), packed.flatten())
    assert len(Q.pack(codes.flatten()[:5])) == 3


# ---- stored bits


@pytest.mark.parametrize("name, bits", [
    ("bf16", 16), ("int8 tensor", 8), ("int8 row", 8 + 32 / 256), ("int8 block", 8.5), ("int4 sym 64", 4.5),
    ("int4 sym 32", 4.5), ("int4 asym 64", 4.5), ("int4 asym 32", 5), ("int4 asym 32 two-level", 4.5),
    ("fp4 64", 4.5), ("nf4 64", 4.5), ("nf4 double", 4 + 8 / 64 + 32 / 64 / 256), ("int3", 3.5),
    ("int2", 2.5), ("ternary", 1.6), ("int4 zero 64", 4 + 36 / 64), ("int4 asym 128 two-level", 4.125),
    ("int4 full 32", 4.5), ("int4 full 64 8-bit", 4 + 8 / 64 + 32 / 64 / 256), ("e2m1 16 e4m3", 4.5),
    ("nf4 32 4-bit", 4 + 4 / 32 + 32 / 32 / 256), ("int4 asym 64 two-level", 4 + 8 / 64 + 32 / 64 / 64),
])  # fmt: skip
def test_stored_bits_count_codes_scales_and_offsets(name, bits):
    w = torch.randn(256, 256)
    assert Q.FORMATS[name].bits(w) / w.numel() == pytest.approx(bits, abs=0.001)


def test_stored_bits_are_those_of_bitsandbytes_own_tensors(gaussian):
    packed, state = bnb.quantize_4bit(gaussian, quant_type="nf4", compress_statistics=True)
    stored = 8 * (packed.numel() + state.absmax.numel()) + 32 * state.state2.absmax.numel() + 32
    assert Q.FORMATS["nf4 double"].bits(gaussian) == stored != Q.FORMATS["nf4 64"].bits(gaussian)


def test_formats_that_are_compared_at_equal_bits_store_equal_bits():
    w = torch.randn(256, 512)
    for level, kinds in Q.LEVELS.items():
        bits = [Q.FORMATS[name].bits(w) / w.numel() for names in kinds.values() for name in names]
        assert max(bits) - min(bits) < 0.01 and f"{max(bits):.2f}".startswith(level.split()[0][:3])
    assert Q.FORMATS["int4 asym 32"].bits(w) / w.numel() > 4.51


@pytest.mark.parametrize("name, low, high", [
    ("int8 tensor", 0.005, 0.02), ("int4 sym 64", 0.1, 0.115), ("int4 asym 64", 0.085, 0.095),
    ("nf4 64", 0.088, 0.095), ("fp4 64", 0.115, 0.13), ("int2", 0.4, 0.5), ("ternary", 0.45, 0.55),
    ("int4 full 32", 0.084, 0.088), ("int4 full 64 8-bit", 0.093, 0.097), ("e2m1 16 e4m3", 0.093, 0.098),
    ("nf4 32 4-bit", 0.087, 0.09), ("int4 asym 64 two-level", 0.09, 0.093),
    ("int4 asym 16 two-level", 0.071, 0.075), ("int4 full 16 8-bit", 0.074, 0.078),
])  # fmt: skip
def test_rounding_errors_of_gaussian_weights_are_where_they_should_be(gaussian, name, low, high):
    assert low < Q.relative_error(gaussian, Q.FORMATS[name].round(gaussian)) < high


# ---- whole models


def test_bytes_of_a_file_count_rounded_layers_and_the_rest_in_sixteen_bits(tiny):
    model = tiny()
    every = sum(p.numel() for p in model.parameters())
    inner = sum(layer.weight.numel() for layer in Q.linears(model).values())
    assert Q.file_bytes(model, Q.FORMATS["bf16"]) == 2 * every
    assert Q.file_bytes(model, Q.FORMATS["nf4 64"]) == 2 * (every - inner) + inner * 4.5 / 8
    assert Q.weight_bits(model, Q.FORMATS["nf4 64"]) == 4.5
    assert not any("lm_head" in name for name in Q.linears(model))


def test_rounding_a_model_changes_its_linear_layers_and_nothing_else(tiny):
    model, before = tiny(), tiny()
    Q.round_linears(model, Q.FORMATS["nf4 64"])
    kept = dict(before.named_parameters())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, kept[name])}
    assert changed == {f"{name}.weight" for name in Q.linears(model)}
    assert torch.equal(model.lm_head.weight, before.lm_head.weight)


def test_the_base_lies_on_a_four_bit_grid_that_dither_leaves(base):
    layer = base.model.layers[3].mlp.down_proj
    assert Q.on_grid(layer.weight) == 1.0
    form = Q.FORMATS["int4 asym 32"]
    assert torch.equal(form.round(layer.weight), layer.weight)
    blurred = nn.Sequential(nn.Linear(*layer.weight.shape[::-1], bias=False))
    blurred[0].weight.data = layer.weight.detach().clone()
    Q.dither(blurred, seed=0)
    moved = (blurred[0].weight - layer.weight).detach()
    step = Q.grid(layer.weight)[1].detach()
    assert Q.on_grid(blurred[0].weight) < 0.1 and (moved.reshape(-1, 32).abs() <= step / 2 * 1.001).all()
    assert moved.reshape(-1, 32).div(step).std() == pytest.approx(12**-0.5, rel=0.01)
    assert Q.relative_error(blurred[0].weight, form.round(blurred[0].weight)) > 0.05


def test_dither_is_the_same_for_a_seed_and_another_for_another(tiny):
    first, same, other = (Q.dither(tiny(), seed).model.layers[0].mlp.up_proj.weight for seed in (1, 1, 2))
    assert torch.equal(first, same) and not torch.equal(first, other)


# ---- training through rounding


def test_ternary_weights_have_three_values_and_the_mean_as_scale(gaussian):
    codes, scale = Q.ternary(gaussian)
    assert codes.unique().tolist() == [-1, 0, 1] and scale == gaussian.abs().mean()
    assert torch.equal(codes, torch.sign(gaussian).to(torch.int8) * (gaussian.abs() > scale / 2))


def test_the_gradient_passes_rounding_as_if_it_were_not_there():
    w = torch.tensor([0.3, 1.2, -0.7], requires_grad=True)
    rounded = Q.straight_through(w, torch.round(w))
    assert rounded.tolist() == [0.0, 1.0, -1.0]
    (rounded * torch.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert w.grad.tolist() == [1.0, 2.0, 3.0]
    w.grad = None
    torch.round(w).sum().backward()
    assert w.grad.tolist() == [0.0, 0.0, 0.0]                               # what rounding alone would give


def test_bitlinear_equals_transformers_in_both_directions():
    from transformers.integrations.bitnet import AutoBitLinear

    torch.manual_seed(0)
    ours, theirs = Q.BitLinear(32, 8, bias=False), AutoBitLinear(32, 8, bias=False, online_quant=True)
    theirs.weight.data = ours.weight.detach().clone()
    x = torch.randn(4, 32)
    with torch.compiler.set_stance("force_eager"):
        expected = theirs(x)
        expected.square().sum().backward()
    got = ours(x)
    got.square().sum().backward()
    assert torch.allclose(got, expected, atol=1e-5)
    assert torch.allclose(ours.weight.grad, theirs.weight.grad, atol=1e-4)
    assert not torch.allclose(nn.functional.linear(x, ours.weight), expected, atol=1e-2)


def test_a_model_of_rounded_layers_keeps_its_weights_and_computes_with_rounded_ones(tiny):
    model, plain = tiny(), tiny()
    rounding = Q.FORMATS["int3"].round
    Q.replace_linears(model, Q.RoundedLinear, rounding)
    ids = torch.arange(12)[None]
    with torch.no_grad():
        exact, trained = plain(ids).logits, model(ids).logits
        after = Q.round_linears(tiny(), Q.FORMATS["int3"])(ids).logits
    assert torch.allclose(trained, after, atol=1e-5) and not torch.allclose(trained, exact, atol=1e-3)
    assert type(model.lm_head) is nn.Linear and type(model.model.layers[0].mlp.up_proj) is Q.RoundedLinear
    assert dict(model.named_parameters()).keys() == dict(plain.named_parameters()).keys()
    with pytest.raises(LabkitError, match="no linear layer to replace"):
        Q.replace_linears(model, Q.RoundedLinear, rounding)


@pytest.mark.parametrize("kind", ["int2", "bit"])
def test_fit_trains_through_rounding_and_what_is_trained_is_what_is_stored(tiny, tokenizer, tickets, kind):
    form = Q.FORMATS["int2" if kind == "int2" else "ternary"]
    model = tiny()
    if kind == "int2":
        Q.replace_linears(model, Q.RoundedLinear, form.round)
    else:
        Q.replace_linears(model, Q.BitLinear)
    before = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    run = fit(model, tickets[:8], tokenizer, steps=6, lr=3e-3, batch=1, length=512, progress=False)
    layer = model.model.layers[0].mlp.up_proj
    assert run.losses[-1] < run.losses[0] and not torch.equal(layer.weight, before)
    assert torch.allclose(layer.rounded(), form.round(layer.weight), atol=1e-7)
    assert not torch.allclose(layer.rounded(), layer.weight, atol=1e-3)


def test_importing_the_package_does_not_load_torch():
    code = "import sys, labkit.methods.quantize; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    with pytest.raises(AttributeError, match="nothing_here"):
        Q.nothing_here  # noqa: B018
