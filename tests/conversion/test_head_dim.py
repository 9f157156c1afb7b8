"""Whether transformers can build what convert writes where the file has no `head_dim`.

Some config classes leave it null then, and the formulas of yarn, dynamic and longrope fail on that.
Which ones is found out here from the installed transformers, on the meta device.
"""

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from support import architectures
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import read_rope
from yarncli.conversion.convert import convert
from yarncli.errors import UnsupportedArchitectureError
from yarncli.jsontext.text import JsonText
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.planning.writing import write_rope

FAST = (
    "chameleon gpt_neox hunyuan_v1_dense hunyuan_v1_moe hunyuan_vl_text llama minimax ministral "
    "mistral mixtral qwen2 stablelm"
).split()
# Where the class has a width of its own, tests/config/test_families.py compares it with the row.
TYPES = [
    pytest.param(name, marks=() if name in FAST else (pytest.mark.full,))
    for name, family in FAMILIES.items()
    if not (family.is_wrapper or family.same_as) and family.head_dim is None
]
# These take none of the methods below; the last has a window here that its code does not read.
REFUSES = {"ernie4_5_vl_moe_text", "phimoe", "qwen3_omni_moe_text"}
METHODS = ("yarn", "ntk-by-parts", "dynamic", "longrope")
HUNYUAN = {
    "model_type": "hunyuan_vl",
    "text_config": {
        "model_type": "hunyuan_vl_text",
        "hidden_size": 64,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "vocab_size": 128,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
    },
}


def fields_without_width(model_type):
    """A tiny `config.json` without `head_dim`, and with windows longer than the text."""
    fields = architectures.tiny_fields(model_type)
    if not isinstance(getattr(architectures.config_class(model_type), "head_dim", None), int):
        fields.pop("head_dim", None)
    if "sliding_window" in fields and not FAMILIES[model_type].scopes:
        fields["sliding_window"] = 4096
    return fields


def lists(method, pairs):
    if method != "longrope":
        return {}
    return {"short_factor": [1.0] * pairs, "long_factor": [2.0] * pairs}


def converted(fields, method):
    """The config that convert writes; None where it refuses the method."""
    rope = read_rope(fields)
    scopes = [scope.parameters for scope in rope.scopes.values()]
    if any(p.rope_type != "default" for p in scopes):
        rope = read_rope(fields, original_length=64)
    target = Target(
        method,
        factor=4.0,
        replace_scaling=any(p.rope_type != "default" for p in scopes),
        options=lists(method, scopes[0].rotary_dim // 2),
    )
    try:
        plan = make_plan(rope, target)
    except UnsupportedArchitectureError:
        return None
    return write_rope(JsonText.parse(json.dumps(fields), "config.json"), rope, plan).value


def build(fields):
    """transformers' model of these fields, with its rotary embedding, without any weights."""
    config = architectures.build_config(fields)
    config._attn_implementation = "eager"
    with torch.device("meta"):
        return architectures.backbone_class(type(config))(config)


def null_fails(fields):
    """Whether a width of null stops transformers, however early it looks at it."""
    try:
        build(fields)
    except Exception as error:  # strict dataclasses wrap the TypeError in one of their own
        if "NoneType" not in str(error):
            raise
        return True
    return False


@pytest.mark.parametrize("model_type", TYPES)
def test_the_row_says_where_transformers_leaves_head_dim_null(model_type):
    fields = fields_without_width(model_type)
    found = [config for m in METHODS if (config := converted(fields, m)) is not None]
    assert found or model_type in REFUSES
    bare = [{k: v for k, v in config.items() if k in fields or k != "head_dim"} for config in found]
    failing = any(null_fails(config) for config in bare)
    assert failing == ("5" in FAMILIES[model_type].head_dim_null_in)


@pytest.mark.parametrize("given", [{}, {"head_dim": None}], ids=["absent", "null"])
@pytest.mark.parametrize("model_type", TYPES)
def test_a_conversion_builds_without_a_width_in_the_file(model_type, given):
    fields = given | fields_without_width(model_type)
    if model_type == "falcon" and given:
        pytest.skip("transformers cannot load it, converted or not: head_dim is read-only")
    for method in METHODS:
        config = converted(fields, method)
        if config is not None:
            build(config)


@pytest.mark.parametrize("method", METHODS)
def test_hunyuan_without_head_dim(method, tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(HUNYUAN))
    convert(source, out, method=method, factor=4.0, config_only=True, **lists(method, 8))
    config = AutoConfig.from_pretrained(out)
    assert config.text_config.head_dim == 16  # 64 wide, 4 heads
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    rotary = [m for m in model.modules() if hasattr(m, "inv_freq") and hasattr(m, "rope_type")]
    assert {m.rope_type for m in rotary} >= {"yarn" if method == "ntk-by-parts" else method}
