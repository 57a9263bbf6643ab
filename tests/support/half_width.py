"""float16 and bfloat16: their rounding in integer arithmetic, and arrays of them compared bit by bit."""

import numpy as np
import pytest

ml_dtypes = pytest.importorskip("ml_dtypes", reason="the test extra is not installed")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
HALVES = {"float16": np.dtype(np.float16), "bfloat16": BFLOAT16}
PATTERNS = np.arange(1 << 16, dtype=np.uint16)
# Of each: bits of the exponent and of the mantissa.
_WIDTHS = {"float16": (5, 10), "bfloat16": (8, 7)}


def rounded(values, name):
    """Bits of float32 `values` rounded once to nearest even; of a NaN the first bit of the payload is set."""
    n_exponent, n_mantissa = _WIDTHS[name]
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    sign, exponent, mantissa = bits >> 31, bits >> 23 & 0xFF, bits & 0x7FFFFF
    bias = (1 << n_exponent - 1) - 1
    whole = np.where(exponent > 0, mantissa | 1 << 23, mantissa)
    target = np.maximum(exponent, 1) - 127 + bias  # of the exponent field; subnormal below 1
    shift = np.minimum(23 - n_mantissa + np.maximum(1 - target, 0), 40)
    kept, rest, half = whole >> shift, whole & (1 << shift) - 1, 1 << shift - 1
    kept += (rest > half) | ((rest == half) & (kept & 1 == 1))
    # The hidden bit of a normal number counts as one step of the exponent.
    result = kept + (np.maximum(target, 1) - 1 << n_mantissa)
    infinite = (1 << n_exponent) - 1 << n_mantissa
    result = np.where((result > infinite) | (exponent == 255), infinite, result)
    payload = infinite | 1 << n_mantissa - 1 | mantissa >> 23 - n_mantissa
    result = np.where((exponent == 255) & (mantissa != 0), payload, result)
    return (sign << 15 | result).astype(np.uint16)


def ties(name):
    """float32 numbers half way between neighbours, and next to that, in each exponent of float32; and NaN."""
    exponents = np.arange(256, dtype=np.uint32)[:, None] << 23
    lost = 23 - _WIDTHS[name][1]
    steps = {0, 1, 2, 3, (1 << 23 - lost) - 1, 1 << 22 - lost}
    if name == "float16":  # where it is subnormal, ties are farther apart
        steps |= {1 << k for k in range(23 - lost)}
    mantissas = {
        (step << lost) + (1 << lost - 1) * odd + off
        for step in steps
        for odd in (0, 1)
        for off in (-1, 0, 1)
    }
    mantissas |= {(1 << k) + off for k in range(24) for off in (-1, 0, 1)}
    mantissas = np.array(sorted(m for m in mantissas if 0 <= m < 1 << 23), np.uint32)
    bits = (exponents | mantissas).reshape(-1)
    return np.concatenate([bits, bits | np.uint32(1 << 31)]).view(np.float32)


def widened(patterns, name):
    """The float32 numbers that these bits of halves are."""
    with np.errstate(invalid="ignore"):  # signalling NaN
        return patterns.view(HALVES[name]).astype(np.float32)


def once(x, dtype):
    """`x`, float32, rounded to a dtype as the contract has it."""
    dtype = np.dtype(dtype)
    if dtype.itemsize > 2:
        return np.asarray(x, dtype)
    name = "bfloat16" if dtype == BFLOAT16 else "float16"
    return rounded(np.asarray(x), name).reshape(np.shape(x)).view(dtype)


def same(a, b):
    """Whether both are of one dtype and shape and have the same bits, NaN being NaN."""
    a, b = np.asarray(a), np.asarray(b)
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    kind = {2: np.uint16, 4: np.uint32, 8: np.uint64}[a.dtype.itemsize]
    a, b = np.atleast_1d(a).copy("C"), np.atleast_1d(b).copy("C")
    with np.errstate(invalid="ignore"):  # signalling NaN
        are_nan = np.isnan(a.astype(np.float64)) & np.isnan(b.astype(np.float64))
    return bool(((a.view(kind) == b.view(kind)) | are_nan).all())
