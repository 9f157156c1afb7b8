"""Parts that rows of `FAMILIES` share: nested scopes, RoPE defaults, refusals with their reason."""

from __future__ import annotations

from typing import Any

from yarncli.config.families.family import ScopeRule
from yarncli.rope.methods import METHODS


def full(rope_theta: float, **rest: Any) -> ScopeRule:
    """The scope of layers that attend everywhere."""
    return ScopeRule("full_attention", rope_theta=rope_theta, **rest)


def sliding(rope_theta: float, **rest: Any) -> ScopeRule:
    """The scope of layers that attend within a window."""
    return ScopeRule("sliding_attention", rope_theta=rope_theta, windowed=True, **rest)


NEOX_THETA = ("rotary_emb_base",)
NEOX_PARTIAL = ("rotary_pct",)

GEMMA3 = (
    full(1e6, theta_keys=("rope_theta",), takes_flat=True),
    sliding(1e4, theta_keys=("rope_local_base_freq",)),
)
# OLMo 3's config class takes the file's θ for its full layers only.
OLMO3 = (full(5e5, theta_keys=("rope_theta",), takes_flat=True), sliding(5e5))
MODERNBERT = (
    full(1.6e5, theta_keys=("global_rope_theta",), takes_flat=True),
    sliding(1e4, theta_keys=("local_rope_theta",), takes_flat=True),
)
GEMMA4 = (
    full(
        1e6,
        rope_type="proportional",
        partial_rotary_factor=0.25,
        head_dim_key="global_head_dim",
        head_dim=512,
    ),
    sliding(1e4),
)
EMBEDDING_GEMMA2 = (full(1e6, head_dim_key="global_head_dim", head_dim=512), sliding(1e4))
LAGUNA = (full(5e5, partial_rotary_factor=0.5), sliding(1e4))
LFM3 = (full(1e6, rope_type="proportional", partial_rotary_factor=0.5), sliding(1e4))
MIMO = (
    full(5e6, partial_rotary_factor=0.334, partial_required=True),
    sliding(1e4, partial_rotary_factor=0.334, partial_required=True),
)
NEOMME = (
    full(1e6, partial_rotary_factor=0.25, theta_keys=("rope_theta",)),
    sliding(1e4, theta_keys=("rope_theta",)),
)
ZAYA = (
    ScopeRule("hybrid", rope_theta=5e6, partial_rotary_factor=0.5),
    ScopeRule("hybrid_sliding", rope_theta=1e4, partial_rotary_factor=0.5, windowed=True),
)
STEP3 = (
    full(1e4, theta_keys=("rope_theta",), takes_flat=True),
    sliding(1e4, theta_keys=("rope_theta",)),
)
# Its config class also takes a flat dict, but then gives sliding layers the other layers' θ.
DOTS3 = (
    ScopeRule("indexed_attention", rope_theta=8e7, theta_keys=("rope_theta",)),
    full(8e7, theta_keys=("rope_theta",)),
    sliding(5e4, theta_keys=("swa_rope_theta",)),
)
DEEPSEEK_V4 = (
    ScopeRule(
        "compress",
        rope_theta=1.6e5,
        flat_yarn_attention_factor=1.0,
        theta_keys=("compress_rope_theta",),
        partial_rotary_factor=0.125,
        takes_flat=True,
        layer_types=("compressed_sparse_attention", "heavily_compressed_attention"),
    ),
    ScopeRule(
        "main",
        rope_theta=1e4,
        windowed=True,
        partial_rotary_factor=0.125,
        theta_keys=("rope_theta",),
        layer_types=("sliding_attention",),
    ),
)

YARN_GPT_OSS = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
APERTUS = {
    "rope_type": "llama3",
    "rope_theta": 12000000.0,
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
CWM = {**APERTUS, "rope_theta": 1000000.0, "factor": 16.0}
MUSE_SPARK = {"rope_type": "default", "rope_theta": 500000.0}
HIGGS = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 32.0,
    "original_max_position_embeddings": 1024,
    "low_freq_factor": 0.125,
    "high_freq_factor": 0.5,
}
MISTRAL_YARN = {
    "rope_type": "yarn",
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}
MINISTRAL3 = {
    **MISTRAL_YARN,
    "rope_theta": 1000000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
}
MISTRAL4 = {
    **MISTRAL_YARN,
    "rope_theta": 10000.0,
    "factor": 128.0,
    "original_max_position_embeddings": 8192,
}
MISTRAL_LARGE4 = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 2048.0,
    "original_max_position_embeddings": 512,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "attention_factor": 1.0,
}

ONLY_LONGROPE = "its config class turns every other RoPE type into longrope, or rejects it"
PHI3 = {
    name: ONLY_LONGROPE
    for name, method in METHODS.items()
    if method.rope_type not in ("default", "longrope")
}
PHIMOE = {**PHI3, "longrope": "its model class never uses the long factors"}
LEROPE = "Each frequency is also multiplied by a learned factor that lies in the weights."
WIDTHS_DIFFER = "transformers cannot check its factor lists, since layers differ in head width"
NO_LONGROPE = {"longrope": WIDTHS_DIFFER}
ONLY_PLAIN = "its model class accepts no RoPE type but the plain one"
PLAIN_ONLY = {name: ONLY_PLAIN for name, method in METHODS.items() if method.leaves_mark}

NEEDS_ORIGINAL = (
    "its attention also needs original_max_position_embeddings, which this method has no place for"
)
MISTRAL = dict.fromkeys(("linear", "dynamic", "ntk"), NEEDS_ORIGINAL)
NO_NTK = {"ntk": "some engines read θ from attn_config, others at top level"}
