"""Target: what a user asks of an extension."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarncli.planning.sliding import SlidingWindow
from yarncli.rope.methods import DEFAULT_METHOD, get_method


@dataclass(frozen=True, slots=True)
class Target:
    """What the user asks for; exactly one of `length` and `factor` is given."""

    method: str = DEFAULT_METHOD
    """The name of the method in `METHODS`."""
    length: int | None = None
    """The window to reach, tokens; `None` where `factor` is given."""
    factor: float | None = None
    """The window to reach as a multiple of the original one, or with `rescale` of the present one;
    `None` where `length` is given."""
    rescale: bool = False
    """Extend the scaling that the model has, by its own method."""
    replace_scaling: bool = False
    """Drop the scaling that the model has and start from the original length that was given."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's own settings under transformers' names; `None` is "not given"."""
    sliding_window: SlidingWindow | None = None
    """The sliding window that the config gets, tokens, or "off"; `None` leaves it."""

    def __post_init__(self) -> None:
        """Give the method its own name where an alias was given.

        Raises:
            UsageError: there is no such method.
        """
        object.__setattr__(self, "method", get_method(self.method).name)
