"""Tables of engines whose packages cannot be had here: what was read of their public sources.

    python -m scripts.wiring.read_elsewhere --package FOLDER

FOLDER holds unpacked releases of transformers, as for `--types` of `transformers.py`.

Each row names the file and the commit at which it was read. A model type without a row is unknown;
where the list of an engine's architectures was read, a class that is not in it is unsupported.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from scripts.wiring.table import arguments, write
from scripts.wiring.transformers import first_strings

_ROTARY = "server/text_generation_server/layers/rotary.py@0666316"
_READS = {"linear": "reads", "yarn": "reads", "llama3": "reads"}
_IGNORED = dict.fromkeys(("linear", "dynamic", "yarn", "llama3", "longrope"), "ignores")
_LONGROPE = {"longrope": "differs"}
_LONG = "functional.py@0071496, RopeEmbeddingUtils.create_sinusoidal_positions_long_rope"
_QWEN_VL: dict[str, Any] = {"types": {}, "needs_block": True}
_QWEN35 = {
    "at": "models/modeling_qwen3_5.py@00620eb: Qwen35ConfigCompat; "
    "models/modeling_qwen3_next.py@00022b0: Qwen3NextAttention; "
    "models/modeling_minicpmv4_6.py@c05559f: MiniCPMV4_6Model",
    "nested": True,
}  # θ and the share of a head come from rope_parameters

# What `PositionRotaryEmbedding.static(config=…, base=config.rope_theta)` makes of a type.
_STATIC = {"linear": "ignores", "dynamic": "differs", "yarn": "reads", "llama3": "reads",
           "longrope": "differs"}  # fmt: skip
_FLASH_LLAMA = {"width": "hidden_size", "types": _STATIC}
_INIT = "models/__init__.py@78c236f, get_model"
TGI: dict[str, dict[str, Any]] = {
    "baichuan": {**_FLASH_LLAMA, "types": {}, "at": f"{_INIT}: FlashLlamaForCausalLM"},
    "llama": {**_FLASH_LLAMA, "at": "flash_llama_modeling.py: FlashLlamaAttention, 2024"},
    "phi3": {**_FLASH_LLAMA, "at": f"{_INIT}: FlashLlamaForCausalLM"},
    "phimoe": {**_FLASH_LLAMA, "at": f"{_INIT}: FlashLlamaForCausalLM"},
    "mllama_text_model": {**_FLASH_LLAMA, "at": "mllama.py: FlashLlamaForCausalLM, 2024"},
    "qwen2": {"width": "hidden_size", "types": _STATIC,
              "at": "flash_qwen2_modeling.py@0581626: Qwen2Attention"},
    "qwen2_vl_text": {"width": "hidden_size", "types": {}, "needs_block": True,
                      "at": "qwen2_vl.py@11b3070: Qwen2VLForConditionalGeneration"},
    "qwen2_5_vl_text": {"width": "hidden_size", "types": {},
                        "at": "qwen2_5_vl.py@329f612: Qwen2_5VLForConditionalGeneration"},
    "qwen3": {"types": _STATIC, "at": "flash_qwen3_modeling.py@78c236f: Qwen3Attention"},
    "mistral": {"types": _STATIC, "at": "flash_mistral_modeling.py@01b82b5: MistralAttention"},
    "mixtral": {"width": "hidden_size", "types": _STATIC,
                "at": "flash_mixtral_modeling.py: MixtralAttention, 2024"},
    "gemma2": {"types": _STATIC, "at": "flash_gemma2_modeling.py: FlashGemma2Attention, 2024"},
    "gemma3_text": {"types": _STATIC,
                    "at": "flash_gemma3_modeling.py@19bb224: FlashGemma3Attention"},
    "phi": {"share": "partial_rotary_factor", "width": "hidden_size", "types": _STATIC,
            "at": "flash_phi_modeling.py@0581626: FlashPhiAttention"},
    "falcon": {"theta": 10000.0, "width": "hidden_size", "types": _STATIC,
               "at": "flash_rw_modeling.py: FlashRWAttention, 2024"},
    "dbrx": {"inner_theta": "attn_config", "types": _STATIC,
             "at": "flash_dbrx_modeling.py: DbrxAttention, 2024"},
    "deepseek_v3": {"mla": True, "types": _STATIC,
                    "at": "flash_deepseek_v3_modeling.py@f190bc1: DeepseekV3Attention"},
}  # fmt: skip

# The model types that it has code for: `ModelType` in models/__init__.py@78c236f.
TGI_TYPES = """
    baichuan bloom cohere dbrx deepseek_v2 deepseek_v3 falcon galactica gemma gemma2 gemma3
    gemma3_text gpt2 gpt_bigcode gpt_neox gptj granite idefics idefics2 idefics3 llama llama4
    llava_next mamba mistral mixtral mllama mpt opt paligemma phi phi3 phimoe qwen2 qwen2_5_vl
    qwen2_vl qwen3 santacoder starcoder2 t5
""".split()
# Others go to transformers' AutoModelForCausalLM, if they are in its mapping; the release is not
# known, only that it is 4.51 or newer and older than 5.
TGI_RELEASES = ("4.51.3", "4.57.6")

_INTERFACE = "attention_backend/interface.py@000a01d, RopeParams.from_config"
_FUSED = {"types": {"yarn": "reads"}, "kernel": "fused"}
_KEYS = "factor original_max_position_embeddings beta_fast beta_slow".split()
TENSORRT_LLM: dict[str, dict[str, Any]] = {
    "llama": {"types": {**_READS, **_LONGROPE}, "at": "models/modeling_llama.py: LlamaAttention"},
    "mistral": {"types": _READS, "at": "models/modeling_mistral.py: MistralAttention"},
    "mixtral": {"types": _READS, "at": "models/modeling_mixtral.py@000a01d: MixtralAttention"},
    "phi3": {"types": _LONGROPE, "at": "models/modeling_phi3.py@000a01d: Phi3Attention"},
    "phi4mm": {"types": _LONGROPE, "class": "Phi4MMForCausalLM",
               "at": "models/modeling_phi4mm.py@c20322f: Phi4MMForCausalLM, which makes a "
                     "Phi3ForCausalLM of it"},
    "hunyuan": {"types": {}, "class": "HunYuanMoEV1ForCausalLM", "alpha": "window",
                "at": "models/modeling_hunyuan_moe.py@047098b: HunYuanAttention; functional.py: "
                      "create_sinusoidal_positions_for_attention_plugin, dynamic"},
    # Exaone4Config of transformers 4.57.6 has this θ where the file has none.
    "exaone4": {"types": _READS, "class": "Exaone4ForCausalLM", "default_theta": 1000000.0,
                "also": ["Exaone4_5_ForConditionalGeneration"],
                "at": "models/modeling_exaone4.py@17eae74: Exaone4Attention; "
                      "models/modeling_exaone4_5.py@0050262: Exaone4_5_ForConditionalGeneration"},
    "minimax_m2": {"types": _READS, "class": "MiniMaxM2ForCausalLM",
                   "at": "models/modeling_minimaxm2.py@0059271: MiniMaxM2Attention"},
    "gemma3_text": {"types": _READS, "class": "Gemma3ForCausalLM",
                    "also": ["Gemma3ForConditionalGeneration"],
                    "at": "models/modeling_gemma3.py@00e7d10: Gemma3Attention; "
                          "models/modeling_gemma3vl.py@0f8dcd9: Gemma3VLM"},
    "gemma4_text": {"types": _IGNORED, "class": "Gemma4ForCausalLM", "reader": "gemma4",
                    "also": ["Gemma4ForConditionalGeneration"],
                    "at": "models/modeling_gemma4.py@00e7d10: Gemma4Attention; "
                          "models/modeling_gemma4mm.py@7d49440: Gemma4ForConditionalGeneration"},
    "mllama_text_model": {"types": _READS, "class": "MllamaForConditionalGeneration",
                          "at": "models/modeling_mllama.py@000a01d: MllamaDecoderLayer"},
    "llama4_text": {"types": {"llama3": "reads"}, "class": "Llama4ForConditionalGeneration",
                    "at": "models/modeling_llama.py@012cf90: LlamaAttention"},
    "qwen2_vl_text": {**_QWEN_VL, "class": "Qwen2VLForConditionalGeneration",
                      "at": "models/modeling_qwen2vl.py@000a01d: Qwen2VLModelBase"},
    "qwen2_5_vl_text": {**_QWEN_VL, "class": "Qwen2_5_VLForConditionalGeneration",
                        "at": "models/modeling_qwen2vl.py@000a01d: Qwen2VLModelBase"},
    "qwen3_vl_text": {**_QWEN_VL, "class": "Qwen3VLForConditionalGeneration",
                      "at": "models/modeling_qwen3vl.py@002f3cc: Qwen3VLModelBase"},
    "qwen3_5_text": {"types": {}, "class": "Qwen3_5ForConditionalGeneration",
                     "also": ["Qwen3_5ForCausalLM", "MiniCPMV4_6ForConditionalGeneration"],
                     **_QWEN35},
    "qwen3_5_moe_text": {"types": {}, "class": "Qwen3_5MoeForConditionalGeneration",
                         "also": ["Qwen3_5MoeForCausalLM"], **_QWEN35},
    "deepseek_v4": {"types": {"yarn": "reads"}, "class": "DeepseekV4ForCausalLM",
                    "kernel": "v4", "needs_block": True,
                    "at": "models/modeling_deepseekv4.py@02586bf: _deepseek_v4_pos_embd_params"},
    "glm_moe_dsa": {"types": {}, "class": "GlmMoeDsaForCausalLM",
                    "at": "models/modeling_deepseekv3.py@cf44a1c: DeepseekV3ForCausalLM"},
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
    options = arguments(__doc__, package="folder of unpacked releases of transformers")
    first, last = (causal_types(Path(options.package, release)) for release in TGI_RELEASES)
    rows = {kind: {"rope": "mixed", **row} for kind, row in TGI.items()}
    more = {
        "registered": sorted(TGI_TYPES),
        "causal": sorted(first & last - {*TGI_TYPES}),
        "unsure": sorted((first ^ last) - {*TGI_TYPES}),
    }
    write("tgi", "3", "read", rows, functions={"static": _ROTARY}, runs_own_code=True, **more)
    functions = {"from_config": _INTERFACE, "longrope": _LONG}
    rest = {"functions": functions, "architectures": sorted(ARCHITECTURES)}
    found = {kind: {"rope": _summary(row["types"]), **row} for kind, row in TENSORRT_LLM.items()}
    write("tensorrt-llm", "1", "read", found, **rest)


def _summary(types: dict[str, str]) -> str:
    """The word of a row for all of its types: that for yarn, where they are alike or reads it."""
    word = types.get("yarn")
    return word if word == "reads" or (word and set(types.values()) == {word}) else "mixed"


def causal_types(release: Path) -> set[str]:
    """The model types of `MODEL_FOR_CAUSAL_LM_MAPPING_NAMES` in a release of transformers."""
    path = release / "transformers" / "models" / "auto" / "modeling_auto.py"
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == "MODEL_FOR_CAUSAL_LM_MAPPING_NAMES":
            return first_strings(node)
    raise LookupError(path)


if __name__ == "__main__":
    main()
