"""A check's report as SARIF 2.1.0, the format that code scanning services read.

Reference: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from yarncli import __version__
from yarncli.rules.check import CheckReport
from yarncli.rules.finding import Finding, Rule

_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def to_sarif(report: CheckReport) -> dict[str, Any]:
    """One run with all findings, and the texts of the rules that they are about."""
    rules = list({finding.rule.id: finding.rule for finding in report.findings}.values())
    driver = {"name": "yarncli", "version": __version__, "rules": [_rule(rule) for rule in rules]}
    places = [rule.id for rule in rules]
    results = [_result(finding, places.index(finding.rule.id)) for finding in report.findings]
    run = {"tool": {"driver": driver}, "results": results, "columnKind": "unicodeCodePoints"}
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(rule: Rule) -> dict[str, Any]:
    return {
        "id": rule.id,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.breaks},
        "help": {"text": rule.mend},
        "defaultConfiguration": {"level": rule.severity},
    }


def _result(finding: Finding, rule: int) -> dict[str, Any]:
    # A name with a scheme, such as hf://, is an address already.
    file = finding.file.removeprefix("./")
    place: dict[str, Any] = {"artifactLocation": {"uri": quote(file, safe="/:@")}}
    if finding.line is not None:
        place["region"] = {"startLine": finding.line}
    return {
        "ruleId": finding.rule.id,
        "ruleIndex": rule,
        "level": finding.severity,
        "message": {"text": finding.message},
        "locations": [{"physicalLocation": place}],
    }
