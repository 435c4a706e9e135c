"""Quantization from the bits up: number formats, integers, code books, ternary weights, whole models.

Everything here reads like its formula, and works on a whole tensor at once. Names are imported on first use,
because `labkit.methods` imports its modules to look for methods, and torch is slow to load.
"""

from importlib import import_module

_HOME = {
    "Layout": "bits", "LAYOUTS": "bits", "fields": "bits", "value_of": "bits", "spacing": "bits",
    "absmax": "integers", "from_absmax": "integers", "zero_point": "integers", "from_zero_point": "integers",
    "affine": "integers", "from_affine": "integers", "two_level": "integers",
    "full_range": "integers", "whole_scales": "integers",
    "outlier_columns": "integers", "int8_matmul": "integers",
    "nf4_code": "codebooks", "fp4_code": "codebooks", "e2m1_code": "codebooks", "dynamic_code": "codebooks",
    "lookup": "codebooks", "from_lookup": "codebooks", "double": "codebooks", "from_double": "codebooks",
    "pack": "codebooks", "unpack": "codebooks",
    "ternary": "bitnet", "straight_through": "bitnet", "BitLinear": "bitnet",
    "RoundedLinear": "bitnet", "replace_linears": "bitnet",
    "FORMATS": "formats", "LEVELS": "formats", "Format": "formats", "relative_error": "formats",
    "linears": "models", "round_linears": "models", "dither": "models", "grid": "models",
    "on_grid": "models", "weight_bits": "models", "file_bytes": "models",
}  # fmt: skip
__all__ = sorted(_HOME)


def __getattr__(name):
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
