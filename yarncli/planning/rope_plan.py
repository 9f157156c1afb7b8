"""RopePlan: every number of a context extension as one frozen value, and as plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from yarncli.jsontext.fields import Fields
from yarncli.rope.parameters import RopeParameters

if TYPE_CHECKING:
    from yarncli.config.reading import RopeConfig

_NAMES = tuple(name for name in RopeParameters.__dataclass_fields__ if name != "extra")
_SIDES = ("before", "after")


@dataclass(frozen=True, slots=True)
class ScopePlan:
    """One scope before and after; only scopes that change are planned."""

    name: str
    before: RopeParameters
    after: RopeParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class RopePlan:
    """A decided context extension."""

    method: str
    """The name of the method in `METHODS`."""
    model_type: str
    """The model type of the text part of the config."""
    length: int
    """The window that the model is to read, tokens."""
    factor: float
    """New window / original window."""
    original_length: int
    """The original window, tokens."""
    original_source: str
    """The source of the original window, in words."""
    max_position_embeddings: int
    """The value to write, tokens; for linear and dynamic it differs from `length`."""
    scopes: tuple[ScopePlan, ...]
    """The scopes that change."""
    notes: tuple[str, ...]
    """What a user should know about the extension."""
    sliding_window: int | Literal["off"] | None = None
    """The sliding window to write, tokens, or "off"; `None` if it does not change."""

    @property
    def is_unmarked(self) -> bool:
        """Whether the new config shows no scaling, because only θ changes (ntk)."""
        return any(scope.after.rope_type == "default" for scope in self.scopes)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, as `--json` and `yarncli.json` show it."""
        return {
            "method": self.method,
            "model_type": self.model_type,
            "length": self.length,
            "factor": self.factor,
            "original_max_position_embeddings": self.original_length,
            "original_source": self.original_source,
            "max_position_embeddings": self.max_position_embeddings,
            "sliding_window": self.sliding_window,
            "scopes": {
                scope.name: {side: parameters_to_json(getattr(scope, side)) for side in _SIDES}
                for scope in self.scopes
            },
            "notes": list(self.notes),
        }

    def describes(self, rope: RopeConfig, *, is_baked: bool = False) -> bool:
        """Whether a config has the setting of this plan in every planned scope.

        Args:
            rope: the config as read.
            is_baked: the attention factor was later moved into the weights.
        """
        planned = {scope.name: scope.after for scope in self.scopes}
        return planned.keys() <= rope.scopes.keys() and all(
            same_setting(rope.scopes[name].parameters, after, self.length, factor=not is_baked)
            for name, after in planned.items()
        )

    @classmethod
    def from_json(cls, plan: Fields) -> RopePlan:
        """The plan that `to_json` wrote down; unknown keys are ignored.

        Raises:
            ConfigError: a value is missing or impossible in a plan; the message names it.
        """
        scopes = plan.required("scopes", Fields.mapping)
        settings = {name: scopes.required(name, Fields.mapping) for name in scopes.values}
        return cls(
            method=plan.required("method", Fields.text),
            model_type=plan.required("model_type", Fields.text),
            length=plan.required("length", _size),
            factor=plan.required("factor", Fields.number),
            original_length=plan.required("original_max_position_embeddings", _size),
            original_source=plan.required("original_source", Fields.text),
            max_position_embeddings=plan.required("max_position_embeddings", _size),
            scopes=tuple(
                ScopePlan(name, *(scope.required(side, _setting) for side in _SIDES))
                for name, scope in settings.items()
            ),
            notes=plan.required("notes", Fields.strings),
            sliding_window=_sliding_window(plan),
        )


def same_setting(
    found: RopeParameters, wanted: RopeParameters, length: int, *, factor: bool = True
) -> bool:
    """Whether two settings have the same frequencies at a length, and the same attention factor.

    With `factor` False the attention factors may differ.
    """
    return (
        found.rope_type == wanted.rope_type
        and found.inv_freq(length) == wanted.inv_freq(length)
        and dict(found.extra) == dict(wanted.extra)
        and not (
            factor and found.effective_attention_factor() != wanted.effective_attention_factor()
        )
    )


def parameters_to_json(parameters: RopeParameters) -> dict[str, Any]:
    """One setting as plain data: the fields that are given, under transformers' names."""
    given = {name: getattr(parameters, name) for name in _NAMES}
    found = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items() if v is not None}
    return {**found, **parameters.extra}


def parameters_from_json(fields: Fields) -> RopeParameters:
    """The setting that `parameters_to_json` wrote down.

    Raises:
        ConfigError: a value is missing, has the wrong type, or is impossible in a formula.
    """
    known = {
        name: fields.required(name, _READERS.get(name, Fields.number))
        for name in _NAMES
        if name in _NEEDED or fields.has(name)
    }
    extra = {key: value for key, value in fields.values.items() if key not in _NAMES}
    return RopeParameters(**known, extra=extra)


def _setting(fields: Fields, key: str) -> RopeParameters:
    return parameters_from_json(fields.required(key, Fields.mapping))


def _size(fields: Fields, key: str) -> int:
    """A positive number of tokens or dimensions."""
    return fields.positive(key, 0)


def _sliding_window(plan: Fields) -> int | Literal["off"] | None:
    if not plan.has("sliding_window"):
        return None
    return "off" if plan.values["sliding_window"] == "off" else _size(plan, "sliding_window")


_NEEDED = ("rope_type", "rope_theta", "head_dim", "max_position_embeddings")
# Fields that are not listed here are numbers.
_READERS: Mapping[str, Callable[[Fields, str], Any]] = {
    "rope_type": Fields.text,
    "head_dim": _size,
    "max_position_embeddings": _size,
    "original_max_position_embeddings": _size,
    "truncate": Fields.boolean,
    "short_factor": Fields.numbers,
    "long_factor": Fields.numbers,
}
