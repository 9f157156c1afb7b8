"""`finish --adapter`: record the plan beside a LoRA adapter, whose files say nothing about RoPE."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint import output
from yarncli.checkpoint.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from yarncli.checkpoint.copying import fill, require_written
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.files import SourceFile, walk_files
from yarncli.checkpoint.in_place import change
from yarncli.checkpoint.leftovers import is_training_state
from yarncli.checkpoint.safetensors import read_header
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.config.reading import read_rope
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import FILE_NAME, History, Step
from yarncli.history.adapters import adapter_config, adapter_history, misfits
from yarncli.history.weights import Trained
from yarncli.jsontext.text import JsonText
from yarncli.progress import ProgressCallback, stage
from yarncli.training.comparing import require_same
from yarncli.training.deciding import SCHEMA_VERSION, history_of, require_stamp
from yarncli.training.options import FinishOptions
from yarncli.training.stamps import read_run, read_stamp
from yarncli.training.writing import remove, require_fit


@dataclass(frozen=True, kw_only=True)
class AdapterFinish:
    """The result of finishing an adapter, or the plan for it in a dry run."""

    directory: Path
    """The directory in which the trainer saved it."""
    converted: Checkpoint
    """The conversion that it was trained on."""
    run: Trained
    """What is known of the training."""
    history: History
    """The record beside it; the last step is this one."""
    files: tuple[SourceFile, ...]
    """The files that belong to the adapter."""
    leftovers: tuple[SourceFile, ...]
    """Other files of the trainer, which are never copied to the output."""
    notes: tuple[str, ...]
    """Sentences that the user should read."""
    clean: bool = False
    """Whether the leftovers are removed."""
    output: Path | None = None
    """The directory to write; None if the adapter's own directory is changed."""
    written: bool = False
    """Whether it has been written."""

    def to_json(self) -> dict[str, Any]:
        """The document of `finish --adapter --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "written": self.written,
            "output": str(self.output) if self.output else None,
            "trained": self.run.to_json(),
            "changes": [],
            "taken": [],
            "cast": {},
            "leftovers": [file.name for file in self.leftovers],
            "cleaned": self.written and self.clean,
            "notes": list(self.notes),
        }


def finish_adapter(
    trained: str | Path | Checkpoint,
    converted: Checkpoint,
    out: Path | None,
    options: FinishOptions,
    directory: Directory | None,
    progress: ProgressCallback | None,
) -> AdapterFinish:
    """Record beside an adapter which setting it was trained with. Arguments are those of `finish`.

    Raises:
        UsageError: the output is refused.
        CheckpointError: it is not an adapter, or was trained with another setting.
        OutputError: something cannot be written.
    """
    if isinstance(trained, Checkpoint):
        raise UsageError("--adapter needs the path of the adapter's directory.")
    source = Path(trained)
    history, run, notes = _proved(source, converted)
    every = tuple(sorted(walk_files(source.resolve()), key=lambda file: file.name))
    files = tuple(f for f in every if not is_training_state(f.name) and f.name != FILE_NAME)
    found = AdapterFinish(
        directory=source,
        converted=converted,
        run=run,
        history=history,
        files=tuple(file for file in files if file.kind != "weights"),
        leftovers=tuple(f for f in every if is_training_state(f.name) or f.kind == "weights"),
        notes=tuple(notes),
        clean=options.clean,
        output=out,
        written=not options.dry_run,
    )
    if options.dry_run:
        return found
    record = {FILE_NAME: history.to_bytes()}
    if out is not None:
        _write(found, out, record, options, progress)
        return found
    if directory is None:
        raise UsageError("--in-place needs a directory on this machine.")
    change(directory, record)
    require_written(directory.path, record)
    if options.clean:
        remove(directory.path, found.leftovers)
    return found


def _write(
    found: AdapterFinish,
    out: Path,
    record: Mapping[str, bytes],
    options: FinishOptions,
    progress: ProgressCallback | None,
) -> None:
    files = require_fit([*found.files], str(found.directory))
    size = sum(file.size for file in files)
    with (
        output.output_directory(
            out,
            source=found.directory,
            overwrite=options.overwrite,
            fsync=options.fsync,
            progress=progress,
        ) as staging,
        stage(progress, "Copying", size) as advance,
    ):
        like = found.directory / ADAPTER_CONFIG
        fill(staging, found.directory, files, record, like=like, progress=advance)
        require_written(staging, record)


def _proved(directory: Path, converted: Checkpoint) -> tuple[History, Trained, list[str]]:
    """The record of an adapter, after checking that no file contradicts the setting."""
    config = adapter_config(directory)
    header = read_header(directory / ADAPTER_WEIGHTS)
    before = history_of(converted)
    if before.plan is None:
        raise CheckpointError(
            f"{converted.name} has no {FILE_NAME}, so there is no plan to record beside the "
            "adapter. Give --from a conversion that yarncli wrote."
        )
    if adapter_history(directory).steps:
        raise CheckpointError(f"{directory} has a {FILE_NAME}: it is already finished or baked.")
    if text := next((t for t, severe in misfits(header, converted, config.value) if severe), ""):
        raise CheckpointError(
            f"The adapter {directory} was trained on another model: {text} Give --from the "
            "conversion that the training started from."
        )
    rope = read_rope(converted.config().value)
    stamp = read_stamp(directory)
    require_stamp(str(directory), stamp, rope, before.plan.length)
    run = read_run(directory, stamp, adapter=True)
    notes = list(_base_notes(directory, config, converted, before.plan.length))
    if stamp is None:
        notes.append(
            f"The guard did not run, so nothing proves that {directory} was trained with this "
            "setting. Files that the recipe command writes call the guard."
        )
    step = Step(command="finish", source=directory.resolve().name, trained=run, options={})
    return before.then(step), run, notes


def _base_notes(
    directory: Path, config: JsonText, converted: Checkpoint, length: int
) -> Iterator[str]:
    """Compare the base that an adapter names with the conversion."""
    named = config.value.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        yield (
            f"{ADAPTER_CONFIG} names no base model (base_model_name_or_path), so only the shapes "
            f"of the adapter were compared with {converted.name}."
        )
        return
    if named == converted.repo_id:
        return
    if "\0" in named or not Path(named).is_dir():
        yield (
            f"{ADAPTER_CONFIG} names {named!r:.200} as the base model. There is no such directory "
            f"here, so only the shapes of the adapter were compared with {converted.name}."
        )
        return
    base = open_checkpoint(named, bare_hub_id=False)
    here = converted.directory and base.directory
    if here and Path(named).resolve() == Path(converted.directory or "").resolve():
        return
    theirs = read_rope(converted.config().value)
    name = f"{directory} (on its base {named})"
    require_same(name, read_rope(base.config().value), theirs, length)
