"""Formulas against transformers' own functions and against numbers worked out by hand."""

import math

import pytest
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from yarncli.errors import ConfigError
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters

CASES = [
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "dynamic", "factor": 2.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192},
    {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096,
     "mscale": 1.0, "mscale_all_dim": 0.7},
    {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 2048,
     "beta_fast": 16.0, "beta_slow": 2.0, "truncate": False, "attention_factor": 1.3},
    {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 32768},
    {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192,
     "low_freq_factor": 1.0, "high_freq_factor": 4.0},
    {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 8192,
     "short_factor": [1.0 + i / 50 for i in range(32)],
     "long_factor": [1.0 + i for i in range(32)]},
    {"rope_type": "proportional", "partial_rotary_factor": 0.25, "factor": 2.0},
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["rope_type"])
@pytest.mark.parametrize("length", [None, 100, 32768, 50000])
@pytest.mark.parametrize("theta", [10000.0, 1e6])
def test_equal_to_transformers(case, length, theta):
    config = LlamaConfig(
        hidden_size=256,
        num_attention_heads=4,
        max_position_embeddings=32768,
        rope_parameters={"rope_theta": theta, **case},
    )
    expected, attention_factor = ROPE_INIT_FUNCTIONS[case["rope_type"]](config, "cpu", length)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in case.items()}
    ours = RopeParameters(rope_theta=theta, head_dim=64, max_position_embeddings=32768, **given)
    assert ours.inv_freq(length) == pytest.approx(expected.tolist(), rel=2e-6)  # theirs is float32
    assert ours.effective_attention_factor() == pytest.approx(attention_factor, rel=1e-7)


def test_partial_rotary_dims_set_the_exponents():
    half = RopeParameters(
        rope_type="default",
        rope_theta=10000.0,
        head_dim=128,
        max_position_embeddings=4096,
        partial_rotary_factor=0.5,
    )
    assert half.rotary_dim == 64
    assert half.inv_freq()[-1] == pytest.approx(10000 ** (-62 / 64))


def test_ntk_theta_scales_the_slowest_dimension_by_the_factor_exactly():
    # Paper §3.1: the base interpolates the last dimension by s and keeps the first.
    before = formulas.default_inv_freq(10000.0, 128)
    after = formulas.default_inv_freq(formulas.ntk_theta(10000.0, 128, 4.0), 128)
    assert after[0] == before[0] == 1.0
    assert before[-1] / after[-1] == pytest.approx(4.0, rel=1e-12)
    # engines.md's worked example, 64 rotary dimensions, θ 500000, s 4.
    assert formulas.ntk_theta(500000.0, 64, 4.0) == pytest.approx(2091468, rel=1e-6)


def test_dynamic_with_factor_one_is_ntk_by_the_length_ratio():
    assert formulas.dynamic_theta(10000.0, 64, 1.0, 16384, 4096) == pytest.approx(
        formulas.ntk_theta(10000.0, 64, 4.0)
    )
    assert formulas.dynamic_theta(10000.0, 64, 1.0, 100, 4096) == 10000.0


def test_yarn_by_hand():
    # d = 128, θ = 10000, L = 4096: 32 rotations at dimension 20.94 → 20, one at 45.04 → 46.
    assert formulas.find_correction_range(32, 1, 128, 10000.0, 4096) == (20, 46)
    inv_freq = formulas.yarn_inv_freq(10000.0, 128, 16.0, 4096)
    assert inv_freq[20] == 10000 ** (-40 / 128)
    assert inv_freq[46] == pytest.approx(10000 ** (-92 / 128) / 16, rel=1e-12)
    # Dimension 38 stands (38 - 20) / 26 up the index-linear ramp; Eq. 18 would give 0.115.
    share = 18 / 26
    assert inv_freq[38] * 10000 ** (76 / 128) == pytest.approx(share / 16 + 1 - share, rel=1e-12)
    assert formulas.yarn_attention_factor(4.0) == pytest.approx(1.138629436111989, rel=1e-15)


def test_wavelengths_rotations_regimes():
    before = formulas.default_inv_freq(10000.0, 128)
    after = formulas.yarn_inv_freq(10000.0, 128, 16.0, 4096)
    assert formulas.wavelengths(before)[0] == pytest.approx(2 * math.pi)
    assert formulas.wavelengths([0.0]) == [math.inf]
    assert formulas.rotations(before, 4096)[0] == pytest.approx(4096 / (2 * math.pi))
    found = formulas.regimes(before, after, 16.0, has_ramp=True)
    assert found == ["kept"] * 21 + ["ramp"] * 25 + ["interpolated"] * 18
    found = formulas.regimes([1.0, 1.0, 1.0], [1.0, 0.3, 0.25], 4.0, has_ramp=False)
    assert found == ["kept", "rescaled", "interpolated"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"factor": 0.5}, "factor is 0.5"),
        ({"factor": math.nan}, "factor is nan"),
        ({"rope_theta": 0.0}, "rope_theta is 0.0"),
        ({"rope_type": "su"}, "known types"),
        ({"rope_type": "linear"}, "needs factor"),
        ({"partial_rotary_factor": 0.45}, "rotary dimension is 57"),
        ({"rope_type": "longrope", "short_factor": (1.0,), "long_factor": (1.0,)}, "needs 64"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_fast": 0.5}, "must not be smaller"),
        ({"attention_factor": -1.0}, "attention_factor is -1.0"),
    ],
)
def test_values_no_formula_can_take_are_refused(fields, message):
    base = {"rope_type": "default", "rope_theta": 1e4, "head_dim": 128}
    with pytest.raises(ConfigError, match=message):
        RopeParameters(**{**base, "max_position_embeddings": 4096, **fields})
