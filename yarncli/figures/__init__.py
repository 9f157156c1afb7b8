"""Figures: the only importers of matplotlib."""

from dataclasses import dataclass

FORMATS = (".png", ".svg", ".pdf")
"""The name endings of figures; they decide the format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the user decides about a figure."""

    title: str | None = None
    """The title; None for the default title, an empty text for no title."""
    size: tuple[float, float] | None = None
    """Width and height in inches; None for a size that fits the data."""
    dpi: int = 160
    """Dots per inch of a PNG."""


OWN_LOOK = Look()
"""The look of a figure without options."""


def literal(name: str, most: int = 200) -> str:
    """A name from a file as a label: shortened, on one line, and not as a formula (`$`).

    Args:
        name: as it was given.
        most: characters to keep, of its beginning and its end.
    """
    if len(name) > most:
        name = f"{name[: most // 2 - 1]}…{name[len(name) - most + most // 2 :]}"
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)
    return shown.replace("$", r"\$")
