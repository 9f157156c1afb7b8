"""Reads one RoPE setting from one JSON block, with the sizes of its text model."""

from __future__ import annotations

import math
from typing import Any

from yarncli.config.families.family import Family
from yarncli.errors import ConfigError, UnsupportedArchitectureError
from yarncli.jsontext.fields import Fields, json_path
from yarncli.rope.parameters import HAVE_ORIGINAL, WIDEST_HEAD, RopeParameters, canonical_rope_type

_NUMBERS = (
    "factor",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "low_freq_factor",
    "high_freq_factor",
)
_LISTS = ("short_factor", "long_factor")
_TYPES = ("rope_type", "type")
_ORIGINAL = "original_max_position_embeddings"
_SIZES = ("rope_theta", "partial_rotary_factor", _ORIGINAL, "truncate")
_INTERPRETED = frozenset({*_NUMBERS, *_LISTS, *_TYPES, *_SIZES})

# Far above any model, far below what would fill the memory.
MOST_LAYERS, _MOST_HEADS = 2000, 65_536

# θ and the place it was found in.
FoundTheta = tuple[float, str]


class TextModel:
    """The text part of one config: its family, its fields, its sizes.

    `notes` collects what a person should know about the reading.
    """

    def __init__(self, family: Family, fields: Fields) -> None:
        self.family = family
        self.fields = fields
        self.notes: list[str] = [family.remark] if family.remark else []
        self.length = fields.positive("max_position_embeddings", family.max_position_embeddings)
        layers = fields.positive("num_hidden_layers", family.num_hidden_layers, MOST_LAYERS)
        self.layer_count = layers * family.attentions_per_layer
        self.heads = fields.positive("num_attention_heads", family.num_attention_heads, _MOST_HEADS)
        self.head_dim = self._head_dim()
        if self.head_dim > WIDEST_HEAD:
            raise ConfigError(
                f"The heads are {self.head_dim:,} wide; yarncli takes at most {WIDEST_HEAD:,}."
            )
        self.scaling = self._block("rope_scaling")
        self.parameters = self._block("rope_parameters")

    def _head_dim(self) -> int:
        f, family = self.fields, self.family
        if family.is_mla and family.rotary_size_key == "qk_rope_head_dim":
            return f.positive("qk_rope_head_dim", family.qk_rope_head_dim or 0)
        if family.rotary_size_key == "qk_head_dim":
            rope = f.positive("qk_rope_head_dim", family.qk_rope_head_dim or 0)
            return rope + f.positive("qk_nope_head_dim", family.qk_nope_head_dim or 0)
        hidden = f.positive("hidden_size", family.hidden_size)
        computed = hidden * family.hidden_multiple // self.heads
        if family.head_dim_fixed:
            return computed
        silent = family.head_dim if "head_dim" not in f.values else None
        return f.positive("head_dim", silent or computed)

    def kv_heads(self) -> int:
        """Number of key/value heads, wherever the family keeps it."""
        f, family = self.fields, self.family
        default = family.num_key_value_heads or self.heads
        if family.attention_key:
            inner = f.mapping(family.attention_key)
            return inner.positive("kv_n_heads", default) if inner else default
        if family.multi_query_switch and not f.boolean("new_decoder_architecture"):
            return 1 if f.boolean("multi_query", True) else self.heads
        return f.positive("num_key_value_heads", default)

    def _block(self, key: str) -> Fields | None:
        block = self.fields.mapping(key)
        return block if block is not None and block.values else None

    def top_theta(self, keys: tuple[str, ...]) -> FoundTheta | None:
        """θ from the first of these keys that the text config itself has."""
        for key in keys:
            if self.fields.has(key):
                return self.fields.number(key) or 0.0, self.fields.where(key)
        return None

    def setting(
        self,
        block: Fields,
        theta: float,
        top: FoundTheta | None,
        head_dim: int | None = None,
        partial: float | None = None,
    ) -> RopeParameters:
        """The setting a block describes.

        Args:
            block: a scaling dict, of either spelling.
            theta: θ where the block gives none.
            top: θ of the text config itself, which must not differ from the block's.
            head_dim: width of a head where it is not the model's.
            partial: `partial_rotary_factor` where the block gives none.

        Raises:
            ConfigError: a wrong type, a value out of range, or a contradiction.
        """
        kind = self._rope_type(block)
        own = block.number("rope_theta")
        if own is not None and top is not None and own != top[0]:
            raise _contradiction(block.where("rope_theta"), own, top[1], top[0])
        numbers: dict[str, Any] = {name: block.number(name) for name in _NUMBERS}
        numbers |= {name: block.numbers(name) for name in _LISTS}
        if self.family.longrope_scale_key and kind == "longrope":
            numbers["attention_factor"] = self._longrope_scale(block)
        extra = {key: value for key, value in block.values.items() if key not in _INTERPRETED}
        for key, value in extra.items():
            if not _is_finite(value):
                raise ConfigError(f"{block.where(key)} is or holds a number that is not finite.")
        try:
            return RopeParameters(
                rope_type=kind,
                rope_theta=theta if own is None else own,
                head_dim=head_dim or self.head_dim,
                max_position_embeddings=self.length,
                partial_rotary_factor=self._partial(block, kind, partial),
                original_max_position_embeddings=self._original(block, kind),
                truncate=block.boolean("truncate") if block.has("truncate") else None,
                extra=extra,
                **numbers,
            )
        except ConfigError as error:
            where, text = json_path(block.path), str(error)
            raise type(error)(text if where in text else f"{where}: {text}") from None

    def _rope_type(self, block: Fields) -> str:
        name, old = block.text("rope_type"), block.text("type")
        if name and old and canonical_rope_type(name) != canonical_rope_type(old):
            raise _contradiction(block.where("rope_type"), name, block.where("type"), old)
        if old and not name and self.family.fills_scopes and block.path[-1] == "rope_scaling":
            raise ConfigError(
                f"{block.where('type')} is {old!r} and there is no rope_type; transformers 5 then "
                f"uses plain RoPE for {self.family.model_type}. Rename it to rope_type."
            )
        kind = canonical_rope_type(name or old or "default")
        if kind == "dynamic" and block.has("alpha") and block.number("alpha"):
            raise UnsupportedArchitectureError(
                f"{block.where('alpha')} is {block.values['alpha']}: an NTK scaling of "
                f"{self.family.model_type}'s own, which yarncli does not compute."
            )
        if kind == "yarn" and self.family.yarn_means_longrope:
            return "longrope"
        return kind

    def _longrope_scale(self, block: Fields) -> float | None:
        """PhiMoE multiplies cos and sin by `short_mscale` and ignores `attention_factor`."""
        short, long = block.number(self.family.longrope_scale_key), block.number("long_mscale")
        if short != long:
            self.notes.append(
                f"{block.where('long_mscale')} ({long}) applies beyond the original window."
            )
        return short

    def _partial(self, block: Fields, kind: str, default: float | None) -> float:
        f, family = self.fields, self.family
        value, where = block.number("partial_rotary_factor"), block.where("partial_rotary_factor")
        if family.scope_sizes_rule == "mla_widths":
            value = default  # its config class overwrites the file's value
        if value is None and not family.scopes:
            for key in family.partial_keys:
                if value is None and f.has(key) and not family.partial_fixed:
                    value, where = f.number(key), f.where(key)
            if value is None and family.rotary_dim_key and f.has(family.rotary_dim_key):
                value = f.positive(family.rotary_dim_key, 1) / self.head_dim
        if value is None and family.rotary_size_key == "qk_head_dim":
            if block.path[-1] == "rope_scaling":
                raise ConfigError(
                    f"{where} is missing; without it transformers rotates the whole head of a "
                    f"{family.model_type} model, which fails."
                )
            value = f.positive("qk_rope_head_dim", family.qk_rope_head_dim or 0) / self.head_dim
        if value is None:
            value = family.partial_rotary_factor if default is None else default
        if not 0 < value <= 1:
            raise ConfigError(f"{where} is {value:g}; it must be above 0 and at most 1.")
        follows = family.honours_partial or family.rotary_size_key == "qk_head_dim"
        if value == 1.0 or follows or kind == "proportional":
            return value
        if kind == "default":
            self.notes.append(
                f"{where} is {value:g}; transformers ignores it for {family.model_type} and "
                "rotates the whole head."
            )
            return 1.0
        raise ConfigError(
            f"{where} is {value:g}, but a {family.model_type} model rotates its whole head; "
            f"rope_type {kind!r} then computes too few frequencies. Remove it."
        )

    def _original(self, block: Fields, kind: str) -> int | None:
        inner = block.integer(_ORIGINAL)
        if self.family.scopes or kind not in HAVE_ORIGINAL:
            return inner
        outer = self.fields.integer(_ORIGINAL, self.family.original_max_position_embeddings)
        if self.fields.has(_ORIGINAL) and inner is not None and inner != outer:
            raise _contradiction(block.where(_ORIGINAL), inner, self.fields.where(_ORIGINAL), outer)
        return inner if outer is None else outer


def refuse_difference(a: RopeParameters, b: RopeParameters, at: Fields, other: Fields) -> None:
    """Insist that two spellings of one setting say the same.

    Raises:
        ConfigError: names the first field that differs, with both values.
    """

    def plain(p: RopeParameters) -> dict[str, Any]:
        values = {n: getattr(p, n) for n in RopeParameters.__dataclass_fields__ if n != "extra"}
        if p.rope_type in HAVE_ORIGINAL:
            values[_ORIGINAL] = p.original_length
        return {**p.extra, **values}

    first, second = plain(a), plain(b)
    for name in {**first, **second}:
        if first.get(name) != second.get(name):
            raise _contradiction(
                at.where(name), first.get(name), other.where(name), second.get(name)
            )


def _is_finite(value: Any) -> bool:
    if isinstance(value, (dict, list)):
        return all(map(_is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _contradiction(here: str, value: Any, there: str, other: Any) -> ConfigError:
    return ConfigError(
        f"{here} is {value!r} but {there} is {other!r}; engines differ in which they read. "
        "Make them equal or remove one."
    )
