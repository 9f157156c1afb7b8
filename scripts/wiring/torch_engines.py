"""What the model files of a torch engine pass to its rotary classes, and what those compute."""

from __future__ import annotations

import functools
import json
import math
import multiprocessing
import re
import signal
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

_LIMIT = 6
"""Seconds of computing for one model."""

_made: list[tuple[Any, int | None, Any]] = []
"""Rotary module, layer, and the attention module that asked for it."""


def recorded(make: Callable[..., Any]) -> Callable[..., Any]:
    """`make`, a function that gives rotary modules, with a note of every module it gives."""

    def record(*args: Any, **kwargs: Any) -> Any:
        given = make(*args, **kwargs)
        _made.append((given, _layer(), _owner()))
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


def _owner() -> Any:
    """The module whose `__init__` asked for the rotary module."""
    frame = sys._getframe(2)
    while frame is not None:
        owner = frame.f_locals.get("self")
        if isinstance(owner, nn.Module):
            return owner
        frame = frame.f_back
    return None


def build(make_model: Callable[[], Any]) -> list[tuple[Any, int | None, float]]:
    """Build a model; its rotary modules, each with its layer, if known, and softmax scale × √d."""
    _made.clear()
    torch.set_default_dtype(torch.float32)
    signal.signal(signal.SIGVTALRM, _late)
    signal.setitimer(signal.ITIMER_VIRTUAL, _LIMIT)
    try:
        model: Any = make_model()
    except Exception:
        # What was recorded before an unrelated part failed still tells the first layer's wiring.
        if not _made or _failed_in_rotary():
            raise
        model = None
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    found = [(module, number, _softmax(owner)) for module, number, owner in _made]
    if not found and isinstance(model, nn.Module):
        found = [
            (part, None, 1.0)
            for name, part in model.named_modules()
            if (hasattr(part, "inv_freq") or hasattr(part, "cos_sin_cache")) and "vis" not in name
        ]
    return found


def _late(*_: Any) -> None:
    raise TooLargeError(f"not built in {_LIMIT} s")


def _softmax(owner: Any) -> float:
    """The softmax scale times √d of an MLA attention; 1 for others."""
    scale, width = (getattr(owner, name, None) for name in ("scaling", "qk_head_dim"))
    if not isinstance(scale, float) or not isinstance(width, int):
        return 1.0
    return scale * math.sqrt(width)


def layer(make: Callable[[], Any]) -> Any:
    """A decoder layer, or a placeholder if it fails after it has made its rotary module."""
    before = len(_made)
    try:
        return make()
    except Exception:
        if len(_made) == before or _failed_in_rotary():
            raise
        return nn.Identity()


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
        rows = _row(both, start + 1), _row(both, 1)
        # vLLM decides once, by the length it serves.
        chosen = getattr(module, "use_long_rope", None)
        return rows if chosen is None else ((rows[0], rows[0]) if chosen else (rows[1], rows[1]))
    cache = getattr(module, "cos_sin_cache", None)
    if isinstance(cache, torch.Tensor):
        return _row(cache, 1), None
    inv_freq = module.inv_freq
    return (inv_freq.float().tolist(), float(getattr(module, "attention_scaling", 1.0))), None


def width(module: Any) -> int:
    """How many frequencies a rotary module has."""
    for name in ("cos_sin_cache", "long_short_cos_sin_cache"):
        table = getattr(module, name, None)
        if isinstance(table, torch.Tensor):
            return int(table.shape[-1]) // 2
    return len(module.inv_freq)


def _row(cache: torch.Tensor, position: int) -> Numbers:
    """Frequencies and scale from the row of one position after the origin of a cos/sin table."""
    row = cache[position].double().reshape(-1)
    cos, sin = row.chunk(2)
    scale = float(torch.hypot(cos, sin)[0])
    return torch.atan2(sin, cos).tolist(), scale


def outcome(
    found: list[tuple[Any, int | None, float]],
    probe: tuple[str, str, int],
    layer_types: list[str] | None,
    original: int,
) -> Any:
    """One line, or an object of scope → line, for the rotary modules of a model."""
    kind, name, dim = probe
    lines: dict[str, str] = {}
    for module, number, softmax in found:
        long, short = numbers(module, original)
        scope = "full_attention"
        if layer_types and number is not None:
            scope = layer_types[number % len(layer_types)]
        lines.setdefault(scope, describe(kind, name, long, short, softmax, dim))
    if not lines:
        return "none"
    distinct = set(lines.values())
    return distinct.pop() if len(distinct) == 1 else dict(sorted(lines.items()))


class TooLargeError(RuntimeError):
    """A model cannot be built small."""


def tried(function: Callable[[], Any]) -> Any:
    """The function's result, or one line for its exception."""
    try:
        return function()
    except TooLargeError:
        raise
    except Exception as error:
        return failure(error)


def entries(
    make: Callable[[str], dict[str, Any]], kinds: list[str], jobs: int
) -> dict[str, dict[str, Any]]:
    """Model type → its entry, made by `jobs` processes."""
    context = multiprocessing.get_context("fork")
    found = {}
    with context.Pool(jobs, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for kind, entry in pool.imap(functools.partial(_entry, make), kinds):
            found[kind] = entry
            print(kind, entry.get("rope"), entry.get("note", ""), file=sys.stderr, flush=True)
    return found


def _entry(make: Callable[[str], dict[str, Any]], kind: str) -> tuple[str, dict[str, Any]]:
    try:
        return kind, make(kind)
    except TooLargeError as error:
        return kind, {"rope": "unknown", "note": str(error)}


def in_folder(config: dict[str, Any], use: Callable[[str], Any]) -> Any:
    """`use` of a folder that holds the config."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(config), encoding="utf-8")
        return use(folder)


def evidence(path: Path) -> str:
    """A model file with the lines where it asks for a rotary module."""
    lines = path.read_text(encoding="utf-8").splitlines()
    asks = re.compile(r"\bget_rope(_wrapper)?\($|\bget_rope(_wrapper)?\([^)]")
    found = [str(i) for i, line in enumerate(lines, 1) if asks.search(line) and "def " not in line]
    return f"{path.name}:{','.join(found)}" if found else path.name


def tolerate_stubs() -> None:
    """Let torch containers hold stubs; compile nothing and give no weight a value."""
    from transformers import PreTrainedModel

    PreTrainedModel.post_init = lambda self: None
    for kind in (nn.Linear, nn.Embedding, nn.Conv1d, nn.Conv2d, nn.Conv3d):
        kind.reset_parameters = lambda self: None
    torch.compile = lambda f=None, **_: f if f else (lambda g: g)
    torch.cuda.Stream = torch.cuda.Event = type("Quiet", (Stub,), {})
    torch.Tensor.cuda = lambda self, *_, **__: self
    add = nn.Module.add_module

    def add_module(self: nn.Module, name: str, module: Any) -> None:
        add(self, name, nn.Identity() if isinstance(module, Stub) else module)

    nn.Module.add_module = add_module
    nn.Module.register_module = add_module
