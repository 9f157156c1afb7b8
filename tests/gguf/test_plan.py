"""The keys and tensors that carry a RoPE setting into a file, against golden logits."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from support.gguf_files import demo_keys
from support.gguf_oracle import demo_logits
from support.gguf_settings import (
    GOLDEN,
    LENGTH,
    PLACES,
    SETTINGS,
    TOKENS,
    TOLERANCE,
    distance,
    setting,
    yarn8,
)
from yarncli.config.reading import read_rope
from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.gguf import plan as planning
from yarncli.gguf.facts import FREQS, LONG, SHORT, Gguf, Tensor, Typed, typed
from yarncli.gguf.loading import Failure
from yarncli.gguf.plan import plan_extension, plan_setting
from yarncli.gguf.runtime import run
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target

WEIGHTS = {"blk.0.attn_k.weight": Tensor("F32", (128, 128))}


def demo(**keys) -> Gguf:
    found = {**demo_keys(), **{f"llama.{k}": typed(k, v) for k, v in keys.items()}}
    return Gguf(found, WEIGHTS)


def other(architecture: str, *, tensors=None, **keys) -> Gguf:
    """The demo's sizes under another architecture."""
    found = {k.replace("llama.", f"{architecture}."): v for k, v in demo_keys().items()}
    found["general.architecture"] = Typed("str", architecture)
    found |= {f"{architecture}.{k}": typed(k, v) for k, v in keys.items()}
    return Gguf(found, {**WEIGHTS, **(tensors or {})})


def scaling(**keys):
    return {f"rope.scaling.{key}": value for key, value in keys.items()}


@pytest.mark.parametrize("name", SETTINGS)
def test_a_planned_file_gives_the_logits_that_llama_cpp_gave(name):
    made = plan_setting(demo(), SETTINGS[name], length=LENGTH)
    found = run(made.applied(demo()), context=LENGTH)
    assert not isinstance(found, Failure)
    logits = demo_logits(found.inv_freq, found.attention_factor, TOKENS, PLACES)
    assert distance(logits, name) < TOLERANCE
    assert found.served_length == LENGTH


def test_every_golden_setting_is_planned():
    assert SETTINGS.keys() == GOLDEN["cases"].keys()


def same(found: dict[str, Typed], wanted: dict[str, Any]) -> bool:
    """Whether two sets of keys hold the same in single precision."""
    return found.keys() == wanted.keys() and all(
        found[k].value == (pytest.approx(v, rel=1e-6) if isinstance(v, float) else v)
        for k, v in wanted.items()
    )


BY_PARTS = ("ntk-by-parts 8, rope_freqs",)


# The others were run in another of two right forms.
@pytest.mark.parametrize("name", sorted(SETTINGS.keys() - {"plain", *BY_PARTS}))
def test_the_keys_are_those_of_the_file_that_was_run(name):
    made = plan_setting(demo(), SETTINGS[name], length=LENGTH)
    record = {"llama.rope.scaling.original_context_length": 256} if made.tensors else {}
    assert same(made.keys, {**GOLDEN["cases"][name]["keys"], **record})
    kinds = {"context_length": "u32", "original_context_length": "u32", "type": "str"}
    for key, value in made.keys.items():
        assert value.type == kinds.get(key.rpartition(".")[2], "f32")


def test_a_plan_of_convert_is_carried_out():
    config = {
        "model_type": "llama", "hidden_size": 128, "num_attention_heads": 4, "head_dim": 32,
        "num_hidden_layers": 3, "max_position_embeddings": 256, "rope_theta": 10000.0,
    }  # fmt: skip
    for method, name in (("yarn", "yarn 8"), ("linear", "linear 8"), ("ntk", "ntk 8")):
        plan = make_plan(read_rope(config), Target(method=method, length=LENGTH))
        assert same(plan_extension(demo(), plan).keys, GOLDEN["cases"][name]["keys"])


def test_dead_and_contradicting_keys_go():
    old = demo(**scaling(type="linear", factor=2.0, yarn_attn_factor=1.0, yarn_beta_fast=16.0),
               **{"rope.scale_linear": 2.0})  # fmt: skip
    made = plan_setting(old, yarn8(truncate=False), length=LENGTH, replaces=True)
    names = ("rope.scaling.type", "rope.scaling.factor", "rope.scale_linear",
             "rope.scaling.yarn_attn_factor", "rope.scaling.yarn_beta_fast")  # fmt: skip
    assert set(made.drop) == {f"llama.{name}" for name in names}
    assert not any(key in made.applied(old).keys for key in made.drop)


def test_a_tensor_of_an_old_scaling_goes():
    old = Gguf(demo_keys(), {**WEIGHTS, FREQS: Tensor("F32", (16,), (2.0,) * 16)})
    made = plan_setting(old, yarn8(), length=LENGTH, replaces=True)
    assert made.drop_tensors == (FREQS,)


def test_a_scaling_that_does_not_run_may_be_replaced():
    old = demo(**scaling(type="llama3", factor=4.0))
    made = plan_setting(old, yarn8(truncate=False), length=LENGTH, replaces=True)
    assert "llama.rope.scaling.type" in made.drop


def test_theta_is_written_where_the_file_has_another():
    made = plan_setting(demo(), yarn8(rope_theta=5e5), length=LENGTH)
    assert made.keys["llama.rope.freq_base"] == Typed("f32", 5e5)
    assert "llama.rope.freq_base" not in plan_setting(demo(), yarn8(), length=LENGTH).keys


def test_phi_3_takes_any_frequencies_as_two_equal_lists():
    made = plan_setting(other("phi3"), yarn8(truncate=False), length=LENGTH)
    assert made.tensors[LONG] == made.tensors[SHORT]
    assert "phi3.rope.scaling.type" not in made.keys
    wanted = yarn8(truncate=False).inv_freq()
    assert run(made.applied(other("phi3"))).inv_freq == pytest.approx(wanted, rel=1e-6)


def test_phi_3_takes_both_lists_of_longrope():
    p = replace(SETTINGS["longrope long factors, rope_freqs + attn_factor"],
                original_max_position_embeddings=512)  # fmt: skip
    made = plan_setting(other("phi3"), p, length=LENGTH)
    assert made.tensors == {LONG: p.long_factor, SHORT: p.short_factor}
    assert "context size at its start" in made.notes[0]


def test_mistral_3_reads_betas_as_keys():
    made = plan_setting(other("mistral3"), yarn8(beta_fast=64.0, beta_slow=2.0), length=LENGTH)
    assert not made.tensors
    assert made.keys["mistral3.rope.scaling.yarn_beta_fast"].value == 64


def test_gemma_4_keeps_the_pairs_that_stand_still():
    still = {FREQS: Tensor("F32", (16,), (1.0,) * 4 + (1e30,) * 12)}
    p = setting("proportional", partial_rotary_factor=0.25, factor=8.0)
    made = plan_setting(other("gemma4", tensors=still), p, length=LENGTH)
    assert not made.tensors
    assert not made.drop_tensors
    assert made.keys["gemma4.rope.scaling.type"].value == "linear"


def test_deepseek_gets_the_multiplier_of_its_logarithm():
    p = yarn8(mscale=1.0, mscale_all_dim=1.0)
    made = plan_setting(other("deepseek2"), p, length=LENGTH)
    assert made.keys["deepseek2.rope.scaling.yarn_log_multiplier"].value == pytest.approx(0.1)


REFUSED = [
    ("rope_freqs in qwen2", other("qwen2"), yarn8(truncate=False), "qwen2 refuses to load"),
    ("rope_freqs ignored", other("falcon-h1"), yarn8(truncate=False), "falcon-h1 ignores"),
    ("betas in qwen3", other("qwen3"), yarn8(beta_fast=64.0), "--yarn-beta-fast"),
    ("llama3 in smollm3", other("smollm3"), SETTINGS["llama3 8, rope_freqs"], "linear or ntk"),
    ("step35", other("step35", **{"rope.dimension_count": 64}), yarn8(truncate=False), "another"),
    ("dynamic", demo(), setting("dynamic", factor=8.0), "--method ntk"),
    ("temperature of windowed layers", other("gemma3", **{"attention.sliding_window": 128}),
     yarn8(attention_factor=1.0), "within 128 tokens"),
    ("temperature of MLA", other("deepseek2"), yarn8(attention_factor=1.3, mscale_all_dim=1.0),
     "latent attention"),
    ("softmax of MLA", other("deepseek2"), yarn8(), "softmax scale"),
    ("only windowed layers rotate", other("cohere2", **{"attention.sliding_window": 128}),
     yarn8(), "cannot extend the context"),
    ("another model", demo(), yarn8(head_dim=64), "different models"),
    ("too long", demo(), yarn8(), "can state at most"),
    ("no RoPE", other("mamba"), yarn8(), "does not use RoPE"),
    ("unknown", other("gpt99"), yarn8(), "does not know the architecture"),
    ("scaled by keys", demo(**scaling(factor=2.0)), yarn8(), "--replace-scaling"),
    ("scaled by a tensor", Gguf(demo_keys(), {**WEIGHTS, FREQS: Tensor("F32", (16,), (2.0,) * 16)}),
     yarn8(), "--rescale"),
    ("scaled in temperature", demo(**scaling(attn_factor=1.2)), yarn8(), "--rescale"),
    ("a type that aborts", demo(**scaling(type="llama3")), yarn8(), "--replace-scaling"),
    ("switched off", other("granite", **scaling(finetuned=False)), yarn8(), "switches RoPE off"),
    ("a rotary width that does not load", demo(**{"rope.dimension_count": 16}),
     yarn8(partial_rotary_factor=0.5), "must be 32"),
    ("vocabulary", Gguf(demo_keys()), yarn8(), "only a vocabulary"),
    ("adapter", Gguf({**demo_keys(), "general.type": Typed("str", "adapter")}, WEIGHTS), yarn8(),
     "not a language model"),
    ("no keys", Gguf({"split.no": Typed("u16", 1)}, WEIGHTS), yarn8(), "first file"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("gguf", "p", "said"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_refusals(gguf, p, said):
    length = 2**32 if said == "can state at most" else LENGTH
    with pytest.raises(CheckpointError, match=said) as found:
        plan_setting(gguf, p, length=length)
    assert found.value.exit_code == 3


def test_multimodal_rope_with_a_tensor_is_refused():
    """No architecture of the table has both; a later one may."""
    name = "qwen2vl.rope.dimension_sections"
    gguf = other("qwen2vl")
    several = Gguf({**gguf.keys, name: Typed("arr", (4, 6, 6, 0))}, gguf.tensors)
    assert several.is_mrope
    assert not gguf.is_mrope
    row = replace(gguf.row, rope_freqs="used")
    with pytest.raises(UnsupportedArchitectureError, match="multimodal"):
        planning.refuse_rope_freqs(several, row, yarn8(truncate=False))


def test_a_wrong_plan_is_never_silent(monkeypatch):
    """What the runtime computes from the planned keys is compared with the setting."""
    right = planning._ratios
    monkeypatch.setattr(planning, "_ratios", lambda p, f: tuple(1 / r for r in right(p, f)))
    with pytest.raises(CheckpointError, match="bug in yarncli"):
        plan_setting(demo(), yarn8(truncate=False), length=LENGTH)


def test_the_attention_factor_is_relative_to_that_of_yarn():
    made = plan_setting(demo(), yarn8(attention_factor=1.3), length=LENGTH)
    value = made.keys["llama.rope.scaling.attn_factor"].value
    assert value == pytest.approx(1.3 / (0.1 * math.log(8) + 1))
