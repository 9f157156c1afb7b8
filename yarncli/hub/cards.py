"""Model cards as text: read the YAML block at the top, and change it key by key."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any

from yarncli.errors import CheckpointError
from yarncli.jsontext.yaml_text import read_yaml

_FRONT = re.compile(r"\A\s*---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)


def read_metadata(card: str, where: str) -> dict[str, Any]:
    """The metadata of a card; empty if it has none.

    Args:
        card: the text of README.md.
        where: name of the card in messages.

    Raises:
        CheckpointError: the block is not valid YAML, not a mapping, or refused by `read_yaml`.
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
    """The card with some keys set and others removed; every other line stays as it is.

    Args:
        card: a card that `read_metadata` can read, with LF line ends.
        changes: key → value. An existing key is replaced, a new key is added at the end.
        without: keys to remove, except those in `changes`.

    Raises:
        CheckpointError: the metadata are not written with one key per line.
    """
    front = _FRONT.match(card)
    block, text = front[1] if front else "", body_of(card)
    for key in dict.fromkeys([*without, *changes]):
        lines = dump_metadata({key: changes[key]}) if key in changes else ""
        # The value of a key is the rest of its line and all lines below up to the next key.
        entry = re.compile(rf"^['\"]?{re.escape(key)}['\"]?[ \t]*:.*\n(?:[ \t\-].*\n|\n)*", re.M)
        if entry.search(block):
            block = entry.sub(lambda _, lines=lines: lines, block, count=1)
        else:
            block += lines
    made = f"---\n{block}---\n{text if front else chr(10) + text.lstrip()}"
    kept = {k: v for k, v in read_metadata(card, "README.md").items() if k not in without}
    if repr(_sorted(read_metadata(made, "README.md"))) != repr(_sorted({**kept, **changes})):
        raise CheckpointError(
            "README.md: yarncli can change the metadata between the --- lines only if every key "
            "starts a line at the left margin. Write the metadata in that form."
        )
    return made


def _sorted(metadata: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return sorted(metadata.items(), key=lambda item: item[0])


def dump_metadata(metadata: Mapping[str, Any]) -> str:
    """Metadata as YAML lines."""
    yaml: Any = import_module("yaml")
    text: str = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return text
