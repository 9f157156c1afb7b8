"""What a checkpoint is to compute: its recorded plan, or what transformers 5 reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.loaders import version_5
from yarncli.engines.shared import transformers_numbers
from yarncli.engines.types import Model, NoReading, Used
from yarncli.history import BAKED_MARKER, History


def find_intended(model: Model, history: History) -> dict[str, Used]:
    """What is intended, per scope; the intended window is the model's length.

    Planned scopes are as the last plan says, the others as transformers 5 reads them: the setting
    counts, and where a model class fails to compute it, that is its fault. What was baked into the
    weights is no longer intended of the config.

    Args:
        model: the config, with the window of the plan.
        history: the steps of `yarncli.json`.
    """
    scopes = _by_config(model)
    if history.plan:
        after = {scope.name: scope.after for scope in history.plan.scopes}
        scopes |= {n: transformers_numbers(model, after[n]) for n in scopes if n in after}
    if history.baked:
        baked = history.baked.to_json()
        scopes = {name: _baked(name, used, baked) for name, used in scopes.items()}
    return scopes


def _by_config(model: Model) -> dict[str, Used]:
    """The numbers of transformers 5; a marked bake has its temperature in the weights."""
    try:
        parameters = version_5(model)
    except NoReading:
        parameters = {name: scope.parameters for name, scope in model.rope.scopes.items()}
    scopes = {name: transformers_numbers(model, p) for name, p in parameters.items()}
    marker = model.config.get(BAKED_MARKER) or model.text.get(BAKED_MARKER)
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
        return replace(used, attention_factor=1.0)
    plain = replace(used.parameters, attention_factor=None, mscale=None, mscale_all_dim=None)
    return replace(used, attention_factor=plain.effective_attention_factor())
