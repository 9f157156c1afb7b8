"""Model cards as text: the YAML block at the top is read, and changed key by key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from yarncli.errors import CheckpointError

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def read_metadata(card: str, where: str) -> dict[str, Any]:
    """The metadata of a card; empty where it has none.

    Args:
        card: the text of README.md.
        where: what to call it in messages.

    Raises:
        CheckpointError: the block is not valid YAML, or not a mapping.
    """
    yaml: Any = import_module("yaml")  # comes with huggingface_hub; it has no types
    front = _FRONT.match(card)
    try:
        found = yaml.safe_load(front[1]) if front else None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 2}" if mark else ""
        raise CheckpointError(
            f"{where}{line}: the metadata between the --- lines is not valid YAML. Correct it."
        ) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise CheckpointError(f"{where}: the metadata between the --- lines is not a mapping.")
    return {str(key): value for key, value in found.items()}


def body_of(card: str) -> str:
    """The text of a card below its metadata."""
    front = _FRONT.match(card)
    return card[front.end() :] if front else card


def with_metadata(card: str, changes: Mapping[str, Any], *, without: Collection[str] = ()) -> str:
    """The card with some keys set, others taken out; every other line stays as it is.

    Args:
        card: a card that `read_metadata` can read, with LF line ends.
        changes: key → value; a key that is there is replaced, a new one is added at the end.
        without: keys to take out, but for those in `changes`.
    """
    front = _FRONT.match(card)
    block, text = front[1] if front else "", body_of(card)
    for key in dict.fromkeys([*without, *changes]):
        lines = dump_metadata({key: changes[key]}) if key in changes else ""
        # A key's value is the rest of its line and all lines below that do not start a key.
        entry = re.compile(rf"^['\"]?{re.escape(key)}['\"]?[ \t]*:.*\n(?:[ \t\-].*\n|\n)*", re.M)
        if entry.search(block):
            block = entry.sub(lambda _, lines=lines: lines, block, count=1)
        else:
            block += lines
    return f"---\n{block}---\n{text if front else chr(10) + text.lstrip()}"


def dump_metadata(metadata: Mapping[str, Any]) -> str:
    """Metadata as YAML lines."""
    yaml: Any = import_module("yaml")
    text: str = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return text
