"""The RoPE figure: inverse frequency and wavelength per dimension, before and after."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.figures import literal
from yarncli.figures.saving import new_figure, save_figure
from yarncli.inspection.description import Description
from yarncli.inspection.dimensions import Dimension

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BEFORE, _AFTER, _RAMP, _WINDOW = "#8a8f98", "#d1495b", "#edae49", "#30638e"


def plot_rope(description: Description, path: Path) -> None:
    """Draw every scope of a description, one row each, and save it as PNG or SVG.

    Raises:
        UsageError, OutputError, MissingExtraError: as `save_figure`.
    """
    save_figure(lambda: _draw(description), path)


def _draw(description: Description) -> Figure:
    scopes = list(description.rope.scopes.values())
    figure = new_figure(11, 4.4 * len(scopes))
    grid: Any = figure.subplots(len(scopes), 2, squeeze=False)
    for row, scope in zip(grid, scopes, strict=True):
        rows = description.dimensions(scope)
        _draw_frequencies(row[0], rows)
        _draw_wavelengths(row[1], rows, description)
        _shade_ramp(row, rows)
        name = "" if scope.name == "model" else f", {scope.name}"
        row[0].set_title(f"Inverse frequency{name}", loc="left")
        row[1].set_title(f"Wavelength{name}", loc="left")
    figure.suptitle(literal(_title(description)), fontsize=13, fontweight="bold")
    return figure


def _title(description: Description) -> str:
    name = description.name.rstrip("/").rsplit("/", 1)[-1]
    if description.plan is None:
        return name
    plan = description.plan
    return f"{name}: {plan.method}, {plan.original_length:,} → {plan.length:,} tokens"


def _draw_frequencies(axes: Axes, rows: list[Dimension]) -> None:
    index = [row.index for row in rows]
    axes.plot(index, [_drawn(row.inv_freq) for row in rows], color=_BEFORE, lw=2, label="before")
    after = [_drawn(row.inv_freq_after) for row in rows]
    axes.plot(index, after, color=_AFTER, lw=2, label="after")
    axes.set(yscale="log", xlabel="dimension pair", ylabel="radians per token")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, loc="lower left")


def _draw_wavelengths(axes: Axes, rows: list[Dimension], description: Description) -> None:
    index = [row.index for row in rows]
    axes.plot(index, [_drawn(row.wavelength) for row in rows], color=_BEFORE, lw=2)
    after = [_drawn(2 * math.pi / row.inv_freq_after) if row.inv_freq_after else math.nan
             for row in rows]  # fmt: skip
    axes.plot(index, after, color=_AFTER, lw=2)
    original = description.original_length
    in_use = "new window" if description.plan else "window"
    windows = {"original window": original, in_use: description.length}
    for name, length in windows.items():
        if name == in_use and length == original:
            continue
        style = ":" if name == "original window" else "--"
        axes.axhline(length, color=_WINDOW, lw=1.2, ls=style)
        axes.annotate(
            f"{name} {length:,}", (0, length), xytext=(4, 3), textcoords="offset points",
            color=_WINDOW, fontsize=9,
        )  # fmt: skip
    axes.set(yscale="log", xlabel="dimension pair", ylabel="tokens per turn")
    axes.grid(alpha=0.25)


def _shade_ramp(row: Any, rows: list[Dimension]) -> None:
    ramp = [r.index for r in rows if r.regime == "ramp"]
    if not ramp or len(ramp) == len(rows):
        return
    for axes in row:
        axes.axvspan(ramp[0] - 0.5, ramp[-1] + 0.5, color=_RAMP, alpha=0.18, lw=0)
    row[0].annotate(
        "ramp", ((ramp[0] + ramp[-1]) / 2, 1), xycoords=("data", "axes fraction"),
        xytext=(0, -14), textcoords="offset points", ha="center", fontsize=9, color="#8a6414",
    )  # fmt: skip


def _drawn(value: float) -> float:
    """What a logarithmic axis can show: standing dimensions (frequency 0) leave a gap."""
    return value if 0 < value < math.inf else math.nan
