"""Multiply stored weights by a factor, rounding once to nearest even, without loading tensors."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from yarncli.baking.dtypes import ELEMENT_SIZES
from yarncli.baking.rows import RowSelection
from yarncli.errors import WeightsError

_BLOCK = 1 << 16  # elements per pass; limits the memory of the float64 copies


def scaler(
    dtype: str,
    factor: float,
    offset: float,
    selection: RowSelection,
    tensor: str,
    advice: str = "Bake the other side with --side.",
) -> Callable[[bytes], bytes]:
    """The function that rewrites whole periods of `selection`: w → factor·(w + offset) − offset.

    Args:
        dtype: one of `SCALABLE`.
        factor: a positive number.
        offset: 1 for norms that multiply by 1 + w, else 0.
        selection: the rows of a period that change; all others are copied.
        tensor: the name of the tensor, for the message.
        advice: what to do instead if a product does not fit.

    Raises:
        WeightsError: (by the returned function) a finite value leaves the range of `dtype`.
    """
    period, width = selection.period, selection.width
    apply = (
        _table_lookup(dtype, factor, offset)
        if ELEMENT_SIZES[dtype] == 2
        else _multiply(factor, offset)
    )
    kind = np.dtype({"F64": "<f8", "F32": "<f4"}.get(dtype, "<u2"))

    def transform(piece: bytes) -> bytes:
        data = np.frombuffer(piece, kind).copy()
        view = data.reshape(-1, period, width)
        for start, stop in selection.windows:
            window = view[:, start:stop]
            step = max(1, _BLOCK // ((stop - start) * width))
            for first in range(0, len(window), step):
                block = window[first : first + step]
                made, overflowed = apply(block)
                if overflowed:
                    raise WeightsError(
                        f"{tensor} holds a value that no longer fits in {dtype} after it is "
                        f"multiplied by {factor:.6g}. {advice}"
                    )
                window[first : first + step] = made
        return data.tobytes()

    return transform


def _multiply(
    factor: float, offset: float
) -> Callable[[NDArray[np.floating]], tuple[NDArray[np.floating], bool]]:
    def apply(block: NDArray[np.floating]) -> tuple[NDArray[np.floating], bool]:
        with np.errstate(over="ignore", under="ignore", invalid="ignore"):
            wide = block.astype(np.float64)
            exact = factor * (wide + offset) - offset if offset else wide * factor
            made = exact.astype(block.dtype)
        # A NaN keeps its bits: it is copied, not computed.
        made = np.where(np.isnan(block), block, made)
        return made, bool(np.any(np.isinf(made) & np.isfinite(block)))

    return apply


def _table_lookup(
    dtype: str, factor: float, offset: float
) -> Callable[[NDArray[np.uint16]], tuple[NDArray[np.uint16], bool]]:
    table = _scaled_patterns(dtype, factor, offset)
    infinity = np.uint16(_infinity(dtype))

    def apply(block: NDArray[np.uint16]) -> tuple[NDArray[np.uint16], bool]:
        made = table.take(block)
        magnitudes = made & 0x7FFF
        if magnitudes.max(initial=0) < infinity:
            return made, False
        infinite = magnitudes == infinity
        return made, bool(((block & 0x7FFF) < infinity)[infinite].any())

    return apply


@lru_cache(maxsize=16)
def _scaled_patterns(dtype: str, factor: float, offset: float) -> NDArray[np.uint16]:
    """For every 16-bit pattern, the pattern of the scaled value (infinity where it overflows)."""
    infinity = _infinity(dtype)
    patterns = np.arange(1 << 16, dtype=np.uint16)
    magnitudes = _values(dtype)[:infinity]  # patterns from 0 are the non-negative numbers in order
    finite = (patterns & 0x7FFF) < infinity
    with np.errstate(invalid="ignore"):  # NaN patterns, which are not used
        values = np.where(patterns & 0x8000, -1.0, 1.0) * _values(dtype)[patterns & 0x7FFF]
        exact = factor * (values + offset) - offset if offset else values * factor
    wanted = np.abs(exact[finite])
    # The last entry stands for the number after the largest; rounding to it is an overflow.
    grid = np.append(magnitudes, 2 * magnitudes[-1] - magnitudes[-2])
    # Each exact product lies between two neighbours of the grid. The nearer one is the result; in
    # the middle it is the neighbour with the even pattern, as IEEE 754 rounds.
    above = np.clip(np.searchsorted(grid, wanted), 1, infinity)
    below = above - 1
    middle = (grid[above] + grid[below]) / 2
    up = (wanted > middle) | ((wanted == middle) & (above % 2 == 0))
    nearest = np.where(up, above, below).astype(np.uint16)
    table = patterns.copy()  # NaN and infinity do not change
    table[finite] = nearest | np.where(np.signbit(exact[finite]), 0x8000, 0).astype(np.uint16)
    table.setflags(write=False)
    return table


@lru_cache(maxsize=2)
def _values(dtype: str) -> NDArray[np.float64]:
    """The numbers of the 32768 patterns without a sign bit."""
    patterns = np.arange(1 << 15, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        if dtype == "F16":
            return patterns.view(np.float16).astype(np.float64)
        return (patterns.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


def _infinity(dtype: str) -> int:
    """The pattern of +infinity; all smaller patterns are finite numbers."""
    return 0x7C00 if dtype == "F16" else 0x7F80
