"""The rows of `FAMILIES` for text models: what differs from Llama, one entry per model type."""

from __future__ import annotations

from typing import Any

from yarncli.rope.family import METHODS, Family, ScopeRule


def _row(
    rope_theta: float,
    max_position_embeddings: int,
    hidden_size: int,
    num_attention_heads: int,
    num_key_value_heads: int | None = None,
    num_hidden_layers: int = 32,
    head_dim: int | None = None,
    **rest: Any,
) -> Family:
    return Family(
        rope_theta=rope_theta,
        max_position_embeddings=max_position_embeddings,
        hidden_size=hidden_size,
        num_attention_heads=num_attention_heads,
        num_key_value_heads=num_key_value_heads,
        num_hidden_layers=num_hidden_layers,
        head_dim=head_dim,
        **rest,
    )


def _mla(
    qk_rope_head_dim: int, qk_nope_head_dim: int, rotary_size_key: str = "qk_rope_head_dim"
) -> dict[str, Any]:
    return {
        "is_mla": True,
        "rotary_size_key": rotary_size_key,
        "qk_rope_head_dim": qk_rope_head_dim,
        "qk_nope_head_dim": qk_nope_head_dim,
    }


def _full(rope_theta: float, **rest: Any) -> ScopeRule:
    return ScopeRule("full_attention", rope_theta, **rest)


def _sliding(rope_theta: float, **rest: Any) -> ScopeRule:
    return ScopeRule("sliding_attention", rope_theta, windowed=True, **rest)


_NEOX_THETA = ("rotary_emb_base",)
_NEOX_PARTIAL = ("rotary_pct",)

_GEMMA3 = (
    _full(1e6, theta_keys=("rope_theta",), takes_flat=True),
    _sliding(1e4, theta_keys=("rope_local_base_freq",)),
)
# OLMo 3's config class takes the file's θ for its full layers only.
_OLMO3 = (_full(5e5, theta_keys=("rope_theta",), takes_flat=True), _sliding(5e5))
_MODERNBERT = (
    _full(1.6e5, theta_keys=("global_rope_theta",), takes_flat=True),
    _sliding(1e4, theta_keys=("local_rope_theta",), takes_flat=True),
)
_GEMMA4 = (
    _full(
        1e6,
        rope_type="proportional",
        partial_rotary_factor=0.25,
        head_dim_key="global_head_dim",
        head_dim=512,
    ),
    _sliding(1e4),
)
_EMBEDDING_GEMMA2 = (_full(1e6, head_dim_key="global_head_dim", head_dim=512), _sliding(1e4))
_LAGUNA = (_full(5e5, partial_rotary_factor=0.5), _sliding(1e4))
_LFM3 = (_full(1e6, rope_type="proportional", partial_rotary_factor=0.5), _sliding(1e4))
_MIMO = (
    _full(5e6, partial_rotary_factor=0.334, partial_required=True),
    _sliding(1e4, partial_rotary_factor=0.334, partial_required=True),
)
_NEOMME = (
    _full(1e6, partial_rotary_factor=0.25, theta_keys=("rope_theta",)),
    _sliding(1e4, theta_keys=("rope_theta",)),
)
_ZAYA = (
    ScopeRule("hybrid", 5e6, partial_rotary_factor=0.5),
    ScopeRule("hybrid_sliding", 1e4, partial_rotary_factor=0.5, windowed=True),
)
_STEP3 = (
    _full(1e4, theta_keys=("rope_theta",), takes_flat=True),
    _sliding(1e4, theta_keys=("rope_theta",)),
)
# Its config class also takes a flat dict, but then gives sliding layers the other layers' θ.
_DOTS3 = (
    ScopeRule("indexed_attention", 8e7, theta_keys=("rope_theta",)),
    _full(8e7, theta_keys=("rope_theta",)),
    _sliding(5e4, theta_keys=("swa_rope_theta",)),
)
_DEEPSEEK_V4 = (
    ScopeRule(
        "compress",
        1.6e5,
        flat_yarn_attention_factor=1.0,
        theta_keys=("compress_rope_theta",),
        partial_rotary_factor=0.125,
        takes_flat=True,
        layer_types=("compressed_sparse_attention", "heavily_compressed_attention"),
    ),
    ScopeRule(
        "main",
        1e4,
        windowed=True,
        partial_rotary_factor=0.125,
        theta_keys=("rope_theta",),
        layer_types=("sliding_attention",),
    ),
)

_YARN_GPT_OSS = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
_APERTUS = {
    "rope_type": "llama3",
    "rope_theta": 12000000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
_CWM = {**_APERTUS, "rope_theta": 1000000.0, "factor": 16.0}
_HIGGS = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "original_max_position_embeddings": 1024,
    "low_freq_factor": 0.125,
    "high_freq_factor": 0.5,
}
_MISTRAL_YARN = {
    "rope_type": "yarn",
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}
_MINISTRAL3 = {
    **_MISTRAL_YARN,
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
}
_MISTRAL4 = {
    **_MISTRAL_YARN,
    "rope_theta": 10000.0,
    "factor": 128.0,
    "original_max_position_embeddings": 8192,
}
_MISTRAL_LARGE4 = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 2048.0,
    "original_max_position_embeddings": 512,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": 1.0,
}

_ONLY_LONGROPE = "its config class turns every other RoPE type into longrope, or rejects it"
_PHI3 = {method: _ONLY_LONGROPE for method in METHODS if method not in ("ntk", "longrope")}
_PHIMOE = {
    **dict.fromkeys(("linear", "dynamic", "yarn", "ntk-by-parts", "llama3"), _ONLY_LONGROPE),
    "longrope": "its model class never uses the long factors",
}
_LEROPE = "Each frequency is also multiplied by a learned factor that lies in the weights."
_WIDTHS_DIFFER = "transformers cannot check its factor lists, since layers differ in head width"
_NO_LONGROPE = {"longrope": _WIDTHS_DIFFER}
_ONLY_PLAIN = "its model class accepts no RoPE type but the plain one"
_PLAIN_ONLY = {method: _ONLY_PLAIN for method in METHODS if method != "ntk"}

_NEEDS_ORIGINAL = (
    "its attention also needs original_max_position_embeddings, which this method has no place for"
)
_MISTRAL = dict.fromkeys(("linear", "dynamic", "ntk"), _NEEDS_ORIGINAL)
_DBRX = {"ntk": "some engines read θ from attn_config, others at top level"}

# fmt: off
# Columns: rope_theta, max_position_embeddings, hidden_size, heads, kv heads, layers, head_dim.
TEXT_ROWS: dict[str, Family] = {
    "afmoe": _row(1e4, 16384, 2048, 16, None, 32, 128, layer_rule="every_nth", layer_period=4,
        period_keys=("global_attn_every_n_layers",), sliding_window=1024, rope_rule="windowed"),
    "apertus": _row(1.2e7, 65536, 4096, 32, None, 32, rope_defaults=_APERTUS),
    "arcee": _row(1e4, 4096, 2560, 32, None, 32),
    "aria_text": _row(1e4, 2048, 4096, 32, None, 32),
    "axk1": _row(1e4, 32768, 7168, 64, 64, 61, **_mla(64, 128)),
    "axk2": _row(1e4, 131072, 2048, 32, 32, 48, **_mla(32, 64), layer_rule="all_indexed"),
    "bailing_hybrid": _row(6e6, 262144, 2560, 32, 32, 42, **_mla(64, 128),
        layer_rule="every_nth_interval", layer_period=6, period_keys=("layer_group_size",),
        names={"max_position_embeddings": "model_max_length"}),
    "bamba": _row(1e4, 262144, 4096, 32, 8, 32, partial_rotary_factor=0.5, honours_partial=True,
        partial_fixed=True, layer_rule="attn_layer_indices", names={"layer_types":
        "layers_block_type"}),
    "beam": _row(1e4, 8192, 5120, 48, 8, 52, 128, layer_rule="every_nth_and_last", layer_period=6,
        sliding_window=512, spelling="nested", scopes=(_sliding(1e4), ScopeRule("full_attention",
        1e4, rotates=False))),
    "bitnet": _row(5e5, 2048, 2560, 20, 5, 30),
    "chameleon": _row(1e4, 4096, 4096, 32, 32, 32),
    "cohere": _row(5e5, 8192, 8192, 64, None, 40),
    "cohere2": _row(1e4, 8192, 8192, 64, None, 40, layer_rule="every_nth", layer_period=4,
        period_keys=("sliding_window_pattern",), sliding_window=4096, rope_rule="windowed",
        head_dim_fixed=True),
    "cohere2_moe": _row(1e4, 8192, 8192, 64, None, 40, 128, layer_rule="cohere2_moe",
        layer_period=4, sliding_window=4096, rope_rule="cohere2_moe", spelling="nested"),
    "cohere_compass_text": _row(1e4, 8192, 8192, 64, None, 40, layer_rule="all_full",
        sliding_window=4096, spelling="nested", scopes=(_sliding(1e4), _full(1e4)),
        head_dim_fixed=True),
    "cosmos3_edge_text": _row(1e8, 131072, 2048, 16, 8, 28, 128, refuses=_PLAIN_ONLY, mrope=True),
    "csm": _row(5e5, 2048, 2048, 32, 8, 16),
    "cwm": _row(1e6, 131072, 6144, 48, 8, 64, 128, layer_rule="first_of_n", layer_period=4,
        sliding_window=8192, rope_defaults=_CWM),
    "dbrx": _row(1e4, 2048, 2048, 16, None, 24, refuses=_DBRX, names={"num_attention_heads":
        "n_heads", "hidden_size": "d_model", "num_hidden_layers": "n_layers",
        "max_position_embeddings": "max_seq_len"}),
    "deepseek_ocr2_text": _row(1e4, 2048, 4096, 32, None, 32, head_dim_fixed=True),
    "deepseek_v2": _row(1e4, 2048, 4096, 32, None, 32, **_mla(64, 128)),
    "deepseek_v3": _row(1e4, 4096, 7168, 128, 128, 61, **_mla(64, 128)),
    "deepseek_v32": _row(1e4, 163840, 7168, 128, 128, 61, **_mla(64, 128),
        layer_rule="all_indexed"),
    "deepseek_v4": _row(1e4, 1048576, 4096, 64, 1, 43, 512, honours_partial=True,
        layer_rule="compress_ratios", sliding_window=128, spelling="nested", flat_parameters=True,
        scopes=_DEEPSEEK_V4),
    "diffllama": _row(1e4, 2048, 2048, 32, None, 16),
    "diffusion_gemma_text": _row(1e4, 131072, 2304, 8, 4, 30, 256, honours_partial=True,
        layer_rule="every_nth_and_last", layer_period=6, sliding_window=512, spelling="nested",
        scopes=_GEMMA4),
    "doge": _row(1e4, 2048, 1024, 8, None, 32, window_everywhere=True),
    "dots1": _row(1e4, 2048, 4608, 32, 32, 62, layer_rule="max_window_layers", sliding_window=4096,
        max_window_layers=62),
    "dots3_note_text": _row(8e7, 524288, 5120, 128, 128, 46, 256, is_mla=True, qk_rope_head_dim=64,
        honours_partial=True, layer_rule="dsa_and_sliding", sliding_window=512, spelling="nested",
        refuses=_NO_LONGROPE, scopes=_DOTS3),
    "embedding_gemma2_text": _row(1e4, 262144, 512, 4, 2, 24, 256, layer_rule="every_nth_and_last",
        layer_period=6, period_keys=("sliding_window_pattern",), sliding_window=512,
        spelling="nested", refuses=_NO_LONGROPE, scopes=_EMBEDDING_GEMMA2),
    "emu3_text_model": _row(1e6, 9216, 4096, 32, 8, 32),
    "ernie4_5": _row(5e5, 131072, 1024, 16, 2, 18, 128),
    "ernie4_5_moe": _row(5e5, 131072, 2560, 20, 4, 28),
    "ernie4_5_vl_moe_text": _row(5e5, 131072, 2560, 20, 4, 28, refuses=_PLAIN_ONLY, mrope=True),
    "esmc": _row(1e4, 2048, 2560, 40, None, 80),
    "eurobert": _row(1e4, 8192, 768, 12, None, 12),
    "evolla": _row(5e5, 8192, 4096, 32, 8, 32),
    "exaone4": _row(1e4, 2048, 4096, 32, 32, 32, layer_rule="every_nth_or_no_window",
        layer_period=4, period_keys=("sliding_window_pattern",), sliding_window=4096,
        rope_rule="windowed_or_no_window"),
    "exaone_moe": _row(1e4, 2048, 4096, 32, 32, 32, layer_rule="every_nth_or_no_window",
        layer_period=4, period_keys=("sliding_window_pattern",), sliding_window=4096,
        rope_rule="windowed_or_no_window"),
    "falcon": _row(1e4, 2048, 4544, 71, None, 32, rope_rule="not_alibi",
        names={"num_key_value_heads": "num_kv_heads"}),
    "falcon_h1": _row(1e4, 8192, 4096, 32, 8, 32, names={"layer_types": "layers_block_type"}),
    "flex_olmo": _row(5e5, 4096, 4096, 32, None, 32),
    "flint": _row(1e4, 262144, 2048, 32, 4, 49, 128, layer_rule="flint", sliding_window=513,
        rope_rule="windowed"),
    "gemma": _row(1e4, 8192, 3072, 16, 16, 28, 256),
    "gemma2": _row(1e4, 8192, 2304, 8, 4, 26, 256, layer_rule="every_nth", layer_period=2,
        sliding_window=4096),
    "gemma3_text": _row(1e4, 131072, 2304, 8, 4, 26, 256, layer_rule="every_nth", layer_period=6,
        period_keys=("sliding_window_pattern",), sliding_window=4096, scopes=_GEMMA3,
        fills_scopes=True),
    "gemma3n_text": _row(1e4, 32768, 2048, 8, 2, 35, 256, layer_rule="every_nth", layer_period=5,
        sliding_window=512, scopes=_GEMMA3, fills_scopes=True),
    "gemma4_text": _row(1e4, 131072, 2304, 8, 4, 30, 256, layer_rule="every_nth_and_last",
        layer_period=6, sliding_window=512, spelling="nested", scopes=_GEMMA4),
    "gemma4_unified_text": _row(1e4, 262144, 2304, 8, 4, 30, 256, layer_rule="every_nth_and_last",
        layer_period=6, sliding_window=1024, spelling="nested", scopes=_GEMMA4),
    "glm": _row(1e4, 131072, 4096, 32, 2, 40, 128, partial_rotary_factor=0.5, honours_partial=True),
    "glm4": _row(1e4, 131072, 4096, 32, 2, 40, 128, partial_rotary_factor=0.5,
        honours_partial=True),
    "glm4_moe": _row(1e4, 131072, 4096, 96, 8, 46, partial_rotary_factor=0.5, honours_partial=True),
    "glm4_moe_lite": _row(1e4, 202752, 2048, 20, 20, 47, **_mla(64, 192), honours_partial=True,
        names={"head_dim": "qk_rope_head_dim"}),
    "glm4v_moe_text": _row(1e4, 65536, 4096, 96, 8, 46, partial_rotary_factor=0.5,
        honours_partial=True, mrope=True),
    "glm4v_text": _row(1e4, 32768, 4096, 32, 2, 40, honours_partial=True, mrope=True),
    "glm_image_text": _row(1e4, 131072, 4096, 32, 2, 40, honours_partial=True, mrope=True),
    "glm_moe_dsa": _row(1e4, 202752, 6144, 64, 64, 78, **_mla(64, 192), layer_rule="all_indexed"),
    "glm_ocr_text": _row(1e4, 131072, 1024, 16, 8, 16, honours_partial=True, mrope=True),
    "gpt_neox": _row(1e4, 2048, 6144, 64, None, 44, partial_rotary_factor=0.25,
        honours_partial=True, theta_keys=_NEOX_THETA, partial_keys=_NEOX_PARTIAL),
    "gpt_neox_japanese": _row(1e4, 2048, 2560, 32, None, 32, honours_partial=True,
        theta_keys=_NEOX_THETA, partial_keys=_NEOX_PARTIAL),
    "gpt_oss": _row(1.5e5, 131072, 2880, 64, 8, 36, 64, layer_rule="every_nth", layer_period=2,
        sliding_window=128, rope_defaults=_YARN_GPT_OSS),
    "granite": _row(1e4, 2048, 4096, 32, None, 32),
    "granite4_vision_text": _row(1e4, 2048, 4096, 32, None, 32),
    "granite_docling_text": _row(1e4, 32768, 1024, 16, 4, 28),
    "granite_swa": _row(1e4, 8192, 2560, 20, 4, 24, layer_rule="first_of_n", layer_period=4,
        sliding_window=128, rope_rule="layer_rope_theta"),
    "granitemoe": _row(1e4, 2048, 4096, 32, None, 32),
    "granitemoe_swa": _row(1e4, 2048, 4096, 32, None, 32, layer_rule="first_of_n", layer_period=4,
        sliding_window=128, rope_rule="layer_rope_theta"),
    "granitemoehybrid": _row(1e4, 2048, 4096, 32, None, 32, layer_rule="all_linear",
        rope_rule="position_embedding_type", names={"layer_types": "layers_block_type"}),
    "granitemoeshared": _row(1e4, 2048, 4096, 32, None, 32),
    "gte": _row(1.6e5, 8192, 768, 12, None, 12),
    "helium": _row(1e5, 4096, 2560, 20, 20, 24, 128),
    "higgs_audio_v2": _row(5e5, 2048, 3072, 24, 8, 28, 128, rope_defaults=_HIGGS),
    "hrm_text": _row(1e4, 2048, 1536, 12, None, 16, 128),
    "hunyuan_v1_dense": _row(1e4, 2048, 4096, 32, None, 32),
    "hunyuan_v1_moe": _row(1e4, 2048, 4096, 32, None, 32),
    "hunyuan_vl_text": _row(1e4, 2048, 4096, 32, None, 32),
    "hy_v3": _row(1.115884e7, 131072, 4096, 64, 8, 80, 128),
    "hy_v4": _row(1e4, 262144, 2816, 32, 32, 34, **_mla(64, 192), layer_rule="all_indexed"),
    "hyperclovax": _row(1e4, 2048, 4096, 32, None, 32),
    "idefics": _row(1e4, 2048, 4096, 32, None, 32),
    "internlm3": _row(1e4, 32768, 4096, 32, 2, 48, 128),
    "iquestcoder": _row(1e4, 131072, 5120, 40, 8, 80, 128),
    "jais2": _row(1e4, 8192, 3328, 26, None, 32),
    "jetmoe": _row(1e4, 4096, 2048, 32, 16, 12, 128, names={"head_dim": "kv_channels"}),
    "jina_embeddings_v3": _row(2e4, 8194, 1024, 16, None, 24),
    "kolibri1": _row(1e4, 262144, 2560, 48, 4, 50, 128, layer_rule="every_nth", layer_period=5,
        sliding_window=513, rope_rule="windowed_or_no_window"),
    "kyutai_speech_to_text": _row(1e4, 750, 2048, 32, None, 48, window_everywhere=True,
        sliding_window=375),
    "laguna": _row(1e4, 131072, 2048, 48, 8, 40, 128, honours_partial=True, layer_rule="all_full",
        sliding_window=512, spelling="nested", scopes=_LAGUNA),
    "lfm2": _row(1e6, 128000, 2560, 32, 8, 32, layer_rule="full_attn_idxs"),
    "lfm2_moe": _row(1e6, 128000, 2048, 32, 8, 32, layer_rule="all_full"),
    "lfm3": _row(1e6, 128000, 2048, 16, 4, 24, 128, layer_rule="conv_mixed", sliding_window=256,
        spelling="nested", scopes=_LFM3),
    "llama": _row(1e4, 2048, 4096, 32, None, 32),
    "llama4_text": _row(5e5, 131072, 5120, 40, 8, 48, 128, layer_rule="chunked_where_rotating",
        rope_rule="no_rope_layers", sliding_window=8192, window_key="attention_chunk_size"),
    "longcat_flash": _row(1e7, 131072, 6144, 64, None, 28, **_mla(64, 128), attention_per_layer=2,
        names={"num_hidden_layers": "num_layers"}),
    "mellum": _row(1e4, 131072, 2304, 32, 4, 28, 128, honours_partial=True, layer_rule="all_full",
        sliding_window=1024, spelling="nested", scopes=(_full(5e5), _sliding(1e4))),
    "mimo_v2_flash": _row(1e4, 131072, 4096, 64, 4, 48, 192, honours_partial=True,
        layer_rule="window_size_key", sliding_window=129, spelling="nested", scopes=_MIMO),
    "minicpm3": _row(1e4, 32768, 2560, 40, 40, 62, **_mla(32, 64)),
    "minimax": _row(1e6, 131072, 4096, 32, 8, 32, layer_rule="odd_linear", window_everywhere=True),
    "minimax_m2": _row(5e6, 196608, 3072, 48, 8, 62, 128, honours_partial=True,
        rotary_dim_key="rotary_dim"),
    "minimax_m3_vl_text": _row(5e6, 524288, 6144, 64, 4, 60, 128, honours_partial=True,
        layer_rule="sparse_attention_config"),
    "ministral": _row(1e4, 131072, 4096, 32, 8, 32, layer_rule="all_windowed", sliding_window=4096),
    "ministral3": _row(1e6, 262144, 4096, 32, 8, 34, 128, refuses=_MISTRAL,
        rope_defaults=_MINISTRAL3, window_everywhere=True),
    "mistral": _row(1e4, 131072, 4096, 32, 8, 32, window_everywhere=True, sliding_window=4096),
    "mistral4": _row(1e4, 1048576, 4096, 32, 32, 36, **_mla(64, 64, "qk_head_dim"),
        refuses=_MISTRAL, rope_defaults=_MISTRAL4),
    "mistral_large4_text": _row(1e4, 1048576, 6144, 64, 64, 72, **_mla(64, 64), remark=_LEROPE,
        layer_rule="all_indexed", rope_rule="no_rope_layers", rope_defaults=_MISTRAL_LARGE4),
    "mixtral": _row(1e6, 131072, 4096, 32, 8, 32, window_everywhere=True),
    "mllama_text_model": _row(5e5, 131072, 4096, 32, 8, 40, rope_rule="not_cross_attention"),
    "modernbert": _row(1e4, 8192, 768, 12, None, 22, layer_rule="first_of_n", layer_period=3,
        period_keys=("global_attn_every_n_layers",), window_key="local_attention",
        sliding_window=128, spelling="nested", scopes=_MODERNBERT, fills_scopes=True),
    "modernbert-decoder": _row(1e4, 8192, 768, 12, None, 22, layer_rule="first_of_n",
        layer_period=3, period_keys=("global_attn_every_n_layers",), window_key="local_attention",
        sliding_window=128, spelling="nested", scopes=_MODERNBERT, fills_scopes=True),
    "molmo2_text": _row(1e4, 36864, 4096, 32, 8, 36, 128),
    "moshi": _row(1e4, 3000, 4096, 32, None, 32, window_everywhere=True, sliding_window=3000),
    "muse_glimmer_assistant": _row(5e5, 131072, 6656, 32, 8, 5, 128, layer_rule="all_windowed",
        sliding_window=2048),
    "muse_glimmer_text": _row(1e4, 131072, 6656, 32, 2, 52, 128, layer_rule="fourth_from_end",
        sliding_window=2048, rope_rule="layer_rope_theta_nope"),
    "muse_spark_text": _row(5e5, 1048576, 8192, 128, 16, 62, 64, layer_rule="fourth_from_end",
        sliding_window=2048, rope_rule="layer_rope_theta_nope"),
    "nanochat": _row(1e4, 2048, 768, 6, None, 12),
    "nemotron": _row(1e4, 4096, 6144, 48, None, 32, partial_rotary_factor=0.5,
        honours_partial=True),
    "neomme": _row(1e4, 16384, 1024, 16, 4, 17, 64, honours_partial=True,
        layer_rule="sixth_and_last", sliding_window=256, spelling="nested", scopes=_NEOMME,
        fills_scopes=True),
    "nomic_bert": _row(1e3, 2048, 768, 12, None, 12),
    "olmo": _row(1e4, 2048, 4096, 32, None, 32),
    "olmo2": _row(1e4, 2048, 4096, 32, None, 32),
    "olmo3": _row(5e5, 2048, 4096, 32, None, 32, layer_rule="every_nth", layer_period=4,
        sliding_window=4096, scopes=_OLMO3, fills_scopes=True),
    "olmo_hybrid": _row(1e4, 65536, 3840, 30, None, 32, layer_rule="fourth_full_rest_linear",
        rope_rule="theta_not_null"),
    "olmoe": _row(1e4, 4096, 2048, 16, None, 16),
    "openai_privacy_filter": _row(1.5e5, 131072, 640, 14, 2, 8, 64, window_everywhere=True,
        sliding_window=128, rope_defaults=_YARN_GPT_OSS),
    "paddleocr_vl_text": _row(5e5, 131072, 1024, 16, 2, 18, 128, mrope=True),
    "persimmon": _row(1e4, 16384, 4096, 64, None, 36, partial_rotary_factor=0.5,
        honours_partial=True),
    "phi": _row(1e4, 2048, 2048, 32, None, 24, partial_rotary_factor=0.5, honours_partial=True),
    "phi3": _row(1e4, 4096, 3072, 32, None, 32, honours_partial=True, window_everywhere=True,
        original_max_position_embeddings=4096, yarn_means_longrope=True, refuses=_PHI3),
    "phi4_multimodal": _row(1e4, 131072, 3072, 32, 8, 32, honours_partial=True,
        window_everywhere=True, original_max_position_embeddings=4096, yarn_means_longrope=True,
        refuses=_PHI3),
    "phimoe": _row(1e6, 131072, 4096, 32, 8, 32, window_everywhere=True, refuses=_PHIMOE),
    "qwen2": _row(1e4, 32768, 4096, 32, 32, 32, layer_rule="max_window_layers", window_switch=True,
        sliding_window=4096),
    "qwen2_5_omni_text": _row(1e6, 32768, 3584, 28, 4, 28, layer_rule="max_window_layers",
        window_switch=True, sliding_window=32768, mrope=True),
    "qwen2_5_vl_text": _row(1e6, 32768, 8192, 64, 8, 80, layer_rule="max_window_layers",
        window_switch=True, sliding_window=4096, max_window_layers=80, mrope=True),
    "qwen2_moe": _row(1e4, 32768, 2048, 16, 16, 24, layer_rule="alternating_below_max",
        window_switch=True, sliding_window=4096),
    "qwen2_vl_text": _row(1e6, 32768, 8192, 64, 8, 80, layer_rule="max_window_layers",
        window_switch=True, sliding_window=4096, max_window_layers=80, mrope=True),
    "qwen3": _row(1e4, 32768, 4096, 32, 32, 32, 128, layer_rule="max_window_layers",
        window_switch=True, sliding_window=4096, known_originals={40960: 32768}),
    "qwen3_5_moe_text": _row(1e4, 32768, 2048, 16, 2, 40, 256, partial_rotary_factor=0.25,
        honours_partial=True, layer_rule="every_nth_interval", layer_period=4,
        period_keys=("full_attention_interval",), mrope=True),
    "qwen3_5_text": _row(1e4, 32768, 4096, 16, 4, 32, 256, partial_rotary_factor=0.25,
        honours_partial=True, layer_rule="every_nth_interval", layer_period=4,
        period_keys=("full_attention_interval",), mrope=True),
    "qwen3_moe": _row(1e4, 32768, 2048, 32, 4, 24, window_everywhere=True, window_switch=True,
        sliding_window=4096, known_originals={40960: 32768}),
    "qwen3_next": _row(1e4, 32768, 2048, 16, 2, 48, 256, partial_rotary_factor=0.25,
        honours_partial=True, layer_rule="every_nth_interval", layer_period=4,
        period_keys=("full_attention_interval",)),
    "qwen3_omni_moe_text": _row(1e6, 32768, 2048, 28, 4, 28, mrope=True),
    "qwen3_vl_moe_text": _row(5e5, 128000, 2048, 16, 16, 24, mrope=True),
    "qwen3_vl_text": _row(5e5, 128000, 4096, 32, 32, 32, 128, mrope=True),
    "qwen4_exp_text": _row(1e4, 32768, 2048, 16, 2, 40, 256, honours_partial=True,
        layer_rule="every_nth_interval_indexed", layer_period=4,
        period_keys=("full_attention_interval",), mrope=True),
    "seed_oss": _row(1e4, 524288, 4096, 80, 8, 64, 128),
    "smollm3": _row(2e6, 32768, 2048, 16, 4, 36, layer_rule="sliding_where_not_rotating",
        window_switch=True, rope_rule="no_rope_layers"),
    "solar_open": _row(1e6, 131072, 4096, 64, 8, 48, 128, honours_partial=True),
    "stablelm": _row(1e4, 4096, 2560, 32, 32, 32, partial_rotary_factor=0.25, honours_partial=True),
    "starcoder2": _row(1e4, 4096, 3072, 24, 2, 30, window_everywhere=True),
    "step3p5": _row(1e4, 128000, 4096, 64, 8, 45, 128, honours_partial=True, layer_rule="padded",
        spelling="nested", scopes=_STEP3),
    "ultrabert": _row(1e4, 32768, 4096, 32, None, 32, layer_rule="attention_windows",
        layer_period=3, sliding_window=128, spelling="nested", scopes=(_sliding(1e4),
        _full(2.56e6))),
    "unlimited_ocr_text": _row(1e4, 32768, 1280, 10, 10, 12, head_dim_fixed=True,
        layer_rule="reference_sliding", sliding_window=128),
    "vaultgemma": _row(1e4, 8192, 2304, 8, 4, 26, 256, layer_rule="every_nth", layer_period=2,
        sliding_window=4096),
    "voxtral_realtime_text": _row(1e4, 131072, 4096, 32, 8, 32, window_everywhere=True,
        sliding_window=4096),
    "youtu": _row(1e4, 131072, 2048, 16, 16, 32, **_mla(64, 128)),
    "zamba2": _row(1e4, 4096, 2560, 32, None, 54, layer_rule="layers_block_type",
        rope_rule="use_mem_rope", head_dim_fixed=True, head_width=2, names={"layer_types":
        "layers_block_type"}),
    "zaya": _row(1e4, 131072, 2048, 8, 2, 40, 128, honours_partial=True, layer_rule="all_hybrid",
        spelling="nested", scopes=_ZAYA),
}
# fmt: on
