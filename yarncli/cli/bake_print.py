"""What `bake` prints: the tensors, the checks, and the notes on the result."""

from __future__ import annotations

from yarncli.baking.bake import BakeReport, Recovery, recover
from yarncli.baking.deciding import Baking
from yarncli.baking.edits import TensorEdit
from yarncli.checkpoint.directory import JournalError
from yarncli.cli import console
from yarncli.cli.engines_print import print_next, warn_of
from yarncli.engines.judgement import Judgement

_RECOVERED = {
    "nothing": "no change was pending",
    "old": "the old state is back",
    "new": "the change had been completed",
}


def recovered(source: str, *, trust_journal: bool) -> Recovery:
    """Recover a directory; if the journal is of another user, show what it would restore.

    Raises:
        As `yarncli.baking.bake.recover`.
    """
    try:
        return recover(source, trust_journal=trust_journal)
    except JournalError as error:
        if error.restores:
            console.print_text("The journal would restore:")
        for line in error.restores:
            console.print_text(f"  {line}")
        raise


def print_recovery(source: str, found: Recovery) -> None:
    """Say in which state the directory is."""
    console.print_text(f"{source}: {_RECOVERED[found.state]}.")


def print_report(report: BakeReport) -> None:
    """Print what changed, the results of the checks, the notes, and the next command."""
    print_edits(report.baking)
    if report.adapter:
        edits = report.adapter.edits
        what = (
            f"{len(edits)} tensors" if edits else "unchanged: the norms of its base hold the factor"
        )
        console.print_text(f"adapter: {what}")
        for text in report.adapter.notes:
            console.warn(text)
    if report.twin:
        console.print_text(
            f"twin: baking changes the logits by {report.twin.baked:.1e}; leaving the factor out "
            f"changes them by {report.twin.unbaked:.1e}"
        )
    if report.logits:
        found = report.logits
        console.print_text(
            f"logits: largest difference {found.difference:.1e}, same first choice at "
            f"{found.same_choice:.1%} of {found.positions} late positions"
        )
    print_notes(report.baking)
    changes_source = report.out is None and report.adapter is None
    if (report.out or changes_source) and report.written and report.judgement.verdicts:
        print_next(report.judgement, str(report.out or report.baking.checkpoint.name))


def print_edits(baking: Baking) -> None:
    """Print the factor in the weights, and the tensors that change: one row per kind."""
    factors = ", ".join(f"{t.scope} {t.factor:.6g}" for t in baking.attention_factors)
    console.print_text(
        f"attention factor in the weights: {factors} (side {baking.baked.side}, layout "
        f"{baking.baked.layout}); {console.format_bytes(baking.nbytes)} in "
        f"{len(baking.edits)} tensors"
    )
    kinds: dict[tuple[str, float, str], list[TensorEdit]] = {}
    for edit in baking.edits:
        kinds.setdefault((edit.kind, edit.factor, edit.info.dtype), []).append(edit)
    console.print_table(
        ["tensor", "layers", "rows", "times", "rounding", "bytes"], [*map(_row, kinds.values())]
    )


def _row(edits: list[TensorEdit]) -> list[console.CellValue]:
    one = edits[0]
    return [
        f"{one.kind} ({one.info.dtype})",
        len({edit.layer for edit in edits}),
        f"{one.rows.count} of {one.rows_total}",
        f"{one.factor:.6g} (m^{one.power})" + (", of 1 + w" if one.offset else ""),
        f"{max(edit.rounding for edit in edits):.1e}",
        sum(edit.nbytes for edit in edits),
    ]


def _exact(found: Judgement) -> int:
    return sum(view.status == "exact" for view in found.verdicts)


def print_notes(baking: Baking) -> None:
    """Print the notes on a bake, and which engines compute something else from it."""
    for text in baking.notes:
        console.note(text)
    found = baking.judgement()
    warn_of(found)
    if found.verdicts:
        before = baking.judgement_before()
        console.note(
            f"Engines that compute what is intended: {_exact(before)} before the bake, "
            f"{_exact(found)} after, of {len(found.verdicts)}."
        )
    if not found.verdicts:
        console.note(
            "yarncli does not know what engines other than transformers compute from this model."
        )
