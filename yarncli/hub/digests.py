"""The hashes with which the Hub lists its files, and the check of a file against them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.errors import HubError
from yarncli.hub.cache import removed

_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Digest:
    """The hash that a file from the Hub must have."""

    file: str
    """Name of the file in messages."""
    value: str
    """SHA-256 of the content, or SHA-1 of its git blob, in hexadecimal."""
    listed: bool
    """Whether the Hub gave the hash in this run; False if it comes from a name in the cache."""

    def start(self, size: int) -> Any:
        """A hashlib object to which the content is to be fed.

        Args:
            size: size of the file, in bytes.
        """
        if _SHA256.fullmatch(self.value):
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def require(self, path: Path, found: Any) -> None:
        """Refuse a file with another hash. If the Hub listed the hash, the cached file is removed.

        Otherwise the client would use the damaged file again.

        Args:
            path: path of the file, or of a link to it.
            found: the object from `start`, after it got the whole content.

        Raises:
            HubError: the hash differs.
        """
        if found.hexdigest() == self.value:
            return
        kind = "SHA-256" if found.name == "sha256" else "git hash"
        what_next = removed(path) if self.listed else f"Delete {path.resolve()} and fetch it again."
        raise HubError(
            f"{self.file} is damaged: its {kind} is {found.hexdigest()}, but on the Hub it is "
            f"{self.value}. {what_next}"
        )

    def require_of(self, path: Path, data: bytes) -> None:
        """`require` for the whole content of a file."""
        found = self.start(len(data))
        found.update(data)
        self.require(path, found)


def digest_of_blob(path: Path) -> Digest | None:
    """The SHA-256 in the name of a link's target in a Hub cache; None for anything else.

    Files in git have their git hash as name there, or a name that a mirror of the Hub chose.
    """
    try:
        target = path.readlink()
    except OSError:
        return None
    if target.parent.name != "blobs" or not _SHA256.fullmatch(target.name):
        return None
    return Digest(file=str(path), value=target.name, listed=False)
