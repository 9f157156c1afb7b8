"""Curves with intervals over an axis of numbers; readable without colours."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from yarncli.figures import literal
from yarncli.figures.styles import styles_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = "#555555"
_LABEL = 60  # characters of a name in a legend
# Parts of an axis. A tick that is closer to the one before it cannot be told from it, and a label
# overlaps the one before it.
_BETWEEN_TICKS, _BETWEEN_LABELS = 0.005, 0.05


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over an axis."""

    name: str
    """The name in the legend."""
    points: Sequence[tuple[float, float, tuple[float, float] | None]]
    """Place on the axis (such as a length in tokens), value, and its interval or None; sorted by
    place."""
    method: str = ""
    """The name whose colour, dash and marker it has; empty for its own name."""


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw curves on a logarithmic axis of lengths; every length has its own place and tick."""
    lengths = sorted({int(length) for curve in curves for length, _, _ in curve.points})
    draw_lines(axes, curves, _spread(lengths))
    set_lengths(axes, lengths)


def draw_lines(axes: Axes, curves: Sequence[Curve], spread: float) -> None:
    """Draw curves with their intervals.

    Args:
        axes: where to.
        curves: what.
        spread: by how much the places of the first and the last curve differ, log2, so that the
            bars of several stand side by side.
    """
    styles = styles_of([curve.method or curve.name for curve in curves])
    steps = max(len(curves) - 1, 1)
    for number, (curve, style) in enumerate(zip(curves, styles, strict=True)):
        aside = 2 ** (spread * (number - (len(curves) - 1) / 2) / steps)
        places = [place * aside for place, _, _ in curve.points]
        values = [value for _, value, _ in curve.points]
        axes.plot(places, values, ms=6, lw=1.6, label=literal(curve.name, _LABEL), **style.options)
        known = [(p, v, i) for p, v, (_, _, i) in zip(places, values, curve.points, strict=True)
                 if i is not None]  # fmt: skip
        if known:
            axes.errorbar(
                [place for place, _, _ in known], [value for _, value, _ in known],
                yerr=bars([(value, ends) for _, value, ends in known]), fmt="none",
                ecolor=style.colour, elinewidth=1.2, capsize=3,
            )  # fmt: skip


def bars(
    points: Sequence[tuple[float, tuple[float, float]]],
) -> tuple[list[float], list[float]]:
    """How far the ends of each interval are below and above its value, as `Axes.errorbar` asks."""
    below = [value - low for value, (low, _) in points]
    above = [high - value for value, (_, high) in points]
    return below, above


def _spread(lengths: Sequence[int]) -> float:
    """How far curves are shifted sideways: half of the narrowest gap, at most 4 % of the axis."""
    gaps = [math.log2(b / a) for a, b in pairwise(lengths)]
    return min(min(gaps) / 2, sum(gaps) / 25) if gaps else 0.2


def set_lengths(axes: Axes, lengths: Iterable[int]) -> None:
    """A logarithmic axis with a tick at each of `lengths` that is far enough from the one before.

    Labels that would overlap are left out.
    """
    ticks = sorted(lengths)
    axes.set_xscale("log", base=2)
    left, right = axes.get_xlim()
    if len(ticks) == 1:
        left, right = min(left, ticks[0] / 2), max(right, ticks[0] * 2)
        axes.set_xlim(left, right, auto=True)
    names: dict[int, str] = {}
    last_tick = last_label = -math.inf
    for tick in ticks:
        place = math.log2(tick / left) / math.log2(right / left)
        if place - last_tick >= _BETWEEN_TICKS:
            last_tick, names[tick] = place, ""
            if place - last_label >= _BETWEEN_LABELS:
                last_label, names[tick] = place, f"{tick:,}"
    axes.set_xticks(
        list(names), list(names.values()), rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.set_xticks([], minor=True)


def mark_windows(axes: Axes, windows: Iterable[tuple[int, int]]) -> None:
    """A vertical line at each original window (dotted) and each extended one (dashed).

    Each line is at its own length, and the axis is extended to it. The legend names the lines.
    """
    ticks = [int(tick) for tick in axes.get_xticks()]
    for window, style in window_lines(windows):
        axes.axvline(window, zorder=0, **style)
    axes.relim()
    axes.autoscale_view(scaley=False)
    set_lengths(axes, ticks)


def window_lines(
    windows: Iterable[tuple[int, int]], extended: str = "new window"
) -> list[tuple[int, dict[str, Any]]]:
    """Each original and extended window with the options of its line.

    Args:
        windows: pairs of both, tokens; 0 is unknown.
        extended: what the second is called.
    """
    pairs = set(windows)
    originals = {original for original, _ in pairs if original}
    found = []
    for window in sorted(originals | {new for _, new in pairs if new}):
        name, dash = ("original window", ":") if window in originals else (extended, "--")
        label = f"{name} {window:,}"
        found.append((window, {"color": WINDOW, "lw": 1.1, "ls": dash, "label": label}))
    return found


def put_legend(axes: Axes, curves: int) -> None:
    """Add a legend below the figure, unless there is a single curve without windows."""
    handles, labels = axes.get_legend_handles_labels()
    if curves > 1 or len(handles) > 1:
        put_handles(axes.figure, handles, labels)


def put_handles(figure: Any, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """Add a legend of `handles` below all axes, and make the figure higher by its height."""
    width, height = figure.get_size_inches()
    widest = max(map(len, labels)) * 0.075 + 0.75  # inches of an entry at 9 points
    columns = max(1, min(len(labels), int(width / widest)))
    figure.set_size_inches(width, height + 0.21 * -(-len(labels) // columns) + 0.15)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False,
                  fontsize=9, handlelength=4)  # fmt: skip
