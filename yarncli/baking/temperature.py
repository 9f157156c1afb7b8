"""Which factor goes into the weights of each scope, and what its RoPE setting becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from yarncli.config.reading import RopeConfig, Scope, read_rope
from yarncli.errors import CheckpointError, ConfigError, UnsupportedArchitectureError, UsageError
from yarncli.history import Form
from yarncli.jsontext.text import JsonText
from yarncli.planning.rope_plan import RopePlan, ScopePlan
from yarncli.planning.writing import Spelling, write_rope
from yarncli.rope.formulas import yarn_attention_factor
from yarncli.rope.methods import neutral_temperature
from yarncli.rope.parameters import RopeParameters

MARKER = "yarncli_baked"  # in config.json; its value says what the weights carry


@dataclass(frozen=True, slots=True)
class Temperature:
    """One scope: `factor` (m) goes into the weights, `after` is what the config will say.

    Queries times keys are multiplied by `factor` squared.
    """

    scope: str
    factor: float
    before: RopeParameters
    after: RopeParameters


def decide(
    rope: RopeConfig, form: Form, attention_factor: float | None = None
) -> tuple[Temperature, ...]:
    """The temperature of every scope that has layers.

    Args:
        rope: the config as read.
        form: "neutral" moves all of it into the weights; "residual" leaves yarn's default in the
            config and moves the rest.
        attention_factor: the temperature meant, instead of the config's.

    Raises:
        CheckpointError: there is nothing to bake.
        UnsupportedArchitectureError: the form does not exist for this model.
        UsageError: `attention_factor` is not a positive number.
    """
    if attention_factor is not None and not (
        math.isfinite(attention_factor) and attention_factor > 0
    ):
        raise UsageError(f"--attention-factor {attention_factor} is not a positive number.")
    scopes = [scope for scope in rope.scopes.values() if scope.layers]
    meant = _scopes_meant(scopes) if attention_factor is not None else scopes
    found = tuple(
        _decide_scope(rope, scope, form, attention_factor if scope in meant else None)
        for scope in scopes
    )
    if all(math.isclose(each.factor, 1.0, rel_tol=1e-12) for each in found):
        raise CheckpointError(_nothing(form, scopes))
    return found


def _nothing(form: Form, scopes: list[Scope]) -> str:
    if form == "residual":
        return (
            "There is nothing to bake: the temperature is yarn's default, which every engine "
            "computes. Give another with --attention-factor, or use --form neutral."
        )
    kinds = ", ".join(sorted({scope.parameters.rope_type for scope in scopes}))
    return (
        f"There is nothing to bake: the attention factor of this model is 1 (rope_type {kinds}). "
        "Give one with --attention-factor, or convert with --method yarn first."
    )


def _scopes_meant(scopes: list[Scope]) -> list[Scope]:
    """The scopes that `--attention-factor` is about: the extended ones."""
    scaled = [s for s in scopes if s.parameters.rope_type not in ("default", "proportional")]
    return scaled or [s for s in scopes if not s.windowed] or scopes


def _decide_scope(rope: RopeConfig, scope: Scope, form: Form, asked: float | None) -> Temperature:
    p = scope.parameters
    current = p.effective_attention_factor()
    wanted = current if asked is None else asked
    if form == "residual":
        if p.rope_type == "default" and asked is None:
            return Temperature(scope.name, 1.0, p, p)
        if p.rope_type != "yarn" or rope.is_mla:
            kind = "a model with latent attention" if rope.is_mla else f"rope_type {p.rope_type!r}"
            raise UnsupportedArchitectureError(
                f"--form residual leaves yarn's default temperature in the config, which {kind} "
                "does not have in every engine. Use --form neutral."
            )
        plain = replace(
            p,
            attention_factor=None,
            mscale=None,
            mscale_all_dim=None,
            extra={k: v for k, v in p.extra.items() if k != "attn_factor"},
        )
        default = yarn_attention_factor(p.resolved_factor())
        return Temperature(scope.name, wanted / default, p, plain)
    if p.rope_type not in ("yarn", "longrope") or wanted == current == 1.0:
        return Temperature(scope.name, wanted, p, p)
    return Temperature(scope.name, wanted, p, _neutral(rope, p))


def _neutral(rope: RopeConfig, p: RopeParameters) -> RopeParameters:
    """The setting without a temperature, in as many engines as one config can.

    The mscale keys of latent attention drive the softmax scale, so they are never touched.
    """
    if rope.is_mla:
        return replace(p, attention_factor=1.0)
    if p.rope_type == "longrope":
        extra = {**p.extra, "short_mscale": 1.0, "long_mscale": 1.0}
        return replace(p, attention_factor=1.0, extra=extra)
    fields = neutral_temperature(p.resolved_factor(), mrope=rope.mrope)
    extra = {k: v for k, v in p.extra.items() if k != "attn_factor"} | fields.pop("extra", {})
    return replace(p, **{"mscale": None, "mscale_all_dim": None, **fields, "extra": extra})


def write_config(
    config: JsonText,
    rope: RopeConfig,
    temperatures: tuple[Temperature, ...],
    form: Form,
    marker: Mapping[str, object],
    *,
    assume_like: str | None = None,
) -> JsonText:
    """`config.json` after the bake: neutral or plain per scope, and marked.

    Raises:
        ConfigError: what was written reads back as something else; a bug, nothing is written yet.
    """
    changed = [each for each in temperatures if each.after != each.before]
    written = config
    if changed:
        plan = RopePlan(
            method=changed[0].after.rope_type,
            model_type=rope.model_type,
            length=rope.max_position_embeddings,
            factor=changed[0].after.resolved_factor(),
            original_length=rope.original_length,
            original_source=rope.original_source,
            max_position_embeddings=rope.max_position_embeddings,
            scopes=tuple(ScopePlan(each.scope, each.before, each.after) for each in changed),
            notes=(),
        )
        spellings: dict[str, Spelling] = {"legacy": "legacy", "v5": "v5"}
        spelling = spellings.get(rope.spelling_found, "both")
        written = write_rope(config, rope, plan, spelling)
    written = written.edited({(MARKER,): dict(marker)})
    _check(written, temperatures, form, assume_like)
    return written


def _check(
    written: JsonText,
    temperatures: tuple[Temperature, ...],
    form: Form,
    assume_like: str | None,
) -> None:
    found = read_rope(written.value, assume_like=assume_like)
    for each in temperatures:
        p = found.scopes[each.scope].parameters
        left = 1.0
        if form == "residual" and each.after.rope_type == "yarn":
            left = yarn_attention_factor(each.after.resolved_factor())
        lengths = (1, each.before.original_length, found.max_position_embeddings)
        same = all(p.inv_freq(length) == each.before.inv_freq(length) for length in lengths)
        if not same or p.effective_attention_factor() != left:
            raise ConfigError(
                f"The config written for {each.scope} reads back with an attention factor of "
                f"{p.effective_attention_factor()!r}, not {left!r}, or with other frequencies. "
                "Nothing was changed; please report this."
            )
