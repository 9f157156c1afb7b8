"""Check a figure before the work that it shows, and save it afterwards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from yarncli.checkpoint.output import output_errors
from yarncli.errors import UsageError
from yarncli.extras import require_extra
from yarncli.figures import FORMATS, OWN_LOOK, Look, literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


# Of a PNG: while it is drawn, it takes eight bytes of memory for each.
_MOST_PIXELS = 250_000_000


def check_figure(path: Path) -> None:
    """Refuse, before the work, a figure that cannot be drawn or saved.

    Raises:
        UsageError: the name does not end in .png, .svg or .pdf, or its directory does not exist.
        MissingExtraError: matplotlib is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"{path} is not a figure. Give a name that ends in .png, .svg or .pdf.")
    if not path.parent.is_dir():
        raise UsageError(f"The directory {path.parent} of {path} does not exist. Create it first.")
    require_extra("A figure", "matplotlib")


def save_figure(draw: Callable[[], Figure], path: Path, look: Look = OWN_LOOK) -> None:
    """Draw a figure and save it; the same data give the same bytes in SVG and PDF.

    Args:
        draw: makes the figure.
        path: where it goes; the end of the name says in which format.
        look: what the user decides about it.

    Raises:
        OutputError: the file cannot be written.
        UsageError: a PNG would have too many pixels; and as `check_figure`.
        MissingExtraError: as `check_figure`.
    """
    check_figure(path)
    import matplotlib

    # Without a date and with fixed ids, equal data give equal files.
    dates = {".svg": "Date", ".pdf": "CreationDate"}
    date = dates.get(path.suffix.lower())
    metadata = {date: None} if date else {}
    with output_errors(str(path)), matplotlib.rc_context({"svg.hashsalt": "yarncli"}):
        figure = draw()
        if look.title is not None:
            figure.suptitle(literal(look.title), fontsize=13, fontweight="bold")
        if look.size is not None:
            figure.set_size_inches(*look.size)
        # Other formats have no pixels, but matplotlib measures their texts on a canvas of so many.
        dpi = look.dpi if path.suffix.lower() == ".png" else figure.dpi
        width, height = (float(side) * dpi for side in figure.get_size_inches())
        if width * height > _MOST_PIXELS:
            raise UsageError(
                f"The figure would have {width:,.0f} × {height:,.0f} pixels, and yarncli draws up "
                f"to {_MOST_PIXELS:,}. Give a smaller --size or --dpi, or the name of an SVG or "
                "PDF file."
            )
        figure.savefig(path, dpi=dpi, metadata=metadata)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, `width` × `height` inches, that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure
