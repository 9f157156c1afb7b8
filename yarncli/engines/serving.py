"""Serving without converting: launch lines that add an extension to an unchanged checkpoint."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from yarncli.checkpoint.memory import sequence_bytes
from yarncli.config.weight_format import stated_cache
from yarncli.engines.drafts import Draft, find_draft
from yarncli.engines.intended import find_intended
from yarncli.engines.launching import with_launch
from yarncli.engines.loaders import read_model
from yarncli.engines.types import Engine, Model, NotKnown, Used
from yarncli.engines.verdict import EngineView, as_intended, view
from yarncli.engines.ways import by_ntk, first_way
from yarncli.history import History, Step
from yarncli.jsontext.text import JsonText
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target
from yarncli.planning.writing import Spelling
from yarncli.rope.methods import DEFAULT_METHOD


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Facts about an extension that is not written to files."""

    plan: RopePlan
    """Every number of it."""
    kv_cache_bytes: int
    """What vLLM keeps for one sequence of the new length, in the dtype of the model."""
    draft: Draft | None
    """What drafts tokens in the checkpoint, or that it is a draft head itself."""

    def to_json(self) -> dict[str, Any]:
        """The entries that `engines --json` has with a target only."""
        return {
            "plan": self.plan.to_json(),
            "kv_cache_bytes": self.kv_cache_bytes,
            "draft": self.draft and self.draft.to_json(),
        }


def serve(
    config: JsonText,
    history: History,
    target: Target,
    *,
    engines: Iterable[Engine],
    source: str,
    original_length: int | None = None,
    assume_like: str | None = None,
) -> tuple[Serving, list[EngineView]]:
    """What engines do when each is started with the line that brings an extension.

    A view is exact where its line does; without a line, it says why and what to do.

    Args:
        config: config.json, unconverted.
        history: the steps that led to it.
        target: the extension.
        engines: those to look at.
        source: what to call the checkpoint in launch lines.
        original_length: the window the model was trained with, tokens, if the caller knows better.
        assume_like: treat an unknown model type as this one.

    Raises:
        UsageError: contradictory options.
        CheckpointError: the config is damaged, or the model cannot take what is asked.
    """
    rope, plan = history.planned(
        config.value, target, assume_like=assume_like, original_length=original_length
    )
    model = read_model(config.value, source=source, length=plan.length, assume_like=assume_like)
    intended = find_intended(model, history.then(Step(command="convert", source="", plan=plan)))
    draft = find_draft(model, plan)
    other = by_ntk(rope, plan, target)
    words = _convert_words(target, original_length, assume_like)
    found = []
    for engine in engines:
        if draft and draft.is_head:  # nobody starts an engine with it alone
            found.append(view(engine, model, intended))
            continue
        served = _served(engine, model, intended)
        if not served.launch and served.status not in ("unsupported", "unknown"):
            way = partial(
                first_way, config, rope, spelling="both", engines=[engine], history=history,
                assume_like=assume_like,
            )  # fmt: skip
            served = _advised(served, words, way, plan, other, source)
        found.append(served)
    kept = stated_cache(config.value, rope.text(config.value).values)
    cache = sequence_bytes(config.value, rope, plan.length, kept)
    return Serving(plan=plan, kv_cache_bytes=cache, draft=draft), found


def _served(engine: Engine, model: Model, intended: Mapping[str, Used]) -> EngineView:
    """The view with the line that makes all right, and of that; without one where there is none."""
    plain = view(engine, model, intended)
    try:
        found = with_launch(plain, model, intended)
    except NotKnown as error:
        return EngineView(engine=engine, status="unknown", length=model.length, notes=(str(error),))
    if found.launch and found.launch_is_exact:
        return as_intended(found, intended)
    return replace(found, launch=None)


def _advised(
    found: EngineView,
    words: list[str],
    way: Callable[[RopePlan], tuple[tuple[RopePlan, Spelling] | None, dict[str, str]]],
    plan: RopePlan,
    other: RopePlan | None,
    source: str,
) -> EngineView:
    """The view with what to do where no line helps.

    Args:
        found: the view on the engine.
        words: the options of `convert` for the extension.
        way: how to write a plan for the engine, or what it makes of the usual way.
        plan: the extension.
        other: the same by another method, if there is one.
        source: what to call the checkpoint.
    """
    engine = found.engine
    takes = engine.override != "none" or engine.repair is not None
    why = "No override or flag can set it." if takes else "It takes no RoPE settings when started."
    command = ["yarncli", "convert", source, "OUT"]
    written, usual = way(plan)
    if written:
        usual_way = written == (plan, "both")
        more = [] if usual_way else ["--for", engine.id]
        advice = f"{why} Write it and serve OUT: {shlex.join([*command, *words, *more])}"
    else:
        made = usual.get(engine.id, "").rstrip(".")
        advice = f"{why} From what convert usually writes, it computes this: {made}. "
        if other and way(other)[0]:
            words = ["--method", other.method, "--length", str(other.length), "--for", engine.id]
            advice += f"By another method: {shlex.join([*command, *words])}"
        else:
            advice += "No method and no spelling was found that it reads correctly."
    return replace(found, notes=(advice,))


def _convert_words(
    target: Target, original_length: int | None, assume_like: str | None
) -> list[str]:
    """The options of `convert` for the same extension."""
    given = {
        "method": target.method if target.method != DEFAULT_METHOD else None,
        "length": target.length,
        "factor": target.factor,
        "original_length": original_length,
        "assume_like": assume_like,
        "rescale": target.rescale or None,
        "replace_scaling": target.replace_scaling or None,
        **target.options,
    }
    return Step(command="convert", source="", options=given).arguments()
