"""Model types that come with their own code, for the engines that have a class for them.

Such a checkpoint's config class is its own too, and engines load it with `--trust-remote-code`.
The published classes do one thing that counts here: they keep the arguments that they name, before
transformers' class gets what is left. `register` puts a class that does so in their place; which
arguments each of them names was read (`NAMED`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from yarncli.config.families.own_code_rows import OWN_CODE

_ROPE = ("rope_theta", "rope_scaling")
_ORIGINAL = "original_max_position_embeddings"
# Model type → the class in `architectures`, and the arguments about RoPE that its config class has.
NAMED: dict[str, tuple[str, tuple[str, ...]]] = {
    "baichuan": ("BaichuanForCausalLM", ()),
    "bailing_moe": ("BailingMoeForCausalLM", _ROPE),
    "chatglm": ("ChatGLMModel", ()),
    "exaone": ("ExaoneForCausalLM", _ROPE),
    "hunyuan": ("HunYuanMoEV1ForCausalLM", _ROPE),
    "internlm2": ("InternLM2ForCausalLM", _ROPE),
    "minicpm": ("MiniCPMForCausalLM", _ROPE),
    "minicpmv": ("MiniCPMV", _ROPE),
    "molmo": ("MolmoForCausalLM", ("rope_theta",)),
    "orion": ("OrionForCausalLM", _ROPE),
    "phi3_v": ("Phi3VForCausalLM", (_ORIGINAL, *_ROPE)),
    "phi4mm": ("Phi4MMForCausalLM", (_ORIGINAL, *_ROPE, "partial_rotary_factor")),
    "qwen": ("QWenLMHeadModel", ("rotary_emb_base", "rotary_pct")),
    "xverse": ("XverseForCausalLM", ()),
}

# What the published classes have for them; others of theirs have None.
_DEFAULTS = {
    "rope_theta": 10000.0, "rotary_emb_base": 10000, "partial_rotary_factor": 1.0, _ORIGINAL: 4096,
}  # fmt: skip

# Keys of the small models beside those of `sizes.py`.
OWN: dict[str, dict[str, Any]] = {
    # Of this width it has RoPE, else ALiBi.
    "baichuan": {"hidden_size": 4096, "num_attention_heads": 64},
    "bailing_moe": {"embedding_dropout": 0.0, "use_bias": False, "use_qkv_bias": False,
                    "num_shared_experts": 1, "first_k_dense_replace": 4},
    "chatglm": {"add_bias_linear": False, "add_qkv_bias": True, "original_rope": True,
                "multi_query_attention": True, "padded_vocab_size": 64, "ffn_hidden_size": 128,
                "rmsnorm": True, "post_layer_norm": True, "layernorm_epsilon": 1e-5,
                "apply_residual_connection_post_layernorm": False,
                "fp32_residual_connection": False},
    "exaone": {"pad_token_id": 0, "activation_function": "silu", "layer_norm_epsilon": 1e-5},
    "internlm2": {"bias": False},
    "hunyuan": {"use_qk_norm": True, "moe_topk": 1, "num_shared_expert": 1, "use_cla": False},
    "minicpm": {"scale_emb": 1, "scale_depth": 1.0, "dim_model_base": 64, "num_experts": 0},
    # Its version says which text model it has: llama's in 4.0.
    "minicpmv": {"version": 4.0, "query_num": 4, "drop_vision_last_layer": False},
    "molmo": {"weight_tying": False, "embedding_size": 64, "layer_norm_type": "rms",
              "attention_layer_norm": False, "norm_after": False, "qkv_bias": True},
    "phi3_v": {"img_processor": {"name": "clip_vision_model", "image_dim_out": 64,
                                 "num_img_tokens": 4},
               "embd_layer": {"embedding_cls": "image"}},
    "phi4mm": {"img_processor": None,
               "embd_layer": {"embedding_cls": "image_audio", "image_embd_layer": {},
                              "audio_embd_layer": {"embedding_cls": "audio"}}},
    "qwen": {"layer_norm_epsilon": 1e-5, "no_bias": True},
}  # fmt: skip


def register(kinds: Iterable[str]) -> None:
    """Let transformers load these model types with a class that keeps what theirs keeps."""
    from transformers import AutoConfig

    for kind in kinds:
        AutoConfig.register(kind, _config_class(kind), exist_ok=True)


def _config_class(kind: str) -> Any:
    from transformers import PreTrainedConfig

    named = NAMED[kind][1]
    layers = OWN_CODE[kind].family.names.get("num_hidden_layers")
    lengths = ("max_position_embeddings", "seq_length")

    class Own(PreTrainedConfig):  # type: ignore[misc]
        model_type = kind
        attribute_map: ClassVar = {"num_hidden_layers": layers} if layers else {}

        def __init__(self, **keys: Any) -> None:
            for name in (*named, *(key for key in lengths if key in keys)):
                setattr(self, name, keys.pop(name, _DEFAULTS.get(name)))
            super().__init__(**{"pad_token_id": None, **keys})

    return Own


def as_published(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """A probe with the keys that files of the model type have for sizes, window and θ."""
    if kind not in NAMED:
        return config
    family = OWN_CODE[kind].family
    theta = OWN_CODE[kind].theta_ratio_key or family.theta_keys[0]
    names = {**family.names, "rope_theta": theta}
    found = {names.get(key, key): value for key, value in config.items()}
    if kind == "qwen":
        found["max_position_embeddings"] = config["max_position_embeddings"]
    if OWN_CODE[kind].theta_ratio_key and theta in found:
        found[theta] /= OWN_CODE[kind].theta
    return found
