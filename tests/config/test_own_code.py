"""Types with their own code, and levels of a config: what is read, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from support import configs
from yarncli.config.reading import read_rope
from yarncli.engines.judgement import judge
from yarncli.errors import CheckpointError, UnknownArchitectureError, UsageError
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target

LLAMA = {**configs.LLAMA, "num_hidden_layers": 2, "max_position_embeddings": 16384}
AUTO_MAP = {"AutoConfig": "configuration.Config", "AutoModelForCausalLM": "modeling.Model"}
CHATGLM = {
    "model_type": "chatglm",
    "hidden_size": 4096,
    "kv_channels": 128,
    "multi_query_group_num": 2,
    "num_attention_heads": 32,
    "num_layers": 28,
    "rope_ratio": 50,
    "seq_length": 32768,
}
QWEN = {
    "model_type": "qwen",
    "hidden_size": 4096,
    "kv_channels": 128,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rotary_emb_base": 20000,
    "rotary_pct": 1.0,
    "seq_length": 8192,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
}
INTERNLM2 = {**LLAMA, "model_type": "internlm2", "rope_theta": 1e6}
INTERNVL = {
    "model_type": "internvl_chat",
    "llm_config": {**INTERNLM2, "rope_scaling": {"factor": 2.0, "type": "dynamic"}},
    "vision_config": {"model_type": "intern_vit_6b", "hidden_size": 1024, "num_hidden_layers": 24},
}


def test_chatglm_is_read_as_vllm_and_sglang_read_it() -> None:
    """vLLM 0.33 chatglm.py 98-113: 10000 × rope_ratio, half a head, seq_length."""
    rope = read_rope(CHATGLM, own_code=True)
    p = rope.scopes["model"].parameters
    assert (p.rope_theta, p.rotary_dim, p.head_dim) == (500000.0, 64, 128)
    assert (rope.original_length, rope.original_source) == (32768, "seq_length")
    assert (rope.num_hidden_layers, rope.num_key_value_heads) == (28, 2)


def test_qwen_1_is_read_by_its_own_names_and_its_other_keys_are_told() -> None:
    rope = read_rope(QWEN, own_code=True)
    assert rope.scopes["model"].parameters.rope_theta == 20000.0
    assert rope.original_length == 8192
    keys = {key.path[0]: key.judged for key in rope.attention_keys}
    assert keys == {"use_dynamic_ntk": False, "use_logn_attn": False}


@pytest.mark.parametrize("config", [CHATGLM, QWEN, INTERNLM2, INTERNVL])
def test_own_code_is_shown_but_neither_extended_nor_judged(config: dict[str, Any]) -> None:
    assert read_rope(config, own_code=True).own_code
    with pytest.raises(UnknownArchitectureError, match="runs its own code"):
        read_rope(config)
    assert judge(config, engines=["transformers-5"]).verdicts[0].status == "unsupported"
    found = judge({**config, "auto_map": AUTO_MAP})
    # Who has no code for the type lacks it for certain; about all others nothing is known.
    assert {view.status for view in found.verdicts} == {"unknown", "unsupported"}
    assert found.verdicts[0].status == "unknown"
    assert {view.served_length for view in found.verdicts} == {None}


@pytest.mark.parametrize("config", [CHATGLM, QWEN])
def test_what_nobody_would_read_is_not_written(config: dict[str, Any]) -> None:
    with pytest.raises((UnknownArchitectureError, UsageError)):
        read_rope(config, assume_like="llama")


def test_no_theta_is_invented() -> None:
    config = {**LLAMA, "model_type": "mimo"}
    del config["rope_theta"]
    with pytest.raises(UnknownArchitectureError, match="rope_theta"):
        read_rope(config, own_code=True)


def test_the_larger_baichuan_has_no_rope() -> None:
    config = {**LLAMA, "model_type": "baichuan", "hidden_size": 5120}
    with pytest.raises(UnknownArchitectureError, match="ALiBi"):
        read_rope(config, own_code=True)


def test_a_text_part_is_found_by_its_name() -> None:
    rope = read_rope(INTERNVL, own_code=True)
    assert rope.text_path == ("llm_config",)
    assert rope.scopes["model"].parameters.rope_type == "dynamic"
    inner = {"model_type": "some_vl", "thinker_config": {"text_config": LLAMA}}
    assert read_rope(inner, own_code=True).text_path == ("thinker_config", "text_config")


def test_assume_like_takes_the_level_that_has_sizes() -> None:
    rope = read_rope(INTERNVL, assume_like="llama")
    assert rope.text_path == ("llm_config",)
    with pytest.raises(CheckpointError, match="--assume-like llama --rescale"):
        make_plan(rope, Target(length=262144))


@pytest.mark.parametrize(
    ("config", "part"),
    [
        ({"model_type": "x", "vision_config": LLAMA}, "num_hidden_layers"),
        ({"model_type": "x", "llm_config": {"model_type": "y"}}, "looked in llm_config"),
        ({"model_type": "x", "llm_config": LLAMA, "language_config": LLAMA}, "which is meant"),
        (
            {"model_type": "x", **{k: v for k, v in LLAMA.items() if "position" not in k}},
            "--original-length",
        ),
    ],
)
def test_assume_like_invents_neither_layers_nor_a_window(config: dict[str, Any], part: str) -> None:
    with pytest.raises(UsageError, match=part):
        read_rope({**config, "model_type": "x"}, assume_like="llama")


def test_a_window_that_is_given_stands_for_one_that_is_missing() -> None:
    config = {k: v for k, v in LLAMA.items() if "position" not in k} | {"model_type": "x"}
    rope = read_rope(config, assume_like="llama", original_length=8192)
    assert rope.max_position_embeddings == rope.original_length == 8192


def test_an_alias_of_a_text_part_is_read_as_its_wrapper_reads_it() -> None:
    """transformers 5.23 configuration_exaone4_5.py 80-81."""
    config = {"model_type": "exaone4_5", "text_config": {**LLAMA, "model_type": "exaone4_5_text"}}
    assert read_rope(config).model_type == "exaone4"
