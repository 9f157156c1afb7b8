"""Engines that convert first, and those whose source was read: what is at the lines named."""

from __future__ import annotations

import json
import math

import pytest

from support.configs import NARROW_LLAMA
from support.program import invoke
from yarncli.engines.judgement import judge
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES, get_engine
from yarncli.engines.types import EngineCrash, LoaderError, NotKnown, NotSupported
from yarncli.errors import UsageError

BASE = {**NARROW_LLAMA, "max_position_embeddings": 32768, "rope_theta": 500000.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
BETAS = {"beta_fast": 32.0, "beta_slow": 1.0}
LLAMA3 = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
LINEAR = {"rope_type": "linear", "factor": 4.0}
LONGROPE = {
    "rope_type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 8192,
    "short_factor": [1.0] * 32,
    "long_factor": [4.0] * 32,
}


def scaled(kind, block, **fields):
    return {**BASE, "model_type": kind, **fields, "rope_scaling": block}


def status(engine, config):
    (found,) = judge(config, engines=[engine]).verdicts
    return found.status


@pytest.mark.parametrize(
    ("engine", "kind", "block", "expected"),
    [
        # builders/llama.py:15: only llama3 is looked for.
        ("onnxruntime-genai", "llama", YARN, "ignores"),
        ("onnxruntime-genai", "llama", LLAMA3, "exact"),
        # builders/base.py:670-686 without betas divides by zero, 701 for what it does not know.
        ("onnxruntime-genai", "qwen2", YARN, "crashes"),
        ("onnxruntime-genai", "qwen2", {**YARN, **BETAS}, "differs"),
        ("onnxruntime-genai", "qwen2", {**YARN, **BETAS, "truncate": False}, "exact"),
        ("onnxruntime-genai", "qwen2", LLAMA3, "refuses"),
        ("lmdeploy-pytorch", "llama", YARN, "exact"),
        ("lmdeploy-turbomind", "llama", YARN, "exact"),
        ("lmdeploy-turbomind", "llama", {**YARN, "truncate": False}, "differs"),
        ("lmdeploy-turbomind", "gemma2", YARN, "unsupported"),
        # converters/transformers.py:2376-2384: neither factor nor original length is set.
        ("ctranslate2", "llama", LLAMA3, "ignores"),
        ("ctranslate2", "qwen2", LLAMA3, "refuses"),
        ("ctranslate2", "mistral", YARN, "refuses"),
        # max: llama3/model_config.py:305 names llama3 and longrope, mistral/mistral.py:46 nothing.
        ("max", "llama", YARN, "ignores"),
        ("max", "llama", LLAMA3, "exact"),
        ("max", "mistral", LLAMA3, "ignores"),
        ("max", "granitemoe", YARN, "unsupported"),
        ("openvino", "llama", YARN, "exact"),
        ("openvino", "granite_swa", YARN, "unsupported"),
        # layers/rotary.py@0666316: linear passes, longrope changes inside a text.
        ("tgi", "qwen2", YARN, "exact"),
        ("tgi", "qwen2", LINEAR, "ignores"),
        ("tgi", "gpt_neox", YARN, "unknown"),
        # models/__init__.py@78c236f: transformers runs what it has no code for.
        ("tgi", "qwen3_moe", YARN, "exact"),
        ("tgi", "qwen3_moe", LONGROPE, "unknown"),
        ("tgi", "olmo2", YARN, "refuses"),
        ("tgi", "olmo3", YARN, "unknown"),
        ("tgi", "olmo_hybrid", YARN, "unsupported"),
        ("tensorrt-llm", "llama", YARN, "exact"),
        # functional.py@0071496: the long list for every text.
        ("tensorrt-llm", "llama", LONGROPE, "differs"),
        ("tensorrt-llm", "qwen3", YARN, "exact"),
        # models/modeling_qwen3.py@010bb95 reads it, RopeParams.from_config does not.
        ("tensorrt-llm", "qwen3", {**YARN, "attention_factor": 1.0}, "unknown"),
        ("tensorrt-llm", "olmo2", YARN, "unknown"),
    ],
)
def test_what_an_engine_makes_of_a_type(engine, kind, block, expected):
    assert status(engine, scaled(kind, block)) == expected


@pytest.mark.parametrize("engine", ["tensorrt-llm", "onnxruntime-genai", "lmdeploy-pytorch"])
def test_a_class_that_the_list_of_architectures_lacks_is_unsupported(engine):
    config = {**scaled("olmo2", YARN), "architectures": ["Olmo2ForCausalLM"]}
    with pytest.raises(NotSupported, match="Olmo2ForCausalLM"):
        ENGINES[engine].read(read_model(config))


def test_onnx_takes_mscale_alone_as_the_scale():
    """builders/base.py:3318-3320: `if config_mscale > 0: return float(config_mscale)`."""
    block = {**YARN, **BETAS, "mscale": 0.9}
    (used,) = ENGINES["onnxruntime-genai"].read(read_model(scaled("qwen2", block))).scopes.values()
    assert used.attention_factor == 0.9


def test_onnx_asserts_that_the_ramp_lies_inside():
    """builders/base.py:3367: `assert 0 < low < high < d_half - 1`."""
    block = {**YARN, "original_max_position_embeddings": 128, "factor": 256.0, **BETAS}
    with pytest.raises(EngineCrash, match="AssertionError"):
        ENGINES["onnxruntime-genai"].read(read_model(scaled("qwen2", block)))


def test_onnx_loses_the_sections_of_multimodal_rope():
    """builders/base.py:688-692 sets them for the type default only."""
    config = scaled(
        "qwen2_5_vl_text", {**LINEAR, "mrope_section": [8, 12, 12]}, num_attention_heads=4
    )
    assert ENGINES["onnxruntime-genai"].read(read_model(config)).faults


def test_lmdeploy_deepseek_scales_the_softmax():
    """pytorch/models/deepseek_v2.py:467-473: m(factor · mscale_all_dim)²."""
    block = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}
    config = scaled("deepseek_v3", block, qk_rope_head_dim=64, qk_nope_head_dim=128)
    (used,) = ENGINES["lmdeploy-pytorch"].read(read_model(config)).scopes.values()
    assert used.softmax_scale_ratio == pytest.approx((0.1 * math.log(4.0) + 1) ** 2)


def test_max_deepseek_takes_six_keys_by_index():
    """deepseekV3/deepseekV3.py:775-785, and a softmax scale from mscale."""
    sizes = {"qk_rope_head_dim": 64, "qk_nope_head_dim": 128}
    full = {**YARN, **BETAS, "mscale": 1.0, "mscale_all_dim": 0.5}
    read = ENGINES["max"].read
    with pytest.raises(EngineCrash, match="mscale"):
        read(read_model(scaled("deepseek_v3", {**YARN, **BETAS}, **sizes)))
    (used,) = read(read_model(scaled("deepseek_v3", full, **sizes))).scopes.values()
    assert used.softmax_scale_ratio == pytest.approx((0.1 * math.log(4.0) + 1) ** 2)
    with pytest.raises(LoaderError, match="refused"):
        read(read_model(scaled("deepseek_v3", LINEAR, **sizes)))


def test_max_takes_the_width_from_the_hidden_size():
    """llama3/model_config.py:82-103 passes no head_dim."""
    with pytest.raises(NotKnown, match="width of a head"):
        ENGINES["max"].read(read_model(scaled("llama", LLAMA3, head_dim=16)))


def test_openvino_has_the_numbers_of_the_transformers_it_traces():
    """model_configs.py allows exaone4 up to 4.57.6, which does not read rope_parameters."""
    rope = {**YARN, "rope_theta": 500000.0}
    config = {**BASE, "model_type": "llama", "rope_parameters": rope}
    assert status("openvino", config) == status("transformers-5", config) == "exact"
    with pytest.raises(NotKnown, match="dynamic"):
        ENGINES["openvino"].read(read_model(scaled("llama", {**LINEAR, "rope_type": "dynamic"})))


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ("lmdeploy-pytorch", "lmdeploy serve api_server SOURCE --backend pytorch"),
        ("ctranslate2", "ct2-transformers-converter --model SOURCE --output_dir ct2-model"),
        ("max", "max serve --model-path SOURCE --max-length 32768"),
        ("openvino", "optimum-cli export openvino --model SOURCE openvino-model"),
        ("onnxruntime-genai", "python -m onnxruntime_genai.models.builder -i SOURCE"),
    ],
)
def test_launch_lines(engine, line):
    (found,) = judge({**BASE, "model_type": "llama"}, engines=[engine]).verdicts
    assert found.launch is not None
    assert found.launch.startswith(line)


@pytest.mark.parametrize(
    ("name", "engine"),
    [
        ("aphrodite", "vllm"),
        ("Aphrodite", "vllm"),
        ("KTransformers", "sglang"),
        ("vLLM", "vllm"),
        ("llamacpp", "llama.cpp"),
        ("transformers_5", "transformers-5"),
    ],
)
def test_other_names_of_engines(name, engine):
    assert get_engine(name).id == engine


def test_an_unknown_name_lists_the_others_too():
    with pytest.raises(UsageError, match="Aphrodite, KTransformers"):
        get_engine("nope")


def test_two_names_of_one_engine_are_one_verdict(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**BASE, "model_type": "llama"}))
    shown = invoke("engines", path, "--engine", "aphrodite", "--engine", "vllm", "--json")
    assert [view["engine"] for view in json.loads(shown.stdout)["engines"]] == ["vllm"]
