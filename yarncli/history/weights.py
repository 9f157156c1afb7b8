"""What a step did to the weights: what a bake moved into them, or a training run changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from yarncli.errors import ConfigError
from yarncli.jsontext.fields import Fields

Form = Literal["neutral", "residual"]
Side = Literal["k", "q", "both"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Baked:
    """What a bake moved into the weights."""

    form: Form
    """neutral: the whole attention factor; residual: all but yarn's default, which stays."""
    side: Side
    """Whether the factor is in the keys (k), the queries (q) or both."""
    layout: str
    """Name of the weight layout, which says which tensors hold the factor."""
    attention_factor: Mapping[str, float]
    """Scope → the factor (m) on the rotary part of queries and of keys."""
    adapter: bool = False
    """Whether the weights are those of a LoRA adapter."""

    def to_json(self) -> dict[str, Any]:
        """As plain data: in `yarncli.json`, and as the marker in `config.json`."""
        found = {
            "form": self.form,
            "side": self.side,
            "layout": self.layout,
            "attention_factor": dict(self.attention_factor),
        }
        return {**found, "adapter": True} if self.adapter else found

    @classmethod
    def from_json(cls, fields: Fields) -> Baked:
        """What `to_json` wrote down; unknown keys are ignored.

        Raises:
            ConfigError: a value is missing, or impossible for a bake; the message names it.
        """
        form, side = (fields.required(key, Fields.text) for key in ("form", "side"))
        given = fields.required("attention_factor", Fields.mapping)
        factors = {scope: given.required(scope, Fields.number) for scope in given.values}
        known = form in get_args(Form) and side in get_args(Side)
        if not known or min(factors.values(), default=0) <= 0:
            raise ConfigError(f"{dict(fields.values)!r:.80} is not what a bake writes")
        return cls(
            form=cast(Form, form),
            side=cast(Side, side),
            layout=fields.required("layout", Fields.text),
            attention_factor=factors,
            adapter=fields.boolean("adapter"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What is known about a training run; a field is None if nothing records it."""

    steps: int | None = None
    """Steps of the optimizer."""
    train_length: int | None = None
    """The length of the training texts, tokens; the guard records it."""
    guarded: bool = False
    """Whether the guard saw the plan's frequencies in the model, at the start and at the end."""
    adapter: bool = False
    """Whether an adapter was trained, and the weights stayed as they are."""
    dtype: str | None = None
    """The dtype that the weights were cast to afterwards, in the words of safetensors."""

    def to_json(self) -> dict[str, Any]:
        """As plain data, in `yarncli.json`."""
        return {
            "steps": self.steps,
            "train_length": self.train_length,
            "guarded": self.guarded,
            "adapter": self.adapter,
            "dtype": self.dtype,
        }

    @classmethod
    def from_json(cls, fields: Fields) -> Trained:
        """What `to_json` wrote down; unknown keys are ignored.

        Raises:
            ConfigError: a value has the wrong type; the message names it.
        """
        return cls(
            steps=fields.integer("steps"),
            train_length=fields.integer("train_length"),
            guarded=fields.boolean("guarded"),
            adapter=fields.boolean("adapter"),
            dtype=fields.text("dtype"),
        )
