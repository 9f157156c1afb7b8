"""Files to send to the Hub, with hashes and progress, and files to copy inside the Hub."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from yarncli.errors import CheckpointError
from yarncli.hub import waits
from yarncli.hub.failures import client_utils
from yarncli.progress import Advance

_BLOCK = 1 << 20
_BLOCK_OF_XET = 64 << 20  # bytes of a xorb
_XET_FILES = "HF_XET_DATA_MAX_CONCURRENT_FILE_INGESTION"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a commit; `sha256` is None for files that are stored in git itself."""

    size: int
    git_oid: str
    sha256: str | None

    def equals(self, other: RemoteFile) -> bool:
        """Whether both hold the same bytes."""
        if self.sha256 is not None or other.sha256 is not None:
            return self.sha256 == other.sha256
        return self.git_oid == other.git_oid


@dataclass(kw_only=True)
class Upload:
    """One file to send."""

    name: str
    """POSIX path in the repository."""
    content: Path | bytes
    """Its bytes, or the local file that has them."""
    size: int
    """In bytes."""
    sha256: str | None = field(default=None)
    """SHA-256 in hexadecimal; None until it was needed."""

    @classmethod
    def of(cls, name: str, content: Path | bytes) -> Upload:
        """The upload of bytes, or of a file that is not read yet.

        Raises:
            CheckpointError: the file cannot be read.
        """
        if isinstance(content, bytes):
            return cls(name=name, content=content, size=len(content))
        with _readable(content):
            return cls(name=name, content=content, size=content.stat().st_size)

    def equals(self, remote: RemoteFile, progress: Advance | None = None) -> bool:
        """Whether the file on the Hub has the same bytes; reads the local one if the sizes agree.

        Raises:
            CheckpointError: the local file cannot be read.
        """
        if remote.size != self.size:
            return False
        if remote.sha256 is None:
            start = b"blob %d\0" % self.size
            return self._digest(hashlib.sha1(start), progress) == remote.git_oid
        return self.hashed(progress) == remote.sha256

    def hashed(self, progress: Advance | None = None) -> str:
        """Its SHA-256, which is computed on first use.

        Raises:
            CheckpointError: the local file cannot be read.
        """
        if self.sha256 is None:
            self.sha256 = self._digest(hashlib.sha256(), progress)
        return self.sha256

    def _digest(self, digest: Any, progress: Advance | None) -> str:
        with self.open() as file, _readable(self.content):
            while block := file.read(_BLOCK):
                digest.update(block)
                if progress:
                    progress(len(block))
                waits.moved()
        return str(digest.hexdigest())

    def open(self) -> io.BufferedIOBase:
        """The content, for reading.

        Raises:
            CheckpointError: the file cannot be opened.
        """
        if isinstance(self.content, bytes):
            return io.BytesIO(self.content)
        with _readable(self.content):
            return self.content.open("rb")


@contextmanager
def _readable(content: Path | bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{content!s} cannot be read: {error.strerror}.") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A file to copy inside the Hub, from another repository at a commit."""

    name: str
    """POSIX path, the same in both repositories."""
    repo_id: str
    """Hub id of the repository that holds it."""
    commit: str
    """Full hash of the commit that holds it."""
    file: RemoteFile
    """Its size and hashes."""

    def equals(self, remote: RemoteFile) -> bool:
        """Whether the file on the Hub has the same bytes."""
        return self.file.equals(remote)


def copy_operation(file: Copy) -> Any:
    """The client's operation for a copy."""
    from huggingface_hub import CommitOperationCopy

    return CommitOperationCopy(
        src_path_in_repo=file.name,
        path_in_repo=file.name,
        src_revision=file.commit,
        src_repo_id=file.repo_id,
        src_repo_type="model",
    )


def delete_operation(name: str) -> Any:
    """The client's operation that deletes one file."""
    from huggingface_hub import CommitOperationDelete

    return CommitOperationDelete(name, is_folder=False)


def add_operation(upload: Upload, progress: Advance | None) -> Any:
    """The client's operation for an upload, which reports how much was sent.

    Raises:
        CheckpointError: the file can no longer be read.
    """
    from huggingface_hub import CommitOperationAdd

    class Addition(CommitOperationAdd):
        @contextmanager
        def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
            with upload.open() as file:
                # The client asks for a bar only while it sends.
                yield _CountedFile(file, progress) if with_tqdm and progress else file

    upload.open().close()
    operation = Addition(upload.name, upload.content)
    if upload.sha256 is not None:
        operation.upload_info.sha256 = bytes.fromhex(upload.sha256)
    return operation


def uses_xet() -> bool:
    """Whether the client stores large files through Xet."""
    from huggingface_hub import constants

    return not constants.HF_HUB_DISABLE_XET and find_spec("hf_xet") is not None


@contextmanager
def bounded_memory(sizes: Sequence[int]) -> Iterator[None]:
    """Let Xet read fewer large files at once, because it holds up to 64 MB of each.

    Large files use the whole bandwidth one by one, but small files mostly wait for answers, so
    more of them are sent at once. A value in the environment is not changed. It applies to an Xet
    session that starts inside the block.
    """
    mean = sum(sizes) // max(1, len(sizes))
    if mean < _BLOCK_OF_XET or _XET_FILES in os.environ:
        yield
        return
    os.environ[_XET_FILES] = "1"
    try:
        yield
    finally:
        os.environ.pop(_XET_FILES, None)


@contextmanager
def counted_uploads(progress: Advance | None) -> Iterator[None]:
    """Hide the client's own bars, and report to `progress` what is sent through Xet.

    Uploads without Xet are counted by `add_operation`.
    """
    if not uses_xet():
        with _hidden_bars():
            yield
        return
    with _counted_xet(progress), waits.at_work():
        yield


@contextmanager
def _hidden_bars() -> Iterator[None]:
    """Switch bars off, unless HF_HUB_DISABLE_PROGRESS_BARS is set, which takes precedence."""
    from huggingface_hub import constants

    utils = client_utils()
    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or utils.are_progress_bars_disabled():
        yield
        return
    utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.enable_progress_bars()


@contextmanager
def _counted_xet(progress: Advance | None) -> Iterator[None]:
    """Count bytes in the place where the client would draw bars.

    The client draws bars for Xet on any stderr, even a file, and offers no other way to count. With
    HF_HUB_DISABLE_PROGRESS_BARS=1 it makes no bars, so nothing is counted. If a newer client has
    moved this private class, it draws its own bars.
    """
    try:
        module: Any = import_module("huggingface_hub.utils._xet_progress_reporting")
        drawn = module.XetUploadProgressReporter
    except (ImportError, AttributeError):
        yield
        return
    module.XetUploadProgressReporter = lambda *_, **__: _XetCounter(progress)
    try:
        yield
    finally:
        module.XetUploadProgressReporter = drawn


class _XetCounter:
    """Replaces the client's bars of an upload through Xet."""

    def __init__(self, progress: Advance | None) -> None:
        self._progress = progress
        self._done = 0

    def update_progress(self, group: Any, _items: Any = None) -> None:
        """Called from a thread of Xet with the state of the whole upload, even without progress."""
        step = max(0, int(group.total_bytes_completed) - self._done)
        self._done += step
        if step:
            waits.moved()
        if self._progress:
            self._progress(step)

    def close(self) -> None:
        """Called when the upload has ended."""


class _CountedFile(io.BufferedReader):
    """A file that reports how far it was read. Bytes that are read again are not counted again."""

    def __init__(self, raw: Any, progress: Advance) -> None:
        super().__init__(raw)
        self._progress = progress
        self._furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        position = self.tell()
        if position > self._furthest:
            self._progress(position - self._furthest)
            self._furthest = position
            waits.moved()
        return data
