"""Tiny checkpoints of every RoPE architecture of transformers: configs first, models on demand.

One list of small sizes serves nearly every config class; `OVERRIDES` holds what single ones need.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Collection, Iterable
from typing import Any

import pytest

# A config class gets only those of these names that it has.
SIZES: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 64,
    "d_model": 64,
    "intermediate_size": 96,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "moe_shared_expert_intermediate_size": 32,
    "num_hidden_layers": 4,
    "n_layers": 4,
    "num_layers": 4,
    "num_attention_heads": 4,
    "n_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "max_seq_len": 64,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "q_lora_rank": 24,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "sliding_window": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_MLA = {"num_key_value_heads": 4}
_WIDE = {"hidden_size": 256, "num_attention_heads": 2, "num_key_value_heads": 2}
_WIDE_HEAD = {**_WIDE, "head_dim": 128}
_HALF_WIDE = {"hidden_size": 128, "num_attention_heads": 2, "num_key_value_heads": 2}
_LINEAR = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
}
_AUDIO = {
    "model_type": "phi4_multimodal_audio",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_blocks": 1,
    "num_attention_heads": 2,
    "ext_pw_out_channel": 32,
    "nemo_conv_channels": 32,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "image_size": 28,
    "patch_size": 14,
    "num_attention_heads": 2,
}

OVERRIDES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(
        (
            "axk1",
            "axk2",
            "deepseek_v2",
            "deepseek_v3",
            "deepseek_v32",
            "esmc",
            "glm4_moe_lite",
            "glm_moe_dsa",
            "hy_v4",
            "mistral4",
            "mistral_large4_text",
            "youtu",
        ),
        _MLA,
    ),
    **dict.fromkeys(
        (
            "cosmos3_edge_text",
            "glm4v_moe_text",
            "paddleocr_vl_text",
            "qwen2_5_omni_text",
            "qwen2_5_vl_text",
            "qwen2_vl_text",
            "qwen3_omni_moe_text",
            "qwen3_vl_moe_text",
            "qwen3_vl_text",
        ),
        _WIDE_HEAD,
    ),
    **dict.fromkeys(("glm4v_text", "glm_image_text", "glm_ocr_text"), _HALF_WIDE),
    **dict.fromkeys(("qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"), _LINEAR),
    "bailing_hybrid": {**_MLA, "layer_group_size": 2},
    "bamba": {"attn_layer_indices": [1, 3]},
    "beam": {},
    "chameleon": {"vocabulary_map": {"<image>": 5}, "vq_config": {"base_channels": 32}},
    "deepseek_v4": {"head_dim": 64},
    "mimo_v2_flash": {"head_dim": 48},
    "cohere_compass_text": {"num_key_value_heads": 4},
    "csm": {"num_codebooks": 2, "text_vocab_size": 128},
    "deepseek_ocr2_text": {"mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]},
    "unlimited_ocr_text": _MLA,
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"ffn_hidden_size": 32, "hidden_size": 64},
    },
    "ernie4_5_vl_moe_text": {
        **_WIDE_HEAD,
        "moe_intermediate_size": [32, 32],
        "moe_num_experts": 4,
        "moe_k": 2,
    },
    "gemma3n_text": {
        "num_kv_shared_layers": 1,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 128,
        "laurel_rank": 8,
        "layer_types": ["full_attention", "sliding_attention"] * 2,
        "activation_sparsity_pattern": [0.0] * 4,
    },
    "gemma4_text": {
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": 128,
        "global_head_dim": 32,
    },
    "gemma4_unified_text": {"global_head_dim": 32},
    "embedding_gemma2_text": {"global_head_dim": 32},
    "diffusion_gemma_text": {"global_head_dim": 32, "top_k_experts": 2},
    "granitemoehybrid": {
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "position_embedding_type": "rope",
        "mamba_n_heads": 8,
    },
    "higgs_audio_v2": {
        "codebook_size": 32,
        "num_codebooks": 2,
        "audio_token_id": 100,
        "audio_bos_token_id": 101,
        "audio_delay_token_id": 102,
        "audio_stream_bos_id": 30,
        "audio_stream_eos_id": 31,
    },
    "kyutai_speech_to_text": {
        "codebook_vocab_size": 32,
        "num_codebooks": 2,
        "ffn_dim": 64,
        "audio_bos_token_id": 31,
        "audio_pad_token_id": 120,
        "pad_token_id": 3,
    },
    "lfm2_moe": {"layer_types": ["full_attention", "conv"] * 2},
    "longcat_flash": {
        "ffn_hidden_size": 64,
        "expert_ffn_hidden_size": 32,
        "moe_topk": 2,
        "zero_expert_num": 2,
        "num_layers": 2,
        "num_key_value_heads": 4,
    },
    "minicpm3": _MLA,
    "llama4_text": {"attention_chunk_size": 16},
    "modernbert": {"local_attention": 32},
    "modernbert-decoder": {"local_attention": 32},
    "mllama_text_model": {"cross_attention_layers": [1]},
    "moshi": {"ffn_dim": 64},
    "muse_spark_text": {"moe_hidden_size": 32},
    "phi4_multimodal": {"audio_config": _AUDIO, "vision_config": _VISION},
    "qwen4_exp_text": {
        **_LINEAR,
        "hc_count": 2,
        "hc_lowrank": 8,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 16,
        "indexer_budget": 16,
        "indexer_compress_ratio": 4,
    },
    "dots3_note_text": {
        **_MLA,
        "swa_num_attention_heads": 4,
        "swa_num_key_value_heads": 4,
        "swa_q_lora_rank": 24,
        "swa_kv_lora_rank": 16,
    },
    # The other parts of these models would be far larger than their text part.
    "evolla": {
        "protein_encoder_config": {
            "hidden_size": 32,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
        },
        "aligner_num_add_layers": 1,
        "resampler_depth": 1,
    },
    "idefics": {
        "vision_config": {
            "embed_dim": 32,
            "intermediate_size": 32,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
        }
    },
    "zamba2": {
        "use_mem_rope": True,
        "layers_block_type": ["linear_attention", "hybrid"] * 2,
        "n_mamba_heads": 8,
        "num_key_value_heads": 4,
    },
    "zaya": {"num_experts_per_tok": 1, "router_hidden_size": 16},
}


# Backbones whose model mapping leads to a larger model than the text part.
_BACKBONES = {
    "csm": "CsmBackboneModel",
    "voxtral_realtime_text": "VoxtralRealtimeTextModel",
}


def parameters(names: Iterable[str], fast: Collection[str]) -> list[Any]:
    """Every name as a pytest parameter; those outside `fast` are for the full run only."""
    full = pytest.mark.full
    return [pytest.param(name, marks=() if name in fast else full) for name in names]


def config_class(model_type: str) -> Any:
    """The config class transformers has for `model_type`."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def tiny_fields(model_type: str, **changes: Any) -> dict[str, Any]:
    """The fields of a tiny `config.json` of one architecture, without any RoPE setting."""
    names = {field.name for field in dataclasses.fields(config_class(model_type))}
    fields = {name: value for name, value in SIZES.items() if name in names}
    return {**fields, **OVERRIDES.get(model_type, {}), **changes, "model_type": model_type}


def build_config(fields: dict[str, Any]) -> Any:
    """What transformers makes of a `config.json` with these fields."""
    return config_class(fields["model_type"]).from_dict(dict(fields))


def build_model(config: Any) -> Any:
    """The text backbone with random weights, in eval mode, eager attention."""
    import torch

    torch.manual_seed(0)
    config._attn_implementation = "eager"
    model = backbone_class(type(config))(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():  # zero at the start of training: such layers do nothing yet
                parameter.normal_(std=0.2)
    return model


def backbone_class(config_type: Any) -> Any:
    """The model class that holds the layers: found by the config class it names."""
    from transformers import PreTrainedModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    name = _BACKBONES.get(config_type.model_type)
    if name is None and config_type in MODEL_MAPPING:
        return MODEL_MAPPING[config_type]
    module = importlib.import_module(config_type.__module__.replace("configuration_", "modeling_"))
    if name is not None:
        return getattr(module, name)
    found: list[Any] = [
        item
        for item in vars(module).values()
        if isinstance(item, type)
        and issubclass(item, PreTrainedModel)
        and item.__module__ == module.__name__
        and getattr(item, "config_class", None) is config_type
        and "forward" in vars(item)
        and not item.__name__.endswith("ForCausalLM")
    ]
    return min(found, key=lambda item: len(item.__name__))


def forward_inputs(model_type: str, length: int) -> dict[str, Any]:
    """Keyword arguments for one forward pass over `length` tokens."""
    import torch

    ids = (torch.arange(length) * 7 % 90 + 3)[None]
    if model_type == "csm":
        return {"input_ids": (ids % 60)[..., None].expand(-1, -1, 2)}
    if model_type == "kyutai_speech_to_text":
        return {"input_ids": (ids % 30)[..., None].expand(-1, -1, 3)}
    if model_type == "voxtral_realtime_text":
        return {"input_ids": ids, "t_cond": torch.ones(1, 64)}
    return {"input_ids": ids}


def rotary_buffers(model: Any, label: str) -> list[tuple[Any, float]]:
    """`(inv_freq, attention_scaling)` of every text rotary module for one scope.

    `label` is "model" for architectures with one setting, else the layer type.
    """
    prefix = "" if label == "model" else f"{label}_"
    config = model.config.get_text_config(decoder=True)
    return [
        (getattr(module, f"{prefix}inv_freq"), getattr(module, f"{prefix}attention_scaling"))
        for name, module in model.named_modules()
        if hasattr(module, f"{prefix}inv_freq")
        and hasattr(module, f"{prefix}attention_scaling")
        and isinstance(getattr(module, "config", None), type(config))
        and not name.endswith("unscaled")
    ]


def decoder_layers(model: Any) -> list[Any]:
    """The layers of the text backbone, in order."""
    names = ("num_hidden_layers", "num_layers", "num_layers_per_stack")
    counts = [getattr(model.config, name, None) for name in names]
    for module in model.modules():
        for name in ("layers", "blocks", "h"):
            layers = list(getattr(module, name, None) or ())
            if layers and len(layers) in counts:
                return layers
    raise AssertionError(f"no layers found in {type(model).__name__}")


# Kinds of layers that transformers calls by another name than we do.
LAYER_TYPE_NAMES = {"sparse": "minimax_m3_sparse"}


def global_value(config: Any, name: str) -> Any:
    """A field of a config class, also where layers have values of their own."""
    return vars(config)[name] if name in vars(config) else getattr(config, name, None)


def kv_heads(config: Any) -> int:
    """Key/value heads, wherever the config class keeps them."""
    if config.model_type == "falcon":
        return 1 if config.multi_query else int(config.num_kv_heads)
    if config.model_type == "dbrx":
        return int(config.attn_config.kv_n_heads)
    found = global_value(config, "num_key_value_heads")
    return int(found or global_value(config, "num_attention_heads"))


def window(config: Any, key: str) -> int | None:
    """The window of a config class under our key for it."""
    value = global_value(config, key)
    return int(value) if value else None


# These need more than token ids for a forward pass.
NO_FORWARD = frozenset({"evolla", "idefics", "muse_glimmer_assistant"})


def ernie_vl_order(inv_freq: list[float]) -> list[float]:
    """ERNIE-VL stores the same frequencies grouped by axis: even, odd, then time."""
    space = inv_freq[:-20]
    return [*space[0::2], *space[1::2], *inv_freq[-20:]]


# Compressed or selected tokens; windows that only the cache enforces; windows of two lengths.
NO_WINDOW_TEST = frozenset(
    {"deepseek_v4", "kyutai_speech_to_text", "moshi", "neomme", "qwen4_exp_text"}
)
# Computes its frequencies anew in every forward pass.
NO_BUFFER = frozenset({"phimoe"})


def attentions(model: Any) -> int:
    """Attentions per decoder layer: two in LongCat-Flash."""
    return 2 if model.config.model_type == "longcat_flash" else 1


def layers_that_follow(model: Any, model_type: str, label: str) -> list[int]:
    """The layers whose output changes with the frequencies of one scope, inputs held the same."""
    inputs, before = _run(model, model_type, 12, None, None)
    buffers = [inv_freq for inv_freq, _ in rotary_buffers(model, label)]
    for inv_freq in buffers:
        inv_freq.mul_(1.7)
    _, after = _run(model, model_type, 12, inputs, None)
    for inv_freq in buffers:
        inv_freq.div_(1.7)
    return [i for i in before if not before[i].equal(after[i])]


def layers_blind_to_the_first_token(model: Any, model_type: str, length: int) -> list[int]:
    """The layers whose last output stays the same when only their first input changes."""
    inputs, before = _run(model, model_type, length, None, None)
    _, after = _run(model, model_type, length, inputs, 5.0)
    last = (Ellipsis, -1, slice(None))
    return [i for i in before if before[i][last].equal(after[i][last])]


def _run(
    model: Any, model_type: str, length: int, inputs: dict[int, Any] | None, bump: float | None
) -> tuple[dict[int, Any], dict[int, Any]]:
    """One forward pass; with `inputs`, every layer gets those, its first token raised by `bump`."""
    import torch

    seen: dict[int, Any] = {}
    outputs: dict[int, Any] = {}

    def before(index: int) -> Any:
        def hook(module: Any, args: Any, kwargs: Any) -> Any:
            given = args[0] if args else kwargs["hidden_states"]
            seen[index] = given.clone()
            if inputs is None:
                return None
            state = inputs[index].clone()
            if bump is not None:
                state[..., 0, :] += bump * torch.randn(state.shape[-1])
            return (
                ((state, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": state})
            )

        return hook

    def after(index: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            found = output[0] if isinstance(output, tuple) else output
            outputs[index] = found.clone()

        return hook

    handles = []
    for index, layer in enumerate(decoder_layers(model)):
        handles.append(layer.register_forward_pre_hook(before(index), with_kwargs=True))
        handles.append(layer.register_forward_hook(after(index)))
    try:
        with torch.no_grad():
            model(**forward_inputs(model_type, length))
    finally:
        for handle in handles:
            handle.remove()
    return seen, outputs
