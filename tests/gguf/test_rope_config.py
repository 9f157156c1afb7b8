"""A GGUF file as the config from which convert plans, and what comes of the plan."""

from __future__ import annotations

import pytest

from support.gguf_files import demo_keys
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError
from yarncli.gguf.facts import FREQS, Gguf, Tensor, Typed, typed
from yarncli.gguf.plan import plan_extension
from yarncli.gguf.reading import compare, read_gguf
from yarncli.gguf.rope_config import as_rope_config
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target


def file(architecture="llama", tensors=None, **keys) -> Gguf:
    found = {k.replace("llama.", f"{architecture}."): v for k, v in demo_keys().items()}
    found["general.architecture"] = Typed("str", architecture)
    for name, value in keys.items():
        key = name.replace("__", ".")
        number = isinstance(value, int) and key not in ("rope.freq_base",)
        made = value if isinstance(value, Typed) else typed(key, value)
        made = Typed("u32", value) if number and made.type != "u32" else made
        found[f"{architecture}.{key}"] = made
    blocks = {f"blk.{n}.attn_k.weight": Tensor("F32", (128, 128)) for n in range(3)}
    return Gguf(found, {**blocks, **(tensors or {})})


def scaling(**keys):
    return {f"rope__scaling__{k}": v for k, v in keys.items()}


OPTIONS = {"longrope": {"short_factor": (1.0,) * 16, "long_factor": (4.0,) * 16}}


@pytest.mark.parametrize("method", ["yarn", "ntk", "ntk-by-parts", "linear", "llama3", "longrope"])
def test_each_method_of_convert(method):
    target = Target(method=method, length=2048, options=OPTIONS.get(method, {}))
    plan = make_plan(as_rope_config(file()), target)
    after = plan_extension(file(), plan).applied(file())
    found = read_gguf(after)
    assert compare(found.computed, plan.scopes[0].after, 2048).is_none
    assert found.window == 2048


def test_an_option_of_a_method():
    target = Target(length=2048, options={"beta_fast": 64.0, "attention_factor": 1.3})
    plan = make_plan(as_rope_config(file()), target)
    found = read_gguf(plan_extension(file(), plan).applied(file()))
    assert found.computed.attention_factor == pytest.approx(1.3)


@pytest.mark.parametrize("kind", ["yarn", "linear"])
def test_a_scaling_is_extended_within_its_method(kind):
    old = file(context_length=1024, **scaling(
        type=kind, factor=4.0, original_context_length=256))  # fmt: skip
    plan = make_plan(as_rope_config(old), Target(factor=2.0, rescale=True))
    after = plan_extension(old, plan, replaces=True).applied(old)
    assert after.get("rope.scaling.factor") == 8
    assert after.get("context_length") == 2048


def test_llama_3_1_is_extended_within_its_method():
    p = make_plan(as_rope_config(file(context_length=8192)), Target(method="llama3", factor=8.0))
    old = plan_extension(file(context_length=8192), p).applied(file(context_length=8192))
    published = Gguf({k: v for k, v in old.keys.items() if "original" not in k}, old.tensors)
    config = as_rope_config(published)
    assert config.scopes["model"].parameters.rope_type == "llama3"
    plan = make_plan(config, Target(factor=2.0, rescale=True))
    after = plan_extension(published, plan, replaces=True).applied(published)
    assert max(after.factors(FREQS)) == pytest.approx(16)


def test_a_scaled_file_is_refused_without_a_word_about_it():
    old = file(context_length=1024, **scaling(type="yarn", factor=4.0,
                                              original_context_length=256))  # fmt: skip
    with pytest.raises(CheckpointError, match="already extended"):
        make_plan(as_rope_config(old), Target(length=4096))
    with pytest.raises(UsageError, match="--original-length"):
        make_plan(as_rope_config(old), Target(length=4096, replace_scaling=True))
    plan = make_plan(as_rope_config(old, original_length=256),
                     Target(method="ntk", length=4096, replace_scaling=True))  # fmt: skip
    after = plan_extension(old, plan, replaces=True).applied(old)
    assert not after.has("rope.scaling.type")


def test_a_window_that_is_long_enough():
    with pytest.raises(CheckpointError, match="already reads 256"):
        make_plan(as_rope_config(file()), Target(length=256))


def test_windows_that_are_known():
    """Qwen3 was trained with 32,768 of the 40,960 that it states, Mistral-7B-v0.1 with 8,192."""
    qwen = as_rope_config(file("qwen3", context_length=40960, rope__freq_base=1e6))
    assert (qwen.original_length, qwen.original_source) == (32768, "known original of qwen3")
    moe = as_rope_config(file("qwen3moe", context_length=40960, rope__freq_base=1e6))
    assert moe.original_length == 32768
    mistral = file(context_length=32768, embedding_length=4096, block_count=32,
                   feed_forward_length=14336)  # fmt: skip
    assert as_rope_config(mistral).original_length == 8192


def test_a_raised_window_is_seen():
    llama = file(context_length=131072, embedding_length=4096, block_count=32,
                 feed_forward_length=11008)  # fmt: skip
    with pytest.raises(CheckpointError, match="It was raised, or the scaling was lost"):
        make_plan(as_rope_config(llama), Target(length=262144))


def test_layers_with_a_window_of_their_own():
    gemma = as_rope_config(file("gemma3", attention__sliding_window=128, block_count=12))
    assert gemma.scopes["model"].layers == (5, 11)
    assert gemma.windowed_layers == (0, 1, 2, 3, 4, 6, 7, 8, 9, 10)
    plan = make_plan(gemma, Target(length=1024))
    assert not any("scaled too" in note for note in plan.notes)
    with pytest.raises(UnsupportedArchitectureError, match="Every layer of this gemma3 file"):
        as_rope_config(file("gemma3", attention__sliding_window=128))
    oss = as_rope_config(file("gpt-oss", attention__sliding_window=128))
    assert any("scaled too" in note for note in make_plan(oss, Target(length=1024)).notes)


def test_what_no_plan_can_come_from():
    broken = file(**scaling(type="dynamic"))
    with pytest.raises(CheckpointError, match="Replace its scaling with --replace-scaling"):
        as_rope_config(broken)
    assert as_rope_config(broken, replaces=True).scopes["model"].parameters.rope_type == "default"
    with pytest.raises(CheckpointError, match="more dimensions than any head has"):
        as_rope_config(file("qwen2", rope__dimension_count=2**31), replaces=True)
    with pytest.raises(CheckpointError, match="not positive numbers"):
        as_rope_config(file(tensors={FREQS: Tensor("F32", (16,), (0.0,) * 16)}))
    zeros = file(tensors={FREQS: Tensor("F32", (16,), (0.0,) * 16)})
    assert as_rope_config(zeros, replaces=True).scopes["model"].parameters.rope_type == "default"
    with pytest.raises(UnsupportedArchitectureError):
        as_rope_config(file("mamba"))


def test_latent_attention_cannot_take_by_parts():
    with pytest.raises(UnsupportedArchitectureError, match="latent attention"):
        make_plan(as_rope_config(file("deepseek2")), Target(method="ntk-by-parts", length=1024))
