"""What a user may write for a source on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from yarncli.errors import CheckpointError, UsageError

_REPO_ID = r"(?:[A-Za-z0-9_][\w.-]{0,95}/)?[A-Za-z0-9_][\w.-]{0,95}"
_HUB_SOURCE = re.compile(rf"hf://({_REPO_ID})(?:@([^@\s]{{1,255}}))?", re.ASCII)
_BARE_ID = re.compile(rf"({_REPO_ID})(?:@([^@\s]{{1,255}}))?", re.ASCII)


def hub_source(source: str) -> tuple[str, str | None] | None:
    """`(repo_id, revision)` of `hf://org/name[@revision]`; None for anything without `hf://`.

    Raises:
        UsageError: it begins so and is no Hub id.
    """
    if not source.startswith("hf://"):
        return None
    match = _HUB_SOURCE.fullmatch(source)
    if not match:
        raise UsageError(f"{source!r} is not a Hub id. Write hf://org/name or hf://org/name@rev.")
    return match[1], match[2]


def bare_hub_source(source: str, *, allowed: bool) -> tuple[str, str | None]:
    """`(repo_id, revision)` of a source that is no path here, as in `org/name[@revision]`.

    Args:
        source: as the user wrote it.
        allowed: whether a bare id may mean the Hub at all.

    Raises:
        CheckpointError: it is none, or a directory `org/` exists here.
        UsageError: it is a web address.
    """
    if re.match(r"https?://", source):
        raise UsageError(
            f"{source!r} is a web address. For a model of the Hub write hf://org/name."
        )
    match = _BARE_ID.fullmatch(source)
    if match and "/" in match[1]:
        if Path(match[1].partition("/")[0]).is_dir():
            raise CheckpointError(
                f"There is no {source} here. For the model of that name on the Hub write "
                f"hf://{source}."
            )
        if allowed:
            return match[1], match[2]
    raise CheckpointError(f"{source} does not exist. For a model of the Hub write hf://org/name.")
