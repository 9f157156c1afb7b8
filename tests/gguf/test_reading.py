"""A file read back as a setting of transformers, and held against one."""

from __future__ import annotations

import math

import pytest

from support.gguf_files import demo_keys
from support.gguf_rows import LONGS, ROWS, SHORTS, Row
from support.gguf_settings import LENGTH, SETTINGS, yarn8
from yarncli.errors import UnsupportedArchitectureError
from yarncli.gguf.dead import dead_keys
from yarncli.gguf.facts import FREQS, LONG, SHORT, Gguf, Tensor, Typed, typed
from yarncli.gguf.loading import Failure
from yarncli.gguf.plan import plan_setting
from yarncli.gguf.reading import compare, read_gguf
from yarncli.gguf.runtime import Computed, run

NUMBERS = [row for row in ROWS if not isinstance(row.expected, str) and LONG not in row.tensors]
DEMO = Gguf(demo_keys(), {"blk.0.attn_k.weight": Tensor("F32", (128, 128))})


@pytest.mark.parametrize("row", NUMBERS, ids=lambda row: row.name)
def test_the_setting_gives_what_the_runtime_computes(row):
    freqs, scale = row.expected
    found = read_gguf(row.gguf())
    assert found.parameters.inv_freq(4096) == pytest.approx(freqs, rel=1e-7)
    assert found.parameters.effective_attention_factor() == pytest.approx(scale, rel=1e-6)
    assert (found.head_dim, found.rotary_dim) == (32, 32)


def test_longrope_keeps_both_lists():
    keys = {"rope.scaling.type": "longrope", "rope.scaling.original_context_length": 256,
            "rope.scaling.factor": 2.0, "context_length": 1024}  # fmt: skip
    found = read_gguf(Row("", "", keys, {LONG: LONGS, SHORT: SHORTS}).gguf())
    assert found.parameters.long_factor == tuple(2 * k for k in LONGS)
    assert found.parameters.short_factor == tuple(2 * k for k in SHORTS)
    assert found.parameters.original_max_position_embeddings == 256


@pytest.mark.parametrize("name", SETTINGS)
def test_a_planned_file_is_read_as_its_setting(name):
    after = plan_setting(DEMO, SETTINGS[name], length=LENGTH).applied(DEMO)
    found = read_gguf(after)
    assert compare(found.computed, SETTINGS[name], LENGTH).is_none
    assert compare(found.computed, found.parameters, LENGTH).is_none
    assert found.window == LENGTH


def test_yarn_is_read_as_yarn():
    found = read_gguf(plan_setting(DEMO, yarn8(attention_factor=1.3), length=LENGTH).applied(DEMO))
    assert found.parameters.rope_type == "yarn"
    assert found.parameters.attention_factor == pytest.approx(1.3)
    assert found.original_length == 256


def test_the_temperature_of_deepseek():
    keys = {k.replace("llama.", "deepseek2."): v for k, v in demo_keys().items()}
    keys["general.architecture"] = Typed("str", "deepseek2")
    before = Gguf(keys, DEMO.tensors)
    p = yarn8(mscale=1.0, mscale_all_dim=0.7)
    with pytest.raises(UnsupportedArchitectureError, match="latent attention"):
        plan_setting(before, p, length=LENGTH)
    p = yarn8(mscale=1.0, mscale_all_dim=1.0)
    found = read_gguf(plan_setting(before, p, length=LENGTH).applied(before))
    assert found.parameters.mscale_all_dim == pytest.approx(1.0)
    assert found.parameters.effective_attention_factor() == pytest.approx(1.0)


def test_what_is_not_run_is_not_read():
    assert isinstance(read_gguf(Row("", "", {"rope.scaling.type": "llama3"}).gguf()), Failure)


def test_the_original_window_of_a_scaled_file_is_not_guessed():
    assert read_gguf(DEMO).original_length == 256
    scaled = Row("", "", {}, {FREQS: (2.0,) * 16}).gguf()
    assert read_gguf(scaled).original_length is None


def test_a_difference_names_the_pair_and_the_factor():
    computed = run(DEMO)
    plain = SETTINGS["plain"]
    assert compare(computed, plain, 256).is_none
    assert compare(computed, plain, 512).window == -256
    found = compare(computed, yarn8(), 256)
    assert found.ratios[found.worst] == pytest.approx(8)
    assert found.attention_factor == pytest.approx(1 / (0.1 * math.log(8) + 1))
    assert not compare(computed, yarn8(head_dim=64), 256).is_none


KEYS = {
    "rope.freq_base": 2e4, "rope.freq_base_swa": 2e4, "rope.scaling.factor": 3.0,
    "rope.scale_linear": 3.0, "rope.scaling.attn_factor": 1.4, "rope.scaling.alpha": 2.0,
    "rope.scaling.yarn_ext_factor": 0.5, "rope.scaling.yarn_attn_factor": 1.4,
    "rope.scaling.yarn_beta_fast": 4.0, "rope.scaling.yarn_beta_slow": 2.0,
    "rope.scaling.yarn_log_multiplier": 0.3, "rope.scaling.finetuned": True,
}  # fmt: skip


def numbers(gguf: Gguf) -> tuple[object, ...]:
    found = run(gguf)
    assert isinstance(found, Computed)
    return found.inv_freq, found.attention_factor, found.softmax_scale_ratio


@pytest.mark.parametrize("name", ["llama", "mistral3", "grok", "deepseek2", "hunyuan_vl", "gemma3"])
@pytest.mark.parametrize("kind", ["none", "linear", "yarn"])
@pytest.mark.parametrize("key", KEYS)
def test_a_dead_key_changes_nothing_and_a_living_one_something(name, kind, key):
    base = {k.replace("llama.", f"{name}."): v for k, v in demo_keys().items()}
    base |= {f"{name}.{k}": typed(k, v) for k, v in (
        ("rope.scaling.type", kind), ("rope.scaling.original_context_length", 128),
        ("rope.scaling.factor", 4.0))}  # fmt: skip
    base["general.architecture"] = Typed("str", name)
    full = Gguf({**base, f"{name}.{key}": typed(key, KEYS[key])})
    dead = {found.name for found in dead_keys(full)}
    without = Gguf({k: v for k, v in base.items() if k != f"{name}.{key}"})
    same = numbers(full) == numbers(without)
    if (name, key) == ("gemma3", "rope.freq_base_swa"):
        same = True  # it is of the windowed layers, which this file has none of
    assert (f"{name}.{key}" in dead) == same
    if same:
        assert all(found.why for found in dead_keys(full))


def test_a_dead_key_misleads_where_it_says_something_else():
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 8.0,
            "rope.scaling.original_context_length": 256}  # fmt: skip

    def misleading(**keys):
        more = {f"rope.scaling.{key}": value for key, value in keys.items()}
        return [d.name for d in dead_keys(Row("", "", {**yarn, **more}).gguf()) if d.misleads]

    assert misleading(yarn_attn_factor=1.0) == ["llama.rope.scaling.yarn_attn_factor"]
    assert misleading(yarn_attn_factor=0.1 * math.log(8) + 1) == []
    assert misleading(yarn_beta_fast=32.0, finetuned=True) == []
    assert misleading(yarn_beta_fast=64.0) == ["llama.rope.scaling.yarn_beta_fast"]


def test_keys_of_another_architecture():
    gguf = Row("", "", {"qwen2.rope.scaling.type": Typed("str", "yarn"),
                        "qwen2.context_length": Typed("u32", 9)}).gguf()  # fmt: skip
    more = {"yarncli.plan": Typed("str", ""), "gpt99.rope.freq_base": Typed("f32", 1.0)}
    keys = {**gguf.keys, **more}
    assert [dead.name for dead in dead_keys(Gguf(keys))] == [
        "qwen2.rope.scaling.type",
        "qwen2.context_length",
    ]
