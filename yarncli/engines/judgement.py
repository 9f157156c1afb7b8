"""Judges a checkpoint, or its config and history: everything that needs verdicts calls this."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.formats import read_format
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.config.weight_format import WeightFormat, stated_format
from yarncli.engines.formats import with_weights
from yarncli.engines.intended import find_intended
from yarncli.engines.launching import with_launch
from yarncli.engines.loaders import read_model
from yarncli.engines.own_code import meant_by, own_views
from yarncli.engines.published import differing_file
from yarncli.engines.registry import ENGINES, get_engine
from yarncli.engines.sliding import with_window
from yarncli.engines.types import Engine, Model, NotKnown, Status, Used
from yarncli.engines.verdict import EngineView, unknown_view, view
from yarncli.errors import UnknownArchitectureError, UsageError
from yarncli.gguf.detection import is_gguf_source
from yarncli.history import FILE_NAME, NO_HISTORY, History, read_history

if TYPE_CHECKING:
    from yarncli.engines.gguf_files import GgufJudgement
    from yarncli.engines.serving import Serving
    from yarncli.planning.target import Target

SCHEMA_VERSION = 1

_KIND_OF: dict[Status, str] = {
    "exact": "as intended",
    "unsupported": "without code for this model",
    "unknown": "not known",
}
_UNJUDGED = "as intended in RoPE alone (format not judged)"
_KINDS = ("as intended", _UNJUDGED, "not", "without code for this model", "not known")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What engines will make of a checkpoint."""

    source: str
    """What the checkpoint is called."""
    intended_from: str
    """Where the intended numbers come from: `yarncli.json` or "transformers 5"."""
    verdicts: tuple[EngineView, ...]
    """One per engine, in the order of the tables."""
    assume_like: str | None = None
    """The model type that an unknown one was assumed to be like."""
    serving: Serving | None = None
    """The extension that the launch lines bring, where one was asked for: the verdicts are then on
    each engine started with its line."""

    def misreadings(self) -> dict[str, list[str]]:
        """Engine id → why it will not do what is intended, for the engines that will not."""
        wrong = [item for item in self.verdicts if item.status != "exact"]
        return {i.engine.id: list(dict.fromkeys([i.summary(), *i.notes])) for i in wrong}

    def count(self) -> str:
        """How many engines do what is intended, and how many do not or are not known to."""
        kinds = Counter(map(_kind_of, self.verdicts))
        words = [f"{kinds[kind]} {kind}" for kind in _KINDS if kinds[kind]]
        return f"{', '.join(words)}, of {len(self.verdicts)} engines."

    def brief(self) -> list[dict[str, str]]:
        """The entries of `convert --json`, `bake --json` and `inspect --json`."""
        return [item.brief() for item in self.verdicts]

    def launch_lines(self) -> list[dict[str, str]]:
        """The launch lines with which engines are right, for `convert --json` and `bake --json`."""
        exact = [item for item in self.verdicts if item.launch and item.launch_is_exact]
        return [{"engine": item.engine.id, "launch": str(item.launch)} for item in exact]

    def to_json(self) -> dict[str, Any]:
        """The contract of `engines --json`."""
        return {
            "schema_version": SCHEMA_VERSION,
            "source": self.source,
            "intended_from": self.intended_from,
            "assume_like": self.assume_like,
            "engines": [item.to_json() for item in self.verdicts],
            **(self.serving.to_json() if self.serving else {}),
        }


def judge_checkpoint(
    source: str | Path | Checkpoint,
    *,
    engines: Iterable[str] = (),
    target: Target | None = None,
    original_length: int | None = None,
    assume_like: str | None = None,
    launch: bool = True,
) -> Judgement | GgufJudgement:
    """What engines will make of a checkpoint or a GGUF file: frequencies, temperature, length.

    What is intended comes from `yarncli.json` if there is one, else from what transformers 5 reads.
    With a target it is that extension, which launch lines bring to the checkpoint as it is; the
    verdicts are then on each engine started with its line.

    Args:
        source: a checkpoint, its directory or `config.json`, or a Hub id; or a GGUF file, here or
            `hf://org/name/file.gguf`. No weights are read.
        engines: ids; all where empty.
        target: an extension to serve without writing it.
        original_length: with a target, the window the model was trained with, tokens, where the
            config does not tell it.
        assume_like: treat an unknown model type as this one; by default the one that the record
            names.
        launch: whether to work out launch lines; with a target they always are.

    Raises:
        UsageError: an unknown engine id, or contradictory options.
        CheckpointError: the config cannot be read at all, or cannot take the target.
        HubError: the Hub cannot be reached.

    Example:
        >>> from yarncli.demo import write_demo
        >>> from yarncli.planning.target import Target
        >>> demo = write_demo(Path("demo"))
        >>> judge_checkpoint(demo, engines=["vllm"]).misreadings()
        {}
        >>> found = judge_checkpoint(demo, engines=["vllm"], target=Target(factor=4))
        >>> found.verdicts[0].launch.split(" --hf-overrides ")[0]
        'vllm serve demo --max-model-len 1024'
    """
    if is_gguf_source(source):
        from yarncli.engines.gguf_files import judge_gguf

        assert isinstance(source, str | Path)
        if target is not None or assume_like is not None:
            raise UsageError(
                "A GGUF file is judged as it is: leave out the options of an extension and "
                "--assume-like. To extend it, run: yarncli convert SOURCE OUT --length N"
            )
        return judge_gguf(source, engines=engines)
    return _judge_checkpoint(
        open_checkpoint(source), engines, target, original_length, launch=launch,
        assume_like=assume_like,
    )  # fmt: skip


def _judge_checkpoint(
    checkpoint: Checkpoint,
    engines: Iterable[str],
    target: Target | None,
    original_length: int | None,
    *,
    launch: bool,
    assume_like: str | None,
) -> Judgement:
    # An engine can be started with the Hub id, or with the directory as the user named it.
    remote = checkpoint.repo_id if checkpoint.is_remote else None
    name, history = remote or checkpoint.name, read_history(checkpoint)
    options: dict[str, Any] = {"source": name, "assume_like": assume_like or history.assume_like}
    config, weights = checkpoint.config(), read_format(checkpoint)
    if target is None:
        options |= {"launch": launch, "weights": weights}
        found = judge(config.value, history, engines=engines, checkpoint=checkpoint, **options)
        return replace(found, source=checkpoint.name)
    from yarncli.engines.serving import serve

    chosen = _chosen(engines)
    serving, views = serve(
        config, history, target, engines=chosen, original_length=original_length, **options
    )
    verdicts = tuple(with_weights(item, weights) for item in views)
    verdicts = _by_files(verdicts, checkpoint, config.value)
    return Judgement(
        source=checkpoint.name, intended_from="the target", verdicts=verdicts,
        assume_like=options["assume_like"], serving=serving,
    )  # fmt: skip


def judge(
    config: Mapping[str, Any],
    history: History = NO_HISTORY,
    *,
    engines: Iterable[str] = (),
    source: str = "SOURCE",
    assume_like: str | None = None,
    launch: bool = True,
    weights: WeightFormat | None = None,
    checkpoint: Checkpoint | None = None,
) -> Judgement:
    """What engines will compute from a config, compared with what is intended.

    Args:
        config: the JSON object of `config.json`.
        history: the steps that led to it; they say what is intended. Without any, it is what
            transformers 5 reads.
        engines: ids; all where empty.
        source: what to call the checkpoint in launch lines.
        assume_like: treat an unknown model type as this one; by default the one that `history`
            names.
        launch: whether to work out launch lines.
        weights: their format, where more is known of it than the config states.
        checkpoint: the files beside the config, for engines that run code of theirs.

    Raises:
        UsageError: an unknown engine id.
        ConfigError: the sizes of the model cannot be read.
        UnsupportedArchitectureError: no RoPE, or a model type that is not known.
    """
    chosen, assume_like = _chosen(engines), assume_like or history.assume_like
    length = history.plan.length if history.plan else None
    try:
        model = read_model(config, source=source, length=length, assume_like=assume_like)
    except UnknownArchitectureError as error:
        reason = str(error).partition(". ")[0].rstrip(".") + "."
        views = own_views(chosen, config, source, reason)
        stored = weights or stated_format(config, config)
        return Judgement(
            source=source,
            intended_from=meant_by(views),
            verdicts=_by_files([with_weights(i, stored) for i in views], checkpoint, config),
        )
    intended = find_intended(model, history)
    found = [view(engine, model, intended) for engine in chosen]
    is_recorded = history.plan or history.baked
    # If transformers 5 refuses the config, nothing says what a launch line should reach.
    if launch and (is_recorded or not model.refusal):
        found = [_launched(item, model, intended) for item in found]
    weights = weights or stated_format(config, model.text)
    found = [with_weights(with_window(item, model.rope), weights) for item in found]
    return Judgement(
        source=source,
        intended_from=FILE_NAME if is_recorded else "transformers 5",
        verdicts=_by_files(found, checkpoint, config),
        assume_like=assume_like,
    )


def _by_files(
    views: Iterable[EngineView], checkpoint: Checkpoint | None, config: Mapping[str, Any]
) -> tuple[EngineView, ...]:
    """The verdicts, where no file of code beside the config is another than the examined one."""
    return tuple(views if checkpoint is None else (_by_code(v, checkpoint, config) for v in views))


def _by_code(found: EngineView, checkpoint: Checkpoint, config: Mapping[str, Any]) -> EngineView:
    if found.status in ("unknown", "unsupported"):
        return found
    name = differing_file(found.engine.id, checkpoint, config)
    if name is None:
        return found
    reason = f"It runs {name} of this checkpoint, which is not the file that was examined."
    return unknown_view(found.engine, reason)


def _kind_of(view: EngineView) -> str:
    unjudged = view.weights is not None and view.weights.status == "not judged"
    return _UNJUDGED if unjudged and view.status == "exact" else _KIND_OF.get(view.status, "not")


def _chosen(ids: Iterable[str]) -> list[Engine]:
    named = {engine.id: engine for engine in map(get_engine, ids)}
    return list((named or ENGINES).values())


def _launched(found: EngineView, model: Model, intended: Mapping[str, Used]) -> EngineView:
    try:
        return with_launch(found, model, intended)
    except NotKnown as error:
        return replace(found, notes=(*found.notes, str(error)))
