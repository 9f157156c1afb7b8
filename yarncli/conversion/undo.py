"""`convert --undo`: undo the last conversion of a directory, as `yarncli.json` records it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.backups import backups_of, needless_backups
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import change, using
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.detection import is_gguf_source
from yarncli.history import FILE_NAME, History, read_history
from yarncli.jsontext.changes import ABSENT, FieldChange, changed_fields
from yarncli.jsontext.text import format_path
from yarncli.progress import ProgressCallback

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Undone:
    """A conversion that was undone."""

    changes: tuple[FieldChange, ...]
    """The values that were restored."""
    backups: tuple[str, ...] = ()
    """The `*.orig` files that remain; they differ from each other and from the present files."""

    def to_json(self) -> dict[str, Any]:
        """The document of `convert --undo --json`."""
        changes = [change.to_json() for change in self.changes]
        backups = list(self.backups)
        return {"schema_version": SCHEMA_VERSION, "changes": changes, "backups": backups}


def undo(
    source: str | Path | Checkpoint,
    out: str | Path | None = None,
    *,
    progress: ProgressCallback | None = None,
) -> Undone:
    """Undo the last conversion of a directory, field by field, as `yarncli.json` records it.

    The files that were converted are kept as `*.orig`. A backup is removed if its content equals
    the restored file or another backup. A GGUF file holds its record itself.

    Args:
        source: a directory, what `open_checkpoint` returned, or a GGUF file.
        out: for a GGUF file, the file to write instead of changing the source.
        progress: told how far the writing of `out` is, in bytes.

    Raises:
        UsageError: `out` is refused, or given for a directory.
        CheckpointError: nothing is recorded, or the last step was a bake.
        OutputError: something cannot be written; the old state is back.
    """
    if is_gguf_source(source):
        from yarncli.conversion.gguf import undo_gguf

        assert isinstance(source, str | Path)
        return Undone(undo_gguf(source, Path(out) if out else None, progress=progress).changes)
    if out is not None:
        raise UsageError(
            "--undo takes back the last conversion in the directory itself. Give no OUT."
        )
    with using(source, in_place=True) as directory:
        return _undo(open_checkpoint(source), directory)


def _undo(checkpoint: Checkpoint, directory: Directory | None) -> Undone:
    history = read_history(checkpoint)
    if history.unbelieved:
        raise CheckpointError(
            f"{checkpoint.where('config.json')} is not what {FILE_NAME} records. It was changed "
            "later, or the record belongs to another model. Nothing was undone. If the directory "
            "was converted in place, config.json.orig holds the original."
        )
    if directory is None or checkpoint.directory is None or not history.steps:
        raise CheckpointError(
            f"{checkpoint.name} has no {FILE_NAME}, so there is nothing to undo. If it was changed "
            "in place, config.json.orig holds the original."
        )
    step = history.steps[-1]
    if step.command != "convert":
        raise CheckpointError(
            f"The last step was {step.command}. It changed weights and cannot be undone. Use the "
            "checkpoint that it started from."
        )
    for change_made in step.replaced:
        _require_unchanged(checkpoint, change_made)
    restored = {
        name: (text, step.restored(name, text))
        for name in dict.fromkeys(change.file for change in step.replaced)
        if (text := checkpoint.optional_json(name)) is not None
    }
    earlier = History(history.steps[:-1])
    files = {name: text.to_bytes() for name, (_, text) in restored.items()}
    record = {FILE_NAME: earlier.to_bytes() if earlier.steps else None}
    needless = [b for name, data in files.items() for b in needless_backups(directory, name, data)]
    change(directory, {**files, **record, **dict.fromkeys(needless)}, keep=files)
    return Undone(
        tuple(c for name, pair in restored.items() for c in changed_fields(name, *pair)),
        backups=tuple(backup for name in files for backup in backups_of(directory, name)),
    )


def _require_unchanged(checkpoint: Checkpoint, made: FieldChange) -> None:
    """Check that a value is still the one that the conversion wrote."""
    text = checkpoint.optional_json(made.file)
    if text is not None and text.get(made.path, ABSENT) != made.after:
        raise CheckpointError(
            f"{text.where}: {format_path(made.path)} was changed after the conversion, so undoing "
            "it would mix two settings. Restore the value, or use the original checkpoint."
        )
