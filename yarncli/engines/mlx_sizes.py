"""Where a model file of mlx-lm or mlx-vlm takes θ and the share of a head that rotates from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.tables import Row
from yarncli.engines.types import EngineCrash, LoaderError, Model, NotKnown
from yarncli.rope.parameters import RopeParameters

THETA = "rope_theta"
PART = "partial_rotary_factor"
ERROR = re.compile(r"[A-Z]\w*(Error|Exit)\b")


def number(key: str, value: Any) -> float:
    """A value of the config as a number.

    Raises:
        LoaderError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise LoaderError(f"{key} is {value!r}, which is no number.")
    return float(value)


def find_theta(row: Row, model: Model, name: str, block: Mapping[str, Any]) -> float:
    """θ of a scope, from where the file takes it.

    Args:
        row: what is known about the file.
        model: the config.
        name: the scope.
        block: the dict that the file reads for it.

    Raises:
        LoaderError: it stops there, or the value is no number.
        EngineCrash: there is none, and no default.
    """
    own = model.text.get(model.family.attention_key)
    held = own if isinstance(own, Mapping) else model.text
    keys = [THETA, *model.family.theta_keys]
    stated = next((key for key in keys if key in held), None)
    top = held[stated] if stated else None
    newer = model.block("rope_parameters")
    entry = newer.get(name)
    inner = block.get(THETA) or (entry if isinstance(entry, Mapping) else newer).get(THETA)
    if inner is not None and _takes(row, "v5"):
        if top is None or "theta=" not in row.outcome("theta top and block"):
            return number(THETA, inner)
    elif newer and _takes(row, "v5"):
        line = row.outcome("theta top block silent")
        if ERROR.match(line):
            raise LoaderError(f"{row.release} stops while loading {row.model_type}: {line}.")
        built_in = re.search(r"theta=([\d.e+]+)", line)
        if built_in:
            return float(built_in[1])
    if top is not None and _takes(row, "legacy"):
        return number(THETA, top)
    found = (row.entry.get(key) for key in ("theta", "default_theta"))
    default = next((n for n in found if isinstance(n, int | float)), None)
    if default is None or (stated and _takes(row, "legacy")):
        raise EngineCrash(f"{row.model_type} without {THETA}, for which it has no default.")
    return float(default)


def _takes(row: Row, spelling: str) -> bool:
    """Whether θ of that spelling reaches the model: at the top level, or in `rope_parameters`."""
    if "outcome" not in row.entry:
        return row.entry["spelling"] in ("either", "rope_scaling" if spelling == "legacy" else "")
    probes = [f"{kind} {spelling}" for kind in ("default", "linear", "yarn")]
    probes += ["rope_scaling null"] if spelling == "legacy" else []
    lines = [line for line in map(row.outcome, probes) if line and not ERROR.match(line)]
    return any("theta=" not in line for line in lines)


def with_part(
    row: Row, model: Model, block: Mapping[str, Any], sizes: RopeParameters
) -> RopeParameters:
    """The sizes with the share of a head that the file rotates."""
    keys = (*model.family.partial_keys, model.family.rotary_dim_key)
    if model.rope.is_mla:
        return sizes
    if row.entry.get("part") == "ignored":
        return replace(sizes, partial_rotary_factor=class_share(row))
    if any(key in model.text for key in keys):
        return sizes
    inner = block.get(PART, model.block("rope_parameters").get(PART))
    line = row.outcome("no part" if inner is None else "part in block")
    if inner is None and not line and "dim" in row.entry:
        return replace(sizes, partial_rotary_factor=class_share(row))
    if line == "plain" and inner in (None, model.family.partial_rotary_factor):
        return sizes
    if line == "plain" and row.outcome("no part") != line:
        return sizes
    if "dim=" in line:
        return replace(sizes, partial_rotary_factor=1.0)
    raise NotKnown(f"Nobody examined where {row.release} takes {PART} from in {row.model_type}.")


def class_share(row: Row) -> float:
    """The share of a head that rotates where nothing says it: of the 64 that a probe has."""
    share = float(row.entry["dim"] / 64)
    if share > 1:
        raise NotKnown(f"The width of the heads of {row.model_type} in {row.release} is not known.")
    return share
