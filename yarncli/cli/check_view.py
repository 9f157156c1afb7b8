"""How `yarncli check` runs over its arguments, prints what it found, and ends."""

from __future__ import annotations

from collections.abc import Sequence

from yarncli.cli import console
from yarncli.errors import CheckFailed, UsageError
from yarncli.rules.catalogue import RULES, explain
from yarncli.rules.finding import Finding, Rule
from yarncli.rules.run import Report, check_source, findings_of, place_of, to_json


def print_rule(name: str) -> None:
    """Print the page of one rule.

    Raises:
        UsageError: there is no such rule.
    """
    console.print_text(explain(_rule(name)).rstrip("\n"))


def check_all(
    paths: Sequence[str],
    *,
    ignore: Sequence[str],
    engines: Sequence[str],
    fix: bool,
    whole: bool,
    require_weights: bool,
) -> list[Report]:
    """Check every path once, and leave out the findings of ignored rules.

    Raises:
        UsageError: no path, or no such rule or engine.
    """
    ignored = {_rule(name).id for name in ignore}
    if engines:
        from yarncli.engines.registry import get_engine

        engines = [get_engine(name).id for name in engines]
    if not paths:
        raise UsageError("Give at least one config file, checkpoint directory or hf:// id.")
    reports = []
    for place in dict.fromkeys(place_of(path, whole=whole) for path in paths):
        report = check_source(
            place, fix=fix, require_weights=require_weights, ignore=ignored, engines=engines
        )
        reports.append(report)
    return reports


def show(reports: list[Report], format: str) -> None:
    """Print all findings, and what was changed.

    Args:
        reports: one per source.
        format: "text", "github" or "json".
    """
    if format == "json":
        console.print_json(to_json(reports))
        return
    for finding in findings_of(reports):
        console.print_text(_annotation(finding) if format == "github" else _line(finding))
    for report in reports:
        for change in report.changes:
            console.note(f"changed {change.describe()}")


def finish(reports: list[Report], *, strict: bool) -> None:
    """End well, or with the number of findings.

    Raises:
        CheckFailed: errors (with `strict` warnings too), or a file was changed.
    """
    errors, warnings = (sum(r.count(s) for r in reports) for s in ("error", "warning"))
    changed = len({change.file for report in reports for change in report.changes})
    fixable = sum(f.edit is not None for f in findings_of(reports))
    if not (errors or changed or (strict and warnings)):
        return
    parts = [_count(errors, "error"), _count(warnings, "warning")]
    if changed:
        parts.append(f"{_count(changed, 'file')} changed")
    hint = f" --fix can mend {fixable} of these findings." if fixable and not changed else ""
    raise CheckFailed(", ".join(parts) + "." + hint)


def _rule(name: str) -> Rule:
    if name not in RULES:
        raise UsageError(f"There is no rule {name!r}. The rules are {', '.join(RULES)}.")
    return RULES[name]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _line(finding: Finding) -> str:
    file = finding.file.removeprefix("./")
    place = file if finding.line is None else f"{file}:{finding.line}"
    mend = " (--fix mends it)" if finding.edit else ""
    return _one_line(f"{place}: {finding.severity}[{finding.rule.id}] {finding.message}{mend}")


def _annotation(finding: Finding) -> str:
    """A workflow command of GitHub Actions, which shows it beside the line."""
    kind = "notice" if finding.severity == "note" else finding.severity
    place = f"file={_escaped(finding.file.removeprefix('./'), ':,')}"
    if finding.line is not None:
        place += f",line={finding.line}"
    message = _escaped(console.visible(_one_line(finding.message)))
    return f"::{kind} {place},title={finding.rule.id}::{message}"


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _escaped(text: str, more: str = "") -> str:
    for character in "%\r\n" + more:
        text = text.replace(character, f"%{ord(character):02X}")
    return text
