"""The RoPE figure: inverse frequency and wavelength per dimension, before and after."""

from __future__ import annotations

import math
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.config.reading import Scope
from yarncli.figures import literal
from yarncli.figures.lines import WINDOW, put_handles, window_lines
from yarncli.figures.saving import new_figure, save_figure
from yarncli.figures.styles import STYLES, Style, method_of_type
from yarncli.inspection.description import Description
from yarncli.inspection.dimensions import Dimension
from yarncli.rope.formulas import wavelengths

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Grounds that can be distinguished in greyscale, too.
_GROUNDS: dict[str, dict[str, Any]] = {
    "ramp": {"facecolor": "#f0f0f0", "hatch": "////", "edgecolor": "#c4c4c4", "lw": 0},
    "interpolated": {"facecolor": "#e2e2e2", "lw": 0},
    "rescaled": {"facecolor": "#f7f7f7", "hatch": "..", "edgecolor": "#c4c4c4", "lw": 0},
}


def plot_rope(description: Description, path: Path) -> None:
    """Draw every scope of a description, one row each, and save it as PNG or SVG.

    Raises:
        UsageError, OutputError, MissingExtraError: as `save_figure`.
    """
    save_figure(lambda: _draw(description), path)


def _draw(description: Description) -> Figure:
    scopes = list(description.rope.scopes.values())
    figure = new_figure(11, 4.2 * len(scopes) + 0.3)
    grid: Any = figure.subplots(len(scopes), 2, squeeze=False)
    named: dict[str, Any] = {}
    for row, scope in zip(grid, scopes, strict=True):
        rows = description.dimensions(scope)
        style = _style(description, scope)
        name = "" if scope.name == "model" else f", {literal(scope.name, 40)}"
        before, after = [r.inv_freq for r in rows], [r.inv_freq_after for r in rows]
        _draw_curves(row[0], before, after, style)
        _draw_curves(row[1], wavelengths(before), wavelengths(after), style)
        _mark_windows(row[1], description, scope)
        row[0].set(title=f"Inverse frequency{name}", ylabel="radians per token")
        row[1].set(title=f"Wavelength{name}", ylabel="tokens per turn")
        for axes in row:
            _shade_regimes(axes, rows)
            handles, labels = axes.get_legend_handles_labels()
            named |= dict(zip(labels, handles, strict=True))
        row[0].set_xlabel(f"dimension pair ({describe_regimes(rows)})", fontsize=9)
        row[1].set_xlabel("dimension pair", fontsize=9)
    put_handles(figure, list(named.values()), list(named))
    figure.suptitle(literal(_title(description)), fontsize=13, fontweight="bold")
    return figure


def _title(description: Description) -> str:
    name = description.name.rstrip("/").rsplit("/", 1)[-1]
    if description.plan is None:
        return name
    plan = description.plan
    return f"{name}: {plan.method}, {plan.original_length:,} → {plan.length:,} tokens"


def _style(description: Description, scope: Scope) -> Style:
    """The style of the method that extends the scope, in use or planned."""
    plan = description.plan
    if plan is not None and scope.name in {planned.name for planned in plan.scopes}:
        return STYLES[plan.method]
    return STYLES[method_of_type(scope.parameters.rope_type)]


def _draw_curves(axes: Axes, before: list[float], after: list[float], style: Style) -> None:
    """Draw both curves, or one if they are equal; pairs that do not rotate leave a gap."""
    from matplotlib.ticker import MaxNLocator

    same = before == after
    every = max(1, len(before) // 8)
    plain = STYLES["none"].options | {"lw": 1.2, "marker": ""}
    axes.plot(_drawn(before), label="not scaled" if same else "before", **plain)
    if not same:
        axes.plot(
            _drawn(after), lw=2.2, ms=5, markevery=every, label="after",
            **style.options,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlim(-0.5, len(before) - 0.5)
    axes.grid(alpha=0.25)


def _drawn(values: list[float]) -> list[float]:
    """The values that a logarithmic axis can show."""
    return [value if 0 < value < math.inf else math.nan for value in values]


def _mark_windows(axes: Axes, description: Description, scope: Scope) -> None:
    """Draw a line at the length of each window."""
    pair = (description.original_length, description.length)
    for window, style in window_lines([pair], "new window" if description.plan else "window"):
        axes.axhline(window, zorder=0, **style)
    if scope.window and scope.window < description.length:
        axes.axhline(scope.window, color=WINDOW, lw=1.1, ls="-.", zorder=0,
                     label=f"sliding window {scope.window:,}")  # fmt: skip


def _shade_regimes(axes: Axes, rows: list[Dimension]) -> None:
    """Shade each run of pairs by what the scaling does to it; pairs that are kept stay white."""
    drawn: set[str] = set()
    for regime, run in _runs(rows):
        if regime in _GROUNDS:
            label = "" if regime in drawn else regime
            axes.axvspan(run[0] - 0.5, run[-1] + 0.5, zorder=-1, label=label, **_GROUNDS[regime])
            drawn.add(regime)


def describe_regimes(rows: list[Dimension]) -> str:
    """Which pairs are kept, in the ramp, interpolated or rescaled, in words.

    Example:
        >>> describe_regimes([])
        ''
    """
    runs = _runs(rows)
    if len(runs) > 4:
        counts: dict[str, int] = {}
        for regime, run in runs:
            counts[regime] = counts.get(regime, 0) + len(run)
        return ", ".join(f"{regime} {count} of {len(rows)}" for regime, count in counts.items())
    return ", ".join(
        f"{regime} {run[0]}" + (f"–{run[-1]}" if len(run) > 1 else "") for regime, run in runs
    )


def _runs(rows: list[Dimension]) -> list[tuple[str, list[int]]]:
    """Runs of neighbouring pairs with one regime or without rotation, and their numbers."""
    grouped = groupby(rows, key=lambda row: row.regime if row.inv_freq else "still")
    return [(what, [row.index for row in run]) for what, run in grouped]
