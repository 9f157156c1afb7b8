"""GgufPlan: the keys and tensors that give a GGUF file a wanted RoPE setting."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.gguf.architectures import Architecture
from yarncli.gguf.facts import (
    ATTN_FACTOR,
    CONTEXT,
    FACTOR,
    FACTORS,
    FREQS,
    LONG,
    ORIGINAL,
    SCALING,
    SHORT,
    THETA,
    TYPE,
    Gguf,
    Typed,
    typed,
)
from yarncli.gguf.refusals import refuse_file, refuse_rope_freqs, refuse_temperature
from yarncli.gguf.runtime import RUNTIME_THETA, STILL, Computed, run
from yarncli.gguf.types import as_stored
from yarncli.planning.rope_plan import RopePlan
from yarncli.rope import formulas
from yarncli.rope.parameters import HAVE_ORIGINAL, RopeParameters, mla_softmax

# Relative. Single precision holds 7 digits, and a power of θ below 1 does not enlarge the rounding
# error.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufPlan:
    """The changes to a file. All names are full names."""

    keys: Mapping[str, Typed]
    """Keys to set, with their types."""
    drop: tuple[str, ...]
    """Keys to remove, because they would contradict the new ones or are not read."""
    tensors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """F32 tensors with one dimension, to add or replace."""
    drop_tensors: tuple[str, ...] = ()
    """Tensors to remove."""
    notes: tuple[str, ...] = ()
    """What a person should know about it."""

    def applied(self, gguf: Gguf) -> Gguf:
        """The file after the changes, with its numbers rounded as they are stored."""
        return gguf.changed(self.keys, (*self.drop, *self.drop_tensors), self.tensors)


def plan_extension(gguf: Gguf, plan: RopePlan, *, replaces: bool = False) -> GgufPlan:
    """The changes that carry out a context extension.

    Args:
        gguf: the file.
        plan: the extension.
        replaces: whether the scaling that the file has may be replaced.

    Raises:
        UnsupportedArchitectureError: the runtime cannot compute it for this architecture.
        CheckpointError: the file is no model, or is scaled already.
    """
    setting = plan.scopes[0].after
    if any(scope.after != setting for scope in plan.scopes):
        raise UnsupportedArchitectureError(
            "A GGUF file has one RoPE setting for all layers without a sliding window, but the "
            f"plan has {len(plan.scopes)}."
        )
    return plan_setting(gguf, setting, length=plan.length, replaces=replaces)


def plan_setting(
    gguf: Gguf,
    setting: RopeParameters,
    *,
    length: int,
    replaces: bool = False,
) -> GgufPlan:
    """The changes after which llama.cpp computes exactly a RoPE setting.

    Args:
        gguf: the file.
        setting: what transformers computes with.
        length: the window to serve, tokens.
        replaces: whether the scaling that the file has may be replaced.

    Raises:
        UnsupportedArchitectureError: the runtime cannot compute it for this architecture.
        CheckpointError: the file is no model, or is scaled already.
    """
    row = refuse_file(gguf, setting, length, replaces=replaces)
    keys: dict[str, Typed] = {CONTEXT: typed(CONTEXT, length)}
    if as_stored("f32", setting.rope_theta) != gguf.get(THETA, RUNTIME_THETA):
        keys[THETA] = typed(THETA, setting.rope_theta)
    tensors: dict[str, tuple[float, ...]] = {}
    if setting.rope_type in HAVE_ORIGINAL:
        keys[ORIGINAL] = typed(ORIGINAL, setting.original_length)
    if _by_keys(setting, row):
        keys |= _scaling_keys(setting, row)
    else:
        tensors = _factors(gguf, row, setting, length)
    draft = _plan(gguf, row, keys, tensors, setting)
    natural = run(draft.applied(gguf), context=length)
    if isinstance(natural, Computed):
        wanted = setting.effective_attention_factor()
        ratio = wanted / natural.attention_factor
        if not math.isclose(ratio, 1.0, rel_tol=_TOLERANCE):
            refuse_temperature(gguf, row, wanted, natural.attention_factor)
            keys[ATTN_FACTOR] = typed(ATTN_FACTOR, ratio)
    made = _plan(gguf, row, keys, tensors, setting)
    _insist(gguf, row, made, setting, length)
    return made


def _by_keys(setting: RopeParameters, row: Architecture) -> bool:
    """Whether keys alone give the frequencies."""
    if setting.rope_type != "yarn":
        return setting.rope_type in ("default", "linear", "proportional")
    plain = (setting.beta_fast or 32.0, setting.beta_slow or 1.0) == (32.0, 1.0)
    return setting.truncate is not False and (plain or row.betas)


def _scaling_keys(setting: RopeParameters, row: Architecture) -> dict[str, Typed]:
    factor = setting.resolved_factor()
    if setting.rope_type == "default" or (setting.rope_type != "yarn" and factor == 1):
        return {}
    kind = "yarn" if setting.rope_type == "yarn" else "linear"
    found = {TYPE: typed(TYPE, kind), FACTOR: typed(FACTOR, factor)}
    if kind == "yarn" and row.betas:
        for name in ("beta_fast", "beta_slow"):
            value, key = getattr(setting, name), f"rope.scaling.yarn_{name}"
            found |= {key: typed(key, value)} if value else {}
    if kind == "yarn" and row.log and setting.mscale_all_dim:
        key = "rope.scaling.yarn_log_multiplier"
        share = 0.1 if row.log == "tenfold" else 1.0
        found[key] = typed(key, share * setting.mscale_all_dim)
    return found


def _factors(
    gguf: Gguf, row: Architecture, setting: RopeParameters, length: int
) -> dict[str, tuple[float, ...]]:
    """The tensors of frequency factors that give a setting."""
    if not row.rope_freqs and row.factors:
        own = setting.rope_type == "longrope"
        return {
            LONG: _ratios(setting, setting.inv_freq(setting.original_length + 1)),
            SHORT: _ratios(setting, setting.inv_freq(None if own else length)),
        }
    refuse_rope_freqs(gguf, row, setting)
    return {FREQS: _ratios(setting, setting.inv_freq(length))}


def _ratios(setting: RopeParameters, wanted: Sequence[float]) -> tuple[float, ...]:
    plain = formulas.default_inv_freq(setting.rope_theta, setting.rotary_dim)
    return tuple(a / b if b else STILL for a, b in zip(plain, wanted, strict=True))


def _plan(
    gguf: Gguf,
    row: Architecture,
    keys: Mapping[str, Typed],
    tensors: Mapping[str, tuple[float, ...]],
    setting: RopeParameters,
) -> GgufPlan:
    drop = tuple(gguf.name(k) for k in SCALING if k not in keys and gguf.has(k))
    # In Gemma 4 this tensor says which pairs do not rotate, so it stays.
    keeps = {FREQS} if setting.rope_type == "proportional" else set()
    gone = (n for n in FACTORS if n in gguf.tensors and n not in {*tensors, *keeps})
    return GgufPlan(
        keys={gguf.name(key): value for key, value in keys.items()},
        drop=drop,
        tensors=tensors,
        drop_tensors=tuple(gone),
        notes=tuple(_notes(gguf, row, tensors, setting)),
    )


def _notes(
    gguf: Gguf, row: Architecture, tensors: Mapping[str, object], setting: RopeParameters
) -> list[str]:
    notes = []
    if setting.rope_type == "longrope" and setting.short_factor != setting.long_factor:
        notes.append(
            "llama.cpp uses the long factors for every text, also for short texts."
            if FREQS in tensors
            else "llama.cpp chooses between the short and the long factors by the context size at "
            f"its start. Above {setting.original_length:,} tokens it uses the long factors, "
            "also for short texts."
        )
    if gguf.window and (row.sliding is None or row.sliding.scaled):
        notes.append(
            f"The layers that attend within {gguf.window:,} tokens are scaled like the others."
        )
    return notes


def _insist(
    gguf: Gguf,
    row: Architecture,
    plan: GgufPlan,
    setting: RopeParameters,
    length: int,
) -> None:
    """Refuse a plan from which llama.cpp would not compute what the setting says.

    Raises:
        UnsupportedArchitectureError: llama.cpp multiplies the softmax scale by a temperature of its
            own.
        CheckpointError: llama.cpp computes something else, so the plan is wrong.
    """
    after = plan.applied(gguf)
    softmax = mla_softmax(setting) if row.softmax and setting.rope_type != "default" else 1.0
    contexts = {length}
    if LONG in plan.tensors:
        contexts.add(min(length, setting.original_length // 256 * 256 or length))
    for context in sorted(contexts):
        found = run(after, context=context)
        if not isinstance(found, Computed):
            raise CheckpointError(
                f"llama.cpp would not run the planned file: {found.because}. Nothing was written."
            )
        if not math.isclose(found.softmax_scale_ratio, softmax, rel_tol=_TOLERANCE):
            raise UnsupportedArchitectureError(
                f"llama.cpp multiplies the softmax scale of {row.name} by "
                f"{found.softmax_scale_ratio:.5g} under {setting.rope_type}, but the setting needs "
                f"{softmax:.5g}, and no key changes that. Use --method ntk."
            )
        wanted = setting.inv_freq(context)
        exact = len(wanted) == len(found.inv_freq) and all(
            math.isclose(a, b, rel_tol=_TOLERANCE)
            for a, b in zip(wanted, found.inv_freq, strict=True)
        )
        scale = setting.effective_attention_factor()
        if not (
            exact
            and math.isclose(found.attention_factor, scale, rel_tol=_TOLERANCE)
            and found.served_length == length
        ):
            raise CheckpointError(
                "llama.cpp would not compute from the planned keys what the setting "
                f"says (a {setting.rope_type} setting, architecture {row.name}). Nothing was "
                "written. This is a bug in yarncli: please report it."
            )
