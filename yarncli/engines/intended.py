"""What a checkpoint is meant to compute: its recorded plan, or what transformers 5 reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

from yarncli.engines.loaders import LoaderError, Model, read_model, version_5
from yarncli.engines.rules import transformers_5
from yarncli.engines.verdict import Used
from yarncli.errors import ConfigError
from yarncli.planning.plan import RopePlan
from yarncli.rope.parameters import RopeParameters


class RecordedStep(Protocol):
    """One step of `yarncli.json`."""

    @property
    def plan(self) -> Mapping[str, Any]:
        """The plan as plain data; empty for a step without one."""

    @property
    def baked(self) -> Mapping[str, Any] | None:
        """What was moved into the weights, if anything."""


@dataclass(frozen=True, slots=True)
class Intended:
    """What is meant per scope, the window in tokens, and where that is known from."""

    scopes: Mapping[str, Used]
    length: int
    origin: str

    @classmethod
    def by_config(cls, model: Model) -> Intended:
        """What transformers 5 reads; plain RoPE where it does not load the config.

        It is the setting that counts: where a model class fails to compute it, that is its fault.
        """
        try:
            parameters = version_5(model)
        except LoaderError:
            parameters = {name: scope.parameters for name, scope in model.rope.scopes.items()}
        scopes = {name: transformers_5.numbers(model, p) for name, p in parameters.items()}
        return cls(_meant(model, scopes), model.length, "transformers 5")

    @classmethod
    def by_plan(
        cls, config: Mapping[str, Any], plan: RopePlan, *, assume_like: str | None = None
    ) -> Intended:
        """What a plan means for the config that was written from it.

        Raises:
            CheckpointError: the config's sizes cannot be read.
        """
        after = {scope.name: scope.after for scope in plan.scopes}
        return _planned(config, after, plan.length, None, assume_like)

    @classmethod
    def by_record(
        cls,
        config: Mapping[str, Any],
        steps: Iterable[RecordedStep],
        *,
        assume_like: str | None = None,
    ) -> Intended | None:
        """What the steps of `yarncli.json` mean for the config; `None` where they say nothing.

        Raises:
            CheckpointError: the config's sizes cannot be read, or a recorded value is impossible.
        """
        plan: Mapping[str, Any] = {}
        baked: Mapping[str, Any] | None = None
        for step in steps:
            plan = step.plan if step.plan.get("scopes") else plan
            baked = step.baked or baked
        if not plan and baked is None:
            return None
        try:
            after = {
                name: _parameters(scope["after"]) for name, scope in plan.get("scopes", {}).items()
            }
        except (AttributeError, KeyError, TypeError) as error:
            raise ConfigError(
                "yarncli.json holds a plan that yarncli did not write. Restore the file, or remove "
                "it."
            ) from error
        length = plan.get("length")
        if plan and type(length) is not int:
            raise ConfigError(
                f"yarncli.json holds the length {length!r}, which is no number of tokens. Restore "
                "the file, or remove it."
            )
        return _planned(config, after, length, baked, assume_like)


def _planned(
    config: Mapping[str, Any],
    after: Mapping[str, RopeParameters],
    length: int | None,
    baked: Mapping[str, Any] | None,
    assume_like: str | None,
) -> Intended:
    """Planned scopes from the plan, the others as transformers 5 reads them."""
    model = read_model(config, length=length, assume_like=assume_like)
    read = Intended.by_config(model).scopes
    scopes = {
        name: transformers_5.numbers(model, after[name]) if name in after else used
        for name, used in read.items()
    }
    if baked is not None:
        scopes = {name: _baked(name, used, baked) for name, used in scopes.items()}
    return Intended(scopes, model.length, "yarncli.json")


def _meant(model: Model, scopes: Mapping[str, Used]) -> Mapping[str, Used]:
    """The numbers of transformers 5; a marked bake has its temperature in the weights."""
    marker = model.config.get("yarncli_baked") or model.text.get("yarncli_baked")
    if not marker:
        return scopes
    baked = marker if isinstance(marker, Mapping) else {}
    return {name: _baked(name, used, baked) for name, used in scopes.items()}


def _baked(name: str, used: Used, baked: Mapping[str, Any]) -> Used:
    """Neutral: the config's temperature is 1. Residual: it is the method's own again."""
    factors = baked.get("attention_factor")
    if isinstance(factors, Mapping) and name not in factors:
        return used
    if baked.get("form") != "residual":
        return replace(used, attention_scale=1.0)
    plain = replace(used.parameters, attention_factor=None, mscale=None, mscale_all_dim=None)
    return replace(used, attention_scale=plain.effective_attention_factor())


def _parameters(recorded: Mapping[str, Any]) -> RopeParameters:
    """The setting that `parameters_to_json` wrote down."""
    names = {field.name for field in fields(RopeParameters)} - {"extra"}
    known: dict[str, Any] = {
        k: tuple(v) if isinstance(v, list) else v for k, v in recorded.items() if k in names
    }
    return RopeParameters(**known, extra={k: v for k, v in recorded.items() if k not in names})
