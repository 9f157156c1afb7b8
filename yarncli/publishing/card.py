"""The model card: a new one, or the one that is there with our part put in or renewed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarncli import hub
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.source import Checkpoint
from yarncli.engines.intended import Intended
from yarncli.engines.registry import judge
from yarncli.engines.verdict import EngineView
from yarncli.errors import CheckpointError, HubError
from yarncli.evaluation.report import PasskeyReport
from yarncli.history import Step
from yarncli.hub.cards import body_of, dump_metadata, read_metadata, with_metadata
from yarncli.publishing.record import last_conversion, steps_of
from yarncli.publishing.section import Facts, section
from yarncli.publishing.selection import README

# What a derived model's card takes over from its base's; the rest of that text is about the base.
_INHERITED = (
    "license", "license_name", "license_link", "language", "library_name", "pipeline_tag",
    "tags", "datasets",
)  # fmt: skip
# What a card that came along from the base, and was edited, still says of the base alone.
_OF_THE_BASE = ("base_model", "base_model_relation", "model-index", "new_version")
_OURS = re.compile(r"<!-- yarncli:begin\b.*?<!-- yarncli:end -->\n?", re.DOTALL)


@dataclass(frozen=True)
class Base:
    """The model that a checkpoint was made from: its card with its metadata, its file names."""

    repo_id: str
    commit: str
    card: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()


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
    results: PasskeyReport | None = None
    heatmap: bool = False
    repairs: bool = False


def read_base(repo_id: str, commit: str | None) -> Base:
    """What a card needs to know of the model that a checkpoint was made from.

    Metadata that cannot be read count as none: nobody here can mend that card.

    Raises:
        HubError: the Hub cannot be reached, or does not show the model to this user.
        OutputError: the Hub cache cannot be written.
    """
    with output_errors("the Hub cache"):
        listing = hub.list_files(repo_id, commit)
    card = None
    if README in listing.files or listing.snapshot is not None:
        try:
            path = fetch(repo_id, listing.commit, README)
            card = path.read_text(encoding="utf-8", errors="replace")
        except HubError:
            if listing.snapshot is None:
                raise
    try:
        metadata = read_metadata(card or "", f"{README} of {repo_id}")
    except CheckpointError:
        metadata = {}
    return Base(repo_id, listing.commit, card, metadata, tuple(listing.files))


def base_of(repo_id: str, commit: str | None, notes: list[str]) -> Base:
    """As `read_base`; where the Hub does not show the model, its name alone, which `notes` say."""
    try:
        return read_base(repo_id, commit)
    except HubError as error:
        notes.append(f"The card takes nothing over from the base model. {error}")
        return Base(repo_id, commit or "")


def fetch(repo_id: str, commit: str, name: str) -> Path:
    """A small file of a Hub model, in the Hub cache.

    Raises:
        HubError: it cannot be fetched.
        OutputError: the cache cannot be written.
    """
    with output_errors("the Hub cache"):
        return hub.cached_file(repo_id, commit, name)


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
    ends = "\r\n" if "\r\n" in current else "\n"
    current = current.replace("\r\n", "\n")
    found = _OURS.search(current)
    if found:
        text = current[: found.start()] + part + current[found.end() :]
    else:
        text = current.rstrip() + "\n\n" + part
    if not request.repairs:
        old = read_metadata(current, README)
        stale = [] if found else list(_left_from_base(old, request))
        kept = {key: value for key, value in old.items() if key not in stale}
        new = _metadata(checkpoint, steps, kept, request)
        changes = {k: v for k, v in new.items() if k not in old or old[k] != v}
        text = with_metadata(text, changes, without=stale)
    return text.replace("\n", ends)


def has_our_part(card: str) -> bool:
    """Whether a card has the part that yarncli writes."""
    return _OURS.search(card) is not None


def own_words(card: str) -> list[str]:
    """The words of a card without its metadata and without our part."""
    return body_of(_OURS.sub("", card)).split()


def _left_from_base(old: Mapping[str, Any], request: CardRequest) -> Iterator[str]:
    """Keys that an edited copy of the base's card still holds, with what they say of the base."""
    if request.base is not None and request.base.repo_id != request.name:
        said = request.base.metadata
        yield from (k for k in _OF_THE_BASE if k in old and old[k] == said.get(k))


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
    inherited = base.metadata if base is not None else {}
    found = {key: inherited[key] for key in _INHERITED if key in inherited} | dict(old)
    if request.licence:
        found["license"] = request.licence
    if base is not None and base.repo_id != request.name:
        found.setdefault("base_model", base.repo_id)
        if found["base_model"] == base.repo_id:
            found.setdefault("base_model_relation", "finetune")
    if task := _task_of(checkpoint):
        found.setdefault("pipeline_tag", task)
    found.setdefault("library_name", "transformers")
    done = last_conversion(steps)
    ours = [*([done.method] if done else []), "rope-scaling", "long-context", "yarncli"]
    tags = _list(found.get("tags"))
    found["tags"] = [*tags, *(tag for tag in ours if tag not in tags)]
    if request.results is not None:
        found["model-index"] = _model_index(request.name, request.results, old.get("model-index"))
    return found


def _task_of(checkpoint: Checkpoint) -> str | None:
    """The Hub's name for what the model does; None where its class does not tell."""
    config = checkpoint.config().value
    classes = config.get("architectures")
    architecture = str(classes[0]) if isinstance(classes, list) and classes else ""
    if architecture.endswith("ForCausalLM"):
        return "text-generation"
    sees = "vision_config" in config and "audio_config" not in config
    if architecture.endswith("ForConditionalGeneration") and sees:
        return "image-text-to-text"
    return None


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]


def _model_index(name: str, report: PasskeyReport, old: Any) -> list[dict[str, Any]]:
    """Passkey results of the checkpoint itself as the Hub reads them; other results stay."""
    kept = [entry for entry in _list(old) if isinstance(entry, dict)]
    first = kept[0] if kept else {"name": name.rpartition("/")[2]}
    others = [result for result in _list(first.get("results")) if not _is_passkey(result)]
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


def _is_passkey(result: Any) -> bool:
    dataset = result.get("dataset") if isinstance(result, dict) else None
    return isinstance(dataset, dict) and dataset.get("type") == "passkey"
