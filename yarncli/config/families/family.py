"""The shape of one row of `FAMILIES`: what transformers assumes for a model type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

# The transformers releases that rows tell apart: each stands for all before the next one.
Release = Literal["4.50", "4.55", "4.57", "5"]


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """One entry of a nested `rope_parameters`: its label and what fills it by default."""

    name: str
    """The label of the entry."""
    rope_theta: float
    """θ where the file gives none."""
    windowed: bool = False
    """Whether its layers attend within a window."""
    rope_type: str = "default"
    """The RoPE type where the file gives none."""
    partial_rotary_factor: float = 1.0
    """The share of a head that rotates where the file gives none."""
    theta_keys: tuple[str, ...] = ()
    """The top-level keys that old files keep its θ under."""
    takes_flat: bool = False
    """Whether a flat `rope_scaling` is merged into it when the file is loaded."""
    layer_types: tuple[str, ...] = ()
    """The layer types that it serves; its own name where empty."""
    head_dim_key: str | None = None
    """The top-level key of its own head width."""
    head_dim: int | None = None
    """Its own head width where the file gives none."""
    rotates: bool = True
    """False where its layers have no RoPE unless the file has an entry for it."""
    partial_required: bool = False
    """Whether its entry must give `partial_rotary_factor`."""
    flat_yarn_attention_factor: float | None = None
    """The `attention_factor` that a yarn merged from a flat dict gets unless it has one."""

    @property
    def serves(self) -> tuple[str, ...]:
        """The layer types that rotate with this scope."""
        return self.layer_types or (self.name,)


@dataclass(frozen=True, slots=True)
class Family:
    """All that is known about one `model_type`; every field not given is as in Llama.

    The values are those of transformers' config class and model code, so they hold where
    `config.json` is silent. Rows give their fields in the order below.
    """

    model_type: str = ""
    """The name; `table.py` fills it in from the key of the row."""
    transformers_since: Release = "5"
    """The first of the releases 4.50, 4.55, 4.57 and 5 that has its config class."""
    registered: bool = True
    """False where transformers 4 knows it as a part of a wrapper only, not as a checkpoint."""
    same_as: str = ""
    """For a type of remote code: the type whose row and modelling file it shares."""

    # Sizes
    max_position_embeddings: int = 2048
    """The length, in tokens."""
    hidden_size: int = 4096
    """The width of the residual stream."""
    num_attention_heads: int = 32
    """The number of query heads."""
    num_key_value_heads: int | None = None
    """The number of key/value heads; None means as many as query heads."""
    num_hidden_layers: int = 32
    """The number of layers."""
    attentions_per_layer: int = 1
    """How many attentions one of these layers has."""
    stored_layers_key: str = ""
    """The key of how many layers the weights have, where each runs more than once."""
    head_dim: int | None = None
    """The width of a head; None means that it is computed from the two sizes above."""
    head_dim_fixed: bool = False
    """Whether the width is always computed, whatever `head_dim` says."""
    head_dim_null_in: tuple[Release, ...] = ()
    """The releases whose config class leaves `head_dim` null where the file has none.

    yarn, dynamic and longrope then stop with a TypeError, so a conversion writes it.
    """
    hidden_multiple: int = 1
    """Computed heads divide this many times `hidden_size` (Zamba 2 attends on twice of it)."""
    qk_rope_head_dim: int | None = None
    """The rotated part of a key under multi-head latent attention (MLA); None without MLA."""
    qk_nope_head_dim: int | None = None
    """The part of a key that is not rotated under MLA."""
    multi_query_switch: bool = False
    """Whether `multi_query` and `new_decoder_architecture` decide the number of k/v heads."""
    attention_key: str = ""
    """The key of an inner object that holds `kv_n_heads` and a θ that transformers ignores."""
    length_switches: Mapping[str, int] = field(default_factory=dict)
    """Boolean keys that, where true, set the length to this many tokens whatever the file says."""

    # Sizes of the cache
    kv_lora_rank: int = 512
    """The width of the latent that MLA caches."""
    sliding_kv_lora_rank: int | None = None
    """The same in windowed layers, where it is another."""
    sliding_kv_heads_factor: int = 1
    """Windowed layers have this many times the key/value heads."""
    v_head_dim: int | None = None
    """The width of a value head where it is not that of a key."""
    num_kv_shared_layers: int = 0
    """So many layers at the end use the keys and values of earlier ones and cache nothing."""
    index_head_dim: int = 128
    """The width of an indexer's key."""
    repeated_cache_key: str = ""
    """The boolean key under which keys and values are cached once per query head."""

    # RoPE
    rope_theta: float = 10000.0
    """θ, the base of the frequencies."""
    theta_keys: tuple[str, ...] = ("rope_theta",)
    """The top-level keys that θ is read from, the first one being written."""
    theta_list: Literal["", "first", "last"] = ""
    """Old files list one θ per layer: which layer of a scope counts."""
    original_max_position_embeddings: int | None = None
    """What the top-level key of this name says where it is absent."""
    known_originals: Mapping[int, int] = field(default_factory=dict)
    """Published lengths whose models were trained with a shorter window: length → window."""
    partial_rotary_factor: float = 1.0
    """The share of a head that rotates."""
    honours_partial: bool = False
    """Whether plain RoPE follows `partial_rotary_factor`."""
    partial_keys: tuple[str, ...] = ("partial_rotary_factor",)
    """The top-level keys that the share is read from."""
    partial_fixed: bool = False
    """Whether those keys are ignored."""
    rotary_dim_key: str = ""
    """The top-level key that gives the rotated width in dimensions instead of as a share."""
    rotary_size_key: Literal["qk_rope_head_dim", "qk_head_dim", "head_dim"] = "qk_rope_head_dim"
    """Under MLA, the width that `partial_rotary_factor` is a share of."""
    rope_defaults: Mapping[str, Any] = field(default_factory=dict)
    """The scaling dict that the config class brings itself."""
    longrope_scale_key: str = ""
    """The key of a longrope dict that counts in place of `attention_factor`."""
    yarn_means_longrope: bool = False
    """Whether the type name "yarn" is read as longrope."""
    mla_softmax: bool = True
    """Under MLA, whether the softmax scale is multiplied by m(factor · mscale_all_dim)²."""
    mrope: bool = False
    """Multimodal RoPE, also without a key that says so."""

    # Scopes of a nested `rope_parameters`
    scopes: tuple[ScopeRule, ...] = ()
    """The entries; empty where all layers share one setting."""
    scope_sizes_rule: Literal["", "mla_widths", "qk_rope_head_dim", "partial_rotary_factors"] = ""
    """The rule of `scopes.py` for head width and rotated share; "" is that of most families."""
    fills_scopes: bool = False
    """Whether a missing entry is filled with the scope's default instead of failing."""
    flat_parameters: bool = False
    """Whether a flat `rope_parameters` is read like a flat `rope_scaling`."""
    spelling: Literal["both", "nested"] = "both"
    """"nested" where a flat dict does not load, or reaches scopes that it should not."""

    # Layers
    layer_rule: str = ""
    """The rule of `layers.py` that fills `layer_types`; "" is full attention everywhere."""
    layer_period: int = 0
    """The N of that rule where no key gives it."""
    period_keys: tuple[str, ...] = ()
    """The keys that give it."""
    max_window_layers: int = 28
    """The layer from which Qwen 2 slides."""
    sliding_window: int | None = None
    """The window, in tokens."""
    window_key: str = "sliding_window"
    """The key that the window is read from."""
    window_everywhere: bool = False
    """Whether all layers attend within the window, where one is set."""
    window_switch: bool = False
    """Whether there is a window only where `use_sliding_window` is true."""
    rope_rule: str = "all"
    """The rule of `layers.py` that says which layers rotate."""
    scaled_layers_key: str = ""
    """The key that lists the layers which use a scaling at all."""

    # The rest
    names: Mapping[str, str] = field(default_factory=dict)
    """The file's own names for keys: the usual one → its own."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Methods that it cannot take → why."""
    refused_types_load: bool = False
    """Whether transformers loads those types nevertheless and computes something else."""
    remark: str = ""
    """What a person should know about the family."""
    fast_scoring_tested: bool = False
    """Whether tests compare its passkey scores with those of one plain forward."""

    # Wrappers (multimodal models) say only where their text part is
    text_key: str = "text_config"
    """The key of the text part."""
    text_type: str = ""
    """The model type of the text part where it names none; "" for a text model itself."""
    text_fixed: bool = False
    """Whether the text part is of that type whatever it names."""
    flat_text: bool = False
    """Whether old files keep the fields of the text part at top level."""

    @property
    def is_wrapper(self) -> bool:
        """Whether the text model is a part of this one."""
        return bool(self.text_type)

    @property
    def is_mla(self) -> bool:
        """Whether it uses multi-head latent attention."""
        return self.qk_rope_head_dim is not None

    @property
    def scales_softmax(self) -> bool:
        """Whether its attention multiplies the softmax scale by m(factor · mscale_all_dim)²."""
        return self.is_mla and self.mla_softmax
