"""The ways to write one plan, and the first of them that engines read as intended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from yarncli.config.reading import RopeConfig
from yarncli.engines.equivalents import stated_together
from yarncli.engines.intended import find_intended
from yarncli.engines.loaders import read_model
from yarncli.engines.types import Engine
from yarncli.engines.verdict import view
from yarncli.errors import CheckpointError
from yarncli.history import History, Step
from yarncli.jsontext.text import JsonText
from yarncli.planning.plan import make_plan
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target
from yarncli.planning.writing import DEFAULT_BETAS, Spelling, with_betas, write_config


def first_way(
    config: JsonText,
    rope: RopeConfig,
    plan: RopePlan,
    spelling: Spelling,
    engines: Sequence[Engine],
    *,
    history: History,
    assume_like: str | None = None,
) -> tuple[tuple[RopePlan, Spelling] | None, dict[str, str]]:
    """The first way to write a plan that all engines read as it is meant.

    Args:
        config: config.json as it is.
        rope: the same, interpreted.
        plan: what to write.
        spelling: the only one to try, or "both" for all.
        engines: those that must read it right.
        history: the steps that led to the config.
        assume_like: treat an unknown model type as this one.

    Returns:
        The way, or None; and what the engines make of the usual one that is wrong, by id.
    """
    usual: dict[str, str] = {}
    for way, chosen in _ways(plan, spelling, mla=rope.is_mla):
        try:
            written = write_config(config, rope, way, chosen).value
            model = read_model(written, length=way.length, assume_like=assume_like)
            step = Step(command="convert", source="", plan=way)
            intended = find_intended(model, history.then(step))
            found = [view(engine, model, intended) for engine in engines]
        except CheckpointError:
            continue
        wrong = {v.engine.id: v.summary() for v in found if v.status != "exact"}
        if not wrong:
            return (way, chosen), {}
        usual = usual or wrong
    return None, usual


def by_ntk(rope: RopeConfig, plan: RopePlan, target: Target) -> RopePlan | None:
    """The extension by the method that most engines compute alike; None if impossible."""
    if plan.method == "ntk" or target.rescale:
        return None
    asked = replace(target, method="ntk", options={}, length=plan.length, factor=None)
    try:
        return make_plan(rope, asked)
    except CheckpointError:
        return None


def _ways(plan: RopePlan, spelling: Spelling, *, mla: bool) -> Iterator[tuple[RopePlan, Spelling]]:
    spellings: tuple[Spelling, ...] = (
        ("both", "legacy", "v5") if spelling == "both" else (spelling,)
    )
    plans = [plan]
    if plan.scopes[0].after.rope_type == "linear":
        scopes = tuple(
            replace(s, after=replace(s.after, max_position_embeddings=plan.length))
            for s in plan.scopes
        )
        note = (
            "max_position_embeddings is raised for the engines asked for; vLLM and SGLang would "
            "multiply it by the factor once more."
        )
        raised = replace(plan, max_position_embeddings=plan.length, scopes=scopes, notes=(note,))
        plans.append(raised)
    if not mla:  # there, mscale drives the softmax scale too
        after = [s.after for s in plan.scopes]
        plans += [
            replace(
                plan,
                scopes=tuple(replace(s, after=p) for s, p in zip(plan.scopes, stated, strict=True)),
            )
            for stated in stated_together(after, [None] * len(after))
        ]
    if plan.scopes[0].after.rope_type == "yarn":
        plans += [
            replace(
                way,
                scopes=tuple(
                    replace(s, after=with_betas(s.after, DEFAULT_BETAS.keys())) for s in way.scopes
                ),
            )
            for way in plans
        ]
    for way in plans:
        for chosen in spellings:
            yield way, chosen
