"""Decide which factor goes into the weights of each scope, and its new RoPE setting."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from yarncli.config.reading import RopeConfig, Scope, read_rope
from yarncli.errors import CheckpointError, ConfigError, UnsupportedArchitectureError, UsageError
from yarncli.history.weights import Form
from yarncli.jsontext.text import JsonText
from yarncli.planning.rope_plan import RopePlan, ScopePlan
from yarncli.planning.writing import Spelling, write_rope
from yarncli.rope.formulas import yarn_attention_factor
from yarncli.rope.methods import neutral_attention_factor
from yarncli.rope.parameters import RopeParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeAttentionFactor:
    """The factor that moves from one scope into the weights."""

    scope: str
    """The name of the scope in the config."""
    factor: float
    """The factor (m) for the weights; query times key is multiplied by its square."""
    before: RopeParameters
    """The RoPE setting as it was read."""
    after: RopeParameters
    """The RoPE setting to write into the config."""


def decide_attention_factors(
    rope: RopeConfig, form: Form, attention_factor: float | None = None
) -> tuple[ScopeAttentionFactor, ...]:
    """The attention factor of every scope that has layers.

    Args:
        rope: the config as read.
        form: "neutral" moves all of it into the weights; "residual" leaves yarn's default in the
            config and moves the rest.
        attention_factor: the factor to bake, instead of the one in the config.

    Raises:
        UnsupportedArchitectureError: the form does not exist for this model.
        UsageError: `attention_factor` is not a positive number.
    """
    if attention_factor is not None and not (
        math.isfinite(attention_factor) and attention_factor > 0
    ):
        raise UsageError(f"--attention-factor {attention_factor} is not a positive number.")
    scopes = [scope for scope in rope.scopes.values() if scope.layers]
    extended = _extended(scopes)
    return tuple(
        _decide_scope(rope, scope, form, attention_factor if scope in extended else None)
        for scope in scopes
    )


def refuse_nothing(found: Iterable[ScopeAttentionFactor], form: Form) -> None:
    """Check that at least one scope has a factor to move into the weights.

    Raises:
        CheckpointError: there is nothing to bake.
    """
    found = list(found)
    if any(not math.isclose(each.factor, 1.0, rel_tol=1e-12) for each in found):
        return
    if form == "residual":
        raise CheckpointError(
            "There is nothing to bake: the attention factor is yarn's default, which every engine "
            "computes. Give another with --attention-factor, or use --form neutral."
        )
    kinds = ", ".join(sorted({each.before.rope_type for each in found}))
    raise CheckpointError(
        f"There is nothing to bake: the attention factor of this model is 1 (rope_type {kinds}). "
        "Give one with --attention-factor, or convert with --method yarn first."
    )


def _extended(scopes: list[Scope]) -> list[Scope]:
    """The scopes that get `--attention-factor`: the extended ones."""
    scaled = [s for s in scopes if s.parameters.rope_type not in ("default", "proportional")]
    return scaled or [s for s in scopes if not s.windowed] or scopes


def _decide_scope(
    rope: RopeConfig, scope: Scope, form: Form, asked: float | None
) -> ScopeAttentionFactor:
    before = after = scope.parameters
    current = before.effective_attention_factor()
    factor = current if asked is None else asked
    if form == "neutral":
        # Other RoPE types have no attention factor in the config that could be removed.
        if before.rope_type in ("yarn", "longrope") and not factor == current == 1.0:
            after = _neutral(rope, before)
    elif before.rope_type == "yarn" and not rope.is_mla:
        extra = {k: v for k, v in before.extra.items() if k != "attn_factor"}
        after = replace(
            before, attention_factor=None, mscale=None, mscale_all_dim=None, extra=extra
        )
        factor /= yarn_attention_factor(before.resolved_factor())
    elif before.rope_type != "default" or asked is not None:
        kind = f"rope_type {before.rope_type!r}"
        raise UnsupportedArchitectureError(
            "--form residual leaves yarn's default attention factor in the config, which "
            f"{'a model with latent attention' if rope.is_mla else kind} does not have in every "
            "engine. Use --form neutral."
        )
    return ScopeAttentionFactor(scope=scope.name, factor=factor, before=before, after=after)


def _neutral(rope: RopeConfig, p: RopeParameters) -> RopeParameters:
    """The setting with the attention factor 1, for as many engines as one config can reach.

    The mscale keys of latent attention set the softmax scale, so they never change.
    """
    if rope.is_mla:
        return replace(p, attention_factor=1.0)
    if p.rope_type == "longrope":
        extra = {**p.extra, "short_mscale": 1.0, "long_mscale": 1.0}
        return replace(p, attention_factor=1.0, extra=extra)
    fields = neutral_attention_factor(p.resolved_factor(), mrope=rope.mrope)
    extra = {k: v for k, v in p.extra.items() if k != "attn_factor"} | fields.pop("extra", {})
    return replace(p, **{"mscale": None, "mscale_all_dim": None, **fields, "extra": extra})


def write_baked_config(
    config: JsonText,
    rope: RopeConfig,
    factors: tuple[ScopeAttentionFactor, ...],
    form: Form,
    *,
    assume_like: str | None = None,
) -> JsonText:
    """The config after the bake.

    Raises:
        ConfigError: the new config reads back with other values, which is a bug; nothing was
            written.
    """
    # Scopes that do not change keep their spelling.
    changed = [each for each in factors if each.after != each.before]
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
    _check(written, factors, form, assume_like)
    return written


def _check(
    written: JsonText,
    factors: tuple[ScopeAttentionFactor, ...],
    form: Form,
    assume_like: str | None,
) -> None:
    found = read_rope(written.value, assume_like=assume_like, factor_only=True)
    for each in factors:
        p = found.scopes[each.scope].parameters
        left = 1.0
        if form == "residual" and each.after.rope_type == "yarn":
            left = yarn_attention_factor(each.after.resolved_factor())
        # Some RoPE types use other frequencies beyond the original window, so compare there, too.
        lengths = (1, each.before.original_length, found.max_position_embeddings)
        same = all(p.inv_freq(length) == each.before.inv_freq(length) for length in lengths)
        if not same or p.effective_attention_factor() != left:
            raise ConfigError(
                f"The config written for {each.scope} reads back with an attention factor of "
                f"{p.effective_attention_factor()!r}, not {left!r}, or with other frequencies. "
                "Nothing was changed; please report this."
            )
