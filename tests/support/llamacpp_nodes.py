"""What llama.cpp's graphs rotate by, measured while they run, for `support.llamacpp`.

The library calls back before and after each operation of a graph. Input and output of a rotation
give its angle and its scale at every position, so nobody's formula is needed.
"""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from itertools import pairwise, takewhile
from typing import Any

import numpy as np

_P, _I = ctypes.c_void_p, ctypes.c_int32
_LAYER = re.compile(r"-(\d+)(?: |$)")
_VIEWS = ("RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE", "CONT", "CPY")
_NORMS = ("NORM", "RMS_NORM", "L2_NORM")


class Node(ctypes.Structure):
    """`ggml_tensor` of `ggml/include/ggml.h`."""

    _fields_ = [
        ("type", _I), ("buffer", _P), ("ne", ctypes.c_int64 * 4), ("nb", ctypes.c_size_t * 4),
        ("op", _I), ("op_params", _I * 16), ("flags", _I), ("src", _P * 10), ("view_src", _P),
        ("view_offs", ctypes.c_size_t), ("data", _P), ("name", ctypes.c_char * 64),
    ]  # fmt: skip


Callback = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.POINTER(Node), ctypes.c_bool, _P)


@dataclass
class Rotation:
    """One rotation of queries or keys in one layer."""

    name: str
    layer: int
    """-1 until a later node says in which layer it is."""
    pairing: str
    """norm: neighbours rotate as pairs; neox: dimensions half the width apart."""
    width: int
    """The dimensions that rotate."""
    head: int
    """The dimensions of a head, of those that the operation is given."""
    inv_freq: list[float]
    """Radians per token, one for each pair; known but for multiples of 2π / step."""
    step: int
    """How far apart the positions are, tokens."""
    scale: float
    """What the rotated numbers are multiplied by."""
    error: float
    """The largest difference from a rotation with these numbers."""
    size: float
    """The mean size of the numbers before."""
    mode: int
    """`GGML_ROPE_TYPE_…`; 8 is multimodal."""
    normed: bool = False
    """Whether the result goes through a norm, which undoes the scale."""


@dataclass
class Watcher:
    """Collects the rotations and the softmax scales of a graph."""

    operation: Callable[[int], str]
    """The library's name of an operation by its number."""
    rotations: list[Rotation] = field(default_factory=list)
    softmax: dict[int, float] = field(default_factory=dict)
    """Layer → scale of its softmax."""
    _before: np.ndarray | None = None
    _rotated: dict[int, Rotation] = field(default_factory=dict)

    def see(self, node: Any, asks: bool, _: Any) -> bool:
        """Called by the library before (`asks`) and after each node."""
        found, address = node.contents, ctypes.addressof(node.contents)
        kind, name = self.operation(found.op), found.name.decode(errors="replace")
        layer = _LAYER.search(name)
        source = found.src[0]
        if asks and layer:
            self._place(int(layer[1]))
            if kind == "SOFT_MAX" and found.src[1]:  # with a mask, so not of experts
                self.softmax[int(layer[1])] = _float(found.op_params[0])
        if asks and source in self._rotated:
            if kind in _VIEWS:
                self._rotated[address] = self._rotated[source]
            elif kind in _NORMS:
                self._rotated[source].normed = True
        if kind == "ROPE" and asks:
            self._before = _values(ctypes.cast(source, ctypes.POINTER(Node)).contents)
        elif kind == "ROPE":
            assert self._before is not None
            if len(self._before) < 2:  # nothing to measure from position to position
                return True
            rotation = _measured(name, found, self._before, _values(found))
            self.rotations.append(rotation)
            self._rotated[address] = rotation
        return True

    def _place(self, layer: int) -> None:
        """The layer of those rotations whose own names do not tell."""
        for rotation in reversed(self.rotations):
            if rotation.layer >= 0:
                break
            rotation.layer = layer

    def to_json(self) -> dict[str, Any]:
        """What was seen."""
        return {
            "rotations": [asdict(rotation) for rotation in self.rotations],
            "softmax": {str(layer): scale for layer, scale in self.softmax.items()},
        }


def _float(stored: int) -> float:
    return float(np.int32(stored).view(np.float32))


def _values(node: Any) -> np.ndarray:
    """The numbers of a node, as token × head × dimension."""
    assert node.type == 0, "a rotation of numbers that are not F32"
    size = sum((n - 1) * s for n, s in zip(node.ne, node.nb, strict=True)) + 4
    flat = np.frombuffer((ctypes.c_char * size).from_address(node.data), np.uint8)
    shape, strides = tuple(node.ne)[::-1], tuple(node.nb)[::-1]
    view = np.lib.stride_tricks.as_strided(flat[:4].view(np.float32), shape, strides)
    return view[0].astype(np.float64)


def _integers(address: int, count: int) -> list[int]:
    """The first numbers of a node; positions of text come first, whatever follows."""
    node = ctypes.cast(address, ctypes.POINTER(Node)).contents
    return list((_I * count).from_address(node.data))


def _measured(name: str, node: Any, before: np.ndarray, after: np.ndarray) -> Rotation:
    """Frequencies and scale of a rotation at evenly spaced positions; what follows is empty."""
    apart = [b - a for a, b in pairwise(_integers(node.src[1], len(before)))]
    count = 1 + len([*takewhile(lambda each: each == apart[0] > 0, apart)])
    before, after = before[:count], after[:count]
    width, offset = node.op_params[1], node.op_params[15]
    part = slice(offset, offset + width)
    found = {kind: _turns(before[..., part], after[..., part], kind) for kind in ("norm", "neox")}
    pairing = min(found, key=lambda kind: found[kind][1])
    ratio, error = found[pairing]
    turned = ratio / ratio[:1]
    step, times, whole = apart[0], 2, 2 * math.pi
    turn = np.angle(turned[1])
    while times < len(turned):
        angle = np.angle(turned[times])
        turn = (angle + whole * np.round((times * turn - angle) / whole)) / times
        times *= 2
    return Rotation(
        name=name, layer=-1, pairing=pairing, width=width, head=before.shape[-1], step=step,
        inv_freq=(turn / step).tolist(), scale=float(abs(ratio).mean()), error=error,
        size=float(abs(before).mean()), mode=node.op_params[2],
    )  # fmt: skip


def _turns(before: np.ndarray, after: np.ndarray, pairing: str) -> tuple[np.ndarray, float]:
    """Token × pair: what a pair is multiplied by as a complex number, and how far that is off."""
    x, y = _pairs(before, pairing), _pairs(after, pairing)
    ratio = (y * x.conj()).sum(1) / (abs(x) ** 2).sum(1)
    # With one head some number fits any pair, so its size has to be the same at all positions.
    uneven = abs(abs(ratio) - abs(ratio).mean()).max()
    return ratio, float(abs(y - ratio[:, None] * x).max() + uneven)


def _pairs(values: np.ndarray, pairing: str) -> np.ndarray:
    half = values.shape[-1] // 2
    if pairing == "norm":
        return values[..., 0::2] + 1j * values[..., 1::2]
    return values[..., :half] + 1j * values[..., half:]
