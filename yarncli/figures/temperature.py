"""The figure of A.2 of the paper: perplexity over the attention factor √(1/t)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yarncli.errors import UsageError
from yarncli.evaluation.losses import PerplexityReport
from yarncli.figures import OWN_LOOK, Look, literal
from yarncli.figures.lines import WINDOW, Curve, draw_lines, put_legend
from yarncli.figures.names import check_number
from yarncli.figures.saving import new_figure, save_figure
from yarncli.rope.formulas import get_mscale

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_temperature(
    reports: Sequence[PerplexityReport], path: Path, look: Look = OWN_LOOK
) -> None:
    """Draw perplexity over the attention factors that were measured, one curve per length.

    Raises:
        UsageError: there is nothing to draw, or too much.
        OutputError, MissingExtraError: as `save_figure`.
    """
    curves: list[Curve] = []
    factors: set[float] = set()
    for report in reports:
        model = str(report.settings.get("model", "")).rstrip("/").rpartition("/")[2]
        points: dict[int, list[tuple[float, float, tuple[float, float] | None]]] = {}
        tried = zip(report.settings["attention_factors"], report.losses.items(), strict=False)
        for factor, (name, losses) in sorted(tried):
            for r in report.results(name) if losses else ():
                points.setdefault(r.length, []).append((factor, r.perplexity, r.interval))
        what = "positions up to" if report.settings["layout"] == "by position" else "context"
        named = f"{model}: {what}" if len(reports) > 1 else what
        curves += [Curve(f"{named} {n:,}", found) for n, found in sorted(points.items())]
        windows = report.settings["variants"].values()
        factors |= {w["window"] / w["original"] for w in windows if w["original"]}
    if not curves:
        raise UsageError("There are no results to draw yet.")
    check_number(len(curves), "curves")
    check_number(len(factors), "factors")
    title = "Perplexity by attention temperature" + (f", {model}" if len(reports) == 1 else "")
    save_figure(lambda: _draw(curves, factors, title), path, look)


def _draw(curves: Sequence[Curve], factors: Iterable[float], title: str) -> Figure:
    figure = new_figure(8.6, 4.6)
    axes = figure.add_subplot()
    draw_temperature(axes, curves, factors)
    figure.suptitle(literal(title), fontsize=13, fontweight="bold")
    return figure


def draw_temperature(axes: Axes, curves: Sequence[Curve], factors: Iterable[float]) -> None:
    """Draw curves over 1/√t, and the value of the paper's rule for each factor s.

    Args:
        axes: where to.
        curves: perplexity over attention factors.
        factors: s, of the settings that are drawn (arXiv:2309.00071 Eq. 22).
    """
    draw_lines(axes, curves, spread=0.004)
    for factor in factors:
        rule = get_mscale(factor)
        axes.axvline(rule, color=WINDOW, lw=1.1, ls="--", zorder=0)
        axes.annotate(
            f"0.1 ln {factor:g} + 1", (rule, 1), xycoords=("data", "axes fraction"),
            xytext=(-3, -4), textcoords="offset points", rotation=90, ha="right", va="top",
            fontsize=7, color=WINDOW,
        )  # fmt: skip
    axes.set(
        xlabel="1/√t, the scale of the attention temperature", ylabel="perplexity (lower is better)"
    )
    axes.grid(alpha=0.25)
    put_legend(axes, len(curves))
