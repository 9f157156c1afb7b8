"""The cache of the Hub's client on the disk: whose a directory is, and where its links may lead.

The client's layout is recognised by what lies there, wherever the cache is and whichever client
filled it: `CACHE/models--ORG--NAME/snapshots/COMMIT/FILE` is a link to `../../blobs/ETAG`, and what
came through Xet (clients from 1.32 on) a link from there to `CACHE/blobs/XX/HASH`.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{64}")
_SHARED_MARKER = ".huggingface-shared-blobs"  # what tells the client that the store is its own


def identify_snapshot(directory: Path) -> tuple[str, str] | None:
    """`(repo_id, commit)` of a Hub cache's snapshot directory (its real path); else None."""
    if _snapshot_of(directory) != directory or not COMMIT.fullmatch(directory.name):
        return None
    name = directory.parent.parent.name
    return name.removeprefix("models--").replace("--", "/"), directory.name


def is_blob_of(directory: Path, target: Path) -> bool:
    """Whether a link in a directory may lead to `target` because the Hub's client made it so.

    Args:
        directory: a snapshot directory of a Hub cache, or one inside it; for any other the answer
            is no. Its real path.
        target: the real path of what the link leads to.
    """
    snapshot = _snapshot_of(directory)
    if snapshot is None:
        return False
    repo = snapshot.parent.parent
    return target.is_relative_to(repo / "blobs") or _shared_store(target) == repo.parent / "blobs"


def in_cache(path: Path) -> bool:
    """Whether a file or directory (its real path) belongs to a Hub cache."""
    return _shared_store(path) is not None or any(
        place.name in {"blobs", "snapshots"} and place.parent.name.startswith("models--")
        for place in path.parents
    )


def removed(path: Path) -> str:
    """Remove a file that the Hub has otherwise: the client would take it from the cache again.

    What is left is a link to nothing, which the client replaces.

    Returns:
        What the user has to do next.
    """
    try:
        path.resolve().unlink()
    except OSError:
        return f"Delete {path.resolve()} and run again."
    return "It has been removed from the Hub cache. Run again to fetch it anew."


def _snapshot_of(directory: Path) -> Path | None:
    """The snapshot directory that a directory is, or lies in."""
    for place in (directory, *directory.parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            return place
    return None


def _shared_store(blob: Path) -> Path | None:
    """The store of a cache that a file is a shared blob of."""
    prefix, store = blob.parent, blob.parent.parent
    if not _HASH.fullmatch(blob.name) or prefix.name != blob.name[:2]:
        return None
    try:
        marked = stat.S_ISREG((store / _SHARED_MARKER).lstat().st_mode)
    except OSError:
        return None
    return store if marked else None
