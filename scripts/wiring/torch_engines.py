"""What the model files of a torch engine pass to its rotary classes, and what those compute."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.wiring.probes import describe, failure
from scripts.wiring.stubs import Stub

Numbers = tuple[list[float], float]

_made: list[tuple[Any, int | None, int]] = []


def recorded(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, a function that gives rotary modules, with a note of every module it gives."""

    def record(*args: Any, **kwargs: Any) -> Any:
        given = make(*args, **kwargs)
        size = args[0] if args else kwargs.get("head_size", 0)
        _made.append((given, _layer(), int(size)))
        return given

    return record


def _layer() -> int | None:
    """The layer that is being built: an argument of one of the calling functions."""
    frame = sys._getframe(2)
    while frame is not None:
        for name in ("layer_id", "layer_idx", "layer_index", "idx"):
            value = frame.f_locals.get(name)
            if type(value) is int:
                return value
        frame = frame.f_back
    return None


def build(make_model: Callable[[], Any]) -> list[tuple[Any, int | None]]:
    """Build a model; its rotary modules, each with its layer where that is known."""
    _made.clear()
    torch.set_default_dtype(torch.float32)
    try:
        model: Any = make_model()
    except Exception:
        # What was recorded before an unrelated part failed still tells the first layer's wiring.
        if not _made or _failed_in_rotary():
            raise
        return [(module, layer) for module, layer, _ in _made]
    found = [(module, layer) for module, layer, _ in _made]
    if not found and isinstance(model, nn.Module):
        found = [
            (part, None)
            for name, part in model.named_modules()
            if (hasattr(part, "inv_freq") or hasattr(part, "cos_sin_cache")) and "vis" not in name
        ]
    return found


def _failed_in_rotary() -> bool:
    trace = sys.exc_info()[2]
    while trace is not None:
        if "rotary_embedding" in trace.tb_frame.f_code.co_filename:
            return True
        trace = trace.tb_next
    return False


def numbers(module: Any, original: int) -> tuple[Numbers, Numbers | None]:
    """Frequencies and scale of a rotary module for a long and, if it has two, a short text."""
    both = getattr(module, "long_short_cos_sin_cache", None)
    if isinstance(both, torch.Tensor):
        start = int(getattr(module, "original_max_position_embeddings", original))
        return _row(both, start + 1), _row(both, 1)
    cache = getattr(module, "cos_sin_cache", None)
    if isinstance(cache, torch.Tensor):
        return _row(cache, 1), None
    inv_freq = module.inv_freq
    return (inv_freq.float().tolist(), float(getattr(module, "attention_scaling", 1.0))), None


def _row(cache: torch.Tensor, position: int) -> Numbers:
    """Frequencies and scale from the row of one position after the origin of a cos/sin table."""
    row = cache[position].double().reshape(-1)
    cos, sin = row.chunk(2)
    scale = float(torch.hypot(cos, sin)[0])
    return torch.atan2(sin, cos).tolist(), scale


def outcome(
    found: list[tuple[Any, int | None]],
    probe: tuple[str, str, int],
    layer_types: list[str] | None,
    original: int,
    softmax: float = 1.0,
) -> Any:
    """One line, or an object of scope → line, for the rotary modules of a model."""
    kind, name, dim = probe
    lines: dict[str, str] = {}
    for module, layer in found:
        long, short = numbers(module, original)
        scope = "full_attention"
        if layer_types and layer is not None:
            scope = layer_types[layer % len(layer_types)]
        lines.setdefault(scope, describe(kind, name, long, short, softmax, dim))
    if not lines:
        return "none"
    distinct = set(lines.values())
    return distinct.pop() if len(distinct) == 1 else dict(sorted(lines.items()))


def tried(function: Callable[[], Any]) -> Any:
    """The function's result, or one line for its exception."""
    try:
        return function()
    except Exception as error:
        return failure(error)


def in_folder(config: dict[str, Any], use: Callable[[str], Any]) -> Any:
    """`use` of a folder that holds the config."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        return use(folder)


def tolerate_stubs() -> None:
    """Let torch containers hold stubs, and compile nothing."""
    torch.compile = lambda f=None, **_: f if f else (lambda g: g)
    torch.Tensor.cuda = lambda self, *_, **__: self
    add = nn.Module.add_module

    def add_module(self: nn.Module, name: str, module: Any) -> None:
        add(self, name, nn.Identity() if isinstance(module, Stub) else module)

    nn.Module.add_module = add_module
    nn.Module.register_module = add_module


def softmax_scale(scaling: float, width: int) -> float:
    """The softmax scale times √d."""
    return scaling * math.sqrt(width)
