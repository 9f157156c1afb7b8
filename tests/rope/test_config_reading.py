"""`read_rope` against what transformers builds from the same `config.json`."""

import copy
import json
from types import ModuleType
from typing import Any

import pytest

from yarncli.rope.config import RopeConfig, read_rope
from yarncli.rope.families import FAMILIES
from yarncli.rope.family_data import TEXT_ROWS

FAST = (
    "llama qwen2 qwen3 qwen3_moe mistral mixtral gemma2 gemma3_text olmo3 phi gpt_neox gpt_oss "
    "deepseek_v3 ministral3 cohere exaone4 smollm3 falcon dbrx glm4 qwen3_5_text stablelm "
    "modernbert-decoder laguna lfm2 qwen2_5_vl_text minimax_m2 granitemoehybrid olmo2 nemotron"
).split()
ARCHITECTURES = [
    pytest.param(name, marks=() if name in FAST else (pytest.mark.full,)) for name in TEXT_ROWS
]
KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
WINDOW = 16


def block_of(kind: str, pairs: int) -> dict[str, Any]:
    """A scaling dict of every type, with no value at its default."""
    return {
        "default": {"rope_type": "default"},
        "linear": {"rope_type": "linear", "factor": 3.0},
        "dynamic": {"rope_type": "dynamic", "factor": 2.0},
        "yarn": {
            "rope_type": "yarn",
            "factor": 4.0,
            "original_max_position_embeddings": 32,
            "beta_fast": 20.0,
            "beta_slow": 2.0,
            "mscale": 0.8,
            "mscale_all_dim": 0.5,
        },
        "llama3": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
        "longrope": {
            "rope_type": "longrope",
            "factor": 4.0,
            "short_factor": [1.0 + i / 10 for i in range(pairs)],
            "long_factor": [2.0 + i / 5 for i in range(pairs)],
            "original_max_position_embeddings": 32,
        },
    }[kind]


def sample(
    architectures: ModuleType, model_type: str, kind: str, spelling: str
) -> dict[str, Any] | None:
    """A tiny `config.json` with one scaling; `None` where the spelling does not exist."""
    fields = architectures.tiny_fields(model_type)
    plain = with_defaults(architectures, model_type, fields)
    rope = read_rope(plain)
    open_scopes = [name for name, scope in rope.scopes.items() if not scope.windowed]
    target = open_scopes[0] if open_scopes else next(iter(rope.scopes))
    p = rope.scopes[target].parameters
    if p.rope_type == "proportional":
        return None
    block = block_of(kind, p.rotary_dim // 2)
    family = FAMILIES[model_type]
    theta = 12345.0
    if model_type == "dbrx":
        fields["attn_config"] = {**fields["attn_config"], "rope_theta": theta}
    if model_type in ("ministral3", "mistral4"):
        block["llama_4_scaling_beta"] = 0.1
    if model_type in ("cosmos3_edge_text", "hunyuan_vl_text"):
        pairs = p.rotary_dim // 2
        block["mrope_section"] = [pairs - 2 * (pairs // 3), pairs // 3, pairs // 3]
    if spelling == "legacy":
        if family.spelling == "nested":
            return None
        rules = [rule for rule in family.scopes if rule.name == target]
        key = (rules[0].theta_keys if rules else family.theta_keys)[0]
        return {**fields, "rope_scaling": block, key: theta}
    block = {**block, "rope_theta": theta}
    if p.partial_rotary_factor != 1.0:
        block["partial_rotary_factor"] = p.partial_rotary_factor
    if not family.scopes:
        return {**fields, "rope_parameters": block}
    blocks = copy.deepcopy(plain["rope_parameters"])
    blocks[target] = block
    return {**fields, "rope_parameters": blocks}


def with_defaults(
    architectures: ModuleType, model_type: str, fields: dict[str, Any]
) -> dict[str, Any]:
    """The same file with the nested RoPE defaults of transformers written out."""
    if not FAMILIES[model_type].scopes:
        return fields
    if model_type == "cohere_compass_text":
        entry = {"rope_type": "default", "rope_theta": 10000.0}
        return {**fields, "rope_parameters": {"full_attention": entry}}
    blocks = architectures.build_config(fields).rope_parameters
    return {**fields, "rope_parameters": json.loads(json.dumps(blocks))}


def refused(model_type: str, kind: str) -> str | None:
    """Our reason to refuse; a plain type with another θ is what the method ntk writes."""
    return FAMILIES[model_type].refuses.get("ntk" if kind == "default" else kind)


def assert_same_buffers(architectures: ModuleType, model: Any, rope: RopeConfig) -> None:
    for name, scope in rope.scopes.items():
        if not scope.layers:
            continue
        buffers = architectures.rotary_buffers(model, name)
        assert buffers, f"no rotary module for {name}"
        expected = scope.parameters.inv_freq()
        if rope.model_type == "ernie4_5_vl_moe_text":
            expected = architectures.ernie_vl_order(expected)
        for inv_freq, attention_scaling in buffers:
            assert inv_freq.tolist() == pytest.approx(expected, rel=1e-6)
            assert attention_scaling == pytest.approx(
                scope.parameters.effective_attention_factor(), rel=1e-6
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_buffers_are_those_of_the_model_transformers_builds(
    architectures: ModuleType, model_type: str, kind: str
) -> None:
    import torch

    if refused(model_type, kind):
        pytest.skip("refused; see test_refusals")
    tried = 0
    for spelling in ("v5", "legacy"):
        fields = sample(architectures, model_type, kind, spelling)
        if fields is None:
            continue
        tried += 1
        rope = read_rope(json.loads(json.dumps(fields)))
        assert rope.spelling_found == spelling
        with torch.no_grad():
            model = architectures.build_model(architectures.build_config(fields))
            assert_same_buffers(architectures, model, rope)
            if model_type not in architectures.NO_FORWARD:
                model(**architectures.forward_inputs(model_type, 8))
    assert tried or FAMILIES[model_type].scopes
