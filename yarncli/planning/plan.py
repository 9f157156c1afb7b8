"""make_plan: decides every number of a context extension; all other code only carries it out."""

from __future__ import annotations

from collections.abc import Sequence

from yarncli.config.attention_keys import DUAL_CHUNK
from yarncli.config.reading import RopeConfig, Scope
from yarncli.errors import CheckpointError, ConfigError, UnsupportedArchitectureError, UsageError
from yarncli.planning.commands import convert_command
from yarncli.planning.rescale import can_rescale, rescale, scaled_window
from yarncli.planning.rope_plan import RopePlan, ScopePlan
from yarncli.planning.sliding import OFF, can_widen, without_rope
from yarncli.planning.stated import refuse_unclear
from yarncli.planning.target import Target
from yarncli.rope.formulas import factor_for
from yarncli.rope.method import Extension, Method
from yarncli.rope.methods import METHODS
from yarncli.rope.parameters import HAVE_ORIGINAL, LONGEST, RopeParameters

# Llama 2 from 4,096 to 131,072 tokens (YaRN paper, §4.3). The largest published factor is 64.
_FARTHEST_MEASURED = 32.0
_LARGEST_FACTOR = 64.0


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def make_plan(rope: RopeConfig, target: Target) -> RopePlan:
    """Decide every number of a context extension.

    Raises:
        UsageError: contradictory options, or a factor below 1.
        CheckpointError: the model is long enough, or extended already.
        UnsupportedArchitectureError: this architecture cannot take the method.
    """
    method = _checked_method(target)
    key_notes = _attention_keys(rope)
    refuse_unclear(rope, target)
    original, source = _original_for(rope, target)
    base = window_of(rope) if target.rescale else original
    length, factor, notes = _length_and_factor(target, base, original)
    scopes = _extendable(rope, target, length)
    scaled = [s for s in scopes if s.parameters.rope_type != "default"]
    if target.rescale:
        method, after = rescale(
            [s.parameters for s in scaled],
            length,
            nested=rope.maximum_is_window,
            original=_known_original(rope),
        )
        scopes, factor = scaled, after[0].resolved_factor()
    else:
        _refuse(rope, scaled, method, target, length)
        asked = Extension(
            factor=factor,
            original_length=original,
            maximum=original if method.keeps_max else length,
            options=target.options,
            mrope=rope.mrope,
        )
        after = [method.extended(s.parameters, asked) for s in scopes]
    planned = tuple(
        ScopePlan(s.name, s.parameters, new) for s, new in zip(scopes, after, strict=True)
    )
    if target.replace_scaling:
        notes += [_largest_change(s) for s in planned]
    maximum = after[0].max_position_embeddings
    before = rope.max_position_embeddings
    if factor > _FARTHEST_MEASURED:
        notes.append(
            f"Factor {factor:g} is beyond {_FARTHEST_MEASURED:g}, the largest that the YaRN paper "
            "measured. See how far the result reads with: yarncli check-passkey OUT"
        )
    notes += method.notes(before=before, maximum=maximum, length=length, is_mla=rope.is_mla)
    return RopePlan(
        method=method.name,
        model_type=rope.model_type,
        length=length,
        factor=factor,
        original_length=original,
        original_source=source,
        max_position_embeddings=maximum,
        scopes=planned,
        notes=(*notes, *key_notes, *_window_notes(rope, scopes, length)),
        sliding_window=target.sliding_window,
    )


def _checked_method(target: Target) -> Method:
    """The method asked for, after checking that options and target do not contradict each other."""
    if (target.length is None) == (target.factor is None):
        raise UsageError("Give the target as --length TOKENS or as --factor NUMBER, and only one.")
    if target.factor is not None and not 1 <= target.factor <= 1e9:
        raise UsageError(f"--factor {target.factor} is not a number of at least 1 (and below 1e9).")
    if target.length is not None and target.length < 1:
        raise UsageError(f"--length {target.length} is not a positive number of tokens.")
    if target.rescale and target.replace_scaling:
        raise UsageError(
            "--rescale keeps the scaling and --replace-scaling removes it. Give only one of them."
        )
    for name, value in target.options.items():
        if value is None:
            continue
        flag = _flag(name)
        if target.rescale:
            raise UsageError(f"{flag} cannot be given with --rescale, which keeps every setting.")
        if name not in METHODS[target.method].options:
            takes = " and ".join(sorted(m.name for m in METHODS.values() if name in m.options))
            raise UsageError(f"{flag} belongs to {takes or 'no method'}, not to {target.method}.")
    return METHODS[target.method]


def _attention_keys(rope: RopeConfig) -> list[str]:
    """Notes on the keys that also change attention.

    Raises:
        UnsupportedArchitectureError: it is not known what a key does in this model type.
    """
    notes = []
    for key in rope.attention_keys:
        place = ".".join((*rope.text_path, *key.path))
        if key.path == (DUAL_CHUNK,):
            raise UnsupportedArchitectureError(
                f"The config has {place}, which no current engine runs, and {rope.length_key} "
                "relies on it. Remove it with: yarncli check SOURCE --fix"
            )
        if key.changes and not key.judged:
            raise UnsupportedArchitectureError(
                f"{place} is {key.value}: it {key.changes}. yarncli does not know what it does in "
                f"a {rope.model_type} model, so it cannot plan an extension. Remove the key if you "
                "know that your engine does not read it."
            )
        if key.grows or not key.changes:
            notes.append(f"{key.describe()}; it is not changed.")
    return notes


def _extendable(rope: RopeConfig, target: Target, length: int) -> list[Scope]:
    """The scopes with layers that attend beyond a window; only those can be extended."""
    window = target.sliding_window
    if isinstance(window, int) and window < length:
        raise UsageError(
            f"--sliding-window {window} is shorter than the {length:,} tokens asked for. Give at "
            f"least --sliding-window {length}, or off."
        )
    used = [s for s in rope.scopes.values() if s.layers]
    bounded = {
        s.name
        for s in used
        if s.window is not None and s.window < length and set(s.layers) <= {*rope.windowed_layers}
    }
    if open_scopes := [s for s in used if s.name not in bounded]:
        return open_scopes
    shortest = min(s.window for s in used if s.window)
    if rope.nope_layers:
        raise UnsupportedArchitectureError(without_rope(rope, shortest))
    every = (
        f"Every layer of this {rope.model_type} model attends only within {shortest:,} tokens; "
        "scaling RoPE alone cannot lengthen it."
    )
    if can_widen(rope):
        refused = {target.method, METHODS[target.method].rope_type} & rope.family.refuses.keys()
        changes = {"method": "ntk"} if refused else {}
        command = convert_command(rope, target, length, sliding_window=OFF, **changes)
        every += f" Extend the sliding window as well: {command}."
    raise UnsupportedArchitectureError(every)


def _refuse(
    rope: RopeConfig, scaled: Sequence[Scope], method: Method, target: Target, length: int
) -> None:
    """Refuse a model that cannot take the method, or does not need it."""
    # A family that refuses a RoPE type refuses every method that writes it.
    refuses = rope.family.refuses
    reason = refuses.get(method.name) or refuses.get(method.rope_type)
    if reason:
        raise UnsupportedArchitectureError(f"{rope.model_type} cannot take {method.name}: {reason}")
    if method.mla_refusal and rope.is_mla:
        raise UnsupportedArchitectureError(
            f"{rope.model_type} uses multi-head latent attention, where {method.mla_refusal}"
        )
    for scope in scaled:
        if scope.parameters.rope_type == "proportional":
            raise UnsupportedArchitectureError(
                f"The {scope.name} layers of {rope.model_type} use rope_type 'proportional', for "
                "which no extension method is published."
            )
    if scaled and not target.replace_scaling:
        _refuse_extended(rope, scaled[0], target)
    if target.replace_scaling and rope.original_source != "--original-length":
        raise UsageError(
            "--replace-scaling needs --original-length N: the window, in tokens, that the model "
            "was trained with before any scaling."
        )
    is_told = rope.original_source == "--original-length"
    window = rope.original_length if is_told else rope.max_position_embeddings
    if not target.replace_scaling and length <= window and not method.follows_text:
        raise CheckpointError(
            f"The model already reads {window:,} tokens, so nothing needs to change for "
            f"{length:,}. Ask for more than {window:,}."
        )


def _refuse_extended(rope: RopeConfig, scope: Scope, target: Target) -> None:
    p = scope.parameters
    window = scaled_window(p, nested=rope.maximum_is_window)
    length = target.length or int((target.factor or 1) * window)
    known = p.original_max_position_embeddings or _known_original(rope)
    ways = []
    if length > window and can_rescale(p):
        plain = {"method": None, "replace_scaling": None, **dict.fromkeys(target.options)}
        go_on = convert_command(rope, target, length, rescale=True, **plain)
        ways.append(f"extend it further by that method with: {go_on}")
    change = convert_command(
        rope, target, length, method=target.method, replace_scaling=True,
        original_length=known or "N",
    )  # fmt: skip
    unknown = "" if known else " (N is the window that the model was trained with)"
    ways.append(f"change the method with: {change}{unknown}")
    raise CheckpointError(
        f"The model is already extended: rope_type {p.rope_type!r}, factor "
        f"{p.resolved_factor():g}, {window:,} tokens. You can {'; or '.join(ways)}."
    )


def _original_for(rope: RopeConfig, target: Target) -> tuple[int, str]:
    """The window that the model was trained with, and where it is known from.

    A rescaling takes the original window of the existing scaling.
    """
    if target.rescale:
        if rope.original_source == "--original-length":
            raise UsageError(
                "--original-length cannot be given with --rescale, which keeps the original length "
                "of the scaling. To change it, use --replace-scaling."
            )
        known = _known_original(rope)
        if known is not None:
            return known, f"known original of {rope.model_type}"
        return _scaled(rope).original_length, "the scaling it has"
    return rope.original_length, rope.original_source


def _known_original(rope: RopeConfig) -> int | None:
    """The window that the model was trained with, if only its family's table states it.

    Engines then take `max_position_embeddings`. That is the window that the model ships with, or,
    if the author of the scaling raised it, that window times the factor.
    """
    p, known = _scaled(rope), rope.family.known_originals
    if p.rope_type not in HAVE_ORIGINAL or p.original_max_position_embeddings is not None:
        return None
    return known.get(p.max_position_embeddings) or known.get(
        round(p.max_position_embeddings / p.resolved_factor())
    )


def _scaled(rope: RopeConfig) -> RopeParameters:
    """The first setting that is scaled; if none is, the setting that decides the window."""
    scaled = [s.parameters for s in rope.scopes.values() if s.parameters.rope_type != "default"]
    return scaled[0] if scaled else _first(rope)


def _first(rope: RopeConfig) -> RopeParameters:
    """The setting that decides the window: the one of the first scope without a window."""
    used = [s for s in rope.scopes.values() if s.layers]
    return next((s for s in used if not s.windowed), used[0]).parameters


def _length_and_factor(target: Target, base: int, original: int) -> tuple[int, float, list[str]]:
    """The new window, its factor over the original one, and notes.

    Args:
        target: what is asked for.
        base: the window that --factor multiplies, tokens.
        original: the window that the model was trained with, tokens.
    """
    if target.length is not None:
        if target.length < original:
            raise UsageError(
                f"--length {target.length:,} is shorter than the original window of {original:,}."
            )
        if target.length > LONGEST:
            raise UsageError(f"--length {target.length:,} is more than {LONGEST:,} tokens.")
        return target.length, factor_for(target.length, original), []
    assert target.factor is not None
    length = int(target.factor * base)
    if target.factor > _LARGEST_FACTOR:
        meant = int(target.factor) if base < target.factor <= LONGEST else min(length, LONGEST)
        raise UsageError(
            f"--factor {target.factor:g} is more than {_LARGEST_FACTOR:g}, the largest of any "
            f"published model. Did you mean --length {meant}?"
        )
    if length > LONGEST:
        raise UsageError(f"--factor {target.factor:g} gives more than {LONGEST:,} tokens.")
    factor = factor_for(length, original)
    if length == target.factor * base:
        return length, float(target.factor) if base == original else factor, []
    note = (
        f"--factor {target.factor:g} gives {target.factor * base:,.10g} tokens; rounded down to "
        f"{length:,} (factor {factor!r})."
    )
    return length, factor, [note]


def window_of(rope: RopeConfig) -> int:
    """The window, in tokens, that the config gives the model as it stands."""
    return scaled_window(_first(rope), nested=rope.maximum_is_window)


def _largest_change(scope: ScopePlan) -> str:
    """A note: how far the frequencies move up and down from the present setting."""
    # At a length beyond the original window longrope uses its long factors.
    before = scope.before.inv_freq(scope.before.original_length + 1)
    ratios = [a / b for a, b in zip(scope.after.inv_freq(), before, strict=True) if b]
    up, down = max(ratios), min(ratios)
    return (
        f"{scope.name}: compared with the present scaling, frequencies are multiplied by "
        f"{down:.3g} to {up:.3g}."
    )


def _window_notes(rope: RopeConfig, scopes: Sequence[Scope], length: int) -> list[str]:
    flat = len(rope.scopes) == 1
    windowed = any(s.window is not None and s.window < length for s in scopes)
    if flat and windowed:
        return [
            f"Some layers attend within {rope.sliding_window:,} tokens; the config has one RoPE "
            "setting, so these layers are scaled too."
        ]
    return []


def check_values(plan: RopePlan) -> None:
    """Check that the numbers of a plan agree with each other before anything is written.

    Raises:
        ConfigError: a bug in the plan, or lengths too large for a double.
    """
    for scope in plan.scopes:
        p = scope.after
        if p.rope_type == "yarn" and int(p.resolved_factor() * p.original_length) != plan.length:
            raise ConfigError(f"factor {p.factor} × {p.original_length} is not {plan.length}.")
