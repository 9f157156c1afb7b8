"""Figures: the only importers of matplotlib."""

from dataclasses import dataclass

FORMATS = (".png", ".svg", ".pdf")
"""How the name of a figure may end, and so in which format it is saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the user decides about a figure."""

    title: str | None = None
    """Instead of its own title; None keeps it, an empty one removes it."""
    size: tuple[float, float] | None = None
    """Width and height in inches; None for what fits the data."""
    dpi: int = 160
    """Dots per inch of a PNG."""


OWN_LOOK = Look()
"""That of a figure about which the user decides nothing."""


def literal(name: str) -> str:
    """A stranger's name as a label: cut, one line, and no formula, which `$` would begin."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:200])
    return shown.replace("$", r"\$")
