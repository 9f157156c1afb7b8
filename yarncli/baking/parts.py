"""The text models of a checkpoint: one, or several with RoPE (BLT)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from yarncli.baking.attention_factor import (
    ScopeAttentionFactor,
    decide_attention_factors,
    refuse_nothing,
    write_baked_config,
)
from yarncli.baking.modules import BakeRequest
from yarncli.baking.registry import SEVERAL, RegistryEntry, choose_layout, find_entry
from yarncli.baking.settings import BakeSettings
from yarncli.checkpoint.source import Checkpoint
from yarncli.config.quantisation import MODELOPT_FILE, read_quantisation
from yarncli.config.reading import read_rope
from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.jsontext.changes import ABSENT, changed_fields
from yarncli.jsontext.fields import Fields
from yarncli.jsontext.text import JsonText


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One text model."""

    key: str
    """The key of its config; empty if it is the only text model."""
    config: JsonText
    """Its config; the whole config if it is the only text model."""
    request: BakeRequest
    """What to bake into it."""
    found: tuple[ScopeAttentionFactor, ...]
    """The factors of its scopes."""

    @property
    def shown(self) -> tuple[ScopeAttentionFactor, ...]:
        """`found` under names that tell the parts apart."""
        return tuple(replace(each, scope=self.key or each.scope) for each in self.found)


def read_parts(checkpoint: Checkpoint, config: JsonText, settings: BakeSettings) -> list[Part]:
    """The text models of a checkpoint, each with its layout and its factors.

    Raises:
        ConfigError: a value has the wrong type or is out of range.
        CheckpointError: there is nothing to bake.
        UnsupportedArchitectureError: it is not known how to bake this model exactly.
        UsageError: the settings do not fit the model.
    """
    configs = _configs(config, settings)
    if len(configs) > 1 and settings.attention_factor is not None:
        # --attention-factor is for the extended models; the others keep their attention factor.
        scaled = [key for key, (part, _) in configs.items() if _is_scaled(part)]
        asked = scaled or list(configs)
    else:
        asked = list(configs)
    parts = []
    for key, (part, entry) in configs.items():
        own = settings if key in asked else replace(settings, attention_factor=None)
        request, found = _read(part, own, entry)
        text = request.rope.text(part.value)
        beside = checkpoint.optional_json(MODELOPT_FILE)
        quantisation = read_quantisation(config.value, text, beside)
        request = replace(request, quantisation=quantisation)
        parts.append(Part(key=key, config=part, request=request, found=found))
    refuse_nothing([each for part in parts for each in part.found], settings.form)
    return parts


def _configs(
    config: JsonText, settings: BakeSettings
) -> dict[str, tuple[JsonText, RegistryEntry | None]]:
    """The configs of the text models, by their keys."""
    several = SEVERAL.get(str(config.value.get("model_type")))
    if several is None or settings.layout or settings.assume_like:
        return {"": (config, None)}
    fields = Fields(config.value)
    return {
        key: (_inner(config, key), entry)
        for key, entry in several.items()
        if not entry.switch or fields.boolean(entry.switch, True)
    }


def _inner(config: JsonText, key: str) -> JsonText:
    part = Fields(config.value).required(key, Fields.mapping)
    return JsonText.parse(json.dumps(dict(part.values)), f"{key} of {config.where}")


def _is_scaled(config: JsonText) -> bool:
    scopes = read_rope(config.value, factor_only=True).scopes.values()
    return any(scope.parameters.rope_type != "default" for scope in scopes)


def _read(
    config: JsonText, settings: BakeSettings, entry: RegistryEntry | None
) -> tuple[BakeRequest, tuple[ScopeAttentionFactor, ...]]:
    """The layout and factors for a config; the side is keys until another one is chosen."""
    rope = read_rope(config.value, assume_like=settings.assume_like, factor_only=True)
    text = config.get(rope.text_path) if rope.text_path else config.value
    entry = entry or find_entry(rope.model_type, settings.layout)
    layout = choose_layout(entry, text)
    if layout.nothing:
        raise CheckpointError(
            f"There is nothing to bake for this {rope.model_type} model: {layout.nothing}."
        )
    found = decide_attention_factors(rope, settings.form, settings.attention_factor)
    request = BakeRequest(
        rope=rope,
        text=text,
        factors={layer: each.factor for each in found for layer in rope.scopes[each.scope].layers},
        side=settings.side or "k",
        layout=layout,
        entry=entry,
    )
    return request, found


def write_parts(config: JsonText, parts: Sequence[Part], settings: BakeSettings) -> JsonText:
    """`config.json` after the bake, without its marker.

    Raises:
        ConfigError: the new config reads back with other values, which is a bug; nothing was
            written.
    """
    for part in parts:
        written = write_baked_config(
            _scale_clip(part.config, part.request),
            part.request.rope,
            part.found,
            settings.form,
            assume_like=settings.assume_like,
        )
        if not part.key:
            return written
        changes = changed_fields("config.json", part.config, written)
        config = config.edited(
            {(part.key, *c.path): c.after for c in changes if c.after is not ABSENT},
            [(part.key, *c.path) for c in changes if c.after is ABSENT],
        )
    return config


def _scale_clip(config: JsonText, request: BakeRequest) -> JsonText:
    """Multiply the limit of a clamp like the values that it clamps before the rotation."""
    if not request.layout.clip:
        return config
    factors = set(request.factors.values())
    path = (*request.rope.text_path, *request.layout.clip)
    holder = Fields(config.get(path[:-1]) if path[:-1] else config.value, path[:-1])
    value = holder.number(path[-1])
    if len(factors) != 1 or value is None:
        raise UnsupportedArchitectureError(
            f"{'.'.join(path)} clamps the projections of all layers, and here no single factor "
            "fits all of them. The attention factor cannot be baked."
        )
    product = value * factors.pop()
    Fields({path[-1]: product}, path[:-1]).number(path[-1])  # refuses a product out of range
    return config.edited({path: product})
