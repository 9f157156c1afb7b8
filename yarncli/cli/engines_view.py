"""How `engines` reads a checkpoint and prints the verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.cli import console
from yarncli.engines.judgement import Judgement, judge
from yarncli.engines.verdict import SCHEMA, EngineView, ScopeView
from yarncli.history import read_history


def judged(checkpoint: Checkpoint, engines: Iterable[str], *, assume_like: str | None) -> Judgement:
    """Judge a checkpoint against its recorded plan, or else against transformers 5.

    Raises:
        UsageError: an unknown engine id.
        CheckpointError: the config cannot be read at all.
    """
    return judge(
        checkpoint.config().value,
        read_history(checkpoint),
        engines=engines,
        source=_launchable(checkpoint),
        assume_like=assume_like,
    )


def _launchable(checkpoint: Checkpoint) -> str:
    """What an engine can be started with: the Hub id, or the directory as the user named it."""
    return checkpoint.repo_id if checkpoint.is_remote and checkpoint.repo_id else checkpoint.name


def to_json(checkpoint: Checkpoint, found: Judgement) -> dict[str, Any]:
    """The contract of `engines --json`."""
    return {"schema": SCHEMA, "source": checkpoint.name, **found.to_json()}


def warn_of(found: Judgement) -> None:
    """Name on stderr each engine that does not do what is meant, and what it does."""
    for view in found.verdicts:
        if view.status != "exact":
            console.warn(f"{view.engine.id} {view.status}: {view.summary()}")


def show(found: Judgement, *, lines: bool) -> None:
    """The table, what is wrong below it, and launch lines where they are asked for or needed."""
    length = found.verdicts[0].length
    console.print_text(f"Meant: {length:,} tokens (from {found.intended_from})")
    rows = [_row(item) for item in found.verdicts]
    console.print_table(["engine", "status", "serves", "attention", "what"], rows)
    for item in found.verdicts:
        if item.launch and (lines or (item.status != "exact" and item.launch_is_exact)):
            hint = "" if item.launch_is_exact else " (does not make it right)"
            console.print_text(f"\n{item.engine.id}{hint}:\n  {item.launch}")
    if any(item.engine.basis == "read" for item in found.verdicts):
        console.note("The rules of some engines were read, not run: see --explain ID.")


def _row(item: EngineView) -> list[str | int | float | None]:
    serves: str | int | None = item.served_length
    if serves is None:
        serves = "no limit" if item.scopes else None
    scales = sorted({scope.attention_scale for scope in item.scopes})
    shown = " / ".join(f"{scale:.5g}" for scale in scales) or None
    what = item.summary()
    extra = [note for note in item.notes if note not in what]
    return [item.engine.id, item.status, serves, shown, "; ".join([what, *extra])]


def explained(found: Judgement) -> None:
    """One engine: what it is, what it does in general, and every number for this checkpoint."""
    for item in found.verdicts:
        engine = item.engine
        how = "run by the tests" if engine.basis == "run" else "read, not run here"
        console.print_heading(f"{engine.name} ({engine.versions}; {how})")
        for text in engine.about:
            console.print_text(f"- {text}")
        console.print_text(f"\nThis checkpoint: {item.status}, {item.summary()}")
        for note in item.notes:
            console.print_text(f"- {note}")
        for scope in item.scopes:
            _explain_scope(scope)
        if item.launch:
            console.print_text(f"\n{item.launch}")


def _explain_scope(scope: ScopeView) -> None:
    console.print_text(f"\n{scope.scope}, at {scope.at_length:,} tokens:")
    console.print_facts(
        {
            "attention scale": scope.attention_scale,
            "of the intended": scope.attention_ratio,
            "softmax scale": scope.softmax_scale_ratio,
            "largest frequency deviation": scope.deviation,
            "at pair": scope.deviation_at,
        }
    )
    pairs = enumerate(scope.inv_freq)
    console.print_table(["pair", "inv_freq"], [[i, value] for i, value in pairs])
