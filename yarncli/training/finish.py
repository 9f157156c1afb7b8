"""The whole of `yarncli finish`: a trained conversion proved, made whole again, and recorded."""

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
    """Prove that a trained model means what its conversion meant, and make it whole again.

    A trainer saves one spelling of the RoPE setting, drops yarncli.json, and leaves its own state
    beside the model. The weights stay byte for byte as they were trained.

    Args:
        trained: the directory in which the trainer saved the model, or an adapter.
        converted: the conversion that the training started from (`--from`).
        out: the directory to write; None in place, or in a dry run.
        options: how.
        progress: told how far the stage "Copying" is, in bytes.
        changes: fields of `options` to set otherwise, by name.

    Raises:
        UsageError: contradictory options, or the output is refused.
        CheckpointError: the setting is not that of the conversion, or files are damaged.
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
        _refuse_itself(trained, converted)
        held.enter_context(using(converted, in_place=False))
        origin = open_checkpoint(converted)
        if options.adapter:
            return finish_adapter(trained, origin, out, options, directory, progress)
        return _finish(trained, origin, out, options, directory, progress)


def _refuse_contradictions(out: Path | None, options: FinishOptions) -> None:
    if (out and options.in_place) or not (out or options.in_place or options.dry_run):
        raise UsageError("Give the directory to write, OUT, or --in-place, and only one of them.")
    if options.clean and not options.in_place:
        raise UsageError("--clean removes what the trainer left, so it goes with --in-place.")
    if options.adapter and options.dtype != "keep":
        raise UsageError("--dtype is for whole models; an adapter stays as it was trained.")


def _refuse_itself(trained: str | Path | Checkpoint, converted: str | Path | Checkpoint) -> None:
    places = [
        (each.directory or each.config_path) if isinstance(each, Checkpoint) else Path(each)
        for each in (trained, converted)
    ]
    if all(places) and len({place.resolve() for place in places if place}) == 1:
        raise UsageError(
            "The trained model and --from are the same place. Give --from the conversion that the "
            "training started from."
        )


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
