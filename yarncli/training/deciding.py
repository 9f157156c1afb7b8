"""Decide a finish in memory: the proof, and every file to write or to copy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.completeness import require_complete
from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.leftovers import is_training_state
from yarncli.checkpoint.source import INDEX_NAME, Checkpoint
from yarncli.config.reading import RopeConfig, read_rope
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import (
    CONVERTED_FILES,
    FILE_NAME,
    History,
    Step,
    describe_source,
    read_history,
)
from yarncli.history.weights import Trained
from yarncli.jsontext.changes import FieldChange, changed_fields
from yarncli.jsontext.text import JsonText
from yarncli.training.casting import SIZES, Cast, rounds
from yarncli.training.comparing import require_same, require_same_tensors
from yarncli.training.restoring import (
    DTYPE_NAMES,
    missing_files,
    restored_config,
    restored_files,
)
from yarncli.training.stamps import Stamp, read_run, read_stamp

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Finish:
    """The result of finishing, or the plan for it in a dry run."""

    trained: Checkpoint
    """The checkpoint that the trainer saved."""
    converted: Checkpoint
    """The conversion that the training started from."""
    run: Trained
    """What is known of the training."""
    history: History
    """The record of the result; the last step is this one."""
    files: Mapping[str, tuple[JsonText, JsonText]]
    """The config files that change: name → text before and after."""
    taken: tuple[str, ...]
    """The files copied from the conversion because the trainer dropped or changed them."""
    casts: Mapping[str, Cast]
    """Name of a shard → its cast to other dtypes."""
    leftovers: tuple[SourceFile, ...]
    """Files of the trainer that do not belong to the model; they are never copied."""
    notes: tuple[str, ...]
    """Sentences that the user should read."""
    clean: bool = False
    """Whether the leftovers are removed."""
    output: Path | None = None
    """The directory to write; None if the trained directory itself is changed."""
    written: bool = False
    """Whether it has been written."""

    @property
    def changes(self) -> tuple[FieldChange, ...]:
        """Every restored value, in the order of the files."""
        return self.history.steps[-1].replaced

    def to_json(self) -> dict[str, Any]:
        """The document of `finish --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "written": self.written,
            "output": str(self.output) if self.output else None,
            "trained": self.run.to_json(),
            "changes": [change.to_json() for change in self.changes],
            "taken": list(self.taken),
            "cast": {name: dict(cast.dtypes) for name, cast in self.casts.items()},
            "leftovers": [file.name for file in self.leftovers],
            "cleaned": self.written and self.clean,
            "notes": list(self.notes),
        }


def decide(
    trained: Checkpoint, converted: Checkpoint, *, cast: bool = False, in_place: bool = False
) -> Finish:
    """Prove the setting and decide what to write. Reads config files and headers, not weights.

    Args:
        trained: the checkpoint that the trainer saved.
        converted: the conversion that it started from.
        cast: cast the weights back to the dtype of the conversion.
        in_place: whether the trained directory itself will be changed.

    Raises:
        CheckpointError: as `finish`.
        UsageError: the checkpoint is not on this machine, or a cast in place is asked for.
    """
    if trained.directory is None:
        raise UsageError(f"{trained.name} is not a directory on this machine.")
    before = history_of(converted)
    config, origin = trained.config(), converted.config()
    like = before.assume_like
    theirs = before.informed(read_rope(origin.value, assume_like=like))
    mine = read_rope(config.value, assume_like=like)
    length = before.plan.length if before.plan else theirs.max_position_embeddings
    require_same(trained.name, mine, theirs, length)
    stamp = read_stamp(trained.directory)
    require_stamp(trained.name, stamp, theirs, length)
    _refuse_finished(trained, before)
    require_complete(trained, mine.stored_layers)
    require_same_tensors(trained, converted)
    casts = _casts(trained, converted) if cast else {}
    if casts and in_place:
        raise UsageError(
            "A cast writes new weight files, so --dtype auto needs a directory to write as OUT."
        )
    dtype = main_dtype(trained, casts)
    written = restored_config((config, mine), (origin, theirs), dtype)
    require_same(trained.name, read_rope(written.value, assume_like=like), theirs, length)
    files = {"config.json": (config, written), **restored_files(trained, converted)}
    if trained.file(INDEX_NAME) and casts:
        files[INDEX_NAME] = _index(trained, casts)
    files = {name: pair for name, pair in files.items() if pair[0].text != pair[1].text}
    run = replace(read_run(trained.directory, stamp), dtype=dtype if casts else None)
    leftovers = tuple(f for f in trained.files if _stays(f, trained))
    return Finish(
        trained=trained,
        converted=converted,
        run=run,
        history=before.then(_step(trained, files, run)),
        files=files,
        taken=tuple(missing_files(trained, converted)),
        casts=casts,
        leftovers=leftovers,
        notes=tuple(_notes(trained, converted, before, run, casts, mine, theirs)),
    )


def _step(
    trained: Checkpoint, files: Mapping[str, tuple[JsonText, JsonText]], run: Trained
) -> Step:
    changed = {name: files[name] for name in CONVERTED_FILES if name in files}
    return Step(
        command="finish",
        source=describe_source(trained),
        replaced=tuple(c for name, pair in changed.items() for c in changed_fields(name, *pair)),
        trained=run,
        options={"dtype": "auto"} if run.dtype else {},
    )


def history_of(converted: Checkpoint) -> History:
    """The steps of the conversion.

    Raises:
        CheckpointError: its yarncli.json does not describe its config.
    """
    history = read_history(converted)
    if history.unbelieved:
        raise CheckpointError(
            f"{converted.where('config.json')} is not what its {FILE_NAME} records, so it is not "
            "known what the training started from. Give --from an unchanged conversion."
        )
    return history


def require_stamp(name: str, stamp: Stamp | None, converted: RopeConfig, length: int) -> None:
    """Refuse a checkpoint if the guard ran and saw other frequencies than those of the conversion.

    Raises:
        CheckpointError: the guard saw other frequencies.
    """
    if stamp is None:
        return
    wanted = {name: scope.parameters for name, scope in converted.scopes.items()}
    if stamp.settings.keys() != wanted.keys() or any(
        found.inv_freq(length) != wanted[scope].inv_freq(length)
        or found.effective_attention_factor() != wanted[scope].effective_attention_factor()
        for scope, found in stamp.settings.items()
    ):
        shown = next(iter(stamp.settings.values()))
        raise CheckpointError(
            f"{name} was trained with another setting than that of the conversion. The guard saw "
            f"rope_type {shown.rope_type}, factor {shown.resolved_factor():g}, rope_theta "
            f"{shown.rope_theta:g}, {stamp.length:,} tokens. Give --from the conversion that the "
            "training started from."
        )


def _refuse_finished(trained: Checkpoint, before: History) -> None:
    """Refuse a checkpoint with its own record, as something was already done with it."""
    if trained.file(FILE_NAME) is None:
        return
    found = read_history(trained)
    if [*found.steps, *found.unbelieved] != [*before.steps]:
        raise CheckpointError(
            f"{trained.name} has its own {FILE_NAME}: it was already finished, or was converted "
            "after the training. There is nothing to finish."
        )


def _casts(trained: Checkpoint, converted: Checkpoint) -> dict[str, Cast]:
    """The tensors whose dtype differs from that of the conversion, by shard."""
    wanted = {n: t.dtype for h in converted.headers().values() for n, t in h.tensors.items()}
    usual = main_dtype(converted, {})
    found = {}
    for shard, header in trained.headers().items():
        dtypes = {
            name: dtype
            for name, tensor in header.tensors.items()
            if (dtype := wanted.get(name, usual or "")) != tensor.dtype
            and dtype in SIZES
            and tensor.dtype in SIZES
        }
        if dtypes:
            found[shard] = Cast(header, dtypes)
    return found


def main_dtype(checkpoint: Checkpoint, casts: Mapping[str, Cast]) -> str | None:
    """The dtype of most numbers of a checkpoint after the casts; None without weights."""
    counts: dict[str, int] = {}
    for shard, header in checkpoint.headers().items():
        new = casts[shard].dtypes if shard in casts else {}
        for name, tensor in header.tensors.items():
            dtype = new.get(name, tensor.dtype)
            counts[dtype] = counts.get(dtype, 0) + tensor.parameters
    return max(counts, key=lambda dtype: counts[dtype], default=None)


def _index(trained: Checkpoint, casts: Mapping[str, Cast]) -> tuple[JsonText, JsonText]:
    """The weight index before and after the casts, which change the total size."""
    data = trained.read_bytes(INDEX_NAME)
    text = JsonText.parse(data, trained.where(INDEX_NAME))
    sizes = {
        shard: casts[shard].nbytes if shard in casts else header.file_size - header.header_size
        for shard, header in trained.headers().items()
    }
    return text, text.edited({("metadata", "total_size"): sum(sizes.values())})


def _stays(file: SourceFile, trained: Checkpoint) -> bool:
    """Whether a file does not belong to the model: trainer state, or weights in a second format."""
    second = file.kind == "weights" or (file.kind == "index" and file.name != INDEX_NAME)
    return is_training_state(file.name) or second


def _notes(
    trained: Checkpoint,
    converted: Checkpoint,
    before: History,
    run: Trained,
    casts: Mapping[str, Cast],
    mine: RopeConfig,
    theirs: RopeConfig,
) -> list[str]:
    found = []
    if before.plan is None:
        found.append(
            f"{converted.name} has no {FILE_NAME}, so the record begins with the training. It is "
            "proved only that both configs mean the same."
        )
    if not run.guarded:
        found.append(
            "The guard did not run, so only the saved config proves the setting. Nothing records "
            "that it was used during the training. Files that the recipe command writes call "
            "the guard."
        )
    if mine.max_position_embeddings < theirs.max_position_embeddings:
        found.append(
            f"The trainer had lowered {mine.length_key} to {mine.max_position_embeddings:,}. It "
            f"was set back to {theirs.max_position_embeddings:,}."
        )
    found += _dtype_notes(trained, converted, casts)
    return found


def _dtype_notes(
    trained: Checkpoint, converted: Checkpoint, casts: Mapping[str, Cast]
) -> list[str]:
    old, new = main_dtype(trained, {}) or "", main_dtype(converted, {}) or ""
    if old == new or not {old, new} <= DTYPE_NAMES.keys():
        return []
    if not casts:
        size = SIZES[old] / SIZES[new]
        much = f", which makes them {size:g} times as large" if size != 1 else ""
        return [
            f"The trainer saved the weights as {DTYPE_NAMES[old]}, not as {DTYPE_NAMES[new]}"
            f"{much}. They are kept as they are; --dtype auto casts them back."
        ]
    how = "rounded to nearest" if rounds(old, new) else "exactly"
    return [f"The weights were cast from {DTYPE_NAMES[old]} to {DTYPE_NAMES[new]}, {how}."]
