"""Figures: the only importers of matplotlib."""

FORMATS = (".png", ".svg")
"""How the name of a figure may end, and so in which format it is saved."""


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
