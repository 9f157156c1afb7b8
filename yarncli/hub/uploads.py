"""What is sent to the Hub: files with their hashes, compared and counted, and copies within it."""

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
    """A file of a commit; `sha256` is None for files that lie in git itself."""

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
    """Its bytes, or the file they lie in."""
    size: int
    """In bytes."""
    sha256: str | None = field(default=None)
    """In hex; None until somebody needed it."""

    @classmethod
    def of(cls, name: str, content: Path | bytes) -> Upload:
        """The upload of a file, not read yet, or of bytes.

        Raises:
            CheckpointError: the file cannot be read.
        """
        if isinstance(content, bytes):
            return cls(name=name, content=content, size=len(content))
        with _readable(content):
            return cls(name=name, content=content, size=content.stat().st_size)

    def equals(self, remote: RemoteFile, progress: Advance | None = None) -> bool:
        """Whether the Hub's file holds the same bytes; reads the local one if the sizes agree.

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
        """Its SHA-256, which is computed where nobody has done so.

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
    """What it is: its size and hashes."""

    def equals(self, remote: RemoteFile) -> bool:
        """Whether the Hub's file holds the same bytes."""
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
    """The client's operation for an upload, which tells how much of it was sent.

    Raises:
        CheckpointError: the file cannot be read any more.
    """
    from huggingface_hub import CommitOperationAdd

    class Addition(CommitOperationAdd):
        @contextmanager
        def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
            with upload.open() as file:
                # The client asks for a bar where it sends, and only there.
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
    """Let Xet read fewer files at once where they are large, as it holds up to 64 MB of each.

    Large files fill the line one by one; many small ones would each wait for answers. What the
    environment says already stays. Counts for a session of Xet that is made within the block.
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
    """Hide the client's own bars, and let `progress` hear what goes through Xet.

    What goes the other way is counted by `add_operation`.
    """
    if not uses_xet():
        with _hidden_bars():
            yield
        return
    with _counted_xet(progress), waits.at_work():
        yield


@contextmanager
def _hidden_bars() -> Iterator[None]:
    """No bars, unless HF_HUB_DISABLE_PROGRESS_BARS, which wins, says something."""
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
    """Count where the client would draw.

    It draws bars for Xet on any stderr, a file too, and offers no other way to count. With
    HF_HUB_DISABLE_PROGRESS_BARS=1 it makes no bars, so nothing is counted. A client that has moved
    this private class draws its own.
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
    """Stands in for the client's bars of an upload through Xet."""

    def __init__(self, progress: Advance | None) -> None:
        self._progress = progress
        self._done = 0

    def update_progress(self, group: Any, _items: Any = None) -> None:
        """Called with the state of the whole upload, from a thread of Xet, in a standstill too."""
        step = max(0, int(group.total_bytes_completed) - self._done)
        self._done += step
        if step:
            waits.moved()
        if self._progress:
            self._progress(step)

    def close(self) -> None:
        """The upload has ended."""


class _CountedFile(io.BufferedReader):
    """A file that tells how far it was read; what is read again is not counted again."""

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
