"""The options of a bake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yarncli.history.weights import Form, Side


@dataclass(frozen=True, kw_only=True)
class BakeSettings:
    """The options that decide the bytes of a bake; `yarncli.json` records them."""

    form: Form = "neutral"
    """"neutral" moves the whole attention factor into the weights; "residual" leaves yarn's default
    in the config and moves the rest."""
    side: Side | None = None
    """Which projections are multiplied; None for keys, or queries if keys have a bias or a cache
    scale."""
    attention_factor: float | None = None
    """Bake this factor instead of the one in the config."""
    layout: str | None = None
    """Bake an unknown model with this layout."""
    assume_like: str | None = None
    """Treat an unknown model type as this one."""


@dataclass(frozen=True, kw_only=True)
class BakeOptions(BakeSettings):
    """How to bake, what to check, and how to write it."""

    engines: Sequence[str] = ()
    """Ids of engines; refuse the bake if one of them would not compute the result as intended."""
    adapter: tuple[Path, Path] | None = None
    """The directory of a LoRA adapter of the source, and the directory for the scaled adapter."""
    carrier: Literal["key", "scale", "norm", "weights"] | None = None
    """Where to put the factor in a GGUF file; by default an exact place outside the weights."""
    verify: bool = False
    """Also compare all other bytes with the source, and bake a small random model of the kind."""
    verify_logits: str | None = None
    """Run both checkpoints on this text and compare their logits."""
    in_place: bool = False
    """Change the source itself, with an undo journal."""
    dry_run: bool = False
    """Decide and check everything, and write nothing."""
    overwrite: bool = False
    """Replace existing checkpoint directories."""
    fsync: bool = False
    """Flush the output to the disk, to survive a power failure."""
