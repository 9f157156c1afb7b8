"""What `finish` prints: the check, what was restored, leftovers, and the next command."""

from __future__ import annotations

import shlex

from yarncli.cli import console
from yarncli.training.adapters import AdapterFinish
from yarncli.training.deciding import Finish

_SHOWN = 8  # leftovers that are named


def print_finish(found: Finish | AdapterFinish) -> None:
    """Print what was checked and changed, and the notes."""
    plan = found.history.plan
    if plan:
        console.print_text(
            f"{plan.method}: {plan.original_length:,} → {plan.length:,} tokens, factor "
            f"{plan.factor:g}: trained as converted"
        )
    console.print_text(f"training: {_run(found)}")
    if isinstance(found, Finish):
        for change in found.changes:
            console.print_text(f"  {change.describe()}")
        if found.taken:
            console.print_text(f"taken from {found.converted.name}: {', '.join(found.taken)}")
    _print_leftovers(found)
    for text in found.notes:
        console.note(text)
    if found.written and found.output:
        place = shlex.quote(str(found.output))
        if isinstance(found, AdapterFinish):
            place = f"{shlex.quote(found.converted.name)} --adapter {place}"
        console.print_text(f"next: yarncli check-passkey {place}")


def _run(found: Finish | AdapterFinish) -> str:
    run = found.run
    length = f"texts of {run.train_length:,} tokens" if run.train_length else "length not recorded"
    steps = f"{run.steps:,} step{'s' * (run.steps > 1)}" if run.steps else "steps not recorded"
    guard = "the guard saw these frequencies" if run.guarded else "without the guard"
    return f"{steps}, {length}, {guard}"


def _print_leftovers(found: Finish | AdapterFinish) -> None:
    if not found.leftovers:
        return
    names = list(dict.fromkeys(file.name.split("/")[0] for file in found.leftovers))
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    size = console.format_bytes(sum(file.size for file in found.leftovers))
    what = "left out"
    if found.output is None:
        what = "removed" if found.clean and found.written else "still there (--clean removes them)"
    console.print_text(f"files of the trainer, {what}: {', '.join(names[:_SHOWN])}{more} ({size})")
