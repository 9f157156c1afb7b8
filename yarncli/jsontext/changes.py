"""The before/after format of changed values: the only one, for people and for JSON."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any

from yarncli.errors import ConfigError
from yarncli.jsontext.text import JsonText, Path, format_path


class Absent(Enum):
    """The one value that stands for "no such key"; null is a value of JSON."""

    ABSENT = "absent"


ABSENT = Absent.ABSENT


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldChange:
    """One value replaced in one file."""

    file: str
    """The name of the file."""
    path: Path
    """Place of the value in it."""
    before: Any
    """The old value; `ABSENT` where the key is new."""
    after: Any
    """The new value; `ABSENT` where the key is gone."""

    def to_json(self) -> dict[str, Any]:
        """As plain data: an absent side has no key."""
        found: dict[str, Any] = {"file": self.file, "path": list(self.path)}
        if self.before is not ABSENT:
            found["before"] = self.before
        if self.after is not ABSENT:
            found["after"] = self.after
        return found

    @classmethod
    def from_json(cls, entry: Any) -> FieldChange:
        """The change that `to_json` wrote down.

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
        """`config.json: rope_theta 10000 → 83000.0`, long values left out."""
        shown = [_brief(value) for value in (self.before, self.after)]
        return f"{self.file}: {format_path(self.path)} {shown[0]} → {shown[1]}"


def _brief(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "{…}" if isinstance(value, dict) else "[…]"
    return "absent" if value is ABSENT else "null" if value is None else str(value)


def changed_fields(file: str, before: JsonText, after: JsonText) -> list[FieldChange]:
    """Every leaf that differs between two versions of a file, in the order of the new one."""
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
