"""What `push` and `card` do around the library: progress, findings, questions, the result."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import typer

from yarncli import console
from yarncli.check.finding import Finding
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckFailed, HubError, UsageError
from yarncli.evaluate.report import Report, read_report
from yarncli.hub import writing
from yarncli.hub.writing import Commit
from yarncli.publish import card as cards
from yarncli.publish.card import CardRequest
from yarncli.publish.local import Local, Options, prepare_local
from yarncli.publish.plan import PushPlan, make_plan
from yarncli.publish.preflight import origin_of
from yarncli.publish.push import carry_out
from yarncli.publish.section import HEATMAP

SCHEMA = 1


def checked(path: str, options: Options, *, json: bool) -> Local:
    """The local side of a push, with its findings told.

    Raises:
        CheckFailed: an error is among them.
    """
    local = prepare_local(path, options)
    errors = sum(finding.severity == "error" for finding in local.findings)
    if json and errors:
        console.print_json(
            {"schema": SCHEMA, "findings": [finding.to_json() for finding in local.findings]}
        )
    for finding in local.findings:
        _tell(finding)
    if errors:
        raise CheckFailed(f"{errors} error{'' if errors == 1 else 's'}. Nothing was sent.")
    return local


def planned(local: Local, target: str, options: Options, results: Path | None) -> PushPlan:
    """Decide the push, with a bar while files are compared."""
    report = _read_results(results, local.checkpoint.name) if results else None
    heatmap = _heatmap(report) if report and options.with_card else None
    total = sum(file.size for file in local.selection.files)
    with console.progress(total, "Comparing") as advance:
        plan = make_plan(local, target, options, results=report, heatmap=heatmap, progress=advance)
    for note in plan.notes:
        console.note(note)
    return plan


def show_plan(plan: PushPlan, local: Local, *, json: bool) -> None:
    """Print what a push would do."""
    if json:
        findings = [finding.to_json() for finding in local.findings]
        console.print_json({**_plan_json(plan), "sent": False, "findings": findings})
        return
    console.print_text(_summary(plan))
    rows: list[list[str | int | float | None]] = []
    rows += [["send", console.format_bytes(u.size), u.name] for u in plan.changed]
    rows += [["copy on the Hub", None, copy.name] for copy in plan.copies]
    rows += [["unchanged", None, name] for name in plan.unchanged]
    rows += [[f"stays: {reason}", None, name] for name, reason in plan.left_out.items()]
    console.print_table(["what", "size", "file"], rows)
    if plan.card_diff:
        console.print_text("\n" + plan.card_diff.rstrip("\n"))


def agreed(plan: PushPlan, *, ask: bool) -> bool:
    """Tell what will be sent, and ask where somebody sits at a terminal."""
    console.note(_summary(plan))
    if ask and sys.stdin.isatty() and sys.stderr.isatty():
        return typer.confirm("Go on?", err=True)
    return True


def carried_out(plan: PushPlan) -> Commit:
    """Push, with a bar; where the client stores through Xet, it draws its own."""
    if writing.uses_xet():
        return carry_out(plan)
    with console.progress(plan.size, "Sending") as advance:
        return carry_out(plan, progress=advance)


def show_result(plan: PushPlan, commit: Commit, *, json: bool) -> None:
    """Print the address of the commit or pull request, alone."""
    if json:
        done = {"sent": True, "commit": commit.oid, "revision": commit.revision}
        console.print_json({**_plan_json(plan), **done, "url": commit.url})
        return
    if not plan.changed and not plan.copies:
        console.note("Everything is there already; nothing was sent.")
    console.print_text(commit.url)


def write_card(
    path: Path,
    name: str | None,
    results: Path | None,
    base_model: str | None,
    licence: str | None,
) -> str:
    """The card of a local checkpoint; its base on the Hub is read where it can be reached.

    Raises:
        CheckpointError: `path` is not a checkpoint, or a card's metadata cannot be read.
    """
    checkpoint = open_checkpoint(str(path), bare_hub_id=False)
    if checkpoint.directory is None:
        raise UsageError(f"{path} is not a directory. Give the directory of a checkpoint.")
    origin = origin_of(cards.steps_of(checkpoint))
    wanted = (base_model, None) if base_model else origin
    base = None
    if wanted:
        try:
            base = cards.read_base(*wanted)
        except HubError as error:
            console.warn(f"The card takes nothing over from the base model. {error}")
            base = cards.Base(wanted[0], wanted[1] or "", None, ())
    report = _read_results(results, checkpoint.name) if results else None
    request = CardRequest(
        name or path.resolve().name, base, licence, report, heatmap=report is not None
    )
    return cards.make_card(checkpoint, cards.local_card(checkpoint), request)


def _tell(finding: Finding) -> None:
    place = "" if finding.line is None else f" (line {finding.line})"
    tell = {"error": console.error, "warning": console.warn, "note": console.note}
    tell[finding.severity](f"{finding.message}{place} [{finding.rule.id}]")


def _read_results(path: Path, name: str) -> Report:
    report = read_report(path)
    measured = str(report.settings.get("model") or "").rstrip("/").rpartition("/")[2]
    if measured and measured != Path(name).resolve().name:
        console.warn(f"The results in {path} are of {measured}, not of {name}.")
    return report


def _heatmap(report: Report) -> bytes | None:
    """The figure of the results; None, with a note, where matplotlib is not installed."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        console.note("The card has no figure: that needs matplotlib (pip install 'yarncli[plot]').")
        return None
    from yarncli.figures.passkey import plot_passkey

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, HEATMAP)
        plot_passkey([report], path)
        return path.read_bytes()


def _summary(plan: PushPlan) -> str:
    where = plan.destination.repo_id
    if not plan.exists:
        where += f" (new, {'public' if plan.public else 'private'})"
    elif plan.destination.pull_request:
        where += " (a new pull request)"
    elif plan.destination.revision != "main":
        where += f" ({plan.destination.revision})"
    count = len(plan.changed)
    copied = f", {len(plan.copies)} copied on the Hub" if plan.copies else ""
    return (
        f"To {where}: {count} file{'' if count == 1 else 's'}, "
        f"{console.format_bytes(plan.size)}{copied}, {len(plan.unchanged)} unchanged."
    )


def _plan_json(plan: PushPlan) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "repository": plan.destination.repo_id,
        "exists": plan.exists,
        "public": plan.public,
        "pull_request": plan.destination.pull_request,
        "revision": plan.destination.revision,
        "files": [{"name": u.name, "size": u.size} for u in plan.changed],
        "copies": [{"name": c.name, "from": f"{c.repo_id}@{c.commit}"} for c in plan.copies],
        "unchanged": list(plan.unchanged),
        "left_out": plan.left_out,
        "card_diff": plan.card_diff,
        "notes": list(plan.notes),
    }
