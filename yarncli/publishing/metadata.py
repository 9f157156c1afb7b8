"""The metadata of a card: the YAML block between its first two lines of dashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.evaluation.report import LengthResult
from yarncli.history import History
from yarncli.publishing.base import Base
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.gguf_header import licence_of
from yarncli.publishing.gguf_metadata import RELATION, gguf_metadata, task_of_gguf
from yarncli.publishing.results import Results
from yarncli.publishing.subject import task_of

# Fields that the card takes over from the card of the base. The other fields describe the base.
_INHERITED = ("language", "library_name", "pipeline_tag", "tags", "datasets")
# The fields of the licence. They have a meaning only together.
LICENCE = ("license", "license_name", "license_link")
# Fields that describe only the base. An edited copy of the base's card still has them.
_OF_THE_BASE = ("base_model", "base_model_relation", "model-index", "new_version")


@dataclass(frozen=True)
class CardRequest:
    """What a card is made of in addition to the checkpoint."""

    name: str
    """Name of the model: its Hub id, or its directory."""

    base: Base | None = None
    """The base model, if it is on the Hub."""

    licence: str | None = None
    """The licence that the user states."""

    results: Results | None = None
    """The measurements."""

    heatmap: bool = False
    """Whether the card shows the figure of the results."""

    repairs: bool = False
    """Whether the model is only repaired; then the metadata stay as they are."""

    rest: Checkpoint | None = None
    """The checkpoint with the weights and other files that this one lacks; None for itself."""


def make_metadata(
    checkpoint: Checkpoint,
    history: History,
    old: Mapping[str, Any],
    request: CardRequest,
) -> dict[str, Any]:
    """Make the metadata of a card. Fields of `old` win; tags and results are merged.

    Args:
        checkpoint: the checkpoint that the card describes.
        history: what was done to it.
        old: the present metadata of the card; empty for a new card.
        request: what the card is made of besides the checkpoint.
    """
    base = request.base
    inherited = base.metadata if base is not None else {}
    own, relation, stated = dict[str, Any](), "finetune", inherited
    if isinstance(checkpoint, GgufRepository):
        own, relation = gguf_metadata(checkpoint, base, old), RELATION
        stated, task = licence_of(checkpoint.model_header) or inherited, task_of_gguf(checkpoint)
    else:
        task = task_of(checkpoint.config().value)
    found = {key: inherited[key] for key in _INHERITED if key in inherited} | own | dict(old)
    licence = _licence(request.licence, old, stated)
    found = licence | {key: value for key, value in found.items() if key not in LICENCE}
    if base is not None and base.repo_id != request.name:
        if base.stated and base.repo_id not in _list(found.get("base_model")):
            found["base_model"] = base.repo_id
        found.setdefault("base_model", base.repo_id)
        if found["base_model"] == base.repo_id:
            found.setdefault("base_model_relation", relation)
    if task:
        found.setdefault("pipeline_tag", task)
    found.setdefault("library_name", "transformers")
    done = history.plan
    ours = [*([done.method] if done else []), "rope-scaling", "long-context", "yarncli"]
    tags = _list(found.get("tags"))
    found["tags"] = [*tags, *(tag for tag in ours if tag not in tags)]
    measured = request.results or Results()
    if measured.report and measured.setting is not None:
        rows = measured.report.lengths(measured.setting)
        if rows:
            found["model-index"] = _model_index(request.name, rows, old.get("model-index"))
    return found


def _licence(
    stated: str | None, old: Mapping[str, Any], inherited: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of the licence, all from one source: the user, this card, or the base's card.

    The id `other` means a licence only together with a name and a link. If the user states `other`,
    these two come from a card that states `other` as well.
    """
    groups = [{k: card[k] for k in LICENCE if card.get(k)} for card in (old, inherited)]
    if stated:
        same = (group for group in groups if group.get("license") == stated == "other")
        return next(same, {"license": stated})
    return next(filter(None, groups), {})


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _model_index(name: str, rows: Sequence[LengthResult], old: Any) -> list[dict[str, Any]]:
    """The checkpoint's own passkey results in the form that the Hub reads; other results stay.

    The Hub client distinguishes results by task and by type, config, split and revision of the
    dataset, so each length gets its own dataset config.
    """
    kept = [entry for entry in _list(old) if isinstance(entry, dict)]
    first = kept[0] if kept else {"name": name.rpartition("/")[2]}
    others = [result for result in _list(first.get("results")) if not _is_passkey(result)]
    results = [
        {
            "task": {"type": "text-generation", "name": "Text Generation"},
            "dataset": {
                "type": "passkey",
                "config": str(row.length),
                "name": f"Passkey retrieval, {row.length:,} tokens",
                "args": {"context_length": row.length, "prompts": row.trials},
            },
            "metrics": [{"type": "accuracy", "name": "Accuracy", "value": round(row.accuracy, 4)}],
        }
        for row in rows
    ]
    return [{**first, "results": [*others, *results]}, *kept[1:]]


def _is_passkey(result: Any) -> bool:
    dataset = result.get("dataset") if isinstance(result, dict) else None
    return isinstance(dataset, dict) and dataset.get("type") == "passkey"


def left_from_base(old: Mapping[str, Any], request: CardRequest) -> Iterator[str]:
    """Keys in an edited copy of the base's card whose values still describe the base."""
    if request.base is not None and request.base.repo_id != request.name:
        said = request.base.metadata
        yield from (k for k in _OF_THE_BASE if k in old and old[k] == said.get(k))
