"""The branch after a push: whether the sent files fit the files that stay there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from yarncli.checkpoint.files import kind_of
from yarncli.checkpoint.source import MAX_JSON_SIZE
from yarncli.errors import CheckpointError, ConfigError
from yarncli.history import FILE_NAME, NO_HISTORY, History
from yarncli.history.weights import Baked
from yarncli.hub.cards import read_metadata
from yarncli.hub.uploads import Copy, Upload
from yarncli.hub.writing import Remote
from yarncli.jsontext.text import JsonText
from yarncli.publishing.base import card_text, fetch
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.gguf_landing import find_gguf_misfits
from yarncli.publishing.local import LocalModel
from yarncli.publishing.preflight import finding
from yarncli.publishing.selection import CONFIG_FILES, README
from yarncli.rules.finding import Finding

CONFIG = "config.json"
# Fields of a config that fit one set of weights only. A different value means another model.
_SIZES = (
    "model_type", "hidden_size", "n_embd", "d_model", "num_hidden_layers", "n_layer", "num_layers",
    "num_attention_heads", "n_head", "num_key_value_heads", "head_dim", "intermediate_size",
    "vocab_size", "num_experts", "num_local_experts", "n_routed_experts", "kv_lora_rank",
    "q_lora_rank",
)  # fmt: skip
# Files that show that a repository without config.json belongs to another library.
_OF_OTHERS = {
    "model_index.json": "diffusers",
    "adapter_config.json": "PEFT",
    "modules.json": "sentence-transformers",
    "params.json": "another library",
    "mlmodel": "MLflow",
}
_ENDINGS_OF_OTHERS = {".gguf": "llama.cpp", ".onnx": "ONNX", ".nemo": "NeMo", ".keras": "Keras"}
_OURS = ("transformers", "mlx", "vllm", "peft")
_SHOWN = 3


def find_misfits(
    local: LocalModel,
    start: Remote | None,
    files: Iterable[Upload | Copy],
    deleted: tuple[str, ...] = (),
) -> tuple[Finding, ...]:
    """Everything that would not fit on a branch after a push.

    Args:
        local: the model to push.
        start: the present branch; None for a new repository, where everything fits.
        files: the files that the commit adds or replaces.
        deleted: names of the files that the commit deletes.

    Raises:
        HubError: a file of the branch cannot be fetched.
        OutputError: the Hub cache cannot be written.
    """
    if start is None:
        return ()
    sent = {file.name: file for file in files}
    if isinstance(local.checkpoint, GgufRepository):
        return tuple(find_gguf_misfits(local.checkpoint, start, sent.keys(), deleted))
    landing = _Landing(local=local, start=start, sent=sent, deleted=deleted)
    return tuple(landing.findings())


@dataclass(frozen=True, kw_only=True)
class _Landing:
    """The files of a push, and the branch that gets them."""

    local: LocalModel
    """The model to push."""
    start: Remote
    """The present branch."""
    sent: Mapping[str, Upload | Copy]
    """The files that the commit adds or replaces, by name."""
    deleted: tuple[str, ...]
    """Names of the files that the commit deletes."""

    def findings(self) -> list[Finding]:
        """Everything that does not fit."""
        theirs = _Theirs(self.start)
        if found := list(_another_library(self, theirs)):
            return found  # a repository of another library has nothing else to compare
        return [
            *_another_model(self, theirs),
            *_another_state(self, theirs),
            *_apart(self),
            *_old_weights(self),
        ]


class _Theirs:
    """The contents of the small files on the branch. Unreadable files count as missing."""

    def __init__(self, start: Remote) -> None:
        self.start = start
        self.config = self._json(CONFIG)
        self.record = self._history()

    def _json(self, name: str) -> JsonText | None:
        held = self.start.files.get(name)
        if held is None or held.size > MAX_JSON_SIZE:
            return None
        path = fetch(self.start.repo_id, self.start.commit, name)
        try:
            return JsonText.parse(path.read_bytes(), f"{name} of {self.start.repo_id}")
        except CheckpointError:
            return None

    def _history(self) -> History:
        """The steps in the record on the branch, even if the config there contradicts them."""
        document = self._json(FILE_NAME)
        try:
            return History.from_json(document.value, FILE_NAME) if document else NO_HISTORY
        except ConfigError:
            return NO_HISTORY

    def library(self) -> str:
        """The library that the card names; empty if it names none."""
        if README not in self.start.files:
            return ""
        path = fetch(self.start.repo_id, self.start.commit, README)
        try:
            found = read_metadata(card_text(path, README), README).get("library_name")
        except CheckpointError:
            return ""
        return found if isinstance(found, str) else ""


def _another_library(landing: _Landing, theirs: _Theirs) -> Iterator[Finding]:
    """A finding if another library loads the files of the repository."""
    start, name = landing.start, landing.local.checkpoint.name
    if theirs.config is not None:
        return
    files = {file.rpartition("/")[2].lower(): file for file in sorted(start.files, reverse=True)}
    found = next(((files[f], whose) for f, whose in _OF_OTHERS.items() if f in files), None)
    found = found or next(
        (
            (file, whose)
            for file in sorted(start.files)
            for end, whose in _ENDINGS_OF_OTHERS.items()
            if file.lower().endswith(end)
        ),
        None,
    )
    if found is None and (library := theirs.library()) and library.lower() not in _OURS:
        found = (README, library)
    if found is not None:
        yield finding(
            "other-library",
            start.repo_id,
            f"{start.repo_id} is a repository for {found[1]} ({found[0]}) without config.json, but "
            f"{name} is a checkpoint of transformers.",
        )


def _another_model(landing: _Landing, theirs: _Theirs) -> Iterator[Finding]:
    """A finding if the weights of one model would get the config of another."""
    if theirs.config is None or CONFIG not in landing.sent:
        return
    mine = landing.local.checkpoint.config().value
    wrong = [
        f"{key} {_shown(here)} here and {_shown(there)} there"
        for key, here, there in _differences(mine, theirs.config.value)
    ]
    if wrong:
        yield finding(
            "other-model",
            landing.start.repo_id,
            f"{landing.start.repo_id} holds another model than {landing.local.checkpoint.name}: "
            f"{few(wrong)}.",
        )


def _differences(
    mine: Mapping[str, Any], theirs: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """The sizes that both configs state but with different values, in text_config as well."""
    for key in _SIZES:
        if mine.get(key) is not None and theirs.get(key) is not None and mine[key] != theirs[key]:
            yield prefix + key, mine[key], theirs[key]
    for key, here in mine.items():
        there = theirs.get(key)
        if key.endswith("_config") and isinstance(here, Mapping) and isinstance(there, Mapping):
            yield from _differences(here, there, f"{prefix}{key}.")


def _another_state(landing: _Landing, theirs: _Theirs) -> Iterator[Finding]:
    """Findings if the config does not fit the weights (baked or not) or the record beside it."""
    if CONFIG not in landing.sent:
        return
    local, start = landing.local, landing.start
    mine, there = local.history, theirs.record
    stay = _has_weights(start) and not _sends_weights(landing)
    if stay and _baked(mine.baked) != _baked(there.baked) and not _same_weights(landing):
        yield finding(
            "other-weights",
            start.repo_id,
            f"The config of {local.checkpoint.name} is for {_state(mine.baked)}, but "
            f"{start.repo_id} holds {_state(there.baked)}.",
        )
    stays = FILE_NAME in start.files and FILE_NAME not in {*landing.sent, *landing.deleted}
    if stays and there.believed(local.checkpoint.config().value).unbelieved:
        plan = there.plan
        said = f" ({plan.length:,} tokens with {plan.method})" if plan else ""
        yield finding(
            "record-contradicts",
            start.repo_id,
            f"{FILE_NAME} of {start.repo_id}{said} does not describe the config of "
            f"{local.checkpoint.name} but would stay beside it.",
        )


def _baked(baked: Baked | None) -> dict[str, float]:
    return dict(baked.attention_factor) if baked else {}


def _state(baked: Baked | None) -> str:
    if baked is None:
        return "weights without a baked attention factor"
    factors = ", ".join(f"{factor:g}" for factor in baked.attention_factor.values())
    return f"weights with a baked attention factor ({factors})"


def _sends_weights(landing: _Landing) -> bool:
    """Whether all weights on the branch will come from this push."""
    names = {*landing.local.checkpoint.shard_names()} or {
        name for name in landing.sent if _is_weights(name)
    }
    return bool(names) and names <= set(landing.sent)


def _has_weights(start: Remote) -> bool:
    return any(map(_is_weights, start.files))


def _is_weights(name: str) -> bool:
    return kind_of(name) in ("shard", "weights")


def _same_weights(landing: _Landing) -> bool:
    """Whether the branch already holds the local weights, byte for byte."""
    checkpoint, held = landing.local.checkpoint, landing.start.files
    shards = checkpoint.shard_names()
    return bool(shards) and all(
        name in held and Upload.of(name, checkpoint.path(name)).equals(held[name])
        for name in shards
    )


def _apart(landing: _Landing) -> Iterator[Finding]:
    """A finding if only some of the config files that belong together are sent."""
    checkpoint, held = landing.local.checkpoint, landing.start.files
    mine = [name for name in CONFIG_FILES if checkpoint.file(name) is not None]
    sent = [name for name in mine if name in landing.sent]
    left = [
        name
        for name in mine
        if name not in landing.sent
        and not (name in held and Upload.of(name, checkpoint.path(name)).equals(held[name]))
    ]
    if sent and left:
        yield finding(
            "configs-apart",
            checkpoint.name,
            f"{few(sent)} would be sent without {few(left)}, which {landing.start.repo_id} "
            "lacks or has with other content.",
        )


def _old_weights(landing: _Landing) -> Iterator[Finding]:
    """A finding if old weights with other file names would stay beside the new ones."""
    if not _sends_weights(landing):
        return
    stale = sorted(
        name
        for name in set(landing.start.files) - set(landing.deleted) - set(landing.sent)
        if kind_of(name) in ("shard", "index") and "/" not in name
    )
    if stale:
        yield finding(
            "old-weights",
            landing.start.repo_id,
            f"{landing.start.repo_id} also holds {few(stale)}, which the checkpoint does not "
            "have. Delete old weights in the same commit: "
            f"{' '.join(f'--delete {n}' for n in stale[:3])}{' …' if stale[3:] else ''}.",
        )


def _shown(value: Any) -> str:
    return str(value)[:40]


def few(names: Iterable[str]) -> str:
    """The first names, with a note that there are others."""
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (" and others" if found[_SHOWN:] else "")
