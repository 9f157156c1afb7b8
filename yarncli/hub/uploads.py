"""What is sent to the Hub: files with their hashes, compared and counted, and copies within it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20

Progress = Callable[[int], None] | None


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


@dataclass
class Upload:
    """One file to send: its name in the repository, and its bytes or where they lie."""

    name: str
    content: Path | bytes
    size: int
    sha256: str | None = field(default=None)

    @classmethod
    def of(cls, name: str, content: Path | bytes) -> Upload:
        """The upload of a file, not read yet, or of bytes."""
        size = content.stat().st_size if isinstance(content, Path) else len(content)
        return cls(name, content, size)

    def equals(self, remote: RemoteFile, progress: Progress = None) -> bool:
        """Whether the Hub's file holds the same bytes; reads the local one if the sizes agree."""
        if remote.size != self.size:
            return False
        if remote.sha256 is None:
            start = b"blob %d\0" % self.size
            return self._digest(hashlib.sha1(start), progress) == remote.git_oid
        if self.sha256 is None:
            self.sha256 = self._digest(hashlib.sha256(), progress)
        return self.sha256 == remote.sha256

    def _digest(self, digest: Any, progress: Progress) -> str:
        with self.open() as file:
            while block := file.read(_BLOCK):
                digest.update(block)
                if progress:
                    progress(len(block))
        return str(digest.hexdigest())

    def open(self) -> io.BufferedIOBase:
        """The content, for reading."""
        return (
            io.BytesIO(self.content) if isinstance(self.content, bytes) else self.content.open("rb")
        )


@dataclass(frozen=True, slots=True)
class Copy:
    """A file to copy inside the Hub, from another repository at a commit; `file` is what it is."""

    name: str
    repo_id: str
    commit: str
    file: RemoteFile

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


def add_operation(upload: Upload, progress: Progress) -> Any:
    """The client's operation for an upload, which tells how much of it was sent."""
    from huggingface_hub import CommitOperationAdd

    class Addition(CommitOperationAdd):
        @contextmanager
        def as_file(self, with_tqdm: bool = False) -> Iterator[Any]:
            if not with_tqdm or not progress:
                with super().as_file() as file:
                    yield file
                return
            with upload.open() as raw, _CountedFile(raw, progress) as file:
                yield file

    operation = Addition(upload.name, upload.content)
    if upload.sha256 is not None:
        operation.upload_info.sha256 = bytes.fromhex(upload.sha256)
    return operation


class _CountedFile(io.BufferedReader):
    """A file that tells how far it was read; what is read again is not counted again."""

    def __init__(self, raw: Any, progress: Callable[[int], None]) -> None:
        super().__init__(raw)
        self._progress = progress
        self._furthest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        position = self.tell()
        if position > self._furthest:
            self._progress(position - self._furthest)
            self._furthest = position
        return data
