"""What can carry the attention temperature in a file, and what not, and why."""

from __future__ import annotations

import pytest

from support.gguf_files import demo_keys
from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.gguf.carriers import ScaledRows, plan_temperature, why_not
from yarncli.gguf.facts import Gguf, Tensor, Typed, typed

M = 1.2


def file(architecture="llama", *, layers=3, biases=False, norm=None, fused=False, **keys) -> Gguf:
    """A file of the demo's sizes: 4 heads of 32 dimensions, 128 wide."""
    found = {k.replace("llama.", f"{architecture}."): v for k, v in demo_keys().items()}
    found["general.architecture"] = Typed("str", architecture)
    for key, value in keys.items():
        name = f"{architecture}.{key.replace('__', '.')}"
        found[name] = value if isinstance(value, Typed) else typed(key.replace("__", "."), value)
    found[f"{architecture}.block_count"] = Typed("u32", layers)
    tensors = {}
    for n in range(layers):
        if fused:
            tensors[f"blk.{n}.attn_qkv.weight"] = Tensor("Q8_0", (128, 3 * 128))
        else:
            tensors[f"blk.{n}.attn_k.weight"] = Tensor("Q8_0", (128, 128))
        if biases:
            name = "attn_qkv" if fused else "attn_k"
            tensors[f"blk.{n}.{name}.bias"] = Tensor("F32", (384 if fused else 128,))
        if norm:
            tensors[f"blk.{n}.attn_k_norm.weight"] = Tensor("F32", norm)
    return Gguf(found, tensors)


def test_the_key_is_the_default():
    made = plan_temperature(file(), M)
    assert made.carrier == "key"
    assert made.keys == {"llama.rope.scaling.attn_factor": Typed("f32", M)}
    assert not made.tensors
    assert not made.scaled


def test_the_key_is_relative_to_what_the_file_says():
    """yarn by 8 has 1.2079 of its own, the key 1.5 more."""
    scaled = file(rope__scaling__type="yarn", rope__scaling__factor=8.0,
                  rope__scaling__original_context_length=256,
                  rope__scaling__attn_factor=1.5)  # fmt: skip
    made = plan_temperature(scaled, 1.0)
    assert made.keys["llama.rope.scaling.attn_factor"].value == pytest.approx(1 / 1.2079442)


def test_nothing_changes_where_it_is_so_already():
    made = plan_temperature(file(), 1.0)
    assert (dict(made.keys), dict(made.tensors), dict(made.scaled)) == ({}, {}, {})


def test_a_scale_takes_the_bias_along():
    made = plan_temperature(file("qwen2", biases=True), M, "scale")
    assert made.tensors == {f"blk.{n}.attn_k.scale": (pytest.approx(M**2),) for n in range(3)}
    assert set(made.scaled) == {f"blk.{n}.attn_k.bias" for n in range(3)}
    assert made.scaled["blk.0.attn_k.bias"] == ScaledRows(pytest.approx(M**2))
    assert "LoRA" in made.notes[0]


def test_a_norm_of_the_keys():
    made = plan_temperature(file("qwen3", norm=(32,)), M, "norm")
    assert set(made.scaled) == {f"blk.{n}.attn_k_norm.weight" for n in range(3)}
    assert made.scaled["blk.0.attn_k_norm.weight"] == ScaledRows(pytest.approx(M**2))


def test_windowed_models_get_it_in_their_full_layers_only():
    """Gemma 3: the sixth of every six layers has no window."""
    made = plan_temperature(file("gemma3", layers=12, norm=(32,), attention__sliding_window=128), M)
    assert made.carrier == "norm"
    assert set(made.scaled) == {f"blk.{n}.attn_k_norm.weight" for n in (5, 11)}


def test_the_layers_of_a_file_that_names_them():
    windows = Typed("arr", (True, False, True))
    gguf = file("gemma3", norm=(32,), attention__sliding_window=128,
                attention__sliding_window_pattern=windows)  # fmt: skip
    assert set(plan_temperature(gguf, M).scaled) == {"blk.1.attn_k_norm.weight"}


def test_rows_of_the_weights():
    made = plan_temperature(file(biases=True), M, "weights")
    assert made.scaled["blk.2.attn_k.weight"] == ScaledRows(pytest.approx(M**2))
    assert made.scaled["blk.2.attn_k.bias"] == ScaledRows(pytest.approx(M**2))


def test_rows_of_fused_weights():
    """Keys come after 4 · 32 rows of queries."""
    made = plan_temperature(file("phi3", fused=True, biases=True), M, "weights")
    assert made.scaled["blk.0.attn_qkv.weight"].rows == ((128, 256),)
    assert made.scaled["blk.0.attn_qkv.bias"].rows == ((128, 256),)


def test_only_the_rows_that_rotate():
    made = plan_temperature(file("stablelm", rope__dimension_count=8), M, "weights")
    assert made.scaled["blk.0.attn_k.weight"].rows == ((0, 8), (32, 40), (64, 72), (96, 104))


def test_fused_weights_beside_biases_of_their_own():
    gguf = file("phi3", fused=True)
    tensors = {**gguf.tensors, "blk.0.attn_k.bias": Tensor("F32", (128,))}
    made = plan_temperature(Gguf(gguf.keys, tensors), M, "weights")
    assert made.scaled["blk.0.attn_k.bias"].rows is None


NOT_EXACT = [
    ("key", file("gemma3", attention__sliding_window=128), "within 128 tokens"),
    ("key", file("deepseek2"), "latent attention"),
    *((c, file("hunyuan-moe", norm=(32,)), "comes after the rotation") for c in ("key", "norm")),
    ("scale", file("qwen3", norm=(32,)), "undoes it"),
    ("scale", file("phi3", fused=True), "one fused tensor"),
    ("scale", file("stablelm", rope__dimension_count=8), "8 of the 32"),
    ("scale", file("dbrx", attention__clamp_kqv=8.0), "limits the keys"),
    ("scale", file("smollm3"), "does not say which"),
    ("scale", file("plamo2"), "does not read such a scale"),
    ("norm", file(), "not every layer has a norm"),
    ("norm", file("qwen3", norm=(33,)), "heads of 32"),
    ("norm", file("deepseek2", norm=(32,)), "latent attention"),
    ("weights", file("qwen3", norm=(32,)), "undoes it"),
    ("weights", file("qwen35", fused=True), "do not hold queries"),
    ("weights", Gguf({**file("phi3", fused=True).keys}, {
        "blk.0.attn_qkv.weight": Tensor("F32", (128, 200))}), "200 rows"),
    ("weights", Gguf(file().keys, {"output.weight": Tensor("F32", (1, 1))}), "no tensors of att"),
    ("norm", file("gemma4", norm=(32,), attention__sliding_window=128), "does not say which"),
]  # fmt: skip


@pytest.mark.parametrize(("carrier", "gguf", "said"), NOT_EXACT)
def test_what_is_not_exact_is_refused(carrier, gguf, said):
    assert said in why_not(gguf, carrier)
    with pytest.raises(UnsupportedArchitectureError, match=f"--carrier {carrier} is not exact"):
        plan_temperature(gguf, M, carrier)


def test_a_layer_that_is_asked_for_needs_no_pattern():
    gguf = file("smollm3")
    assert set(plan_temperature(gguf, M, "scale", layers=[1]).tensors) == {"blk.1.attn_k.scale"}
    assert why_not(gguf, "key", [1]) == "the key changes all layers"
    assert plan_temperature(gguf, M, layers=[1]).carrier == "scale"


def test_no_carrier_at_all():
    with pytest.raises(UnsupportedArchitectureError, match="latent attention"):
        plan_temperature(file("deepseek2"), M)
    windowed = file("gemma3", fused=True, attention__sliding_window=128)
    with pytest.raises(UnsupportedArchitectureError, match="--carrier weights"):
        plan_temperature(windowed, M)


def test_a_factor_of_nothing_is_refused():
    with pytest.raises(CheckpointError, match="Correct llama"):
        plan_temperature(file(rope__scaling__attn_factor=0.0), M)


def test_a_file_that_does_not_load_carries_nothing():
    with pytest.raises(CheckpointError, match="does not rotate by this file"):
        plan_temperature(file(rope__scaling__type="llama3"), M)
