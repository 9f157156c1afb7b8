"""The RoPE settings under which one checkpoint is evaluated, decided without writing them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.config.families.refused_types import no_rope_types
from yarncli.config.reading import read_rope
from yarncli.errors import UnsupportedArchitectureError, UsageError
from yarncli.history import read_history
from yarncli.jsontext.text import JsonText
from yarncli.options import choose
from yarncli.planning.plan import check_values, make_plan, window_of
from yarncli.planning.rope_plan import parameters_to_json
from yarncli.planning.target import Target
from yarncli.planning.writing import write_rope
from yarncli.rope.methods import DEFAULT_METHOD, METHOD_ALIASES, METHODS, get_method, option_names

AS_IT_IS = "as it is"
CONTROL = "control"
NONE = "none"
DYNAMIC_YARN = "dynamic-yarn"
"""YaRN whose factor is that of the evaluated context (arXiv:2309.00071 §3.3); no config says it."""

SETTINGS = ("method", "factor", "length", "original_length", *option_names())
"""The names that `--override` takes."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One setting of the model."""

    name: str
    """Name of its column in the report."""
    config: Mapping[str, Any] | None
    """The content of config.json; None for the checkpoint's own."""
    window: int
    """Intended window, tokens; 0 if not known."""
    original: int
    """Window that the model was trained with, tokens; 0 if not known."""
    rope: Mapping[str, Any]
    """The setting per scope, for the report; empty if not known."""
    checkpoint: Checkpoint | None = None
    """The checkpoint with the weights; None behind a server."""
    config_for: Callable[[int], Mapping[str, Any]] | None = None
    """Length of the text, tokens → content of config.json; None if the length does not matter."""
    note: str = ""
    """Why only this setting can be measured; empty if others can be as well."""

    def require_positions(self, length: int) -> None:
        """Refuse a text that has more tokens than a model without RoPE has positions.

        Raises:
            UsageError: it has.
        """
        if not self.rope and 0 < self.window < length:
            name = self.checkpoint.name if self.checkpoint else self.name
            raise UsageError(
                f"{name} has learned vectors for {self.window:,} positions, too few for a text of "
                f"{length:,} tokens. Give shorter --lengths."
            )

    def to_json(self) -> dict[str, Any]:
        """As recorded with the results."""
        return {"original": self.original, "window": self.window, "rope": self.rope}


@dataclass(frozen=True)
class Override:
    """A conversion to try, as `--override` describes it."""

    target: Target
    original_length: int | None = None
    grows: bool = False
    """Whether it is `DYNAMIC_YARN`."""

    @property
    def has_target(self) -> bool:
        """Whether it says how far to extend."""
        return self.target.length is not None or self.target.factor is not None


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The settings of a checkpoint that the user asks for."""

    override: Override | None = None
    """A conversion to try, or None."""
    methods: Sequence[str] = ()
    """Of `METHODS`, or "none", side by side; empty for one setting."""
    control: bool = False
    """Whether to ask the same weights with the scaling off as well."""
    control_checkpoint: Checkpoint | None = None
    """A checkpoint to measure as well, unchanged, or None."""


def choose_variants(checkpoint: Checkpoint, choice: Choice, longest: int = 0) -> list[Variant]:
    """The settings to evaluate, the one in question first.

    Args:
        checkpoint: whose settings they are.
        choice: which.
        longest: prompt, tokens; what `methods` are extended to where nothing else says it.

    Raises:
        UsageError: a method twice, nothing to extend to, or no control that could be made.
        CheckpointError, UsageError: as `make_plan`.
    """
    override = choice.override
    if choice.methods:
        methods = [_method(name) for name in choice.methods]
        choice = replace(choice, methods=methods)
        if len(set(choice.methods)) != len(choice.methods):
            raise UsageError(f"--compare {','.join(choice.methods)}: give each method only once.")
        if not longest and (override is None or not override.has_target):
            raise UsageError("--compare needs a length: give --lengths or --override factor=N.")
        variants = compared(checkpoint, choice.methods, override, longest)
    elif override is not None:
        variants = [tried(checkpoint, override)]
    else:
        variants = [as_it_is(checkpoint)]
    if choice.control:
        written = not choice.methods and override is None
        base = unscaled_config(checkpoint) if written else base_config(checkpoint)
        variants.append(_variant(CONTROL, base.value, base.value))
    variants = [replace(variant, checkpoint=checkpoint) for variant in variants]
    if choice.control_checkpoint is not None:
        variants.append(as_it_is(choice.control_checkpoint, CONTROL))
    return variants


def notes_of(variants: Iterable[Variant]) -> tuple[str, ...]:
    """What should be said of settings with their results; a sentence each."""
    return tuple(dict.fromkeys(variant.note for variant in variants if variant.note))


def refuse_two_controls(control: bool, control_model: str | None) -> None:
    """Refuse a control that is to be made and one that is given.

    Raises:
        UsageError: both are asked for.
    """
    if control and control_model:
        raise UsageError("Give --control or --control-model, not both.")


def parse_override(text: str) -> Override:
    """Read `method=yarn,factor=4,beta_fast=16,original_length=32768`.

    Raises:
        UsageError: an unknown name, or a value that is not a number.
    """
    values: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or name.strip() in values:
            raise UsageError(
                f"--override {text}: write name=value pairs such as method=yarn,factor=4."
            )
        values[choose(name.strip(), SETTINGS, "setting of --override")] = value.strip()
    method = _method(values.pop("method", DEFAULT_METHOD))
    grows = method == DYNAMIC_YARN
    method = "yarn" if grows else method
    numbers = {name: _number(name, value) for name, value in values.items()}
    original = numbers.pop("original_length", None)
    length, factor = numbers.pop("length", None), numbers.pop("factor", None)
    if grows and (length, factor) != (None, None):
        raise UsageError(
            f"--override: {DYNAMIC_YARN} takes its factor from the length of the text, so leave "
            "out factor and length."
        )
    if "truncate" in numbers:
        numbers["truncate"] = bool(numbers["truncate"])
    return Override(
        Target(
            method=method,
            length=None if length is None else int(length),
            factor=factor,
            # A trial replaces whatever scaling is there; nothing is written.
            replace_scaling=original is not None,
            options=numbers,
        ),
        None if original is None else int(original),
        grows,
    )


def comparable() -> tuple[str, ...]:
    """What `--compare` takes: "none", every method, and YaRN that follows the context."""
    return (NONE, *METHODS, DYNAMIC_YARN)


def _method(name: str) -> str:
    """One of those as it is spelt here."""
    return choose(name, comparable(), "method", aliases=METHOD_ALIASES)


def as_it_is(checkpoint: Checkpoint, name: str = AS_IT_IS) -> Variant:
    """The checkpoint's own setting; a model without RoPE is a baseline, too."""
    config = checkpoint.config().value
    try:
        rope = read_rope(config)
    except UnsupportedArchitectureError as error:
        note = f"{error} The model was measured unchanged, as a baseline."
        positions = _learned_positions(config)
        return Variant(
            name=name,
            config=None,
            window=positions,
            original=0,
            rope={},
            note=note,
            checkpoint=checkpoint,
        )
    original = read_history(checkpoint).informed(rope).original_length
    return replace(_variant(name, config, None), original=original, checkpoint=checkpoint)


def _learned_positions(config: Mapping[str, Any]) -> int:
    """How many tokens a model with a vector for each position can read; 0 for other models."""
    if no_rope_types().get(str(config.get("model_type"))) != "learned":
        return 0
    stated = (config.get(key) for key in ("max_position_embeddings", "n_positions", "n_ctx"))
    return next((number for number in stated if type(number) is int), 0)


def overridden(base: JsonText, override: Override, name: str) -> Variant:
    """The setting that `yarncli convert` would write.

    Raises:
        CheckpointError, UsageError: as `make_plan`.
    """
    rope = read_rope(base.value, original_length=override.original_length)
    if override.grows:
        return replace(_variant(name, base.value, base.value), config_for=_growing(base, override))
    plan = make_plan(rope, override.target)
    check_values(plan)
    written = write_rope(base, rope, plan)
    found = _variant(name, written.value, written.value)
    return replace(found, window=plan.length, original=plan.original_length)


def _growing(base: JsonText, override: Override) -> Callable[[int], Mapping[str, Any]]:
    """The config for a text of so many tokens: with the factor of its length, if it is too long."""

    @cache
    def config_for(length: int) -> Mapping[str, Any]:
        rope = read_rope(base.value, original_length=override.original_length)
        if length <= rope.original_length:
            return base.value
        target = replace(override.target, length=length)
        written = overridden(base, Override(target, override.original_length), DYNAMIC_YARN)
        assert written.config is not None
        return written.config

    return config_for


def unscaled_config(checkpoint: Checkpoint) -> JsonText:
    """config.json as it was before yarncli converted it, from `yarncli.json`.

    Raises:
        UsageError: nothing is recorded, or the temperature was baked into the weights.
    """
    config = checkpoint.config()
    history = read_history(checkpoint)
    problem = None
    if history.plan is None:
        problem = "no record of a conversion (yarncli.json)"
    elif history.baked:
        problem = "its attention factor in the weights"
    if problem is not None:
        raise UsageError(
            f"{checkpoint.name} has {problem}, so its scaling cannot be removed. Use the "
            "checkpoint that it was made from, as --control-model, or as MODEL to try settings."
        )
    return history.unconverted("config.json", config)


def base_config(checkpoint: Checkpoint) -> JsonText:
    """config.json to try settings on: with the scaling off, or as it is where there is none.

    Raises:
        UsageError: there is a scaling, and `unscaled_config` cannot take it off.
    """
    return unscaled_config(checkpoint) if _is_scaled(checkpoint) else checkpoint.config()


def tried(checkpoint: Checkpoint, override: Override) -> Variant:
    """The setting that `override` describes, from what the checkpoint was before any scaling.

    With an original length, a scaling that cannot be taken off is replaced as in
    `convert --replace-scaling`.

    Raises:
        CheckpointError, UsageError: as `overridden` and `base_config`.
    """
    replaces = override.original_length is not None and read_history(checkpoint).plan is None
    base = checkpoint.config() if replaces else base_config(checkpoint)
    return overridden(base, override, DYNAMIC_YARN if override.grows else override.target.method)


def at_attention_factors(
    checkpoint: Checkpoint, override: Override, factors: Sequence[float]
) -> list[Variant]:
    """What `override` describes with each of the attention factors √(1/t), which name them.

    Reference: arXiv:2309.00071 A.2, where perplexity is told over 1/√t.

    Raises:
        UsageError: no window to extend to, a factor twice, or the method has none.
        CheckpointError, UsageError: as `tried`.
    """
    if not override.has_target:
        raise UsageError(
            "Say how far the model is extended: --attention-factors with --override factor=4."
        )
    if len(set(factors)) != len(factors) or "attention_factor" in override.target.options:
        raise UsageError("--attention-factors: give each number once, and none in --override.")
    found = []
    for factor in factors:
        options = {**override.target.options, "attention_factor": factor}
        variant = tried(
            checkpoint, replace(override, target=replace(override.target, options=options))
        )
        found.append(replace(variant, name=f"{factor:g}", checkpoint=checkpoint))
    return found


def compared(
    checkpoint: Checkpoint, methods: Sequence[str], override: Override | None, longest: int
) -> list[Variant]:
    """One variant per method, all extended to the same length.

    Args:
        checkpoint: unscaled, or converted by yarncli (its record takes the scaling off first).
        methods: of `METHODS`, or "none".
        override: gives target and options; the method is each of `methods` in turn.
        longest: the target where `override` has none, tokens.

    Raises:
        UsageError: an unknown method. Otherwise as `overridden`.
    """
    base = base_config(checkpoint)
    variants = []
    for method in methods:  # by their own names
        if method == NONE:
            variants.append(_variant(NONE, base.value, base.value))
            continue
        if method == DYNAMIC_YARN:
            grown = Override(Target(), override.original_length if override else None, grows=True)
            variants.append(overridden(base, grown, method))
            continue
        target = override.target if override else Target()
        takes = get_method(method).options
        options = {name: value for name, value in target.options.items() if name in takes}
        asked = replace(target, method=method, options=options)
        if target.length is None and target.factor is None:
            asked = replace(asked, length=longest)
        original = override.original_length if override else None
        variants.append(overridden(base, Override(asked, original), method))
    return variants


def default_lengths(variants: Sequence[Variant]) -> list[int]:
    """Half the original window, the window, then its doublings to the longest extended window."""
    original = min(variant.original for variant in variants)
    window = max(variant.window for variant in variants)
    lengths = [original // 2, original]
    while lengths[-1] * 2 < window:
        lengths.append(lengths[-1] * 2)
    return lengths if lengths[-1] >= window else [*lengths, window]


def _variant(name: str, value: Mapping[str, Any], config: Mapping[str, Any] | None) -> Variant:
    rope = read_rope(value)
    scopes = {s.name: parameters_to_json(s.parameters) for s in rope.scopes.values()}
    return Variant(
        name=name, config=config, window=window_of(rope), original=rope.original_length, rope=scopes
    )


def _is_scaled(checkpoint: Checkpoint) -> bool:
    """Whether RoPE is not as trained; a conversion by ntk shows only in the record."""
    scopes = read_rope(checkpoint.config().value).scopes.values()
    is_stated = any(scope.parameters.rope_type != "default" for scope in scopes)
    return is_stated or read_history(checkpoint).plan is not None


def _number(name: str, value: str) -> float:
    if name == "truncate" and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f"--override: {name} must be a number, not {value!r}.") from error
