"""Saved runs as a table: a line of CSV for each result."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yarncli.checkpoint.output import atomic_write
from yarncli.errors import UsageError
from yarncli.evaluation.result_file import read_results


def write_table(paths: Sequence[Path], out: Path) -> list[str]:
    """Write the results of saved runs of one command as CSV.

    The first columns are the file and the setting; lists stand in their cell as JSON.

    Args:
        paths: of the result files.
        out: the table; a file of that name is replaced.

    Returns:
        What should be known about the files; a sentence each.

    Raises:
        CheckpointError: a file is no result file.
        UsageError: they are of different commands, or there is no result yet.
        OutputError: the table cannot be written.
    """
    written = [read_results(path) for path in paths]
    kinds = sorted({each.kind for each in written})
    if len(kinds) > 1:
        raise UsageError(
            f"Results of {' and '.join(kinds)} cannot be in one table. Write one table per command."
        )
    rows = [{"file": each.path.name, **line} for each in written for line in each.lines]
    if not rows:
        raise UsageError("There are no results to write yet.")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    atomic_write(out, text.getvalue().encode())
    return [
        f"{each.path} ends in the middle of a line, because its run was interrupted. The table has "
        "only the complete results."
        for each in written
        if each.is_cut
    ]


def _cell(value: Any) -> Any:
    """A value as its cell: text as it is, but never a formula for a spreadsheet; lists as JSON."""
    if isinstance(value, str):
        return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
    return json.dumps(value) if isinstance(value, (list, dict, bool)) else value
