"""TGI, TensorRT-LLM, Ollama: what their model files say, at the commits that the tables name."""

import math

import pytest

from yarncli.engines.judgement import judge
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES

BASE = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 6,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 32768,
    "rope_theta": 10000.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
LINEAR = {"rope_type": "linear", "factor": 4.0}
MLA = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128, "kv_lora_rank": 512, "head_dim": None}
V4 = {
    **BASE,
    "model_type": "deepseek_v4",
    "architectures": ["DeepseekV4ForCausalLM"],
    "head_dim": 512,
    "qk_rope_head_dim": 64,
    "compress_rope_theta": 160000.0,
    "max_position_embeddings": 131072,
    "rope_scaling": {**YARN, "type": "yarn", "beta_fast": 32, "beta_slow": 1, "factor": 16.0},
}
M2 = {**BASE, "model_type": "minimax_m2", "architectures": ["MiniMaxM2ForCausalLM"]}
QWEN_VL = {
    "model_type": "qwen2_vl",
    "architectures": ["Qwen2VLForConditionalGeneration"],
    **BASE,
}
SECTIONS = {"type": "mrope", "mrope_section": [16, 24, 24]}


def status(engine, config):
    (found,) = judge(config, engines=[engine]).verdicts
    return found.status


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # flash_rw_modeling.py: base=10000.0, whatever the config says.
        ({"model_type": "falcon"}, "exact"),
        ({"model_type": "falcon", "rope_theta": 500000.0}, "ignores"),
        # flash_gemma3_modeling.py: rotary.py passes over linear.
        ({"model_type": "gemma3_text", "rope_scaling": LINEAR}, "ignores"),
        ({"model_type": "gemma3_text"}, "exact"),
        # flash_deepseek_v3_modeling.py reads mscale_all_dim of a class that plain RoPE is not.
        ({"model_type": "deepseek_v3", **MLA}, "crashes"),
        ({"model_type": "deepseek_v3", **MLA, "rope_scaling": YARN}, "exact"),
        # flash_phi_modeling.py: int(partial_rotary_factor · head size).
        ({"model_type": "phi", "partial_rotary_factor": 0.5, "head_dim": None}, "exact"),
        # flash_llama_modeling.py: hidden_size // num_attention_heads.
        ({"model_type": "llama"}, "exact"),
        ({"model_type": "llama", "head_dim": 64}, "unknown"),
        ({"model_type": "phi3", "partial_rotary_factor": 0.5}, "unknown"),
        # qwen2_vl.py: the text part is Qwen 2's, with three positions for each token.
        ({**QWEN_VL, "rope_scaling": SECTIONS, "head_dim": None}, "exact"),
        ({**QWEN_VL, "head_dim": None}, "unknown"),
        (
            {**QWEN_VL, "rope_scaling": {**SECTIONS, **YARN, "type": "yarn"}, "head_dim": None},
            "unknown",
        ),
        # Without code of its own: no release of transformers 4 has it, or only the later ones.
        ({"model_type": "ministral3"}, "unsupported"),
        ({"model_type": "smollm3"}, "unknown"),
        ({"model_type": "kimi_k2", **MLA, "auto_map": {"AutoConfig": "x.Y"}}, "unknown"),
    ],
)
def test_tgi(config, expected):
    assert status("tgi", {**BASE, **config}) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # modeling_deepseekv4.py: yarn for compressed layers with both mscales 0, plain elsewhere.
        (V4, "exact"),
        ({key: V4[key] for key in V4 if key != "rope_scaling"}, "unknown"),
        # RopeParams.from_config looks for the share of a head at the top level.
        ({**M2, "rotary_dim": 64}, "exact"),
        (
            {
                **M2,
                "rope_scaling": None,
                "rope_parameters": {
                    "rope_type": "default",
                    "rope_theta": 10000.0,
                    "partial_rotary_factor": 0.5,
                },
            },
            "unknown",
        ),
        # modeling_qwen2vl.py puts "mrope" over the type; a null dict has no place for it.
        ({**QWEN_VL, "rope_scaling": SECTIONS}, "exact"),
        (QWEN_VL, "unknown"),
        ({**QWEN_VL, "rope_scaling": {**SECTIONS, **YARN, "type": "yarn"}}, "unknown"),
        # A class that was not read.
        ({**M2, "rotary_dim": 64, "architectures": ["MiniMaxM3SparseForCausalLM"]}, "unknown"),
    ],
)
def test_tensorrt_llm(config, expected):
    assert status("tensorrt-llm", config) == expected


def test_tensorrt_llm_has_one_list_of_longrope_and_a_scale_from_the_lengths():
    block = {
        "rope_type": "longrope",
        "short_factor": [1.0] * 64,
        "long_factor": [4.0] * 64,
        "original_max_position_embeddings": 8192,
        "attention_factor": 7.0,
    }
    config = {**BASE, "model_type": "llama", "rope_scaling": block}
    (used,) = ENGINES["tensorrt-llm"].read(read_model(config)).scopes.values()
    assert used.parameters.inv_freq(100)[0] == pytest.approx(0.25)
    assert used.attention_factor == pytest.approx(math.sqrt(1 + math.log(4) / math.log(8192)))
    assert status("tensorrt-llm", {**config, "max_position_embeddings": 8192}) == "unknown"


THETAS = {
    "full_attention": {"rope_type": "proportional", "rope_theta": 1e6,
                       "partial_rotary_factor": 0.25},
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
}  # fmt: skip
GEMMA4_TEXT = {
    **{key: value for key, value in BASE.items() if key != "rope_theta"},
    "model_type": "gemma4_text",
    "head_dim": 256,
    "global_head_dim": 512,
    "rope_parameters": THETAS,
}


def gemma4(**changed):
    return {
        "model_type": "gemma4",
        "architectures": ["Gemma4ForConditionalGeneration"],
        "text_config": {**GEMMA4_TEXT, **changed},
    }


@pytest.mark.parametrize("engine", ["tensorrt-llm", "ollama"])
def test_gemma4_has_its_two_thetas_and_a_share_of_a_head_whatever_the_type(engine):
    scopes = ENGINES[engine].read(read_model(gemma4())).scopes
    full, sliding = (scopes[kind].parameters.inv_freq() for kind in THETAS)
    # Pair i of a head of 512 dimensions: θ^(-2i/512) for a quarter of them, then no rotation.
    assert full[:64] == pytest.approx([1e6 ** (-2 * i / 512) for i in range(64)])
    assert set(full[64:]) == {0.0}
    assert sliding == pytest.approx([1e4 ** (-2 * i / 256) for i in range(128)])
    assert status(engine, gemma4()) == "exact"
    yarn = {"rope_theta": 1e6, **YARN}
    assert status(engine, gemma4(rope_parameters={**THETAS, "full_attention": yarn})) == "differs"
    # transformers 5 refuses it: a share that yarn would not honour.
    mixed = {**THETAS["full_attention"], **YARN}
    assert status(engine, gemma4(rope_parameters={**THETAS, "full_attention": mixed})) == "unknown"
    wide = {**THETAS["full_attention"], "partial_rotary_factor": 0.5}
    assert status(engine, gemma4(rope_parameters={**THETAS, "full_attention": wide})) == "exact"
    assert status(engine, gemma4(rope_parameters=None)) == "unknown"


def test_ollama_reads_the_widths_of_gemma4_from_the_file():
    assert status("ollama", gemma4(global_head_dim=None)) in ("unknown", "refuses")


@pytest.mark.parametrize(
    ("engine", "changed", "expected"),
    [
        # gemma4/model_config.py:264-288: one type for each kind of layer.
        ("max", {}, "exact"),
        ("max", {"rope_parameters": {**THETAS, "full_attention": {**YARN, "rope_theta": 1e6}}},
         "refuses"),
        # Run with transformers 5.23: its config has no single width of a head.
        ("ctranslate2", {}, "crashes"),
        ("ctranslate2", {"global_head_dim": 256}, "unknown"),
        ("onnxruntime-genai", {}, "crashes"),
    ],
)  # fmt: skip
def test_gemma4_elsewhere(engine, changed, expected):
    assert status(engine, gemma4(**changed)) == expected


EXAONE = {
    "model_type": "exaone4_5",
    "architectures": ["Exaone4_5_ForConditionalGeneration"],
    "text_config": {
        **{key: value for key, value in BASE.items() if key != "rope_theta"},
        "model_type": "exaone4_5_text",
        "rope_scaling": {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "rope_theta": 1e6},
    },
}  # fmt: skip


def test_tensorrt_llm_has_the_theta_of_exaone_inside_rope_scaling_if_every_release_agrees():
    assert status("tensorrt-llm", EXAONE) == "exact"
    block = {**EXAONE["text_config"]["rope_scaling"], "rope_theta": 5e5}
    other = {**EXAONE, "text_config": {**EXAONE["text_config"], "rope_scaling": block}}
    assert status("tensorrt-llm", other) == "unknown"
    other["text_config"]["rope_theta"] = 5e5
    assert status("tensorrt-llm", other) == "exact"


MINISTRAL = {
    **{key: value for key, value in BASE.items() if key != "rope_theta"},
    "model_type": "ministral3",
    "architectures": ["Ministral3ForCausalLM"],
    "rope_parameters": {**YARN, "beta_fast": 4.0, "beta_slow": 1.0, "rope_theta": 1e6,
                        "llama_4_scaling_beta": 0.0, "mscale": 1.0, "mscale_all_dim": 0.0},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "exact"),
        # model_text.go: a pair of mscales takes the temperature away, as transformers does.
        ({"mscale_all_dim": 1.0}, "exact"),
        ({"mscale": 0.5, "mscale_all_dim": 1.0}, "differs"),
        # convert_mistral_causal.go takes what the pointer points to.
        ({"llama_4_scaling_beta": None}, "crashes"),
        ({"beta_fast": None}, "unknown"),
        ({"rope_type": "linear"}, "unknown"),
    ],
)
def test_ministral3_in_ollama(changed, expected):
    block = {**MINISTRAL["rope_parameters"], **changed}
    block = {key: value for key, value in block.items() if value is not None}
    assert status("ollama", {**MINISTRAL, "rope_parameters": block}) == expected


QWEN35 = {
    "model_type": "qwen3_5",
    "architectures": ["Qwen3_5ForConditionalGeneration"],
    "text_config": {
        **{key: value for key, value in BASE.items() if key != "rope_theta"},
        "model_type": "qwen3_5_text",
        "head_dim": 256,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e7,
                            "partial_rotary_factor": 0.25, "mrope_section": [11, 11, 10]},
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "exact"),
        (YARN, "unknown"),
        ({"mrope_section": None}, "unknown"),
        # convert_qwen3next.go: "partial_rotary_factor must be in (0,1]".
        ({"partial_rotary_factor": None}, "refuses"),
    ],
)
def test_qwen3_5_in_ollama(changed, expected):
    text = QWEN35["text_config"]
    block = {**text["rope_parameters"], **changed}
    block = {key: value for key, value in block.items() if value is not None}
    config = {**QWEN35, "text_config": {**text, "rope_parameters": block}}
    assert status("ollama", config) == expected


GEMMA3 = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34,
                    "sliding_window": 1024, "rope_scaling": LINEAR | {"factor": 8.0}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        # model_text.go: "rope scale unset but it shuold be set to 8.0" for 4B, 12B and 27B.
        ({}, "exact"),
        ({"rope_scaling": LINEAR}, "differs"),
        ({"rope_theta": 5e5}, "differs"),
        ({"rope_local_base_freq": 5e4}, "ignores"),
        ({"num_hidden_layers": 30}, "unknown"),
        ({"sliding_window_pattern": 4}, "unknown"),
        ({"max_position_embeddings": 32768}, "differs"),
    ],
)
def test_gemma3_with_images_in_ollama(changed, expected):
    config = {**GEMMA3, "text_config": {**GEMMA3["text_config"], **changed}}
    assert status("ollama", config) == expected


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, "exact"),
        ({"rope_scaling": {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0,
                           "high_freq_factor": 4.0}}, "exact"),
        ({"rope_scaling": YARN}, "ignores"),
        ({"rope_theta": None}, "crashes"),
    ],
)  # fmt: skip
def test_mllama_in_ollama(changed, expected):
    text = {**BASE, "model_type": "mllama_text_model", "cross_attention_layers": [3], **changed}
    text = {key: value for key, value in text.items() if value is not None}
    config = {"model_type": "mllama", "architectures": ["MllamaForConditionalGeneration"],
              "text_config": text}  # fmt: skip
    assert status("ollama", config) == expected


def test_glm_5_in_tensorrt_llm():
    config = {**BASE, **MLA, "model_type": "glm_moe_dsa",
              "architectures": ["GlmMoeDsaForCausalLM"]}  # fmt: skip
    assert status("tensorrt-llm", config) == "exact"
    assert status("tensorrt-llm", {**config, "rope_scaling": YARN}) == "unknown"


PLAIN_VL = {
    **BASE,
    "model_type": "qwen2_vl",
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "rope_theta": 1e6,
}


@pytest.mark.parametrize("release", ["4.50", "4.55", "4.57"])
def test_attention_of_qwen2_vl_takes_its_sections_from_rope_scaling_in_transformers_4(release):
    engine = f"transformers-{release}"
    assert status(engine, {**PLAIN_VL, "rope_scaling": SECTIONS}) == "exact"
    assert status(engine, PLAIN_VL) == "crashes"
    assert status(engine, {**PLAIN_VL, "rope_scaling": {**YARN, "type": "yarn"}}) == "crashes"


def test_dbrx_has_its_theta_in_attn_config_in_transformers_4_and_in_gguf():
    dbrx = {
        "model_type": "dbrx",
        "architectures": ["DbrxForCausalLM"],
        "d_model": 4096,
        "n_heads": 32,
        "n_layers": 6,
        "max_seq_len": 32768,
        "attn_config": {"kv_n_heads": 8, "rope_theta": 250000.0},
    }
    for engine in ("transformers-4.50", "transformers-4.57", "tgi", "llama.cpp"):
        (used,) = ENGINES[engine].read(read_model(dbrx)).scopes.values()
        assert used.parameters.rope_theta == 250000.0, engine


@pytest.mark.parametrize("engine", ["llama.cpp", "mlx-vlm"])
def test_deepseek_v4_rotates_qk_rope_head_dim_with_a_base_for_each_kind_of_layer(engine):
    model = read_model({**V4, "compress_ratios": [0, 4, 128, 4, 128, 0]})
    scopes = ENGINES[engine].read(model).scopes
    compressed, main = (scopes[name].parameters for name in ("compress", "main"))
    assert (main.rotary_dim, compressed.rotary_dim) == (64, 64)
    assert main.inv_freq(100)[1] == pytest.approx(10000.0 ** (-2 / 64))
    assert compressed.inv_freq(100)[31] == pytest.approx(160000.0 ** (-62 / 64) / 16)
    assert {used.attention_factor for used in scopes.values()} == {1.0}


def test_llama_cpp_does_not_convert_mimo_v2_flash_as_published():
    # conversion/mimo.py:165 wants a key of the one dict, which transformers 5 nests.
    published = {
        **BASE,
        "model_type": "mimo_v2_flash",
        "architectures": ["MiMoV2FlashForCausalLM"],
        "head_dim": 192,
        "partial_rotary_factor": 0.334,
        "swa_rope_theta": 10000.0,
        "hybrid_layer_pattern": [0, 1, 1, 1, 1, 0],
        "sliding_window": 128,
    }
    assert status("llama.cpp", published) == "refuses"
    assert status("llama.cpp", {**published, "rope_scaling": YARN}) == "unknown"
