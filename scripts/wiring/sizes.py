"""Sizes of the small models that are built: keys that single model files ask for."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

from scripts.wiring import own_code
from scripts.wiring.probes import SIZES, Shape
from yarncli.config.families.table import FAMILIES

# Beside `probes.SIZES`; harmless where a model file does not read them.
LARGER: dict[str, Any] = {
    "num_experts": 2, "num_local_experts": 2, "n_routed_experts": 2, "num_experts_per_tok": 1,
    "moe_intermediate_size": 32, "n_shared_experts": 1, "shared_expert_intermediate_size": 32,
    "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1, "norm_topk_prob": True,
    "routed_scaling_factor": 1.0, "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "decoder_sparse_step": 1, "mlp_only_layers": [],
    "layer_norm_eps": 1e-5, "layer_norm_epsilon": 1e-5, "norm_eps": 1e-5, "norm_epsilon": 1e-5,
    "layernorm_epsilon": 1e-5, "rms_eps": 1e-6,
}  # fmt: skip

# Model type → keys of its own.
_MLA = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64, "kv_lora_rank": 32,
        "q_lora_rank": 32}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "afm7": {"hidden_dim": 256, "num_heads": 4, "num_kv_heads": 2, "num_layers": 4},
    "bailing_hybrid": {**_MLA, "layer_group_size": 2, "use_bias": False, "use_qkv_bias": False},
    "baichuan_m1": {"sliding_window_layers": [0, 2], "conv_window": 2},
    "dbrx": {"ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 2, "moe_top_k": 1},
             "attn_config": {"kv_n_heads": 2, "rope_theta": 654321.0, "clip_qkv": 8},
             "d_model": 256, "n_heads": 4, "n_layers": 4},
    "cohere_compass_text": {"tie_word_embeddings": True},
    "glm4v_moe_text": {"use_qk_norm": False},
    "exaone4": {"sliding_window_pattern": "LG"},
    "exaone_moe": {"is_moe_layer": [False] * 4, "num_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 256, "mamba_n_heads": 4, "mamba_d_head": 64, "mamba_n_groups": 1,
                  "mamba_d_state": 16},
    "gemma3": {"sliding_window_pattern": 2},
    "gemma3_text": {"sliding_window_pattern": 2},
    "gemma3n": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 64,
                "activation_sparsity_pattern": [0.0] * 4, "hidden_size_per_layer_input": 16,
                "altup_num_inputs": 2, "altup_active_idx": 0, "laurel_rank": 8,
                "rope_local_base_freq": 10000.0},
    "gemma4_text": {"num_kv_shared_layers": 0, "global_head_dim": 64},
    "gemma4": {"num_kv_shared_layers": 0, "global_head_dim": 64},
    "gemma4_unified": {"num_kv_shared_layers": 0, "global_head_dim": 64},
    "granitemoehybrid": {"layer_types": ["attention"] * 4, "position_embedding_type": "rope",
                         "mamba_n_heads": 4, "mamba_d_head": 64, "mamba_d_state": 16,
                         "mamba_n_groups": 1, "mamba_d_conv": 4, "mamba_expand": 1,
                         "shared_intermediate_size": 64},
    "hunyuan": {"cla_share_factor": 2, "moe_topk": 1, "num_shared_expert": 1},
    "kimi_k3": {"hidden_act": "situ"},
    "lfm2": {"block_dim": 256, "block_multiple_of": 8, "block_ffn_dim_multiplier": 1.0,
             "conv_L_cache": 3, "layer_types": ["full_attention"] * 4},
    "lfm2_moe": {"conv_L_cache": 3, "layer_types": ["full_attention"] * 4, "num_dense_layers": 1},
    "lfm2-vl": {"block_dim": 256, "block_multiple_of": 8, "block_ffn_dim_multiplier": 1.0,
                "conv_bias": False, "block_auto_adjust_ff_dim": False,
                "conv_L_cache": 3, "layer_types": ["full_attention"] * 4},
    "llama4": {"no_rope_layers": [1, 1, 1, 0], "intermediate_size_mlp": 64,
               "interleave_moe_layer_step": 1, "attention_chunk_size": 512},
    "llama4_text": {"no_rope_layers": [1, 1, 1, 0], "intermediate_size_mlp": 64},
    "mimo_v2_flash": {"hybrid_layer_pattern": [1, 0, 1, 0], "moe_layer_freq": [0] * 4,
                      "swa_rope_theta": 10000.0, "swa_num_attention_heads": 4,
                      "swa_num_key_value_heads": 2, "v_head_dim": 64, "swa_head_dim": 192,
                      "swa_v_head_dim": 64, "head_dim": 192, "partial_rotary_factor": 0.334,
                      "sliding_window_size": 128},
    "muse_spark": {"layer_rope_theta": [654321.0, 654321.0, 0, 654321.0],
                   "moe_hidden_size": 32},
    "nemotron-nas": {"block_configs": [{"attention": {"n_heads_in_group": 2},
                                        "ffn": {"ffn_mult": 1.0}}] * 4},
    "nemotron": {"partial_rotary_factor": 0.5},
    "mistral4": {**_MLA, "head_dim": 128, "qk_head_dim": 128},
    "kimi_linear": _MLA, "longcat_flash": _MLA, "deepseek_v2": _MLA,
    "deepseek_v3": _MLA, "deepseek_v32": _MLA, "glm4_moe_lite": _MLA,
    "glm_moe_dsa": {**_MLA, "moe_layer_freq": 1},
    "minicpm3": _MLA,
    "longcat_flash_ngram": _MLA, "bailing_moe_v3": _MLA, "youtu_llm": _MLA,
    "kimi_k2": _MLA, "kimi_k25": _MLA, "kimi_vl": _MLA,
    "gpt_neox": {"rotary_emb_base": 654321.0, "rotary_pct": 1.0},
    "minimax": {"rotary_dim": 64}, "minimax_m2": {"rotary_dim": 64},
    "phi": {"num_key_value_heads": 4},
    "stablelm": {"num_key_value_heads": 4},
    "recurrent_gemma": {"block_types": ["recurrent", "attention"], "attention_window_size": 128},
    "smollm3": {"no_rope_layers": [1, 1, 1, 0]},
    "laguna": {"mlp_layer_types": ["dense"] + ["sparse"] * 3, "gating": True},
    "dots1": {"scoring_func": "noaux_tc"},
    "gemma2": {"hidden_act": "gelu_pytorch_tanh"},
    "gemma": {"hidden_act": "gelu_pytorch_tanh"},
    "deepseek_v4": {"num_key_value_heads": 1, "compress_ratios": [4, 128, 0, 4],
                    "compress_rope_theta": 654321.0, "qk_rope_head_dim": 64, "head_dim": 128,
                    "o_groups": 1, "o_lora_rank": 32, "q_lora_rank": 32, "index_topk": 16,
                    "index_head_dim": 64, "index_n_heads": 4, "hc_mult": 2},
    "qwen3_next": {"head_dim": 128, "full_attention_interval": 1, "linear_num_key_heads": 2,
                   "linear_num_value_heads": 4, "linear_key_head_dim": 32,
                   "linear_value_head_dim": 32},
    "qwen3_5_text": {"full_attention_interval": 1},
    "qwen3_5_moe_text": {"full_attention_interval": 1},
    "step3p5": {"layer_types": ["sliding_attention", "full_attention"] * 2,
                "yarn_only_types": ["full_attention"], "num_attention_groups": 2,
                "attention_other_setting": {"num_attention_heads": 4, "num_attention_groups": 2,
                                            "head_dim": 64}},
    "diffusion_gemma_text": {"tie_word_embeddings": True},
    "qwen4_exp_text": {"full_attention_interval": 1},
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 128, "attn_layer_indices": [0, 1, 2, 3],
              "layer_types": None, "sliding_window": None},
    "zamba2": {"num_hidden_layers": 4, "use_mem_rope": True, "layers_block_type": ["hybrid"] * 4,
               "layer_types": None, "sliding_window": None, "num_key_value_heads": 4,
               "head_dim": 128, "attention_head_dim": 128},
    "falcon": {"head_dim": None, "num_kv_heads": 2, "new_decoder_architecture": True},
    "esmc": {"num_key_value_heads": 4},
    "ernie4_5_vl_moe_text": {"moe_intermediate_size": [32, 32]},
    "dots3_note_text": {"num_key_value_heads": 4, "layer_types": None},
    "spark2_5": {"hidden_act": "gelu", "headwise_attn_output_gate": True,
                 "gate_attn_act_mode": "sigmoid"},
}  # fmt: skip

# Keys that only the probes set, even where a class insists on them.
ABOUT_ROPE = re.compile("rope_|theta|rotary_emb_base|partial_rotary")

# Model type → `partial_rotary_factor`.
PARTIAL: dict[str, float] = {
    "glm": 0.5, "glm4": 0.5, "glm4_moe": 0.5, "phi": 0.5, "stablelm": 0.25, "nemotron": 0.5,
    "persimmon": 0.5, "qwen3_next": 0.25, "qwen3_5_text": 0.25, "qwen3_5_moe_text": 0.25,
    "qwen3_5": 0.25, "qwen3_5_moe": 0.25, "glm4v_text": 0.5, "glm4v_moe_text": 0.5,
    "solar_open": 1.0, "phi4mm": 0.75,
}  # fmt: skip

# Model type → keys that its RoPE block has beside those of the probe.
_SECTIONS = {"mrope_section": [8, 12, 12]}
BLOCK: dict[str, dict[str, Any]] = {
    "qwen2_vl_text": _SECTIONS,
    "qwen2_5_vl_text": _SECTIONS,
    "qwen2_5_omni_text": _SECTIONS,
    "paddleocr_vl_text": _SECTIONS,
    "glm4v_moe_text": {"mrope_section": [4, 6, 6]},
    "glm4v_text": {"mrope_section": [4, 6, 6]},
    "cosmos3_edge_text": _SECTIONS,
    "ernie4_5_vl_moe_text": {"mrope_section": [11, 11, 10]},
    "hunyuan_vl_text": _SECTIONS,
    # Multimodal models themselves, for engines that go by their outer model type.
    **dict.fromkeys(
        ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "paddleocr_vl"), _SECTIONS
    ),
    **{key: {"mrope_section": [4, 2, 2]} for key in ("qwen3_5", "qwen3_5_moe")},
    **{key: {"mrope_section": [4, 6, 6]} for key in ("glm4v", "glm4v_moe")},
    "gpt_oss": {"beta_fast": 32.0, "beta_slow": 1.0},
    "ministral3": {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16384},
    "mistral4": {"llama_4_scaling_beta": 0.1, "original_max_position_embeddings": 16384},
}


def as_in_files(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A probe with its model type's own name for the window, as a file of it has."""
    family = FAMILIES.get(kind)
    key = family.names.get("max_position_embeddings") if family else None
    if key is None:
        return config
    return {key if k == "max_position_embeddings" else k: v for k, v in config.items()}


def model_types(own: Iterable[str] = ()) -> set[str]:
    """The model types that an engine is asked about: those yarncli has a row for, and `own`."""
    return {name for name, family in FAMILIES.items() if not family.is_wrapper} | set(own)


def shape_of(kind: str, pairs: int = 32, more: Mapping[str, Any] | None = None) -> Shape:
    """What the RoPE blocks of a model type look like, for `pairs` frequencies.

    Args:
        kind: the model type.
        pairs: how many frequencies.
        more: keys of every block instead of those of `BLOCK`.
    """
    family = FAMILIES.get(kind) or FAMILIES.get(f"{kind}_text")
    if family and family.is_wrapper:
        family = FAMILIES.get(family.text_type, family)
    scopes = family.scopes if family else ()
    scaled = tuple(rule.name for rule in scopes if not rule.windowed)
    plain = tuple(rule.name for rule in scopes if rule.windowed)
    return Shape(
        pairs, PARTIAL.get(kind), more or BLOCK.get(kind, {}), scaled, plain if scaled else ()
    )


# Text parts of multimodal models → the class that vLLM and SGLang build for them.
TEXT_PARTS = {
    "qwen2_vl_text": "Qwen2ForCausalLM",
    "qwen2_5_vl_text": "Qwen2ForCausalLM",
    "qwen3_vl_text": "Qwen3ForCausalLM",
    "qwen3_vl_moe_text": "Qwen3MoeForCausalLM",
}


def config_for(kind: str, own: Mapping[str, str] | None = None) -> tuple[dict[str, Any], str]:
    """The small config of a model type for transformers-based engines, and its architecture."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    named = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(kind)
    if named is None and own and kind in own:
        named = own[kind].removesuffix("Config") + "ForCausalLM"
    if kind in own_code.NAMED:
        named = own_code.NAMED[kind][0]
    own_keys = {**OWN.get(kind, {}), **own_code.OWN.get(kind, {})}
    sizes = {**_defaults(kind), **SIZES, **LARGER, **_strings(kind), **own_keys}
    if not _has_windows(kind):
        for key in ("layer_types", "sliding_window"):
            if key not in own_keys:
                del sizes[key]
    return {k: v for k, v in sizes.items() if v is not None}, str(named)


_SETTINGS_OF_PROBES = re.compile(
    "rope_|theta|max_position|partial_rotary|model_type|version|dtype|_config|architectures|base|"
    "original_max|return_dict|output_|layer_pattern|max_seq_len|model_max_length"
)


@functools.cache
def _defaults(kind: str) -> dict[str, Any]:
    """Numbers and switches of transformers' config class, numbers made small."""
    from transformers import CONFIG_MAPPING

    try:
        values = CONFIG_MAPPING[kind]().to_dict()
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}
    found = {k: v for k, v in values.items() if not _SETTINGS_OF_PROBES.search(k)}
    small = {k: min(v, 64) for k, v in found.items() if type(v) is int}
    return small | {k: v for k, v in found.items() if isinstance(v, bool | float | str)}


def _strings(kind: str) -> dict[str, Any]:
    return {k: v for k, v in _defaults(kind).items() if isinstance(v, str)}


def _has_windows(kind: str) -> bool:
    """Whether transformers' config class has layers of two kinds, one of them windowed."""
    from transformers import CONFIG_MAPPING

    family = FAMILIES.get(kind)
    kind = family.text_type if family and family.is_wrapper else kind
    try:
        return "sliding_attention" in (CONFIG_MAPPING[kind]().layer_types or ())
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
