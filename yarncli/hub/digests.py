"""The hashes by which the Hub lists its files, and what is said of a file that has another."""

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
    """The hash that a file of the Hub must have."""

    file: str
    """What messages call the file."""
    value: str
    """SHA-256 of the content, or the SHA-1 of its git blob; in hexadecimal."""
    listed: bool
    """Whether the Hub itself said so in this run, and not only the name in its cache."""

    def start(self, size: int) -> Any:
        """A hash object of hashlib that takes the content.

        Args:
            size: of the file, in bytes.
        """
        if _SHA256.fullmatch(self.value):
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)

    def require(self, path: Path, found: Any) -> None:
        """Insist on the hash; a file of the cache that the Hub lists otherwise is removed.

        The client would take it from there the next time.

        Args:
            path: of the file; of a link, what it leads to is the file.
            found: what `start` gave, after the whole content.

        Raises:
            HubError: it is another.
        """
        if found.hexdigest() == self.value:
            return
        kind = "SHA-256" if found.name == "sha256" else "git hash"
        what_next = removed(path) if self.listed else f"Delete {path.resolve()} and fetch it again."
        raise HubError(
            f"{self.file} is damaged: its {kind} is {found.hexdigest()}, but the Hub's is "
            f"{self.value}. {what_next}"
        )

    def require_of(self, path: Path, data: bytes) -> None:
        """`require` for the whole content of a file."""
        found = self.start(len(data))
        found.update(data)
        self.require(path, found)


def digest_of_blob(path: Path) -> Digest | None:
    """The SHA-256 that a link into a Hub cache names; None for anything else.

    A file of git has its git hash there, or what a mirror of the Hub put in its place.
    """
    try:
        target = path.readlink()
    except OSError:
        return None
    if target.parent.name != "blobs" or not _SHA256.fullmatch(target.name):
        return None
    return Digest(file=str(path), value=target.name, listed=False)
