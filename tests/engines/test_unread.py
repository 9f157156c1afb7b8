"""Model types without a row: an engine's own list of models says whether it has them at all."""

import pytest

from yarncli.engines.judgement import judge

SIZES = {
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "rope_theta": 10000.0,
    "max_position_embeddings": 8192,
}
QWEN = {
    **SIZES,
    "model_type": "qwen",
    "architectures": ["QWenLMHeadModel"],
    "rotary_emb_base": 10000,
    "seq_length": 8192,
    "auto_map": {
        "AutoConfig": "configuration_qwen.QWenConfig",
        "AutoModelForCausalLM": "modeling_qwen.QWenLMHeadModel",
    },
}
INTERNLM = {
    **SIZES,
    "model_type": "internlm2",
    "architectures": ["InternLM2ForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_internlm2.InternLM2Config",
        "AutoModelForCausalLM": "modeling_internlm2.InternLM2ForCausalLM",
    },
}
ORION = {
    **SIZES,
    "model_type": "orion",
    "architectures": ["OrionForCausalLM"],
    "auto_map": {
        "AutoConfig": "configuration_orion.OrionConfig",
        "AutoModelForCausalLM": "modeling_orion.OrionForCausalLM",
    },
}


def statuses(config):
    return {view.engine.id: view.status for view in judge(config, launch=False).verdicts}


@pytest.mark.parametrize(
    ("config", "lacking", "having"),
    [
        # By the class of the model or of the config; by model type.
        (
            QWEN,
            {"exllamav3", "max", "ollama", "onnxruntime-genai", "ctranslate2", "tensorrt-llm"},
            {"openvino", "vllm"},
        ),
        (
            INTERNLM,
            {"exllamav3", "max", "ollama", "ctranslate2", "tensorrt-llm"},
            {"openvino"},
        ),
        # Nobody examined its published code.
        (ORION, {"exllamav3", "max", "ollama"}, {"tgi", "transformers-5", "transformers-4.57"}),
    ],
)
def test_an_engine_without_the_model_says_so(config, lacking, having):
    found = statuses(config)
    assert {engine for engine in lacking if found[engine] != "unsupported"} == set()
    assert {engine for engine in having if found[engine] != "unknown"} == set()


def test_an_engine_with_a_class_of_its_own_is_held_against_the_config():
    found = statuses(INTERNLM)
    assert [found[e] for e in ("vllm", "sglang", "llama.cpp", "mlx-lm")] == ["exact"] * 4
    # models/internlm2/language.py doubles the angles of texts without a scaling.
    assert found["mlx-vlm"] == "differs"
    # models/qwen.py of both makes its rotary embedding without rotary_emb_base.
    other = statuses(
        {**{k: v for k, v in QWEN.items() if k != "rope_theta"}, "rotary_emb_base": 1e6}
    )
    assert [other[e] for e in ("sglang", "mlx-lm")] == ["ignores"] * 2
    # SGLang's takes the key that other models have.
    assert statuses({**QWEN, "rotary_emb_base": 1e6, "rope_theta": 1e6})["sglang"] == "exact"


@pytest.mark.parametrize(
    "change",
    [
        {"architectures": ["InternLMXComposer2ForCausalLM"]},
        {"rope_scaling": {"type": "yarn", "factor": 4.0}},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ],
)
def test_what_its_published_code_does_not_read_is_not_judged(change):
    found = statuses({**INTERNLM, **change})
    assert {found[e] for e in ("vllm", "sglang", "mlx-lm")} == {"unknown"}


def test_code_that_comes_with_the_checkpoint_is_unknown_where_it_would_run():
    bare = {key: value for key, value in ORION.items() if key != "auto_map"}
    for engine in ("transformers-5", "transformers-4.50"):
        assert statuses(ORION)[engine] == "unknown"
        assert statuses(bare)[engine] == "unsupported"
    assert statuses({**QWEN, "model_file": "qwen.py"})["mlx-vlm"] == "unknown"


def test_what_lists_no_class_is_not_judged_by_one():
    bare = {key: QWEN[key] for key in QWEN if key not in ("architectures", "auto_map")}
    assert statuses(bare)["exllamav3"] == "unknown"
    assert statuses({**QWEN, "architectures": "QWenLMHeadModel"})["max"] == "unsupported"


def test_a_class_that_only_the_automatic_map_names_counts():
    found = statuses({**INTERNLM, "architectures": ["SomethingElse"]})
    assert found["lmdeploy-turbomind"] == "unknown"
    assert statuses(INTERNLM)["lmdeploy-turbomind"] == "exact"


def test_code_without_a_config_class_does_not_run():
    # transformers 4.50.3 stops at the model type, with trust_remote_code too.
    bare = {**QWEN, "auto_map": {"AutoModel": "modeling_qwen.QWenModel"}}
    assert statuses(bare)["transformers-4.50"] == "unsupported"
    draft = {**SIZES, "model_type": "qwen3", "head_dim": 128, "auto_map": bare["auto_map"]}
    assert statuses(draft)["transformers-4.50"] == "unsupported"
    assert statuses({**draft, "auto_map": QWEN["auto_map"]})["transformers-4.50"] == "unknown"
