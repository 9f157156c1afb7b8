"""`convert` for GGUF files: write an extension, or the RoPE of a checkpoint, into keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import using
from yarncli.conversion.options import ConvertOptions
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError
from yarncli.gguf.contents import as_edit, read_contents
from yarncli.gguf.extension import decide_extension
from yarncli.gguf.facts import Gguf
from yarncli.gguf.in_place import change_gguf
from yarncli.gguf.intended import Intended, intended_by
from yarncli.gguf.plan import GgufPlan, plan_extension, plan_setting
from yarncli.gguf.reading import compare
from yarncli.gguf.record import Rewrite, decide_rewrite, decide_undo, refuse_baked
from yarncli.gguf.refusals import refuse_no_model
from yarncli.gguf.rewrite import require_free, write_gguf
from yarncli.gguf.runtime import Computed, run, run_windowed
from yarncli.gguf.serving import Serving
from yarncli.gguf.source import GgufFile, download, open_gguf
from yarncli.history import Step
from yarncli.jsontext.changes import FieldChange
from yarncli.options import given_options
from yarncli.planning.rope_plan import RopePlan
from yarncli.progress import ProgressCallback

SCHEMA_VERSION = 1

# Options that say how and where to write; all others say what to write.
_ABOUT_THE_RUN = {"in_place", "dry_run", "overwrite", "fsync"}
_OF_CHECKPOINTS = {
    "sliding_window": "sliding-window", "assume_like": "assume-like", "spelling": "spelling",
    "engines": "for", "bake": "bake", "weights": "weights", "config_only": "config-only",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class GgufConversion:
    """Everything that a conversion of a GGUF file writes, or wrote."""

    file: GgufFile
    """The source."""
    gguf: Gguf
    """The keys and tensors of the result."""
    computed: Computed
    """What llama.cpp computes from the result."""
    length: int
    """The window of the result, tokens."""
    plan: RopePlan | None
    """Every number of the extension; None with `--from`."""
    intended: Intended | None
    """The RoPE of the checkpoint that `--from` names; None without it."""
    rewrite: Rewrite
    """What changes in the file."""
    notes: tuple[str, ...]
    """What a user should know about the conversion."""
    output: Path | None = None
    """The file to write; None if the source itself is changed."""
    written: bool = False
    """Whether it has been written."""

    @property
    def changes(self) -> tuple[FieldChange, ...]:
        """Every key and tensor that changes."""
        return self.rewrite.changes

    @property
    def serving(self) -> Serving:
        """How to serve the result."""
        return Serving.of(self.file, self.output, self.length)

    def to_json(self) -> dict[str, Any]:
        """The document of `convert --json` for a GGUF file."""
        return {
            "schema_version": SCHEMA_VERSION,
            "written": self.written,
            "output": str(self.output) if self.output else None,
            "plan": self.plan.to_json() if self.plan else None,
            "from": self.intended.name if self.intended else None,
            "changes": [change.to_json() for change in self.changes],
            "computed": {
                "inv_freq": list(self.computed.inv_freq),
                "attention_factor": self.computed.attention_factor,
                "served_length": self.computed.served_length,
            },
            "notes": list(self.notes),
            **self.serving.to_json(),
        }


def convert_gguf(
    source: str | Path,
    out: Path | None,
    options: ConvertOptions,
    *,
    progress: ProgressCallback | None = None,
) -> GgufConversion:
    """Write a context extension into a copy of a GGUF file, or in place; no weight changes.

    Args:
        source: a local file, or `hf://org/name/file.gguf`.
        out: the file to write; None in place, or in a dry run.
        options: the options of the conversion.
        progress: told how far the stages "Fetching" and "Copying" are, in bytes.

    Raises:
        UsageError: contradictory options, or options that are for checkpoints.
        CheckpointError: the file is damaged, or cannot take what is asked.
        HubError: something cannot be fetched.
        OutputError: the result cannot be written, or does not read back.
    """
    require_options(options)
    with using(source, in_place=out is None and not options.dry_run) as directory:
        file = open_gguf(source)
        conversion = replace(decide(file, options), output=out)
        if options.dry_run:
            return conversion
        if out is None:
            _write_in_place(file, conversion.rewrite, directory)
        else:
            require_free(file, out, overwrite=options.overwrite)
            write_gguf(
                download(file, progress=progress), conversion.rewrite, out,
                overwrite=options.overwrite, fsync=options.fsync, progress=progress,
            )  # fmt: skip
    return replace(conversion, written=True)


def plan_gguf(source: str | Path, options: ConvertOptions) -> RopePlan:
    """Every number of an extension of a GGUF file; only its header is read.

    Raises:
        As `convert_gguf`.
    """
    require_options(options)
    found = decide(open_gguf(source), options).plan
    if found is None:
        raise UsageError("--from plans no extension: it copies the RoPE setting of the checkpoint.")
    return found


def undo_gguf(
    source: str | Path, out: Path | None = None, *, progress: ProgressCallback | None = None
) -> Rewrite:
    """Undo the last step of a file, as the record in the file says.

    Args:
        source: a local file, or with `out` one on the Hub.
        out: the file to write; None to change the source itself.
        progress: told how far the stages "Fetching" and "Copying" are, in bytes.

    Raises:
        UsageError: `out` is refused.
        CheckpointError: nothing is recorded, or something else has changed the file since.
        OutputError: it cannot be written; the old file is back.
    """
    with using(source, in_place=out is None) as directory:
        file = open_gguf(source)
        rewrite = decide_undo(file)
        if out is None:
            _write_in_place(file, rewrite, directory)
        else:
            write_gguf(download(file, progress=progress), rewrite, out, progress=progress)
    return rewrite


def decide(file: GgufFile, options: ConvertOptions) -> GgufConversion:
    """Decide a conversion; reads the header, and with `--from` the config of that checkpoint.

    Args:
        file: what to convert.
        options: the options of the conversion.

    Raises:
        UsageError: contradictory options.
        CheckpointError: the file is damaged, or cannot take what is asked.
    """
    before, intended, plan = read_contents(file), None, None
    refuse_no_model(before)
    refuse_baked(file.header)
    options_told = options.recorded
    if options.from_ is not None:
        intended = intended_by(options.from_)
        length = intended.length
        made = plan_setting(before, intended.setting, length=length, replaces=True)
        options_told["from"] = intended.source
    else:
        plan = decide_extension(
            file, before, options.target, original_length=options.original_length
        )
        length = plan.length
        replaces = options.rescale or options.replace_scaling
        made = plan_extension(before, plan, replaces=replaces)
    after = made.applied(before)
    if intended and intended.windowed:
        _require_windowed(after, intended)
    step = Step(command="convert", source=file.source, plan=plan, options=options_told)
    computed = run(after, context=length)
    assert isinstance(computed, Computed)  # because the plan checked it
    return GgufConversion(
        file=file, gguf=after, computed=computed, length=length, plan=plan, intended=intended,
        rewrite=_rewritten(file, made, step), notes=(*(plan.notes if plan else ()), *made.notes),
    )  # fmt: skip


def _rewritten(file: GgufFile, made: GgufPlan, step: Step) -> Rewrite:
    """The change that carries out a plan, checked against it.

    Raises:
        CheckpointError: the new header differs from the plan, which is a bug; nothing was written.
    """
    rewrite = decide_rewrite(file, as_edit(file, made), step)
    keys, tensors = rewrite.header.keys, rewrite.header.tensors
    kept = (
        all(name in keys and keys[name].type == value.type for name, value in made.keys.items())
        and made.tensors.keys() <= tensors.keys()
    )
    gone = keys.keys() & set(made.drop) or tensors.keys() & set(made.drop_tensors)
    if not kept or gone:
        raise CheckpointError(
            f"The new header of {file.name} differs from the plan. Nothing was changed; please "
            "report this."
        )
    return rewrite


def _require_windowed(after: Gguf, intended: Intended) -> None:
    """Refuse a file in which layers with a window rotate unlike those of the checkpoint.

    No plan changes these layers.
    """
    found, wanted = run_windowed(after), intended.windowed
    assert wanted is not None  # because the caller checked it
    same = isinstance(found, Computed) and compare(found, wanted, intended.length).rotates_alike
    if after.window and not same:
        raise UnsupportedArchitectureError(
            "For layers that attend within a window, llama.cpp computes other frequencies from the "
            f"file than {intended.name} has, and --from changes only the other layers. Convert the "
            "checkpoint again with a newer convert_hf_to_gguf.py."
        )


def _write_in_place(file: GgufFile, rewrite: Rewrite, directory: Directory | None) -> None:
    if directory is None:
        raise UsageError(f"{file.name} is on the Hub; --in-place needs a file on this machine.")
    change_gguf(file, rewrite, directory)


def require_options(options: ConvertOptions) -> None:
    """Refuse options that are for checkpoints, and those that contradict each other.

    Raises:
        UsageError: there is one.
    """
    given = given_options(options)
    for name, flag in _OF_CHECKPOINTS.items():
        if name in given:
            raise UsageError(
                f"--{flag} is for checkpoints, and SOURCE is a GGUF file. Leave it out."
            )
    numbers = sorted(given.keys() - _ABOUT_THE_RUN - {"from_"})
    if options.from_ is not None and numbers:
        flag = numbers[0].replace("_", "-")
        raise UsageError(
            f"--from takes every number from the checkpoint, so --{flag} cannot be given with it. "
            "Give only one of them."
        )
