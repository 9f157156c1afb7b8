"""What `push` shows: progress, the question, the plan, the result."""

from __future__ import annotations

import os
import sys

import typer

from yarncli.cli import console
from yarncli.errors import UsageError
from yarncli.hub.commits import HASHING, SENDING, Commit
from yarncli.progress import Progress
from yarncli.publishing.options import MAIN
from yarncli.publishing.plan import PushPlan


class PushBars(console.ProgressBars):
    """The progress of a push; it knows whether anything was being sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sending = False

    def __call__(self, now: Progress) -> None:
        """Take what the push tells."""
        self.sending = now.stage in (HASHING, SENDING)
        super().__call__(now)


def use_token_of(variable: str) -> None:
    """Take the token from an environment variable, for this process.

    Raises:
        UsageError: the variable is not set.
    """
    token = os.environ.get(variable, "").strip()
    if not token:
        # The user may have given the token itself, so the message does not show what was given.
        raise UsageError(
            "--token-env does not name an environment variable that is set. Give the name of one."
        )
    os.environ["HF_TOKEN"] = token


def agreed(plan: PushPlan, *, ask: bool) -> bool:
    """Say what will be sent, and on a terminal ask whether to go on.

    Raises:
        KeyboardInterrupt: the user interrupted the question.
    """
    if not ask or plan.is_empty or not (sys.stdin.isatty() and sys.stderr.isatty()):
        console.note(_summary(plan))
        return True
    try:
        with console.nothing_shown():
            yes = typer.confirm(f"{_summary(plan)}\nGo on?", err=True)
    except typer.Abort:
        raise KeyboardInterrupt from None
    if not yes:
        console.note("Nothing was sent.")
    return yes


def show_plan(plan: PushPlan) -> None:
    """Print what a push would do."""
    console.print_text(_summary(plan))
    held = plan.target.start.files if plan.target.start else {}
    rows: list[list[console.CellValue]] = []
    for file in plan.changed:
        what = "replace" if file.name in held else "add"
        rows.append([what, console.format_bytes(file.size), file.name])
    rows += [["copy on the Hub", None, copy.name] for copy in plan.copies]
    rows += [["delete", None, name] for name in plan.deleted]
    rows += [["unchanged", None, name] for name in plan.unchanged]
    rows += [["stays", None, f"{name} ({reason})"] for name, reason in plan.left_out.items()]
    console.print_table(["what", "size", "file"], rows)
    if plan.card_diff:
        console.print_text("\n" + plan.card_diff)
    if plan.body:
        console.print_text("\nThe text of the pull request:\n\n" + plan.body)


def show_commit(plan: PushPlan, commit: Commit) -> None:
    """Print the address of the commit or pull request, alone."""
    if plan.is_empty:
        console.note("The Hub has all of it already; nothing was sent.")
    console.print_text(commit.url)


def _summary(plan: PushPlan) -> str:
    """One line: the repository, what is sent, and what stays."""
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
    parts = [f"{count} file{'' if count == 1 else 's'}, {console.format_bytes(plan.size)}"]
    parts += [f"{len(plan.copies)} copied on the Hub"] if plan.copies else []
    parts += [f"{len(plan.deleted)} deleted"] if plan.deleted else []
    parts += [f"{len(plan.unchanged)} unchanged"] if exists else []
    parts += [f"{len(plan.left_out)} left out"] if plan.left_out else []
    parts += [f"tag {plan.tag}"] if plan.tag else []
    return f"To {destination.repo_id} ({', '.join(facts)}): {', '.join(parts)}."
