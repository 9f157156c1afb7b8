"""Random architectures, sizes and shapes: a foreseen refusal, or only announced bytes change."""

import json
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.baking.registry import REGISTRY
from yarncli.baking.writing import write_copy
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import YarncliError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
PARTS = (
    "q_proj.weight q_proj.bias k_proj.weight k_proj.bias k_proj.weight_scale k_proj.scales "
    "k_proj.qweight q_norm.weight k_norm.weight kv_a_proj_with_mqa.weight q_b_proj.weight "
    "qkv_proj.weight query_key_value.weight k_scale rotary.weight"
).split()
sizes = st.sampled_from([1, 2, 3, 4, 8, 16])
shapes = st.lists(st.sampled_from([1, 2, 4, 8, 16, 32]), max_size=3).map(tuple)
dtypes = st.sampled_from([np.float32, np.float16, np.float64, np.int8, np.int32])
odd_fields = st.fixed_dictionaries(
    {},
    optional={
        "num_key_value_heads": sizes,
        "head_dim": sizes,
        "qk_rope_head_dim": sizes,
        "qk_nope_head_dim": sizes,
        "kv_lora_rank": sizes,
        "clip_qkv": st.sampled_from([0, 0.5, -1, "x"]),
        "quantization_config": st.just({"weight_block_size": [2, 2]}),
    },
)
odd_parts = st.dictionaries(st.sampled_from(PARTS), st.tuples(shapes, dtypes), max_size=2)


@st.composite
def checkpoints(draw):
    """A config and the parameters of its attention modules, often fitting, sometimes not."""
    model_type = draw(st.sampled_from([*["llama", "stablelm", "qwen3"] * 40, *REGISTRY]))
    partial = model_type == "stablelm"
    heads, head_dim = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([4, 8]))
    kv_heads = draw(st.sampled_from([n for n in (1, 2, 4) if n <= heads]))
    config = {
        "model_type": model_type,
        "hidden_size": heads * head_dim,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "num_hidden_layers": draw(st.sampled_from([1, 2])),
        "max_position_embeddings": 128,
        "rope_scaling": YARN,
        "partial_rotary_factor": draw(st.sampled_from([0.5, 1.0])) if partial else 1.0,
    }
    dtype = draw(dtypes.filter(lambda dtype: dtype not in (np.int8, np.int32)))
    widths = {"q": heads, "k": kv_heads, "v": kv_heads, "o": heads}
    parts = {f"{n}_proj.weight": ((w * head_dim, 5), dtype) for n, w in widths.items()}
    if model_type == "qwen3":
        parts |= {f"{n}_norm.weight": ((head_dim,), dtype) for n in "qk"}
    if draw(st.booleans()):
        parts["k_proj.bias"] = ((kv_heads * head_dim,), dtype)
    if draw(st.booleans()):
        config |= draw(odd_fields)
        parts |= draw(odd_parts)
    return config, parts


def survives(config, parts, side):
    with tempfile.TemporaryDirectory() as scratch:
        source, out = Path(scratch, "source"), Path(scratch, "out")
        source.mkdir()
        (source / "config.json").write_text(json.dumps(config))
        module = "attention" if "query_key_value.weight" in parts else "self_attn"
        tensors = {
            f"model.layers.{layer}.{module}.{part}": np.ones(shape, dtype)
            for layer in range(config["num_hidden_layers"])
            for part, (shape, dtype) in parts.items()
        }
        tensors |= {"model.embed_tokens.weight": np.ones((4, 16), np.float32)}
        save_file(tensors, source / "model.safetensors")
        refusal = ""
        try:
            baking = decide_bake(open_checkpoint(str(source)), BakeSettings(side=side))
            write_copy(baking, out, verify=True)
        except YarncliError as error:
            refusal = str(error)
        if refusal:
            assert 20 < len(refusal) < 900
            assert not out.exists()
            return False
        (header,) = baking.checkpoint.headers().values()
        old, new = ((d / "model.safetensors").read_bytes() for d in (source, out))
        announced = np.zeros(len(old), bool)
        for edit in baking.edits:
            begin, end = (header.header_size + at for at in edit.info.data_offsets)
            row = edit.selection.width * (end - begin) // edit.info.parameters
            for start, stop in edit.selection.ranges:
                assert 0 <= start < stop <= (end - begin) // row
                announced[begin + start * row : begin + stop * row] = True
        changed = np.frombuffer(old, np.uint8) != np.frombuffer(new, np.uint8)
        assert len(old) == len(new)
        assert changed.any()
        assert not (changed & ~announced).any()
        return True


@settings(max_examples=150)
@given(checkpoints(), st.sampled_from(["k", "q", "both", None]))
def test_only_announced_bytes_change(checkpoint, side):
    survives(*checkpoint, side)


def test_what_fits_is_baked():
    config = {
        "model_type": "llama",
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "max_position_embeddings": 128,
        "rope_scaling": YARN,
    }
    parts = {f"{part}_proj.weight": ((16, 16), np.float32) for part in "qkvo"}
    assert survives(config, parts, "k")
