"""How every figure is checked before the work, and saved after it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from yarncli.checkpoint.output import output_errors
from yarncli.errors import OutputError, UsageError
from yarncli.extras import require_extra
from yarncli.figures import FORMATS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_figure(path: Path) -> None:
    """Refuse a figure that cannot be drawn or put there, before the work.

    Raises:
        UsageError: the name does not end in .png or .svg.
        OutputError: its directory does not exist.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} is no figure: write a name that ends in .png or .svg.")
    if not path.parent.is_dir():
        raise OutputError(f"Cannot write {path}: there is no directory {path.parent}.")
    require_extra("A figure", "matplotlib")


def save_figure(draw: Callable[[], Figure], path: Path) -> None:
    """Draw a figure and save it; the SVG of the same data is the same file.

    Raises:
        OutputError: the file cannot be written. Otherwise as `check_figure`.
    """
    check_figure(path)
    import matplotlib

    # No date and fixed ids.
    metadata = {"Date": None} if path.suffix.lower() == ".svg" else {}
    with output_errors(str(path)), matplotlib.rc_context({"svg.hashsalt": "yarncli"}):
        draw().savefig(path, dpi=160, metadata=metadata)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, `width` × `height` inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
