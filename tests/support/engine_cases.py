"""Configs to judge: every RoPE type × spelling × family, written out without yarncli."""

import itertools

ORIGINAL, FACTOR = 4096, 8.0
EXTENDED = int(ORIGINAL * FACTOR)

SIZES = {
    "hidden_size": 512,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "num_hidden_layers": 4,
    "intermediate_size": 256,
    "vocab_size": 64,
}
MLA = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64, "kv_lora_rank": 64,
       "q_lora_rank": 64, "n_routed_experts": 4, "n_group": 1, "topk_group": 1}  # fmt: skip

# model_type: what its config needs beside SIZES, and θ.
FLAT = {
    "llama": ({}, 5e5),
    "mistral": ({"sliding_window": None}, 1e6),
    "qwen2": ({}, 1e6),
    "qwen3": ({"head_dim": 128}, 1e6),
    "qwen3_moe": ({"head_dim": 128, "num_experts": 4}, 1e6),
    "phi": ({"partial_rotary_factor": 0.5}, 1e4),
    "gpt_neox": ({"rotary_pct": 0.25}, 1e4),
    "stablelm": ({"partial_rotary_factor": 0.25}, 1e4),
    "glm4": ({"head_dim": 64, "partial_rotary_factor": 0.5}, 1e4),
    "cohere": ({}, 8e6),
    "gemma": ({"head_dim": 128}, 1e4),
    "gemma2": ({"head_dim": 128}, 1e4),
    "olmo2": ({}, 5e5),
    "granite": ({}, 1e4),
    "smollm3": ({}, 5e6),
    "seed_oss": ({"head_dim": 64}, 1e7),
    "deepseek_v3": (MLA, 1e4),
    "qwen2_vl_text": ({"num_attention_heads": 4, "num_key_value_heads": 2}, 1e6),
    "gpt_oss": ({"head_dim": 64, "num_local_experts": 4}, 1.5e5),
    "starcoder2": ({}, 1e5),
    "nemotron": ({"head_dim": 64, "partial_rotary_factor": 0.5}, 1e4),
    "mixtral": ({}, 1e6),
    "hunyuan_v1_dense": ({"head_dim": 64}, 1e4),
    "phi3": ({"pad_token_id": 0, "original_max_position_embeddings": ORIGINAL}, 1e4),
}
NESTED = {
    "gemma3_text": {"head_dim": 64, "sliding_window": 512, "rope_local_base_freq": 1e4},
    "olmo3": {"sliding_window": 512},
}
LAYERS = ["sliding_attention"] * 3 + ["full_attention"]

YARN = {"rope_type": "yarn", "factor": FACTOR, "original_max_position_embeddings": ORIGINAL}
NEUTRAL = {"attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}


def longrope(pairs):
    return {
        "rope_type": "longrope",
        "factor": FACTOR,
        "original_max_position_embeddings": ORIGINAL,
        "short_factor": [1.0 + i / 100 for i in range(pairs)],
        "long_factor": [1.0 + i / 2 for i in range(pairs)],
    }


# name: (scaling, max_position_embeddings)
METHODS = {
    "default": (None, ORIGINAL),
    "ntk": (None, EXTENDED),
    "linear": ({"rope_type": "linear", "factor": FACTOR}, ORIGINAL),
    "dynamic": ({"rope_type": "dynamic", "factor": FACTOR}, ORIGINAL),
    "yarn": (YARN, EXTENDED),
    "yarn-baked": ({**YARN, **NEUTRAL}, EXTENDED),
    "yarn-maximum-kept": (YARN, ORIGINAL),
    "yarn-betas": ({**YARN, "beta_fast": 64.0, "beta_slow": 2.0, "truncate": False}, EXTENDED),
    "yarn-temperature": ({**YARN, "attention_factor": 1.3}, EXTENDED),
    "yarn-mscale": ({**YARN, "mscale": 1.0, "mscale_all_dim": 0.8}, EXTENDED),
    "yarn-no-original": ({"rope_type": "yarn", "factor": FACTOR}, ORIGINAL),
    "llama3": (LLAMA3, EXTENDED),
    "longrope": (longrope, EXTENDED),
}


def rotary_pairs(model_type):
    extra, _ = FLAT[model_type]
    head = extra.get("qk_rope_head_dim") or extra.get("head_dim") or 64
    part = extra.get("partial_rotary_factor") or extra.get("rotary_pct") or 1.0
    return int(head * part) // 2


def flat(model_type, method, spelling):
    extra, theta = FLAT[model_type]
    scaling, maximum = METHODS[method]
    if callable(scaling):
        scaling = scaling(rotary_pairs(model_type))
    theta = theta * 7.5 if method == "ntk" else theta
    config = {"model_type": model_type, **SIZES, **extra, "max_position_embeddings": maximum}
    theta_key = "rotary_emb_base" if model_type == "gpt_neox" else "rope_theta"
    if spelling in ("legacy", "both"):
        config |= {theta_key: theta, "rope_scaling": scaling}
    if spelling in ("v5", "both"):
        part = extra.get("partial_rotary_factor") or extra.get("rotary_pct")
        block = {**(scaling or {"rope_type": "default"}), "rope_theta": theta}
        config["rope_parameters"] = block | ({"partial_rotary_factor": part} if part else {})
    return config


def nested(model_type, method, spelling):
    scaling, _ = METHODS[method]
    if callable(scaling):
        scaling = scaling(32)
    # Nested families extend the maximum for every method.
    maximum = ORIGINAL if method in ("default", "yarn-maximum-kept", "dynamic") else EXTENDED
    config = {"model_type": model_type, **SIZES, **NESTED[model_type]}
    config |= {"layer_types": LAYERS, "max_position_embeddings": maximum}
    sliding_theta = 1e4 if model_type == "gemma3_text" else 1e6
    if spelling in ("legacy", "both"):
        config |= {"rope_theta": 1e6, "rope_scaling": scaling}
    else:
        config.pop("rope_local_base_freq", None)
    if spelling in ("v5", "both"):
        config["rope_parameters"] = {
            "full_attention": {**(scaling or {"rope_type": "default"}), "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": sliding_theta},
        }
    return config


def all_cases():
    """(name, config, length) for every case; `length` is the text to compute for, in tokens."""
    spellings = ("legacy", "v5", "both")
    for build, families in ((flat, FLAT), (nested, NESTED)):
        for model_type, method, spelling in itertools.product(families, METHODS, spellings):
            yield f"{model_type} {method} {spelling}", build(model_type, method, spelling), EXTENDED
    yield from odd_cases()


def odd_cases():
    """Contradictions and oddities as they are found in the wild, on a plain Llama."""
    base = flat("llama", "yarn", "legacy")
    other = {"rope_type": "linear", "factor": 2.0, "rope_theta": 77777.0}
    yield "type and rope_type differ", base | {"rope_scaling": {**YARN, "type": "linear"}}, EXTENDED
    yield "only type", base | {"rope_scaling": {**YARN_BY_TYPE}}, EXTENDED
    yield "spellings differ", base | {"rope_parameters": other}, EXTENDED
    yield "theta differs", base | {"rope_parameters": {**YARN, "rope_theta": 7e4},
                                   "rope_scaling": None}, EXTENDED  # fmt: skip
    yield "theta inside only", {**_without(base, "rope_theta"),
                                "rope_scaling": {**YARN, "rope_theta": 7e4}}, EXTENDED  # fmt: skip
    yield "original on top", base | {"original_max_position_embeddings": 2048}, EXTENDED
    yield "su", base | {"rope_scaling": {**longrope(32), "rope_type": "su"}}, EXTENDED
    yield "unknown type", base | {"rope_scaling": {"rope_type": "magic", "factor": 2.0}}, EXTENDED
    yield "no factor", base | {"rope_scaling": {"rope_type": "linear"}}, EXTENDED
    yield "integer factor", flat("llama", "linear", "legacy") | {
        "rope_scaling": {"rope_type": "linear", "factor": 8}}, EXTENDED  # fmt: skip
    lists = {k: longrope(32)[k] for k in ("short_factor", "long_factor")} | {"type": "longrope"}
    published = flat("phi3", "longrope", "legacy") | {"rope_scaling": lists}
    yield "phi3 as published", published, EXTENDED
    yield "phi3 as published, short text", published, 100
    yield "phi3 su", published | {"rope_scaling": {**lists, "type": "su"}}, EXTENDED
    yield "olmo2, strict", flat("olmo2", "linear", "legacy") | {
        "rope_scaling": {"type": "linear", "factor": 8.0}}, EXTENDED  # fmt: skip
    yield "mistral with head_dim", flat("mistral", "yarn", "both") | {"head_dim": 64}, EXTENDED
    yield "no theta", _without(flat("cohere", "yarn", "legacy"), "rope_theta"), EXTENDED
    yield "short text, dynamic", flat("llama", "dynamic", "both"), 100
    yield "short text, longrope", flat("llama", "longrope", "both"), 100


YARN_BY_TYPE = {**{k: v for k, v in YARN.items() if k != "rope_type"}, "type": "yarn"}


def _without(config, key):
    return {k: v for k, v in config.items() if k != key}
