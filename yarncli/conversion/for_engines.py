"""`convert --for`: the spelling and fields with which the named engines compute the plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from yarncli.checkpoint.source import Checkpoint
from yarncli.config.reading import RopeConfig
from yarncli.config.weight_format import stated_format
from yarncli.engines.judgement import judge
from yarncli.engines.published import differing_file
from yarncli.engines.registry import get_engine
from yarncli.engines.types import Engine
from yarncli.engines.ways import by_ntk, first_way
from yarncli.errors import UnsupportedArchitectureError
from yarncli.history import History
from yarncli.jsontext.text import JsonText
from yarncli.planning.commands import convert_command, engines_command
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target
from yarncli.planning.writing import Spelling

if TYPE_CHECKING:
    from yarncli.conversion.options import ConvertOptions


def written_for(
    config: JsonText,
    rope: RopeConfig,
    plan: RopePlan,
    options: ConvertOptions,
    *,
    history: History,
) -> tuple[RopePlan, Spelling]:
    """The first way to write the plan that all engines of the options read as intended.

    It tries the spellings (only the given one, unless that is "both") and every way to state the
    attention factor, each also with yarn's betas written out, which ONNX Runtime GenAI needs. For
    linear it also tries a raised `max_position_embeddings`, which llama.cpp needs.

    Raises:
        UsageError: an engine is not known.
        UnsupportedArchitectureError: no config does this; the message says what each engine
            computes from the usual one, and what to do.
    """
    engines = [*dict.fromkeys(map(get_engine, options.engines))]
    like = options.assume_like
    # Every engine loads plain weights, so only stated formats need a check.
    if stated_format(config.value, rope.text(config.value).values).id:
        _refuse_weights(config, history, engines, like)

    def way(wanted: RopePlan) -> tuple[tuple[RopePlan, Spelling] | None, dict[str, str]]:
        return first_way(
            config, rope, wanted, options.spelling, engines, history=history, assume_like=like
        )

    found, usual = way(plan)
    if found:
        return found
    names = [engine.id for engine in engines]
    other = by_ntk(rope, plan, options.target)
    command = None
    if other and way(other)[0]:
        target = replace(options.target, method=other.method, options={})
        command = convert_command(rope, target, plan.length, **{"for": names})
    reasons = "; ".join(f"{name}: {text.rstrip('.')}" for name, text in usual.items())
    raise UnsupportedArchitectureError(
        f"No config makes {', '.join(names)} compute {plan.method} as planned ({reasons})."
        + (f" Another method works with them: {command}." if command else "")
        + _by_launching(rope, plan, options.target)
        + _by_baking(plan, mla=rope.is_mla)
    )


def refuse_other_code(checkpoint: Checkpoint, names: Iterable[str]) -> None:
    """Insist that no engine would run a file of code that nobody examined.

    Raises:
        UsageError: an engine is not known.
        UnsupportedArchitectureError: names the file.
    """
    for engine in map(get_engine, names):
        name = differing_file(engine.id, checkpoint, checkpoint.config().value)
        if name:
            raise UnsupportedArchitectureError(
                f"{engine.id} would run {name} of this checkpoint, which is not the file that was "
                "examined. Leave the engine out of --for."
            )


def _by_launching(rope: RopeConfig, plan: RopePlan, target: Target) -> str:
    if plan.sliding_window is not None:
        return ""
    command = engines_command(rope, target, plan.length)
    return f" Launch lines may extend the unchanged model; to see them: {command}."


def _refuse_weights(
    config: JsonText, history: History, engines: Sequence[Engine], assume_like: str | None
) -> None:
    names = [engine.id for engine in engines]
    found = judge(config.value, history, engines=names, assume_like=assume_like, launch=False)
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
        " Engines that always compute yarn's own attention factor can get another one through the "
        "weights: convert without --for, and then run: yarncli bake OUT BAKED --form residual"
    )
