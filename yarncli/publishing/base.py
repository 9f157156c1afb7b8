"""The base model of a checkpoint, as its card on the Hub describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarncli import hub
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError, HubError, NotOnHubError
from yarncli.hub.cards import read_metadata
from yarncli.hub.reading import Listing
from yarncli.publishing.selection import README

MAX_CARD_SIZE = 1 << 20  # bytes; no card is as large, and a stranger's card is read whole


@dataclass(frozen=True, kw_only=True)
class Base:
    """The model that a checkpoint was made from: its base."""

    repo_id: str
    """Its Hub id."""
    stated: bool = False
    """Whether the user named it with `--base-model`; then it wins over the card."""
    commit: str
    """Full commit hash; empty if the Hub does not show the model and no record names it."""
    card: str | None = None
    """The text of its README.md; None if it has none or cannot be read."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """The YAML block at the top of the card; empty if there is none or it cannot be read."""
    files: tuple[str, ...] = ()
    """Names of its files; empty if the Hub does not show them."""


def base_of(repo_id: str, commit: str | None, notes: list[str], *, stated: bool = False) -> Base:
    """Fetch what a card needs from the base model.

    If the Hub does not show the model to this user, only its name is known, and `notes` says so.
    Metadata that cannot be read count as missing, because this user cannot repair that card.

    Args:
        repo_id: `org/name`.
        commit: the commit it was made from; None takes the newest.
        notes: gets a sentence if nothing can be taken over.
        stated: whether the user named it with `--base-model`.

    Raises:
        NotOnHubError: the user named a model that is not there.
        OutputError: the Hub cache cannot be written.
    """
    try:
        with output_errors("the Hub cache"):
            listing = hub.list_files(repo_id, commit)
        card = _card_of(repo_id, listing)
    except (HubError, CheckpointError) as error:
        if stated and isinstance(error, NotOnHubError):
            raise
        notes.append(f"The card takes over nothing from the base model. {error}")
        return Base(repo_id=repo_id, stated=stated, commit=commit or "")
    try:
        metadata = read_metadata(card or "", f"{README} of {repo_id}")
    except CheckpointError:
        metadata = {}
    return Base(
        repo_id=repo_id, stated=stated, commit=listing.commit,
        card=card, metadata=metadata, files=tuple(listing.files),
    )  # fmt: skip


def _card_of(repo_id: str, listing: Listing) -> str | None:
    """The model's README.md; None if there is none, offline also if the cache has none."""
    if README not in listing.files and listing.snapshot is None:
        return None
    try:
        path = fetch(repo_id, listing.commit, README)
    except HubError:
        if listing.snapshot is None:
            raise
        return None
    return card_text(path, f"{README} of {repo_id}")


def card_text(path: Path, where: str) -> str:
    """The text of a card that was fetched from the Hub.

    Raises:
        CheckpointError: it is larger than `MAX_CARD_SIZE`.
    """
    with path.open("rb") as file:
        data = file.read(MAX_CARD_SIZE + 1)
    if len(data) > MAX_CARD_SIZE:
        raise CheckpointError(
            f"{where} has more than {MAX_CARD_SIZE:,} bytes, too many for a model card."
        )
    return data.decode(errors="replace")


def fetch(repo_id: str, commit: str, name: str) -> Path:
    """Fetch a small file of a Hub model into the Hub cache.

    Raises:
        HubError: it cannot be fetched.
        OutputError: the cache cannot be written.
    """
    with output_errors("the Hub cache"):
        return hub.cached_file(repo_id, commit, name)


def local_card(checkpoint: Checkpoint) -> str | None:
    """The text of README.md; None if there is none.

    Raises:
        CheckpointError: it cannot be read, or is not UTF-8.
    """
    if checkpoint.file(README) is None:
        return None
    try:
        return checkpoint.read_bytes(README, MAX_CARD_SIZE).decode()
    except UnicodeDecodeError:
        raise CheckpointError(
            f"{checkpoint.where(README)} is not UTF-8 text. Save it as UTF-8."
        ) from None
