"""`read_rope` against what transformers builds from the same `config.json`."""

import copy
import json
from typing import Any

import pytest

from support import architectures
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import RopeConfig, read_rope

FAST = (
    "llama qwen2 qwen3 qwen3_moe mistral mixtral gemma2 gemma3_text olmo3 phi gpt_neox gpt_oss "
    "deepseek_v3 ministral3 cohere exaone4 smollm3 falcon dbrx glm4 qwen3_5_text stablelm "
    "modernbert-decoder laguna lfm2 qwen2_5_vl_text minimax_m2 granitemoehybrid olmo2 nemotron"
).split()
TEXT = [name for name, f in FAMILIES.items() if not (f.is_wrapper or f.same_as)]
ARCHITECTURES = architectures.parameters(TEXT, FAST)
KINDS = ("default", "linear", "dynamic", "yarn", "llama3", "longrope")
WINDOW = 16
PAST = 96  # tokens, beyond the 64 of every tiny model


def block_of(kind: str, pairs: int) -> dict[str, Any]:
    """A scaling dict of every type, with no value at its default."""
    blocks: dict[str, dict[str, Any]] = {
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
    }
    return blocks[kind]


def sample(model_type: str, kind: str, spelling: str) -> dict[str, Any] | None:
    """A tiny `config.json` with one scaling; `None` where the spelling does not exist."""
    fields = architectures.tiny_fields(model_type)
    plain = with_defaults(model_type, fields)
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
    if model_type == "mistral4":
        block["partial_rotary_factor"] = p.partial_rotary_factor
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


def with_defaults(model_type: str, fields: dict[str, Any]) -> dict[str, Any]:
    """The same file with the nested RoPE defaults of transformers written out."""
    if not FAMILIES[model_type].scopes:
        return fields
    if model_type == "cohere_compass_text":
        entry = {"rope_type": "default", "rope_theta": 10000.0}
        return {**fields, "rope_parameters": {"full_attention": entry}}
    blocks = architectures.build_config(fields).rope_parameters
    return {**fields, "rope_parameters": json.loads(json.dumps(blocks))}


def plain_sample(model_type: str) -> dict[str, Any]:
    """A tiny `config.json` that transformers runs, with no scaling that its class does not add."""
    kind = "yarn" if refused(model_type, "default") else "default"
    fields = sample(model_type, kind, "v5")
    tiny = architectures.tiny_fields(model_type)
    return fields or with_defaults(model_type, tiny)


def refused(model_type: str, kind: str) -> str | None:
    """Our reason to refuse; a plain type with another θ is what the method ntk writes."""
    return FAMILIES[model_type].refuses.get("ntk" if kind == "default" else kind)


def assert_same_buffers(model: Any, rope: RopeConfig, length: int | None = None) -> None:
    for name, scope in rope.scopes.items():
        if not scope.layers:
            continue
        buffers = architectures.rotary_buffers(model, name)
        assert buffers, f"no rotary module for {name}"
        expected = scope.parameters.inv_freq(length)
        if rope.model_type == "ernie4_5_vl_moe_text":
            expected = architectures.ernie_vl_order(expected)
        same = [inv_freq.tolist() == pytest.approx(expected, rel=1e-6) for inv_freq, _ in buffers]
        # Long texts reach only the modules that the forward pass uses with all positions.
        assert any(same) if length else all(same), (buffers[0][0].tolist(), expected)
        for _, attention_scaling in buffers:
            assert attention_scaling == pytest.approx(
                scope.parameters.effective_attention_factor(), rel=1e-6
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_buffers_are_those_of_the_model_transformers_builds(model_type: str, kind: str) -> None:
    import torch

    if refused(model_type, kind):
        pytest.skip("refused; see test_refusals")
    tried = 0
    for spelling in ("v5", "legacy"):
        fields = sample(model_type, kind, spelling)
        if fields is None:
            continue
        tried += 1
        rope = read_rope(json.loads(json.dumps(fields)))
        assert rope.spelling_found == spelling
        with torch.no_grad():
            model = architectures.build_model(architectures.build_config(fields))
            assert_same_buffers(model, rope)
            if model_type in architectures.NO_FORWARD:
                continue
            length = PAST if kind in ("dynamic", "longrope") else 8
            model(**architectures.forward_inputs(model_type, length))
            assert_same_buffers(model, rope, length)
    assert tried or FAMILIES[model_type].scopes


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_layers_of_a_scope_are_those_that_rotate_with_it(model_type: str) -> None:
    """Change one scope's frequencies: with the same inputs, exactly its layers answer otherwise."""
    if model_type in architectures.NO_FORWARD | architectures.NO_BUFFER:
        pytest.skip("takes more than token ids, or computes its frequencies in every pass")
    fields = plain_sample(model_type)
    rope = read_rope(fields)
    model = architectures.build_model(architectures.build_config(fields))
    for name, scope in rope.scopes.items():
        changed = architectures.layers_that_follow(model, model_type, name)
        assert changed == sorted({i // architectures.attentions(model) for i in scope.layers}), name
    seen = {i for scope in rope.scopes.values() for i in scope.layers}
    assert not seen & set(rope.nope_layers)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_windowed_layers_do_not_see_past_their_window(model_type: str) -> None:
    """Change the first token of every layer's input: the last token notices unless windowed."""
    if model_type in architectures.NO_FORWARD | architectures.NO_WINDOW_TEST:
        pytest.skip("attends in blocks of its own")
    fields = plain_sample(model_type)
    rope = read_rope(fields)
    model = architectures.build_model(architectures.build_config(fields))
    blind = architectures.layers_blind_to_the_first_token(model, model_type, 48)
    attending = {i for scope in rope.scopes.values() for i in scope.layers} | set(rope.nope_layers)
    assert [i for i in blind if i in attending] == list(rope.windowed_layers)
    assert rope.sliding_window == (WINDOW if rope.windowed_layers else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", [n for n in TEXT if FAMILIES[n].refuses])
def test_what_is_refused_really_fails_or_is_ignored(model_type: str, kind: str) -> None:
    if not refused(model_type, kind):
        pytest.skip("not refused")
    if model_type == "dbrx":
        pytest.skip("engines disagree; transformers alone cannot show it")
    fields = sample(model_type, kind, "v5")
    assert fields is not None
    assert not runs_as_written(fields, model_type, kind)


def runs_as_written(fields: dict[str, Any], model_type: str, kind: str) -> bool:
    """Whether transformers loads the config, runs past its length, and scales as the block says."""
    import torch

    blocks = fields["rope_parameters"]
    nested = "rope_type" not in blocks
    label = (
        next(name for name, b in blocks.items() if b["rope_type"] == kind) if nested else "model"
    )
    block = blocks[label] if nested else blocks
    try:
        with torch.no_grad():
            model = architectures.build_model(architectures.build_config(fields))
            if model_type not in architectures.NO_FORWARD:
                model(**architectures.forward_inputs(model_type, PAST))
    except Exception:  # whatever transformers raises is the point here
        return False
    found = [inv_freq.tolist() for inv_freq, _ in architectures.rotary_buffers(model, label)]
    theta, pairs = block["rope_theta"], len(found[0])
    expected = [theta ** (-i / pairs) for i in range(pairs)]
    if kind == "longrope":
        expected = [f / k for f, k in zip(expected, block["long_factor"], strict=True)]
    same = all(inv_freq == pytest.approx(expected, rel=1e-6) for inv_freq in found)
    return same if kind in ("default", "longrope") else not same


YARN: dict[str, Any] = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
NESTED_YARN = {"rope_theta": 1e4, **YARN}
SU_FACTORS: dict[str, Any] = {
    "short_factor": [1.0 + i for i in range(8)],
    "long_factor": [2.0 + i for i in range(8)],
    "original_max_position_embeddings": 4096,
}
ODD_FILES: list[tuple[str, dict[str, Any]]] = [
    (
        "llama",
        {
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0},
            "original_max_position_embeddings": 32,
        },
    ),
    ("llama", {"rope_scaling": {**NESTED_YARN, "factor": None}}),
    ("llama", {"rope_scaling": {**NESTED_YARN, "truncate": False}, "rope_parameters": None}),
    ("llama", {"partial_rotary_factor": 0.5}),
    ("gpt_neox", {"rotary_pct": 0.5, "rotary_emb_base": 500}),
    ("minimax_m2", {"rotary_dim": 8}),
    ("phi3", {"rope_scaling": {"type": "su", **SU_FACTORS}}),
    ("phi3", {"rope_scaling": {"type": "yarn", **SU_FACTORS}}),
    ("qwen2_vl_text", {"rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}}),
    ("gemma3_text", {"rope_theta": 7e5, "rope_local_base_freq": 3e3}),
    ("gemma3_text", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 7e5}),
    ("gemma3_text", {"rope_parameters": {"sliding_attention": NESTED_YARN}}),
    ("olmo3", {"rope_theta": 1e4}),
    ("modernbert-decoder", {"rope_scaling": NESTED_YARN | {"rope_theta": 1.6e5}}),
    ("modernbert-decoder", {"global_rope_theta": 3e5, "local_rope_theta": 2e4}),
    ("gemma4_text", {}),
    ("gemma4_text", {"per_layer_config": {"3": {"head_dim": 64}}}),
    ("laguna", {"rope_parameters": {"full_attention": NESTED_YARN}}),
    (
        "laguna",
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 5e4}}},
    ),
    ("deepseek_v4", {"rope_scaling": YARN}),
    ("deepseek_v4", {"qk_rope_head_dim": 16, "compress_rope_theta": 4e4, "rope_theta": 2e4}),
    (
        "step3p5",
        {
            "rope_theta": [1e4, 1e4, 5e4, 5e4],
            "partial_rotary_factors": [1, 1, 0.5, 0.5],
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"] * 2,
        },
    ),
    ("ultrabert", {"rope_theta": [1e4, 1e4, 5e5, 2e4]}),
    ("dots3_note_text", {"swa_rope_theta": 3e3, "rope_theta": 4e4}),
]


@pytest.mark.parametrize(("model_type", "changes"), ODD_FILES)
def test_odd_files_are_read_as_transformers_reads_them(
    model_type: str, changes: dict[str, Any]
) -> None:
    fields = architectures.tiny_fields(model_type, **changes)
    rope = read_rope(json.loads(json.dumps(fields)))
    model = architectures.build_model(architectures.build_config(fields))
    assert_same_buffers(model, rope)


def test_phimoe_multiplies_by_its_own_mscale() -> None:
    import torch

    block = {
        "rope_type": "longrope",
        **SU_FACTORS,
        "short_mscale": 1.2,
        "long_mscale": 1.2,
    }
    fields = architectures.tiny_fields("phimoe", rope_scaling=block)
    model = architectures.build_model(architectures.build_config(fields))
    cos, _ = model.rotary_emb(torch.zeros(1, 1, 64), torch.tensor([[0]]))
    found = read_rope(fields).scopes["model"].parameters.effective_attention_factor()
    assert cos.flatten().tolist() == pytest.approx([found] * 16)
