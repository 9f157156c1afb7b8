"""What is not known to be exact is refused by name, before anything is written."""

import json

import numpy as np
import pytest

from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.baking.registry import REGISTRY
from yarncli.checkpoint.source import open_checkpoint
from yarncli.config.families.table import FAMILIES
from yarncli.errors import (
    CheckpointError,
    ConfigError,
    UnsupportedArchitectureError,
    UsageError,
    WeightsError,
)

LAYER = "model.layers.{}.self_attn."


def prepared(directory, **options):
    return decide_bake(open_checkpoint(str(directory)), BakeSettings(**options))


def ones(*shape):
    return np.ones(shape, np.float32)


def test_every_registered_model_type_is_one_that_is_read():
    assert set(REGISTRY) <= set(FAMILIES)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.self_attn.q_norm.weight", (8,)),
        ("model.layers.1.self_attn.k_norm.weight", (8,)),
        ("model.layers.0.self_attn.qkv_proj.weight", (64, 16)),
        ("model.layers.0.self_attn.q_proj.lora_A.weight", (4, 16)),
        ("model.layers.0.self_attn.q_proj.weight.absmax", (4,)),
        ("model.layers.0.self_attn.rotary_scale", (4,)),
    ],
)
def test_an_unknown_part_of_attention(handmade, name, shape):
    with pytest.raises(UnsupportedArchitectureError, match="does not know") as caught:
        prepared(handmade(tensors={name: ones(*shape)}))
    assert name in str(caught.value)


def test_attention_outside_the_layers(handmade):
    source = handmade(tensors={"model.side.q_proj.weight": ones(32, 16)})
    with pytest.raises(UnsupportedArchitectureError, match=r"model\.side\.q_proj\.weight"):
        prepared(source)
    tower = {"vision_tower.blocks.0.attn.q_proj.weight": ones(32, 16)}
    assert prepared(handmade(tensors=tower, name="tower")).edits


def test_two_text_stacks(handmade):
    twice = {f"language_model.layers.0.self_attn.{part}_proj.weight": ones(32, 16) for part in "qk"}
    with pytest.raises(UnsupportedArchitectureError, match="several stacks"):
        prepared(handmade(tensors=twice))


def test_a_missing_layer(handmade):
    parts = ("q_proj", "k_proj", "v_proj", "o_proj")
    source = handmade(drop=[LAYER.format(1) + f"{part}.weight" for part in parts])
    with pytest.raises(WeightsError, match="Layer 1 has no attention tensors"):
        prepared(source)


def test_a_missing_projection(handmade):
    source = handmade(drop=[LAYER.format(1) + "q_proj.weight"])
    with pytest.raises(WeightsError, match=r"layers\.1\.self_attn\.q_proj is missing"):
        prepared(source)


@pytest.mark.parametrize("shape", [(12, 16), (32, 16), (16,), (0, 16)])
def test_a_wrong_shape(handmade, shape):
    name = LAYER.format(0) + "k_proj.weight"
    with pytest.raises(WeightsError, match="does not fit the config"):
        prepared(handmade(tensors={name: ones(*shape)}))


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.uint8, np.bool_])
def test_a_dtype_that_cannot_be_multiplied(handmade, dtype):
    name = LAYER.format(0) + "k_proj.weight"
    with pytest.raises(UnsupportedArchitectureError, match="k_proj"):
        prepared(handmade(tensors={name: np.ones((16, 16), dtype)}))


def test_an_unregistered_model_type(handmade):
    unregistered = next(t for t in ("gte", "eurobert", "esmc") if t not in REGISTRY)
    with pytest.raises(UnsupportedArchitectureError, match="--layout"):
        prepared(handmade({"model_type": unregistered}))


def test_an_unknown_layout(handmade):
    with pytest.raises(UsageError, match="Known: plain"):
        prepared(handmade(), layout="nope")


def test_no_weights(handmade):
    source = handmade()
    for path in source.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        prepared(source)


def extra_layer(prefix, parts=("q_proj", "k_proj")):
    shapes = {"q_proj": (32, 16), "k_proj": (16, 16), "q_norm": (8,)}
    return {f"{prefix}.self_attn.{part}.weight": ones(*shapes[part]) for part in parts}


@pytest.mark.parametrize("prefix", ["model.layers.2", "mtp.layers.0"])
def test_a_prediction_layer_follows_the_layout(handmade, prefix):
    baking = prepared(handmade(tensors=extra_layer(prefix)))
    assert f"{prefix}.self_attn.k_proj.weight" in {edit.tensor for edit in baking.edits}


def test_a_prediction_layer_of_another_kind(handmade):
    with pytest.raises(UnsupportedArchitectureError, match=r"mtp\.layers\.0"):
        prepared(handmade(tensors=extra_layer("mtp.layers.0", ("q_proj", "k_proj", "q_norm"))))
    with pytest.raises(WeightsError, match=r"mtp\.layers\.0\.self_attn\.k_proj is missing"):
        prepared(handmade(tensors=extra_layer("mtp.layers.0", ("q_proj",)), name="half"))


def test_a_prediction_layer_of_an_unknown_scope(checkpoint_of):
    from safetensors.numpy import load_file, save_file

    source = checkpoint_of("gemma3_text@bothyarn")
    tensors = load_file(source / "model.safetensors")
    old = [name for name in tensors if name.startswith("model.layers.0.self_attn.")]
    tensors |= {name.replace("layers.0", "layers.99"): tensors[name] for name in old}
    save_file(tensors, source / "model.safetensors")
    with pytest.raises(UnsupportedArchitectureError, match="multi-token prediction"):
        prepared(source)


MLA = {"model_type": "deepseek_v3", "qk_rope_head_dim": 8, "qk_nope_head_dim": 8}


@pytest.mark.parametrize("value", [2**62, 2**70, 1e308, -1, "4", True])
@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("num_layers_per_stack", {"model_type": "hrm_text"}),
        ("num_attention_heads", {}),
        ("num_key_value_heads", {}),
        ("num_hidden_layers", {}),
        ("kv_lora_rank", MLA),
        ("v_head_dim", MLA),
        ("qk_nope_head_dim", MLA),
        ("index_head_dim", {**MLA, "model_type": "deepseek_v32"}),
    ],
)
def test_a_size_out_of_range_is_one_sentence(key, changes, value, handmade):
    source = handmade()
    path = source / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes, key: value}))
    if key == "num_layers_per_stack":
        rename(source)
    with pytest.raises(ConfigError, match=key) as caught:
        prepared(source)
    assert str(caught.value).count(". ") == 0


def rename(source):
    """Give the layers the names of hrm_text's two stacks."""
    from safetensors.numpy import load_file, save_file

    for path in source.glob("*.safetensors"):
        tensors = load_file(path)
        names = {n: n.replace("model.layers", "model.H_module.layers") for n in tensors}
        save_file({names[n].replace("self_attn", "attn"): t for n, t in tensors.items()}, path)


def test_a_clamp_that_leaves_the_range(checkpoint_of):
    source = checkpoint_of("olmo@clip")
    path = source / "config.json"
    for value in (1.7e308, 10**310):
        path.write_text(json.dumps({**json.loads(path.read_text()), "clip_qkv": value}))
        with pytest.raises(ConfigError, match="clip_qkv"):
            prepared(source)


def test_a_small_model_that_is_not_small(handmade, monkeypatch):
    from yarncli.baking import twin

    monkeypatch.setattr(twin, "_MOST_PARAMETERS", 10)
    with pytest.raises(UnsupportedArchitectureError, match="parameters even with small sizes"):
        twin.check_layout(prepared(handmade()))
