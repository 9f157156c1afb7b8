"""Adapters made by peft: baked and merged equals merged and baked."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from yarncli.baking import adapters, twin
from yarncli.baking.deciding import BakeSettings, decide_bake
from yarncli.baking.writing import write_copy
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, UnsupportedArchitectureError

# peft 0.x asks transformers 5 for a property under its old name.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]


def save_adapter(base, directory, **options):
    """A LoRA adapter of a checkpoint, all of its matrices random."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, task_type="CAUSAL_LM", **options))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.rand(parameter.shape, generator=generator)
                parameter.add_(noise * (0.5 if "lora" in name else 0.3))
    model.save_pretrained(directory)
    return directory


def merged_logits(base, adapter, scratch):
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(scratch)
    shutil.copy(base / "config.json", scratch / "config.json")
    return twin.logits(scratch)


CASES = {
    "lora": ("llama", {"target_modules": [*ATTENTION, "up_proj"]}),
    "biases": ("qwen2", {"target_modules": ATTENTION, "bias": "lora_only"}),
    "dora": ("llama", {"target_modules": ["q_proj", "k_proj"], "use_dora": True}),
    "partial": ("stablelm", {"target_modules": ATTENTION}),
    "fused": ("gpt_neox", {"target_modules": ["query_key_value"]}),
    "latent": ("deepseek_v3", {"target_modules": ["q_b_proj", "kv_a_proj_with_mqa"]}),
    "norms carry it": ("qwen3", {"target_modules": ATTENTION}),
    "a copy of a norm": ("qwen3", {"target_modules": ["o_proj"], "modules_to_save": ["k_norm"]}),
}


@pytest.mark.parametrize("name", CASES)
def test_merging_and_baking_commute(name, checkpoint_of, tmp_path):
    architecture, options = CASES[name]
    base = checkpoint_of(architecture)
    adapter = save_adapter(base, tmp_path / "adapter", **options)
    side = "both" if name in ("lora", "biases", "fused") else "k"
    baking = decide_bake(open_checkpoint(str(base)), BakeSettings(side=side))
    write_copy(baking, tmp_path / "baked")
    follows = adapters.decide_adapter(adapter, baking)
    adapters.write_adapter(follows, tmp_path / "adapter-baked")
    meant = merged_logits(base, adapter, tmp_path / "m1")
    found = merged_logits(tmp_path / "baked", tmp_path / "adapter-baked", tmp_path / "m2")
    assert twin.difference(meant, found) < 1e-4
    assert bool(follows.edits) == (name != "norms carry it")
    if follows.edits:
        stale = merged_logits(tmp_path / "baked", adapter, tmp_path / "m3")
        assert twin.difference(meant, stale) > 1e-4


@pytest.fixture
def baking(handmade):
    return decide_bake(open_checkpoint(str(handmade())))


@pytest.fixture
def adapter(tmp_path):
    """A function that writes an adapter by hand."""
    from safetensors.torch import save_file

    def make(tensors=None, **config):
        directory = tmp_path / "adapter"
        directory.mkdir()
        settings = {"peft_type": "LORA", **config}
        (directory / "adapter_config.json").write_text(json.dumps(settings))
        name = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"
        save_file(tensors or {name: torch.ones(16, 4)}, directory / "adapter_model.safetensors")
        return directory

    return make


def test_other_kinds_are_refused(adapter, baking):
    with pytest.raises(UnsupportedArchitectureError, match="IA3"):
        adapters.decide_adapter(adapter(peft_type="IA3"), baking)


def test_transposed_matrices_are_refused(adapter, baking):
    with pytest.raises(UnsupportedArchitectureError, match="fan_in_fan_out"):
        adapters.decide_adapter(adapter(fan_in_fan_out=True), baking)


def test_a_module_the_base_lacks_is_refused(adapter, baking):
    name = "base_model.model.model.layers.0.self_attn.q_gate_proj.lora_B.weight"
    with pytest.raises(UnsupportedArchitectureError, match="q_gate_proj"):
        adapters.decide_adapter(adapter({name: torch.ones(16, 4)}), baking)


def test_other_rows_than_the_base_are_refused(adapter, baking):
    name = "base_model.model.model.layers.0.self_attn.k_proj.lora_B.weight"
    with pytest.raises(CheckpointError, match="should have the 16 rows"):
        adapters.decide_adapter(adapter({name: torch.ones(8, 4)}), baking)


def test_an_adapter_is_never_baked_twice(adapter, baking, tmp_path):
    follows = adapters.decide_adapter(adapter(), baking)
    adapters.write_adapter(follows, tmp_path / "out")
    with pytest.raises(CheckpointError, match="baked already"):
        adapters.decide_adapter(tmp_path / "out", baking)


def test_no_adapter(baking, tmp_path):
    with pytest.raises(CheckpointError, match="not a LoRA adapter"):
        adapters.decide_adapter(tmp_path, baking)


K = "layers.0.self_attn.k_proj.lora_B.weight"


@pytest.mark.parametrize(
    "prefix",
    [
        "base_model.model.model.",
        "base_model.model.",
        "base_model.",
        "",
        "module.base_model.model._orig_mod.model.",
        "base_model.model.model.language_model.",
        "base_model.model.language_model.model.",
        "base_model.model.model.language_model.model.",
        "base_model.model.model.text_model.",
    ],
)
def test_a_module_is_known_by_its_place_in_the_text_model(prefix, adapter, baking):
    found = adapters.decide_adapter(adapter({prefix + K: torch.ones(16, 4)}), baking).edits
    assert [edit.tensor for edit in found] == [prefix + K]


@pytest.mark.parametrize(
    "name",
    [
        "model.vision_tower.encoder.layers.0.self_attn.k_proj",
        "vision_tower.vision_model.encoder.layers.0.self_attn.k_proj",
        "model.visual.blocks.0.attn.qkv",
        "model.audio_tower.layers.0.self_attn.k_proj",
        "model.multi_modal_projector.linear_1",
        "model.embed_tokens",
        "lm_head",
    ],
)
@pytest.mark.parametrize("rows", [16, 24])
def test_what_is_outside_of_the_text_layers_is_left_alone(name, rows, adapter, baking):
    tensors = {
        f"base_model.model.{name}.lora_B.weight": torch.ones(rows, 4),
        f"base_model.model.{name}.lora_magnitude_vector": torch.ones(rows),
        f"base_model.model.{name}.weight": torch.ones(rows, rows),
    }
    assert not adapters.decide_adapter(adapter(tensors), baking).edits


def test_towers_and_text_of_one_model(checkpoint_of, tmp_path):
    from transformers import AutoModelForImageTextToText

    base = checkpoint_of("llava")
    model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "k_proj"]))
    model.save_pretrained(tmp_path / "adapter")
    baking = decide_bake(open_checkpoint(str(base)))
    found = adapters.decide_adapter(tmp_path / "adapter", baking)
    assert any("vision_tower" in name for name in found.header.tensors)
    assert len(found.edits) == len(baking.edits)
    assert all("language_model" in edit.tensor for edit in found.edits)


def test_a_prediction_layer_is_not_the_layer_of_its_number(adapter, handmade, tmp_path):
    import numpy as np

    shapes = {"q_proj": (32, 16), "k_proj": (16, 16)}
    extra = {f"mtp.layers.0.self_attn.{p}.weight": np.ones(s, "f4") for p, s in shapes.items()}
    baking = decide_bake(open_checkpoint(str(handmade(tensors=extra))))
    tensors = {f"base_model.model.{place}{K}": torch.ones(16, 4) for place in ("model.", "mtp.")}
    found = adapters.decide_adapter(adapter(tensors), baking).edits
    assert sorted(edit.tensor for edit in found) == sorted(tensors)
    plain = decide_bake(open_checkpoint(str(handmade(name="plain"))))
    with pytest.raises(UnsupportedArchitectureError, match="mtp"):
        adapters.decide_adapter(tmp_path / "adapter", plain)


def test_two_stacks_of_one_model(adapter, checkpoint_of):
    base = checkpoint_of("hrm_text")
    baking = decide_bake(open_checkpoint(str(base)))
    rows = baking.edits[0].rows_total
    name = "base_model.model.model.{}_module.layers.0.attn.gqkv_proj.lora_B.weight"
    tensors = {name.format(stack): torch.ones(rows, 4) for stack in "HL"}
    found = adapters.decide_adapter(adapter(tensors), baking).edits
    assert sorted(edit.tensor for edit in found) == sorted(tensors)


def test_copies_in_two_shards_are_one_edit_of_the_adapter(adapter, handmade):
    from safetensors.numpy import load_file, save_file

    base = handmade()
    one, two = sorted(base.glob("*.safetensors"))
    name = "model.layers.0.self_attn.k_proj.weight"
    save_file({**load_file(two), name: load_file(one)[name]}, two)
    baking = decide_bake(open_checkpoint(str(base)))
    assert len(adapters.decide_adapter(adapter(), baking).edits) == 1


@pytest.mark.parametrize("place", ["side", "model.layers.9.self_attn", "other.layers.0.attn"])
def test_attention_in_a_place_that_is_not_known_is_refused(place, adapter, baking):
    name = f"base_model.model.{place}.k_proj.lora_B.weight"
    with pytest.raises(UnsupportedArchitectureError, match="does not store"):
        adapters.decide_adapter(adapter({name: torch.ones(16, 4)}), baking)


def test_repeated_layers_are_refused(adapter, baking):
    with pytest.raises(UnsupportedArchitectureError, match="layer_replication"):
        adapters.decide_adapter(adapter(layer_replication=[[0, 2], [0, 2]]), baking)


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_4", "olora", "corda", "loftq"])
def test_a_start_from_the_weights_of_the_base_is_refused(start, adapter, baking):
    with pytest.raises(UnsupportedArchitectureError, match=start):
        adapters.decide_adapter(adapter(init_lora_weights=start), baking)
