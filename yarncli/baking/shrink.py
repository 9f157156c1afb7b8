"""A config of the same kind with small sizes, for tiny random models."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from yarncli.config.text_model import MOST_LAYERS
from yarncli.history import BAKED_MARKER
from yarncli.jsontext.fields import Fields

_LAYERS = 4
_MOST_LAYERS = 8
_LAYER_COUNTS = ("num_hidden_layers", "n_layers", "num_layers")
_HEADS = ("num_attention_heads", "n_heads", "attention_heads")
_KV_HEADS = (
    "num_key_value_heads",
    "num_kv_heads",
    "num_query_groups",
    "num_global_key_value_heads",
    "num_heads",
    "kv_n_heads",
)
# Small size → the config keys that get it; a smaller value is not changed.
_NAMES_OF_SIZE = {
    256: "index_topk indexer_budget",
    128: "vocab_size vocab_size_per_layer_input mamba_d_ssm encoder_hash_byte_group_vocab",
    64: """hidden_size hidden_size_global d_model out_hidden_size sliding_window
        attention_chunk_size local_attention index_topk_blocks ngram_vocab_size_base
        codebook_size""",
    48: "intermediate_size ffn_hidden_size ffn_dim dense_intermediate_size intermediate_size_mlp",
    32: """moe_intermediate_size shared_expert_intermediate_size shared_intermediate_size
        expert_ffn_hidden_size shared_experts_intermediate_size router_hidden_size ple_embed_dim
        image_size base_channels block_size floor_scale""",
    24: "q_lora_rank",
    16: """kv_lora_rank o_lora_rank v_head_dim qk_nope_head_dim index_head_dim indexer_head_dim
        index_block_size linear_key_head_dim linear_value_head_dim linear_head_dim mamba_d_state
        mamba_d_head mamba_headdim mamba_chunk_size chunk_size hc_lowrank""",
    8: """gated_norm_rank laurel_rank adapter_rank qk_rope_head_dim mamba_n_heads
        hidden_size_per_layer_input patch_size""",
    4: """num_experts n_routed_experts num_local_experts moe_num_experts split_ngram_parts
        make_ngram_vocab_size_divisible_by mm_tokens_per_image linear_num_heads
        linear_num_value_heads""",
    2: """num_experts_per_tok moe_topk moe_k top_k_experts num_experts_per_token zero_expert_num
        index_n_heads linear_num_key_heads""",
    1: "n_group topk_group num_expert_group num_mem_blocks depth",
}
_SMALL_SIZES = {name: size for size, names in _NAMES_OF_SIZE.items() for name in names.split()}
DROPPED = ("quantization_config", "compression_config", "auto_map", "architectures", BAKED_MARKER)


def shrink(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config of the same kind with small sizes, in which every kind of layer remains.

    Args:
        config: the JSON object of `config.json`.

    Raises:
        ConfigError: a part of the model has a number of layers that is out of range.
    """
    # Layers first, then heads, because lists with one entry per layer follow the kept layers.
    small = {key: value for key, value in config.items() if key not in DROPPED}
    count_key = next((key for key in _LAYER_COUNTS if _is_size(small.get(key))), None)
    count = Fields(small).positive(count_key, 1, MOST_LAYERS) if count_key else 0
    kept = _kept_layers(small, count)
    if count_key:
        small[count_key] = len(kept)
    _shrink_heads(small)
    ratio = _shrink_head_dim(small, config)
    for key, value in list(small.items()):
        if key in ("rope_parameters", "rope_scaling"):
            small[key] = _shrink_rope(value, ratio)
        elif key == "per_layer_config" and isinstance(value, Mapping):
            small[key] = {
                kept.index(int(layer)): _shrink_sizes(own)
                for layer, own in value.items()
                if int(layer) in kept
            }
        elif isinstance(value, list) and count and len(value) == count:
            small[key] = [value[layer] for layer in kept]
        elif isinstance(value, Mapping) and (key.endswith("_config") or "model_type" in value):
            small[key] = shrink(value)
        elif key.endswith(("token_id", "token_index")):
            small[key] = _small_token(key, value)
    return _shrink_sizes(small)


def _is_size(value: object) -> bool:
    return type(value) is int and value > 0


def _shrink_sizes(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: min(_SMALL_SIZES[key], value) if key in _SMALL_SIZES and _is_size(value) else value
        for key, value in values.items()
    }


def _kept_layers(config: Mapping[str, Any], count: int) -> list[int]:
    """The first layer of every kind, then further layers until there are enough."""
    lists = [v for v in config.values() if isinstance(v, list) and count and len(v) == count]
    own = {int(layer): v for layer, v in (config.get("per_layer_config") or {}).items()}
    kinds: dict[str, int] = {}
    for layer in range(count):
        kind = json.dumps([[v[layer] for v in lists], own.get(layer)], default=str)
        kinds.setdefault(kind, layer)
    kept = list(kinds.values())[:_MOST_LAYERS]
    kept += [layer for layer in range(count) if layer not in kept][: max(0, _LAYERS - len(kept))]
    return sorted(kept)


def _shrink_heads(small: dict[str, Any]) -> None:
    key = next((key for key in _HEADS if _is_size(small.get(key))), None)
    heads = small[key] if key else None
    for name in _KV_HEADS:
        value = small.get(name)
        if _is_size(value):
            small[name] = 4 if heads in (None, value) else min(2, value)  # type: ignore[type-var]
    if key:
        small[key] = 4


def _shrink_head_dim(small: dict[str, Any], config: Mapping[str, Any]) -> float:
    """Give heads a small width with an even rotating part; returns new width / old width."""
    rope_dim = config.get("qk_rope_head_dim")
    if type(rope_dim) is int and rope_dim > 0:
        whole = 24 if _is_size(config.get("qk_nope_head_dim")) else 16
        for key in ("head_dim", "qk_head_dim"):
            if _is_size(config.get(key)):
                small[key] = 8 if config[key] == rope_dim else whole
        return 8 / rope_dim
    heads = next((config[key] for key in _HEADS if _is_size(config.get(key))), 1)
    hidden = config.get("hidden_size", config.get("d_model", 64))
    named = [key for key in ("head_dim", "kv_channels") if _is_size(config.get(key))]
    old: int = config[named[0]] if named else max(1, hidden // heads)
    new = next(width for width in (16, 24, 32, 48, 64) if _rotates_evenly(width, config))
    if named or new != 16:
        small[named[0] if named else "head_dim"] = new
    if _is_size(config.get("global_head_dim")):
        small["global_head_dim"] = 2 * new
    if _is_size(config.get("rotary_dim")):
        small["rotary_dim"] = max(2, config["rotary_dim"] * new // old)
    return new / old


def _rotates_evenly(width: int, config: Mapping[str, Any]) -> bool:
    parts = [int(width * factor) for factor in _partial_factors(config)]
    return width == 64 or all(part > 0 and part % 2 == 0 for part in parts)


def _partial_factors(config: Mapping[str, Any]) -> list[float]:
    places = [config]
    for key in ("rope_parameters", "rope_scaling"):
        block = config.get(key) or {}
        places += [block, *(entry for entry in block.values() if isinstance(entry, Mapping))]
    names = ("partial_rotary_factor", "rotary_pct")
    found = [place.get(name) for place in places for name in names]
    return [value for value in found if isinstance(value, float)]


def _shrink_rope(block: Any, ratio: float) -> Any:
    """The RoPE block with shorter lists, because they have one entry per frequency."""
    if not isinstance(block, Mapping):
        return block
    made: dict[str, Any] = {}
    for key, value in block.items():
        if isinstance(value, Mapping):
            made[key] = _shrink_rope(value, ratio)
        elif key in ("short_factor", "long_factor") and isinstance(value, Sequence):
            made[key] = list(value)[: round(len(value) * ratio)]
        elif key == "mrope_section" and isinstance(value, Sequence) and value:
            parts = [max(1, int(part * ratio)) for part in value]
            made[key] = [round(sum(value) * ratio) - sum(parts[1:]), *parts[1:]]
        else:
            made[key] = value
    return made


def _small_token(key: str, value: Any) -> Any:
    """A token id in the small vocabulary: the same for the same key, and never in a test prompt."""
    if isinstance(value, list):
        return 2
    return 64 + zlib.crc32(key.encode()) % 60 if _is_size(value) and value >= 64 else value
