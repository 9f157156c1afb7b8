"""From a checkpoint, or its config and history, to the verdicts on it: the one way, for all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.engines.intended import find_intended
from yarncli.engines.launching import with_launch
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES, get_engine
from yarncli.engines.types import Status
from yarncli.engines.verdict import EngineView, unknown_view, view
from yarncli.errors import UnknownArchitectureError
from yarncli.history import FILE_NAME, NO_HISTORY, History, read_history

SCHEMA_VERSION = 1

_KIND_OF: dict[Status, str] = {
    "exact": "as intended",
    "unsupported": "without code for this model",
    "unknown": "not known",
}
_KINDS = ("as intended", "not", "without code for this model", "not known")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What engines will make of a checkpoint."""

    source: str
    """What the checkpoint is called."""
    intended_from: str
    """Where it is known what is intended: `yarncli.json`, or what "transformers 5" reads."""
    verdicts: tuple[EngineView, ...]
    """One per engine, in the order of the tables."""

    def misreadings(self) -> dict[str, list[str]]:
        """Engine id → why it will not do what is intended, for the engines that will not."""
        wrong = [item for item in self.verdicts if item.status != "exact"]
        return {i.engine.id: list(dict.fromkeys([i.summary(), *i.notes])) for i in wrong}

    def count(self) -> str:
        """How many engines do what is intended, and how many do not or are not known to."""
        kinds = Counter(_KIND_OF.get(item.status, "not") for item in self.verdicts)
        words = [f"{kinds[kind]} {kind}" for kind in _KINDS if kinds[kind]]
        return f"{', '.join(words)}, of {len(self.verdicts)} engines."

    def brief(self) -> list[dict[str, str]]:
        """The entries of `convert --json`, `bake --json` and `inspect --json`."""
        return [item.brief() for item in self.verdicts]

    def to_json(self) -> dict[str, Any]:
        """The contract of `engines --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "intended_from": self.intended_from,
            "engines": [item.to_json() for item in self.verdicts],
        }


def judge_checkpoint(
    source: str | Path | Checkpoint,
    *,
    engines: Iterable[str] = (),
    assume_like: str | None = None,
    launch: bool = True,
) -> Judgement:
    """What engines will make of a checkpoint: frequencies, temperature, length, launch line.

    What is intended comes from `yarncli.json` if there is one, else from what transformers 5 reads.

    Args:
        source: a checkpoint, its directory or `config.json`, or a Hub id; no weights are read.
        engines: ids; all where empty.
        assume_like: treat an unknown model type as this one.
        launch: whether to work out launch lines.

    Raises:
        UsageError: an unknown engine id.
        CheckpointError: the config cannot be read at all.
        HubError: the Hub cannot be reached.

    Example:
        >>> from yarncli.demo import write_demo
        >>> judge_checkpoint(write_demo(Path("demo")), engines=["vllm"]).misreadings()
        {}
    """
    checkpoint = open_checkpoint(source)
    # An engine can be started with the Hub id, or with the directory as the user named it.
    remote = checkpoint.repo_id if checkpoint.is_remote else None
    found = judge(
        checkpoint.config().value,
        read_history(checkpoint),
        engines=engines,
        source=remote or checkpoint.name,
        assume_like=assume_like,
        launch=launch,
    )
    return replace(found, source=checkpoint.name)


def judge(
    config: Mapping[str, Any],
    history: History = NO_HISTORY,
    *,
    engines: Iterable[str] = (),
    source: str = "SOURCE",
    assume_like: str | None = None,
    launch: bool = True,
) -> Judgement:
    """What engines will make of a config, held against what is intended.

    Args:
        config: the JSON object of `config.json`.
        history: the steps that led to it; they say what is intended. Without any, it is what
            transformers 5 reads.
        engines: ids; all where empty.
        source: what to call the checkpoint in launch lines.
        assume_like: treat an unknown model type as this one.
        launch: whether to work out launch lines.

    Raises:
        UsageError: an unknown engine id.
        ConfigError: the sizes of the model cannot be read.
        UnsupportedArchitectureError: no RoPE, or a model type that is not known.
    """
    chosen = [get_engine(name) for name in dict.fromkeys(engines)] or list(ENGINES.values())
    length = history.plan.length if history.plan else None
    try:
        model = read_model(config, source=source, length=length, assume_like=assume_like)
    except UnknownArchitectureError as error:
        reason = str(error).partition(". ")[0].rstrip(".") + "."
        nothing = [unknown_view(engine, reason) for engine in chosen]
        return Judgement(source, "the code that comes with the model", tuple(nothing))
    intended = find_intended(model, history)
    found = [view(engine, model, intended) for engine in chosen]
    if launch:
        found = [with_launch(item, model, intended) for item in found]
    is_recorded = history.plan or history.baked
    return Judgement(source, FILE_NAME if is_recorded else "transformers 5", tuple(found))
