"""Half a bake is seen: what a wrong rule would forget or overdo changes the logits."""

from dataclasses import replace

import pytest

from yarncli.baking import twin
from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.baking.writing import write_copy
from yarncli.checkpoint.source import open_checkpoint


def without(part):
    return lambda edits: tuple(edit for edit in edits if part not in edit.tensor)


def whole_heads(edits):
    return tuple(
        replace(e, selection=replace(e.selection, windows=((0, e.selection.period),)))
        for e in edits
    )


def no_offset(edits):
    return tuple(replace(edit, offset=0.0) for edit in edits)


def no_last_layer(edits):
    last = max(edit.layer for edit in edits)
    return tuple(edit for edit in edits if edit.layer != last)


def not_squared(edits):
    return tuple(replace(edit, factor=edit.factor**0.5) for edit in edits)


MUTATIONS = [
    ("llama", "k", no_last_layer),
    ("llama", "k", not_squared),
    ("qwen2", "q", without("q_proj.bias")),
    ("gpt_neox", "both", whole_heads),
    ("stablelm@qknorm", "k", whole_heads),
    ("gemma3_text@bothyarn", "k", no_offset),
    ("deepseek_v3@mscale", "q", whole_heads),
    ("deepseek_v32", "k", without("kv_a_proj")),
    ("persimmon", "k", without("layernorm.bias")),
    ("zamba2", "k", without("adapter")),
    ("olmo@clip", "both", without("v_proj")),
    ("longcat_flash", "k", without("self_attn.1.")),
    ("hrm_text", "k", without("L_module")),
]


@pytest.mark.parametrize(
    ("name", "side", "mutate"), MUTATIONS, ids=[f"{n}-{m.__name__}" for n, _, m in MUTATIONS]
)
def test_half_a_bake_changes_the_logits(name, side, mutate, checkpoint_of, tmp_path):
    source = checkpoint_of(name)
    baking = decide_bake(open_checkpoint(str(source)), BakeSettings(side=side))
    edits = mutate(baking.edits)
    assert edits != baking.edits
    write_copy(replace(baking, edits=edits), tmp_path / "out")
    assert twin.difference(twin.logits(source), twin.logits(tmp_path / "out")) > 1e-4


def test_an_unscaled_clamp_changes_the_logits(checkpoint_of, tmp_path):
    source = checkpoint_of("olmo@clip")
    baking = decide_bake(open_checkpoint(str(source)))
    clamp = baking.config[0].get(("clip_qkv",))
    config = baking.config[1].edited({("clip_qkv",): clamp})
    write_copy(replace(baking, config=(baking.config[0], config)), tmp_path / "out")
    assert twin.difference(twin.logits(source), twin.logits(tmp_path / "out")) > 1e-4
