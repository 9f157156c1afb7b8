"""Every architecture: baked and unbaked checkpoints compute the same logits in transformers."""

import shutil

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
