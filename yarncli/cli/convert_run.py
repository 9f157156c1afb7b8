"""What `convert` does around the library: fetch, write with a progress bar, report."""

from __future__ import annotations

import json as json_module
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.output import check_destination
from yarncli.checkpoint.source import Checkpoint
from yarncli.cli import console
from yarncli.cli.engines_print import warn_of
from yarncli.conversion import conversion as library
from yarncli.conversion.conversion import Conversion, Weights, files_to_carry
from yarncli.engines.judgement import Judgement, judge
from yarncli.errors import UsageError
from yarncli.jsontext.changes import FieldChange

SCHEMA = 1
_NUMBER = r"[0-9]+(?:\.[0-9]*)?(?:e[+-]?[0-9]+)?"
_NUMBERS = re.compile(rf"{_NUMBER}(?:,{_NUMBER})*", re.ASCII)


def read_factors(given: str | None) -> list[float] | None:
    """The numbers of `--short-factor` or `--long-factor`: `1.0,1.05`, or a file with a JSON list.

    Raises:
        UsageError: the file cannot be read, or holds no list of numbers.
    """
    if given is None:
        return None
    if _NUMBERS.fullmatch(given):
        return [float(number) for number in given.split(",")]
    path = Path(given)
    try:
        found = json_module.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(found, list) or not all(type(item) in (int, float) for item in found):
        raise UsageError(f"{path} must hold one JSON list of numbers.")
    return [float(item) for item in found]


@dataclass(frozen=True)
class Run:
    """What one call of the command writes, and how.

    Raises:
        UsageError: options that contradict each other.
    """

    out: Path | None
    weights: Weights
    bake: bool
    in_place: bool
    dry_run: bool
    overwrite: bool
    fsync: bool

    def __post_init__(self) -> None:
        _check(self)


def convert(conversion: Conversion, run: Run, *, json: bool) -> None:
    """Write and report."""
    if not run.dry_run:
        _write(conversion, run)
    if json:
        console.print_json(
            {
                **to_json(conversion, run),
                "bake": None,
                "engines": _judgement(conversion).brief(),
            }
        )
    else:
        _report(conversion, run)


def check_out(conversion: Conversion, run: Run) -> None:
    """Refuse a destination before anything large is fetched.

    Raises:
        UsageError: it must not be written.
    """
    if run.out and not run.dry_run:
        source = conversion.checkpoint.directory
        check_destination(run.out, source=source, overwrite=run.overwrite)


def _check(run: Run) -> None:
    if (run.out and run.in_place) or not (run.out or run.in_place or run.dry_run):
        raise UsageError("Give the directory to write, OUT, or --in-place, and only one of them.")
    if run.bake and run.in_place:
        raise UsageError(
            "--bake writes a copy. To change SOURCE itself, convert it with --in-place and run "
            "yarncli bake SOURCE --in-place then."
        )
    if run.bake and run.weights != "copy":
        raise UsageError(
            "--bake changes weights, so they can neither be left out nor linked. Leave out "
            "--config-only and --weights."
        )


def _write(conversion: Conversion, run: Run) -> None:
    """Write to OUT, or in place; a Hub model is fetched first."""
    if run.out is None:
        library.write_in_place(conversion)
        return
    wanted = files_to_carry(conversion.checkpoint, run.weights)
    names = tuple(file.name for file in wanted)
    local = conversion.checkpoint.download(names, progress=console.ProgressBars())
    with console.progress(sum(file.size for file in wanted), "Copying") as advance:
        library.write_copy(
            replace(conversion, checkpoint=local),
            run.out,
            weights=run.weights,
            overwrite=run.overwrite,
            fsync=run.fsync,
            progress=advance,
        )


def to_json(conversion: Conversion, run: Run) -> dict[str, Any]:
    """What was decided, but for the engines."""
    return {
        "schema": SCHEMA,
        "written": not run.dry_run,
        "output": str(run.out) if run.out else None,
        "plan": conversion.plan.to_json(),
        "changes": _changes_json(conversion.changes),
    }


def show_changes(conversion: Conversion, run: Run) -> None:
    """Print the plan in a line, then the changed fields, or the diff of a dry run."""
    plan = conversion.plan
    console.print_text(
        f"{plan.method}: {plan.original_length:,} → {plan.length:,} tokens, factor "
        f"{plan.factor:g} (original from {plan.original_source})"
    )
    if run.dry_run:
        console.print_text(conversion.diff())
    else:
        for change in conversion.changes:
            console.print_text(f"  {change.describe()}")


def _report(conversion: Conversion, run: Run) -> None:
    """Print what changed, what to know, and the next command."""
    show_changes(conversion, run)
    for text in conversion.plan.notes:
        console.note(text)
    warn_of(_judgement(conversion))
    if not run.dry_run:
        console.note(f"Next: yarncli engines {run.out or conversion.checkpoint.name}")


def _judgement(conversion: Conversion) -> Judgement:
    config, like = conversion.config.value, conversion.assume_like
    return judge(config, conversion.history, assume_like=like, launch=False)


def undo(checkpoint: Checkpoint, *, json: bool) -> None:
    """Take back the last conversion and say what was restored."""
    changes = library.undo(checkpoint)
    if json:
        console.print_json({"schema": SCHEMA, "changes": _changes_json(changes)})
        return
    for change in changes:
        console.print_text(f"  {change.describe()}")


def _changes_json(changes: Iterable[FieldChange]) -> list[dict[str, Any]]:
    return [change.to_json() for change in changes]
