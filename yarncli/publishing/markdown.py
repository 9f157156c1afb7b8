"""Values as Markdown that cannot break out of the place where they stand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

BEGIN, END = "<!-- yarncli:begin", "<!-- yarncli:end -->"
_LINE_ENDS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_FENCE = "```"


def cell(value: Any) -> str:
    """A value of a table; – for None."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() and abs(value) < 1e15 else f"{value:.6g}"
    if isinstance(value, list) and len(value) > 4:
        return f"{len(value)} values"
    return plain(str(value))


def code(text: str) -> str:
    """Text as code in a line."""
    return f"`{plain(text).replace('`', '')}`"


def plain(text: str) -> str:
    """Text that cannot break out of a table cell, nor of the section."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def block(language: str, lines: Iterable[str]) -> Iterator[str]:
    """A block of code; a line break in a line, or our own mark, must not leave it."""
    yield f"{_FENCE}{language}"
    yield from (_LINE_ENDS.sub(" ", line.replace(END, "")) for line in lines)
    yield _FENCE


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table of cells that cannot break it."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines that a reader unfolds."""
    yield from (f"<details><summary>{title}</summary>", "", *lines, "", "</details>")


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
