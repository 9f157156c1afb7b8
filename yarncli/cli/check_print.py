"""How `yarncli check` prints what it found."""

from __future__ import annotations

from yarncli.cli import console
from yarncli.cli.check_sarif import to_sarif
from yarncli.rules.catalogue import explain, get_rule
from yarncli.rules.check import CheckReport
from yarncli.rules.finding import Finding


def print_rule(name: str) -> None:
    """Print the page of one rule.

    Raises:
        UsageError: there is no such rule.
    """
    console.print_text(explain(get_rule(name)).rstrip("\n"))


def print_report(report: CheckReport, format: str) -> None:
    """Print all findings, and what was changed.

    Args:
        report: the report on all sources.
        format: "text", "github", "sarif" or "json".
    """
    if format == "json":
        console.print_json(report.to_json())
        return
    if format == "sarif":
        console.print_json(to_sarif(report))
        return
    for finding in report.findings:
        console.print_text(_annotation(finding) if format == "github" else _line(finding))
    for change in report.changes:
        console.note(f"changed {change.describe()}")


def _line(finding: Finding) -> str:
    file = finding.file.removeprefix("./")
    place = file if finding.line is None else f"{file}:{finding.line}"
    mend = " (--fix corrects it)" if finding.is_fixable else ""
    return _one_line(f"{place}: {finding.severity}[{finding.rule.id}] {finding.message}{mend}")


def _annotation(finding: Finding) -> str:
    """A workflow command of GitHub Actions, which shows the finding beside the line."""
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
