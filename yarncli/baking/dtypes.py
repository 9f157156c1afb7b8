"""The dtypes that can be multiplied, and their rounding errors; does not import numpy."""

from __future__ import annotations

import math
from functools import lru_cache

ELEMENT_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
SCALABLE = tuple(ELEMENT_SIZES)

_SIGNIFICANT_BITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}


@lru_cache(maxsize=16)
def rounding_bound(dtype: str, factor: float, offset: float = 0.0) -> float:
    """The largest relative rounding error of a stored value (normal numbers).

    For 16-bit dtypes without an offset it is found by trying every significand; for others it is
    the bound of rounding to nearest.

    Example:
        >>> rounding_bound("F32", 1.1)
        5.960464477539063e-08
    """
    bits = _SIGNIFICANT_BITS[dtype]
    if offset or ELEMENT_SIZES[dtype] > 2:
        return 2.0**-bits
    normal = 1 << (bits - 1)
    # Values below `normal` are subnormal; they count only if their product is normal.
    products = ((value, value * factor) for value in range(1, 2 * normal))
    return max(
        _relative_error(exact, bits)
        for value, exact in products
        if value >= normal or exact >= normal
    )


def _relative_error(exact: float, bits: int) -> float:
    step = 2.0 ** (math.frexp(exact)[1] - bits)
    return abs(round(exact / step) * step / exact - 1.0)  # round: ties to even
