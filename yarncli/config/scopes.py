"""Scopes: which layers share which RoPE setting, in flat and in nested configs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from yarncli.config.families.family import ScopeRule
from yarncli.config.layers import Layers
from yarncli.config.text_model import FoundTheta, TextModel, refuse_difference
from yarncli.errors import ConfigError, UnsupportedArchitectureError
from yarncli.jsontext.fields import Fields, json_path
from yarncli.rope.parameters import RopeParameters

# Of dots3_note_text's config class; the rest of a head rotates.
_WINDOWED_SIZES = {
    "num_attention_heads": 64,
    "kv_lora_rank": 1024,
    "head_dim": 256,
    "qk_nope_head_dim": 192,
    "v_head_dim": 128,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """The layers that share one RoPE setting."""

    name: str
    """Its label in a nested config; "model" in a flat one."""
    parameters: RopeParameters
    """The setting."""
    layers: tuple[int, ...]
    """The layers that rotate with it, counted from 0."""
    windowed: bool
    """Whether all of them attend within a window shorter than the model's length."""
    window: int | None
    """The window of those that have one, tokens; `None` where none has."""
    path: tuple[str, ...] | None
    """Place of the dict that the setting was read from; `None` for defaults."""


def read_scopes(model: TextModel, layers: Layers, *, own_thetas: bool = False) -> dict[str, Scope]:
    """The scopes of a text model, by name; a flat config has one, "model".

    Args:
        model: the text model.
        layers: its layers.
        own_thetas: whether layers may have a θ that the setting of their scope does not show.

    Raises:
        ConfigError: a block is of the wrong shape, or two contradict.
        UnsupportedArchitectureError: layers differ in a way that one setting cannot express.
    """
    found = _nested(model, layers) if model.family.scopes else _flat(model, layers, own_thetas)
    _refuse_unread_theta(model, found)
    return {scope.name: scope for scope in found if scope.layers or scope.path}


def _refuse_unread_theta(model: TextModel, scopes: list[Scope]) -> None:
    """Refuse a top-level θ that transformers 5 would silently ignore."""
    fields = model.fields
    if fields.is_list("rope_theta") and model.family.theta_list:
        return
    theta = fields.number("rope_theta")
    used = sorted({scope.parameters.rope_theta for scope in scopes})
    if theta is not None and theta not in used:
        raise ConfigError(
            f"{fields.where('rope_theta')} is {theta:g}, but transformers 5 does not read it for "
            f"{model.family.model_type} and uses {', '.join(f'{t:g}' for t in used)}. Put it into "
            "rope_parameters."
        )


def _scope(
    rule: ScopeRule,
    parameters: RopeParameters,
    served: tuple[int, ...],
    layers: Layers,
    path: tuple[str, ...] | None,
) -> Scope:
    flags = [layers.windowed[i] for i in served]
    window = layers.window if any(flags) else None
    short = window is not None and window < parameters.max_position_embeddings
    windowed = short and all(flags) if flags else rule.windowed
    return Scope(
        name=rule.name, parameters=parameters, layers=served, windowed=windowed, window=window,
        path=path,
    )  # fmt: skip


# Flat configs


def _flat(model: TextModel, layers: Layers, own_thetas: bool) -> list[Scope]:
    family = model.family
    for block in (model.scaling, model.parameters):
        if block is not None and any(
            isinstance(value, Mapping) and key in layers.types
            for key, value in block.values.items()
        ):
            raise ConfigError(
                f"{json_path(block.path)} has one entry per layer type; a {family.model_type} "
                "model has one RoPE setting for all layers."
            )
    if model.scaling is not None and family.spelling == "nested":
        raise ConfigError(
            f"{json_path(model.scaling.path)} is not read by transformers 5 for "
            f"{family.model_type}. Put the setting into rope_parameters."
        )
    top = model.top_theta(family.theta_keys)
    theta = top[0] if top else family.rope_theta
    given = model.scaling or model.parameters
    if given is None:
        default = Fields(family.rope_defaults, ("rope_parameters",))
        # A config class that has a complete default setting ignores the file's θ.
        parameters = model.setting(default, theta, None)
    else:
        parameters = model.setting(given, theta, top)
    if model.scaling is not None and model.parameters is not None:
        other = model.setting(model.parameters, theta, top)
        refuse_difference(parameters, other, model.scaling, model.parameters)
    rotating = tuple(i for i, rotates in enumerate(layers.rotates) if rotates)
    if not own_thetas:
        _refuse_own_thetas(model, parameters, rotating)
    _refuse_unscaled_layers(model, rotating)
    rule = ScopeRule("model", rope_theta=theta)
    return [_scope(rule, parameters, rotating, layers, given.path if given else None)]


def _refuse_own_thetas(
    model: TextModel, parameters: RopeParameters, rotating: tuple[int, ...]
) -> None:
    """Refuse layers whose own θ the flat setting does not change."""
    fields, family = model.fields, model.family
    if family.rope_rule == "layer_rope_theta" and fields.has("layer_rope_theta"):
        thetas = fields.numbers("layer_rope_theta") or ()
        used = sorted({thetas[i] for i in rotating})
        if used and used != [parameters.rope_theta]:
            raise UnsupportedArchitectureError(
                f"{fields.where('layer_rope_theta')} gives layers a θ of their own "
                f"({', '.join(f'{theta:g}' for theta in used)}) instead of rope_theta "
                f"({parameters.rope_theta:g}); yarncli scales one θ for all layers."
            )


def _refuse_unscaled_layers(model: TextModel, rotating: tuple[int, ...]) -> None:
    """Refuse layers that a list of the config excludes from scaling."""
    fields, family = model.fields, model.family
    key = family.scaled_layers_key
    scaled = fields.integers(key) if key else None
    if scaled is not None:
        unscaled = [i for i in rotating if i not in scaled]
        if unscaled:
            raise UnsupportedArchitectureError(
                f"{fields.where(key)} leaves out layer {unscaled[0]}, which then "
                "never uses a scaling; yarncli scales all layers."
            )


# Nested configs


def _nested(model: TextModel, layers: Layers) -> list[Scope]:
    family = model.family
    labels = {rule.name for rule in family.scopes}
    given = model.parameters
    flat = model.scaling
    if given is not None and not labels & set(given.values):
        if not family.flat_parameters:
            raise ConfigError(
                f"{json_path(given.path)} is flat, but a {family.model_type} model needs one entry "
                f"per layer type ({', '.join(sorted(labels))})."
            )
        flat, given = flat or given, None
    if flat is not None and not any(rule.takes_flat for rule in family.scopes):
        raise ConfigError(
            f"{json_path(flat.path)} is flat; {family.model_type} reads only rope_parameters with "
            f"one entry per layer type ({', '.join(sorted(labels))})."
        )
    found = (_nested_scope(model, layers, rule, given, flat) for rule in family.scopes)
    return [scope for scope in found if scope is not None]


def _nested_scope(
    model: TextModel, layers: Layers, rule: ScopeRule, given: Fields | None, flat: Fields | None
) -> Scope | None:
    served = tuple(
        i for i, kind in enumerate(layers.types) if kind in rule.serves and layers.rotates[i]
    )
    entry: Fields | None = None
    if given is not None:
        if rule.name in given.values and not given.has(rule.name):
            return None  # null: these layers have no RoPE
        entry = _entry(model, rule, given, needed=bool(served))
        if entry is None and not model.family.fills_scopes:
            return None
    elif not rule.rotates:
        return None
    flat = flat if rule.takes_flat else None
    top = _theta(model, rule, served)
    theta = top[0] if top else rule.rope_theta
    head_dim, partial = _sizes(model, rule, served, entry)
    plain = Fields({"rope_type": rule.rope_type}, ("rope_parameters", rule.name))
    if flat is not None and entry is not None:
        other = model.setting(entry, theta, top, head_dim, partial)
        parameters = model.setting(flat, other.rope_theta, top, head_dim, partial)
        refuse_difference(parameters, other, flat, entry)
    else:
        parameters = model.setting(flat or entry or plain, theta, top, head_dim, partial)
    silent = flat is not None and "attention_factor" not in flat.values
    if silent and rule.flat_yarn_attention_factor and parameters.rope_type == "yarn":
        parameters = replace(parameters, attention_factor=rule.flat_yarn_attention_factor)
    block = flat or entry
    return _scope(rule, parameters, served, layers, block.path if block else None)


def _entry(model: TextModel, rule: ScopeRule, given: Fields, *, needed: bool) -> Fields | None:
    """The entry of a scope, complete as far as transformers insists on it."""
    entry = given.mapping(rule.name)
    if model.family.fills_scopes:
        return entry
    if entry is None:
        if needed:
            raise ConfigError(f"{given.where(rule.name)} is missing; the model has such layers.")
        return None
    if not rule.theta_keys and not entry.has("rope_theta"):
        raise ConfigError(f"{entry.where('rope_theta')} is missing.")
    share = "partial_rotary_factor"
    if rule.partial_required and not (entry.has(share) or model.fields.has(share)):
        raise ConfigError(f"{entry.where('partial_rotary_factor')} is missing.")
    return entry


def _theta(model: TextModel, rule: ScopeRule, served: tuple[int, ...]) -> FoundTheta | None:
    """The θ that old files keep for this scope at top level, some as a list over the layers."""
    fields, which = model.fields, model.family.theta_list
    if which and fields.is_list("rope_theta"):
        thetas = fields.numbers("rope_theta") or ()
        layer = (served[0] if which == "first" else served[-1]) if served else 0
        if served and len(thetas) <= layer:
            raise ConfigError(
                f"{fields.where('rope_theta')} has {len(thetas)} entries; the model has "
                f"{model.layer_count} layers."
            )
        return (thetas[layer], fields.where("rope_theta")) if served else None
    return model.top_theta(rule.theta_keys)


def _sizes(
    model: TextModel, rule: ScopeRule, served: tuple[int, ...], entry: Fields | None
) -> tuple[int, float]:
    """Head width of the scope, and its partial rotary factor where its entry gives none."""
    fields, own = model.fields, layer_override(model.fields, served)
    head_dim = own.positive("head_dim", model.head_dim) if own else model.head_dim
    if rule.head_dim_key and not fields.has("per_layer_config"):
        head_dim = fields.positive(rule.head_dim_key, rule.head_dim or head_dim)
    match model.family.scope_sizes_rule:
        case "mla_widths":
            return _mla_widths(model, rule, own)
        case "qk_rope_head_dim":
            if fields.has("qk_rope_head_dim") and not fields.has("partial_rotary_factor"):
                return head_dim, fields.positive("qk_rope_head_dim", 1) / head_dim
            return head_dim, fields.number("partial_rotary_factor") or rule.partial_rotary_factor
        case "partial_rotary_factors" if entry is None:
            listed = fields.numbers("partial_rotary_factors") or ()
            return head_dim, listed[served[0]] if served and len(listed) > served[0] else 1.0
    if rule.partial_required and entry is not None:
        return head_dim, fields.number("partial_rotary_factor") or rule.partial_rotary_factor
    silent = entry is None or model.family.fills_scopes
    return head_dim, rule.partial_rotary_factor if silent else 1.0


def _mla_widths(model: TextModel, rule: ScopeRule, own: Fields | None) -> tuple[int, float]:
    """Its config class computes the partial factor from the MLA widths of the scope's layers."""
    family, sizes = model.family, own or Fields({})
    if rule.windowed and own is None:
        sizes = windowed_sizes(model.fields) or sizes
    rope = model.fields.positive("qk_rope_head_dim", family.qk_rope_head_dim or 1)
    head_dim = sizes.positive("head_dim", model.head_dim)
    return head_dim, sizes.positive("qk_rope_head_dim", rope) / head_dim


def windowed_sizes(fields: Fields) -> Fields | None:
    """The sizes of windowed layers that files keep under `swa_…`: of dots3_note_text.

    None where `per_layer_config` holds them.
    """
    if fields.has("per_layer_config"):
        return None
    found = {name: fields.positive(f"swa_{name}", size) for name, size in _WINDOWED_SIZES.items()}
    rest = found["head_dim"] - found["qk_nope_head_dim"]
    found["qk_rope_head_dim"] = fields.positive("swa_qk_rope_head_dim", rest)
    return Fields(found, fields.path)


def layer_override(fields: Fields, served: tuple[int, ...]) -> Fields | None:
    """What `per_layer_config` says about the first of the layers `served`."""
    overrides = fields.mapping("per_layer_config")
    return overrides.mapping(str(served[0])) if overrides and served else None
