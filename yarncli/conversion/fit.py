"""`convert --for`: the spelling and fields under which the named engines do what is planned."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from yarncli.config.reading import RopeConfig
from yarncli.engines.equivalents import stated_together
from yarncli.engines.judgement import Judgement, judge
from yarncli.engines.registry import get_engine
from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.history import History, Step
from yarncli.jsontext.text import JsonText
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.writing import DEFAULT_BETAS, Spelling, with_betas, write_config


def fit(
    config: JsonText,
    rope: RopeConfig,
    plan: RopePlan,
    spelling: Spelling,
    engines: Sequence[str],
    *,
    history: History,
    assume_like: str | None = None,
) -> tuple[RopePlan, Spelling]:
    """The first way to write the plan that all `engines` read as it is meant.

    Tried are the spellings (only the given one, unless it is "both"), every way to state the
    temperature, each with yarn's betas stated too, which ONNX Runtime GenAI needs, and, for linear,
    a raised `max_position_embeddings`, which llama.cpp needs.

    Raises:
        UsageError: an unknown engine.
        UnsupportedArchitectureError: no config does; the message says what each engine makes of
            the usual one.
    """
    engines = list(dict.fromkeys(get_engine(name).id for name in engines))
    usual: dict[str, str] = {}
    for way, chosen in _ways(plan, spelling, mla=rope.is_mla):
        try:
            written = write_config(config, rope, way, chosen).value
            steps = history.then(Step(command="convert", source="", plan=way))
            found = judge(written, steps, engines=engines, assume_like=assume_like, launch=False)
        except CheckpointError:
            continue
        _refuse_weights(found)
        wrong = found.misreadings()
        if not wrong:
            return way, chosen
        usual = usual or {name: wrong[name][0] for name in engines if name in wrong}
    reasons = "; ".join(f"{name}: {text.rstrip('.')}" for name, text in usual.items())
    raise UnsupportedArchitectureError(
        f"No config makes {', '.join(engines)} compute {plan.method} as planned ({reasons}). "
        "Try --method ntk, or leave out --for and use the launch lines of `yarncli engines`."
        + _by_baking(plan, mla=rope.is_mla)
    )


def _refuse_weights(found: Judgement) -> None:
    for view in found.verdicts:
        if view.weights and view.weights.status in ("refuses", "misreads"):
            raise UnsupportedArchitectureError(
                f"{view.engine.id} {'; '.join(view.notes)}. No config changes that: convert the "
                "checkpoint in a format that it loads, or leave the engine out of --for."
            )


def _by_baking(plan: RopePlan, *, mla: bool) -> str:
    if mla or all(scope.after.attention_factor is None for scope in plan.scopes):
        return ""
    return (
        " The temperature reaches engines that compute yarn's own by yarncli bake --form residual."
    )


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
