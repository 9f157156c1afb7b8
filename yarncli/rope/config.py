"""Reading the RoPE part of `config.json` the way transformers 5 does, refusing what contradicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yarncli.errors import ConfigError, UnsupportedArchitectureError
from yarncli.rope.families import FAMILIES, NO_ROPE, UNSUPPORTED, Family, ScopeRule
from yarncli.rope.jsonfields import Fields, json_path
from yarncli.rope.layers import Layers, read_layers
from yarncli.rope.parameters import RopeParameters, canonical_rope_type

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
_SIZES = ("rope_theta", "partial_rotary_factor", "original_max_position_embeddings", "truncate")
_INTERPRETED = frozenset({*_NUMBERS, *_LISTS, *_TYPES, *_SIZES})
_HAVE_ORIGINAL = ("llama3", "yarn", "longrope")


@dataclass(frozen=True, slots=True)
class Scope:
    """The layers that share one RoPE setting.

    `windowed` says that all of them attend within a window; `window` is its size in tokens where
    any of them does. `path` is the place of the dict it was read from, `None` for defaults.
    """

    name: str
    parameters: RopeParameters
    layers: tuple[int, ...]
    windowed: bool
    window: int | None
    path: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """Everything the text part of a config says about positions.

    `text_path` leads to the text part, `length_key` is its name for `max_position_embeddings`.
    `head_dim` is the width one head is split into for rotation (`qk_rope_head_dim` for MLA).
    `nope_layers` attend without RoPE; `windowed_layers` attend within `sliding_window` tokens.
    """

    model_type: str
    family: Family
    text_path: tuple[str, ...]
    scopes: dict[str, Scope]
    max_position_embeddings: int
    length_key: str
    original_length: int
    original_source: str
    spelling_found: str
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    sliding_window: int | None
    nope_layers: tuple[int, ...]
    windowed_layers: tuple[int, ...]
    is_mla: bool
    mrope: bool
    notes: tuple[str, ...]


def read_rope(
    config: Mapping[str, Any],
    *,
    assume_like: str | None = None,
    original_length: int | None = None,
) -> RopeConfig:
    """Read a config as transformers 5 does.

    Args:
        config: the JSON object of `config.json`.
        assume_like: treat an unknown model type as this one.
        original_length: the window the model was trained with, tokens, if the caller knows better.

    Raises:
        ConfigError: a value has the wrong type or is out of range, or two places contradict.
        UnsupportedArchitectureError: no RoPE, or a model type that is not known.
    """
    family, path, values = _find_text(config, assume_like)
    return _Reader(family, Fields(values, path, family.names)).read(original_length)


def _find_text(
    config: Mapping[str, Any], assume_like: str | None
) -> tuple[Family, tuple[str, ...], Mapping[str, Any]]:
    """The family of the text part, the path to it and its values."""
    fields = Fields(config)
    if assume_like is not None:
        family = _family(assume_like)
        inner = (
            None if family.text_key or "hidden_size" in config else fields.mapping("text_config")
        )
        if inner is not None:
            return family, ("text_config",), inner.values
    else:
        named = fields.text("model_type")
        if not named:
            raise UnsupportedArchitectureError(
                "The config names no model_type, so nobody knows how it is read. "
                "Name a similar one with --assume-like MODEL_TYPE."
            )
        family = _family(named)
    while family.text_key:
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
        family = _family(kind or family.text_type)
    return family, fields.path, fields.values


def _family(model_type: str) -> Family:
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    if model_type in UNSUPPORTED:
        raise UnsupportedArchitectureError(
            f"{model_type} cannot be extended: {UNSUPPORTED[model_type]}."
        )
    if model_type in NO_ROPE:
        raise UnsupportedArchitectureError(f"{model_type} does not use RoPE in a text model.")
    raise UnsupportedArchitectureError(
        f"model_type {model_type!r} is not one that yarncli knows. If its code reads RoPE as a "
        "known type does (often llama), name that one with --assume-like MODEL_TYPE."
    )


class _Reader:
    """One reading of one text config; `notes` collects what a person should know."""

    def __init__(self, family: Family, fields: Fields) -> None:
        self.family = family
        self.fields = fields
        self.notes: list[str] = []
        self.length = fields.positive("max_position_embeddings", family.max_position_embeddings)
        self.count = self._layer_count()
        self.heads = fields.positive("num_attention_heads", family.num_attention_heads)
        self.head_dim = self._head_dim()
        self.layers = read_layers(fields, family, self.count)
        self.scaling = self._block("rope_scaling")
        self.parameters = self._block("rope_parameters")

    def read(self, original_length: int | None) -> RopeConfig:
        f, family = self.fields, self.family
        self._refuse_private_fields()
        scopes = self._nested() if family.scopes else self._flat()
        scopes = {name: scope for name, scope in scopes.items() if scope.layers or scope.path}
        if not any(scope.layers for scope in scopes.values()):
            raise UnsupportedArchitectureError(
                f"No layer of this {family.model_type} model uses RoPE, so nothing can be scaled."
            )
        original, source = self._original(scopes, original_length)
        everywhere = range(self.count)
        layers = self.layers
        rotating = {i for scope in scopes.values() for i in scope.layers}
        return RopeConfig(
            model_type=family.model_type,
            family=family,
            text_path=f.path,
            scopes=scopes,
            max_position_embeddings=self.length,
            length_key=f.where("max_position_embeddings").rpartition(".")[2],
            original_length=original,
            original_source=source,
            spelling_found=self._spelling(),
            num_hidden_layers=self.count,
            num_attention_heads=self.heads,
            num_key_value_heads=self._kv_heads(),
            head_dim=self.head_dim,
            sliding_window=layers.window,
            nope_layers=tuple(i for i in everywhere if layers.attends[i] and i not in rotating),
            windowed_layers=tuple(i for i in everywhere if layers.windowed[i]),
            is_mla=family.is_mla,
            mrope=family.mrope or self._says_mrope(),
            notes=tuple(self.notes),
        )

    # Sizes

    def _layer_count(self) -> int:
        count = self.fields.positive("num_hidden_layers", self.family.num_hidden_layers)
        return count * self.family.attention_per_layer

    def _head_dim(self) -> int:
        f, family = self.fields, self.family
        if family.rotary_size_key == "qk_rope_head_dim":
            return f.positive("qk_rope_head_dim", family.qk_rope_head_dim or 0)
        if family.rotary_size_key == "qk_head_dim":
            rope = f.positive("qk_rope_head_dim", family.qk_rope_head_dim or 0)
            return rope + f.positive("qk_nope_head_dim", family.qk_nope_head_dim or 0)
        hidden = f.positive("hidden_size", family.hidden_size) * family.head_width
        computed = hidden // self.heads
        if family.head_dim_fixed:
            return computed
        return f.positive(
            "head_dim", computed if "head_dim" in f.values else (family.head_dim or computed)
        )

    def _kv_heads(self) -> int:
        f, family = self.fields, self.family
        if family.model_type == "dbrx":
            inner = f.mapping("attn_config")
            return inner.positive("kv_n_heads", 1) if inner else 1
        if family.model_type == "falcon" and f.boolean("multi_query", True):
            if not f.boolean("new_decoder_architecture"):
                return 1
        return f.positive("num_key_value_heads", family.num_key_value_heads or self.heads)

    # Blocks

    def _block(self, key: str) -> Fields | None:
        block = self.fields.mapping(key)
        return block if block is not None and block.values else None

    def _spelling(self) -> str:
        keys = {key for rule in self.family.scopes for key in rule.theta_keys}
        legacy = self.scaling is not None or any(
            self.fields.has(key) for key in keys | set(self.family.theta_keys)
        )
        if self.parameters is not None:
            return "both" if legacy else "v5"
        return "legacy" if legacy else "none"

    def _says_mrope(self) -> bool:
        blocks = [b for b in (self.scaling, self.parameters) if b is not None]
        return any("mrope_section" in b.values or b.values.get("type") == "mrope" for b in blocks)

    def _refuse_private_fields(self) -> None:
        """θ that only older transformers read, and must not differ from what version 5 reads."""
        inner = self.fields.mapping("attn_config") if self.family.model_type == "dbrx" else None
        theta = inner.number("rope_theta") if inner else None
        read = self._top_theta(("rope_theta",))
        used = read[0] if read else self.family.rope_theta
        if inner and theta is not None and theta != used and self.parameters is None:
            raise ConfigError(
                f"{inner.where('rope_theta')} is {theta:g}, but transformers 5 does not read it "
                f"and uses {used:g}. Add rope_theta: {theta:g} at the top level."
            )

    def _top_theta(self, keys: tuple[str, ...]) -> tuple[float, str] | None:
        for key in keys:
            if self.fields.has(key) and not self.fields.is_list(key):
                return self.fields.number(key) or 0.0, self.fields.where(key)
        return None

    # Flat configs

    def _flat(self) -> dict[str, Scope]:
        family, layers = self.family, self.layers
        defaults = dict(family.rope_defaults)
        top = self._top_theta(family.theta_keys)
        for block in (self.scaling, self.parameters):
            if block is not None and any(
                isinstance(v, Mapping) and k in layers.types for k, v in block.values.items()
            ):
                raise ConfigError(
                    f"{json_path(block.path)} has one entry per layer type; a {family.model_type} "
                    "model has one RoPE setting for all layers."
                )
        block = self.scaling or self.parameters
        if block is None and defaults:
            block = Fields(defaults, ("rope_parameters",))
            theta = float(defaults.get("rope_theta", top[0] if top else family.rope_theta))
            parameters = self._parameters(block, theta, None)
        else:
            theta = top[0] if top else family.rope_theta
            parameters = self._parameters(block, theta, top)
        if self.scaling is not None and self.parameters is not None:
            other = self._parameters(self.parameters, theta, top)
            _refuse_difference(parameters, other, self.scaling, self.parameters)
        given = self.scaling or self.parameters
        rotating = tuple(i for i in range(self.count) if layers.rotates[i])
        return self._per_layer_theta(
            _scope("model", parameters, rotating, layers, given.path if given else None)
        )

    def _per_layer_theta(self, scope: Scope) -> dict[str, Scope]:
        """Split the scope where layers have a θ, or a scaling switch, of their own."""
        if self.family.rope_rule == "layer_rope_theta":
            thetas = self.fields.numbers("layer_rope_theta") or ()
            used = {thetas[i] for i in scope.layers} if thetas else set()
            if used - {scope.parameters.rope_theta}:
                raise UnsupportedArchitectureError(
                    f"{self.fields.where('layer_rope_theta')} gives layers a θ of their own "
                    f"({', '.join(f'{t:g}' for t in sorted(used))}), which replaces rope_theta "
                    f"({scope.parameters.rope_theta:g}); yarncli scales one θ for all layers."
                )
        chosen = self.fields.integers("rope_scaling_layers")
        if self.family.model_type == "molmo2_text" and chosen is not None:
            unscaled = [i for i in scope.layers if i not in chosen]
            if unscaled and scope.parameters.rope_type != "default":
                raise UnsupportedArchitectureError(
                    f"{self.fields.where('rope_scaling_layers')} leaves out layers such as "
                    f"{unscaled[0]}, which then do not use the scaling; yarncli scales all layers."
                )
        return {scope.name: scope}

    # Nested configs

    def _nested(self) -> dict[str, Scope]:
        family = self.family
        given = self.parameters
        labels = {rule.name for rule in family.scopes}
        nested = given is not None and bool(labels & set(given.values))
        if given is not None and not nested and family.model_type != "deepseek_v4":
            raise ConfigError(
                f"{json_path(given.path)} is flat, but a {family.model_type} model needs one entry "
                f"per layer type ({', '.join(sorted(labels))})."
            )
        if self.scaling is not None and not any(rule.takes_flat for rule in family.scopes):
            raise ConfigError(
                f"{json_path(self.scaling.path)} is flat; {family.model_type} reads only "
                f"rope_parameters with one entry per layer type ({', '.join(sorted(labels))})."
            )
        found: dict[str, Scope] = {}
        for rule in family.scopes:
            scope = self._nested_scope(rule, given if nested else None)
            if scope is not None:
                found[rule.name] = scope
        return found

    def _nested_scope(self, rule: ScopeRule, given: Fields | None) -> Scope | None:
        served = tuple(
            i
            for i, kind in enumerate(self.layers.types)
            if kind in rule.serves and self.layers.rotates[i]
        )
        entry: Fields | None = None
        if given is not None:
            if rule.name in given.values and not given.has(rule.name):
                return None  # null: these layers have no RoPE
            entry = given.mapping(rule.name)
            if entry is None and not served:
                return None
            if entry is None and not self.family.fills_scopes:
                raise ConfigError(
                    f"{given.where(rule.name)} is missing, and the model has such layers."
                )
        elif not rule.rotates:
            return None
        flat = self.scaling if rule.takes_flat else None
        if flat is None and given is None and self.family.model_type == "deepseek_v4":
            flat = self.parameters if rule.takes_flat else None
        top = self._scope_theta(rule, served)
        head_dim, partial = self._scope_sizes(rule, served, entry)
        theta = top[0] if top else rule.rope_theta
        block = flat or entry
        if block is not None and entry is not None and not rule.theta_keys:
            if not entry.has("rope_theta"):
                raise ConfigError(f"{entry.where('rope_theta')} is missing.")
        if block is None:
            block = Fields({"rope_type": rule.rope_type}, ("rope_parameters", rule.name))
        parameters = self._parameters(block, theta, top, head_dim, partial)
        if flat is not None and entry is not None:
            theta_here = entry.number("rope_theta", theta) or theta
            if not flat.has("rope_theta"):
                parameters = self._parameters(flat, theta_here, top, head_dim, partial)
            other = self._parameters(entry, theta, top, head_dim, partial)
            _refuse_difference(parameters, other, flat, entry)
        path = block.path if (flat or entry) is not None else None
        return _scope(rule.name, parameters, served, self.layers, path, rule.windowed)

    def _scope_theta(self, rule: ScopeRule, served: tuple[int, ...]) -> tuple[float, str] | None:
        """The θ that old files keep for this scope at the top level, and where."""
        if self.fields.is_list("rope_theta") and "rope_theta" in rule.theta_keys:
            thetas = self.fields.numbers("rope_theta") or ()
            if served and len(thetas) > served[0]:
                return thetas[served[0]], self.fields.where("rope_theta")
            return None
        return self._top_theta(rule.theta_keys)

    def _scope_sizes(
        self, rule: ScopeRule, served: tuple[int, ...], entry: Fields | None
    ) -> tuple[int, float]:
        """Head width of the scope and the partial factor it has where its dict gives none."""
        f, family = self.fields, self.family
        head_dim = self.head_dim
        own = _layer_override(f, served)
        if own is not None:
            head_dim = own.positive("head_dim", head_dim)
        elif rule.head_dim_key and not f.has("per_layer_config"):
            head_dim = f.positive(rule.head_dim_key, rule.head_dim or head_dim)
        if family.model_type == "dots3_note_text":
            return self._dots3_sizes(rule, own)
        if family.model_type == "deepseek_v4":
            if f.has("qk_rope_head_dim") and not f.has("partial_rotary_factor"):
                return head_dim, f.positive("qk_rope_head_dim", 1) / head_dim
            return head_dim, f.number("partial_rotary_factor", 0.125) or 0.125
        if self.family.model_type == "step3p5" and entry is None:
            listed = f.numbers("partial_rotary_factors")
            if listed and served and len(listed) > served[0]:
                return head_dim, listed[served[0]]
            return head_dim, 1.0
        if entry is None or family.fills_scopes:
            return head_dim, rule.partial_rotary_factor
        if family.model_type == "mimo_v2_flash" and not entry.has("partial_rotary_factor"):
            raise ConfigError(f"{entry.where('partial_rotary_factor')} is missing.")
        return head_dim, 1.0

    def _dots3_sizes(self, rule: ScopeRule, own: Fields | None) -> tuple[int, float]:
        """Its config class computes the partial factor from the MLA widths of the layer."""
        f = self.fields
        if own is not None or not rule.windowed or f.has("per_layer_config"):
            source = own or f
            head_dim = source.positive("head_dim", self.head_dim)
            return head_dim, source.positive("qk_rope_head_dim", 64) / head_dim
        head_dim = f.positive("swa_head_dim", 256)
        rest = head_dim - f.positive("swa_qk_nope_head_dim", 192)
        return head_dim, f.positive("swa_qk_rope_head_dim", rest) / head_dim

    # One setting

    def _parameters(
        self,
        block: Fields | None,
        theta: float,
        top: tuple[float, str] | None,
        head_dim: int | None = None,
        partial: float | None = None,
    ) -> RopeParameters:
        block = block or Fields({}, ("rope_parameters",))
        kind = self._rope_type(block)
        own_theta = block.number("rope_theta")
        if own_theta is not None and top is not None and own_theta != top[0]:
            raise ConfigError(
                f"{block.where('rope_theta')} is {own_theta:g} but {top[1]} is {top[0]:g}; "
                "engines differ in which they read. Make them equal or remove one."
            )
        fields = {name: block.number(name) for name in _NUMBERS}
        lists = {name: block.numbers(name) for name in _LISTS}
        try:
            return RopeParameters(
                rope_type=kind,
                rope_theta=theta if own_theta is None else own_theta,
                head_dim=head_dim or self.head_dim,
                max_position_embeddings=self.length,
                partial_rotary_factor=self._partial(block, kind, partial),
                original_max_position_embeddings=self._own_original(block, kind),
                truncate=block.boolean("truncate") if block.has("truncate") else None,
                extra={k: v for k, v in block.values.items() if k not in _INTERPRETED},
                **fields,
                **lists,
            )
        except ConfigError as error:
            where = json_path(block.path)
            text = str(error)
            raise ConfigError(text if text.startswith(where) else f"{where}: {text}") from None

    def _rope_type(self, block: Fields) -> str:
        name, old = block.text("rope_type"), block.text("type")
        if name and old and canonical_rope_type(name) != canonical_rope_type(old):
            raise ConfigError(
                f"{block.where('rope_type')} is {name!r} but {block.where('type')} is {old!r}; "
                "engines differ in which they read. Make them equal or remove one."
            )
        if old and not name and self.family.fills_scopes and block.path[-1] == "rope_scaling":
            raise ConfigError(
                f"{block.where('type')} is {old!r} and there is no rope_type; transformers 5 then "
                f"uses plain RoPE for {self.family.model_type}. Rename it to rope_type."
            )
        kind = canonical_rope_type(name or old or "default")
        if kind == "dynamic" and block.has("alpha") and block.number("alpha"):
            raise UnsupportedArchitectureError(
                f"{block.where('alpha')} is {block.values['alpha']}: {self.family.model_type}'s own "
                "NTK scaling, which yarncli does not compute."
            )
        if kind == "yarn" and "yarn" in self.family.refuses and kind != "longrope":
            kind = self._phi3_type(block, kind)
        return kind

    def _phi3_type(self, block: Fields, kind: str) -> str:
        """Phi-3's config class reads `yarn` as an old name of `longrope`."""
        return "longrope" if block.has("short_factor") else kind

    def _partial(self, block: Fields, kind: str, default: float | None) -> float:
        f, family = self.fields, self.family
        value = block.number("partial_rotary_factor")
        where = block.where("partial_rotary_factor")
        if value is None and not family.scopes:
            for key in family.partial_keys:
                if value is None and f.has(key) and not family.partial_fixed:
                    value, where = f.number(key), f.where(key)
            if value is None and family.rotary_dim_key and f.has(family.rotary_dim_key):
                value = f.positive(family.rotary_dim_key, 1) / self.head_dim
        if value is None:
            value = family.partial_rotary_factor if default is None else default
        if value == 1.0 or family.honours_partial or kind == "proportional":
            return value
        if family.scopes or family.rotary_size_key == "qk_head_dim":
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

    def _own_original(self, block: Fields, kind: str) -> int | None:
        name = "original_max_position_embeddings"
        inner = block.integer(name)
        if self.family.scopes or kind not in _HAVE_ORIGINAL:
            return inner
        outer = self.fields.integer(name, self.family.original_max_position_embeddings)
        if self.fields.has(name) and inner is not None and inner != outer:
            raise ConfigError(
                f"{block.where(name)} is {inner} but {self.fields.where(name)} is {outer}; "
                "engines differ in which they read. Make them equal or remove one."
            )
        return inner if outer is None else outer

    def _original(self, scopes: dict[str, Scope], given: int | None) -> tuple[int, str]:
        """The window the model was trained with, tokens, and where that is known from."""
        if given is not None:
            return given, "--original-length"
        open_scopes = [scope for scope in scopes.values() if not scope.windowed]
        first = (open_scopes or list(scopes.values()))[0].parameters
        if first.original_max_position_embeddings is not None:
            return first.original_max_position_embeddings, "original_max_position_embeddings"
        known = self.family.known_originals.get(self.length)
        if known is not None and first.rope_type == "default":
            return known, f"known original of {self.family.model_type}"
        if self.fields.has("max_position_embeddings"):
            return self.length, "max_position_embeddings"
        return self.length, "family default"


def _scope(
    name: str,
    parameters: RopeParameters,
    served: tuple[int, ...],
    layers: Layers,
    path: tuple[str, ...] | None,
    windowed_if_empty: bool = False,
) -> Scope:
    flags = [layers.windowed[i] for i in served]
    windowed = all(flags) if flags else windowed_if_empty
    window = layers.window if any(flags) else None
    return Scope(name, parameters, served, windowed, window, path)


def _layer_override(fields: Fields, served: tuple[int, ...]) -> Fields | None:
    """What `per_layer_config` says about the scope's first layer."""
    overrides = fields.mapping("per_layer_config")
    return overrides.mapping(str(served[0])) if overrides and served else None


def _refuse_difference(a: RopeParameters, b: RopeParameters, at: Fields, other: Fields) -> None:
    """Insist that two spellings of one setting say the same.

    Raises:
        ConfigError: names the first field that differs, with both values.
    """

    def plain(p: RopeParameters) -> dict[str, Any]:
        values = {n: getattr(p, n) for n in RopeParameters.__dataclass_fields__ if n != "extra"}
        if p.rope_type in _HAVE_ORIGINAL:
            values["original_max_position_embeddings"] = p.original_length
        return {**p.extra, **values}

    first, second = plain(a), plain(b)
    for name in {**first, **second}:
        if first.get(name) != second.get(name):
            raise ConfigError(
                f"{at.where(name)} is {first.get(name)!r} but {other.where(name)} is "
                f"{second.get(name)!r}; engines differ in which they read. "
                "Make the two blocks say the same, or remove one."
            )
