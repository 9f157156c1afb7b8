"""A model made of several that rotate: each gets its own factor, and its own config."""

import json

import pytest

from yarncli.baking import adapters
from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, ConfigError, UnsupportedArchitectureError

STACKS = {
    "global_config": "model.global_transformer.",
    "encoder_config": "model.local_encoder.",
    "decoder_config": "model.local_decoder.",
    "patcher_config": "model.patcher.",
}


@pytest.fixture
def blt(checkpoint_of):
    """A function: a tiny BLT with a change to its config."""
    source = checkpoint_of("blt")
    path = source / "config.json"
    before = json.loads(path.read_text())

    def change(edit=lambda config: None):
        config = json.loads(json.dumps(before))
        edit(config)
        path.write_text(json.dumps(config))
        return open_checkpoint(str(source))

    return change


def factors_of(baking):
    """Part → the factors on its keys."""
    return {
        key: {round(e.factor, 4) for e in baking.edits if e.tensor.startswith(stack)}
        for key, stack in STACKS.items()
    }


def test_every_part_gets_its_own_factor(blt, attention_factor):
    def edit(config):
        config["patcher_config"]["rope_parameters"]["factor"] = 2.0
        config["encoder_config"]["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}

    baking = decide_bake(blt(edit))
    m4, m2 = round(attention_factor**2, 4), round(1.0693147180559945**2, 4)
    assert factors_of(baking) == {
        "global_config": {m4}, "encoder_config": set(), "decoder_config": {m4},
        "patcher_config": {m2},
    }  # fmt: skip
    before, after = (text.value for text in baking.config)
    changed = {key for key in after if after[key] != before.get(key)}
    assert changed == {"yarncli_baked", *STACKS} - {"encoder_config"}
    assert after["patcher_config"]["rope_parameters"]["attention_factor"] == 1.0
    assert baking.baked.attention_factor["patcher_config"] == pytest.approx(1.0693147180559945)


def test_a_factor_that_is_asked_for_is_of_the_extended_parts(blt):
    def edit(config):
        for key in ("encoder_config", "decoder_config", "patcher_config"):
            config[key]["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}

    found = factors_of(decide_bake(blt(edit), BakeSettings(attention_factor=1.5)))
    assert found == {**{key: set() for key in STACKS}, "global_config": {2.25}}


def test_nothing_to_bake_in_any_part(blt):
    def edit(config):
        for key in STACKS:
            config[key]["rope_parameters"] = {"rope_theta": 5e5, "rope_type": "default"}

    with pytest.raises(CheckpointError, match="nothing to bake"):
        decide_bake(blt(edit))


def test_a_part_that_is_switched_off_is_left_alone(blt):
    found = factors_of(decide_bake(blt(lambda config: config.update(patch_in_forward=False))))
    assert not found["patcher_config"]
    assert found["global_config"]


def test_a_part_without_a_config(blt):
    with pytest.raises(ConfigError, match="decoder_config is missing"):
        decide_bake(blt(lambda config: config.pop("decoder_config")))


def test_other_engines_are_not_judged(blt):
    baking = decide_bake(blt())
    assert not baking.judgement().verdicts
    with pytest.raises(UnsupportedArchitectureError, match="several models"):
        baking.judgement(["vllm"])


def test_an_adapter_follows_every_part(blt, tmp_path):
    import torch
    from safetensors.torch import save_file

    baking = decide_bake(
        blt(lambda config: config["patcher_config"]["rope_parameters"].update(factor=2.0))
    )
    rows = {edit.tensor: edit.rows_total for edit in baking.edits}
    tensors = {
        f"base_model.model.{name.removesuffix('weight')}lora_B.weight": torch.ones(count, 4)
        for name, count in rows.items()
    }
    directory = tmp_path / "adapter"
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file(tensors, directory / "adapter_model.safetensors")
    found = adapters.decide_adapter(directory, baking).edits
    meant = sorted((edit.tensor.removesuffix(".weight"), edit.factor) for edit in baking.edits)
    assert [
        (name.removeprefix("base_model.model.").removesuffix(".lora_B.weight"), factor)
        for name, factor in sorted((edit.tensor, edit.factor) for edit in found)
    ] == meant
