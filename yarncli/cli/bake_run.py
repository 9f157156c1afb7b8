"""What `bake` does around the library: fetch, check, write with a progress bar, report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.baking import adapters
from yarncli.baking import baking as library
from yarncli.baking.adapters import AdapterBaking
from yarncli.baking.baking import Baking, Options
from yarncli.baking.view import edit_rows, edits_to_json, judge_baking, to_json
from yarncli.checkpoint import journal
from yarncli.checkpoint.output import check_destination
from yarncli.checkpoint.source import open_checkpoint
from yarncli.cli import console
from yarncli.cli.engines_print import warn_of
from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.extras import require_extra


@dataclass(frozen=True)
class Run:
    """One call of the command."""

    options: Options
    out: Path | None
    adapter: tuple[Path, Path] | None
    engines: tuple[str, ...]
    verify: bool
    text: str | None
    in_place: bool
    dry_run: bool
    overwrite: bool
    fsync: bool


def recover(source: str, *, json: bool) -> None:
    """Bring a directory out of an interrupted `--in-place`, and say in which state it is."""
    directory = Path(source)
    if not directory.is_dir():
        raise UsageError(f"{source} is not a directory on this machine.")
    state = journal.recover(directory)
    texts = {
        "nothing": "no change was pending",
        "old": "the old state is back",
        "new": "the bake had been completed",
    }
    if json:
        console.print_json({"schema": 1, "recovered": state})
    else:
        console.print_text(f"{source}: {texts[state]}.")


def bake(source: str, run: Run, *, json: bool) -> None:
    """Decide, check, write and report."""
    _check_outputs(run)
    if run.in_place and not run.dry_run and Path(source).is_dir():
        journal.recover(Path(source))
    checkpoint = open_checkpoint(source)
    if not run.dry_run:  # before a large fetch or a check that takes seconds
        adapter_source, adapter_out = run.adapter or (None, None)
        for place, origin in ((run.out, checkpoint.directory), (adapter_out, adapter_source)):
            if place:
                check_destination(place, source=origin, overwrite=run.overwrite)
    baking = library.prepare(checkpoint, run.options)
    adapter = adapters.prepare_adapter(run.adapter[0], baking) if run.adapter else None
    refuse_engines(baking, run.engines)
    checks = _check_twin(baking, run)
    if not run.dry_run:
        checks |= _write(baking, adapter, run)
    if json:
        console.print_json(
            {
                **to_json(baking),
                "adapter": edits_to_json(adapter.edits) if adapter else None,
                "written": not run.dry_run,
                "output": str(run.out) if run.out else None,
                "checks": checks,
            }
        )
    else:
        _report(baking, adapter, run, checks)


def _check_outputs(run: Run) -> None:
    if run.in_place and run.out:
        raise UsageError("Give the directory to write, OUT, or --in-place, and only one of them.")
    if not (run.out or run.in_place or run.dry_run or run.adapter):
        raise UsageError("Give the directory to write, OUT, or --in-place.")
    if run.text is not None and (run.out is None or run.dry_run):
        raise UsageError("--verify-logits compares SOURCE with OUT, so it needs a written OUT.")


def refuse_engines(baking: Baking, engines: Sequence[str]) -> None:
    """Insist that these engines compute the baked checkpoint as meant.

    Raises:
        UsageError: an unknown engine.
        UnsupportedArchitectureError: one of them would not; says what it would do.
    """
    for view in judge_baking(baking, engines).verdicts if engines else ():
        if view.status != "exact":
            raise UnsupportedArchitectureError(
                f"{view.engine.id} would not compute the baked model as meant: {view.summary()}. "
                "Name only engines that do, or leave them out and serve the unbaked checkpoint "
                "there."
            )


def _check_twin(baking: Baking, run: Run) -> dict[str, Any]:
    """A named layout is always proved on a small random model; others with `--verify`."""
    if run.options.layout is None and not run.verify:
        return {}
    require_extra("The check on a small random model", "torch", "transformers")
    from yarncli.baking import twin

    found = twin.check_layout(baking)
    return {"twin": {"unbaked": found.without, "baked": found.baked}}


def _write(baking: Baking, adapter: AdapterBaking | None, run: Run) -> dict[str, Any]:
    checks: dict[str, Any] = {}
    if run.in_place:
        total = 2 * sum(p.length for patches in baking.patches.values() for p in patches)
        with console.progress(total, "Baking") as advance:
            library.write_in_place(baking, progress=advance)
    elif run.out:
        baking = write_copy(
            baking, run.out, overwrite=run.overwrite, fsync=run.fsync, verify=run.verify
        )
    if adapter and run.adapter:
        adapters.write_adapter(adapter, run.adapter[1], overwrite=run.overwrite)
    if run.text is not None and run.out and baking.checkpoint.directory:
        checks["logits"] = _compare(baking, run.out, run.text)
    return checks


def write_copy(
    baking: Baking, out: Path, *, overwrite: bool, fsync: bool, verify: bool = False
) -> Baking:
    """Fetch the source where it is on the Hub, and write OUT; returns the bake of local files."""
    baking = replace(baking, checkpoint=baking.checkpoint.download(progress=console.ProgressBars()))
    with console.progress(library.work(baking, verify=verify), "Baking") as advance:
        library.write_copy(
            baking, out, overwrite=overwrite, fsync=fsync, verify=verify, progress=advance
        )
    return baking


def _compare(baking: Baking, out: Path, text: str) -> dict[str, Any]:
    require_extra("--verify-logits", "torch", "transformers")
    from yarncli.baking.twin import compare_logits

    directory = baking.checkpoint.directory
    assert directory is not None
    found = compare_logits(directory, out, text, baking.checkpoint.parameters())
    return {
        "difference": found.difference,
        "same_choice": found.same_choice,
        "positions": found.positions,
    }


def _report(
    baking: Baking, adapter: AdapterBaking | None, run: Run, checks: dict[str, Any]
) -> None:
    show_edits(baking)
    if adapter:
        what = f"{len(adapter.edits)} tensors" if adapter.edits else "nothing: its base's norms do"
        console.print_text(f"adapter: {what}")
    if "twin" in checks:
        console.print_text(
            f"twin: logits change by {checks['twin']['baked']:.1e} baked, "
            f"{checks['twin']['unbaked']:.1e} without"
        )
    if "logits" in checks:
        found = checks["logits"]
        console.print_text(
            f"logits: largest difference {found['difference']:.1e}, same first choice at "
            f"{found['same_choice']:.1%} of {found['positions']} late positions"
        )
    show_notes(baking)
    if run.out and not run.dry_run:
        console.note(f"Next: yarncli engines {run.out}")


def show_edits(baking: Baking) -> None:
    """Print what the weights carry and which tensors change."""
    factors = ", ".join(f"{t.scope} {t.factor:.6g}" for t in baking.temperatures)
    console.print_text(
        f"attention factor in the weights: {factors} (side {baking.side}, layout "
        f"{baking.layout.name}); {console.format_bytes(baking.nbytes)} in "
        f"{len(baking.edits)} tensors"
    )
    console.print_table(
        ["tensor", "layers", "rows", "times", "rounding", "bytes"], edit_rows(baking.edits)
    )


def show_notes(baking: Baking) -> None:
    """Tell what to know of a bake, and which engines compute something else from it."""
    for text in baking.notes:
        console.note(text)
    warn_of(judge_baking(baking))
