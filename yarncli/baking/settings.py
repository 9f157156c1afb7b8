"""What decides a bake."""

from __future__ import annotations

from dataclasses import dataclass

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
