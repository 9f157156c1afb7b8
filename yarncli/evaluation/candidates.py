"""The settings that `fit` tries: the numbers to search, their range, and the order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from yarncli.errors import UsageError
from yarncli.rope.methods import METHODS

Changes = Mapping[str, float]
"""The numbers of a conversion that differ from the default, by name."""

Tune = Literal["temperature", "betas", "all"]

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """A number that is searched, on a logarithmic scale."""

    name: str
    """Name of the number, as in the option of `convert`."""
    step: float
    """Ratio between neighbours of the coarse grid."""
    below: int
    """Number of coarse steps below the default."""
    above: int
    """Number of coarse steps above the default."""
    finest: float
    """The smallest step that is tried, as a ratio."""


_TEMPERATURE = Axis(name="attention_factor", step=1.1, below=2, above=2, finest=1.02)
# Powers of 2. The ramp ends at whole dimensions, so a finer step often changes nothing.
_BETA_FAST = Axis(name="beta_fast", step=2.0, below=3, above=1, finest=1.4)
_BETA_SLOW = Axis(name="beta_slow", step=2.0, below=1, above=2, finest=1.4)
# A smaller factor would give a shorter window than the wanted one.
_FACTOR = Axis(name="factor", step=2.0, below=0, above=1, finest=1.4)

TUNED: Mapping[Tune, Sequence[Axis]] = {
    "temperature": (_TEMPERATURE,),
    "betas": (_BETA_FAST, _BETA_SLOW),
    "all": (_TEMPERATURE, _BETA_FAST, _BETA_SLOW, _FACTOR),
}
"""Value of `--tune` → the numbers that it searches."""


def axes_of(tune: Tune, method: str) -> list[Axis]:
    """The axes to search for a method.

    Raises:
        UsageError: there is no such method, or it does not have these numbers.
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
    """The name of a setting in the form of `--override`.

    Example:
        >>> name_of_changes({"attention_factor": 1.1, "beta_fast": 8.0})
        'attention_factor=1.1,beta_fast=8'
    """
    pairs = sorted(changes.items())
    return ",".join(f"{name}={str(value).removesuffix('.0')}" for name, value in pairs) or DEFAULT


def changes_of_name(name: str) -> dict[str, float]:
    """The setting that `name_of_changes` named.

    Raises:
        ValueError: the text is not such a name.
    """
    pairs = [part.split("=") for part in name.split(",")] if name != DEFAULT else []
    return {key: float(value) for key, value in pairs}


def search(
    axes: Sequence[Axis], usual: Changes, score: Callable[[Changes], float | None], budget: int
) -> None:
    """Look for the setting of the lowest score, starting from the default.

    The search first tries a coarse grid along each axis in turn, from the best setting so far. Then
    it tries the neighbours of the best setting; if none of them is better, the step is halved. The
    same scores always give the same settings in the same order.

    Args:
        axes: the axes to search.
        usual: the value of the default on each axis.
        score: measures a setting; None if the setting is impossible or was measured before. The
            empty setting is the default.
        budget: the largest number of settings to measure, without the default.
    """
    best: dict[str, float] = {}  # axis → number of steps from the default
    lowest = score({})
    stride, grid = 1.0, True
    # The first round walks the coarse grid. Every later round tries both neighbours on each axis.
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
    """The numbers at a place, rounded to four significant digits so that a user can type them."""
    values = {axis.name: usual[axis.name] * axis.step ** place.get(axis.name, 0.0) for axis in axes}
    return {name: float(f"{values[name]:.4g}") for name, steps in place.items() if steps}
