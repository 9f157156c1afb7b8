"""`read_rope` on single values: contradictions, wrong types, refusals, sources of the length."""

import contextlib
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import read_rope
from yarncli.errors import ConfigError, UnsupportedArchitectureError, UsageError

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "max_position_embeddings": 4096,
}
YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 1024,
}
GEMMA3 = {**LLAMA, "model_type": "gemma3_text", "head_dim": 16}


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        (
            {**LLAMA, "rope_scaling": YARN, "rope_parameters": {**YARN, "factor": 8.0}},
            ("rope_scaling.factor", "4.0", "rope_parameters.factor", "8.0"),
        ),
        (
            {**LLAMA, "rope_scaling": {**YARN, "type": "linear"}},
            ("rope_scaling.rope_type", "'yarn'", "rope_scaling.type", "'linear'"),
        ),
        (
            {**LLAMA, "rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e4}},
            ("rope_parameters.rope_theta", "10000", "rope_theta", "500000"),
        ),
        (
            {**LLAMA, "rope_scaling": YARN, "original_max_position_embeddings": 2048},
            ("rope_scaling.original_max_position_embeddings", "1024", "2048"),
        ),
        (
            {**LLAMA, "rope_scaling": YARN, "rope_parameters": {**YARN, "my_own": 1}},
            ("my_own", "None", "1"),
        ),
        (
            {
                **GEMMA3,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0},
                "rope_parameters": {
                    "full_attention": {"rope_type": "default"},
                    "sliding_attention": {"rope_type": "default"},
                },
            },
            ("rope_scaling.", "rope_parameters.full_attention.", "'linear'", "'default'"),
        ),
        (
            {**GEMMA3, "rope_scaling": {"type": "yarn", "factor": 4.0}},
            ("rope_scaling.type", "yarn"),
        ),
        ({**LLAMA, "rope_scaling": 1.0}, ("rope_scaling", "1.0", "JSON object")),
        ({**LLAMA, "rope_scaling": {**YARN, "factor": "4"}}, ("rope_scaling.factor", "'4'")),
        ({**LLAMA, "rope_scaling": {**YARN, "factor": True}}, ("rope_scaling.factor", "True")),
        ({**LLAMA, "rope_scaling": {**YARN, "factor": 0.5}}, ("rope_scaling", "factor is 0.5")),
        ({**LLAMA, "rope_scaling": {"rope_type": "linear"}}, ("rope_scaling", "needs factor")),
        ({**LLAMA, "rope_scaling": {"rope_type": "xpos"}}, ("rope_scaling", "'xpos'")),
        ({**LLAMA, "rope_theta": float("nan")}, ("rope_theta", "nan")),
        ({**LLAMA, "rope_theta": [1e4]}, ("rope_theta", "[10000.0]", "a number")),
        (
            {**LLAMA, "model_type": "gpt_neox", "rope_theta": 5e5},
            ("rope_theta is 500000", "uses 10000"),
        ),
        ({"model_type": "cwm", "rope_theta": 5e5}, ("rope_theta is 500000", "1e+06")),
        ({"model_type": "laguna", "rope_theta": 7e5}, ("rope_theta is 700000", "500000")),
        ({**LLAMA, "rope_theta": 10**5000}, ("rope_theta", "very large")),
        ({**LLAMA, "max_position_embeddings": 4096.5}, ("max_position_embeddings", "4096.5")),
        ({**LLAMA, "num_hidden_layers": 10**9}, ("num_hidden_layers", "1000000000")),
        ({**LLAMA, "partial_rotary_factor": 0.5, "rope_scaling": YARN}, ("partial", "0.5")),
        ({"model_type": "llava"}, ("text_config", "missing")),
        (
            {"model_type": "llava", "text_config": {"rope_scaling": "yarn"}},
            ("text_config.rope_scaling", "'yarn'"),
        ),
        ({**LLAMA, "model_type": "laguna", "rope_scaling": YARN}, ("rope_scaling", "laguna")),
        ({**LLAMA, "model_type": "laguna", "rope_parameters": YARN}, ("rope_parameters", "flat")),
        (
            {**LLAMA, "model_type": "cohere2_moe", "rope_scaling": YARN},
            ("rope_scaling", "not read"),
        ),
        (
            {**LLAMA, "rope_parameters": {"full_attention": YARN}},
            ("rope_parameters", "one RoPE setting"),
        ),
        (
            {**LLAMA, "model_type": "dbrx", "attn_config": {"rope_theta": 5e5}},
            ("attn_config.rope_theta", "500000", "10000"),
        ),
    ],
)
def test_bad_values_and_contradictions_are_named(
    config: dict[str, Any], parts: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        read_rope(config)
    for part in parts:
        assert part in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({}, "--assume-like"),
        ({"model_type": "chatglm"}, "--assume-like"),
        ({"model_type": "gpt2"}, "gpt2 does not use RoPE"),
        ({"model_type": "gptj"}, "fixed table"),
        ({"model_type": "falcon", "alibi": True}, "No layer"),
        ({"model_type": "bamba"}, "No layer"),
        (
            {
                **LLAMA,
                "model_type": "hunyuan_v1_dense",
                "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0},
            },
            "rope_scaling.alpha",
        ),
        (
            {
                **LLAMA,
                "model_type": "granite_swa",
                "num_hidden_layers": 2,
                "layer_rope_theta": [1e4, 5e5],
            },
            "layer_rope_theta",
        ),
        ({**LLAMA, "model_type": "molmo2_text", "rope_scaling_layers": [0]}, "rope_scaling_layers"),
        (
            {
                **LLAMA,
                "model_type": "zamba2",
                "use_mem_rope": True,
                "num_hidden_layers": 54,
                "use_long_context": True,
            },
            "use_long_context",
        ),
    ],
)
def test_what_cannot_be_read_as_rope_is_refused_by_name(config: dict[str, Any], part: str) -> None:
    with pytest.raises(UnsupportedArchitectureError) as caught:
        read_rope(config)
    assert part in str(caught.value)


def test_unknown_model_types_can_be_read_like_another() -> None:
    config = {**LLAMA, "num_hidden_layers": 2, "model_type": "xverse", "rope_theta": 5e5}
    assert read_rope(config, assume_like="llama").scopes["model"].parameters.rope_theta == 5e5
    wrapped = {"model_type": "my_vlm", "text_config": {**config, "rope_theta": 7e5}}
    rope = read_rope(wrapped, assume_like="qwen2")
    assert rope.text_path == ("text_config",)
    assert rope.scopes["model"].parameters.rope_theta == 7e5
    with pytest.raises(UsageError, match="no_such_type"):
        read_rope(config, assume_like="no_such_type")


@pytest.mark.parametrize(
    ("config", "given", "length", "source"),
    [
        ({**LLAMA, "rope_scaling": YARN}, 512, 512, "--original-length"),
        ({**LLAMA, "rope_scaling": YARN}, None, 1024, "original_max_position_embeddings"),
        (
            {**LLAMA, "model_type": "qwen3", "max_position_embeddings": 40960},
            None,
            32768,
            "known original of qwen3",
        ),
        (
            {**LLAMA, "model_type": "qwen3", "max_position_embeddings": 262144},
            None,
            262144,
            "max_position_embeddings",
        ),
        (LLAMA, None, 4096, "max_position_embeddings"),
        ({"model_type": "llama"}, None, 2048, "family default"),
        ({"model_type": "gpt_oss"}, None, 4096, "original_max_position_embeddings"),
    ],
)
def test_the_original_length_and_its_source(
    config: dict[str, Any], given: int | None, length: int, source: str
) -> None:
    rope = read_rope(config, original_length=given)
    assert (rope.original_length, rope.original_source) == (length, source)


def test_equal_spellings_are_one_setting() -> None:
    both = {
        **LLAMA,
        "rope_theta": 5e5,
        "rope_scaling": {**YARN, "type": "yarn"},
        "rope_parameters": {**YARN, "factor": 4, "rope_theta": 500000},
    }
    rope = read_rope(both)
    assert rope.spelling_found == "both"
    assert rope.scopes["model"].path == ("rope_scaling",)
    assert rope.scopes["model"].parameters.factor == 4.0


def test_old_type_names_and_multimodal_sections() -> None:
    text = {**LLAMA, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
    rope = read_rope({**text, "model_type": "qwen2_vl"})
    assert rope.text_path == ()
    assert rope.mrope
    assert rope.scopes["model"].parameters.rope_type == "default"
    assert rope.scopes["model"].parameters.extra == {"mrope_section": [2, 3, 3]}
    factors = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8}
    phi = {**LLAMA, "model_type": "phi3", "rope_scaling": {"type": "su", **factors}}
    assert read_rope(phi).scopes["model"].parameters.rope_type == "longrope"


NUMBERS = [0, 1, 2, 3, 7, 64, -1, 2**31, 2**70, 10**400, 0.0, 0.25, 1.5, -2.5, 1e308]
TEXTS = ["", "yarn", "linear", "longrope", "rope", "llama"]
LISTS = [[], [1], [1.0, 2.0], [True, 0], ["full_attention"] * 4, [{}]]
BLOCKS = [{}, {"a": 1}, {"rope_type": "yarn"}, {"rope_theta": 1e4}, {"0": {"head_dim": 8}}]
OTHERS = [None, True, False, float("nan"), float("inf")]
ANYTHING = st.sampled_from([*NUMBERS, *TEXTS, *LISTS, *BLOCKS, *OTHERS])
KEYS = sorted(
    {
        "rope_scaling",
        "rope_parameters",
        "text_config",
        "layer_types",
        "num_hidden_layers",
        "num_attention_heads",
        "num_key_value_heads",
        "hidden_size",
        "head_dim",
        "rope_theta",
        "partial_rotary_factor",
        "max_position_embeddings",
        "sliding_window",
        "use_sliding_window",
        "no_rope_layers",
        "layer_rope_theta",
        "per_layer_config",
        "original_max_position_embeddings",
        "qk_rope_head_dim",
        "sliding_window_pattern",
        "max_window_layers",
        "compress_ratios",
    }
)
INNER = sorted(
    {
        "rope_type",
        "type",
        "factor",
        "rope_theta",
        "short_factor",
        "full_attention",
        "partial_rotary_factor",
        "original_max_position_embeddings",
        "truncate",
    }
)


@settings(max_examples=300)
@given(
    model_type=st.sampled_from(sorted(FAMILIES)),
    outer=st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=4),
    inner=st.dictionaries(st.sampled_from(INNER), ANYTHING, max_size=4),
    spelling=st.sampled_from(["rope_scaling", "rope_parameters", "text_config"]),
)
def test_any_json_is_read_or_refused_with_a_message(
    model_type: str, outer: dict[str, Any], inner: dict[str, Any], spelling: str
) -> None:
    config = {**outer, spelling: inner, "model_type": model_type}
    with contextlib.suppress(ConfigError, UnsupportedArchitectureError):
        assert read_rope(config).scopes


def test_a_window_as_long_as_the_model_is_no_limit() -> None:
    phi = {**LLAMA, "model_type": "phi3", "sliding_window": 4096}
    assert not read_rope(phi).scopes["model"].windowed
    assert read_rope(phi).scopes["model"].window == 4096
    assert read_rope({**phi, "sliding_window": 4095}).scopes["model"].windowed


def test_known_originals_are_those_of_unscaled_files() -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    qwen = {**LLAMA, "model_type": "qwen3", "max_position_embeddings": 40960}
    assert read_rope({**qwen, "rope_scaling": scaling}).original_length == 40960


FULL_YARN = {"rope_theta": 1e4, **YARN, "original_max_position_embeddings": 32}


def test_the_original_length_is_that_of_the_layers_that_can_be_extended() -> None:
    sliding = {**FULL_YARN, "original_max_position_embeddings": 16}
    config = {
        **LLAMA,
        "model_type": "cohere_compass_text",
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 16,
        "rope_parameters": {"sliding_attention": sliding, "full_attention": FULL_YARN},
    }
    assert read_rope(config).original_length == 32


def test_some_wrappers_choose_the_text_model_whatever_the_part_says() -> None:
    text = {**LLAMA, "model_type": "qwen2"}
    assert read_rope({"model_type": "qwen2_vl", "text_config": text}).model_type == "qwen2_vl_text"
    assert read_rope({"model_type": "llava", "text_config": text}).model_type == "qwen2"
    assert read_rope({"model_type": "unlimited_ocr", "language_config": {}}).text_path == (
        "language_config",
    )


def scaled(kind: str, **values: Any) -> dict[str, Any]:
    return {"model_type": "llama", "rope_scaling": {"rope_type": kind, **values}}


def longrope(**values: Any) -> dict[str, Any]:
    factors = {"short_factor": [1.0] * 64, "long_factor": [2.0] * 64}
    return scaled("longrope", **{"factor": 4.0, **factors, **values})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model_type": "cohere2_moe", "first_k_dense_replace": 2**31}, "first_k_dense_replace is"),
        ({"model_type": "cohere2_moe", "first_k_dense_replace": -1}, "first_k_dense_replace is"),
        ({"model_type": "embedding_gemma2_text", "global_head_dim": 2**40}, "head_dim is 1,099"),
        ({"model_type": "dots3_note_text", "swa_head_dim": 2**40}, "head_dim is"),
        ({"model_type": "llama", "head_dim": 2**40}, "heads are"),
        ({"model_type": "llama", "head_dim": 8192}, "heads are 8,192 wide"),
        ({"model_type": "llama", "num_hidden_layers": 2001}, "num_hidden_layers is 2001"),
        ({"model_type": "llama", "num_attention_heads": 10**6}, "num_attention_heads is 1000000"),
        ({"model_type": "llama", "max_position_embeddings": 2**54}, "max_position_embeddings is"),
        ({"model_type": "qwen3_next", "layer_types": ["x"] * 10_001}, "layer_types has 10,001"),
        ({"model_type": "llama", "rope_theta": 1}, "rope_theta is 1.0; it must be above 1"),
        ({"model_type": "llama", "rope_theta": -0.0}, r"rope_theta is -?0.0"),
        ({"model_type": "llama", "rope_theta": 1e-320}, "rope_theta is 1e-320"),
        ({"model_type": "llama", "rope_theta": 1e31}, "rope_theta is 1e"),
        ({"model_type": "llama", "rope_theta": 10**400}, "it must be a finite number"),
        (scaled("yarn", factor=1e-320), "factor is 1e-320; it must be at least 1"),
        (scaled("yarn", factor=1e10), "factor is 1"),
        (scaled("yarn", factor=2, beta_fast=1e308), "beta_fast is 1e"),
        (scaled("yarn", factor=2, attention_factor=1e-300), "attention_factor is 1e-300"),
        (scaled("yarn", factor=2, mscale=1, mscale_all_dim=-14.4), "mscale_all_dim is -14.4"),
        (scaled("yarn", factor=2, mrope_section=[math.inf]), "mrope_section is or holds"),
        (scaled("yarn", factor=2, original_max_position_embeddings=2**54), "at most 9,007"),
        (scaled("yarn", factor=2, attn_factor=0), "attn_factor is 0; it must be a number"),
        (scaled("yarn", factor=2, attn_factor=[1]), r"attn_factor is \[1\]; it must be a number"),
        (
            scaled("yarn", factor=2, original_max_position_embeddings=4)
            | {"max_position_embeddings": 2**53},
            "more than 1e.09 times",
        ),
        (longrope(long_mscale=1e300), "long_mscale is 1e"),
        (longrope(original_max_position_embeddings=1), "The original window is 1"),
        (longrope(long_factor=[1e-320] * 64), "long_factor must hold numbers from 1e-09"),
    ],
)
def test_values_that_no_formula_and_no_memory_can_take_are_refused(fields, message):
    with pytest.raises(ConfigError, match=message):
        read_rope(fields)
