"""A plan carried out: config files rewritten by span, the rest carried over, all verified."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yarncli.checkpoint import output
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.rewrite import FileCopy, copy_files, link_file
from yarncli.checkpoint.source import Checkpoint
from yarncli.config.reading import RopeConfig, read_rope
from yarncli.conversion.fit import fit, write_config
from yarncli.errors import CheckpointError, ConfigError, UsageError
from yarncli.history import FILE_NAME, History, Step, describe_source, given_options, read_history
from yarncli.jsontext.changes import FieldChange, changed_fields
from yarncli.jsontext.text import JsonText
from yarncli.planning.lengths import raise_generation_length, raise_tokenizer_length
from yarncli.planning.plan import Target, check_values, make_plan
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.writing import Spelling
from yarncli.rope.parameters import RopeParameters

Weights = Literal["copy", "hardlink", "symlink", "none"]
Progress = Callable[[int], None] | None


@dataclass(frozen=True)
class Conversion:
    """Everything a conversion will write, before anything is written.

    `files` maps the config files that change to their text before and after.
    """

    checkpoint: Checkpoint
    rope: RopeConfig
    plan: RopePlan
    files: Mapping[str, tuple[JsonText, JsonText]]
    history: History
    assume_like: str | None = None

    @property
    def changes(self) -> tuple[FieldChange, ...]:
        """Every value that will be replaced, in the order of the files."""
        return self.history.steps[-1].replaced

    @property
    def config(self) -> JsonText:
        """config.json as it will be."""
        return self.files["config.json"][1]

    def diff(self) -> str:
        """A unified diff of the config files."""
        lines: list[str] = []
        for name, (before, after) in self.files.items():
            lines += difflib.unified_diff(
                before.text.splitlines(), after.text.splitlines(), f"a/{name}", f"b/{name}",
                lineterm="",
            )  # fmt: skip
        return "\n".join(lines)


def prepare(
    checkpoint: Checkpoint,
    target: Target,
    *,
    original_length: int | None = None,
    assume_like: str | None = None,
    spelling: Spelling = "both",
    engines: Sequence[str] = (),
    config_only: bool = False,
) -> Conversion:
    """Decide a conversion and write it in memory; reads only config files.

    Args:
        checkpoint: what to convert.
        target: what is asked for.
        original_length: the window the model was trained with, if the caller knows better.
        assume_like: the model type to read an unknown one as.
        spelling: see `write_rope`.
        engines: ids of engines that must do exactly what is planned; see `fit`.
        config_only: whether the weights will be left out; recorded in `yarncli.json`.

    Raises:
        UsageError: contradictory options.
        CheckpointError: the config is damaged, or the model cannot take what is asked.
    """
    config = checkpoint.config()
    history = read_history(checkpoint)
    history.refuse_unmarked()
    rope = read_rope(config.value, assume_like=assume_like, original_length=original_length)
    plan = make_plan(rope, target)
    chosen = spelling
    if engines:
        plan, chosen = fit(
            config, rope, plan, spelling, engines, history=history, assume_like=assume_like
        )
    check_values(plan)
    written = write_config(config, rope, plan, chosen)
    verify(written, rope, plan, assume_like=assume_like)
    files = _edited_files(checkpoint, rope, plan, (config, written))
    given = {
        **given_options(target),
        **target.options,
        "original_length": original_length,
        "assume_like": assume_like,
        "spelling": None if spelling == "both" else spelling,
        "for": list(engines) or None,
    }
    step = Step(
        command="convert",
        source=describe_source(checkpoint),
        plan=plan,
        replaced=tuple(c for name, pair in files.items() for c in changed_fields(name, *pair)),
        config_only=config_only,
        options={name: value for name, value in given.items() if value is not None},
    )
    return Conversion(
        checkpoint=checkpoint,
        rope=rope,
        plan=plan,
        files=files,
        history=history.then(step),
        assume_like=assume_like,
    )


def _edited_files(
    checkpoint: Checkpoint, rope: RopeConfig, plan: RopePlan, config: tuple[JsonText, JsonText]
) -> dict[str, tuple[JsonText, JsonText]]:
    """The config files that change, before and after; lengths in them follow the window."""
    files = {"config.json": config}
    tokenizer = checkpoint.optional_json("tokenizer_config.json")
    if tokenizer:
        files["tokenizer_config.json"] = (tokenizer, raise_tokenizer_length(tokenizer, plan.length))
    generation = checkpoint.optional_json("generation_config.json")
    if generation:
        raised = raise_generation_length(generation, rope.max_position_embeddings, plan.length)
        files["generation_config.json"] = (generation, raised)
    return {name: pair for name, pair in files.items() if pair[0].text != pair[1].text}


def write_copy(
    conversion: Conversion,
    destination: Path,
    *,
    weights: Weights = "copy",
    overwrite: bool = False,
    fsync: bool = False,
    progress: Progress = None,
) -> None:
    """Write the converted checkpoint to a new directory, whole or not at all.

    Args:
        conversion: what `prepare` decided; its checkpoint must be local (see `download`).
        destination: the directory to be.
        weights: how weight files get there; "none" leaves them and their index out.
        overwrite: replace an existing checkpoint directory.
        fsync: survive a power cut too.
        progress: called with bytes copied.

    Raises:
        UsageError: the destination is refused.
        CheckpointError: a file of the source cannot be carried over, a shard is missing or
            damaged, or what was read back is not what was planned.
        OutputError: something cannot be written.
    """
    checkpoint = conversion.checkpoint
    if weights != "none":
        checkpoint.headers()  # half a checkpoint is refused here, not by an engine later
    output.check_destination(destination, source=checkpoint.directory, overwrite=overwrite)
    carried = [
        file for file in files_to_carry(checkpoint, weights) if not _is_written(conversion, file)
    ]
    linked = [f for f in carried if f.is_weights] if weights in ("hardlink", "symlink") else []
    copied = [f for f in carried if f not in linked]
    parent = destination.absolute().parent
    output.require_space(parent, sum(file.size for file in copied))
    with output.output_directory(
        destination, source=checkpoint.directory, overwrite=overwrite, fsync=fsync
    ) as staging:
        for file in carried:
            (staging / file.name).parent.mkdir(parents=True, exist_ok=True)
        copy_files(
            [FileCopy(checkpoint.path(f.name), staging / f.name) for f in copied], progress=progress
        )
        for file in linked:
            link_file(checkpoint.path(file.name), staging / file.name, weights)  # type: ignore[arg-type]
        for name, data in _written(conversion).items():
            (staging / name).write_bytes(data)
        _verify_files(staging, conversion)


def write_in_place(conversion: Conversion) -> None:
    """Replace the config files of the source, keeping the originals as `*.orig`.

    `config.json` goes last but for nothing: until then every engine reads the old setting, and
    `yarncli.json` already knows how to undo.

    Raises:
        UsageError: the source is not a directory on this machine.
        CheckpointError: a file is shared with others (a link, the Hub cache).
        OutputError: something cannot be written.
    """
    directory = conversion.checkpoint.directory
    if directory is None or conversion.checkpoint.is_remote:
        raise UsageError("--in-place needs a checkpoint directory on this machine.")
    files = _written(conversion)
    for name in files:
        output.refuse_shared_file(directory / name)
    for name in sorted(files, key=lambda name: name == "config.json"):
        path = directory / name
        if path.exists() and name != FILE_NAME:
            output.replace_keeping_original(path, files[name])
        else:
            output.atomic_write(path, files[name])
    _verify_files(directory, conversion)


def undo(checkpoint: Checkpoint) -> list[FieldChange]:
    """Take back the last conversion of a directory, field by field, as `yarncli.json` records it.

    What the files held before is kept as `*.orig`.

    Returns:
        What changed, as it was put back.

    Raises:
        CheckpointError: nothing is recorded, or the last step was a bake.
        OutputError: something cannot be written.
    """
    directory = checkpoint.directory
    history = read_history(checkpoint)
    if directory is None or not history.steps:
        raise CheckpointError(
            f"{checkpoint.name} has no {FILE_NAME}, so there is nothing to undo. If it was changed "
            "in place, config.json.orig holds the original."
        )
    step = history.steps[-1]
    if step.command != "convert":
        raise CheckpointError(
            f"The last step was {step.command}, which changed weights and cannot be taken back "
            "from here. Use the checkpoint it was made from."
        )
    restored = {
        name: (text, step.restored(name, text))
        for name in dict.fromkeys(change.file for change in step.replaced)
        if (text := checkpoint.optional_json(name)) is not None
    }
    for name, (_, text) in sorted(restored.items()):
        output.replace_keeping_original(directory / name, text.text.encode())
    earlier = History(history.steps[:-1])
    if earlier.steps:
        output.atomic_write(directory / FILE_NAME, earlier.to_bytes())
    else:
        (directory / FILE_NAME).unlink()
    return [change for name, pair in restored.items() for change in changed_fields(name, *pair)]


def verify(
    config: JsonText, rope: RopeConfig, plan: RopePlan, *, assume_like: str | None = None
) -> None:
    """Read a written config back and hold it against the plan, each spelling on its own.

    Raises:
        ConfigError: it does not say what was planned. This is a bug; nothing has been written yet.
    """
    base = rope.text_path
    readings = [config]
    if not rope.family.scopes:
        both = [(*base, "rope_scaling"), (*base, "rope_parameters")]
        if all(isinstance(config.get(path), dict) for path in both):
            readings += [config.edited({}, [path]) for path in both]
    planned = {scope.name: scope.after for scope in plan.scopes}
    for text in readings:
        found = read_rope(text.value, assume_like=assume_like)
        for name, scope in found.scopes.items():
            wanted = planned.get(name, rope.scopes[name].parameters)
            if not _same(scope.parameters, wanted, plan.length):
                raise ConfigError(
                    f"The config written for {name} reads back as {scope.parameters}, not as "
                    f"planned: {wanted}. Nothing was changed; please report this."
                )


def _same(found: RopeParameters, wanted: RopeParameters, length: int) -> bool:
    return (
        found.rope_type == wanted.rope_type
        and found.inv_freq(length) == wanted.inv_freq(length)
        and found.effective_attention_factor() == wanted.effective_attention_factor()
        and dict(found.extra) == dict(wanted.extra)
    )


def files_to_carry(checkpoint: Checkpoint, weights: Weights) -> list[SourceFile]:
    """The files that belong into the output.

    Raises:
        CheckpointError: one of them cannot be carried over; named.
    """
    files = checkpoint.files_to_copy()
    return [file for file in files if weights != "none" or not file.is_weights]


def _is_written(conversion: Conversion, file: SourceFile) -> bool:
    return file.name in conversion.files or file.name == FILE_NAME


def _written(conversion: Conversion) -> dict[str, bytes]:
    files = {name: after.text.encode() for name, (_, after) in conversion.files.items()}
    return {FILE_NAME: conversion.history.to_bytes(), **files}


def _verify_files(directory: Path, conversion: Conversion) -> None:
    for name, data in _written(conversion).items():
        if (directory / name).read_bytes() != data:
            raise CheckpointError(f"{directory / name} does not hold what was written to it.")
