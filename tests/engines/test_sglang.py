"""SGLang: which class serves a model, what an override leaves behind, and odd settings."""

from __future__ import annotations

import json
import math
import shlex

import pytest

from yarncli.engines.judgement import judge
from yarncli.engines.loaders import read_model
from yarncli.engines.rules.sglang import read

SIZES = {
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "num_hidden_layers": 4,
    "max_position_embeddings": 65536,
    "rope_theta": 500000.0,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16384}


def config(model_type, architecture, **keys):
    return {"model_type": model_type, "architectures": [architecture], **SIZES, **keys}


def verdict(*args, **keys):
    return judge(config(*args, **keys), engines=["sglang"]).verdicts[0]


@pytest.mark.parametrize(
    ("model_type", "architecture", "status"),
    [
        ("llama", "LlamaForCausalLM", "exact"),
        ("llama", "LlamaForSequenceClassification", "exact"),
        # Its own config class renames this one, which its registry does not have.
        ("olmo3", "Olmo3ForCausalLM", "exact"),
        # Left to the transformers backend.
        ("smollm3", "SmolLM3ForCausalLM", "exact"),
        # transformers says that this one is not ready for such a backend.
        ("falcon", "FalconForCausalLM", "unsupported"),
        ("llama", "SomebodysForCausalLM", "unsupported"),
        # Both are there, but nobody built the one with the config of the other.
        ("llama", "Gemma2ForCausalLM", "unknown"),
        ("mixtral", "MixtralForCausalLM", "ignores"),
        ("gemma2", "Gemma2ForCausalLM", "ignores"),
        ("exaone4", "Exaone4ForCausalLM", "differs"),
    ],
)
def test_the_class_that_the_config_names_decides(model_type, architecture, status):
    assert verdict(model_type, architecture, rope_scaling=YARN).status == status


def test_a_list_of_classes_is_served_by_the_first_that_it_has():
    named = {"architectures": ["SomebodysForCausalLM", "LlamaForCausalLM"], "rope_scaling": YARN}
    assert verdict("llama", "", **named).status == "exact"


def test_the_transformers_backend_is_named():
    found = verdict("smollm3", "SmolLM3ForCausalLM", rope_scaling=YARN)
    assert any("transformers" in note for note in found.notes)


def test_an_override_is_merged_into_the_dict_of_the_file():
    # `attn_factor` stays unless the override names it (config.py:405-423).
    found = verdict("llama", "LlamaForCausalLM", rope_scaling={**YARN, "attn_factor": 1.25})
    assert found.status == "differs"
    words = shlex.split(found.launch)
    block = json.loads(words[words.index("--json-model-override-args") + 1])["rope_parameters"]
    assert found.launch_is_exact
    assert block["attn_factor"] == 1.0


def test_a_key_that_an_override_cannot_remove_leaves_no_line():
    found = verdict("llama", "LlamaForCausalLM", rope_scaling={**YARN, "extrapolation_factor": 0.5})
    assert found.status == "differs"
    assert not found.launch_is_exact


def test_extrapolation_factor_keeps_that_share_of_the_unscaled_part():
    keys = {"rope_scaling": {**YARN, "extrapolation_factor": 0.5}}
    model = read_model(config("llama", "LlamaForCausalLM", **keys))
    found = read(model).scopes["model"].parameters.inv_freq(65536)
    # Pair 0 is not scaled by YaRN: half of it and half of a quarter.
    assert math.isclose(found[0], 0.5 * 1.0 + 0.5 * 0.25, rel_tol=1e-9)
    assert math.isclose(found[-1], 500000.0 ** (-62 / 64) / 4, rel_tol=1e-9)


@pytest.mark.parametrize("spelling", ["rope_parameters", "both"])
def test_qwen3_next_starts_with_the_older_spelling_only(spelling):
    block = {**YARN, "rope_theta": 500000.0, "partial_rotary_factor": 0.25}
    keys = {"rope_parameters": block}
    if spelling == "both":
        keys["rope_scaling"] = YARN
    assert verdict("qwen3_next", "Qwen3NextForCausalLM", **keys).status == "crashes"
    older = {"rope_scaling": YARN, "partial_rotary_factor": 0.25}
    assert verdict("qwen3_next", "Qwen3NextForCausalLM", **older).status == "exact"


def test_dual_chunk_attention_does_not_start():
    keys = {"dual_chunk_attention_config": {"chunk_size": 262144, "local_size": 8192}}
    assert verdict("qwen2", "Qwen2ForCausalLM", **keys).status == "crashes"
