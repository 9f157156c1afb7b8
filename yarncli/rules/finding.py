"""What a check finds: a rule that is broken, where, how badly, and the edit that mends it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from yarncli.jsontext.text import Path, format_path

if TYPE_CHECKING:
    from yarncli.gguf.plan import GgufPlan

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that can be wrong; its texts make `--explain` and the pages of the docs."""

    id: str
    """What `--ignore` and `--explain` take."""
    severity: Severity
    """Of most findings; single ones may be milder."""
    title: str
    """What is wrong, one line."""
    breaks: str
    """Who misreads it, and what then happens."""
    mend: str
    """What to do; says whether `--fix` does it."""
    fixable: bool = False
    """Whether `--fix` can mend it at least sometimes."""
    engines: tuple[str, ...] = ()
    """Ids of the engines that misread it."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A change to one JSON file: values to set and keys to remove, by path."""

    changes: Mapping[Path, Any] = field(default_factory=dict)
    removals: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken rule at one place."""

    rule: Rule
    """The rule that is broken."""
    severity: Severity
    """How bad it is here; may differ from the rule's own severity."""
    file: str
    """The file as the user knows it."""
    line: int | None
    """The line, from 1; `None` where the place is no line of a text."""
    path: Path
    """JSON path inside the file; empty where there is none."""
    message: str
    """What was found, in whole sentences."""
    edit: Edit | None = None
    """What `--fix` would do to the file; `None` where the right value is not certain."""
    gguf_edit: GgufPlan | None = None
    """The same for a GGUF file."""

    @property
    def is_fixable(self) -> bool:
        """Whether `--fix` can mend it."""
        return self.edit is not None or self.gguf_edit is not None

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
            "fixable": self.is_fixable,
        }
