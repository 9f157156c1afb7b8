"""What `convert` does around the library: fetch, write with a progress bar, report."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from yarncli import console
from yarncli.checkpoint.source import Checkpoint
from yarncli.convert import convert as library
from yarncli.convert.convert import Conversion, Weights, files_to_carry
from yarncli.errors import UsageError
from yarncli.rope.engines.intended import Intended
from yarncli.rope.engines.registry import judge
from yarncli.rope.engines.view import EngineView
from yarncli.rope.fields import FieldChange

SCHEMA = 1


def read_factors(path: Path | None) -> list[float] | None:
    """The JSON list of numbers in a `--short-factor` or `--long-factor` file.

    Raises:
        UsageError: unreadable, or not a list of numbers.
    """
    if path is None:
        return None
    try:
        found = json_module.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(found, list) or not all(type(item) in (int, float) for item in found):
        raise UsageError(f"{path} must hold one JSON list of numbers.")
    return [float(item) for item in found]


def write(
    conversion: Conversion, out: Path | None, *, weights: Weights, overwrite: bool, fsync: bool
) -> None:
    """Write to OUT, or in place where `out` is None; a Hub model is fetched first."""
    if out is None:
        library.write_in_place(conversion)
        return
    wanted = files_to_carry(conversion.checkpoint, weights)
    names = tuple(file.name for file in wanted)
    missing = conversion.checkpoint.missing_bytes(names)
    if missing:
        console.note(f"Fetching {console.format_bytes(missing)} into the Hub cache.")
    with console.progress(missing, "Fetching") as advance:
        local = conversion.checkpoint.download(names, progress=advance)
    total = sum(file.size for file in wanted)
    with console.progress(total, "Copying") as advance:
        library.write_copy(
            replace(conversion, checkpoint=local),
            out,
            weights=weights,
            overwrite=overwrite,
            fsync=fsync,
            progress=advance,
        )


def report(conversion: Conversion, *, out: Path | None, dry_run: bool, json: bool) -> None:
    """Print what changed, what to know, and the next command."""
    plan = conversion.plan
    views = _views(conversion)
    if json:
        console.print_json(
            {
                "schema": SCHEMA,
                "written": not dry_run,
                "output": str(out) if out else None,
                "plan": plan.to_json(),
                "changes": _changes_json(conversion.changes),
                "engines": [
                    {"engine": v.engine.id, "status": v.status, "summary": v.summary()}
                    for v in views
                ],
            }
        )
        return
    console.print_text(
        f"{plan.method}: {plan.original_length:,} → {plan.length:,} tokens, factor "
        f"{plan.factor:g} (original from {plan.original_source})"
    )
    if dry_run:
        console.print_text(conversion.diff())
    else:
        for change in conversion.changes:
            console.print_text(f"  {change.describe()}")
    for text in plan.notes:
        console.note(text)
    for view in views:
        if view.status != "exact":
            console.warn(f"{view.engine.id} {view.status}: {view.summary()}")
    if not dry_run:
        place = out or conversion.checkpoint.name
        console.note(f"Next: yarncli engines {place}")


def _views(conversion: Conversion) -> list[EngineView]:
    config = conversion.config.value
    return judge(config, Intended.by_plan(config, conversion.plan), launch=False)


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
