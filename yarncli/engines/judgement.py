"""From a config and its history to the verdicts on it: the one way, for every command."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from yarncli.engines.intended import intended
from yarncli.engines.launching import with_launch
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES, get_engine
from yarncli.engines.verdict import EngineView, view
from yarncli.history import FILE_NAME, NO_HISTORY, History


@dataclass(frozen=True, slots=True)
class Judgement:
    """What engines will make of a checkpoint."""

    intended_from: str
    """Where it is known what is meant: `yarncli.json`, or what "transformers 5" reads."""
    verdicts: tuple[EngineView, ...]
    """One per engine, in the order of the tables."""

    def misreadings(self) -> dict[str, list[str]]:
        """Engine id → why it will not do what is meant, for the engines that will not."""
        wrong = [item for item in self.verdicts if item.status != "exact"]
        return {i.engine.id: list(dict.fromkeys([i.summary(), *i.notes])) for i in wrong}

    def brief(self) -> list[dict[str, str]]:
        """The entries of `convert --json`, `bake --json` and `inspect --json`."""
        return [item.brief() for item in self.verdicts]

    def to_json(self) -> dict[str, Any]:
        """The part of `engines --json` that is the same for every name of the checkpoint."""
        engines = [item.to_json() for item in self.verdicts]
        return {"intended_from": self.intended_from, "engines": engines}


def judge(
    config: Mapping[str, Any],
    history: History = NO_HISTORY,
    *,
    engines: Iterable[str] = (),
    source: str = "SOURCE",
    assume_like: str | None = None,
    launch: bool = True,
) -> Judgement:
    """What engines will make of a config, held against what is meant.

    Args:
        config: the JSON object of `config.json`.
        history: the steps that led to it; they say what is meant. Without any, what
            transformers 5 reads is meant.
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
    model = read_model(config, source=source, length=length, assume_like=assume_like)
    meant = intended(model, history)
    found = [view(engine, model, meant) for engine in chosen]
    if launch:
        found = [with_launch(item, model, meant) for item in found]
    is_recorded = history.plan or history.baked
    return Judgement(FILE_NAME if is_recorded else "transformers 5", tuple(found))
