"""Values as Markdown, escaped so that they cannot change the structure around them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

BEGIN, END = "<!-- yarncli:begin", "<!-- yarncli:end -->"
_LINE_ENDS = re.compile(r"[\r\n\v\f\x1c-\x1e\x85\u2028\u2029]+")
_FENCE = "```"


def cell(value: Any) -> str:
    """A value in a table cell; – for None."""
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
    """Text as inline code."""
    return f"`{plain(text).replace('`', '')}`"


def plain(text: str) -> str:
    """Text that cannot end the table cell or the section that contains it."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def block(language: str, lines: Iterable[str]) -> Iterator[str]:
    """A code block. Line breaks inside a line become spaces, and our end mark is removed."""
    yield f"{_FENCE}{language}"
    yield from (_LINE_ENDS.sub(" ", line.replace(END, "")) for line in lines)
    yield _FENCE


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table; the cells must be escaped already."""
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    yield from (f"| {' | '.join(row)} |" for row in rows)


def folded(title: str, lines: Iterable[str]) -> Iterator[str]:
    """Lines that are hidden until a reader unfolds them."""
    yield from (f"<details><summary>{title}</summary>", "", *lines, "", "</details>")


def listed(words: Sequence[str]) -> str:
    """A list in words.

    Example:
        >>> listed(["a", "b", "c"])
        'a, b and c'
    """
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
