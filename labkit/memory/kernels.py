"""What CUDA takes that a trace on the CPU does not show: which attention runs, and room inside kernels.

Read off the sources of torch 2.11 to 2.13 and bitsandbytes 0.50; each formula names its place there.
"""

import ast
import logging
import math
from functools import cache
from importlib import import_module
from pathlib import Path

import torch

from labkit.memory import machine

aten = torch.ops.aten

MULTIPROCESSORS, CAPABILITY = 132, (9, 0)  # of an H100 or H200: bitsandbytes chooses its kernel by them

MATMULS = {aten.mm.default, aten.bmm.default, aten.addmm.default, aten.baddbmm.default}

# On a CPU with bf16 instructions bitsandbytes looks for an optional kernel and warns that there is none:
# nothing is wrong, and nothing here would run it.
logging.getLogger("bitsandbytes.backends.cpu.ops").addFilter(
    lambda record: "gemm_4bit_forward" not in str(record.msg)
)
try:
    import bitsandbytes  # noqa: F401  (registers its operations)

    GEMM_4BIT = torch.ops.bitsandbytes.gemm_4bit.default
    DEQUANTIZING = {torch.ops.bitsandbytes.dequantize_4bit.default}
    MATMULS.add(GEMM_4BIT)
except (ImportError, AttributeError):  # without it, or before it had the operation
    GEMM_4BIT, DEQUANTIZING = None, set()


# ---- attention ------------------------------------------------------------------------------------------


def attention(kind):
    """A stand-in for torch's scaled_dot_product_attention that runs what CUDA would run.

    `kind` "flash": torch's choice (`machine.attention_kernel`); "math": always the plain one.
    """

    def chosen(
        query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
    ):
        if torch.is_autocast_enabled("cpu"):  # autocast casts what goes into attention, and not inside it
            to = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(to), key.to(to), value.to(to)
            if attn_mask is not None and attn_mask.is_floating_point():
                attn_mask = attn_mask.to(to)
        with torch.autocast("cpu", enabled=False):
            if attn_mask is not None and attn_mask.dtype == torch.bool:  # convert_boolean_attn_mask
                attn_mask = torch.where(attn_mask, 0.0, torch.tensor(-math.inf, dtype=query.dtype))
            return _run(kind, query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa)

    return chosen


def _run(kind, query, key, value, mask, dropout, is_causal, scale, enable_gqa):
    grouped = query.shape[1] != key.shape[1]
    slanted = is_causal and query.shape[2] != key.shape[2]  # the fused kernel's triangle would lie elsewhere
    kernel = machine.attention_kernel(kind, query.element_size(), grouped, mask is not None or slanted)
    if kernel == "math":
        return aten._scaled_dot_product_attention_math(
            query, key, value, mask, dropout, is_causal, None, scale=scale, enable_gqa=enable_gqa
        )[0]
    if kernel == "flash":
        return aten._scaled_dot_product_flash_attention(
            query, key, value, dropout, is_causal, False, scale=scale
        )[0]
    if mask is not None and mask.shape[-1] % 16:  # pad_bias
        mask = torch.nn.functional.pad(mask, (0, 16 - mask.shape[-1] % 16))[..., : mask.shape[-1]]
    if mask is not None:
        mask = mask.expand(query.shape[0], query.shape[1], query.shape[2], key.shape[2])
    wants = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, mask, wants, dropout, is_causal, scale=scale
    )[0]


def _flash_backward(args, kwargs, out):
    query, key = args[1:3]
    rows, heads, length, width = query.shape
    return machine.flash_backward(
        rows, length, key.shape[2], heads, key.shape[1], width, query.element_size()
    )


def _efficient_backward(args, kwargs, out):
    rows, heads, length, _ = args[1].shape
    return machine.efficient_backward(rows, length, heads)


def _embedding_backward(args, kwargs, out):
    return machine.embedding_backward(args[1].numel())


# What an operation takes and returns before it ends, beyond its results.
EXTRA = {
    aten._scaled_dot_product_flash_attention_backward.default: _flash_backward,
    aten._scaled_dot_product_efficient_attention_backward.default: _efficient_backward,
    aten.embedding_dense_backward.default: _embedding_backward,
}


# ---- NF4 ------------------------------------------------------------------------------------------------


def gemm_4bit_extra(args):
    """Bytes that bitsandbytes' product with 4-bit weights takes beside its result: none in its own kernel,
    else the weights in 16 bits and their scales in fp32, twice (backends/cuda/ops.py,
    `_dequant_linear_fallback`)."""
    x, _, shape, _, blocksize = args[:5]
    rows = x.numel() // x.shape[-1]
    out, inner = shape
    if _own_kernel(x.dtype, rows, out, inner, blocksize):
        return 0
    weights = out * inner
    return x.element_size() * weights + 2 * 4 * math.ceil(weights / blocksize)


def _own_kernel(dtype, rows, out, inner, blocksize):
    rule, most = _bitsandbytes_rule()
    return rows <= most and inner % blocksize == 0 and rule(0, dtype, rows, out, inner)


@cache
def _bitsandbytes_rule():
    """(whether bitsandbytes takes its own kernel, up to how many rows it asks), as its source says.

    The module imports with CUDA only, so the one function is read out of it; where a version has none, its
    product always restored the weights.
    """
    file = Path(import_module("bitsandbytes").__file__).parent / "backends" / "cuda" / "ops.py"
    name, tree = "_gemm_4bit_use_custom_cuda", ast.parse(file.read_text())
    found = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name]
    if not found:
        return lambda *_: False, 0
    found[0].decorator_list = []
    space = {"torch": torch, "_GEMM_4BIT_CUSTOM_FLOOR_M": 4,
             "_gpu_dispatch_props": lambda _: (MULTIPROCESSORS, *CAPABILITY)}  # fmt: skip
    exec(compile(ast.Module(found, []), str(file), "exec"), space)
    return space[name], 1536  # _gemm_4bit_custom_max_m on CUDA
