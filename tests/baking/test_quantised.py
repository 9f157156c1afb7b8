"""Quantised projections: the dequantised weights are multiplied, or the bake is refused.

The oracle is what each format's loader computes: scale × stored value, per tensor, row, block or
group; written out here for each format.
"""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, UnsupportedArchitectureError, UsageError

K = "model.layers.{}.self_attn.k_proj."


@pytest.fixture
def quantised(handmade):
    """A function: a checkpoint whose k_proj are replaced by other tensors, and its config."""

    def make(parameters, config=None, rotary=1.0, name="source"):
        changes = {"quantization_config": config}
        model_type = "llama"
        if rotary != 1.0:
            model_type = "stablelm"
            changes["partial_rotary_factor"] = rotary
        drop = [K.format(layer) + "weight" for layer in range(2)]
        directory = handmade({**changes, "model_type": model_type}, drop=drop, name=name)
        tensors = {
            K.format(layer) + n: t.clone() for layer in range(2) for n, t in parameters.items()
        }
        save_file(tensors, directory / "model-00003-of-00003.safetensors")
        index = json.loads((directory / "model.safetensors.index.json").read_text())
        index["weight_map"] |= dict.fromkeys(tensors, "model-00003-of-00003.safetensors")
        (directory / "model.safetensors.index.json").write_text(json.dumps(index))
        return directory

    return make


def parameters_of(directory, layer=1):
    tensors = load_file(directory / "model-00003-of-00003.safetensors")
    return {n.rpartition(".")[2]: t for n, t in tensors.items() if K.format(layer) in n}


def fp8(shape=(16, 16)):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(torch.float8_e4m3fn)


def random(*shape, dtype=torch.float32):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(1)) + 0.5).to(dtype)


def by_row(parameters):
    """Per tensor, per row, or rows × groups of columns."""
    weight = parameters["weight"].double()
    scale = parameters["weight_scale"].double()
    if scale.ndim < 2:
        scale = scale.reshape(-1, 1)
    return weight * scale.repeat_interleave(16 // scale.shape[1], dim=1)


def by_block(parameters):
    scale = parameters["weight_scale_inv"].double()
    whole = scale.repeat_interleave(8, 0).repeat_interleave(8, 1)
    return parameters["weight"].double() * whole


def by_gptq(parameters):
    """Four-bit values, eight to an integer along the inputs; groups of 8 inputs; zero 8."""
    packed = parameters["qweight"]
    values = torch.stack([(packed >> (4 * i)) & 15 for i in range(8)], 1).reshape(16, 16)
    scales = parameters["scales"].double().repeat_interleave(8, 0)
    return ((values - 8).double() * scales).T


def packed_integers():
    generator = torch.Generator().manual_seed(2)
    return torch.randint(-(2**31), 2**31 - 1, (2, 16), dtype=torch.int32, generator=generator)


def compressed(**weights):
    """The config of compressed-tensors for all projections."""
    given = {"num_bits": 8, "type": "float", "strategy": "channel", **weights}
    groups = {"group_0": {"targets": ["Linear"], "weights": given}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, "ignore": ["lm_head"]}


BLOCKS = {"quant_method": "fp8", "weight_block_size": [8, 8]}
FP8, INT8 = compressed(), compressed(type="int")
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 8}
FORMATS = {
    "fp8 per tensor": ({"weight": fp8(), "weight_scale": random()}, FP8, by_row),
    "fp8 per tensor, one entry": ({"weight": fp8(), "weight_scale": random(1)}, FP8, by_row),
    "fp8 per row": (
        {"weight": fp8(), "weight_scale": random(16, 1, dtype=torch.bfloat16)},
        FP8,
        by_row,
    ),
    "int8 in groups": (
        {
            "weight": torch.randint(-127, 127, (16, 16)).to(torch.int8),
            "weight_scale": random(16, 4, dtype=torch.float16),
        },
        INT8,
        by_row,
    ),
    "fp8 blocks": (
        {"weight": fp8(), "weight_scale_inv": random(2, 2), "input_scale": random()},
        BLOCKS,
        by_block,
    ),
    "gptq": (
        {
            "qweight": packed_integers(),
            "qzeros": torch.zeros(2, 2, dtype=torch.int32),
            "g_idx": torch.arange(16, dtype=torch.int32) // 8,
            "scales": random(2, 16, dtype=torch.float16),
        },
        GPTQ,
        by_gptq,
    ),
}


@pytest.mark.parametrize("name", FORMATS)
def test_the_dequantised_rows_are_multiplied(
    name, quantised, tmp_path, bake_directory, attention_factor
):
    parameters, config, dequantise = FORMATS[name]
    source = quantised(parameters, config)
    bake_directory(source, tmp_path / "out", side="k")
    old = dequantise(parameters_of(source))
    new = dequantise(parameters_of(tmp_path / "out"))
    assert torch.allclose(new, old * attention_factor**2, rtol=4e-3)
    assert not torch.allclose(new, old, rtol=0.1)


@pytest.mark.parametrize("name", ["fp8 per row", "int8 in groups", "gptq"])
def test_half_rotated_heads_keep_their_other_rows(
    name, quantised, tmp_path, bake_directory, attention_factor
):
    parameters, config, dequantise = FORMATS[name]
    source = quantised(parameters, config, rotary=0.5)
    bake_directory(source, tmp_path / "out", side="k")
    old = dequantise(parameters_of(source))
    new = dequantise(parameters_of(tmp_path / "out"))
    rotates = torch.arange(16) % 8 < 4
    assert torch.allclose(new[rotates], old[rotates] * attention_factor**2, rtol=4e-3)
    assert torch.equal(new[~rotates], old[~rotates])


def test_a_bias_beside_a_scale_is_multiplied_too(
    quantised, tmp_path, bake_directory, attention_factor
):
    parameters = {**FORMATS["fp8 per row"][0], "bias": random(16)}
    source = quantised(parameters, FP8)
    bake_directory(source, tmp_path / "out", side="k")
    new = parameters_of(tmp_path / "out")["bias"]
    assert torch.allclose(new, parameters["bias"] * attention_factor**2)


REFUSED = {
    "a scale for rows that differ": (
        {"weight": fp8(), "weight_scale": random()},
        FP8,
        0.5,
        "one scale covers 16 rows",
    ),
    "a block across the rotating rows": (
        {"weight": fp8(), "weight_scale_inv": random(2, 2)},
        BLOCKS,
        0.5,
        "one scale covers 8 rows",
    ),
    "power-of-two scales": (
        {"weight": fp8(), "weight_scale_inv": random(2, 2).to(torch.float8_e8m0fnu)},
        BLOCKS,
        1.0,
        "F8_E8M0",
    ),
    "scales of FP8": (
        {"weight": fp8(), "weight_scale": random(16, 1).to(torch.float8_e4m3fn)},
        FP8,
        1.0,
        "F8_E4M3",
    ),
    "no scale": ({"weight": fp8()}, FP8, 1.0, "no scale of its own"),
    "blocks of unknown size": (
        {"weight": fp8(), "weight_scale_inv": random(2, 2)},
        {"quant_method": "fp8", "weight_block_size": None},
        1.0,
        "unknown format",
    ),
    "a float with a scale": (
        {"weight": random(16, 16), "weight_scale": random()},
        FP8,
        1.0,
        "F32",
    ),
    "scales of three dimensions": (
        {"weight": fp8(), "weight_scale": random(16, 1, 1)},
        FP8,
        1.0,
        "unknown format",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name, quantised):
    parameters, config, rotary, reason = REFUSED[name]
    with pytest.raises(UnsupportedArchitectureError, match="k_proj") as caught:
        decide_bake(
            open_checkpoint(str(quantised(parameters, config, rotary))), BakeSettings(side="k")
        )
    assert reason in str(caught.value)


def test_a_scale_that_overflows_is_an_error(quantised, tmp_path, bake_directory):
    parameters = {"weight": fp8(), "weight_scale": torch.full((16, 1), 6e4, dtype=torch.float16)}
    with pytest.raises(CheckpointError, match="no longer fits in F16"):
        bake_directory(quantised(parameters, FP8), tmp_path / "out", side="k")


def test_one_scale_for_fused_queries_keys_and_values(handmade):
    changes = {"model_type": "phi3", "num_key_value_heads": 4}
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    changes["rope_scaling"] = {"rope_type": "longrope", **factors}
    changes["original_max_position_embeddings"] = 32
    changes["quantization_config"] = FP8
    names = [f"model.layers.{i}.self_attn.{p}_proj.weight" for i in range(2) for p in "qkv"]
    source = handmade(changes, drop=names)
    tensors = {}
    for layer in range(2):
        fused = f"model.layers.{layer}.self_attn.qkv_proj."
        tensors |= {fused + "weight": fp8((96, 16)), fused + "weight_scale": random()}
    save_file(tensors, source / "model-00003-of-00003.safetensors")
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"] |= dict.fromkeys(tensors, "model-00003-of-00003.safetensors")
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UnsupportedArchitectureError, match="one scale covers 96 rows"):
        decide_bake(open_checkpoint(str(source)))


def test_queries_are_taken_where_keys_are_cached_with_a_scale(quantised):
    parameters = {**FORMATS["fp8 per row"][0], "output_scale": random()}
    config = {**FP8, "ignore": ["re:.*q_proj$"]}
    checkpoint = open_checkpoint(str(quantised(parameters, config)))
    assert decide_bake(checkpoint).baked.side == "q"
    with pytest.raises(UsageError, match="--side q"):
        decide_bake(checkpoint, BakeSettings(side="both"))
