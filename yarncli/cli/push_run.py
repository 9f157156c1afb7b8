"""What `push` and `card` do around the library: progress, findings, questions, the result."""

from __future__ import annotations

import math
import sys
import tempfile
from pathlib import Path
from typing import Any

import typer

from yarncli.checkpoint.source import open_checkpoint
from yarncli.cli import console
from yarncli.errors import CheckFailed, UsageError
from yarncli.evaluation.report import PasskeyReport, read_report
from yarncli.hub.writing import Commit
from yarncli.publishing import card as cards
from yarncli.publishing.card import CardRequest
from yarncli.publishing.local import MAIN, Local, Options, prepare_local
from yarncli.publishing.plan import PushPlan, make_plan
from yarncli.publishing.preflight import told
from yarncli.publishing.push import carry_out
from yarncli.publishing.record import origin_of, steps_of
from yarncli.publishing.section import HEATMAP

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
    tell = {"error": console.error, "warning": console.warn, "note": console.note}
    for finding in local.findings:
        tell[finding.severity](told(finding))
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
    held = plan.target.start.files if plan.target.start else {}
    rows += [
        ["replace" if u.name in held else "add", console.format_bytes(u.size), u.name]
        for u in plan.changed
    ]
    rows += [["copy on the Hub", None, copy.name] for copy in plan.copies]
    rows += [["unchanged", None, name] for name in plan.unchanged]
    rows += [["stays", None, f"{name} ({reason})"] for name, reason in plan.left_out.items()]
    console.print_table(["what", "size", "file"], rows)
    if plan.card_diff:
        console.print_text("\n" + plan.card_diff)


def agreed(plan: PushPlan, *, ask: bool) -> bool:
    """Tell what will be sent, and ask where somebody sits at a terminal.

    Raises:
        KeyboardInterrupt: the question was broken off.
    """
    console.note(_summary(plan))
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if plan.is_empty or not (ask and is_terminal):
        return True
    try:
        yes = typer.confirm("Go on?", err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if not yes:
        console.note("Nothing was sent.")
    return yes


def carried_out(plan: PushPlan) -> Commit:
    """Push, with a bar.

    Raises:
        KeyboardInterrupt: it was interrupted, and what to do next has been told.
    """
    try:
        with console.progress(plan.size, "Sending") as advance:
            return carry_out(plan, progress=advance)
    except KeyboardInterrupt:
        console.note("Interrupted. The same command goes on from here.")
        raise


def show_result(plan: PushPlan, commit: Commit, *, json: bool) -> None:
    """Print the address of the commit or pull request, alone."""
    for remark in commit.remarks:
        console.warn(remark)
    if json:
        done = {"sent": not plan.is_empty, "commit": commit.oid, "revision": commit.revision}
        console.print_json({**_plan_json(plan), **done, "url": commit.url})
        return
    if plan.is_empty:
        console.note("Everything is there already; nothing was sent.")
    console.print_text(commit.url)


def write_card(
    path: Path,
    name: str | None,
    results: Path | None,
    base_model: str | None,
    licence: str | None,
) -> str:
    """The card of a local checkpoint, with LF line ends; its base is read if it can be reached.

    Raises:
        CheckpointError: `path` is not a checkpoint, or a card's metadata cannot be read.
    """
    checkpoint = open_checkpoint(str(path), bare_hub_id=False)
    if checkpoint.directory is None:
        raise UsageError(f"{path} is not a directory. Give the directory of a checkpoint.")
    origin = origin_of(steps_of(checkpoint))
    wanted = (base_model, None) if base_model else origin
    notes: list[str] = []
    base = cards.base_of(wanted[0], wanted[1], notes) if wanted else None
    for text in notes:
        console.warn(text)
    report = _read_results(results, checkpoint.name) if results else None
    request = CardRequest(
        name or path.resolve().name, base, licence, report, heatmap=report is not None
    )
    card = cards.make_card(checkpoint, cards.local_card(checkpoint), request)
    return card.replace("\r\n", "\n").rstrip("\n")


def _read_results(path: Path, name: str) -> PasskeyReport:
    report = read_report(path)
    cells = sum(map(len, report.cells.values()))
    if not next(iter(report.cells.values()), ()):
        raise UsageError(f"{path} holds no results yet. Run check-passkey to its end first.")
    if cells < (planned := _prompts_planned(report)):
        console.warn(f"{path} holds {cells} of {planned} prompts: the run was not completed.")
    measured = str(report.settings.get("model") or "").rstrip("/").rpartition("/")[2]
    if measured and measured != Path(name).resolve().name:
        console.warn(f"The results in {path} are of {measured}, not of {name}.")
    return report


def _prompts_planned(report: PasskeyReport) -> int:
    """How many prompts the settings of a run ask for; 0 where they do not tell."""
    lengths, variants = report.settings.get("lengths"), report.settings.get("variants")
    each = [report.settings.get(name) for name in ("depths", "trials")]
    if not isinstance(lengths, list) or not isinstance(variants, dict):
        return 0
    return len(lengths) * len(variants) * math.prod(n if type(n) is int else 0 for n in each)


def _heatmap(report: PasskeyReport) -> bytes | None:
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
    """One line: where to, what goes, what stays."""
    destination, exists = plan.target.destination, plan.target.start is not None
    facts = [] if exists else ["new"]
    facts.append("public" if plan.public else "private")
    if destination.pull_request:
        facts.append("a new pull request")
    elif plan.target.is_new_branch:
        facts.append(f"a new branch {destination.revision}")
    elif destination.revision != MAIN:
        facts.append(destination.revision)
    count = len(plan.changed)
    size = console.format_bytes(plan.size)
    parts = [f"{count} file{'' if count == 1 else 's'}, {size}"]
    parts += [f"{len(plan.copies)} copied on the Hub"] if plan.copies else []
    parts += [f"{len(plan.unchanged)} unchanged"] if exists else []
    parts += [f"{len(plan.left_out)} left out"] if plan.left_out else []
    return f"To {destination.repo_id} ({', '.join(facts)}): {', '.join(parts)}."


def _plan_json(plan: PushPlan) -> dict[str, Any]:
    destination = plan.target.destination
    return {
        "schema": SCHEMA,
        "repository": destination.repo_id,
        "exists": plan.target.start is not None,
        "public": plan.public,
        "pull_request": destination.pull_request,
        "revision": destination.revision,
        "files": [{"name": u.name, "size": u.size} for u in plan.changed],
        "copies": [{"name": c.name, "from": f"{c.repo_id}@{c.commit}"} for c in plan.copies],
        "unchanged": list(plan.unchanged),
        "left_out": plan.left_out,
        "card_diff": plan.card_diff,
        "notes": list(plan.notes),
    }
