"""The branch after a push of GGUF files: whether they fit the files that stay there."""

from __future__ import annotations

from collections.abc import Iterator, Set

from yarncli.checkpoint.files import kind_of
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.contents import is_same_model, read_contents
from yarncli.gguf.detection import ENDING
from yarncli.gguf.facts import Gguf
from yarncli.gguf.runtime import run
from yarncli.gguf.source import open_gguf, why_no_model
from yarncli.hub.writing import Remote
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.preflight import finding
from yarncli.rules.finding import Finding

# Number of headers that are fetched; each may have 10 MB.
_MOST = 8


def find_gguf_misfits(
    repository: GgufRepository, start: Remote, sent: Set[str], deleted: tuple[str, ...]
) -> Iterator[Finding]:
    """Everything that would not fit on a branch after a push of GGUF files.

    Args:
        repository: the files to push.
        start: the present branch.
        sent: names of the files that the commit adds or replaces.
        deleted: names of the files that the commit deletes.

    Raises:
        HubError: a header cannot be fetched.
    """
    there = [name for name in sorted(start.files) if name.endswith(ENDING)]
    library = next((f for f in sorted(start.files) if _is_of_transformers(f)), None)
    if library and not there:
        yield finding(
            "other-library", start.repo_id,
            f"{start.repo_id} is a repository for another library ({library}), but "
            f"{repository.name} consists of GGUF files.",
        )  # fmt: skip
        return
    mine = repository.models[0].gguf
    stay = [name for name in there if name not in sent and name not in deleted]
    for name in (stay or there)[:_MOST]:
        theirs = _read(start, name)
        if theirs is None:
            continue
        if not is_same_model(mine, theirs):
            told = f"{start.repo_id} holds another model ({name}) than {repository.name}."
            yield finding("other-model", start.repo_id, told)
            return
        if name in stay and run(mine) != run(theirs):
            told = (
                f"{name} of {start.repo_id} stays, but is scaled differently from "
                f"{repository.name}."
            )
            yield finding("gguf-scaled-apart", start.repo_id, told)
            return
    if stay[_MOST:]:
        told = f"{len(stay) - _MOST} GGUF files of {start.repo_id} stay and were not checked."
        yield finding("gguf-scaled-apart", start.repo_id, told, severity="warning")


def _is_of_transformers(name: str) -> bool:
    return name == "config.json" or (kind_of(name) in ("shard", "weights") and "/" not in name)


def _read(start: Remote, name: str) -> Gguf | None:
    """A model on the branch; None for a later file of one, a projector, or a damaged file."""
    try:
        file = open_gguf(f"hf://{start.repo_id}@{start.commit}/{name}")
        return None if why_no_model(file) else read_contents(file)
    except (CheckpointError, UsageError):
        return None
