"""The whole of `yarncli check`: several sources under one set of options, and one report."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckFailed, UsageError
from yarncli.gguf.detection import is_gguf_source
from yarncli.jsontext.changes import FieldChange
from yarncli.options import checked
from yarncli.rules.catalogue import get_rule
from yarncli.rules.finding import Finding, Severity
from yarncli.rules.sources import check_source, place_of, places_in

if TYPE_CHECKING:
    from yarncli.gguf.intended import Intended

SCHEMA_VERSION = 1

Source = str | Path | Checkpoint

_LEVELS: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How to check."""

    fix: bool = False
    """Correct what has one right value."""
    strict: bool = False
    """Warnings fail as errors do."""
    ignore: Collection[str] = ()
    """Ids of rules that are neither reported nor mended."""
    engines: Collection[str] = ()
    """Ids of engines; what one of them would compute differently is an error."""
    whole: bool = False
    """Check the whole directory of each file given."""
    require_weights: bool = False
    """Weights that are not there are an error."""
    against: str | Path | None = None
    """The checkpoint that GGUF files should compute like; None: one in the same folder, if that is
    checked, too."""


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What a check found in all its sources, in order."""

    findings: tuple[Finding, ...]
    """What is wrong, or was left after mending."""
    changes: tuple[FieldChange, ...]
    """What `fix` wrote."""
    strict: bool
    """Whether warnings fail."""

    def count(self, severity: Severity) -> int:
        """How many findings of one severity there are."""
        return sum(finding.severity == severity for finding in self.findings)

    @property
    def passed(self) -> bool:
        """Whether nothing has to be looked at: no error (nor warning, if strict), no change."""
        wrong = self.count("error") + (self.count("warning") if self.strict else 0)
        return not wrong and not self.changes

    def require_passed(self) -> None:
        """Insist on a clean result.

        Raises:
            CheckFailed: counts what was found and changed; a note where all is mended.
        """
        if self.passed:
            return
        wrong = self.count("error") + (self.count("warning") if self.strict else 0)
        parts = [_counted(self.count(s), s) for s in ("error", "warning")]
        files = len({change.file for change in self.changes})
        if files:
            parts.append(f"{_counted(files, 'file')} changed")
        if files and not wrong:
            mended = CheckFailed(f"{parts[-1]}. Review what changed, and commit it again.")
            mended.severity = "note"
            raise mended
        fixable = sum(finding.is_fixable for finding in self.findings)
        hint = f" --fix can correct {fixable} of these findings." if fixable and not files else ""
        raise CheckFailed(", ".join(parts) + "." + hint)

    def to_json(self) -> dict[str, Any]:
        """The contract of `check --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "findings": [finding.to_json() for finding in self.findings],
            "changes": [change.to_json() for change in self.changes],
            **{f"{level}s": self.count(level) for level in _LEVELS},
        }


def check(
    sources: Source | Sequence[Source],
    options: CheckOptions = CheckOptions(),
    **changes: Any,
) -> CheckReport:
    """Tell what is wrong with the RoPE part of configs and checkpoints.

    Args:
        sources: config files, checkpoint directories, GGUF files, `hf://org/name`, or what
            `open_checkpoint` returned; one or several. Each place is checked once, and nothing is
            fetched without `hf://`.
        options: how to check.
        changes: fields of `options` to set otherwise, by name.

    Raises:
        UsageError: no source, no such rule or engine, or `fix` on the Hub.
        HubError: the Hub cannot be reached.
        CheckpointError, OutputError: a fix cannot be written.
    """
    options = checked(options, changes)
    ignored = {get_rule(name).id for name in options.ignore}
    if options.engines:
        from yarncli.engines.registry import get_engine

        options = replace(options, engines=[get_engine(name).id for name in options.engines])
    given = [sources] if isinstance(sources, Source) else sources
    if not given:
        raise UsageError("Give at least one config file, checkpoint directory or hf:// id.")
    paths = [_path(source) for source in given]
    found = {path: place_of(path, whole=options.whole) for path in paths}
    # A folder is looked through where it was given itself, not where a file in it was.
    places = [
        *dict.fromkeys(
            each for path, place in found.items() for each in places_in(place, below=place == path)
        )
    ]
    against = _against(options.against, places)
    reports = [
        check_source(
            place,
            against=against(place),
            fix=options.fix,
            require_weights=options.require_weights,
            ignore=ignored,
            engines=options.engines,
        )
        for place in places
    ]
    return CheckReport(
        findings=tuple(finding for report in reports for finding in report.findings),
        changes=tuple(change for report in reports for change in report.changes),
        strict=options.strict,
    )


def _against(given: str | Path | None, places: Sequence[str]) -> Callable[[str], Intended | None]:
    """What a GGUF file should compute: as the user says, or like the checkpoint beside it."""
    if given is not None:
        if not any(map(is_gguf_source, places)):
            raise UsageError("--against is for GGUF files, and none is given. Leave it out.")
        from yarncli.gguf.intended import intended_by

        told = intended_by(given)
        return lambda place: told
    folders = {*map(Path, places)}

    @cache  # asked for when a file is checked: a fix may have changed the checkpoint before
    def beside(folder: Path) -> Intended | None:
        from yarncli.gguf.intended import intended_beside

        return intended_beside(folder)

    def find(place: str) -> Intended | None:
        folder = Path(place).parent
        return beside(folder) if folder in folders and is_gguf_source(place) else None

    return find


def _path(source: Source) -> str:
    if not isinstance(source, Checkpoint):
        return os.fspath(source)
    place = source.directory or source.config_path
    return str(place) if place else f"hf://{source.repo_id}@{source.commit}"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
