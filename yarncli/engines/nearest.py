"""Finds the probe of a wiring table that is most like a config: the engine treats both alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from yarncli.engines.loaders import with_fields
from yarncli.engines.resolving import BLOCKS
from yarncli.engines.shared import ORIGINAL
from yarncli.engines.tables import Row
from yarncli.engines.types import Model, NotKnown
from yarncli.rope.parameters import RopeParameters

TYPES = ("linear", "dynamic", "yarn", "llama3", "longrope")


class Setting:
    """The RoPE setting of a config beside the row of its model type."""

    def __init__(self, model: Model, row: Row, spelling: str) -> None:
        """Take the dict that counts for the layers that are scaled, and its spelling.

        Args:
            model: the config.
            row: what the engine does with its model type.
            spelling: that of the file, be it that one of two blocks is left out of `model`.
        """
        self.model, self.row = model, row
        self.spelling = spelling
        self.block = _main_block(model)
        self.kind = _kind_of(self.block)

    def defects(self) -> Iterator[str]:
        """The probes that share with the config a property on which the engine may fail."""
        block, text, kind = self.block, self.model.text, self.kind
        if not _typed(block) and block.get("factor") is not None:
            yield "yarn no type"
        if kind not in TYPES:
            return
        if "factor" not in block and kind != "longrope":
            yield "yarn no factor"
        if block.get(ORIGINAL, text.get(ORIGINAL)) is None and kind in ("yarn", "llama3"):
            yield f"{kind} no original"
        if kind == "linear" and type(block.get("factor")) is int:
            yield "linear integer factor"
        nulls = {key for key in block if block[key] is None}
        for key in ("factor", "attention_factor"):
            if key in nulls:
                yield f"yarn {key} null"
        if nulls & {"beta_fast", "beta_slow"}:
            yield "yarn betas null"
        if {"mscale", "mscale_all_dim"} & block.keys() and kind == "yarn":
            yield "yarn mscale"

    def nearest(self) -> str:
        """The probe whose outcome shows what the engine does with the setting.

        Raises:
            NotKnown: there is none.
        """
        if None in (self.block.get("rope_type", ""), self.block.get("type", "")):
            raise NotKnown("Nobody examined what it does with a type that is null.")
        if self.is_turned():
            if self.kind != "yarn" and "yarn" not in _kinds(self.block):
                raise NotKnown(f"Nobody examined what it does with this {BLOCKS[1]}.")
            return "yarn turned"
        if self.spelling == "both" and self.row.entry["spelling"] != "either":
            kinds = [self.kind, _kind_of(self.model.block("rope_parameters"))]
            if kinds == ["yarn", "linear"]:
                return "rope_scaling yarn rope_parameters linear"
            if kinds[0] != kinds[1] and not self.model.family.scopes:
                raise NotKnown("Nobody examined what it does with two blocks that differ in type.")
        if not self.block:
            if self.model.text.get("rope_scaling", "absent") in (None, {}) and self.states_theta():
                is_null = self.model.text["rope_scaling"] is None
                if not is_null and self.model.family.scopes:
                    raise NotKnown("Nobody examined what it does with an empty rope_scaling here.")
                return "rope_scaling null" if is_null else "rope_scaling empty"
            return "default legacy" if self.states_theta() else "no theta"
        if not _typed(self.block) and self.block.get("factor") is not None:
            return "yarn no type"
        if self.kind == "default" or (self.kind == "mrope" and self.model.family.mrope):
            return f"default {self.spelling}" if self.states_theta() else "no theta"
        if self.kind == "proportional":
            return "default legacy"
        usual = f"{self.kind} {self.spelling}" if self.kind in TYPES else "unknown type"
        has_mscales = {"short_mscale", "long_mscale"} <= self.block.keys()
        # PhiMoE insists on them, and the usual probe has none.
        needed = self.kind == "longrope" and has_mscales and self.row.failure(usual)
        return "longrope mscales" if needed else usual

    def is_turned(self) -> bool:
        """Whether `rope_parameters` is nested for a flat model type, or flat for a nested one."""
        block = self.model.block("rope_parameters")
        if self.spelling != "v5":
            return False
        nested = any(isinstance(value, Mapping) for value in block.values())
        return nested != bool(self.model.family.scopes)

    def states_theta(self) -> bool:
        """Whether the file gives a θ."""
        keys = {*self.model.family.theta_keys, "rope_theta"}
        keys |= {key for rule in self.model.family.scopes for key in rule.theta_keys}
        return "rope_theta" in self.block or any(self.model.text.get(k) is not None for k in keys)


def spelling_of(model: Model) -> str:
    """Which of the probes' spellings a config has: "legacy", "v5" or "both"."""
    given = [key for key in BLOCKS if model.block(key)]
    if len(given) == 2:
        return "both"
    return "v5" if given == ["rope_parameters"] else "legacy"


def _main_block(model: Model) -> Mapping[str, Any]:
    """The dict that is read for the layers that are scaled."""
    scaling, parameters = model.block("rope_scaling"), model.block("rope_parameters")
    if scaling:
        return scaling
    for rule in model.family.scopes:
        if not rule.windowed and isinstance(parameters.get(rule.name), Mapping):
            return dict(parameters[rule.name])
    return parameters


def _kind_of(block: Mapping[str, Any]) -> str:
    return str(block.get("rope_type") or block.get("type") or "default")


def _typed(block: Mapping[str, Any]) -> bool:
    return "rope_type" in block or "type" in block


def _kinds(block: Mapping[str, Any]) -> set[str]:
    inner = [value for value in block.values() if isinstance(value, Mapping)]
    return {_kind_of(value) for value in inner}


def with_keys(model: Model, keys: Mapping[str, Any], *, without: str = "") -> Model:
    """The model with other keys of its text part.

    Args:
        model: the model.
        keys: what to set.
        without: a key to leave out.
    """
    return with_fields(model, {**{k: v for k, v in model.text.items() if k != without}, **keys})


def refuse_unstated_share(
    model: Model, row: Row, block: Mapping[str, Any], p: RopeParameters
) -> None:
    """Do not guess the rotary width where the file leaves it to a default.

    Raises:
        NotKnown: the default in the probes, for heads of 64, was another.
    """
    keys = {*model.family.partial_keys, model.family.rotary_dim_key, "qk_rope_head_dim"}
    if "partial_rotary_factor" in block or any(model.text.get(key) is not None for key in keys):
        return
    if abs(p.rotary_dim / p.head_dim - row.entry["dim"] / 64) > 0.01:
        raise NotKnown(
            f"The config gives no partial_rotary_factor, and the default that {row.release} takes "
            "is not known. Write it out."
        )


def refuse_scaled_windows(
    model: Model, row: Row, parameters: Mapping[str, RopeParameters], probe: str
) -> None:
    """Do not guess how a scaling changes windowed layers for which it is not intended.

    Raises:
        NotKnown: it reaches them.
    """
    for rule in model.family.scopes:
        p, line = parameters.get(rule.name), row.outcome(probe, rule.name)
        reached = not line.startswith("plain") or (probe.startswith("dynamic") and "theta" in line)
        if p and rule.windowed and p.rope_type == "default" and reached:
            raise NotKnown(
                f"The scaling also changes the {rule.name} layers; by how much was not examined."
            )
