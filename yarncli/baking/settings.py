"""What decides a bake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yarncli.history.weights import Form, Side


@dataclass(frozen=True, kw_only=True)
class BakeSettings:
    """What decides the bytes of a bake; `yarncli.json` records it."""

    form: Form = "neutral"
    """"neutral" moves the whole attention factor into the weights; "residual" leaves yarn's default
    in the config and moves the rest."""
    side: Side | None = None
    """Which projections are multiplied; None for keys, or queries where keys have a bias or a cache
    scale."""
    attention_factor: float | None = None
    """Bake this factor instead of the config's."""
    layout: str | None = None
    """Bake an unknown model as this layout."""
    assume_like: str | None = None
    """Treat an unknown model type as this one."""


@dataclass(frozen=True, kw_only=True)
class BakeOptions(BakeSettings):
    """How to bake, what to check, and how to write it."""

    engines: Sequence[str] = ()
    """Ids of engines; refuse the bake if one of them would not compute the result as intended."""
    adapter: tuple[Path, Path] | None = None
    """The directory of a LoRA adapter of the source, and the one to write it to, scaled too."""
    carrier: Literal["key", "scale", "norm", "weights"] | None = None
    """What carries the factor in a GGUF file; by default what is exact and changes no weights."""
    verify: bool = False
    """Compare all other bytes with the source too, and bake a small random model of the kind."""
    verify_logits: str | None = None
    """Run both checkpoints on this text and compare their logits."""
    in_place: bool = False
    """Change the source itself, under an undo journal."""
    dry_run: bool = False
    """Decide and check everything, and write nothing."""
    overwrite: bool = False
    """Replace existing checkpoint directories."""
    fsync: bool = False
    """Survive a power cut too."""
