"""Keys of a GGUF file that concern RoPE but have no effect in llama.cpp."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from yarncli.gguf.architectures import Architecture, load_table
from yarncli.gguf.facts import (
    ATTN_FACTOR,
    CONTEXT,
    FACTOR,
    FINETUNED,
    OLD_FACTOR,
    SCALING,
    SECTIONS,
    THETA,
    TYPE,
    WINDOW,
    Gguf,
)
from yarncli.gguf.loading import reads
from yarncli.gguf.runtime import RUNTIME_THETA, Computed, run, scaling_factor, yarn_share

YARN_ATTN = "rope.scaling.yarn_attn_factor"
# Key names that all architectures share. They show that a key belongs to RoPE although its prefix
# is that of another architecture.
_SHARED = (CONTEXT, "rope.", WINDOW)
_BETAS = ("rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow")
# A key with this value changes nothing, so it does not mislead.
_NEUTRAL = {
    "rope.scaling.yarn_beta_fast": 32.0,
    "rope.scaling.yarn_beta_slow": 1.0,
    "rope.scaling.yarn_log_multiplier": 0.0,
    "rope.scaling.yarn_ext_factor": 1.0,
    "rope.scaling.alpha": 0.0,
    ATTN_FACTOR: 1.0,
    FACTOR: 1.0,
    OLD_FACTOR: 1.0,
}


@dataclass(frozen=True, slots=True)
class DeadKey:
    """A key that has no effect."""

    name: str
    """Its full name."""
    why: str
    """Why, as the end of a sentence for people."""
    misleads: bool
    """Whether it says something different from what llama.cpp computes."""


def dead_keys(gguf: Gguf) -> tuple[DeadKey, ...]:
    """The keys without effect, in the order of the file; none if llama.cpp computes nothing."""
    row, computed = gguf.row, run(gguf)
    if row is None or not isinstance(computed, Computed):
        return ()
    found = (_judged(gguf, row, computed, name) for name in gguf.keys)
    return tuple(dead for dead in found if dead)


def _judged(gguf: Gguf, row: Architecture, computed: Computed, name: str) -> DeadKey | None:
    prefix, _, key = name.partition(".")
    if prefix != row.name:
        known = prefix in load_table()["architectures"] and key.startswith(_SHARED)
        why = f"the architecture is {row.name}, so only keys that begin with {row.name}. are read"
        return DeadKey(name, why, misleads=True) if known else None
    why = next(_reasons(gguf, row, key), "")
    if not why:
        return None
    value = gguf.get(key)
    says_same = key == FINETUNED or (key in _NEUTRAL and value == _NEUTRAL[key] and key != FACTOR)
    if key == YARN_ATTN:
        says_same = _close(value, computed.attention_factor)
        why += f"; the attention factor is {computed.attention_factor:.5g}"
    elif key == OLD_FACTOR:
        says_same = _close(value, gguf.get(FACTOR))
    elif key in _BETAS and gguf.get(TYPE) == "yarn":
        why += f"; the ramp uses {_NEUTRAL[key]:g}"
    return DeadKey(name, why, misleads=not says_same)


def _close(a: object, b: object) -> bool:
    return (
        isinstance(a, int | float)
        and isinstance(b, int | float)
        and math.isclose(a, b, rel_tol=1e-6)
    )


def _reasons(gguf: Gguf, row: Architecture, key: str) -> Iterator[str]:
    kind = gguf.get(TYPE, "linear")
    if row.fixed and key in (THETA, *SCALING) and gguf.get(key) not in (RUNTIME_THETA, "none"):
        yield f"the graph of {row.name} rotates by θ 10000 without scaling"
    if key == FINETUNED and not row.switch:
        yield "the runtime stores it but never uses it"
    if key == "rope.scaling.alpha" and not row.alpha:
        yield f"the graph of {row.name} does not use it"
    if key == "rope.freq_base_swa" and row.base_swa and gguf.window is None:
        yield "no layer of the file attends within a window"
    if key.startswith("rope.scaling.yarn_") or key == "rope.freq_base_swa":
        if key not in reads(row):
            yield f"the runtime does not read it for {row.name}"
        elif key.startswith("rope.scaling.yarn_"):
            yield from _yarn_reasons(gguf, row, key)
    if key == SECTIONS and not row.sections:
        yield f"the runtime does not read it for {row.name}"
    if key == FACTOR and kind == "none":
        yield "the type is none"
    if key == OLD_FACTOR and (kind == "none" or gguf.has(FACTOR)):
        yield "the type is none" if kind == "none" else f"{gguf.name(FACTOR)} takes precedence"
    if key == ATTN_FACTOR and row.compress:
        yield f"the graph of {row.name} does not use it"


def _yarn_reasons(gguf: Gguf, row: Architecture, key: str) -> Iterator[str]:
    """Why a key of yarn has no effect although the runtime reads it."""
    share = yarn_share(gguf, row)
    if key == YARN_ATTN:
        if share:
            yield "yarn overwrites it with the factor that it computes"
    elif scaling_factor(gguf) == 1:
        yield "nothing is scaled"
    elif not share and not (key.endswith("log_multiplier") and row.softmax):
        yield f"the type is {gguf.get(TYPE, 'linear')}, not yarn" if not row.ramp else "yarn is off"
