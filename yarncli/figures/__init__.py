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


def literal(name: str, most: int = 200) -> str:
    """A stranger's name as a label: cut, one line, and no formula, which `$` would begin.

    Args:
        name: as it was given.
        most: characters to keep, of its beginning and its end.
    """
    if len(name) > most:
        name = f"{name[: most // 2 - 1]}…{name[len(name) - most + most // 2 :]}"
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return shown.replace("$", r"\$")
