"""Every architecture: baked and unbaked checkpoints compute the same logits in transformers."""

import json
import shutil

import pytest
import torch

from yarncli.baking import twin
from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.baking.writing import write_copy
from yarncli.checkpoint.source import open_checkpoint


def test_baked_logits_equal_the_unbaked_ones(architecture, cases, checkpoint_of, tmp_path):
    source = checkpoint_of(architecture)
    meant = twin.logits(source)
    for side in cases[architecture].sides:
        out = tmp_path / side
        write_copy(decide_bake(open_checkpoint(str(source)), BakeSettings(side=side)), out)
        baked = twin.logits(out)
        assert torch.isfinite(baked).all()
        assert twin.difference(meant, baked) < 1e-4, side
    shutil.copy(out / "config.json", source / "config.json")
    assert twin.difference(meant, twin.logits(source)) > 3e-4, "the temperature does not show"


def test_shards_are_baked_as_one_file_is(checkpoint_of, tmp_path):
    from transformers import AutoModelForCausalLM

    whole, sharded = checkpoint_of("llama"), tmp_path / "sharded"
    model = AutoModelForCausalLM.from_pretrained(whole, dtype=torch.float32)
    model.save_pretrained(sharded, max_shard_size="60KB")
    assert len(list(sharded.glob("*.safetensors"))) > 2
    shutil.copy(whole / "config.json", sharded / "config.json")
    write_copy(decide_bake(open_checkpoint(str(sharded))), tmp_path / "out")
    assert twin.difference(twin.logits(whole), twin.logits(tmp_path / "out")) < 1e-4


OWN = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "head_dim": 32,
    "qk_nope_head_dim": 24,
    "v_head_dim": 16,
}
# Ways in which files of dots3_note_text state the sizes of its windowed layers (2 and 3).
DOTS3 = {
    "as saved": {},
    "as released": {f"swa_{key}": value for key, value in OWN.items()},
    "as the config class computes it": {"per_layer_config": {"2": OWN, "3": OWN}},
}


@pytest.mark.parametrize("spelling", DOTS3)
@pytest.mark.parametrize("partial", [None, 0.75])
def test_dots3_rotates_what_its_widths_say(spelling, partial, checkpoint_of, tmp_path):
    """Its config class writes its own partial factor over what the file says."""
    source = checkpoint_of("dots3_note_text")
    config = json.loads((source / "config.json").read_text())
    if DOTS3[spelling]:
        del config["per_layer_config"]
    config |= DOTS3[spelling]
    for entry in config["rope_parameters"].values():
        entry.pop("partial_rotary_factor")
        if partial:
            entry["partial_rotary_factor"] = partial
    (source / "config.json").write_text(json.dumps(config))
    meant = twin.logits(source)
    for side in ("q", "k"):
        out = tmp_path / side
        write_copy(decide_bake(open_checkpoint(str(source)), BakeSettings(side=side)), out)
        assert twin.difference(meant, twin.logits(out)) < 1e-4, side
    shutil.copy(out / "config.json", source / "config.json")
    assert twin.difference(meant, twin.logits(source)) > 3e-4
