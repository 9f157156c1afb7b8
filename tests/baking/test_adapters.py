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
