"""The RoPE of a checkpoint, to write it into a GGUF file or to compare a GGUF file with it."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.config.reading import read_rope
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError
from yarncli.history import describe_source, read_history
from yarncli.planning.plan import window_of
from yarncli.rope.parameters import RopeParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Intended:
    """The RoPE of a checkpoint."""

    name: str
    """What to call the checkpoint."""
    setting: RopeParameters
    """Setting of the layers without a sliding window, or of all layers."""
    length: int
    """Context window of the checkpoint, tokens."""
    windowed: RopeParameters | None = None
    """Setting of the layers with a sliding window, if it differs."""
    source: str = ""
    """What a record names as the source of a step that starts from it."""


def intended_by(source: str | Path | Checkpoint) -> Intended:
    """Read what a checkpoint computes.

    Args:
        source: a checkpoint directory, a config.json or a Hub id.

    Raises:
        CheckpointError: it is damaged, or is not a model with RoPE.
        UnsupportedArchitectureError: its layers have more settings than a GGUF file can say.
        HubError: it cannot be fetched.
    """
    checkpoint = open_checkpoint(source)
    rope = read_history(checkpoint).informed(read_rope(checkpoint.config().value))
    scopes = rope.scopes.values()
    settings = _distinct(scope.parameters for scope in scopes if not scope.windowed)
    windowed = _distinct(scope.parameters for scope in scopes if scope.windowed)
    if len(settings) > 1 or len(windowed) > 1 or not scopes:
        raise UnsupportedArchitectureError(
            f"The layers of {checkpoint.name} have {len(settings) + len(windowed)} RoPE settings, "
            "but a GGUF file holds only one for layers without a window and one for the others."
        )
    (setting,) = settings or windowed
    return Intended(
        name=checkpoint.name,
        setting=setting,
        length=window_of(rope),
        windowed=next(iter(windowed), None) if settings else None,
        source=describe_source(checkpoint),
    )


def intended_beside(source: Path | Checkpoint) -> Intended | None:
    """What a GGUF file beside a checkpoint should compute; None if that cannot be compared.

    An adapter says nothing of RoPE, and what is wrong with a config, `check` reports.
    """
    with suppress(CheckpointError, UsageError):
        return intended_by(source)
    return None


def _distinct(settings: Iterable[RopeParameters]) -> list[RopeParameters]:
    found: list[RopeParameters] = []
    for setting in settings:
        if setting not in found:
            found.append(setting)
    return found
