"""What a check finds: a rule that is broken, where, how badly, and the edit that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from yarncli.jsontext.text import Path, format_path

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that can be wrong; its texts make `--explain` and the pages of the docs.

    Attributes:
        id: what `--ignore` and `--explain` take.
        severity: of most findings; single ones may be milder.
        title: what is wrong, one line.
        breaks: who misreads it, and what then happens.
        mend: what to do; says whether `--fix` does it.
        fixable: whether `--fix` can mend it at least sometimes.
        engines: ids of the engines that misread it.
    """

    id: str
    severity: Severity
    title: str
    breaks: str
    mend: str
    fixable: bool = False
    engines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to one JSON file: values to set and keys to remove, by path."""

    changes: Mapping[Path, Any] = field(default_factory=dict)
    removals: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule at one place.

    Attributes:
        file: as the user knows it.
        line: from 1; None where the place is no line of a text.
        path: JSON path inside the file; empty where there is none.
        edit: what `--fix` would do to the file; None where the right value is not certain.
    """

    rule: Rule
    severity: Severity
    file: str
    line: int | None
    path: Path
    message: str
    edit: Edit | None = None

    def to_json(self) -> dict[str, Any]:
        """The finding as plain data, as `--json` shows it."""
        return {
            "rule": self.rule.id,
            "severity": self.severity,
            "file": self.file,
            "line": self.line,
            "path": format_path(self.path),
            "message": self.message,
            "breaks": self.rule.breaks,
            "engines": list(self.rule.engines),
            "fixable": self.edit is not None,
        }
