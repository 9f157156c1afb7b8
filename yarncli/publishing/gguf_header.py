"""What the header of a GGUF file says about its licence and its model, for a card's metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from yarncli.gguf.header import GgufHeader

# Ids of licences as the Hub writes them: lower case, without spaces. Other texts are not ids.
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")
_ON_HUB = re.compile(
    r"(?:https?://(?:huggingface\.co|hf\.co)/)?([\w-][\w.-]{0,95}/[\w.-]{1,96})/?", re.ASCII
)
# The keys for the quantised model, those of `gguf-py` and those of older files.
_SOURCES = tuple(f"general.source.{key}" for key in ("repo_url", "url", "huggingface.repository"))
_MOST_PARENTS = 64


@dataclass(frozen=True, slots=True)
class Lineage:
    """The models on the Hub that a header names."""

    quantised: str | None = None
    """The model that was quantised; `None` if the header does not prove which one."""
    parents: tuple[str, ...] = ()
    """The models that the quantised model was made from."""


def licence_of(header: GgufHeader) -> dict[str, str]:
    """The fields of a card for the licence; empty if the header has no licence id."""
    found = header.text("general.license").lower()
    if not _LICENCE.fullmatch(found):
        return {}
    fields = {"license": found}
    if found == "other":
        named = {k: _line(header.text(f"general.license.{k}")) for k in ("name", "link")}
        fields |= {f"license_{key}": text for key, text in named.items() if text}
    return fields


def lineage_of(header: GgufHeader) -> Lineage:
    """The models that the file was made from, as the header names them.

    `general.base_model.*` is taken from the card of the quantised model, where it means *its* base:
    the file of an instruct model names the base model there. Only if `general.base_model.*` has the
    same name as the file itself does it mean the quantised model. Some quantisers write that.
    """
    source = next(filter(None, (_repository(header.text(key)) for key in _SOURCES)), None)
    if source:
        return Lineage(source)
    parents = dict(_parents(header))
    name = _plain(header.text("general.name"))
    if len(parents) == 1 and name and name in map(_plain, parents.values()):
        return Lineage(next(iter(parents)))
    return Lineage(None, tuple(parents))


def _parents(header: GgufHeader) -> Iterator[tuple[str, str]]:
    """Hub id and name of each base model in the header."""
    count: Any = getattr(header.keys.get("general.base_model.count"), "value", 0)
    for number in range(min(count, _MOST_PARENTS) if type(count) is int else 0):
        found = _repository(header.text(f"general.base_model.{number}.repo_url"))
        if found:
            yield found, header.text(f"general.base_model.{number}.name")


def _repository(text: str) -> str | None:
    found = _ON_HUB.fullmatch(text.strip())
    return found[1] if found else None


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
