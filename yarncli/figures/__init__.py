"""Figures: the only importers of matplotlib."""

FORMATS = (".png", ".svg")
"""How the name of a figure may end, and so in which format it is saved."""


def literal(name: str) -> str:
    """A stranger's name as a label: cut, one line, and no formula, which `$` would begin."""
    shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name[:200])
    return shown.replace("$", r"\$")
