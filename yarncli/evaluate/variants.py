"""The RoPE settings under which one checkpoint is evaluated, decided without writing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from yarncli.checkpoint.provenance import read_provenance
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import UsageError
from yarncli.jsontext import JsonText
from yarncli.rope.config import read_rope
from yarncli.rope.methods import METHODS, OPTION_METHODS
from yarncli.rope.plan import (
    Target,
    check_values,
    make_plan,
    parameters_to_json,
    window_of,
)
from yarncli.rope.writing import write_rope

CONTROL = "control"
NONE = "none"


@dataclass(frozen=True)
class Variant:
    """One setting of the model.

    Attributes:
        name: its column in the report.
        config: the content of config.json; None for the checkpoint's own.
        window: tokens it is meant to read.
        original: tokens the model was trained with.
        rope: the setting per scope, for the report.
    """

    name: str
    config: Mapping[str, Any] | None
    window: int
    original: int
    rope: Mapping[str, Any]


@dataclass(frozen=True)
class Override:
    """What `--override` says: a conversion to try."""

    target: Target
    original_length: int | None = None


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
        values[name.strip()] = value.strip()
    method = values.pop("method", "yarn")
    if method not in METHODS:
        raise UsageError(f"--override: method must be one of {', '.join(METHODS)}, not {method!r}.")
    numbers = {name: _number(name, value) for name, value in values.items()}
    original = numbers.pop("original_length", None)
    length, factor = numbers.pop("length", None), numbers.pop("factor", None)
    unknown = sorted(set(numbers) - set(OPTION_METHODS))
    if unknown:
        known = ", ".join(("method", "factor", "length", "original_length", *OPTION_METHODS))
        raise UsageError(f"--override knows {known}; not {unknown[0]!r}.")
    if "truncate" in numbers:
        numbers["truncate"] = bool(numbers["truncate"])
    return Override(
        Target(
            method,
            None if length is None else int(length),
            factor,
            # A trial replaces whatever scaling is there; nothing is written.
            replace_scaling=original is not None,
            options=numbers,
        ),
        None if original is None else int(original),
    )


def as_it_is(checkpoint: Checkpoint, name: str = "as it is") -> Variant:
    """The checkpoint's own setting."""
    return _variant(name, checkpoint.config().value, None)


def overridden(base: JsonText, override: Override, name: str) -> Variant:
    """The setting that `yarncli convert` would write.

    Raises:
        CheckpointError, UsageError: as `make_plan`.
    """
    rope = read_rope(base.value, original_length=override.original_length)
    plan = make_plan(rope, override.target)
    check_values(plan)
    written = write_rope(base, rope, plan)
    found = _variant(name, written.value, written.value)
    return replace(found, window=plan.length, original=plan.original_length)


def unscaled_config(checkpoint: Checkpoint) -> JsonText:
    """config.json as it was before yarncli converted it, from `yarncli.json`.

    Raises:
        UsageError: nothing is recorded, or the temperature was baked into the weights.
    """
    config = checkpoint.config()
    history = read_provenance(checkpoint)
    steps = history.steps if history else ()
    if not any(step.command == "convert" for step in steps):
        raise UsageError(
            f"{checkpoint.name} has no record of a conversion (yarncli.json), so its scaling "
            "cannot be taken off. Name the checkpoint it was made from with --control-model."
        )
    if any(step.baked for step in steps):
        raise UsageError(
            f"{checkpoint.name} has its attention factor in the weights, so its scaling cannot be "
            "taken off. Name the checkpoint it was made from with --control-model."
        )
    for step in reversed(steps):
        entries = [entry for entry in step.replaced if entry["file"] == "config.json"]
        values = {tuple(e["path"]): e["before"] for e in entries if "before" in e}
        config = config.edited(values, [tuple(e["path"]) for e in entries if "before" not in e])
    return config


def control(checkpoint: Checkpoint) -> Variant:
    """The same weights with the scaling off. Raises as `unscaled_config`."""
    value = unscaled_config(checkpoint).value
    return _variant(CONTROL, value, value)


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
    scaled = any(
        scope.parameters.rope_type != "default"
        for scope in read_rope(checkpoint.config().value).scopes.values()
    )
    base = unscaled_config(checkpoint) if scaled else checkpoint.config()
    variants = []
    for method in methods:
        if method == NONE:
            variants.append(_variant(NONE, base.value, base.value))
            continue
        if method not in METHODS:
            raise UsageError(f"--compare knows none, {', '.join(METHODS)}; not {method!r}.")
        target = override.target if override else Target()
        options = {
            name: value for name, value in target.options.items() if method in OPTION_METHODS[name]
        }
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
    return Variant(name, config, window_of(rope), rope.original_length, scopes)


def _number(name: str, value: str) -> float:
    if name == "truncate" and value.lower() in ("true", "false"):
        return float(value.lower() == "true")
    try:
        return float(value)
    except ValueError as error:
        raise UsageError(f"--override: {name} must be a number, not {value!r}.") from error
