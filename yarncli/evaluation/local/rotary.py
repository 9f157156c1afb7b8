"""RoPE whose frequencies depend on the text's length, held at one length."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Types whose frequencies transformers changes while it runs (modeling_rope_utils.py,
# dynamic_rope_update).
_LENGTH_DEPENDENT = ("dynamic", "longrope")


@contextmanager
def rope_frozen_at(model: Any, length: int) -> Iterator[None]:
    """Give every rotary module the frequencies of a text of `length` tokens.

    transformers' dynamic RoPE keeps the frequencies of the longest text it has seen, and its
    cached decoding mixes those of several lengths; longrope chooses by the positions of one
    forward call, so a chunk would get another set than the whole. Frozen, a prompt is read with
    the frequencies that arXiv:2309.00071 §3.3 gives for its length, in one call or in many.
    Modules of other RoPE types are untouched.
    """
    touched: list[tuple[Any, Any]] = []
    try:
        for module in model.modules():
            kinds = getattr(module, "rope_type", None)
            if kinds is None or not hasattr(module, "config"):
                continue
            layer_types = list(kinds) if isinstance(kinds, dict) else [None]
            live = [t for t in layer_types if _is_live(kinds if t is None else kinds[t])]
            if not live:
                continue
            touched.append((module, kinds))
            for layer_type in live:
                _set_length(module, layer_type, length)
            module.rope_type = (
                "default"
                if live == [None]
                else {t: "default" if t in live else kind for t, kind in kinds.items()}
            )
        yield
    finally:
        for module, kinds in touched:
            module.rope_type = kinds


def is_length_dependent(model: Any) -> bool:
    """Whether any rotary module of `model` has frequencies that depend on the text's length."""
    for module in model.modules():
        kinds = getattr(module, "rope_type", None)
        values = kinds.values() if isinstance(kinds, dict) else [kinds]
        if any(isinstance(kind, str) and _is_live(kind) for kind in values):
            return True
    return False


def _is_live(kind: str) -> bool:
    return any(word in kind for word in _LENGTH_DEPENDENT)


def _set_length(module: Any, layer_type: str | None, length: int) -> None:
    """Let the module's own update compute the frequencies of `length` from a fresh state."""
    prefix = "" if layer_type is None else f"{layer_type}_"
    device = getattr(module, f"{prefix}inv_freq").device
    fresh = getattr(module, f"{prefix}original_inv_freq").to(device).clone()
    setattr(module, f"{prefix}inv_freq", fresh)
    module.max_seq_len_cached = module.original_max_seq_len
    if hasattr(module, f"{prefix}max_seq_len_cached"):
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
    arguments = {} if layer_type is None else {"layer_type": layer_type}
    positions = torch.tensor([[length - 1]], device=device)
    module(torch.zeros(1, device=device), positions, **arguments)
