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

# Single precision holds 7 digits, and θ is taken to a power below 1.
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufPlan:
    """What is to change in a file, names in full."""

    keys: Mapping[str, Typed]
    """Keys to set, with their types."""
    drop: tuple[str, ...]
    """Keys to take out: they would contradict the new ones, or are not read."""
    tensors: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """F32 tensors with one size, to add or replace."""
    drop_tensors: tuple[str, ...] = ()
    """Tensors to take out."""
    notes: tuple[str, ...] = ()
    """What a person should know about it."""

    def applied(self, gguf: Gguf) -> Gguf:
        """The file afterwards, numbers rounded as it stores them."""
        return gguf.changed(self.keys, (*self.drop, *self.drop_tensors), self.tensors)


def plan_extension(gguf: Gguf, plan: RopePlan, *, replaces: bool = False) -> GgufPlan:
    """The changes that carry out a context extension.

    Args:
        gguf: the file.
        plan: the extension.
        replaces: the scaling that the file has may go.

    Raises:
        UnsupportedArchitectureError: the runtime cannot compute it for this architecture.
        CheckpointError: the file is no model, or is scaled already.
    """
    setting = plan.scopes[0].after
    if any(scope.after != setting for scope in plan.scopes):
        raise UnsupportedArchitectureError(
            "A GGUF file has one RoPE setting for all layers without a window; the plan has "
            f"{len(plan.scopes)}."
        )
    return plan_setting(gguf, setting, length=plan.length, replaces=replaces)


def plan_setting(
    gguf: Gguf,
    setting: RopeParameters,
    *,
    length: int,
    replaces: bool = False,
) -> GgufPlan:
    """The changes that give a file exactly a RoPE setting.

    Args:
        gguf: the file.
        setting: what transformers computes with.
        length: the window to be served, tokens.
        replaces: the scaling that the file has may go.

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
    if row.rope_freqs != "used" and row.factors:
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
    # Gemma 4 keeps the pairs that stand still in that tensor.
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
            "The runtime takes the long factors for every text, short ones too."
            if FREQS in tensors
            else "The runtime chooses between the short and the long factors by the context that "
            f"it is started with: above {setting.original_length:,} tokens it takes the long "
            "ones, for short texts too."
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
    """Insist that the runtime computes from the planned file what the setting says.

    Raises:
        UnsupportedArchitectureError: it has a temperature of its own on the softmax scale.
        CheckpointError: it computes something else, so the plan is wrong.
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
                f"{found.softmax_scale_ratio:.5g} under {setting.rope_type}, and the setting wants "
                f"{softmax:.5g}; no key changes that. Use --method ntk."
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
                "llama.cpp would compute something else from the planned keys than the setting "
                f"says (a {setting.rope_type} setting, architecture {row.name}). Nothing was "
                "written. This is a fault of yarncli: please report it."
            )
