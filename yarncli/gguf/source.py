"""A GGUF file on this machine or on the Hub. Only the ranges of its header are read."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from yarncli import hub
from yarncli.checkpoint.directory import BusyError, require_not_pending
from yarncli.checkpoint.naming import refuse_address
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.safetensors import is_safe_name
from yarncli.checkpoint.shifting import PENDING_SUFFIX
from yarncli.checkpoint.system import open_to_read, read_at
from yarncli.errors import CheckpointError, UsageError, WeightsError
from yarncli.gguf.header import GgufHeader, is_gguf, parse_header
from yarncli.gguf.walking import quoted
from yarncli.progress import ProgressCallback, stage

_SPLIT = re.compile(r"(.+)-([0-9]{5})-of-([0-9]{5})\.gguf", re.DOTALL)
_HUB_FILE = re.compile(
    r"hf://([\w.-]{1,96}/[\w.-]{1,96})(?:@((?:refs/pr/[0-9]+|[^@\s/]{1,255})))?/(\S+)", re.ASCII
)


@dataclass(frozen=True, kw_only=True)
class GgufFile:
    """A GGUF file whose header has been read. Make it with `open_gguf`."""

    name: str
    """Name of the file in messages."""
    header: GgufHeader
    """Header of the file; for a split model, header of the first shard, which has all keys."""
    path: Path | None = None
    """Path on this machine; None for a file on the Hub."""
    identity: tuple[int, ...] = ()
    """For a local file: device, inode, size in bytes, time of the last change."""
    remote: tuple[str, str, str] | None = None
    """Hub id, full commit hash, and name in the repository; None if it is not from the Hub."""
    sizes: tuple[int, ...] = ()
    """For a file on the Hub: sizes of all files of the model, in bytes."""

    @property
    def source(self) -> str:
        """What a record names as the source of a step: never a full path."""
        if self.remote:
            return f"{self.remote[0]}@{self.remote[1]}"
        return self.path.name if self.path else self.name

    def read(self, offset: int, length: int) -> bytes:
        """A range of the file, shorter only at its end.

        Raises:
            CheckpointError: it cannot be read, or has changed since its header was read.
            HubError: it cannot be fetched.
        """
        if self.path is None:
            assert self.remote is not None  # a file without a path is on the Hub
            return hub.read_range(*self.remote, offset, length)
        with _opened(self.path, self.name) as (descriptor, info):
            if identify(info) != self.identity:
                raise CheckpointError(f"{self.name} was changed after it was read. Run again.")
            return read_at(descriptor, offset, length)

    @property
    def split_count(self) -> int:
        """Number of files of the model; 1 if it is not split."""
        return _number(self.header, "split.count", 1)

    def shard_names(self) -> tuple[str, ...]:
        """The names of all files of the model, in order, in its directory or on the Hub."""
        name = self.remote[2] if self.remote else self.path.name if self.path else self.name
        return split_names(name, self.split_count) if self.split_count > 1 else (name,)

    def shards(self) -> tuple[Path, ...]:
        """The paths of all local files of the model.

        Raises:
            UsageError: the model is on the Hub.
            WeightsError: a file is missing.
        """
        if self.path is None:
            raise UsageError(
                f"{self.name} is on the Hub, so its files have no path on this machine."
            )
        names = (name.rpartition("/")[2] for name in self.shard_names())
        paths = tuple(self.path.with_name(name) for name in names)
        missing = next((path for path in paths if not path.is_file()), None)
        if missing:
            raise WeightsError(
                f"{self.name} is the first of {len(paths)} files, but {missing} is missing. "
                "Put all files into one directory."
            )
        return paths


def later_shards(file: GgufFile) -> list[GgufFile]:
    """The other files of a split model. They hold tensors, but no keys of the model.

    Raises:
        CheckpointError: a file is missing or damaged.
        HubError: a file cannot be fetched.
    """
    if file.path is not None:
        return [_read_local(path, str(path)) for path in file.shards()[1:]]
    assert file.remote is not None  # a file without a path is on the Hub
    repo_id, commit, _ = file.remote
    found = []
    for name, size in list(zip(file.shard_names(), file.sizes, strict=True))[1:]:
        remote, where = (repo_id, commit, name), f"hf://{repo_id}/{name}"
        header = parse_header(partial(hub.read_range, *remote), file_size=size, where=where)
        found.append(GgufFile(name=where, header=header, remote=remote))
    return found


class LaterShardError(CheckpointError):
    """A file of a split model that is not the first."""


def open_gguf(source: str | Path) -> GgufFile:
    """Read the header of a local file, or of `hf://org/name/file.gguf` (`org/name@revision/…`).

    Raises:
        CheckpointError: it cannot be read, is a later file of a split model, or is damaged.
        UsageError: `source` does not name a file on the Hub.
        HubError: the Hub cannot be reached, or has no such model.
    """
    given = os.fspath(source)
    if not given.startswith("hf://"):
        if not os.path.lexists(given):
            refuse_address(given)
        return _local_file(Path(given), given)
    match = _HUB_FILE.fullmatch(given)
    if not match or not is_safe_name(match[3]) or match[3].startswith(("resolve/", "blob/")):
        if given.endswith(".gguf"):
            refuse_address(given)
        raise UsageError(
            f"{given!r} does not name a file on the Hub. Write hf://org/name/file.gguf, or "
            "hf://org/name@rev/file.gguf."
        )
    return _hub_file(given, match[1], match[2], match[3])


def download(file: GgufFile, *, progress: ProgressCallback | None = None) -> GgufFile:
    """Fetch all files of the model into the Hub cache; a local file is returned as it is.

    Args:
        file: the opened file.
        progress: called with the progress of the stage "Fetching", in bytes.

    Raises:
        HubError: a file cannot be fetched.
        OutputError: the cache cannot be written.
    """
    if file.path is not None or file.remote is None:
        return file
    repo_id, commit, name = file.remote
    wanted = list(zip(file.shard_names(), file.sizes, strict=True))
    missing = sum(size for each, size in wanted if not hub.is_cached(repo_id, commit, each))
    with output_errors("the Hub cache"), stage(progress, "Fetching", missing) as advance:
        directory = hub.download(repo_id, commit, wanted, progress=advance)
    return replace(_local_file(directory / name, file.name), remote=file.remote)


def models_in(directory: Path) -> tuple[list[GgufFile], dict[str, str]]:
    """The models among the GGUF files of a directory, and for each other file why it is not one.

    Later files of split models are not listed.

    Raises:
        CheckpointError: the directory cannot be read.
    """
    try:
        paths = sorted(path for path in directory.iterdir() if looks_like_gguf(path))
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror}.") from error
    models, others = [], {}
    for path in paths:
        try:
            file = open_gguf(path)
        except LaterShardError:
            continue
        except CheckpointError as error:
            others[path.name] = str(error)
            continue
        if reason := why_no_model(file):
            others[path.name] = reason
        else:
            models.append(file)
    return models, others


def why_no_model(file: GgufFile) -> str:
    """Why a file is not a language model, as a sentence; empty if it is one."""
    name = file.shard_names()[0].rpartition("/")[2]
    if not file.header.tensors and file.split_count == 1:
        return f"{name} is not a model: it holds only a vocabulary."
    if file.header.kind != "model":
        return f"{name} is not a model: its general.type is {quoted(file.header.kind)}."
    if file.header.architecture == "clip":  # a projector from before general.type said so
        return f"{name} is not a model: its general.architecture is 'clip', an image encoder."
    return ""


def looks_like_gguf(path: Path) -> bool:
    """Whether a path is a regular file that begins with the letters GGUF, whatever its name."""
    try:
        with _opened(path, str(path)) as (descriptor, _):
            return is_gguf(read_at(descriptor, 0, 4))
    except CheckpointError:
        return False


def split_names(name: str, count: int) -> tuple[str, ...]:
    """The names of the files of a split model.

    Args:
        name: name of the first file.
        count: number of files.

    Raises:
        CheckpointError: the name does not fit the first of that many files.
    """
    match = _SPLIT.fullmatch(name)
    if not match or (int(match[2]), int(match[3])) != (1, count):
        raise CheckpointError(
            f"{name} is the first of {count} files, and llama.cpp finds the others only by their "
            f"names, so the name must end in -00001-of-{count:05}.gguf."
        )
    return tuple(f"{match[1]}-{n:05}-of-{count:05}.gguf" for n in range(1, count + 1))


def identify(info: os.stat_result) -> tuple[int, ...]:
    """Numbers of which one changes when a file is replaced or written to."""
    return info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns


def _local_file(path: Path, name: str) -> GgufFile:
    return _first(_read_local(path, name))


def _read_local(path: Path, name: str) -> GgufFile:
    with _opened(path, name) as (descriptor, info):
        header = parse_header(partial(read_at, descriptor), file_size=info.st_size, where=name)
        if identify(os.fstat(descriptor)) != identify(info):
            raise CheckpointError(f"{name} was changed while it was read. Run again.")
    return GgufFile(name=name, header=header, path=path, identity=identify(info))


def _hub_file(given: str, repo_id: str, revision: str | None, name: str) -> GgufFile:
    with output_errors("the Hub cache"):
        listing = hub.list_files(repo_id, revision, known=name)
    if listing.snapshot is not None:  # offline: use what the cache holds
        return _local_file(listing.snapshot / name, given)
    size = listing.files.get(name)
    if size is None:
        names = filter(is_safe_name, listing.files)
        others = sorted(each for each in names if each.endswith(".gguf"))
        more = f" Its GGUF files are: {', '.join(others[:20])}." if others else ""
        raise CheckpointError(f"hf://{repo_id} has no {name}.{more}")
    remote = repo_id, listing.commit, name
    header = parse_header(partial(hub.read_range, *remote), file_size=size, where=given)
    file = _first(GgufFile(name=given, header=header, remote=remote))
    missing = next((each for each in file.shard_names() if each not in listing.files), None)
    if missing:
        raise WeightsError(
            f"{given} is the first of {file.split_count} files, but {missing} is missing."
        )
    return replace(file, sizes=tuple(listing.files[each] for each in file.shard_names()))


def _first(file: GgufFile) -> GgufFile:
    """The file itself, if it is the first file of its model."""
    number = _number(file.header, "split.no", 0)
    if number:
        match = _SPLIT.fullmatch(file.name)
        first = f"{match[1]}-00001-of-{match[3]}.gguf" if match else "the first"
        raise LaterShardError(
            f"{file.name} is file {number + 1} of a split model. Only the first file has the keys: "
            f"give {first}."
        )
    file.shard_names()
    return file


def _number(header: GgufHeader, name: str, otherwise: int) -> int:
    found = header.keys.get(name)
    return found.value if found and type(found.value) is int else otherwise


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of a regular file and its status. Opening a pipe or a device never blocks."""
    try:
        descriptor = open_to_read(path, wait=False)
    except FileNotFoundError as error:
        if os.path.lexists(f"{path}{PENDING_SUFFIX}"):
            require_not_pending(path.parent)
        raise CheckpointError(f"{name} does not exist.") from error
    except BlockingIOError as error:  # another process holds a lease: it changes the file in place
        raise BusyError(
            f"Another process is changing {name} right now. Wait until it has ended."
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null character
        reason = error.strerror if isinstance(error, OSError) else "it is not a valid path"
        raise CheckpointError(f"{name} cannot be read: {reason}.") from error
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise CheckpointError(f"{name} is not a regular file.")
        try:
            yield descriptor, info
        except OSError as error:
            raise CheckpointError(f"{name} cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)
