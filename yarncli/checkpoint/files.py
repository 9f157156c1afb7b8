"""The files of a local checkpoint: what each is, and which cannot be carried over."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from yarncli import hub
from yarncli.checkpoint.directory import is_temporary
from yarncli.checkpoint.system import open_to_read
from yarncli.errors import CheckpointError

Kind = Literal["config", "index", "shard", "weights", "other"]

# Weights in formats that are carried over but not read.
_OTHER_WEIGHTS = re.compile(
    r"\.(bin|pt|pth|pkl|pickle|ckpt|h5|msgpack|gguf|onnx|onnx_data|npz|tflite|ot)$"
)
_SKIPPED_DIRECTORIES = {".git", ".cache", "__pycache__"}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """One file of a checkpoint."""

    name: str
    """POSIX path, relative to the checkpoint."""
    size: int
    """In bytes; of a link, the size of its target."""
    kind: Kind
    """"shard" is safetensors, "weights" weights of any other format, "index" a weight index."""
    modified: int = 0
    """When it was last written, in nanoseconds since 1970; 0 on the Hub, where files stay."""
    digest: hub.Digest | None = None
    """The hash that it must have; None where none is known, as in the user's own directories."""
    problem: str = ""
    """Why it cannot be carried over ("is a link to …"); empty for nearly all files."""

    @property
    def is_weights(self) -> bool:
        """Whether it holds weights or says where they are: what `--config-only` leaves out."""
        return self.kind in {"shard", "weights", "index"}


def walk_files(root: Path) -> Iterator[SourceFile]:
    """Every file below `root` (a real path) but version control and download caches.

    Raises:
        OSError: a directory cannot be read.
    """

    def fail(error: OSError) -> None:
        raise error

    for directory, subdirectories, names in os.walk(root, onerror=fail):
        links = [name for name in subdirectories if Path(directory, name).is_symlink()]
        subdirectories[:] = sorted(set(subdirectories) - _SKIPPED_DIRECTORIES - set(links))
        subdirectories[:] = [name for name in subdirectories if not is_temporary(name)]
        for name in names + links:
            if is_temporary(name):
                continue
            path = Path(directory, name)
            yield _describe(path, path.relative_to(root).as_posix(), root)


def _describe(path: Path, name: str, root: Path) -> SourceFile:
    is_link, kind = path.is_symlink(), kind_of(name)
    try:
        info = path.stat()
    except OSError:
        problem = "is a broken link" if is_link else "cannot be read"
        return SourceFile(name=name, size=0, kind=kind, problem=problem)
    if not stat.S_ISREG(info.st_mode):
        what = "is a link to something that is no regular file"
        problem = what if is_link else "is not a regular file"
        return SourceFile(name=name, size=0, kind=kind, problem=problem)
    if is_link and not _is_own(root, path.resolve()):
        problem = f"is a link to {path.resolve()}, outside the checkpoint"
        return SourceFile(name=name, size=info.st_size, kind=kind, problem=problem)
    digest = hub.digest_of_blob(path) if is_link else None
    return SourceFile(
        name=name, size=info.st_size, kind=kind, modified=info.st_mtime_ns, digest=digest
    )


def _is_own(root: Path, target: Path) -> bool:
    """Whether a link of the checkpoint at `root` may lead to `target`; both are real paths."""
    return target.is_relative_to(root) or hub.is_blob_of(root, target)


def read_file(path: Path, limit: int, where: str | None = None) -> bytes:
    """The content of a regular file, at most `limit` bytes; a pipe or a device is never waited for.

    Args:
        path: the file; a link is followed.
        limit: how large it may be, in bytes.
        where: what to call it in messages; its path by default.

    Raises:
        CheckpointError: it cannot be read, is no regular file, or is larger.
    """
    where = where or str(path)
    try:
        descriptor = open_to_read(path, wait=False)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise CheckpointError(f"{where} is not a regular file.")
            data = file.read(min(info.st_size, limit) + 1)  # the reader takes that much memory
    except OSError as error:
        raise CheckpointError(f"{where} cannot be read: {error.strerror}.") from error
    if len(data) > limit:
        raise CheckpointError(f"{where} has more than the allowed {limit:,} bytes.")
    return data


def beginning_of(path: Path) -> bytes:
    """The first 16 bytes of a file, fewer of a shorter one; none if it cannot be read."""
    try:
        with os.fdopen(open_to_read(path, wait=False), "rb") as file:
            return file.read(16)
    except OSError:  # whoever reads the whole file reports the error
        return b""


def kind_of(name: str) -> Kind:
    """What a file is, by its name."""
    if name == "config.json":
        return "config"
    if name.endswith(".safetensors"):
        return "shard"
    if name.endswith((".safetensors.index.json", ".bin.index.json")):
        return "index"
    return "weights" if _OTHER_WEIGHTS.search(name) else "other"
