"""Model cards as text: the YAML block at the top is read, and changed key by key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from yarncli.errors import CheckpointError
from yarncli.jsontext.yaml_text import read_yaml

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def read_metadata(card: str, where: str) -> dict[str, Any]:
    """The metadata of a card; empty where it has none.

    Args:
        card: the text of README.md.
        where: what to call it in messages.

    Raises:
        CheckpointError: the block is not valid YAML, not a mapping, or more than `read_yaml` takes.
    """
    front = _FRONT.match(card)
    if front is None:
        return {}
    found = read_yaml(front[1], where, first_line=card.count("\n", 0, front.start(1)) + 1)
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

    Raises:
        CheckpointError: the metadata are not written one key a line.
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
    made = f"---\n{block}---\n{text if front else chr(10) + text.lstrip()}"
    kept = {k: v for k, v in read_metadata(card, "README.md").items() if k not in without}
    if repr(_sorted(read_metadata(made, "README.md"))) != repr(_sorted({**kept, **changes})):
        raise CheckpointError(
            "README.md: the metadata between the --- lines are not written one key a line from the "
            "left margin, so yarncli cannot change one and leave the others. Write them so."
        )
    return made


def _sorted(metadata: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(metadata.items(), key=lambda item: item[0])


def dump_metadata(metadata: Mapping[str, Any]) -> str:
    """Metadata as YAML lines."""
    yaml: Any = import_module("yaml")
    text: str = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return text
