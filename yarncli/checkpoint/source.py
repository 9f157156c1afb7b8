"""A local directory, a config file or a Hub id as one `Checkpoint`; weights stay untouched."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from yarncli import hub
from yarncli.checkpoint import safetensors
from yarncli.checkpoint.contents import describe_file, describe_without_config
from yarncli.checkpoint.directory import require_not_pending
from yarncli.checkpoint.files import SourceFile, beginning_of, kind_of, read_file, walk_files
from yarncli.checkpoint.naming import bare_hub_source, hub_source
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.rewrite import verify
from yarncli.checkpoint.safetensors import Header, Index
from yarncli.errors import CheckpointError, UsageError, WeightsError
from yarncli.jsontext.text import JsonText
from yarncli.progress import ProgressCallback, stage

INDEX_NAME = "model.safetensors.index.json"
SINGLE_SHARD_NAME = "model.safetensors"
MAX_JSON_SIZE = 32 << 20  # bytes of a config-like file
MAX_CONFIG_SIZE = 4 << 20  # bytes of config.json, which is read anew for each value that changes


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The files of one model. Make it with `open_checkpoint`."""

    name: str
    """What output calls it."""
    directory: Path | None = None
    """Where its files lie; None for a lone config file and for the Hub."""
    config_path: Path | None = None
    """Path of the local `config.json`; None on the Hub."""
    repo_id: str | None = None
    """Hub id, also known for a snapshot in the Hub cache; None for any other local files."""
    commit: str | None = None
    """Full commit hash; None where `repo_id` is None."""
    files: tuple[SourceFile, ...]
    """Sorted by name; a lone config file is its only file."""

    @property
    def is_remote(self) -> bool:
        """Whether the files are still on the Hub."""
        return self.config_path is None

    def file(self, name: str) -> SourceFile | None:
        """The file called `name`, None if there is none."""
        return self._by_name.get(name)

    def read_bytes(self, name: str, limit: int = MAX_JSON_SIZE) -> bytes:
        """The content of a small file.

        Raises:
            CheckpointError: missing, not a regular file, a link out, larger than `limit` bytes, or
                unreadable.
            HubError: it cannot be fetched, or is not what the Hub has.
        """
        file = self._by_name.get(name)
        if file is None:
            raise CheckpointError(f"{self.name} has no {name}.")
        if file.problem:
            raise CheckpointError(f"{self.where(name)} {file.problem}.")
        limit = min(limit, MAX_CONFIG_SIZE) if name == "config.json" else limit
        if file.size > limit:
            raise CheckpointError(
                f"{self.where(name)} has {file.size} bytes; such a file may have at most {limit}."
            )
        if self.is_remote:
            with output_errors("the Hub cache"):
                path = hub.cached_file(*self._remote, name)
        else:
            path = self._local_path(name)
        data = read_file(path, limit, self.where(name))
        if file.digest:
            file.digest.require_of(path, data)
        self.contents_read[name] = data
        return data

    def config(self) -> JsonText:
        """`config.json`.

        Raises:
            CheckpointError: it cannot be read.
            ConfigError: it is not valid JSON, or not an object.
        """
        return self._json("config.json")

    def optional_json(self, name: str) -> JsonText | None:
        """A file like `tokenizer_config.json`; None if there is none. Raises as `config` does."""
        return self._json(name) if name in self._by_name else None

    def json_beside(self, name: str) -> JsonText | None:
        """A file in the directory of a lone `config.json`; None if there is none."""
        path = self.config_path
        if self.directory or path is None or path.name != "config.json":
            return None
        other = path.with_name(name)
        if not other.is_file():
            return None
        return JsonText.parse(read_file(other, MAX_JSON_SIZE), str(other))

    def index(self) -> Index | None:
        """The weight index; None if there is none.

        Raises:
            CheckpointError: it cannot be read.
            WeightsError: it is damaged or points out of the checkpoint.
        """
        if INDEX_NAME not in self._by_name:
            return None
        return self._index

    def shard_names(self) -> tuple[str, ...]:
        """The safetensors files that make up the model, as its loaders choose them.

        Those of the index, else `model.safetensors`, else every safetensors file at the top.

        Raises:
            WeightsError: the index is damaged, or `model.safetensors` (which transformers would
                load) lies beside an index that does not name it.
        """
        index = self.index()
        if index is not None:
            names = tuple(dict.fromkeys(index.weight_map.values()))
            if SINGLE_SHARD_NAME in self._by_name and SINGLE_SHARD_NAME not in names:
                raise WeightsError(
                    f"{self.name} has both {SINGLE_SHARD_NAME} and an index that does not name it, "
                    "and engines differ in which they load. Remove the one that is not the model."
                )
            return names
        if SINGLE_SHARD_NAME in self._by_name:
            return (SINGLE_SHARD_NAME,)
        shards = (f.name for f in self.files if f.kind == "shard" and "/" not in f.name)
        return tuple(name for name in shards if not name.startswith("adapter_"))

    def header(self, name: str) -> Header:
        """The header of one shard, read each time.

        A link is followed wherever it leads, because only a valid header is read from there.

        Raises:
            WeightsError: the shard is missing, damaged, or a Git-LFS pointer.
            HubError: it cannot be fetched.
        """
        file = self._by_name.get(name)
        if file is None:
            raise WeightsError(f"The index of {self.name} names {name}, which is not there.")
        if not self.is_remote:
            return safetensors.read_header(self._local_path(name), self.where(name))
        repo_id, commit = self._remote
        return safetensors.parse_header(
            lambda offset, length: hub.read_range(repo_id, commit, name, offset, length),
            file_size=file.size,
            where=self.where(name),
        )

    def headers(self) -> dict[str, Header]:
        """Shard name → header for all of `shard_names`, read once. Raises as `header` does."""
        return self._headers

    def files_to_copy(self) -> tuple[SourceFile, ...]:
        """All files, checked to be fit for copying.

        Raises:
            CheckpointError: one is a link out of the checkpoint, a broken link, a FIFO, …; named.
        """
        for file in self.files:
            if file.problem:
                raise CheckpointError(
                    f"{self.where(file.name)} {file.problem}. Remove it or put a real file there."
                )
        return self.files

    def path(self, name: str) -> Path:
        """Where a file lies on this machine (links not resolved).

        Raises:
            UsageError: the checkpoint is still on the Hub; `download` it first.
        """
        if self.is_remote:
            raise UsageError(f"{self.name} is on the Hub; its files have no path here.")
        return self._local_path(name)

    def parameters(self) -> int:
        """Elements of all tensors together. Raises as `headers`."""
        headers = self.headers().values()
        return sum(tensor.parameters for header in headers for tensor in header.tensors.values())

    def missing_bytes(self, names: tuple[str, ...] | None = None) -> int:
        """Bytes that `download` would transfer: 0 for what is local or in the Hub cache."""
        if not self.is_remote:
            return 0
        wanted = self._wanted(names)
        return sum(f.size for f in wanted if not hub.is_cached(*self._remote, f.name))

    def download(
        self,
        names: tuple[str, ...] | None = None,
        *,
        copied: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Checkpoint:
        """This checkpoint with its files (or only `names`) in the Hub cache; itself if local.

        Args:
            names: of files; None for all.
            copied: whether they are copied from there next, which takes their hashes on the way;
                otherwise they are taken here.
            progress: told how far the stages "Fetching" and "Verifying" are, in bytes.

        Raises:
            HubError: a file cannot be fetched, or is not what the Hub has.
            OutputError: the cache cannot be written.
        """
        if not self.is_remote:
            return self
        repo_id, commit = self._remote
        wanted = self._wanted(names)
        missing = self.missing_bytes(names)
        with output_errors("the Hub cache"), stage(progress, "Fetching", missing) as advance:
            directory = hub.download(
                repo_id, commit, [(file.name, file.size) for file in wanted], progress=advance
            )
        local = _local_checkpoint(directory, self.name)
        digests = {file.name: file.digest for file in wanted}
        files = tuple(
            replace(file, digest=digests[file.name]) for file in local.files if file.name in digests
        )
        if not copied:
            verify(directory, files, progress=progress)
        return replace(local, repo_id=repo_id, commit=commit, files=files)

    def where(self, name: str) -> str:
        """What to call one of the files in a message."""
        if self.directory is None and self.config_path is not None:
            return str(self.config_path)
        return f"{self.name}/{name}"

    @cached_property
    def contents_read(self) -> dict[str, bytes]:
        """The small files that have been read, and what they held."""
        return {}

    @cached_property
    def _by_name(self) -> dict[str, SourceFile]:
        return {file.name: file for file in self.files}

    @cached_property
    def _index(self) -> Index:
        data = self.read_bytes(INDEX_NAME, safetensors.MAX_INDEX_SIZE)
        return safetensors.parse_index(data, self.where(INDEX_NAME))

    @cached_property
    def _headers(self) -> dict[str, Header]:
        names = self.shard_names()
        if not self.is_remote:
            return {name: self.header(name) for name in names}
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(8) as pool:  # each waits for the network
            return dict(zip(names, pool.map(self.header, names), strict=True))

    @property
    def _remote(self) -> tuple[str, str]:
        assert self.repo_id is not None and self.commit is not None  # noqa: PT018
        return self.repo_id, self.commit

    def _local_path(self, name: str) -> Path:
        if self.directory is not None:
            return self.directory / name
        assert self.config_path is not None
        return self.config_path

    def _wanted(self, names: tuple[str, ...] | None) -> list[SourceFile]:
        return [file for file in self.files if names is None or file.name in names]

    def _json(self, name: str) -> JsonText:
        return JsonText.parse(self.read_bytes(name), self.where(name))


def open_checkpoint(
    source: str | Path | Checkpoint, *, bare_hub_id: bool = True, allow_pending: bool = False
) -> Checkpoint:
    """Find a checkpoint; only its list of files is read.

    An existing path wins (a directory with `config.json`, or a config file itself);
    `hf://org/name[@revision]` is always the Hub; a bare `org/name` is the Hub only where no
    directory `org/` exists here. A revision is resolved to a commit once, here.

    Args:
        source: as the user gave it; the files of a local `Checkpoint`
            are listed afresh.
        bare_hub_id: whether a bare `org/name` may reach for the network at all.
        allow_pending: open a directory in the middle of an interrupted in-place change too.

    Raises:
        CheckpointError: there is no checkpoint at `source`, or an in-place change is pending.
        UsageError: `source` is not a path and not a Hub id.
        HubError: the Hub cannot be reached, or has no such model.
    """
    if isinstance(source, Checkpoint):
        return _afresh(source, allow_pending)
    source = os.fspath(source)
    if named := hub_source(source):
        return _hub_checkpoint(*named)
    if not source or "\0" in source:
        raise UsageError(f"{source!r} is not a path.")
    path = Path(source)
    if os.path.lexists(path):
        return _local_source(path, source, allow_pending)
    return _hub_checkpoint(*bare_hub_source(source, allowed=bare_hub_id))


def _local_source(path: Path, source: str, allow_pending: bool) -> Checkpoint:
    try:
        info = path.stat()
    except OSError as error:
        reason = "is a broken link" if path.is_symlink() else f"cannot be read: {error.strerror}"
        raise CheckpointError(f"{source} {reason}.") from error
    if stat.S_ISDIR(info.st_mode):
        if path.name == "config.json":
            raise CheckpointError(f"{source} is a directory, not a config file.")
        if not allow_pending:
            require_not_pending(path)
        return _local_checkpoint(path, source.rstrip("/") or source)
    if not stat.S_ISREG(info.st_mode):
        raise CheckpointError(f"{source} is neither a directory nor a regular file.")
    if what := describe_file(path.name, beginning_of(path)):
        raise CheckpointError(f"{source} is not a checkpoint or its config.json: it is {what}.")
    file = SourceFile(
        name="config.json", size=info.st_size, kind="config", modified=info.st_mtime_ns
    )
    return Checkpoint(name=source, config_path=path, files=(file,))


def _afresh(checkpoint: Checkpoint, allow_pending: bool) -> Checkpoint:
    """The checkpoint with the files that it has now: a step in place may have written some."""
    path = checkpoint.directory or checkpoint.config_path
    if path is None:  # on the Hub, at one commit
        return checkpoint
    found = _local_source(path, str(path), allow_pending)
    repo_id, commit = checkpoint.repo_id, checkpoint.commit
    return replace(found, name=checkpoint.name, repo_id=repo_id, commit=commit)


def _local_checkpoint(directory: Path, name: str) -> Checkpoint:
    try:
        real = directory.resolve(strict=True)
        files = tuple(sorted(walk_files(real), key=lambda file: file.name))
    except OSError as error:
        raise CheckpointError(f"{error.filename} cannot be read: {error.strerror}.") from error
    config = next((file for file in files if file.name == "config.json"), None)
    if config is None:
        if (real / "config.json").is_dir():
            raise CheckpointError(f"{name} is not a checkpoint: its config.json is a directory.")
        raise _no_config(name, files)
    repo_id, commit = hub.identify_snapshot(real) or (None, None)
    return Checkpoint(
        name=name, directory=directory, config_path=directory / "config.json",
        repo_id=repo_id, commit=commit, files=files,
    )  # fmt: skip


def _no_config(name: str, files: tuple[SourceFile, ...]) -> CheckpointError:
    more = describe_without_config(file.name for file in files)
    return CheckpointError(f"{name} is not a checkpoint: it has no config.json.{more}")


def _hub_checkpoint(repo_id: str, revision: str | None) -> Checkpoint:
    with output_errors("the Hub cache"):
        listing = hub.list_files(repo_id, revision)
    name = f"hf://{repo_id}" + (f"@{revision}" if revision else "")
    if listing.snapshot is not None:  # offline: what the cache holds
        local = _local_checkpoint(listing.snapshot, name)
        return replace(local, repo_id=repo_id, commit=listing.commit)
    files = tuple(
        SourceFile(name=file, size=size, kind=kind_of(file), digest=listing.digests.get(file))
        for file, size in sorted(listing.files.items())
        if safetensors.is_safe_name(file)
    )
    if not any(file.name == "config.json" for file in files):
        raise _no_config(name, files)
    return Checkpoint(name=name, repo_id=repo_id, commit=listing.commit, files=files)
