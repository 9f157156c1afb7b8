"""Reading the RoPE part of `config.json` the way transformers 5 does, refusing contradictions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarncli.config.attention_keys import AttentionKey, find_keys
from yarncli.config.families.family import Family
from yarncli.config.families.part_rows import PART_FAMILIES
from yarncli.config.families.refused_types import KINDS, UNSUPPORTED, no_rope_types
from yarncli.config.families.table import FAMILIES
from yarncli.config.families.wrapper_rows import TEXT_ALIASES
from yarncli.config.layers import read_layers
from yarncli.config.own_code import (
    find_own,
    level_like,
    own_note,
    refusal,
    refuse_unread,
    require_window,
    unknown_type,
)
from yarncli.config.scopes import Scope, read_scopes
from yarncli.config.text_model import TextModel
from yarncli.config.windows import trained_window
from yarncli.errors import (
    ConfigError,
    UnsupportedArchitectureError,
    UsageError,
)
from yarncli.jsontext.fields import MOST, Fields
from yarncli.options import choose

__all__ = ["RopeConfig", "Scope", "read_rope"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RopeConfig:
    """Everything the text part of a config says about positions."""

    model_type: str
    """The model type by which the text part is read; the one assumed, if any."""
    family: Family
    """What is known about this model type."""
    text_path: tuple[str, ...]
    """The keys that lead to the text part; empty where it is the whole config."""
    scopes: dict[str, Scope]
    """The RoPE settings by name; a flat config has one, "model"."""
    max_position_embeddings: int
    """The window that the config states, tokens; else the family's default."""
    length_key: str
    """The text part's name for `max_position_embeddings`."""
    original_length: int
    """The window that the model was trained with, tokens."""
    original_source: str
    """Where `original_length` comes from, in words."""
    spelling_found: str
    """Which spelling the file uses: legacy, v5, both, or none."""
    num_hidden_layers: int
    """How many layers the text part has."""
    num_attention_heads: int
    """How many query heads a layer has."""
    num_key_value_heads: int
    """How many key and value heads a layer has."""
    head_dim: int
    """The width one head is split into for rotation (`qk_rope_head_dim` for MLA)."""
    sliding_window: int | None
    """The window of the windowed layers, tokens; `None` where no layer is windowed."""
    nope_layers: tuple[int, ...]
    """The layers that attend without RoPE, counted from 0."""
    windowed_layers: tuple[int, ...]
    """The layers that attend within `sliding_window` tokens, counted from 0."""
    is_mla: bool
    """Whether it uses multi-head latent attention."""
    mrope: bool
    """Whether it uses multimodal RoPE."""
    maximum_is_window: bool
    """Whether `max_position_embeddings` is the window under linear and dynamic too, as in published
    configs with one setting per layer type; elsewhere they multiply it."""
    notes: tuple[str, ...]
    """Notes on the reading for the user."""
    values: Mapping[str, Any] = field(repr=False, compare=False)
    """The text part as the file has it."""
    assume_like: str | None = None
    """The model type that the user gave with `assume_like`."""
    own_code: bool = False
    """Whether code that was not examined reads it: it can be shown, but not extended or judged."""

    @property
    def attention_keys(self) -> tuple[AttentionKey, ...]:
        """The keys beside the RoPE settings that change positions or attention."""
        return find_keys(self.values, self.family)

    @property
    def stored_layers(self) -> int:
        """Layers as the weights number them; a layer may attend twice, or run several times."""
        key = self.family.stored_layers_key
        stated = self.values.get(key) if key else None
        each = self.num_hidden_layers // self.family.attentions_per_layer
        return stated if type(stated) is int else each

    def text(self, config: Mapping[str, Any]) -> Fields:
        """The text part of `config`, the JSON object that this was read from."""
        for key in self.text_path:
            config = config[key]
        return Fields(config, self.text_path, self.family.names)


def read_rope(
    config: Mapping[str, Any],
    *,
    assume_like: str | None = None,
    original_length: int | None = None,
    factor_only: bool = False,
    own_code: bool = False,
) -> RopeConfig:
    """Read a config as transformers 5 does.

    Args:
        config: the JSON object of `config.json`.
        assume_like: treat an unknown model type as this one.
        original_length: the window the model was trained with, tokens, if the caller states it.
        factor_only: for callers to whom only the attention factor matters: layers may have a θ that
            the setting of their scope does not show, and the config may be that of a part.
        own_code: also read types with their own code, for callers that only show the config.

    Raises:
        ConfigError: a value has the wrong type or is out of range, or two places contradict.
        UnsupportedArchitectureError: no RoPE, or a model type that is not known.
        UsageError: `assume_like` or `original_length` is not usable.
    """
    assume_like = _checked(assume_like, original_length)
    own = find_own(config) if own_code and _is_unknown(config, assume_like) else None
    part = _as_part(config, factor_only) or own or find_text(config, assume_like)
    family, path, values = part
    model = _text_model(part, config if own else None)
    if assume_like or own:
        _state_window(model, original_length)
    layers = read_layers(model.fields, family, model.layer_count)
    scopes = read_scopes(model, layers, own_thetas=factor_only)
    rotating = _rotating(scopes, family)
    _refuse_private_fields(model, scopes)
    original, source = _original(model, scopes, original_length)
    return RopeConfig(
        model_type=family.model_type,
        family=family,
        text_path=path,
        scopes=scopes,
        max_position_embeddings=model.length,
        length_key=model.fields.name("max_position_embeddings"),
        original_length=original,
        original_source=source,
        spelling_found=_spelling(model),
        num_hidden_layers=model.layer_count,
        num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads(),
        head_dim=model.head_dim,
        sliding_window=layers.window,
        nope_layers=tuple(i for i, a in enumerate(layers.attends) if a and i not in rotating),
        windowed_layers=tuple(i for i, windowed in enumerate(layers.windowed) if windowed),
        is_mla=family.is_mla,
        mrope=family.mrope or _says_mrope(model),
        maximum_is_window=bool(family.scopes),
        notes=tuple(dict.fromkeys(model.notes)),
        values=values,
        assume_like=assume_like,
        own_code=own is not None,
    )


def _rotating(scopes: Mapping[str, Scope], family: Family) -> set[int]:
    found = {i for scope in scopes.values() for i in scope.layers}
    if not found:
        raise UnsupportedArchitectureError(
            f"No layer of this {family.model_type} model uses RoPE, so there is nothing to scale."
        )
    return found


def _text_model(
    part: tuple[Family, tuple[str, ...], Mapping[str, Any]], unknown: Mapping[str, Any] | None
) -> TextModel:
    """The text model of a part. `unknown` is the whole config if its own code reads it."""
    family, path, values = part
    model = TextModel(family, Fields(values, path, family.names))
    if unknown is not None:
        model.notes.append(own_note(unknown, family, path))
    return model


def _state_window(model: TextModel, original_length: int | None) -> None:
    """Insist on the window of a model that is read as another type, whose default does not hold."""
    if original_length is None:
        require_window(model.fields, model.family.model_type)
    elif not model.fields.has("max_position_embeddings"):
        model.length = original_length


def _checked(assume_like: str | None, original_length: int | None) -> str | None:
    """The model type that `assume_like` names; refuses values that cannot be used."""
    if original_length is not None and not 1 <= original_length <= MOST:
        raise UsageError(
            f"--original-length {original_length} is not a number of tokens from 1 to {MOST:,}."
        )
    return assume_like and choose(assume_like, FAMILIES, "model type")


def _refuse_other_file(config: Mapping[str, Any]) -> None:
    """Refuse a JSON file that is known to be something else."""
    from yarncli.config.other_files import adapter_base, describe_json

    if what := describe_json(config):
        base = adapter_base(config)
        raise UnsupportedArchitectureError(
            f"This is not the config.json of a model: it is {what}. "
            + (f"Name its model: {base}." if base else "Name the directory of the checkpoint.")
        )


def find_text(
    config: Mapping[str, Any], assume_like: str | None
) -> tuple[Family, tuple[str, ...], Mapping[str, Any]]:
    """The family of the text part, the path to it and its values."""
    fields = Fields(config)
    if assume_like is not None:
        assume_like = choose(assume_like, FAMILIES, "model type")
        family = _family(assume_like)
        if not family.is_wrapper:
            refuse_unread(config, assume_like)
            return family, *level_like(config, family)
    else:
        named = fields.text("model_type")
        if not named:
            _refuse_other_file(config)
            raise UnsupportedArchitectureError(
                "The config names no model_type, so it is not known how to read it. "
                "Name a similar one with --assume-like MODEL_TYPE."
            )
        if _is_unknown(config, None):
            raise refusal(config, named)
        family = _family(named)
    # Go down through the parts of a multimodal config until the type is a text model.
    while family.is_wrapper:
        fields = Fields(fields.values, fields.path, family.names)
        inner = fields.mapping(family.text_key)
        if inner is None:
            if not family.flat_text:
                raise ConfigError(
                    f"{fields.where(family.text_key)} is missing; a {family.model_type} config "
                    "keeps its text model there."
                )
            return _family(family.text_type), fields.path, fields.values
        fields = inner
        kind = None if family.text_fixed else fields.text("model_type")
        family = _family(TEXT_ALIASES.get(kind or "", kind) or family.text_type)
    return family, fields.path, fields.values


def _as_part(
    config: Mapping[str, Any], wanted: bool
) -> tuple[Family, tuple[str, ...], Mapping[str, Any]] | None:
    """The same for the config of a part of a model; None where it is none, or is not wanted."""
    family = PART_FAMILIES.get(str(config.get("model_type"))) if wanted else None
    return (family, (), config) if family else None


def _family(model_type: str) -> Family:
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in UNSUPPORTED:
        raise UnsupportedArchitectureError(
            f"{model_type} cannot be extended: {UNSUPPORTED[model_type]}."
        )
    if model_type in no_rope_types():
        raise UnsupportedArchitectureError(
            f"{model_type} does not use RoPE in a text model: it is "
            f"{KINDS[no_rope_types()[model_type]]}."
        )
    raise unknown_type(model_type)


def _is_unknown(config: Mapping[str, Any], assume_like: str | None) -> bool:
    """Whether the model type is not known by its name."""
    named = config.get("model_type")
    if assume_like is not None or not isinstance(named, str) or not named:
        return False
    return named not in FAMILIES and named not in UNSUPPORTED and named not in no_rope_types()


def _spelling(model: TextModel) -> str:
    """Which spelling the file uses: legacy, v5, both, or none."""
    keys = {key for rule in model.family.scopes for key in rule.theta_keys}
    keys |= set(model.family.theta_keys)
    legacy = model.scaling is not None or any(model.fields.has(key) for key in keys)
    if model.parameters is None:
        return "legacy" if legacy else "none"
    return "both" if legacy else "v5"


def _says_mrope(model: TextModel) -> bool:
    blocks = [block for block in (model.scaling, model.parameters) if block is not None]
    return any(b.has("mrope_section") or b.values.get("type") == "mrope" for b in blocks)


def _refuse_private_fields(model: TextModel, scopes: dict[str, Scope]) -> None:
    """Fields by which single architectures override what a conversion would write."""
    f, family = model.fields, model.family
    inner = f.mapping(family.attention_key) if family.attention_key else None
    theta = inner.number("rope_theta") if inner else None
    used = scopes["model"].parameters.rope_theta if theta is not None else None
    if inner is not None and theta != used:
        raise ConfigError(
            f"{inner.where('rope_theta')} is {theta}, but transformers 5 does not read it and uses "
            f"{used}. Make rope_theta at the top level equal to it."
        )
    for key, length in family.length_switches.items():
        if f.boolean(key):
            raise UnsupportedArchitectureError(
                f"{f.where(key)} is true; transformers then sets the length to {length}, "
                "whatever the config says."
            )


def _original(model: TextModel, scopes: dict[str, Scope], given: int | None) -> tuple[int, str]:
    """The window the model was trained with, tokens, and where that number comes from."""
    if given is not None:
        return given, "--original-length"
    extendable = [scope for scope in scopes.values() if not scope.windowed]
    first = (extendable or list(scopes.values()))[0].parameters
    if first.original_max_position_embeddings is not None:
        return first.original_max_position_embeddings, "original_max_position_embeddings"
    key = "max_position_embeddings"
    known = trained_window(model.family, first.rope_theta, model.fields.values, model.length)
    if known is not None and first.rope_type == "default":
        return known, f"known original of {model.family.model_type}"
    if model.fields.has(key):
        return model.length, model.fields.name(key)
    return model.length, "family default"
