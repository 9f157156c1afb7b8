"""Keys beside the RoPE setting: each known one is listed, and what nobody examined is said."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from support import configs
from yarncli.config.attention_keys import find_keys, unjudged_keys
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import read_rope
from yarncli.errors import UnsupportedArchitectureError
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target

LLAMA = {**configs.LLAMA, "max_position_embeddings": 8192}


def _names(config: dict[str, Any]) -> dict[str, bool]:
    text = read_rope(config)
    return {".".join(key.path): key.judged for key in text.attention_keys}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_logn_attn", True),
        ("use_dynamic_ntk", True),
        ("rope_ratio", 50),
        ("alibi", True),
        ("position_embedding_type", "mistral_yarn"),
        ("no_rope_layers", [1, 0, 1, 1]),
        ("rotary_pct", 0.25),
        ("rope_interleaved", True),
        ("swa_rope_theta", 50000.0),
        ("rope_local_base_freq", 50000.0),
        ("attn_temperature_tuning", True),
        ("sliding_window", 4096),
        ("use_rotary_pos_emb", False),
        ("llama_4_scaling", {"beta": 0.1}),
    ],
)
def test_a_key_that_llama_does_not_have_is_shown_and_refused(key: str, value: Any) -> None:
    config = {**LLAMA, key: value}
    assert _names(config) == {key: False}
    with pytest.raises(UnsupportedArchitectureError, match=key):
        make_plan(read_rope(config), Target(factor=4))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("use_logn_attn", False),
        ("rope_ratio", 1),
        ("rotary_pct", 1.0),
        ("position_embedding_type", "rope"),
        ("use_rotary_pos_emb", True),
        ("no_rope_layers", None),
        ("swa_rope_theta", 10000.0),  # the θ that it has anyway
        ("query_pre_attn_scalar", 256),  # a constant, whatever the position
        (
            "attn_scale",
            0.1,
        ),
    ],
)
def test_a_key_that_says_nothing_is_passed_over(key: str, value: Any) -> None:
    off = {"attn_temperature_tuning": False} if key == "attn_scale" else {}
    assert _names({**LLAMA, **off, key: value}) == {}


def test_a_name_that_nobody_listed_is_noted_and_leaves_engines_in_the_dark() -> None:
    config = {**LLAMA, "ntk_mystery": 3}
    rope = read_rope(config)
    assert [key.path for key in unjudged_keys(config, rope.family)] == [("ntk_mystery",)]
    assert any("ntk_mystery (3)" in note for note in make_plan(rope, Target(factor=4)).notes)


def test_what_a_family_reads_is_judged() -> None:
    assert _names({"model_type": "smollm3", "no_rope_layers": [1, 1, 1, 0] * 9}) == {
        "no_rope_layers": True
    }
    assert _names({"model_type": "falcon", "alibi": False}) == {}
    assert _names({"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 2e4}) == {}
    assert _names({"model_type": "mistral", "sliding_window": 4096}) == {}
    block = {"rope_type": "yarn", "factor": 16.0, "llama_4_scaling_beta": 0.1}
    block |= {"original_max_position_embeddings": 16384, "rope_theta": 1e6}
    config = {"model_type": "ministral3", "rope_parameters": block}
    assert _names(config) == {"rope_parameters.llama_4_scaling_beta": True}


def test_position_dependent_scaling_is_told_by_a_plan() -> None:
    block = {"rope_type": "yarn", "factor": 16.0, "llama_4_scaling_beta": 0.1, "rope_theta": 1e6}
    block |= {"original_max_position_embeddings": 16384}
    config = {"model_type": "ministral3", "rope_parameters": block}
    plan = make_plan(read_rope(config), Target(factor=2, rescale=True))
    assert any("llama_4_scaling_beta (0.1)" in note for note in plan.notes)


def test_dual_chunk_attention_is_refused_with_the_way_out() -> None:
    config = {**LLAMA, "model_type": "qwen2", "dual_chunk_attention_config": {"chunk_size": 8}}
    with pytest.raises(UnsupportedArchitectureError, match="yarncli check SOURCE --fix"):
        make_plan(read_rope(config), Target(factor=4))


def test_no_config_class_of_a_text_model_has_a_key_that_was_forgotten() -> None:
    pytest.importorskip("transformers")
    from transformers import PreTrainedConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    missed = {}
    for name, family in FAMILIES.items():
        if family.is_wrapper or name not in CONFIG_MAPPING:
            continue
        fields = {field.name for field in dataclasses.fields(CONFIG_MAPPING[name])} - common
        # Any number would do: a key that is not passed over must be one that was examined.
        found = unjudged_keys(dict.fromkeys(sorted(fields), 7), family)
        if found:
            missed[name] = [key.path[0] for key in found]
    # Only its talker's layers read the window that its class has.
    assert missed == {"qwen3_omni_moe_text": ["sliding_window"]}


def test_names_of_lengths_are_no_keys_of_attention() -> None:
    lengths = {"max_position_embeddings": 8, "rope_theta": 1e6, "n_positions": 8, "europe": 1}
    assert find_keys(lengths, None) == ()
