"""What llama.cpp's runtime makes of keys and tensors, as v0.5.0 computed it when it was run."""

from __future__ import annotations

import math

import pytest

from yarncli.engines.gguf import rope_file, used
from yarncli.engines.types import EngineCrash, LoaderError
from yarncli.gguf.facts import FREQS
from yarncli.rope.parameters import RopeParameters

SIZES = RopeParameters(
    rope_type="default", rope_theta=123.0, head_dim=8, max_position_embeddings=1024
)
PLAIN = [5e5 ** (-2 * i / 8) for i in range(4)]
# 8 · ln(256 / 2πr) / (2 · ln 500000) is 0.07 for r = 32, 1.13 for r = 1: the ramp is 0 to 2.
YARN = [p * (1 - ramp + ramp / 4) for p, ramp in zip(PLAIN, (0, 0.5, 1, 1), strict=True)]
M4 = 0.1 * math.log(4) + 1


def file(arch="llama", tensors=None, **keys):
    base = {"context_length": 1024, "rope.freq_base": 5e5}
    scaling = {f"rope.scaling.{k}": v for k, v in keys.items()}
    return rope_file(arch, base | scaling, tensors or {})


def over(number):
    return [f / number for f in PLAIN]


@pytest.mark.parametrize(
    ("keys", "freqs", "scale"),
    [
        ({}, PLAIN, 1.0),
        ({"factor": 4.0}, over(4), 1.0),
        ({"type": "none", "factor": 4.0}, PLAIN, 1.0),
        ({"type": "linear"}, PLAIN, 1.0),
        ({"type": "linear", "factor": 0.0}, PLAIN, 1.0),
        ({"type": "linear", "factor": 0.5}, over(0.5), 1.0),
        ({"type": "yarn"}, PLAIN, 1.0),
        ({"type": "yarn", "factor": 4.0, "original_context_length": 256}, YARN, M4),
        (
            {"type": "yarn", "factor": 4.0, "original_context_length": 256, "attn_factor": 0.5},
            YARN,
            M4 / 2,
        ),
        ({"type": "none", "attn_factor": 1.25}, PLAIN, 1.25),
        ({"type": "longrope", "factor": 4.0}, over(4), 1.0),
    ],
)
def test_keys(keys, freqs, scale):
    found = used(file(**keys), SIZES)
    assert found.parameters.inv_freq() == pytest.approx(freqs)
    assert found.attention_factor == pytest.approx(scale)


def test_yarn_without_an_original_length_takes_the_window():
    short = used(file(type="yarn", factor=4.0), SIZES).parameters
    assert short.original_length == 1024


def test_dead_keys_change_nothing():
    alive = {"type": "yarn", "factor": 4.0, "original_context_length": 256}
    dead = {"yarn_attn_factor": 2.0, "yarn_ext_factor": 0.5, "yarn_beta_fast": 64.0}
    assert used(file(**alive, **dead), SIZES) == used(file(**alive), SIZES)


def test_factors_come_on_top_of_a_scaling():
    factors = {FREQS: (1.0, 2.0, 4.0, 8.0)}
    found = used(file(tensors=factors, factor=4.0), SIZES)
    expected = [f / 4 / r for f, r in zip(PLAIN, factors[FREQS], strict=True)]
    assert found.parameters.inv_freq() == pytest.approx(expected)


@pytest.mark.parametrize("name", ["dynamic", "llama3", "YARN"])
def test_an_unknown_type_aborts(name):
    with pytest.raises(EngineCrash, match="aborts"):
        used(file(type=name), SIZES)


@pytest.mark.parametrize(
    ("arch", "tensor"),
    [("qwen2", FREQS), ("smollm3", FREQS), ("qwen2", "rope_factors_long.weight")],
)
def test_a_tensor_that_the_graph_does_not_load_refuses_the_file(arch, tensor):
    with pytest.raises(LoaderError, match="does not load"):
        used(file(arch, tensors={tensor: (1.0,) * 4}), SIZES)


def test_mla_without_mscale_all_dim_has_the_temperature_twice():
    """m² on the softmax scale although nobody asked (models/deepseek2.cpp:433-443)."""
    keys = {"type": "yarn", "factor": 4.0, "original_context_length": 256}
    found = used(file("deepseek2", **keys), SIZES)
    assert found.attention_factor == pytest.approx(M4)
    assert found.softmax_scale_ratio == pytest.approx(M4**2)
    stated = used(file("deepseek2", **keys, yarn_log_multiplier=0.1), SIZES)
    assert stated.attention_factor == pytest.approx(1.0)
    assert stated.softmax_scale_ratio == pytest.approx(M4**2)
