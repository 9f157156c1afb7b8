"""Fetch a Hub checkpoint into the cache, with a progress bar."""

from __future__ import annotations

from yarncli.checkpoint.source import Checkpoint
from yarncli.cli import console


def fetch(checkpoint: Checkpoint, names: tuple[str, ...] | None = None) -> Checkpoint:
    """The checkpoint with its files (or only `names`) on this machine; itself where it is local.

    Raises:
        HubError: a file cannot be fetched.
        OutputError: the cache cannot be written.
    """
    missing = checkpoint.missing_bytes(names)
    if missing:
        console.note(f"Fetching {console.format_bytes(missing)} into the Hub cache.")
    with console.progress(missing, "Fetching") as advance:
        return checkpoint.download(names, progress=advance)
