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
    """The window to reach, tokens; `None` if `factor` is given."""
    factor: float | None = None
    """The window to reach as a multiple of the original window, or with `rescale` of the present
    window; `None` if `length` is given."""
    rescale: bool = False
    """Extend the existing scaling by its own method."""
    replace_scaling: bool = False
    """Remove the existing scaling and start from the given original length."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's own settings under transformers' names; `None` is "not given"."""
    sliding_window: SlidingWindow | None = None
    """The sliding window to write, tokens, or "off"; `None` does not change it."""

    def __post_init__(self) -> None:
        """Replace an alias by the name of the method.

        Raises:
            UsageError: there is no such method.
        """
        object.__setattr__(self, "method", get_method(self.method).name)
