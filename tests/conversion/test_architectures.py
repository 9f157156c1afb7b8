"""Converted checkpoints as transformers loads them: its buffers against our plan."""

import json

import pytest

from support import architectures
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import read_rope
from yarncli.conversion.convert import convert
from yarncli.errors import UnsupportedArchitectureError
from yarncli.rope.methods import METHODS

FAST = [
    "arcee", "bamba", "cohere", "deepseek_v3", "dots1", "ernie4_5", "exaone4", "falcon", "gemma",
    "gemma2", "gemma3_text", "glm4", "gpt_neox", "gpt_oss", "granite", "laguna", "lfm2", "llama",
    "minimax_m2", "mistral", "mixtral", "modernbert-decoder", "olmo2", "olmo3", "persimmon", "phi",
    "phi3", "qwen2", "qwen2_5_vl_text", "qwen3", "qwen3_moe", "qwen3_next", "smollm3", "stablelm",
    "starcoder2",
]  # fmt: skip
# Types of remote code are left out: nothing here can load them.
TEXT = sorted(
    name for name, family in FAMILIES.items() if not (family.is_wrapper or family.same_as)
)
# These deal the frequencies out to the axes of M-RoPE in another order.
REORDERED = {"ernie4_5_vl_moe_text"}


def both_kinds(model_type):
    """Layers of every scope, also where the default pattern is longer than a tiny model."""
    if model_type == "cohere_compass_text":  # transformers has no default for its sliding layers
        plain = {"rope_type": "default", "rope_theta": 10000.0}
        kinds = ("full_attention", "sliding_attention")
        return {"layer_types": [*kinds] * 2, "rope_parameters": dict.fromkeys(kinds, plain)}
    names = [rule.name for rule in FAMILIES[model_type].scopes]
    if sorted(names) == ["full_attention", "sliding_attention"]:
        return {"layer_types": ["sliding_attention", "full_attention"] * 2}
    return {}


def checkpoints(model_type, directory):
    """The same tiny model with its config in both spellings, as `(spelling, directory)`."""
    config = architectures.build_config(
        architectures.tiny_fields(model_type, **both_kinds(model_type))
    )
    model = architectures.build_model(config)
    v5 = directory / "v5"
    model.save_pretrained(v5)
    saved = json.loads((v5 / "config.json").read_text())
    yield "v5", v5
    rope = saved.get("rope_parameters") or {}
    if not rope or any(isinstance(value, dict) for value in rope.values()):
        return
    legacy = directory / "legacy"
    legacy.mkdir()
    (legacy / "model.safetensors").hardlink_to(v5 / "model.safetensors")
    del saved["rope_parameters"]
    theta_key, partial_key = (
        FAMILIES[model_type].theta_keys[0],
        FAMILIES[model_type].partial_keys[0],
    )
    saved[theta_key] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        saved[partial_key] = rope.pop("partial_rotary_factor")
    if rope != {"rope_type": "default"}:
        saved["rope_scaling"] = rope
    (legacy / "config.json").write_text(json.dumps(saved, indent=2))
    yield "legacy", legacy


def options_for(method, rope):
    if method != "longrope":
        return {}
    pairs = next(iter(rope.scopes.values())).parameters.rotary_dim // 2
    return {
        "short_factor": [1.0 + i / 9 for i in range(pairs)],
        "long_factor": [2.0 + i for i in range(pairs)],
    }


@pytest.mark.parametrize("model_type", architectures.parameters(TEXT, FAST))
def test_transformers_computes_what_was_planned(model_type, tmp_path):
    done = refused = 0
    for spelling, source in checkpoints(model_type, tmp_path):
        rope = read_rope(json.loads((source / "config.json").read_text()))
        for method in METHODS:
            scaled = any(s.parameters.rope_type != "default" for s in rope.scopes.values())
            out = tmp_path / f"{spelling}-{method}"
            try:
                conversion = convert(
                    source,
                    out,
                    method=method,
                    factor=4.0,
                    replace_scaling=scaled,
                    original_length=64 if scaled else None,
                    weights="symlink",
                    **options_for(method, rope),
                )
            except UnsupportedArchitectureError:
                refused += 1
                continue
            check(out, conversion)
            done += 1
    assert done + refused >= len(METHODS)


def check(out, conversion):
    config_type = architectures.config_class(conversion.rope.model_type)
    config = config_type.from_pretrained(out)
    model = architectures.backbone_class(config_type).from_pretrained(
        out, config=config, attn_implementation="eager"
    )
    planned = {scope.name: scope.after for scope in conversion.plan.scopes}
    for name, scope in conversion.rope.scopes.items():
        if not scope.layers:
            continue
        wanted = planned.get(name, scope.parameters)
        buffers = architectures.rotary_buffers(model, name)
        assert buffers, name
        for inv_freq, scaling in buffers:
            found, expected = inv_freq.tolist(), wanted.inv_freq()
            if conversion.rope.model_type in REORDERED:
                found, expected = sorted(found), sorted(expected)
            assert found == pytest.approx(expected, rel=1e-6, abs=1e-12)
            assert scaling == pytest.approx(wanted.effective_attention_factor(), rel=1e-6)
    assert config.max_position_embeddings == conversion.plan.max_position_embeddings
