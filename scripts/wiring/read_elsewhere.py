"""Tables of engines whose packages cannot be had here: what was read of their public sources.

    python -m scripts.wiring.read_elsewhere

Each row names the file and the commit at which it was read. A model type without a row is unknown;
where the list of an engine's architectures was read, a class that is not in it is unsupported.
"""

from __future__ import annotations

from typing import Any

from scripts.wiring.table import write

_ROTARY = "server/text_generation_server/layers/rotary.py@0666316"
_READS = {"linear": "reads", "yarn": "reads", "llama3": "reads"}

# What `PositionRotaryEmbedding.static(config=…, base=config.rope_theta)` makes of a type.
_STATIC = {"linear": "ignores", "dynamic": "differs", "yarn": "reads", "llama3": "reads",
           "longrope": "differs"}  # fmt: skip
TGI = {
    "llama": "flash_llama_modeling.py: FlashLlamaAttention, 2024",
    "qwen2": "flash_qwen2_modeling.py@0581626: Qwen2Attention",
    "qwen3": "flash_qwen3_modeling.py@78c236f: Qwen3Attention",
    "mistral": "flash_mistral_modeling.py@01b82b5: MistralAttention",
    "mixtral": "flash_mixtral_modeling.py: MixtralAttention, 2024",
    "gemma2": "flash_gemma2_modeling.py: FlashGemma2Attention, 2024",
}

_INTERFACE = "attention_backend/interface.py@000a01d, RopeParams.from_config"
_FUSED = {"types": {"yarn": "reads"}, "kernel": "fused"}
_KEYS = "factor original_max_position_embeddings beta_fast beta_slow".split()
TENSORRT_LLM: dict[str, dict[str, Any]] = {
    "llama": {"types": _READS, "at": "models/modeling_llama.py: LlamaAttention"},
    "mistral": {"types": _READS, "at": "models/modeling_mistral.py: MistralAttention"},
    "mixtral": {"types": _READS, "at": "models/modeling_mixtral.py@000a01d: MixtralAttention"},
    "phi3": {"types": {}, "at": "models/modeling_phi3.py: Phi3Attention"},
    "qwen2": {**_FUSED, "at": "models/modeling_qwen.py@047098b: QwenYarnAttention"},
    "qwen3": {**_FUSED, "at": "models/modeling_qwen3.py@010bb95: compute_yarn_parameters"},
    "qwen3_moe": {**_FUSED, "at": "models/modeling_qwen3_moe.py@03441af: Qwen3Attention"},
    "gpt_oss": {
        "types": {"yarn": "reads"}, "requires": _KEYS,
        "at": "models/modeling_gpt_oss.py@050b6cb: AttentionBlock",
    },
    **{
        kind: {
            "types": {"yarn": "reads"},
            "at": "models/modeling_deepseekv3.py: DeepseekV3Attention; modules/attention.py: MLA",
        }
        for kind in ("deepseek_v3", "deepseek_v32", "kimi_k2")
    },
}  # fmt: skip

# The keys of MODEL_ARCH_TO_MODULE that hold a text model (models/_arch_index.py@065ff9e).
ARCHITECTURES = """
    AfmoeForCausalLM Cohere2ForCausalLM Cosmos3ForConditionalGeneration DeciLMForCausalLM
    DeepseekV32ForCausalLM DeepseekV3ForCausalLM DeepseekV4ForCausalLM EAGLE3LlamaForCausalLM
    Eagle3DeepSeekV3ForCausalLM Exaone4ForCausalLM Exaone4_5_ForConditionalGeneration
    ExaoneMoEForCausalLM Gemma3ForCausalLM Gemma3ForConditionalGeneration
    Gemma4AssistantForCausalLM Gemma4ForCausalLM Gemma4ForConditionalGeneration
    Gemma4UnifiedForConditionalGeneration Glm4MoeForCausalLM GlmMoeDsaForCausalLM
    GptOssForCausalLM HCXVisionForCausalLM HunYuanDenseV1ForCausalLM HunYuanMoEV1ForCausalLM
    KimiK25ForConditionalGeneration KimiK3ForConditionalGeneration KimiLinearForCausalLM
    LagunaForCausalLM Llama4ForConditionalGeneration LlamaForCausalLM LlavaLlamaModel
    LlavaNextForConditionalGeneration MTPDraftModelForCausalLM MiniCPMV4_6ForConditionalGeneration
    MiniMaxM2ForCausalLM MiniMaxM3SparseForCausalLM MiniMaxM3SparseForConditionalGeneration
    Mistral3ForConditionalGeneration MistralForCausalLM MistralLarge3EagleForCausalLM
    MistralLarge3ForCausalLM MixtralForCausalLM MllamaForConditionalGeneration
    NemotronForCausalLM NemotronHForCausalLM NemotronHPuzzleForCausalLM
    NemotronH_Nano_Omni_Reasoning_V3 NemotronH_Nano_VL_V2 Phi3ForCausalLM Phi4MMForCausalLM
    PixtralForConditionalGeneration Qwen2ForCausalLM Qwen2ForProcessRewardModel
    Qwen2ForRewardModel Qwen2MoeForCausalLM Qwen2VLForConditionalGeneration
    Qwen2_5_VLForConditionalGeneration Qwen3ForCausalLM Qwen3ForTextEmbedding
    Qwen3MoeForCausalLM Qwen3NextForCausalLM Qwen3VLForConditionalGeneration
    Qwen3VLMoeForConditionalGeneration Qwen3_5ForCausalLM Qwen3_5ForConditionalGeneration
    Qwen3_5MoeForCausalLM Qwen3_5MoeForConditionalGeneration
    QwenImageBenchForConditionalGeneration SeedOssForCausalLM Starcoder2ForCausalLM
    Step3p5ForCausalLM Step3p7ForConditionalGeneration
""".split()


def main() -> None:
    """Write the tables."""
    rows = {kind: {"rope": "mixed", "types": _STATIC, "at": at} for kind, at in TGI.items()}
    write("tgi", "3", "read", rows, functions={"static": _ROTARY})
    rest = {"functions": {"from_config": _INTERFACE}, "architectures": sorted(ARCHITECTURES)}
    found = {kind: {"rope": "reads", **row} for kind, row in TENSORRT_LLM.items()}
    write("tensorrt-llm", "1", "read", found, **rest)


if __name__ == "__main__":
    main()
