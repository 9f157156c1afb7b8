"""Sets of keys and tensors as in GGUF files of other tools, and what llama.cpp computes from them.

The expected values are those that v0.5.0 computed when it was run; `test_live.py` runs it again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from support.gguf_files import demo_keys
from yarncli.gguf.facts import FREQS, LONG, SHORT, Gguf, Tensor, Typed, typed

DIM, WINDOW = 32, 256
M4, M8 = 0.1 * math.log(4) + 1, 0.1 * math.log(8) + 1
R = tuple(1 + i / 8 for i in range(16))
LONGS, SHORTS = tuple(2 + i / 8 for i in range(16)), tuple(1 + i / 32 for i in range(16))


def plain(divisor: float = 1.0, theta: float = 1e4) -> list[float]:
    """Plain frequencies, divided."""
    return [theta ** (-2 * i / DIM) / divisor for i in range(DIM // 2)]


def over(factors: Sequence[float], freqs: Sequence[float] | None = None) -> list[float]:
    """Frequencies divided by a factor each."""
    return [f / k for f, k in zip(freqs or plain(), factors, strict=True)]


def yarn(factor: float, original: int, theta: float = 1e4, betas: Any = (32, 1)) -> list[float]:
    """YaRN's frequencies, written out once more."""
    ends = [DIM * math.log(original / (b * 2 * math.pi)) / (2 * math.log(theta)) for b in betas]
    low, high = max(math.floor(ends[0]), 0), min(math.ceil(ends[1]), DIM - 1)
    ramp = [min(max((i - low) / max(high - low, 0.001), 0), 1) for i in range(DIM // 2)]
    return [f * (1 - r) + f / factor * r for f, r in zip(plain(theta=theta), ramp, strict=True)]


@dataclass(frozen=True)
class Row:
    """A file and its expected result: frequencies with a factor, or a word for another outcome."""

    name: str
    expected: tuple[list[float], float] | str
    """Frequencies and attention factor, or "refuses", "aborts", "NaN"."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Key without prefix → number or string of the right type, `Typed`, or `None` to leave out."""
    tensors: dict[str, Any] = field(default_factory=dict)
    """Name → numbers, or (type, numbers)."""
    context: int | None = None
    """The context that is asked for."""

    def gguf(self) -> Gguf:
        """The file."""
        keys = demo_keys()
        for key, value in self.keys.items():
            name = key if key.startswith("qwen2.") else f"llama.{key}"
            keys.pop(name, None)
            if value is not None:
                keys[name] = value if isinstance(value, Typed) else typed(key, value)
        tensors = {}
        for name, given in self.tensors.items():
            kind, values = given if isinstance(given[0], str) else ("F32", given)
            tensors[name] = Tensor(kind, (len(values),), tuple(values) if kind == "F32" else None)
        return Gguf(keys, tensors)


def _scaling(**keys: Any) -> dict[str, Any]:
    return {f"rope.scaling.{key}": value for key, value in keys.items()}


YARN = _scaling(type="yarn", factor=4.0, original_context_length=256) | {"context_length": 1024}
_YARN = (yarn(4, 256), M4)
_LISTS = {LONG: LONGS, SHORT: SHORTS}
_LONGROPE = _scaling(type="longrope", original_context_length=256)

ROWS = [
    Row("no keys", (plain(), 1.0)),
    Row("factor without type", (plain(4), 1.0), _scaling(factor=4.0)),
    Row("old key of the factor", (plain(4), 1.0), {"rope.scale_linear": 4.0}),
    Row("both keys of the factor", (plain(4), 1.0),
        {"rope.scale_linear": 8.0} | _scaling(factor=4.0)),
    Row("none with factor", (plain(), 1.0), _scaling(type="none", factor=4.0)),
    Row("linear without factor", (plain(), 1.0), _scaling(type="linear")),
    Row("linear with factor 0", (plain(), 1.0), _scaling(type="linear", factor=0.0)),
    Row("linear", (plain(4), 1.0), _scaling(type="linear", factor=4.0)),
    Row("linear below 1", (plain(0.5), 1.0), _scaling(type="linear", factor=0.5)),
    Row("yarn without factor", (plain(), 1.0),
        _scaling(type="yarn", original_context_length=256)),
    Row("yarn", _YARN, YARN),
    Row("yarn below 1", (yarn(0.5, 256), 1.0), YARN | _scaling(factor=0.5)),
    Row("yarn without original, window raised", (yarn(4, 1024), M4),
        _scaling(type="yarn", factor=4.0) | {"context_length": 1024}),
    Row("yarn with original 0", (yarn(4, 1024), M4), YARN | _scaling(original_context_length=0)),
    Row("dead yarn_attn_factor", _YARN, YARN | _scaling(yarn_attn_factor=2.0)),
    Row("dead yarn_ext_factor", _YARN, YARN | _scaling(yarn_ext_factor=0.5)),
    Row("dead betas", _YARN, YARN | _scaling(yarn_beta_fast=64.0, yarn_beta_slow=2.0)),
    Row("dead yarn_log_multiplier", _YARN, YARN | _scaling(yarn_log_multiplier=0.5)),
    Row("dead finetuned", _YARN, YARN | _scaling(finetuned=True)),
    Row("a dead key of a wrong type", _YARN, YARN | _scaling(yarn_beta_fast=Typed("u32", 64))),
    Row("attn_factor with none", (plain(), 1.3), _scaling(type="none", attn_factor=1.3)),
    Row("attn_factor with linear", (plain(4), 1.3),
        _scaling(type="linear", factor=4.0, attn_factor=1.3)),
    Row("attn_factor with yarn", (yarn(4, 256), M4 * 1.3), YARN | _scaling(attn_factor=1.3)),
    Row("attn_factor with rope_freqs", (over(R), 1.3), _scaling(attn_factor=1.3), {FREQS: R}),
    Row("freq_base in yarn's ramp", (yarn(4, 256, theta=5e5), M4), YARN | {"rope.freq_base": 5e5}),
    Row("freq_base absent", (plain(), 1.0), {"rope.freq_base": None}),
    Row("rope_freqs", (over(R), 1.0), {}, {FREQS: R}),
    Row("rope_freqs and linear", (over(R, plain(4)), 1.0),
        _scaling(type="linear", factor=4.0), {FREQS: R}),
    Row("rope_freqs and yarn", (over(R, yarn(4, 256)), M4), YARN, {FREQS: R}),
    Row("rope_freqs with a zero", "NaN", {}, {FREQS: (0.0, *R[1:])}),
    Row("longrope, long context", (over(LONGS), 1.0), _LONGROPE, _LISTS, 1024),
    Row("longrope, short context", (over(SHORTS), 1.0), _LONGROPE, _LISTS, 256),
    Row("longrope by the window of the file", (over(LONGS), 1.0),
        _LONGROPE | {"context_length": 1024}, _LISTS),
    Row("longrope, a window that is rounded up to 512", (over(LONGS), 1.0),
        {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 400,
         "context_length": 400}, _LISTS),
    Row("longrope with factor", (over(LONGS, plain(4)), 1.0),
        _LONGROPE | _scaling(factor=4.0), _LISTS, 1024),
    Row("longrope without lists", (plain(4), 1.0), _scaling(type="longrope", factor=4.0)),
    Row("longrope, one list", (plain(), 1.0), _LONGROPE, {LONG: LONGS}, 256),
    Row("longrope with rope_freqs", "refuses", _LONGROPE, {FREQS: R}),
    Row("lists without the type", "refuses", {}, _LISTS),
    Row("rope_freqs of a wrong length", "refuses", {}, {FREQS: R[:8]}),
    Row("rope_freqs as F16", "aborts", {}, {FREQS: ("F16", R)}),
    *(Row(f"type {name}", "aborts", _scaling(type=name, factor=4.0))
      for name in ("dynamic", "llama3", "YARN")),
    Row("factor as u32", "refuses", _scaling(factor=Typed("u32", 4))),
    Row("factor as f64", "refuses", _scaling(factor=Typed("f64", 4.0))),
    Row("context_length as u64", "refuses", {"context_length": Typed("u64", 256)}),
    Row("context_length as i32", "refuses", {"context_length": Typed("i32", 256)}),
    Row("context_length missing", "refuses", {"context_length": None}),
    Row("too many blocks", "aborts", {"block_count": 2**31}),
    Row("context_length 0", "refuses", {"context_length": 0}),
    Row("original as f32", "refuses",
        YARN | _scaling(original_context_length=Typed("f32", 256.0))),
    Row("keys with another prefix", (plain(), 1.0),
        {"qwen2.rope.scaling.type": Typed("str", "yarn"),
         "qwen2.rope.scaling.factor": Typed("f32", 4.0)}),
    Row("a context over the window", (plain(), 1.0), {}, {}, 2048),
    Row("a rotary width below the head's", "refuses", {"rope.dimension_count": 16}),
]  # fmt: skip
