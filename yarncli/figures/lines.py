"""Curves over an axis of numbers, told apart without colour, with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from yarncli.figures import literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito, "Color Universal Design" (2008), without yellow, which is too pale for a line.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
WINDOW = "#555555"
_DASHES = ("-", "--", "-.", ":")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


@dataclass(frozen=True, slots=True)
class Curve:
    """Values over an axis."""

    name: str
    """As in the legend."""
    points: Sequence[tuple[float, float, tuple[float, float] | None]]
    """Where on the axis (a length in tokens, say), value, and its interval if it has one; in the
    order of the axis."""


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw curves on a logarithmic axis of lengths; every length has its own place and tick."""
    draw_lines(axes, curves)
    set_lengths(axes, {int(length) for curve in curves for length, _, _ in curve.points})


def draw_lines(axes: Axes, curves: Sequence[Curve], aside: float = 0.03) -> None:
    """Draw curves with their intervals.

    Args:
        axes: where to.
        curves: what.
        aside: how far curves are moved apart, as a share of the place on the axis, so that the
            bars of several stand side by side.
    """
    for number, curve in enumerate(curves):
        values = [value for _, value, _ in curve.points]
        colour = COLOURS[number % len(COLOURS)]
        dash = _DASHES[number % len(_DASHES)]
        marker = _MARKERS[number % len(_MARKERS)]
        moved = 1 + aside * (number - (len(curves) - 1) / 2) / max(len(curves) - 1, 1)
        places = [place * moved for place, _, _ in curve.points]
        axes.plot(places, values, dash, color=colour, marker=marker, ms=5, lw=1.8,
                  label=literal(curve.name))  # fmt: skip
        known = [(p, v, i) for p, v, (_, _, i) in zip(places, values, curve.points, strict=True)
                 if i is not None]  # fmt: skip
        if known:
            below = [value - ends[0] for _, value, ends in known]
            above = [ends[1] - value for _, value, ends in known]
            axes.errorbar(
                [place for place, _, _ in known], [value for _, value, _ in known],
                yerr=(below, above), fmt="none", ecolor=colour, elinewidth=1.2, capsize=3,
            )  # fmt: skip


def set_lengths(axes: Axes, lengths: Iterable[int]) -> None:
    """A logarithmic axis with a tick at each of `lengths`; names that would overlap are left out.

    Ticks within 9 % of the axis of the one before get no name.
    """
    ticks = sorted(lengths)
    axes.set_xscale("log", base=2)
    span = math.log2(ticks[-1] / ticks[0]) or 1
    names, last = [], -math.inf
    for tick in ticks:
        place = math.log2(tick / ticks[0]) / span
        far = place - last >= 0.09
        names.append(f"{tick:,}" if far else "")
        last = place if far else last
    axes.set_xticks(ticks, names)
    axes.minorticks_off()
    if len(ticks) == 1:
        axes.set_xlim(ticks[0] / 2, ticks[0] * 2)


def mark_windows(axes: Axes, windows: Iterable[tuple[int, int]]) -> None:
    """A vertical line at each original window (dotted) and each extended one (dashed), named."""
    pairs = set(windows)
    originals = {original for original, _ in pairs if original}
    for window in sorted(originals | {extended for _, extended in pairs if extended}):
        old = window in originals
        axes.axvline(window, color=WINDOW, lw=1.1, ls=":" if old else "--", zorder=0)
        axes.annotate(
            "original window" if old else "new window", (window, 1),
            xycoords=("data", "axes fraction"), xytext=(-3, -4), textcoords="offset points",
            rotation=90, ha="right", va="top", fontsize=7, color=WINDOW,
        )  # fmt: skip


def put_legend(axes: Axes, curves: int) -> None:
    """The legend beside the data; none for a single curve."""
    if curves > 1:
        axes.legend(
            frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0.0,
        )  # fmt: skip
