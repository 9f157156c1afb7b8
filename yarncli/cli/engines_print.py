"""How `yarncli engines` prints the verdicts, and how other commands warn of them."""

from __future__ import annotations

from yarncli.cli import console
from yarncli.engines.judgement import Judgement
from yarncli.engines.verdict import EngineView, ScopeView


def warn_of(found: Judgement) -> None:
    """Name on stderr each engine that does not do what is intended, and what it does.

    Engines that are not known to do it, or have no code for the model, share a line each.
    """
    apart: dict[str, list[str]] = {"unsupported": [], "unknown": []}
    for view in found.verdicts:
        if view.status in apart:
            apart[view.status].append(view.engine.id)
        elif view.status != "exact":
            console.warn(f"{view.engine.id} {view.status}: {view.summary()}")
    if apart["unknown"]:
        console.warn(f"It is not known what it does in: {', '.join(apart['unknown'])}.")
    if apart["unsupported"]:
        console.warn(f"These have no code for this model: {', '.join(apart['unsupported'])}.")


def print_judgement(found: Judgement, *, lines: bool) -> None:
    """The table, what is wrong below it, and launch lines where they are asked for or needed."""
    length = found.verdicts[0].length
    meant = f"{length:,} tokens" if length else "what is not known"
    console.print_text(f"Meant: {meant} (from {found.intended_from})")
    rows = [_row(item) for item in found.verdicts]
    console.print_table(["engine", "status", "serves", "attention", "what"], rows)
    console.print_text(found.count())
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
    scales = sorted({scope.attention_factor for scope in item.scopes})
    shown = " / ".join(f"{scale:.5g}" for scale in scales) or None
    what = item.summary()
    extra = [note for note in item.notes if note not in what]
    return [item.engine.id, item.status, serves, shown, "; ".join([what, *extra])]


def print_explanation(found: Judgement) -> None:
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
            "attention scale": scope.attention_factor,
            "of the intended": scope.attention_ratio,
            "softmax scale": scope.softmax_scale_ratio,
            "largest frequency deviation": scope.deviation,
            "at pair": scope.deviation_at,
        }
    )
    pairs = enumerate(scope.inv_freq)
    console.print_table(["pair", "inv_freq"], [[i, value] for i, value in pairs])
