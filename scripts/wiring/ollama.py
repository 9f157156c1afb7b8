"""Wiring of Ollama's own import of safetensors, read from its source (`convert/*.go`).

    python -m scripts.wiring.ollama

Nothing runs: `_READ` says what was read in the files of early 2026, `_REGISTRY` which architectures
`convert.go` names. A class that is not in `_READ` was not read. Beside the usual keys of a row:

    by              RoPE type → the key that must name it; nothing is kept otherwise
    writes_theta    false: the file says nothing, so the runtime takes 10000
    default_theta   what it writes where `rope_theta` is missing at the top level; 0: a broken file
    both_thetas     whether rope_parameters.rope_theta counts too
    flat            whether it wants the text part at the top level
    reader          a function of the rule: the runtime's model was read too, at the commit named
    length          keys of the window, the first that is there
"""

from __future__ import annotations

from typing import Any

from scripts.wiring.table import arguments, write

_REGISTRY = """
BertModel CohereForCausalLM DeepseekOCRForCausalLM DeepseekV3ForCausalLM Gemma2ForCausalLM
Gemma3ForCausalLM Gemma3ForConditionalGeneration Gemma3nForConditionalGeneration
Gemma4ForCausalLM Gemma4ForConditionalGeneration GemmaForCausalLM Glm4MoeLiteForCausalLM
GlmOcrForConditionalGeneration GptOssForCausalLM Lfm2ForCausalLM Lfm2MoeForCausalLM
Lfm2VlForConditionalGeneration Llama4ForConditionalGeneration LlamaForCausalLM
Ministral3ForCausalLM Mistral3ForConditionalGeneration MixtralForCausalLM
MllamaForConditionalGeneration NemotronHForCausalLM NomicBertModel NomicBertMoEModel
Olmo3ForCausalLM Phi3ForCausalLM Qwen2ForCausalLM Qwen2_5_VLForConditionalGeneration
Qwen3NextForCausalLM Qwen3VLForConditionalGeneration Qwen3VLMoeForConditionalGeneration
Qwen3_5ForConditionalGeneration Qwen3_5MoeForConditionalGeneration
"""

_IGNORED = dict.fromkeys(("linear", "dynamic", "yarn", "llama3", "longrope"), "ignores")
_LLAMA = {
    "types": {**_IGNORED, "linear": "reads", "llama3": "reads"},
    "by": {"linear": "type", "llama3": "rope_type"},
    "default_theta": 10000.0,
    "at": "convert/convert_llama.go:75-86,139-175",
}
_QWEN = {
    "rope": "mixed",
    "types": {**dict.fromkeys(_IGNORED, "refuses"), "yarn": "differs"},
    "by": dict.fromkeys(_IGNORED, "type"),
    "default_theta": 0,
}
_DEEPSEEK = {
    "rope": "reads",
    "class": "DeepseekV3ForCausalLM",
    "reader": "deepseek",
    "at": "convert/convert_deepseek2.go:86-90; model/models/deepseek2/model.go:44-51,227-229",
}
_QWEN35 = {
    "rope": "mixed",
    "types": {},
    "reader": "qwen3_5",
    "at": "convert/convert_qwen3next.go@017eb8a; model/models/qwen3next/model.go@1455ff9",
}
_READ: dict[str, dict[str, Any]] = {
    "llama": {"rope": "mixed", "class": "LlamaForCausalLM", **_LLAMA},
    "mixtral": {"rope": "mixed", "class": "MixtralForCausalLM", **_LLAMA,
                "note": "convert/convert_mixtral.go calls Llama's"},
    "mllama_text_model": {"rope": "mixed", **_LLAMA, "class": "MllamaForConditionalGeneration",
                          "default_theta": 0,
                          "at": "convert/convert_mllama.go@7b202a9, which calls Llama's; "
                                "model/models/mllama/model_text.go@9056c56"},
    "qwen2": {**_QWEN, "class": "Qwen2ForCausalLM", "at": "convert/convert_qwen2.go:36-50"},
    "gemma": {"rope": "ignores", "class": "GemmaForCausalLM", "types": _IGNORED,
              "writes_theta": False, "at": "convert/convert_gemma.go:28-46"},
    "cohere": {"rope": "ignores", "class": "CohereForCausalLM", "types": _IGNORED,
               "default_theta": 0, "length": ["model_max_length", "max_position_embeddings"],
               "at": "convert/convert_commandr.go:31-44"},
    "gemma3_text": {"rope": "mixed", "class": "Gemma3ForCausalLM",
                    "also": ["Gemma3ForConditionalGeneration"], "outer_length": 131072,
                    "at": "convert/convert_gemma3.go:107-122; model/models/gemma3/model_text.go, "
                          "newTextModel with finalLogitSoftcap, ropeValuesForLayer",
                    "types": {k: "ignores" for k in _IGNORED if k != "yarn"},
                    "note": "yarn is kept with betas of 64 and 1; what the runtime makes of it was "
                            "not read. Of Gemma3ForConditionalGeneration nothing is kept: both θ "
                            "are the runtime's, and a factor of 8 for 34, 48 and 62 layers."},
    "phi3": {"rope": "mixed", "class": "Phi3ForCausalLM", "at": "convert/convert_phi3.go:59-76",
             "types": dict.fromkeys(("linear", "dynamic", "llama3"), "refuses"), "default_theta": 0,
             "note": "keeps both lists and a scale; the runtime's choice of list was not read"},
    "llama4_text": {"rope": "ignores", "class": "Llama4ForConditionalGeneration",
                    "types": dict.fromkeys(("dynamic", "yarn", "longrope"), "ignores"),
                    "default_theta": 10000.0, "at": "convert/convert_llama4.go:38-46",
                    "note": "llama3 and linear are kept; the runtime was not read"},
    "lfm2": {"rope": "ignores", "class": "Lfm2ForCausalLM",
             "also": ["Lfm2VlForConditionalGeneration"], "types": _IGNORED,
             "both_thetas": True, "default_theta": 10000.0,
             "at": "convert/convert_lfm2.go:45-51,112-114; convert/convert_lfm2_vl.go@906b046: KV"},
    "lfm2_moe": {"rope": "ignores", "class": "Lfm2MoeForCausalLM", "types": _IGNORED,
                 "both_thetas": True, "default_theta": 10000.0,
                 "at": "convert/convert_lfm2.go:45-51,112-114"},
    "qwen2_5_vl_text": {**_QWEN, "class": "Qwen2_5_VLForConditionalGeneration", "flat": True,
                        "at": "convert/convert_qwen25vl.go:33-41"},
    "qwen3_vl_text": {**_QWEN, "class": "Qwen3VLForConditionalGeneration",
                      "at": "convert/convert_qwen3vl.go:13,51; convert/convert_qwen3.go:55-69"},
    "qwen3_vl_moe_text": {**_QWEN, "class": "Qwen3VLMoeForConditionalGeneration",
                          "at": "convert/convert_qwen3vl.go:13,51; convert/convert_qwen3.go:55-69"},
    "gemma4_text": {"rope": "ignores", "class": "Gemma4ForConditionalGeneration",
                    "reader": "gemma4", "types": _IGNORED,
                    "at": "convert/convert_gemma4.go; model/models/gemma4/model_text.go@1cbe795"},
    "ministral3": {"rope": "mixed", "class": "Ministral3ForCausalLM", "reader": "mistral3",
                   "types": {"yarn": "reads"},
                   "at": "convert/convert_mistral_causal.go@0b70048; "
                         "model/models/mistral3/model_text.go@6170d7f"},
    "qwen3_5_text": {**_QWEN35, "class": "Qwen3_5ForConditionalGeneration"},
    "qwen3_5_moe_text": {**_QWEN35, "class": "Qwen3_5MoeForConditionalGeneration"},
    "gpt_oss": {"rope": "reads", "class": "GptOssForCausalLM", "reader": "gpt_oss",
                "at": "convert/convert_gptoss.go:56-58; model/models/gptoss/model.go:70-78,214"},
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
}  # fmt: skip


def main() -> None:
    """Write the table."""
    options = arguments(__doc__)
    write("ollama", options.version or "of early 2026 (01cf744)", "read", _READ,
          architectures=sorted(_REGISTRY.split()))  # fmt: skip


if __name__ == "__main__":
    main()
