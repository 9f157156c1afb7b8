"""The Hub cache on disk: which model a directory belongs to, and where its links may lead.

The layout is recognised by its files, wherever the cache is and whichever version of the client
filled it: `CACHE/models--ORG--NAME/snapshots/COMMIT/FILE` is a link to `../../blobs/ETAG`. For a
file fetched through Xet (clients from 1.32 on), that is again a link to `CACHE/blobs/XX/HASH`.
"""

from __future__ import annotations

import re
import stat
from pathlib import Path

COMMIT = re.compile(r"[0-9a-f]{40}")
_HASH = re.compile(r"[0-9a-f]{64}")
_SHARED_MARKER = ".huggingface-shared-blobs"  # marks a store of shared blobs for the client


def identify_snapshot(directory: Path) -> tuple[str, str] | None:
    """`(repo_id, commit)` of a snapshot directory (real path) in a Hub cache, else None."""
    if _snapshot_of(directory) != directory or not COMMIT.fullmatch(directory.name):
        return None
    name = directory.parent.parent.name
    return name.removeprefix("models--").replace("--", "/"), directory.name


def is_blob_of(directory: Path, target: Path) -> bool:
    """Whether a link in a directory may lead to `target`, because the Hub client makes such links.

    Args:
        directory: real path of a snapshot directory of a Hub cache or of a directory inside one;
            for any other directory the answer is no.
        target: real path of the link's target.
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
    """Remove a cached file that differs from the Hub; otherwise the client would use it again.

    A link without a target is left, which the client replaces.

    Returns:
        A sentence that says what the user has to do next.
    """
    try:
        path.resolve().unlink()
    except OSError:
        return f"Delete {path.resolve()} and run again."
    return "It was removed from the Hub cache. Run again to fetch it again."


def _snapshot_of(directory: Path) -> Path | None:
    """The snapshot directory that a directory is or is inside of."""
    for place in (directory, *directory.parents):
        if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
            return place
    return None


def _shared_store(blob: Path) -> Path | None:
    """The store of shared blobs that holds a file, else None."""
    prefix, store = blob.parent, blob.parent.parent
    if not _HASH.fullmatch(blob.name) or prefix.name != blob.name[:2]:
        return None
    try:
        marked = stat.S_ISREG((store / _SHARED_MARKER).lstat().st_mode)
    except OSError:
        return None
    return store if marked else None
