"""Multiply the weights of a GGUF tensor by a factor; of a quantised tensor, only block scales.

A block of a quantised format holds integers and one or two half-precision numbers that multiply
them: `d`, and in some formats `dmin` or `m`, which is subtracted or added. Only these change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from yarncli.baking.arithmetic import scaler
from yarncli.baking.rows import RowSelection
from yarncli.errors import WeightsError

_ADVICE = "Put the factor into a key of the file with --carrier key."
_HALF = 2  # bytes of a half-precision number


@dataclass(frozen=True, slots=True)
class BlockFormat:
    """The places of the scales in a block of a format."""

    elements: int
    """Number of weights in a block."""
    size: int
    """Bytes of a block."""
    scales: tuple[int, ...]
    """Offsets of its half-precision scales, bytes; empty for IQ1_M, whose scale is in pieces."""


# Source: `ggml-common.h` of llama.cpp v0.5.0.
FORMATS: Mapping[str, BlockFormat] = {
    "Q4_0": BlockFormat(32, 18, (0,)),
    "Q4_1": BlockFormat(32, 20, (0, 2)),
    "Q5_0": BlockFormat(32, 22, (0,)),
    "Q5_1": BlockFormat(32, 24, (0, 2)),
    "Q8_0": BlockFormat(32, 34, (0,)),
    "Q2_K": BlockFormat(256, 84, (80, 82)),
    "Q3_K": BlockFormat(256, 110, (108,)),
    "Q4_K": BlockFormat(256, 144, (0, 2)),
    "Q5_K": BlockFormat(256, 176, (0, 2)),
    "Q6_K": BlockFormat(256, 210, (208,)),
    "IQ1_S": BlockFormat(256, 50, (0,)),
    "IQ1_M": BlockFormat(256, 56, ()),
    "IQ2_XXS": BlockFormat(256, 66, (0,)),
    "IQ2_XS": BlockFormat(256, 74, (0,)),
    "IQ2_S": BlockFormat(256, 82, (0,)),
    "IQ3_XXS": BlockFormat(256, 98, (0,)),
    "IQ3_S": BlockFormat(256, 110, (0,)),
    "IQ4_NL": BlockFormat(32, 18, (0,)),
    "IQ4_XS": BlockFormat(256, 136, (0,)),
    "TQ1_0": BlockFormat(256, 54, (52,)),
    "TQ2_0": BlockFormat(256, 66, (64,)),
}
_FLOATS = {"F32": 4, "F16": 2, "BF16": 2}
_IQ1_M_SCALES = 48  # the scale's four digits are the upper four bits of four 16-bit words there


def row_bytes(kind: str, width: int, tensor: str) -> int:
    """The bytes of one row of a tensor.

    Args:
        kind: the ggml type, such as "Q4_K".
        width: elements of a row.
        tensor: the name of the tensor, for the message.

    Raises:
        WeightsError: the type cannot be multiplied, or a row is not a whole number of blocks.
    """
    if kind in _FLOATS:
        return width * _FLOATS[kind]
    known = FORMATS.get(kind)
    if known is None:
        raise WeightsError(
            f"{tensor} is stored as {kind}, whose blocks have no scale that can be multiplied. "
            f"{_ADVICE}"
        )
    if width % known.elements:
        raise WeightsError(
            f"{tensor} has rows of {width} weights, which is not a multiple of the block size "
            f"{known.elements}."
        )
    return width // known.elements * known.size


def block_scaler(kind: str, factor: float, tensor: str) -> Callable[[bytes], bytes]:
    """The function that multiplies whole rows of a tensor.

    A quantised weight gets as close to the product as a half-precision scale allows. The error
    relative to the tensor is 2e-4 to 9e-3, and more if scales are subnormal (small Q6_K, IQ4_XS).

    Args:
        kind: the ggml type, one that `row_bytes` accepts.
        factor: a positive number.
        tensor: the name of the tensor, for messages.

    Raises:
        WeightsError: (by the returned function) a scale leaves the range of half precision.
    """
    import numpy as np

    one = RowSelection(period=1, windows=((0, 1),), end=1)
    if kind in _FLOATS:
        return scaler(kind, factor, 0.0, one, tensor, _ADVICE)
    known = FORMATS[kind]
    words_of_block = known.size // _HALF
    windows = tuple((place // _HALF, place // _HALF + 1) for place in known.scales)
    if windows:
        # A block is a row of 16-bit words, of which only the scales change.
        blocks = RowSelection(period=words_of_block, windows=windows, end=words_of_block)
        return scaler("F16", factor, 0.0, blocks, tensor, _ADVICE)
    multiply = scaler("F16", factor, 0.0, one, tensor, _ADVICE)

    def transform(piece: bytes) -> bytes:
        data = np.frombuffer(piece, np.uint8).reshape(-1, known.size).copy()
        words = data[:, _IQ1_M_SCALES:].view("<u2")
        # Join the four upper digits to one half-precision scale, multiply it, and split it again.
        # The lower 12 bits of each word hold other data and stay.
        shifts = np.array([0, 4, 8, 12], np.uint16)
        scales = ((words >> 12) << shifts).sum(axis=1, dtype=np.uint16)
        made = np.frombuffer(multiply(scales.astype("<u2").tobytes()), "<u2")
        words[:] = (words & 0x0FFF) | (((made[:, None] >> shifts) & 0xF) << 12)
        return data.tobytes()

    return transform
