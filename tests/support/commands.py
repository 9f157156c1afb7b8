"""One small model, and every command that reads or changes it, as one table."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from support.checkpoints import snapshot, write_index
from support.kills import leave_killed
from yarncli.baking.bake import bake
from yarncli.checkpoint.directory import pending
from yarncli.checkpoint.recovery import recover
from yarncli.conversion.convert import convert
from yarncli.conversion.undo import undo
from yarncli.publishing.card import card
from yarncli.rules.check import check
from yarncli.training.finish import finish

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "vocab_size": 16,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "torch_dtype": "float32",
}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
Run = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command on `DIR/model`, which writes to `DIR/out` if it does not work in place."""

    run: Run
    """Carries it out; gets DIR."""
    start: str = "plain"
    """Name of the state of `DIR/model` that it starts from; see `states`."""
    in_place: bool = False
    """Whether it changes `DIR/model`."""


def half_bake(directory: Path) -> None:
    """Bake `DIR/model` in place, killed half-way through the first write to its weights."""
    leave_killed(COMMANDS["bake in place"].run, directory, "pwrite", 4, half=True)


COMMANDS: dict[str, Command] = {
    "convert": Command(run=lambda d: convert(d / "model", d / "out", factor=4.0)),
    "convert in place": Command(
        run=lambda d: convert(d / "model", in_place=True, factor=4.0), in_place=True
    ),
    "undo": Command(run=lambda d: undo(d / "model"), start="converted", in_place=True),
    "bake": Command(run=lambda d: bake(d / "model", d / "out"), start="converted"),
    "bake in place": Command(
        run=lambda d: bake(d / "model", in_place=True), start="converted", in_place=True
    ),
    "bake with an adapter": Command(
        run=lambda d: bake(d / "model", d / "out", adapter=(d / "adapter", d / "adapter-out")),
        start="with an adapter",
    ),
    "bake in place with an adapter": Command(
        run=lambda d: bake(d / "model", in_place=True, adapter=(d / "adapter", d / "adapter-out")),
        start="with an adapter",
        in_place=True,
    ),
    "recover": Command(  # in a copy, whose key an earlier run has forgotten
        run=lambda d: recover(d / "model", trust_journal=True), start="half baked", in_place=True
    ),
    "convert and bake": Command(
        run=lambda d: convert(d / "model", d / "out", factor=4.0, bake=True)
    ),
    "check and fix": Command(
        run=lambda d: check(str(d / "model"), fix=True), start="faulty", in_place=True
    ),
    "card": Command(run=lambda d: card(d / "model"), start="converted"),
    "finish": Command(run=lambda d: finish(d / "model", d / "conv", d / "out"), start="trained"),
    "finish in place": Command(
        run=lambda d: finish(d / "model", d / "conv", in_place=True), start="trained", in_place=True
    ),
}


def write_model(place: Path) -> None:
    """A Llama with random weights in two shards, with all the small files that commands change."""
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps(CONFIG, indent=2))
    (place / "tokenizer_config.json").write_text('{"model_max_length": 64}')
    (place / "generation_config.json").write_text('{"max_length": 64}')
    (place / "README.md").write_text("# A model\n")
    random, weight_map = np.random.default_rng(0), {}
    for layer, name in enumerate(SHARDS):
        prefix = f"model.layers.{layer}"
        shapes = {
            f"{prefix}.self_attn.q_proj.weight": (32, 32),
            f"{prefix}.self_attn.k_proj.weight": (16, 32),
            f"{prefix}.self_attn.v_proj.weight": (16, 32),
            f"{prefix}.self_attn.o_proj.weight": (32, 32),
            f"{prefix}.mlp.gate_proj.weight": (32, 32),
            f"{prefix}.mlp.up_proj.weight": (32, 32),
            f"{prefix}.mlp.down_proj.weight": (32, 32),
            f"{prefix}.input_layernorm.weight": (32,),
            f"{prefix}.post_attention_layernorm.weight": (32,),
        }
        if layer:
            shapes |= {"model.norm.weight": (32,), "lm_head.weight": (16, 32)}
        else:
            shapes["model.embed_tokens.weight"] = (16, 32)
        tensors = {n: random.standard_normal(s).astype(np.float32) for n, s in shapes.items()}
        save_file(tensors, place / name, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    size = sum(4 * int(np.prod(shape)) for shape in shapes.values())
    write_index(place, weight_map, size)


def write_adapter(place: Path) -> None:
    """A LoRA adapter of the keys of both layers."""
    place.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["k_proj"]}
    (place / "adapter_config.json").write_text(json.dumps(config))
    random, tensors = np.random.default_rng(1), {}
    for layer in range(len(SHARDS)):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.k_proj"
        tensors[f"{prefix}.lora_A.weight"] = random.standard_normal((2, 32)).astype(np.float32)
        tensors[f"{prefix}.lora_B.weight"] = random.standard_normal((16, 2)).astype(np.float32)
    save_file(tensors, place / "adapter_model.safetensors", metadata={"format": "pt"})


def prepare(states: dict[str, Path], command: Command) -> Run:
    """What fills a directory with the state that a command starts from."""
    return lambda directory: shutil.copytree(states[command.start], directory)


def finished(states: dict[str, Path], command: Command, work: Path) -> dict[str, bytes]:
    """What a directory holds after an undisturbed run."""
    directory = work / "undisturbed"
    prepare(states, command)(directory)
    command.run(directory)
    return snapshot(directory)


def assert_consistent(model: Path) -> None:
    """Insist that an engine which can load a directory loads weights that belong to its config.

    The weights are baked exactly where the config says so, in both shards.
    """
    config = model / "config.json"
    if not config.exists():
        assert pending(model) or not model.exists()
        return
    says_baked = "yarncli_baked" in json.loads(config.read_text())
    baked = [_is_baked(model / name) for name in SHARDS if (model / name).exists()]
    assert baked in ([says_baked] * len(SHARDS), []), f"config: {says_baked}, shards: {baked}"


def _is_baked(shard: Path) -> bool:
    """Whether the keys are larger than `write_model` made them."""
    from safetensors.numpy import load_file

    name = next(name for name in load_file(shard) if "k_proj" in name)
    return bool(load_file(shard)[name].std() > 1.15)
