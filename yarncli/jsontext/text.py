"""JSON as text: parsed with limits, and edited by span so that nothing else changes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NoReturn

from yarncli.errors import ConfigError

Path = tuple[str | int, ...]

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 100
MAX_VALUES = 500_000  # more than any tokenizer_config.json with added tokens has
MAX_KEYS = 100_000  # of one object; each added token is a key
MAX_DIGITS = 400  # more than any double needs; CPython itself refuses more than 4300

# Possessive (`*+`): a string may fill the whole file, and a backtracking pattern would keep every
# step of it in memory.
_STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN = re.compile(rf'[ \t\n\r]*+({_STRING}|[{{}}\[\],:]|[^ \t\n\r{{}}\[\],:"]++)', re.DOTALL)
_BRACKET = re.compile(rf"{_STRING}|[{{}}\[\]]", re.DOTALL)


def format_path(path: Path) -> str:
    """A path as text.

    Example:
        >>> format_path(("rope_parameters", "list", 3))
        'rope_parameters.list[3]'
    """
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out


@dataclass(slots=True, kw_only=True)
class _Node:
    """The position of one value in the text, in characters from 0."""

    start: int
    """Where the value starts; the value is `text[start:end]`."""
    key: int
    """Where its key starts; for a value without a key, where the value starts."""
    is_object: bool = False
    """Whether the value is an object."""
    end: int = 0
    """Where the value ends."""
    inside: dict[str | int, _Node] | None = None
    """The values inside it, by key or index; None until they are needed."""


class JsonText:
    """A JSON object together with the text it was read from.

    `Infinity` and `NaN` are accepted, as in Python and transformers, because published configs have
    them outside the RoPE fields. The code that uses a field checks its value.

    `value` is plain Python data; `edited` gives a new `JsonText` in which only the spans of the
    named values differ.
    """

    def __init__(self, text: str, value: dict[str, Any], where: str) -> None:
        self.text = text
        self.value = value
        self.where = where

    @classmethod
    def parse(cls, data: bytes | str, where: str) -> JsonText:
        """Read a JSON object.

        Args:
            data: the bytes of the file (UTF-8), or its text.
            where: name of the file in messages, usually its path.

        Raises:
            ConfigError: the text is too large, not UTF-8, not JSON, not an object or nested too
                deeply, or it has a duplicate key or a number that no double can hold.
        """

        def refuse(reason: str) -> NoReturn:
            raise ConfigError(f"{where} {reason}.")

        if len(data) > MAX_BYTES:
            refuse(f"is {len(data):,} bytes long; a config is at most {MAX_BYTES:,}")
        if isinstance(data, bytes):
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError as error:
                refuse(f"is not UTF-8 text (byte {error.start} is {data[error.start]:#04x})")
        else:
            text = data
        if text.startswith("\ufeff"):
            refuse("starts with a byte order mark, which engines cannot read; save it without one")
        if not text.strip():
            refuse("is empty")
        value = _loads(text, refuse)
        if not isinstance(value, dict):
            refuse(f"holds a {_type_name(value)}; a JSON object is needed")
        return cls(text, value, where)

    def to_bytes(self) -> bytes:
        """The content of the file. An unpaired surrogate has no UTF-8 form and stays escaped."""
        return self.text.encode("utf-8", "backslashreplace")

    def get(self, path: Path, default: Any = None) -> Any:
        """The value at `path`, or `default` if there is none."""
        value: Any = self.value
        for part in path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return default
        return value

    def line(self, path: Path) -> int:
        """The line (from 1) on which the value at `path`, or its nearest parent, begins."""
        node = self._root
        for part in path:
            inside = self._inside(node)
            if part not in inside:
                break
            node = inside[part]
        return self.text.count("\n", 0, node.key) + 1

    def edited(self, changes: Mapping[Path, Any], removals: Iterable[Path] = ()) -> JsonText:
        """The same text with some values set and some keys removed.

        A given object is merged with the old one key by key. A key with an equal value keeps its
        spelling, and old keys that the given object lacks are removed. A new key is put at its
        alphabetical place if the keys around it are sorted, else at the end. Missing parents are
        created.

        Example:
            >>> JsonText.parse('{"a": 1e0}', "x").edited({("b",): 2}).text
            '{"a": 1e0, "b": 2}'
        """
        result = self
        for path in removals:
            result = result._without(path)
        for path, value in changes.items():
            result = result._with(path, value)
        return result

    def _with(self, path: Path, value: Any) -> JsonText:
        old = self.get(path, _MISSING)
        if old is _MISSING:
            depth = len(path) - 1
            while depth and self.get(path[:depth], _MISSING) is _MISSING:
                value, depth = {path[depth]: value}, depth - 1
            return self._inserted(path[:depth], path[depth], value)
        if isinstance(old, dict) and isinstance(value, dict) and old:
            result = self.edited({}, [(*path, key) for key in old if key not in value])
            return result.edited({(*path, key): item for key, item in value.items()})
        if _identical(old, value):
            return self
        node = self._node(path)
        indent = self._indent_of(node.key)
        inline = self._is_inline(self._node(path[:-1]))
        return self._spliced(node.start, node.end, self._serialized(value, indent, inline))

    def _inserted(self, parent_path: Path, key: str | int, value: Any) -> JsonText:
        parent = self._node(parent_path)
        if not parent.is_object or not isinstance(key, str):
            raise ConfigError(
                f"{self.where}: {format_path(parent_path)} is not an object, "
                f"so {key} cannot be set in it."
            )
        inside = self._inside(parent)
        keys = list(inside)
        inline = self._is_inline(parent)
        if not keys:
            outer = self._indent_of(parent.key)
            new = self._serialized({key: value}, outer, inline)
            return self._spliced(parent.start, parent.end, new)
        first = inside[keys[0]]
        indent = self._indent_of(first.key)
        body = f"{json.dumps(key, ensure_ascii=False)}: {self._serialized(value, indent, inline)}"
        between = ", " if inline else f",{self._newline}{indent}"
        names = [str(k) for k in keys]
        after = [k for k in names if k < key] if names == sorted(names) else names
        if after:
            at = inside[after[-1]].end
            return self._spliced(at, at, between + body)
        return self._spliced(first.key, first.key, body + between)

    def _without(self, path: Path) -> JsonText:
        if self.get(path, _MISSING) is _MISSING:
            return self
        parent = self._node(path[:-1])
        inside = self._inside(parent)
        keys = list(inside)
        place = keys.index(path[-1])
        node = inside[path[-1]]
        if len(keys) == 1:
            return self._spliced(parent.start, parent.end, "{}" if parent.is_object else "[]")
        if place:
            return self._spliced(inside[keys[place - 1]].end, node.end, "")
        return self._spliced(node.key, inside[keys[1]].key, "")

    def _spliced(self, start: int, end: int, new: str) -> JsonText:
        return JsonText.parse(self.text[:start] + new + self.text[end:], self.where)

    def _node(self, path: Path) -> _Node:
        node = self._root
        for part in path:
            node = self._inside(node)[part]
        return node

    @cached_property
    def _root(self) -> _Node:
        start = self.text.index("{")
        return _Node(start=start, key=start, is_object=True, end=_end_of(self.text, start))

    def _inside(self, node: _Node) -> dict[str | int, _Node]:
        """The values directly inside a node; empty if it is neither an object nor a list."""
        if node.inside is None:
            is_open = self.text[node.start] in "{["
            node.inside = _spans(self.text, node) if is_open else {}
        return node.inside

    @cached_property
    def _newline(self) -> str:
        return "\r\n" if "\r\n" in self.text else "\n"

    @cached_property
    def _unit(self) -> str:
        """One step of indentation, taken from the first indented line."""
        found = re.search(r"\n([ \t]+)\S", self.text)
        return found.group(1) if found else "  "

    def _indent_of(self, position: int) -> str:
        line = self.text[self.text.rfind("\n", 0, position) + 1 : position]
        return line[: len(line) - len(line.lstrip(" \t"))]

    def _is_inline(self, node: _Node) -> bool:
        """Whether an object has its first member on the line of its opening brace."""
        inside = self._inside(node)
        if not inside:
            return "\n" not in self.text
        first = next(iter(inside.values()))
        return "\n" not in self.text[node.start : first.key]

    def _serialized(self, value: Any, indent: str, inline: bool) -> str:
        if inline or not isinstance(value, (dict, list)) or not value:
            return json.dumps(value, ensure_ascii=False)
        text = json.dumps(value, ensure_ascii=False, indent=self._unit)
        return text.replace("\n", self._newline + indent)


_MISSING = object()


def _identical(old: Any, new: Any) -> bool:
    """Whether values and types are equal at every depth: 4 is not 4.0, and 1 is not true."""
    if type(old) is not type(new):
        return False
    if isinstance(old, dict):
        return old.keys() == new.keys() and all(_identical(old[k], new[k]) for k in old)
    if isinstance(old, list):
        return len(old) == len(new) and all(map(_identical, old, new))
    return bool(old == new)


def _loads(text: str, refuse: Any) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) > MAX_KEYS:
            refuse(f"has {len(found):,} keys in one object")
        if len(found) != len(items):
            seen: set[str] = set()
            twice = next(key for key, _ in items if key in seen or seen.add(key))  # type: ignore[func-returns-value]
            refuse(f"has the key {twice!r} twice in one object")
        return found

    def real(digits: str) -> float:
        number = float(digits)
        if math.isinf(number):
            refuse(f"holds the number {digits[:40]}, which no double can hold")
        return number

    def whole(digits: str) -> int:
        if len(digits) > MAX_DIGITS:
            refuse(f"holds an integer of {len(digits):,} digits")
        return int(digits)

    if text.count(",") >= MAX_VALUES:
        refuse(f"holds more than {MAX_VALUES:,} values")
    try:
        value = json.loads(
            text,
            object_pairs_hook=pairs,
            parse_float=real,
            parse_int=whole,
        )
    except json.JSONDecodeError as error:
        refuse(f"is not valid JSON: {error.msg} at line {error.lineno}, column {error.colno}")
    except RecursionError:
        refuse(f"is nested more than {MAX_DEPTH} levels deep")
    # Depth cannot exceed the number of brackets, so most files need no second look.
    if text.count("{") + text.count("[") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        refuse(f"is nested more than {MAX_DEPTH} levels deep")
    return value


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        inner = [
            v.values() if isinstance(v, dict) else v for v in level if isinstance(v, (dict, list))
        ]
        level = [item for items in inner for item in items]
    return depth


def _type_name(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")


def _end_of(text: str, start: int) -> int:
    """Where the object or list that begins at `start` ends, in a text that was accepted."""
    depth = 0
    for match in _BRACKET.finditer(text, start):
        token = match[0]
        depth += (token in "{[") - (token in "}]")
        if not depth:
            return match.end()
    raise AssertionError("a bracket is never closed")


def _spans(text: str, parent: _Node) -> dict[str | int, _Node]:
    """The values directly inside an object or list, in a text that `json.loads` has accepted.

    Deeper values are skipped, so that only the needed positions of a large file are kept.
    """
    found: dict[str | int, _Node] = {}
    key: str | None = None
    key_start = at = parent.start + 1
    while match := _TOKEN.match(text, at):
        token, start, at = match[1], match.start(1), match.end()
        if token in "}]":
            break
        if token in ",:":
            continue
        if parent.is_object and key is None:
            key, key_start = json.loads(token) if "\\" in token else token[1:-1], start
            continue
        at = _end_of(text, start) if token in "{[" else at
        node = _Node(start=start, key=start, is_object=token == "{", end=at)
        if key is None:
            found[len(found)] = node
        else:
            node.key = key_start
            found[key] = node
        key = None
    return found
