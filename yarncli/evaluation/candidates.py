"""The settings that `fit` tries: which numbers are searched, where, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from yarncli.errors import UsageError
from yarncli.rope.methods import METHODS

Changes = Mapping[str, float]
"""Numbers of a conversion that are set otherwise than in the default, by their names."""

Tune = Literal["temperature", "betas", "all"]

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A number that is searched, on a logarithmic scale."""

    name: str
    """Of the option of `convert`."""
    step: float
    """Between neighbours of the coarse grid, as a ratio."""
    below: int
    """Steps of the coarse grid below the default."""
    above: int
    """Steps of the coarse grid above the default."""
    finest: float
    """The smallest step that is worth a try, as a ratio."""


_TEMPERATURE = Axis(name="attention_factor", step=1.1, below=2, above=2, finest=1.02)
# Whole powers of 2: the ramp ends at whole dimensions, so that a finer step often changes nothing.
_BETA_FAST = Axis(name="beta_fast", step=2.0, below=3, above=1, finest=1.4)
_BETA_SLOW = Axis(name="beta_slow", step=2.0, below=1, above=2, finest=1.4)
# With a smaller one the window would be shorter than what was asked for.
_FACTOR = Axis(name="factor", step=2.0, below=0, above=1, finest=1.4)

TUNED: Mapping[Tune, Sequence[Axis]] = {
    "temperature": (_TEMPERATURE,),
    "betas": (_BETA_FAST, _BETA_SLOW),
    "all": (_TEMPERATURE, _BETA_FAST, _BETA_SLOW, _FACTOR),
}
"""What each value of `--tune` searches."""


def axes_of(tune: Tune, method: str) -> list[Axis]:
    """What is searched of a method.

    Raises:
        UsageError: there is no such method, or it has nothing of that.
    """
    if method not in METHODS:
        raise UsageError(f"--method {method} is unknown; known: {', '.join(METHODS)}.")
    if METHODS[method].follows_text or "short_factor" in METHODS[method].options:
        fixed = "adapts to the text" if METHODS[method].follows_text else "has fixed factors"
        able = [
            name
            for name, other in METHODS.items()
            if not other.follows_text and "short_factor" not in other.options
        ]
        raise UsageError(
            f"{method} {fixed}, so there is nothing to search. Give --method {', '.join(able)}."
        )
    takes = (*METHODS[method].options, "factor")
    found = [axis for axis in TUNED[tune] if axis.name in takes]
    if not found:
        able = [n for n, m in METHODS.items() if TUNED[tune][0].name in m.options]
        raise UsageError(
            f"{method} has no {tune} to tune. Give --method {able[0]}, or --tune all, which "
            f"searches the factor of {method}."
        )
    return found


def name_of_changes(changes: Changes) -> str:
    """A setting as it is named: `attention_factor=1.1,beta_fast=8`, as `--override` takes it."""
    pairs = sorted(changes.items())
    return ",".join(f"{name}={str(value).removesuffix('.0')}" for name, value in pairs) or DEFAULT


def changes_of_name(name: str) -> dict[str, float]:
    """What `name_of_changes` named.

    Raises:
        ValueError: it is no such name.
    """
    pairs = [part.split("=") for part in name.split(",")] if name != DEFAULT else []
    return {key: float(value) for key, value in pairs}


def search(
    axes: Sequence[Axis], usual: Changes, score: Callable[[Changes], float | None], budget: int
) -> None:
    """Look for the setting of the lowest score, starting from the default.

    First a coarse grid along every axis in turn, each from the best setting so far; then the
    neighbours of the best, half as far away each time that none of them is better. The same scores
    always give the same settings in the same order.

    Args:
        axes: what is searched.
        usual: the value that the default has on each axis.
        score: measures a setting; None where there is none such, or it was measured before. The
            empty one is the default.
        budget: how many settings are measured at most, the default not counted.
    """
    best: dict[str, float] = {}  # by axis, how many of its steps away from the default
    lowest = score({})
    stride, grid = 1.0, True
    while axes and budget and lowest is not None:
        moved = False
        for axis in axes:
            start = best
            for steps in range(-axis.below, axis.above + 1) if grid else (-1, 1):
                place = {**start, axis.name: start.get(axis.name, 0.0) + steps * stride}
                found = score(_changes(place, axes, usual)) if budget and steps else None
                if found is None:
                    continue
                budget -= 1
                if found < lowest:
                    best, lowest, moved = place, found, True
        grid = False
        if not moved:
            stride /= 2
            axes = [axis for axis in axes if axis.step**stride >= axis.finest]


def _changes(place: Changes, axes: Sequence[Axis], usual: Changes) -> Changes:
    """The numbers at a place, to four significant digits: what is tried can be written down."""
    values = {axis.name: usual[axis.name] * axis.step ** place.get(axis.name, 0.0) for axis in axes}
    return {name: float(f"{values[name]:.4g}") for name, steps in place.items() if steps}
