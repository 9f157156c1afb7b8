"""`read_rope` against what transformers builds from the same `config.json`."""

import contextlib
import copy
import json
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarncli.errors import ConfigError, UnsupportedArchitectureError, UsageError
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


def plain_sample(architectures: ModuleType, model_type: str) -> dict[str, Any]:
    """A tiny `config.json` that transformers runs, with no scaling that its class does not add."""
    kind = "yarn" if refused(model_type, "default") else "default"
    fields = sample(architectures, model_type, kind, "v5")
    tiny = architectures.tiny_fields(model_type)
    return fields or with_defaults(architectures, model_type, tiny)


def refused(model_type: str, kind: str) -> str | None:
    """Our reason to refuse; a plain type with another θ is what the method ntk writes."""
    return FAMILIES[model_type].refuses.get("ntk" if kind == "default" else kind)


def assert_same_buffers(
    architectures: ModuleType, model: Any, rope: RopeConfig, length: int | None = None
) -> None:
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
            if model_type in architectures.NO_FORWARD:
                continue
            length = PAST if kind in ("dynamic", "longrope") else 8
            model(**architectures.forward_inputs(model_type, length))
            assert_same_buffers(architectures, model, rope, length)
    assert tried or FAMILIES[model_type].scopes


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_the_layers_of_a_scope_are_those_that_rotate_with_it(
    architectures: ModuleType, model_type: str
) -> None:
    """Change one scope's frequencies: with the same inputs, exactly its layers answer otherwise."""
    if model_type in architectures.NO_FORWARD | architectures.NO_BUFFER:
        pytest.skip("takes more than token ids, or computes its frequencies in every pass")
    fields = plain_sample(architectures, model_type)
    rope = read_rope(fields)
    model = architectures.build_model(architectures.build_config(fields))
    for name, scope in rope.scopes.items():
        changed = architectures.layers_that_follow(model, model_type, name)
        assert changed == sorted({i // architectures.attentions(model) for i in scope.layers}), name
    seen = {i for scope in rope.scopes.values() for i in scope.layers}
    assert not seen & set(rope.nope_layers)


@pytest.mark.parametrize("model_type", ARCHITECTURES)
def test_windowed_layers_do_not_see_past_their_window(
    architectures: ModuleType, model_type: str
) -> None:
    """Change the first token of every layer's input: the last token notices unless windowed."""
    if model_type in architectures.NO_FORWARD | architectures.NO_WINDOW_TEST:
        pytest.skip("attends in blocks of its own")
    fields = plain_sample(architectures, model_type)
    rope = read_rope(fields)
    model = architectures.build_model(architectures.build_config(fields))
    blind = architectures.layers_blind_to_the_first_token(model, model_type, 48)
    attending = {i for scope in rope.scopes.values() for i in scope.layers} | set(rope.nope_layers)
    assert [i for i in blind if i in attending] == list(rope.windowed_layers)
    assert rope.sliding_window == (WINDOW if rope.windowed_layers else None)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("model_type", [n for n in TEXT_ROWS if FAMILIES[n].refuses])
def test_what_is_refused_really_fails_or_is_ignored(
    architectures: ModuleType, model_type: str, kind: str
) -> None:
    if not refused(model_type, kind):
        pytest.skip("not refused")
    if model_type == "dbrx":
        pytest.skip("engines disagree; transformers alone cannot show it")
    fields = sample(architectures, model_type, kind, "v5")
    assert fields is not None
    assert not runs_as_written(architectures, fields, model_type, kind)


def runs_as_written(
    architectures: ModuleType, fields: dict[str, Any], model_type: str, kind: str
) -> bool:
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
        ({**LLAMA, "rope_theta": 10**5000}, ("rope_theta", "very large")),
        ({**LLAMA, "max_position_embeddings": 4096.0}, ("max_position_embeddings", "4096.0")),
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
    config = {**LLAMA, "model_type": "xverse", "rope_theta": 5e5}
    assert read_rope(config, assume_like="llama").scopes["model"].parameters.rope_theta == 5e5
    wrapped = {"model_type": "my_vlm", "text_config": {**LLAMA, "rope_theta": 7e5}}
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


@settings(max_examples=300, deadline=None)
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


NESTED_YARN = {"rope_theta": 1e4, **YARN, "original_max_position_embeddings": 32}
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
    ("deepseek_v4", {"rope_scaling": {**YARN, "original_max_position_embeddings": 32}}),
    ("deepseek_v4", {"qk_rope_head_dim": 16, "compress_rope_theta": 4e4, "rope_theta": 2e4}),
    (
        "step3p5",
        {
            "rope_theta": [1e4, 1e4, 5e4, 5e4],
            "partial_rotary_factors": [1, 1, 0.5, 0.5],
            "layer_types": ["sliding_attention"] * 2 + ["full_attention"] * 2,
        },
    ),
    ("dots3_note_text", {"swa_rope_theta": 3e3, "rope_theta": 4e4}),
]


@pytest.mark.parametrize(("model_type", "changes"), ODD_FILES)
def test_odd_files_are_read_as_transformers_reads_them(
    architectures: ModuleType, model_type: str, changes: dict[str, Any]
) -> None:
    fields = architectures.tiny_fields(model_type, **changes)
    rope = read_rope(json.loads(json.dumps(fields)))
    model = architectures.build_model(architectures.build_config(fields))
    assert_same_buffers(architectures, model, rope)


def test_phimoe_multiplies_by_its_own_mscale(architectures: ModuleType) -> None:
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


def test_a_window_as_long_as_the_model_is_no_limit() -> None:
    phi = {**LLAMA, "model_type": "phi3", "sliding_window": 4096}
    assert not read_rope(phi).scopes["model"].windowed
    assert read_rope(phi).scopes["model"].window == 4096
    assert read_rope({**phi, "sliding_window": 4095}).scopes["model"].windowed


def test_known_originals_are_those_of_unscaled_files() -> None:
    scaling = {"rope_type": "linear", "factor": 2.0}
    qwen = {**LLAMA, "model_type": "qwen3", "max_position_embeddings": 40960}
    assert read_rope({**qwen, "rope_scaling": scaling}).original_length == 40960


def test_the_original_length_is_that_of_the_layers_that_can_be_extended() -> None:
    sliding = {**NESTED_YARN, "original_max_position_embeddings": 16}
    config = {
        **LLAMA,
        "model_type": "cohere_compass_text",
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "sliding_window": 16,
        "rope_parameters": {"sliding_attention": sliding, "full_attention": NESTED_YARN},
    }
    assert read_rope(config).original_length == 32


def test_some_wrappers_choose_the_text_model_whatever_the_part_says() -> None:
    text = {**LLAMA, "model_type": "qwen2"}
    assert read_rope({"model_type": "qwen2_vl", "text_config": text}).model_type == "qwen2_vl_text"
    assert read_rope({"model_type": "llava", "text_config": text}).model_type == "qwen2"
    assert read_rope({"model_type": "unlimited_ocr", "language_config": {}}).text_path == (
        "language_config",
    )
