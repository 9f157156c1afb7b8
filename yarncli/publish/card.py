"""The model card: a new one, or the one that is there with our part put in or renewed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yarncli import hub
from yarncli.checkpoint.provenance import Step, read_provenance
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError, HubError
from yarncli.evaluate.report import Report
from yarncli.hub.cards import body_of, dump_metadata, read_metadata, with_metadata
from yarncli.publish.section import Facts, last_plan, section
from yarncli.publish.selection import README
from yarncli.rope.engines.intended import Intended
from yarncli.rope.engines.registry import judge
from yarncli.rope.engines.view import EngineView

# What a derived model's card takes over from its base's; the rest of that text is about the base.
_INHERITED = (
    "license", "license_name", "license_link", "language", "library_name", "pipeline_tag",
    "tags", "datasets",
)  # fmt: skip
_OURS = re.compile(r"<!-- yarncli:begin\b.*?<!-- yarncli:end -->\n?", re.DOTALL)
_PIPELINES = {
    "ForCausalLM": "text-generation",
    "ForConditionalGeneration": "image-text-to-text",
}


@dataclass(frozen=True)
class Base:
    """The model that a checkpoint was made from; its card and licence files, if it has them."""

    repo_id: str
    commit: str
    card: str | None
    files: tuple[str, ...]


@dataclass(frozen=True)
class CardRequest:
    """What a card is made of besides the checkpoint.

    Attributes:
        name: the Hub id it is for, or the directory.
        base: of the checkpoint, if it is on the Hub.
        licence: stated by the user.
        results: passkey results.
        heatmap: whether their figure goes with the card.
        repairs: whether the card belongs to a model that is only mended: its metadata stay.
    """

    name: str
    base: Base | None = None
    licence: str | None = None
    results: Report | None = None
    heatmap: bool = False
    repairs: bool = False


def steps_of(checkpoint: Checkpoint) -> tuple[Step, ...]:
    """What yarncli.json records, oldest first; empty without one.

    Raises:
        CheckpointError: the file is damaged.
    """
    history = read_provenance(checkpoint)
    return history.steps if history else ()


def read_base(repo_id: str, commit: str | None) -> Base:
    """What a card needs to know of the model that a checkpoint was made from.

    Raises:
        HubError: the Hub cannot be reached, or does not show the model to this user.
    """
    listing = hub.list_files(repo_id, commit)
    card = None
    if README in listing.files or listing.snapshot is not None:
        try:
            path = hub.cached_file(repo_id, listing.commit, README)
            card = path.read_text(encoding="utf-8", errors="replace")
        except HubError:
            if listing.snapshot is None:
                raise
    return Base(repo_id, listing.commit, card, tuple(listing.files))


def local_card(checkpoint: Checkpoint) -> str | None:
    """The text of README.md, None if there is none.

    Raises:
        CheckpointError: it cannot be read, or is not UTF-8.
    """
    if checkpoint.file(README) is None:
        return None
    try:
        return checkpoint.read_bytes(README).decode()
    except UnicodeDecodeError:
        raise CheckpointError(
            f"{checkpoint.where(README)} is not UTF-8 text. Save it as UTF-8."
        ) from None


def make_card(checkpoint: Checkpoint, current: str | None, request: CardRequest) -> str:
    """The card of a checkpoint.

    Args:
        checkpoint: what it is about.
        current: the card to put our part into; None, and the unchanged card of the base, which
            `convert` carries along, give a new one.
        request: what else it is made of.

    Raises:
        CheckpointError: the metadata of a card cannot be read, or the checkpoint is damaged.
    """
    steps = steps_of(checkpoint)
    engines, intended = _engines(checkpoint, steps, request.name)
    part = section(Facts(request.name, steps, engines, request.results, request.heatmap, intended))
    base = request.base
    if base is not None and current is not None and _is_same(current, base.card):
        current = None
    if current is None:
        title = request.name.rpartition("/")[2]
        metadata = _metadata(checkpoint, steps, {}, request)
        return f"---\n{dump_metadata(metadata)}---\n\n# {title}\n\n{part}"
    old = read_metadata(current, README)
    found = _OURS.search(current)
    if found:
        text = current[: found.start()] + part + current[found.end() :]
    else:
        text = current.rstrip() + "\n\n" + part
    if request.repairs:
        return text
    new = _metadata(checkpoint, steps, old, request)
    return with_metadata(text, {k: v for k, v in new.items() if old.get(k) != v})


def own_words(card: str) -> list[str]:
    """The words of a card without its metadata and without our part."""
    return body_of(_OURS.sub("", card)).split()


def _is_same(card: str, other: str | None) -> bool:
    return other is not None and card.split() == other.split()


def _engines(
    checkpoint: Checkpoint, steps: tuple[Step, ...], name: str
) -> tuple[list[EngineView], str]:
    config = checkpoint.config().value
    try:
        meant = Intended.by_record(config, steps)
        return judge(config, meant, source=name), meant.origin if meant else "transformers 5"
    except CheckpointError:  # a model type that is not known; `check` has said so
        return [], ""


def _metadata(
    checkpoint: Checkpoint,
    steps: tuple[Step, ...],
    old: Mapping[str, Any],
    request: CardRequest,
) -> dict[str, Any]:
    """The metadata of the card: `old` wins, save for tags and results, which are joined."""
    base = request.base
    inherited: dict[str, Any] = {}
    if base is not None and base.card is not None:
        inherited = read_metadata(base.card, f"{README} of {base.repo_id}")
    found = {key: inherited[key] for key in _INHERITED if key in inherited} | dict(old)
    if request.licence:
        found["license"] = request.licence
    if base is not None and base.repo_id != request.name:
        found.setdefault("base_model", base.repo_id)
        if found["base_model"] == base.repo_id:
            found.setdefault("base_model_relation", "finetune")
    architecture = str((checkpoint.config().value.get("architectures") or [""])[0])
    for ending, task in _PIPELINES.items():
        if architecture.endswith(ending):
            found.setdefault("pipeline_tag", task)
    found.setdefault("library_name", "transformers")
    method = last_plan(steps).get("method")
    tags = [*([str(method)] if method else []), "rope-scaling", "long-context", "yarncli"]
    found["tags"] = list(dict.fromkeys([*_list(found.get("tags")), *tags]))
    if request.results is not None:
        found["model-index"] = _model_index(request.name, request.results, old.get("model-index"))
    return found


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _model_index(name: str, report: Report, old: Any) -> list[dict[str, Any]]:
    """Passkey results of the checkpoint itself as the Hub reads them; other results stay."""
    kept = [entry for entry in _list(old) if isinstance(entry, dict)]
    first = kept[0] if kept else {"name": name.rpartition("/")[2]}
    others = [
        result
        for result in _list(first.get("results"))
        if not (isinstance(result, dict) and (result.get("dataset") or {}).get("type") == "passkey")
    ]
    results = [
        {
            "task": {"type": "text-generation", "name": "Text Generation"},
            "dataset": {
                "type": "passkey",
                "name": f"Passkey retrieval, {row.length:,} tokens",
                "args": {"context_length": row.length, "prompts": row.trials},
            },
            "metrics": [{"type": "accuracy", "name": "Accuracy", "value": round(row.accuracy, 4)}],
        }
        for row in report.lengths(next(iter(report.cells)))
    ]
    return [{**first, "results": [*others, *results]}, *kept[1:]]
