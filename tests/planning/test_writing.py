"""config.json as written: literals of what a careful person would have typed."""

import json

import pytest

from support.configs import LLAMA
from yarncli.config.reading import read_rope
from yarncli.errors import UnsupportedArchitectureError
from yarncli.jsontext.text import JsonText
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.planning.writing import write_rope

QWEN3 = """{
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "rope_scaling": null,
    "rope_theta": 1000000,
    "vocab_size": 151936
}"""
QWEN35 = {
    "model_type": "qwen3_5_text",
    "max_position_embeddings": 262144,
    "num_hidden_layers": 4,
    "head_dim": 256,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [11, 11, 10],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000000,
        "rope_type": "default",
    },
}
LAGUNA = {
    "model_type": "laguna",
    "max_position_embeddings": 131072,
    "num_hidden_layers": 2,
    "layer_types": ["full_attention", "sliding_attention"],
    "sliding_window": 512,
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 500000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    },
}


def written(config, spelling="both", **target):
    text = JsonText.parse(config if isinstance(config, str) else json.dumps(config), "config.json")
    rope = read_rope(text.value)
    return write_rope(text, rope, make_plan(rope, Target(**target)), spelling)


def test_both_spellings_say_the_same_and_nothing_else_moves():
    assert written(QWEN3, length=131072).text == (
        """{
    "head_dim": 128,
    "max_position_embeddings": 131072,
    "model_type": "qwen3",
    "num_hidden_layers": 2,
    "rope_parameters": {
        "rope_type": "yarn",
        "type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768,
        "rope_theta": 1000000
    },
    "rope_scaling": {
        "rope_type": "yarn",
        "type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32768
    },
    "rope_theta": 1000000,
    "vocab_size": 151936
}"""
    )


def test_what_only_rope_parameters_held_goes_into_the_legacy_dict_too():
    found = written(QWEN35, factor=2.0).value
    carried = {"mrope_interleaved": True, "mrope_section": [11, 11, 10]}
    assert carried.items() <= found["rope_scaling"].items()
    assert found["rope_scaling"]["partial_rotary_factor"] == 0.25
    assert found["partial_rotary_factor"] == 0.25
    assert found["rope_theta"] == 10000000
    same = {k: v for k, v in found["rope_parameters"].items() if k != "rope_theta"}
    assert same == found["rope_scaling"]


def test_families_that_a_flat_dict_breaks_are_written_nested_only():
    found = written(LAGUNA, factor=2.0).value
    assert "rope_scaling" not in found
    assert found["rope_parameters"]["sliding_attention"] == {
        "rope_type": "default",
        "rope_theta": 10000.0,
    }
    assert found["rope_parameters"]["full_attention"]["factor"] == 2.0
    with pytest.raises(UnsupportedArchitectureError, match="flat rope_scaling"):
        written(LAGUNA, "legacy", factor=2.0)


@pytest.mark.parametrize("method", ["yarn", "ntk"])
def test_one_spelling_only(method):
    legacy = written({**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
                     "legacy", method=method, factor=2.0).value  # fmt: skip
    assert "rope_parameters" not in legacy
    v5 = written(LLAMA, "v5", method=method, factor=2.0).value
    assert "rope_scaling" not in v5
    assert "rope_theta" not in v5
    assert v5["rope_parameters"]["rope_theta"] == legacy["rope_theta"]


def test_llama3_is_written_without_type():
    found = written(LLAMA, method="llama3", factor=4.0).value["rope_scaling"]
    assert found == {
        "rope_type": "llama3",
        "factor": 4.0,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
    }


def test_linear_has_no_original_length_since_sglang_would_stop_multiplying():
    found = written(LLAMA, method="linear", factor=4.0).value
    assert found["rope_scaling"] == {"rope_type": "linear", "type": "linear", "factor": 4.0}
    assert found["max_position_embeddings"] == 8192


def test_mrope_keeps_its_name_when_only_the_base_changes():
    config = {**LLAMA, "model_type": "qwen2_5_vl_text",
              "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}  # fmt: skip
    found = written(config, method="ntk", factor=2.0).value
    assert found["rope_scaling"] == {"type": "mrope", "mrope_section": [16, 24, 24]}


def test_copies_at_the_root_of_a_multimodal_config_follow():
    text = {**LLAMA, "model_type": "qwen2_5_vl_text"}
    config = {"model_type": "qwen2_5_vl", "text_config": text, "rope_theta": 500000.0,
              "max_position_embeddings": 8192}  # fmt: skip
    found = written(config, factor=2.0).value
    assert found["max_position_embeddings"] == found["text_config"]["max_position_embeddings"]
    assert "rope_scaling" not in found


def test_families_that_read_head_dim_from_the_config_get_one():
    config = {**LLAMA, "model_type": "mistral", "sliding_window": None}
    assert written(config, factor=2.0).value["head_dim"] == 128  # 4096 / 32, by default
    assert "head_dim" not in written(LLAMA, factor=2.0).value


GPT_OSS_YARN = {"rope_type": "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}


@pytest.mark.parametrize("block", [{**GPT_OSS_YARN, "beta_fast": 32.0, "beta_slow": 1.0}, None])
def test_betas_that_a_reader_takes_by_index_stay(block):
    """vLLM's gpt_oss.py indexes beta_fast and beta_slow; a new setting states them too.

    Without a block the class's own default has them, so its readers may count on them as well.
    """
    config = {"model_type": "gpt_oss", "num_hidden_layers": 2, "max_position_embeddings": 131072}
    text = JsonText.parse(
        json.dumps({**config, **({"rope_scaling": block} if block else {})}), "config.json"
    )
    rope = read_rope(text.value, original_length=4096)
    found = write_rope(
        text, rope, make_plan(rope, Target(length=65536, replace_scaling=True))
    ).value
    for key in ("rope_scaling", "rope_parameters"):
        assert (found[key]["beta_fast"], found[key]["beta_slow"]) == (32.0, 1.0)


def test_betas_are_not_stated_where_nobody_did():
    assert "beta_fast" not in written(QWEN3, length=131072).value["rope_scaling"]
