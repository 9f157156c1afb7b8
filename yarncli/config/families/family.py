"""The shape of one row of `FAMILIES`: what transformers assumes for a model type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

METHODS = ("linear", "dynamic", "ntk", "yarn", "ntk-by-parts", "llama3", "longrope")


@dataclass(frozen=True, slots=True)
class ScopeRule:
    """One entry of a nested `rope_parameters`: its label and what fills it by default.

    `layer_types` are the layer types it serves (its own name where empty). `theta_keys` are the
    top-level keys that old files keep its θ under. `takes_flat` says whether a flat
    `rope_scaling` is merged into it when the file is loaded, `flat_yarn_attention_factor` what
    a yarn merged so gets as `attention_factor` unless it has one. `head_dim_key` is the top-level
    key of its own head width; `partial_required` says that its entry must give
    `partial_rotary_factor`.
    """

    name: str
    rope_theta: float
    windowed: bool = False
    rope_type: str = "default"
    partial_rotary_factor: float = 1.0
    theta_keys: tuple[str, ...] = ()
    takes_flat: bool = False
    layer_types: tuple[str, ...] = ()
    head_dim_key: str | None = None
    head_dim: int | None = None
    rotates: bool = True
    partial_required: bool = False
    flat_yarn_attention_factor: float | None = None

    @property
    def defaults(self) -> dict[str, Any]:
        """Its setting where the file is silent, as a dict without θ."""
        return {"rope_type": self.rope_type}

    @property
    def serves(self) -> tuple[str, ...]:
        """The layer types that rotate with this scope."""
        return self.layer_types or (self.name,)


@dataclass(frozen=True, slots=True)
class Family:
    """Defaults and rules of one `model_type`; everything not given is Llama's.

    Sizes are those of the config class. A head is `hidden_size * head_width` over the heads wide
    (Zamba 2 attends on twice the hidden size); `attention_per_layer` counts attentions per layer.
    `None` for `num_key_value_heads` means as many as heads,
    for `head_dim` `hidden_size // num_attention_heads`. `honours_partial` says whether plain RoPE
    follows `partial_rotary_factor`. `layer_rule` names the rule of `layers.py` that fills
    `layer_types` where the file has none; `rope_rule` the one that says which layers rotate.
    `flat_parameters` says that a flat `rope_parameters` is read like a flat `rope_scaling`,
    `fills_scopes` that an entry missing from a nested one is filled with the scope's default
    instead of failing. `remark` is what a person should know about the family. `mrope` marks
    multimodal RoPE without a key that says so.
    `theta_list` says that old files list one θ per layer, and which layer of a scope counts.
    Sizes of the cache: `kv_lora_rank` is the width of an MLA latent (`sliding_kv_lora_rank`: in
    windowed layers), `v_head_dim` that of a value where it is not the key's, `index_head_dim` that
    of an indexer's key; windowed layers have `sliding_kv_heads_factor` times the key-value heads,
    and the last `num_kv_shared_layers` layers cache nothing. Where the config field
    `repeated_cache_key` is true, keys and values are cached once per query head.
    `spelling` is "nested" where a flat dict does not load or reaches scopes it should not.
    Wrappers (multimodal models) only say where their text part is: `text_key`, `text_type` (its
    family; `text_fixed`: whatever type the part names), `flat_text` (old files keep it at top
    level).
    """

    model_type: str = ""
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048
    hidden_size: int = 4096
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None
    num_hidden_layers: int = 32
    head_dim: int | None = None
    head_dim_fixed: bool = False
    head_width: int = 1
    attention_per_layer: int = 1
    partial_rotary_factor: float = 1.0
    honours_partial: bool = False
    theta_keys: tuple[str, ...] = ("rope_theta",)
    theta_list: Literal["", "first", "last"] = ""
    partial_keys: tuple[str, ...] = ("partial_rotary_factor",)
    partial_fixed: bool = False
    rotary_dim_key: str = ""
    original_max_position_embeddings: int | None = None
    rope_defaults: Mapping[str, Any] = field(default_factory=dict)
    scopes: tuple[ScopeRule, ...] = ()
    fills_scopes: bool = False
    flat_parameters: bool = False
    yarn_means_longrope: bool = False
    remark: str = ""
    mrope: bool = False
    rotary_size_key: str = "head_dim"
    qk_rope_head_dim: int | None = None
    qk_nope_head_dim: int | None = None
    is_mla: bool = False
    kv_lora_rank: int = 512
    sliding_kv_lora_rank: int | None = None
    sliding_kv_heads_factor: int = 1
    v_head_dim: int | None = None
    num_kv_shared_layers: int = 0
    index_head_dim: int = 128
    repeated_cache_key: str = ""
    layer_rule: str = ""
    layer_period: int = 0
    period_keys: tuple[str, ...] = ()
    rope_rule: str = "all"
    sliding_window: int | None = None
    window_key: str = "sliding_window"
    window_everywhere: bool = False
    window_switch: bool = False
    max_window_layers: int = 28
    names: Mapping[str, str] = field(default_factory=dict)
    spelling: Literal["both", "nested"] = "both"
    refuses: Mapping[str, str] = field(default_factory=dict)
    known_originals: Mapping[int, int] = field(default_factory=dict)
    text_key: str = ""
    text_type: str = ""
    text_fixed: bool = False
    flat_text: bool = False
