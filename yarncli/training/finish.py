"""The whole of `yarncli finish`: prove a trained conversion, restore its files, and record it."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.contents import ADAPTER_CONFIG
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import using
from yarncli.checkpoint.naming import require_order
from yarncli.checkpoint.output import check_destination
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import UsageError
from yarncli.options import checked
from yarncli.progress import ProgressCallback
from yarncli.training.adapters import AdapterFinish, finish_adapter
from yarncli.training.deciding import Finish, decide
from yarncli.training.options import FinishOptions
from yarncli.training.writing import write_copy, write_in_place

_DEFAULTS = FinishOptions()


def finish(
    trained: str | Path | Checkpoint,
    converted: str | Path | Checkpoint,
    out: str | Path | None = None,
    options: FinishOptions = _DEFAULTS,
    *,
    progress: ProgressCallback | None = None,
    **changes: Any,
) -> Finish | AdapterFinish:
    """Prove that a trained model has the RoPE of its conversion, and restore its files.

    A trainer saves only one spelling of the RoPE setting, drops yarncli.json, and saves its own
    state beside the model. The weights stay byte for byte as they were trained.

    Args:
        trained: the directory in which the trainer saved the model, or an adapter.
        converted: the conversion that the training started from (`--from`).
        out: the directory to write; None in place, or in a dry run.
        options: the options of the caller.
        progress: called with the progress of the stage "Copying", in bytes.
        changes: fields of `options` to replace, by name.

    Raises:
        UsageError: contradictory options, or the output is refused.
        CheckpointError: the setting differs from that of the conversion, or files are damaged.
        HubError: the conversion cannot be fetched.
        OutputError: something cannot be written.

    Example:
        >>> finish("trainer-out", "model-128k", "finished").run.steps  # doctest: +SKIP
        400
    """
    options, out = checked(options, changes), Path(out) if out else None
    _refuse_contradictions(out, options)
    require_order(trained, out, overwrite=options.overwrite)
    in_place = options.in_place and not options.dry_run
    with ExitStack() as held:
        directory = held.enter_context(using(trained, in_place=in_place))
        _refuse_itself(trained, converted, out)
        held.enter_context(using(converted, in_place=False))
        origin = open_checkpoint(converted)
        if options.adapter:
            return finish_adapter(trained, origin, out, options, directory, progress)
        return _finish(trained, origin, out, options, directory, progress)


def _refuse_contradictions(out: Path | None, options: FinishOptions) -> None:
    if (out and options.in_place) or not (out or options.in_place or options.dry_run):
        raise UsageError("Give either the directory to write as OUT, or --in-place.")
    if options.clean and not options.in_place:
        raise UsageError(
            "--clean removes files of the trainer, so it can only be used with --in-place."
        )
    if options.adapter and options.dtype != "keep":
        raise UsageError("--dtype is only for whole models. An adapter stays as it was trained.")


def _refuse_itself(
    trained: str | Path | Checkpoint, converted: str | Path | Checkpoint, out: Path | None
) -> None:
    origin = _place(converted)
    if origin and origin == _place(trained):
        raise UsageError(
            "The trained model and --from are the same directory. Give --from the conversion that "
            "the training started from."
        )
    if origin and out and origin == out.resolve():
        raise UsageError("OUT and --from are the same directory. Give OUT another name.")


def _place(source: str | Path | Checkpoint) -> Path | None:
    """Where a checkpoint lies here, or would lie."""
    found = source.directory or source.config_path if isinstance(source, Checkpoint) else source
    return Path(found).resolve() if found else None


def _finish(
    trained: str | Path | Checkpoint,
    converted: Checkpoint,
    out: Path | None,
    options: FinishOptions,
    directory: Directory | None,
    progress: ProgressCallback | None,
) -> Finish:
    source = open_checkpoint(_local(trained), bare_hub_id=False)
    found = decide(source, converted, cast=options.dtype == "auto", in_place=options.in_place)
    if out and not options.dry_run:
        check_destination(out, source=found.trained.directory, overwrite=options.overwrite)
    found = replace(found, output=out, clean=options.clean)
    if options.dry_run:
        return found
    origin = converted.download(found.taken, progress=progress)
    found = replace(found, converted=origin)
    if out:
        write_copy(found, out, overwrite=options.overwrite, fsync=options.fsync, progress=progress)
    else:
        write_in_place(found, directory)
    return replace(found, written=True)


def _local(trained: str | Path | Checkpoint) -> str | Path | Checkpoint:
    if isinstance(trained, Checkpoint):
        return trained
    path = Path(trained)
    if (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").exists():
        raise UsageError(f"{path} is an adapter. Finish it with --adapter.")
    return trained
