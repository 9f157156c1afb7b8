"""GGUF files to publish: one file, a split model, or a folder of quantisations of one model."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from yarncli.checkpoint.directory import require_not_pending
from yarncli.checkpoint.files import SourceFile, walk_files
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.contents import is_same_model, read_contents
from yarncli.gguf.detection import ENDING, is_gguf_folder, is_gguf_source
from yarncli.gguf.facts import Gguf
from yarncli.gguf.header import GgufHeader
from yarncli.gguf.proof import proven_history
from yarncli.gguf.runtime import run
from yarncli.gguf.source import (
    GgufFile,
    LaterShardError,
    looks_like_gguf,
    open_gguf,
    why_no_model,
)
from yarncli.history import History, read_history
from yarncli.publishing.gguf_header import lineage_of
from yarncli.publishing.markdown import BEGIN
from yarncli.publishing.selection import README

_MAX_CARD = 1 << 20  # bytes


@dataclass(frozen=True, kw_only=True)
class GgufModel:
    """One quantisation."""

    names: tuple[str, ...]
    """Names of its files in the repository; a split model has several, the first has the keys."""
    file: GgufFile
    """Its first file."""
    gguf: Gguf
    """Its keys and the tensors of all its files."""
    history: History
    """The steps of its record, if the content agrees with them."""


@dataclass(frozen=True, kw_only=True)
class GgufFiles:
    """The GGUF files among the files of a folder."""

    models: tuple[GgufModel, ...]
    """The quantisations, by name."""
    beside: Mapping[str, str]
    """Name of a GGUF file that is not a model, such as a projector → the reason."""
    faults: Mapping[str, str]
    """Name of a GGUF file that cannot be published as it is → the reason."""


@dataclass(frozen=True, kw_only=True)
class GgufRepository(GgufFiles, Checkpoint):
    """GGUF files of one model, and other files beside them. Make it with `open_published`."""

    def where(self, name: str) -> str:
        """Name of one of the files in a message."""
        return str(self.path(name))

    @property
    def model_header(self) -> GgufHeader:
        """The header of the first file, which says what model it is."""
        return self.models[0].file.header

    @cached_property
    def history(self) -> History:
        """What was done to the model. All files have the same RoPE, so one record holds for all."""
        found = (model.history for model in self.models if model.history.steps)
        return next(found, self.models[0].history)

    def require_own_card(self) -> None:
        """Refuse to write a card beside a single file if there is another README.md.

        Raises:
            UsageError: there is a README.md that yarncli did not write.
        """
        there = self.path(README)
        if self.file(README) is None and os.path.lexists(there):
            raise UsageError(
                f"{there} was not written by yarncli and may describe something else. Put the "
                "file into a folder of its own, or print the card without --write."
            )


def open_published(source: str | Path | Checkpoint) -> Checkpoint:
    """The checkpoint directory, the GGUF file or the folder of GGUF files at `source`.

    Raises:
        CheckpointError: there is nothing that can be published.
        UsageError: it is on the Hub, or holds several models.
    """
    if not isinstance(source, Checkpoint) and _is_folder(source):
        return _folder(Path(source), str(source))
    if is_gguf_source(source):
        return _one_file(str(source))
    checkpoint = open_checkpoint(source, bare_hub_id=False)
    if checkpoint.directory is None:
        raise UsageError(
            f"{checkpoint.name} is not a directory. Give the directory of a local checkpoint, or a "
            "GGUF file."
        )
    return checkpoint


def _is_folder(source: str | Path) -> bool:
    """Whether a folder has GGUF files, or subfolders with them (such as one per quantisation)."""
    if is_gguf_folder(source):
        return True
    path = Path(source)
    with suppress(OSError):
        if str(source) and path.is_dir() and not (path / "config.json").exists():
            return any(path.glob(f"*/*{ENDING}"))
    return False


def history_of(checkpoint: Checkpoint) -> History:
    """What was done to a checkpoint or to GGUF files, if their content agrees with the record.

    Raises:
        CheckpointError: the record cannot be read.
    """
    if isinstance(checkpoint, GgufRepository):
        return checkpoint.history
    return read_history(checkpoint)


def origin_of(checkpoint: Checkpoint) -> tuple[str, str | None] | None:
    """Hub id and commit that a model was made from; for GGUF files, if the header proves it.

    Raises:
        CheckpointError: the record cannot be read.
    """
    recorded = history_of(checkpoint).origin
    if recorded is None and isinstance(checkpoint, GgufRepository):
        quantised = lineage_of(checkpoint.model_header).quantised
        return (quantised, None) if quantised else None
    return recorded


def _one_file(source: str) -> GgufRepository:
    """A single file, with its card if yarncli wrote the README.md beside it."""
    if source.startswith("hf://"):
        raise UsageError(f"{source} is on the Hub. Give a file or a folder on this machine.")
    path = Path(source)
    if path.suffix != ENDING:
        raise UsageError(_without_ending(path))
    file = open_gguf(path)
    if reason := why_no_model(file):
        raise CheckpointError(f"{reason} Give the file of the model, or the folder with both.")
    model = _model(file, "")
    files = [_described(path.with_name(name), name) for name in model.names]
    card = path.with_name(README)
    if is_our_card(card):
        files.append(_described(card, README))
    return GgufRepository(
        name=source, directory=path.parent, config_path=path.parent / "config.json",
        files=tuple(files), models=(model,), beside={}, faults={},
    )  # fmt: skip


def is_our_card(path: Path) -> bool:
    """Whether a file has a section that yarncli wrote; other READMEs may describe anything."""
    try:
        with path.open("rb") as file:
            return BEGIN.encode() in file.read(_MAX_CARD)
    except OSError:
        return False


def _described(path: Path, name: str) -> SourceFile:
    """A file that the user named. If it is a link, it is followed, wherever it points to."""
    info = path.stat()
    kind = "weights" if name.endswith(ENDING) else "other"
    return SourceFile(name=name, size=info.st_size, kind=kind, modified=info.st_mtime_ns)  # type: ignore[arg-type]


def _model(file: GgufFile, folder: str) -> GgufModel:
    gguf = read_contents(file)
    names = tuple(folder + name for name in file.shard_names())
    history = proven_history(file.header, gguf)
    return GgufModel(names=names, file=file, gguf=gguf, history=history)


def _folder(directory: Path, name: str) -> GgufRepository:
    require_not_pending(directory)
    try:
        files = tuple(sorted(walk_files(directory.resolve()), key=lambda file: file.name))
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}.") from error
    found = find_gguf_files(directory, files)
    if not found.models:
        reasons = " ".join([*found.beside.values(), *found.faults.values()])
        raise CheckpointError(f"{name} holds no GGUF file of a language model. {reasons}".rstrip())
    _require_one_model(found.models)
    return GgufRepository(
        name=name.rstrip("/") or name, directory=directory,
        config_path=directory / "config.json", files=files, models=found.models,
        beside=found.beside, faults=found.faults,
    )  # fmt: skip


def find_gguf_files(directory: Path, files: Iterable[SourceFile]) -> GgufFiles:
    """Read the headers of the GGUF files among some files of a folder."""
    models: list[GgufModel] = []
    beside: dict[str, str] = {}
    faults: dict[str, str] = {}
    later: list[str] = []
    for file in files:
        path = directory / file.name
        if file.problem or not (path.suffix == ENDING or looks_like_gguf(path)):
            continue
        if path.suffix != ENDING:
            faults[file.name] = _without_ending(path)
            continue
        try:
            opened = open_gguf(path)
            if reason := why_no_model(opened):
                beside[file.name] = reason
            else:
                models.append(_model(opened, file.name.removesuffix(path.name)))
        except LaterShardError:
            later.append(file.name)
        except CheckpointError as error:
            faults[file.name] = str(error)
    for each in {*later} - {each for model in models for each in model.names}:
        faults[each] = (
            f"{directory / each} is part of a split model, but its first file is missing or "
            "cannot be read."
        )
    return GgufFiles(models=tuple(models), beside=beside, faults=faults)


def _without_ending(path: Path) -> str:
    link = shlex.join(["ln", "-s", str(path.resolve()), f"model{ENDING}"])
    return (
        f"The name of {path} does not end in {ENDING}. The Hub and programs recognise a GGUF file "
        f"by this ending. Give a link or a copy that has it: {link}"
    )


def _require_one_model(models: Sequence[GgufModel]) -> None:
    """Refuse files of different models or with different RoPE, as one card describes them all."""
    first = models[0]
    for other in models[1:]:
        same = is_same_model(first.gguf, other.gguf) and run(first.gguf) == run(other.gguf)
        if not same or _baked_out_of_sight(first) != _baked_out_of_sight(other):
            raise UsageError(
                f"{first.names[0]} and {other.names[0]} are of different models, or are scaled "
                "differently. Give each file by its own path."
            )


def _baked_out_of_sight(model: GgufModel) -> list[Any]:
    """The recorded bakes that no key of a file shows."""
    steps = (*model.history.steps, *model.history.unbelieved)
    bakes = (step.options or {} for step in steps if step.command == "bake")
    return [options.get("attention_factor") for options in bakes if options.get("carrier") != "key"]
