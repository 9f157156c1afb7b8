"""Plans: the numbers of design §5 and the refusals, on the fields of published configs."""

import json
import math
import re

import pytest

from support.configs import LLAMA
from support.program import invoke
from yarncli.config.reading import read_rope
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError
from yarncli.planning.plan import make_plan, window_of
from yarncli.planning.target import Target
from yarncli.rope.formulas import factor_for

QWEN3 = {
    **LLAMA,
    "model_type": "qwen3",
    "head_dim": 128,
    "max_position_embeddings": 40960,
    "rope_theta": 1000000,
}
LLAMA31 = {
    **LLAMA,
    "max_position_embeddings": 131072,
    "rope_scaling": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    },
}
DEEPSEEK = {
    "model_type": "deepseek_v3",
    "max_position_embeddings": 163840,
    "num_hidden_layers": 2,
    "qk_rope_head_dim": 64,
    "rope_theta": 10000,
    "rope_scaling": {
        "type": "yarn",
        "factor": 40,
        "original_max_position_embeddings": 4096,
        "beta_fast": 32,
        "beta_slow": 1,
        "mscale": 1.0,
        "mscale_all_dim": 1.0,
    },
}
QWEN_VL = {
    "model_type": "qwen2_5_vl",
    "text_config": {
        **LLAMA,
        "model_type": "qwen2_5_vl_text",
        "max_position_embeddings": 32768,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    },
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "max_position_embeddings": 32768,
    "head_dim": 256,
    "num_hidden_layers": 6,
    "rope_theta": 1000000,
    "rope_local_base_freq": 10000,
    "sliding_window": 512,
    "sliding_window_pattern": 6,
}


def plan(config, method="yarn", length=None, factor=None, original=None, **fields):
    rope = read_rope(config, original_length=original)
    options = {k: fields.pop(k) for k in list(fields) if k not in ("rescale", "replace_scaling")}
    return make_plan(rope, Target(method, length=length, factor=factor, options=options, **fields))


def test_yarn_extends_the_maximum_and_says_where_the_original_came_from():
    found = plan(LLAMA, length=32768)
    (scope,) = found.scopes
    assert (found.factor, found.max_position_embeddings) == (4.0, 32768)
    assert found.original_source == "max_position_embeddings"
    assert scope.after.original_max_position_embeddings == 8192
    assert scope.after.attention_factor is None
    assert scope.after.effective_attention_factor() == pytest.approx(1.138629, rel=1e-6)


def test_qwen3_was_trained_with_32768_tokens():
    found = plan(QWEN3, length=131072)
    assert found.factor == 4.0
    assert found.original_length == 32768
    assert "known original" in found.original_source


def test_ntk_changes_the_base_alone():
    (scope,) = plan(LLAMA, "ntk", factor=4).scopes
    assert scope.after.rope_type == "default"
    assert scope.after.rope_theta == pytest.approx(500000 * 4 ** (128 / 126), rel=1e-12)
    assert scope.after.max_position_embeddings == 32768


@pytest.mark.parametrize("method", ["linear", "dynamic"])
def test_linear_and_dynamic_leave_the_maximum(method):
    found = plan(LLAMA, method, factor=4)
    assert (found.length, found.max_position_embeddings) == (32768, 8192)
    (scope,) = found.scopes
    assert scope.after.max_position_embeddings == 8192
    assert scope.after.original_max_position_embeddings is None


def test_dynamic_takes_a_factor_of_one():
    (scope,) = plan(LLAMA, "dynamic", factor=1).scopes
    assert scope.after.factor == 1.0


@pytest.mark.parametrize(
    ("config", "extra", "fields"),
    [
        (LLAMA, {}, {"attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}),
        (QWEN_VL, {"attn_factor": 1 / (0.1 * math.log(4) + 1), "mrope_section": [16, 24, 24]},
         {"attention_factor": 1.0, "mscale": None, "mscale_all_dim": None}),
    ],
    ids=["plain", "mrope"],
)  # fmt: skip
def test_by_parts_is_yarn_without_its_temperature(config, extra, fields):
    (scope,) = plan(config, "ntk-by-parts", factor=4).scopes
    assert {name: getattr(scope.after, name) for name in fields} == fields
    assert dict(scope.after.extra) == extra
    assert scope.after.effective_attention_factor() == 1.0
    assert scope.after.inv_freq() == plan(config, "yarn", factor=4).scopes[0].after.inv_freq()


def test_only_the_scope_past_the_window_is_extended():
    found = plan(GEMMA3, factor=2)
    assert [scope.name for scope in found.scopes] == ["full_attention"]


def test_a_fractional_product_rounds_the_length_down():
    found = plan(QWEN3, factor=1.3)
    assert found.length == 42598
    assert int(found.factor * 32768) == 42598
    assert any("rounded down to" in note for note in found.notes)


@pytest.mark.parametrize("original", [2048, 4096, 8191, 32768])
def test_the_length_is_the_integer_truth(original):
    for length in range(original, original * 9, 997):
        assert int(factor_for(length, original) * original) == length


def test_rescaling_keeps_every_setting_of_the_method():
    found = plan(DEEPSEEK, length=327680, rescale=True)
    (scope,) = found.scopes
    assert scope.after.factor == 80.0
    assert scope.after.original_max_position_embeddings == 4096
    assert (scope.after.mscale, scope.after.mscale_all_dim) == (1.0, 1.0)
    llama3 = plan(LLAMA31, length=262144, rescale=True)
    assert llama3.scopes[0].after.factor == 16.0
    linear = {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}
    assert window_of(read_rope(linear)) == 16384
    found = plan(linear, length=32768, rescale=True)
    assert (found.scopes[0].after.factor, found.max_position_embeddings) == (4.0, 8192)


def test_a_factor_of_a_rescaling_multiplies_the_present_window():
    found = plan(LLAMA31, factor=2, rescale=True)
    assert (found.length, found.factor) == (262144, 16.0)
    linear = {**LLAMA, "rope_scaling": {"type": "linear", "factor": 2.0}}
    found = plan(linear, factor=1.5, rescale=True)
    assert (found.length, found.scopes[0].after.factor) == (24576, 3.0)


@pytest.mark.parametrize(
    ("maximum", "length", "factor"),
    [
        (122880, 122880, 3.75),  # as trainers write it: factor 3 × 40,960, the window it ships with
        (40960, 122880, 3.75),  # as model cards write it
        (40960, 131072, 4.0),
        (122880, 245760, 7.5),
    ],
)
def test_an_original_window_that_is_known_is_written_by_a_rescaling(maximum, length, factor):
    yarn = {"type": "yarn", "factor": 3.0}
    config = {**QWEN3, "max_position_embeddings": maximum, "rope_scaling": yarn}
    found = plan(config, length=length, rescale=True)
    (scope,) = found.scopes
    assert scope.after.original_max_position_embeddings == 32768
    assert (found.length, found.factor, scope.after.factor) == (length, factor, factor)
    assert found.original_source == "known original of qwen3"


def test_a_large_factor_is_a_note_and_a_larger_one_a_question():
    assert any("beyond 32" in note for note in plan(LLAMA, factor=40).notes)
    assert not any("beyond" in note for note in plan(LLAMA, factor=32).notes)
    with pytest.raises(UsageError, match="--length 131072"):
        plan(LLAMA, factor=131072)
    with pytest.raises(UsageError, match="--length 819200"):
        plan(LLAMA, factor=100)
    assert plan(LLAMA, length=819200).factor == 100


LONGROPE = {
    **LLAMA,
    "original_max_position_embeddings": 8192,
    "max_position_embeddings": 32768,
    "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 64, "long_factor": [4.0] * 64},
}
DYNAMIC = {**LLAMA, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}


@pytest.mark.parametrize(
    ("config", "original"),
    [
        (LLAMA31, 8192),
        (LONGROPE, 8192),
        (DYNAMIC, None),
        ({**LLAMA, "max_position_embeddings": 32768, "rope_scaling": YARN}, 8192),
        ({**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}}, None),
        ({**QWEN3, "rope_scaling": {"type": "yarn", "factor": 3.0}}, 32768),
    ],
    ids=["llama3", "longrope", "dynamic", "yarn", "linear", "no original"],
)
@pytest.mark.parametrize("asked", [["--factor", 2.0], ["--length", 524288]])
def test_the_commands_of_the_refusal_work(config, original, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "SOURCE").mkdir()
    (tmp_path / "SOURCE" / "config.json").write_text(json.dumps(config))
    refused = invoke("convert", "SOURCE", "OUT", *asked, code=3)
    commands = re.findall(r"yarncli (convert SOURCE OUT[^;.(]*)", refused.stderr)
    assert ["--rescale" in command for command in commands] == [True, False][config is LONGROPE :]
    for number, command in enumerate(commands):
        words = command.replace("OUT", f"OUT{number}").split()
        if "--rescale" not in words:
            assert words[-1] == str(original or "N")
            words[-1] = str(original or 8192)
        invoke(*words, code=0)


def test_replacing_a_scaling_says_how_far_the_frequencies_move():
    found = plan(LLAMA31, length=262144, original=8192, replace_scaling=True)
    assert found.factor == 32.0
    assert any("frequencies are multiplied by" in note for note in found.notes)


@pytest.mark.parametrize(
    ("config", "arguments", "error", "message"),
    [
        (LLAMA, {"length": 8192}, CheckpointError, "already reads 8,192"),
        (LLAMA31, {"length": 262144}, CheckpointError, "--rescale --length 262144.*--replace-sc"),
        (LLAMA, {"length": 9000, "factor": 2}, UsageError, "only one"),
        (LLAMA, {}, UsageError, "--length TOKENS or as --factor"),
        (LLAMA, {"factor": 0.5}, UsageError, "at least 1"),
        (LLAMA, {"factor": math.nan}, UsageError, "at least 1"),
        (LLAMA, {"factor": 2, "beta_fast": 8.0, "method": "ntk"}, UsageError, "--beta-fast belo"),
        (LLAMA, {"factor": 2, "method": "longrope"}, UsageError, "--short-factor FILE"),
        (LLAMA, {"factor": 2, "rescale": True}, CheckpointError, "no scaling to rescale"),
        (LLAMA31, {"factor": 64, "replace_scaling": True}, UsageError, "--original-length"),
        (LLAMA31, {"factor": 64, "rescale": True, "original": 4096}, UsageError, "with --rescale"),
        (LLAMA, {"factor": 2, "method": "so"}, UsageError, "Known: yarn"),
        ({**LLAMA, "model_type": "phi3"}, {"factor": 2}, UnsupportedArchitectureError, "phi3"),
        ({**LLAMA, "model_type": "mistral", "sliding_window": 4096}, {"factor": 2},
         UnsupportedArchitectureError, "only within 4,096"),
        ({**DEEPSEEK, "rope_scaling": None, "max_position_embeddings": 4096},
         {"factor": 2, "method": "ntk-by-parts"}, UnsupportedArchitectureError, "latent"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_right_is_refused(config, arguments, error, message):
    with pytest.raises(error, match=message):
        plan(config, **arguments)


def test_a_window_that_holds_the_target_is_no_obstacle():
    found = plan({**LLAMA, "model_type": "mistral", "sliding_window": 65536}, factor=2)
    assert found.length == 16384
