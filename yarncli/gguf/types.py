"""The types of the values and the tensors of a GGUF file.

Source: ggml's `gguf.h`, `ggml.h` and `ggml-common.h` (llama.cpp b11434); gguf-py 0.19 has the same
types except Q2_0.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

# Name of a type with a fixed size → its number and struct format.
_SCALARS: Mapping[str, tuple[int, str]] = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"),
    "i32": (5, "i"), "f32": (6, "f"), "bool": (7, "B"), "u64": (10, "Q"), "i64": (11, "q"),
    "f64": (12, "d"),
}  # fmt: skip
STRING, ARRAY = 8, 9
FORMATS: Mapping[int, struct.Struct] = {n: struct.Struct(f"<{f}") for n, f in _SCALARS.values()}
NAMES: Mapping[int, str] = {
    **{number: word for word, (number, _) in _SCALARS.items()}, STRING: "str", ARRAY: "arr"
}  # fmt: skip

# Number of a type → its name, elements per block, bytes per block.
TENSOR_TYPES: Mapping[int, tuple[str, int, int]] = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22), 7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110), 12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50), 20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136), 24: ("I8", 1, 1), 25: ("I16", 1, 2),
    26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8), 29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66), 39: ("MXFP4", 32, 17),
    40: ("NVFP4", 64, 36), 41: ("Q1_0", 128, 18), 42: ("Q2_0", 64, 18),
}  # fmt: skip
F32 = 0


@dataclass(frozen=True, slots=True)
class Array:
    """An array: the value of a key that holds many elements."""

    type: str
    """Type of its elements, such as "f32" or "str"."""
    count: int
    values: tuple[int | float | bool, ...] | None = None
    """Its elements; None for strings and for long arrays, which are read but not kept."""


Value = bool | int | float | str | Array


def encode(text: str) -> bytes:
    r"""A string as stored in a file: its length, then its bytes.

    Example:
        >>> encode("ab")
        b'\x02\x00\x00\x00\x00\x00\x00\x00ab'
    """
    data = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(data)) + data


def encode_value(kind: str, value: Value) -> bytes:
    """A value as stored in a file: the number of its type, then the value.

    Args:
        kind: "u32", "str", "arr", …
        value: a value of that type; an array must have its elements.

    Raises:
        ValueError: the value is not of that type, or out of its range.
    """
    try:
        if kind == "str" and isinstance(value, str):
            return struct.pack("<I", STRING) + encode(value)
        if kind == "arr" and isinstance(value, Array) and value.values is not None:
            number, form = _SCALARS[value.type]
            head = struct.pack("<IIQ", ARRAY, number, value.count)
            return head + struct.pack(f"<{value.count}{form}", *value.values)
        number, form = _SCALARS[kind]
        return struct.pack(f"<I{form}", number, value)
    except (KeyError, OverflowError, struct.error) as error:
        raise ValueError(f"{value!r:.80} is not a value of the type {kind}") from error


def as_stored(kind: str, value: Value) -> Value:
    """A value as it will be read back, since a file may store fewer digits."""
    if isinstance(value, Array) and value.values is not None:
        kept = tuple(as_stored(value.type, each) for each in value.values)
        return Array(value.type, value.count, kept)  # type: ignore[arg-type]
    data = encode_value(kind, value)
    if kind not in _SCALARS or kind == "bool":
        return value
    (found,) = FORMATS[_SCALARS[kind][0]].unpack_from(data, 4)
    return found  # type: ignore[no-any-return]
