"""Model types with their own code, in engines that have a class of their own for them."""

from __future__ import annotations

import pytest

from yarncli.engines.judgement import judge
from yarncli.engines.own_code import read_own
from yarncli.engines.registry import ENGINES

HUNYUAN = {
    "model_type": "hunyuan",
    "architectures": ["HunYuanMoEV1ForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_hunyuan.HunYuanConfig"},
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 32,
    "attention_head_dim": 128,
    "max_position_embeddings": 32768,
    "rope_theta": 10000.0,
    "rope_scaling": {"type": "dynamic", "alpha": 1000.0, "factor": 1.0, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
}  # fmt: skip
WITH_ALPHA = ("sglang", "mlx-lm", "mlx-vlm", "tensorrt-llm")


def found(engine, config):
    (view,) = judge(config, engines=[engine], launch=False).verdicts
    return view


@pytest.mark.parametrize("engine", WITH_ALPHA)
def test_alpha_is_another_base(engine):
    view = found(engine, HUNYUAN)
    assert view.status == "exact"
    assert view.engine is ENGINES[engine]
    # HunYuanDynamicNTKAlphaRotaryEmbedding: 10000 · 1000^(128/126).
    (scope,) = view.scopes
    base = 10000 * 1000 ** (128 / 126)
    assert scope.inv_freq == pytest.approx([base ** (-2 * i / 128) for i in range(64)])
    assert view.served_length in (None, 32768)


@pytest.mark.parametrize(
    "changed",
    [
        {"rope_scaling": {**HUNYUAN["rope_scaling"], "factor": 2.0}},
        {"rope_scaling": {**HUNYUAN["rope_scaling"], "alpha": None}},
        {"rope_scaling": {**HUNYUAN["rope_scaling"], "alpha": 0}},
        {"rope_scaling": {**HUNYUAN["rope_scaling"], "type": "yarn"}},
        {"rope_scaling": None},
        {"attention_head_dim": 64},
        {"architectures": ["HunYuanForCausalLM"]},
    ],
)
def test_alpha_with_anything_else_is_not_judged(changed):
    for engine in WITH_ALPHA:
        assert found(engine, {**HUNYUAN, **changed}).status in ("unknown", "unsupported")


def test_engines_that_run_the_code_of_the_checkpoint_are_not_judged_on_alpha():
    for engine in ("transformers-5", "tgi", "openvino"):
        assert found(engine, HUNYUAN).status in ("unknown", "unsupported")


MOLMO = {
    "model_type": "molmo",
    "architectures": ["MolmoForCausalLM"],
    "auto_map": {"AutoConfig": "config_molmo.MolmoConfig"},
    "hidden_size": 3584,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "num_hidden_layers": 28,
    "max_position_embeddings": 4096,
    "rope_theta": 1000000.0,
}


def test_molmo_in_mlx_vlm_has_one_theta_and_one_width():
    assert found("mlx-vlm", MOLMO).status == "exact"
    # mlx_vlm/utils.py gives its class an empty text_config, whose θ is 1,000,000.
    assert found("mlx-vlm", {**MOLMO, "rope_theta": 10000.0}).status in ("differs", "ignores")
    # Molmo-72B, whose weights do not fit it.
    large = {"hidden_size": 8192, "num_attention_heads": 64, "num_hidden_layers": 80}
    assert found("mlx-vlm", {**MOLMO, **large}).status == "unknown"


LONGROPE = {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": [4.0] * 48}
PHI4MM = {
    "model_type": "phi4mm",
    "architectures": ["Phi4MMForCausalLM"],
    "auto_map": {"AutoConfig": "configuration_phi4mm.Phi4MMConfig"},
    "hidden_size": 3072,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "num_hidden_layers": 2,
    "partial_rotary_factor": 0.75,
    "original_max_position_embeddings": 4096,
    "max_position_embeddings": 131072,
    "rope_theta": 10000.0,
    "rope_scaling": LONGROPE,
}
PHI3V = {
    **PHI4MM,
    "model_type": "phi3_v",
    "architectures": ["Phi3VForCausalLM"],
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "partial_rotary_factor": 1.0,
    "rope_scaling": {**LONGROPE, "type": "su"},
}


@pytest.mark.parametrize("config", [PHI4MM, PHI3V])
def test_phi_in_mlx_vlm_switches_between_its_lists(config):
    assert found("mlx-vlm", config).status == "exact"
    (used,) = ENGINES["mlx-vlm"].read(read_own(config)).scopes.values()
    assert used.parameters.rotary_dim == 96
    assert used.parameters.inv_freq(4096)[0] == 1.0
    assert used.parameters.inv_freq(4097)[0] == 0.25


def test_phi_4_multimodal_in_tensorrt_llm_has_the_long_list_for_every_text():
    assert found("tensorrt-llm", PHI4MM).status == "differs"
    short = {**PHI4MM, "max_position_embeddings": 4096}
    assert found("tensorrt-llm", short).status == "unknown"
