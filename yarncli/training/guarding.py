"""The guard: checks during a training that the loaded model has the RoPE of its conversion."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.leftovers import STAMP_NAME
from yarncli.checkpoint.output import atomic_write
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.config.reading import read_rope
from yarncli.errors import CheckFailed, UsageError
from yarncli.rope.parameters import RopeParameters
from yarncli.training.deciding import history_of
from yarncli.training.stamps import SCHEMA_VERSION, Stamp

# Relative. The error of float32 is 6e-8, and that of transformers' formulas 1e-6. The error of
# bfloat16 is 4e-3, which gives wrong angles after a few hundred tokens.
_TOLERANCE = 1e-5
# Types whose frequencies transformers changes while it runs. It keeps the first ones as well.
_LIVE = ("dynamic", "longrope")


@dataclass(frozen=True, kw_only=True)
class Guarded:
    """What the guard saw. The guard raises an error if something differs."""

    modules: tuple[str, ...]
    """Names of the rotary modules that were checked."""
    length: int
    """The window of the conversion, tokens."""
    train_length: int | None
    """The length of the training texts, tokens, as the caller stated it."""
    steps: int | None
    """Steps of the optimizer so far, as the caller stated them."""
    stamp: Path | None
    """The file of the stamp; None if none was asked for."""

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "schema_version": SCHEMA_VERSION,
            "modules": list(self.modules),
            "length": self.length,
            "train_length": self.train_length,
            "steps": self.steps,
            "stamp": str(self.stamp) if self.stamp else None,
        }


def guard(
    model: Any,
    converted: str | Path | Checkpoint,
    output: str | Path | None = None,
    *,
    train_length: int | None = None,
    steps: int | None = None,
) -> Guarded:
    """Check that a loaded model has the frequencies and attention factor of its conversion.

    Call it when the training starts, and again with `output` when it has ended. The second call
    writes a stamp into the output, which `yarncli finish` reads.

    Args:
        model: the loaded model, a torch module. PEFT or a trainer may have wrapped it.
        converted: the conversion that it was loaded from.
        output: the directory that the trainer saves to; the stamp is written there.
        train_length: the length of the training texts, tokens.
        steps: steps of the optimizer so far.

    Raises:
        CheckFailed: a frequency or an attention factor differs, or no rotary module was found.
        UsageError: the training texts are longer than the window.
        CheckpointError: the conversion cannot be read.
        OutputError: the stamp cannot be written.
    """
    checkpoint = open_checkpoint(converted)
    rope = read_rope(checkpoint.config().value)
    plan = history_of(checkpoint).plan
    length = plan.length if plan else rope.max_position_embeddings
    if train_length is not None and train_length > length:
        raise UsageError(
            f"The training texts have {train_length:,} tokens, more than the window of {length:,} "
            f"of {checkpoint.name}. Convert to a longer window first, or train on shorter texts."
        )
    settings = {name: s.parameters for name, s in rope.scopes.items() if s.layers}
    seen = [(name, module) for name, module in model.named_modules() if _rotates(module)]
    found: set[str] = set()
    for name, module in seen:
        for scope, prefix, kind in _parts(module, settings):
            _compare(name, module, prefix, kind, settings[scope])
            found.add(scope)
    if found != settings.keys():
        lacking = ", ".join(sorted(settings.keys() - found))
        raise CheckFailed(
            f"The guard found no rotary module of transformers for the setting {lacking} in this "
            "model, so its frequencies are unknown. Nothing was recorded."
        )
    stamp = None
    if output is not None:
        stamp = Path(output) / STAMP_NAME
        data = Stamp(length=length, settings=settings, train_length=train_length, steps=steps)
        atomic_write(stamp, data.to_bytes())
    return Guarded(
        modules=tuple(name for name, _ in seen),
        length=length,
        train_length=train_length,
        steps=steps,
        stamp=stamp,
    )


def _rotates(module: Any) -> bool:
    """Whether a module is a rotary embedding of transformers' text models."""
    return getattr(module, "rope_type", None) is not None and hasattr(module, "config")


def _parts(module: Any, settings: dict[str, RopeParameters]) -> Iterator[tuple[str, str, str]]:
    """The scopes of a module: name, prefix of the module's attributes, and RoPE type of each."""
    kinds = module.rope_type
    if not isinstance(kinds, dict):
        if len(settings) == 1:
            yield next(iter(settings)), "", str(kinds)
        return
    for scope, kind in kinds.items():
        if scope in settings:
            yield scope, f"{scope}_", str(kind)


def _compare(name: str, module: Any, prefix: str, kind: str, wanted: RopeParameters) -> None:
    live = any(word in kind for word in _LIVE)
    tensor = getattr(module, f"{prefix}{'original_' if live else ''}inv_freq")
    frequencies = tensor.detach().to("cpu").double().tolist()
    expected = wanted.inv_freq()
    if len(frequencies) != len(expected):
        raise CheckFailed(
            f"{name} has {len(frequencies)} frequencies, but the conversion {len(expected)}. The "
            "model is not the one that was converted."
        )
    for pair, (is_now, should) in enumerate(zip(frequencies, expected, strict=True)):
        if not math.isclose(is_now, should, rel_tol=_TOLERANCE):
            raise CheckFailed(
                f"{name}: inv_freq[{pair}] is {is_now:.6g}, but the conversion says {should:.6g} "
                f"({wanted.rope_type}, factor {wanted.resolved_factor():g}). The trainer changed "
                "the RoPE setting, or cast the buffer to a 16-bit dtype. Remove every RoPE "
                "option from its configuration."
            )
    factor = float(getattr(module, f"{prefix}attention_scaling", 1.0))
    if not math.isclose(factor, wanted.effective_attention_factor(), rel_tol=_TOLERANCE):
        raise CheckFailed(
            f"{name}: the attention factor is {factor:.6g}, but the conversion says "
            f"{wanted.effective_attention_factor():.6g}. The trainer changed the RoPE setting. "
            "Remove every RoPE option from its configuration."
        )
