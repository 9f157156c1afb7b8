"""The quantisation config decides what a loader makes of the stored weights, not their dtype."""

import json

import pytest
import torch
from safetensors.torch import save_file

from yarncli.baking.deciding import decide_bake
from yarncli.checkpoint.source import open_checkpoint
from yarncli.config.quantisation import read_quantisation
from yarncli.errors import ConfigError, UnsupportedArchitectureError
from yarncli.jsontext.fields import Fields

K = "model.layers.{}.self_attn.k_proj."


def add(source, name, tensors):
    """One more shard, with these tensors for the keys of both layers."""
    made = {K.format(layer) + n: t.clone() for layer in range(2) for n, t in tensors.items()}
    save_file(made, source / name)
    path = source / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    index["weight_map"] |= dict.fromkeys(made, name)
    path.write_text(json.dumps(index))


@pytest.fixture
def decided(handmade):
    """A function: the bake of a checkpoint with a quantisation config, and other keys if given."""

    def decide(config, tensors=None, beside=None, model_type="llama", name="source"):
        drop = [K.format(layer) + "weight" for layer in range(2)] if tensors else []
        changes = {"quantization_config": config, "model_type": model_type}
        norms = {
            f"model.layers.{i}.self_attn.{p}_norm.weight": ONES for i in range(2) for p in "qk"
        }
        source = handmade(changes, norms if model_type == "qwen3" else None, drop, name)
        if tensors:
            add(source, "model-00003-of-00003.safetensors", tensors)
        if beside:
            (source / "hf_quant_config.json").write_text(json.dumps(beside))
        return decide_bake(open_checkpoint(str(source)))

    return decide


ONES = torch.ones(8).numpy()
SCALED = {"weight": torch.ones(16, 16).to(torch.float8_e4m3fn), "weight_scale": torch.ones(16, 1)}
BLOCKS = {"weight": SCALED["weight"], "weight_scale_inv": torch.ones(1, 1)}
PACKED = {
    "qweight": torch.zeros(2, 16, dtype=torch.int32),
    "scales": torch.ones(2, 16, dtype=torch.float16),
}
FOUR_BITS = {
    "weight": torch.zeros(16, 8, dtype=torch.uint8),
    "weight_scale": torch.ones(16, 1).to(torch.float8_e4m3fn),
    "weight_scale_2": torch.ones(()),
}
BITSANDBYTES = {
    "weight": torch.zeros(128, 1, dtype=torch.uint8),
    "weight.absmax": torch.zeros(4, dtype=torch.uint8),
    "weight.quant_map": torch.zeros(16),
    "weight.quant_state.bitsandbytes__nf4": torch.zeros(90, dtype=torch.uint8),
}


def groups(weights, **more):
    return {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
        **more,
    }


E4M3 = {"num_bits": 8, "type": "float", "strategy": "channel"}
REFUSED = {
    "scales kept as powers of two": (
        {"quant_method": "fp8", "weight_block_size": [128, 128], "scale_fmt": "ue8m0"},
        BLOCKS,
        "powers of two",
    ),
    "scales kept in another way": (
        {"quant_method": "fp8", "scale_fmt": "e5m3"},
        BLOCKS,
        "scale_fmt is 'e5m3'",
    ),
    "MXFP8": ({"quant_method": "mxfp8"}, BLOCKS, "MXFP8: 8-bit floats"),
    "bitsandbytes": (
        {"quant_method": "bitsandbytes", "load_in_4bit": True},
        BITSANDBYTES,
        "quantised by bitsandbytes, which packs",
    ),
    "bitsandbytes without a method": (
        {"load_in_8bit": True},
        {"weight": torch.zeros(16, 16, dtype=torch.int8), "SCB": torch.ones(16)},
        "quantised by bitsandbytes, which packs",
    ),
    "bitsandbytes without a config": (None, BITSANDBYTES, "quantised by bitsandbytes"),
    "NVFP4 of modelopt": (
        {"quant_method": "modelopt", "quant_algo": "NVFP4"},
        FOUR_BITS,
        "NVFP4: 4-bit floats with an FP8 scale",
    ),
    "NVFP4 of compressed-tensors": (
        groups({"num_bits": 4, "type": "float", "group_size": 16}, format="nvfp4-pack-quantized"),
        {
            "weight_packed": FOUR_BITS["weight"],
            "weight_scale": FOUR_BITS["weight_scale"],
            "weight_global_scale": torch.ones(1),
        },
        "NVFP4: 4-bit floats",
    ),
    "NVFP4 without a config": (None, FOUR_BITS, "NVFP4: 4-bit floats"),
    "MXFP4 of compressed-tensors": (
        groups({"num_bits": 4, "type": "float", "group_size": 32}),
        {"weight_packed": FOUR_BITS["weight"], "weight_scale": torch.ones(16, 1).byte()},
        "MXFP4: 4-bit floats",
    ),
    "MXFP4 where the loader expects floats": (
        {"quant_method": "mxfp4"},
        {"weight": FOUR_BITS["weight"], "weight_scale": torch.ones(16, 1).byte()},
        "MXFP4: 4-bit floats",
    ),
    "scales of a dtype that rounds": (
        groups({**E4M3, "scale_dtype": "torch.float8_e8m0fnu"}),
        SCALED,
        "scale_dtype",
    ),
    "rotated weights": (
        groups(E4M3, transform_config={"config_groups": {"R1": {}}}),
        SCALED,
        "transform_config",
    ),
    "a format that is not known": (groups(E4M3, format="marlin-24"), SCALED, "'marlin-24'"),
    "GPTQ packed for Marlin": (
        {"quant_method": "gptq", "is_marlin_format": True},
        PACKED,
        "packed for Marlin",
    ),
    "AWQ with transposed scales": (
        {"quant_method": "awq", "version": "gemv"},
        PACKED,
        "version is 'gemv'",
    ),
    "FP8 with scales of two levels": (
        {"quant_method": "modelopt", "quant_algo": "FP8_PB_WO"},
        SCALED,
        "quant_algo is 'FP8_PB_WO'",
    ),
    "AutoRound of another packing": (
        {"quant_method": "auto-round", "packing_format": "auto_round:nv_fp"},
        PACKED,
        "packing_format",
    ),
    **{
        name: ({"quant_method": name}, SCALED, f"quantised by {name}")
        for name in ("torchao", "quanto", "quark", "hqq", "bitnet", "aqlm", "vptq", "higgs", "eetq")
    },
    "a method that is not known": ({"quant_method": "new"}, None, "quant_method is 'new'"),
    "no method": ({"bits": 4}, None, "quant_method is ''"),
    "no config": (None, SCALED, "no quantization_config says"),
    "floats that a loader takes for FP8": (groups(E4M3), None, "floating point"),
    "FP8 that a loader takes for floats": (
        {"quant_method": "fp8", "modules_to_not_convert": ["self_attn.k_proj"]},
        SCALED,
        "leaves it in floating point",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_loader_would_not_multiply_is_refused(name, decided):
    config, tensors, reason = REFUSED[name]
    with pytest.raises(UnsupportedArchitectureError) as caught:
        decided(config, tensors)
    assert reason in str(caught.value)
    assert "quantise the result" in str(caught.value)


EVERY_K = [f"model.layers.{layer}.self_attn.k_proj" for layer in range(2)]
# Keys stored in floating point, as these configs say.
LEFT = {
    "by full names": {"quant_method": "fbgemm_fp8", "modules_to_not_convert": EVERY_K},
    "by a pattern": {
        "quant_method": "fp8",
        "modules_to_not_convert": [r"model.layers.*.self_attn"],
    },
    "by a part of the name": {"quant_method": "awq", "modules_to_not_convert": ["k_proj"]},
    "by MiniMax's name for it": {"quant_method": "fp8", "ignored_layers": ["self_attn"]},
    "by the end of the name": {
        "quant_method": "bitsandbytes",
        "load_in_4bit": True,
        "llm_int8_skip_modules": ["self_attn.k_proj"],
    },
    "by the name in a wrapper": {
        "quant_method": "fp8",
        "scale_fmt": "ue8m0",
        "modules_to_not_convert": [f"language_model.{name}" for name in EVERY_K],
    },
    "by a regex": groups(E4M3, ignore=["re:.*self_attn.*"]),
    "by a glob": {"quant_method": "modelopt", "quant_algo": "NVFP4", "ignore": ["*self_attn*"]},
    "as no group names them": {
        "quant_method": "compressed-tensors",
        "config_groups": {"group_0": {"targets": ["re:.*experts.*"], "weights": E4M3}},
    },
    "as only inputs are quantised": groups(None),
    "as GPTQ names the others": {
        "quant_method": "gptq",
        "modules_in_block_to_quantize": [["mlp.gate_proj", "mlp.up_proj"], ["mlp.down_proj"]],
    },
    "by a rule of GPTQModel": {"quant_method": "gptq", "dynamic": {r"-:.*self_attn.*": {}}},
    "by AutoRound": {
        "quant_method": "auto-round",
        "extra_config": {key: {"bits": 16, "data_type": "float"} for key in EVERY_K},
    },
    "as FP8Linear takes floats too": {"quant_method": "fp8", "scale_fmt": "ue8m0"},
    "as MXFP4 is for experts": {"quant_method": "mxfp4"},
    "as there is nothing in it": {},
}


@pytest.mark.parametrize("name", LEFT)
def test_what_a_loader_leaves_in_floating_point_is_multiplied(name, decided):
    found = {edit.tensor for edit in decided(LEFT[name]).edits}
    assert found == {K.format(layer) + "weight" for layer in range(2)}


SCALES = {
    "fp8, the default block": ({"quant_method": "fp8"}, BLOCKS),
    "fp8, floats named": ({"quant_method": "fp8", "scale_fmt": "float"}, BLOCKS),
    "modelopt": ({"quant_method": "modelopt", "quant_algo": "FP8"}, SCALED),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, SCALED),
    "awq": ({"quant_method": "awq", "version": "GEMM"}, PACKED),
    "auto-round": (
        {"quant_method": "auto-round", "packing_format": "auto_round:auto_gptq"},
        PACKED,
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_scales_that_a_loader_keeps_are_multiplied(name, decided):
    config, tensors = SCALES[name]
    scale = next(part for part in tensors if "scale" in part)
    assert {edit.tensor for edit in decided(config, tensors).edits} == {
        K.format(layer) + scale for layer in range(2)
    }


def test_norms_carry_the_factor_beside_any_known_format(decided):
    config = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    found = decided(config, BITSANDBYTES, model_type="qwen3").edits
    assert [edit.kind for edit in found] == ["k_norm.weight"] * 2
    with pytest.raises(UnsupportedArchitectureError, match="'new'"):
        decided({"quant_method": "new"}, model_type="qwen3", name="new")


def test_the_text_part_may_hold_the_config():
    text = Fields({"quantization_config": {"quant_method": "fp8"}}, ("text_config",))
    found = read_quantisation({}, text)
    assert found is not None
    assert found.where == "text_config.quantization_config"
    other = {"quantization_config": {"quant_method": "awq"}}
    with pytest.raises(ConfigError, match=r"text_config\.quantization_config differ"):
        read_quantisation(other, text)


def test_the_config_of_modelopt_beside_it(decided):
    beside = {"quantization": {"quant_algo": "NVFP4", "exclude_modules": ["lm_head"]}}
    with pytest.raises(UnsupportedArchitectureError, match="NVFP4: 4-bit"):
        decided(None, FOUR_BITS, beside)


def test_a_cache_with_scales_takes_queries(decided):
    beside = {"quantization": {"quant_algo": None, "kv_cache_quant_algo": "FP8"}}
    assert decided(None, beside=beside).baked.side == "q"


@pytest.mark.parametrize("size", [1e308, 0, -1, 2**64, "128"])
def test_a_block_size_out_of_range(size, decided):
    with pytest.raises(ConfigError, match="weight_block_size"):
        decided({"quant_method": "fp8", "weight_block_size": [size, 128]}, BLOCKS)


def test_a_pattern_that_would_take_for_ever_is_not_tried(decided):
    config = groups(E4M3, ignore=["re:" + "(.+)+!", "re:(", "x" * 999])
    with pytest.raises(UnsupportedArchitectureError, match="floating point"):
        decided(config)
