"""Read YAML from strangers with limits. No other module parses YAML."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, NoReturn

from yarncli.errors import CheckpointError

MAX_LENGTH = 512 * 1024  # characters; three times the longest card metadata seen on the Hub
MAX_DEPTH = 50
_MAX_EVENTS = 100_000
# Such a long number takes the parser minutes (1:1:1:…) or cannot be printed.
_LONG_NUMBER = re.compile(r"[-+.0-9][0-9a-fA-Fxob_:.+-]{300}")


@dataclass(slots=True)
class _Collection:
    """An open mapping or list, one for each level of depth of the parser."""

    keys: set[str] | None
    """The keys so far; None for a list."""
    expects_key: bool = True
    """Whether a mapping's next value is a key."""


class _Refusal(Exception):
    """Why a text is refused; `line` counts from 0 and is None if no single line is the reason."""

    def __init__(self, line: int | None, reason: str) -> None:
        super().__init__(reason)
        self.line = line


@dataclass(slots=True)
class _Guard:
    """Follows the events of the parser before anything is expanded, and refuses dangerous ones."""

    stack: list[_Collection] = field(default_factory=list)

    def refuse(self, event: Any, reason: str) -> NoReturn:
        raise _Refusal(event.start_mark.line, f"the YAML {reason}")

    def follow(self, event: Any) -> None:
        """Take one event into account.

        Raises:
            _Refusal: the event is an alias, a merge, a tag, one level too deep, a duplicate key,
                or a number of hundreds of digits.
        """
        kind = type(event).__name__
        if kind in ("MappingEndEvent", "SequenceEndEvent"):
            self.stack.pop()
        elif kind == "AliasEvent":
            self.refuse(
                event,
                "uses an alias (*), with which a few lines can become gigabytes. Write the value "
                "itself",
            )
        elif kind in ("MappingStartEvent", "SequenceStartEvent", "ScalarEvent"):
            if event.tag is not None:
                self.refuse(event, "uses a tag (!), which no metadata need. Remove it")
            is_key = self._is_key()
            if kind == "ScalarEvent":
                self._scalar(event, is_key)
                return
            self.stack.append(_Collection(set() if kind == "MappingStartEvent" else None))
            if len(self.stack) > MAX_DEPTH:
                self.refuse(event, f"is nested more than {MAX_DEPTH} levels deep")

    def _is_key(self) -> bool:
        """Whether the value that begins is a key of a mapping; the next one is then its value."""
        if not self.stack or self.stack[-1].keys is None:
            return False
        self.stack[-1].expects_key = not self.stack[-1].expects_key
        return not self.stack[-1].expects_key

    def _scalar(self, event: Any, is_key: bool) -> None:
        plain = event.implicit[0]
        if plain and _LONG_NUMBER.match(event.value):
            self.refuse(event, "holds a number of hundreds of digits")
        if is_key and plain and event.value == "<<":
            self.refuse(
                event, "uses a merge (<<), which some readers do not know. Write its keys instead"
            )
        if is_key:
            keys = self.stack[-1].keys
            assert keys is not None
            if event.value in keys:
                self.refuse(event, f"has the key {event.value!r:.60} twice")
            keys.add(event.value)


def read_yaml(text: str, where: str, *, first_line: int = 1) -> Any:
    """The value of a YAML document, which must not be changed; None if it is empty.

    Aliases, merges, tags, duplicate keys, deep nesting and huge sizes are refused on the events of
    the parser, before it creates or expands anything.

    Args:
        text: the document.
        where: name of the document in messages.
        first_line: the line of the file on which the text begins.

    Raises:
        CheckpointError: the document is refused, or is not valid YAML.
    """
    try:
        return _parsed(text)
    except _Refusal as refusal:
        line = "" if refusal.line is None else f", line {refusal.line + first_line}"
        raise CheckpointError(f"{where}{line}: {refusal}.") from None


@lru_cache(maxsize=4)  # a card is parsed again for each key that is set in it
def _parsed(text: str) -> Any:
    yaml: Any = import_module("yaml")  # comes with huggingface_hub; it has no types
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the one in C is ten times as fast
    if len(text) > MAX_LENGTH:
        raise _Refusal(
            None, f"the YAML is {len(text):,} characters long; at most {MAX_LENGTH:,} are read"
        )
    guard = _Guard()
    try:
        for number, event in enumerate(yaml.parse(text, Loader=loader)):
            guard.follow(event)
            if number > _MAX_EVENTS:
                guard.refuse(event, f"holds more than {_MAX_EVENTS:,} values")
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise _Refusal(mark and mark.line, "this is not valid YAML") from None
