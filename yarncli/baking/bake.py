"""`bake`: move the attention factor of a checkpoint from its config into its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Literal

from yarncli.baking.adapters import AdapterBaking, decide_adapter, is_written, write_adapter
from yarncli.baking.deciding import SCHEMA_VERSION, Baking, decide_bake, refuse_engines
from yarncli.baking.settings import BakeOptions
from yarncli.baking.writing import write_copy, write_in_place
from yarncli.checkpoint import recovery
from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import LeftoverError, using
from yarncli.checkpoint.naming import require_order
from yarncli.checkpoint.output import check_destination
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.engines.judgement import Judgement
from yarncli.errors import UsageError
from yarncli.extras import require_extra
from yarncli.gguf.detection import is_gguf_source
from yarncli.options import checked
from yarncli.progress import ProgressCallback, unmeasured

if TYPE_CHECKING:
    from yarncli.baking.gguf import GgufBake
    from yarncli.baking.twin import LogitsCheck, TwinCheck


_DEFAULTS = BakeOptions()


@dataclass(frozen=True, kw_only=True)
class BakeReport:
    """What a bake did, or would do."""

    baking: Baking
    """What was decided."""
    adapter: AdapterBaking | None
    """What was decided for the adapter; None if there is none."""
    written: bool
    """Whether anything was written; not in a dry run."""
    out: Path | None
    """The directory for the copy."""
    twin: TwinCheck | None
    """The result of the small random model; None if it was not asked for."""
    logits: LogitsCheck | None
    """The comparison of the logits of both checkpoints; None if it was not asked for."""

    @cached_property
    def judgement(self) -> Judgement:
        """What engines will compute from the result, with launch lines."""
        return self.baking.judgement(source=str(self.out or self.baking.checkpoint.name))

    def to_json(self) -> dict[str, Any]:
        """The document of `bake --json`."""
        checks = {"twin": self.twin, "logits": self.logits}
        return {
            **self.baking.to_json(),
            "engines": self.judgement.brief(),
            "launch": self.judgement.launch_lines(),
            "adapter": [edit.to_json() for edit in self.adapter.edits] if self.adapter else None,
            "written": self.written,
            "output": str(self.out) if self.out else None,
            "checks": {name: asdict(found) for name, found in checks.items() if found},
        }


def bake(
    source: str | Path | Checkpoint,
    out: str | Path | None = None,
    options: BakeOptions = _DEFAULTS,
    *,
    progress: ProgressCallback | None = None,
    **changes: Any,
) -> BakeReport | GgufBake:
    """Move the attention factor from the config into the weights.

    Args:
        source: a checkpoint directory, a Hub id, or what `open_checkpoint` returned; or a GGUF
            file, local or `hf://org/name/file.gguf`.
        out: the directory or the GGUF file to write, completely or not at all.
        options: the options of the bake.
        progress: told how far the stages "Fetching" and "Baking" are, in bytes, and of checks.
        **changes: fields of `options` to replace.

    Raises:
        UsageError: options contradict each other or do not fit the model.
        CheckpointError: there is nothing to bake, the model is already baked, or files are damaged.
        UnsupportedArchitectureError: it is not known how to bake this model exactly, or one of
            `engines` would not compute the result as intended.
        CheckFailed: the small random model shows that the layout is wrong.
        HubError: a file cannot be fetched.
        OutputError: something cannot be written, or does not read back.

    Example:
        >>> bake("model-128k", "baked", verify=True).baking.nbytes  # doctest: +SKIP
        18432
    """
    options = checked(options, changes)
    out = None if out is None else Path(out)
    _refuse_contradictions(out, options)
    require_order(source, out, overwrite=options.overwrite)
    if is_gguf_source(source):
        from yarncli.baking.gguf import bake_gguf

        assert isinstance(source, str | Path)
        return bake_gguf(source, out, options, progress=progress)
    if options.carrier is not None:
        raise UsageError("--carrier is for GGUF files, and SOURCE is not one. Leave --carrier out.")
    changes_source = options.in_place and not options.dry_run
    with using(source, in_place=changes_source) as directory:
        return _bake(source, out, options, directory, progress)


def _bake(
    source: str | Path | Checkpoint,
    out: Path | None,
    options: BakeOptions,
    directory: Directory | None,
    progress: ProgressCallback | None,
) -> BakeReport:
    checkpoint = open_checkpoint(source)
    # Refuse what can be refused before a large fetch, and before a check that takes seconds.
    if out and not options.dry_run:
        check_destination(out, source=checkpoint.directory, overwrite=options.overwrite)
    baking = decide_bake(checkpoint, options)
    adapter = decide_adapter(options.adapter[0], baking) if options.adapter else None
    write_beside = _adapter_writer(adapter, out, options)
    refuse_engines(baking, options.engines)
    twin = _check_twin(baking, options, progress)
    if not options.dry_run:
        baking = _write(baking, write_beside, out, options, directory, progress)
    return BakeReport(
        baking=baking,
        adapter=adapter,
        written=not options.dry_run,
        out=out,
        twin=twin,
        logits=_compare_logits(baking, out, options, progress),
    )


@dataclass(frozen=True, slots=True)
class Recovery:
    """The state in which `recover` leaves a directory."""

    state: Literal["nothing", "old", "new"]
    """nothing: no change was pending; old: the old state is restored; new: the change had been
    completed."""

    def to_json(self) -> dict[str, Any]:
        """The document of `bake --recover --json`."""
        return {"schema_version": SCHEMA_VERSION, "recovered": self.state}


def recover(directory: str | Path, *, trust_journal: bool = False) -> Recovery:
    """Recover a directory from an interrupted in-place change: a bake, a conversion or a repair.

    Args:
        directory: the directory to recover.
        trust_journal: accept a journal that this user may not have written on this machine.

    Raises:
        UsageError: `directory` is not a directory on this machine.
        CheckpointError: the journal is damaged, belongs to another user or to other files, or
            another process is using the directory.
        OutputError: a file cannot be written; run it again after solving that.
    """
    if not Path(directory).is_dir():
        raise UsageError(f"{directory} is not a directory on this machine.")
    return Recovery(recovery.recover(Path(directory), trust_journal=trust_journal))


def _refuse_contradictions(out: Path | None, options: BakeOptions) -> None:
    if options.in_place and out:
        raise UsageError("Give what to write, OUT, or --in-place, and only one of them.")
    if not (out or options.in_place or options.dry_run or options.adapter):
        raise UsageError("Give what to write, OUT, or --in-place.")
    if options.verify_logits is not None and (out is None or options.dry_run):
        raise UsageError("--verify-logits compares SOURCE with OUT, so it needs a written OUT.")


def _check_twin(
    baking: Baking, options: BakeOptions, progress: ProgressCallback | None
) -> TwinCheck | None:
    """Check the layout on a small random model; always if the user names the layout."""
    if options.layout is None and not options.verify:
        return None
    require_extra("The check on a small random model", "torch", "transformers")
    with unmeasured(progress, "Checking a small random model"):
        from yarncli.baking.twin import check_layout

        return check_layout(baking)


def _adapter_writer(
    adapter: AdapterBaking | None, out: Path | None, options: BakeOptions
) -> Callable[[], None] | None:
    """The function that writes the scaled adapter; None without one, or if it is already written.

    Base and adapter belong together, and the adapter is renamed into place first. If a run was
    killed between the two renames, the complete adapter is there, and this run writes the base.
    """
    if adapter is None or options.adapter is None or options.dry_run:
        return None
    source, place = options.adapter
    if (out or options.in_place) and is_written(adapter, place):
        return None
    check_destination(place, source=source, overwrite=options.overwrite)
    return partial(write_adapter, adapter, place, overwrite=options.overwrite)


def _write(
    baking: Baking,
    write_beside: Callable[[], None] | None,
    out: Path | None,
    options: BakeOptions,
    directory: Directory | None,
    progress: ProgressCallback | None,
) -> Baking:
    """Write the copy or the source, and the adapter; returns the bake of local files."""
    is_made = False

    def beside() -> None:
        nonlocal is_made
        if write_beside:
            write_beside()
            is_made = True

    try:
        if out:
            return write_copy(
                baking, out, overwrite=options.overwrite, fsync=options.fsync,
                verify=options.verify, progress=progress, beside=beside,
            )  # fmt: skip
        beside()
        if options.in_place:
            write_in_place(baking, directory, progress=progress)
    except LeftoverError:
        raise
    except BaseException:
        if is_made and options.adapter:  # an adapter without its base would be an incomplete bake
            rmtree(options.adapter[1], ignore_errors=True)
        raise
    return baking


def _compare_logits(
    baking: Baking, out: Path | None, options: BakeOptions, progress: ProgressCallback | None
) -> LogitsCheck | None:
    directory, text = baking.checkpoint.directory, options.verify_logits
    if text is None or out is None or directory is None:
        return None
    require_extra("--verify-logits", "torch", "transformers")
    with unmeasured(progress, "Comparing logits"):
        from yarncli.baking.twin import compare_logits

        return compare_logits(directory, out, text, baking.checkpoint.parameters())
