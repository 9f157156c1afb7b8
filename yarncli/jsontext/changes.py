"""The only format for changed values before and after, for text output and for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from yarncli.errors import ConfigError
from yarncli.jsontext.text import JsonText, Path, format_path


class Absent(Enum):
    """The type of `ABSENT`, which means "no such key"; null is a JSON value."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One value that was replaced in one file."""

    file: str
    """The name of the file."""
    path: Path
    """Path of the value in the file."""
    before: Any
    """The old value; `ABSENT` if the key is new."""
    after: Any
    """The new value; `ABSENT` if the key was removed."""

    def to_json(self) -> dict[str, Any]:
        """The change as plain data. An absent value has no key."""
        found: dict[str, Any] = {"file": self.file, "path": list(self.path)}
        if self.before is not ABSENT:
            found["before"] = self.before
        if self.after is not ABSENT:
            found["after"] = self.after
        return found

    @classmethod
    def from_json(cls, entry: Any) -> FieldChange:
        """Read a change that `to_json` wrote.

        Raises:
            ConfigError: `file` or `path` is missing, or of the wrong type.
        """
        entry = entry if isinstance(entry, dict) else {}
        file, path = entry.get("file"), entry.get("path")
        wrong = not isinstance(file, str) or not isinstance(path, list)
        if wrong or not all(type(key) in (str, int) for key in path):
            raise ConfigError("an entry of `replaced` lacks a valid `file` or `path`.")
        sides = {side: entry.get(side, ABSENT) for side in ("before", "after")}
        return cls(file=file, path=tuple(path), **sides)

    def describe(self) -> str:
        """The change in one line, without long values.

        Example:
            >>> FieldChange(file="config.json", path=("a",), before=1, after=2.0).describe()
            'config.json: a 1 → 2.0'
        """
        shown = [_brief(value) for value in (self.before, self.after)]
        return f"{self.file}: {format_path(self.path)} {shown[0]} → {shown[1]}"


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "{…}" if isinstance(value, dict) else "[…]"
    return "absent" if value is ABSENT else "null" if value is None else str(value)


def changed_fields(file: str, before: JsonText, after: JsonText) -> list[FieldChange]:
    """Every leaf value that differs between two versions of a file, in the new order."""
    return [
        FieldChange(file=file, path=path, before=old, after=new)
        for path, old, new in _differences((), before.value, after.value)
    ]


def _differences(path: Path, old: Any, new: Any) -> list[tuple[Path, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in [*new, *(key for key in old if key not in new)]:
            found += _differences((*path, key), old.get(key, ABSENT), new.get(key, ABSENT))
        return found
    return [] if old == new and type(old) is type(new) else [(path, old, new)]
