"""The estimate of memory against what a training step takes, measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.checkpoints import ROOT
from support.training_peak import tensors_peak
from yarncli.checkpoint.source import open_checkpoint
from yarncli.config.reading import read_rope
from yarncli.training.memory import estimate


def measured(path: Path, length: int, tuning: str) -> int:
    """By how much a process grew that trains nothing else."""
    places = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "support.training_peak", path, str(length), tuning],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


def estimated(path: Path, length: int, tuning: str) -> int:
    checkpoint = open_checkpoint(path)
    rope = read_rope(checkpoint.config().value)
    return estimate(checkpoint, rope, length, lora=tuning == "lora", mixed=False).peak


@pytest.mark.filterwarnings("ignore::FutureWarning")  # names that transformers 5.23 gives anew
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_the_demo(tuning: str, conv: Path) -> None:
    for length in (256, 1024):
        found = tensors_peak(conv, length, lora=tuning == "lora")
        assert estimated(conv, length, tuning) == pytest.approx(found, rel=0.2)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of SmolLM2-135M's sizes (huggingface.co/HuggingFaceTB/SmolLM2-135M)."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, vocab_size=49152, max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 100000.0},
        tie_word_embeddings=True, dtype="bfloat16",
    )  # fmt: skip
    out = tmp_path_factory.mktemp("models") / "smollm2"
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(out)
    return out


@pytest.mark.full
@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_model_of_135_million_weights(tuning: str, smollm2: Path) -> None:
    found = measured(smollm2, 256, tuning)
    assert estimated(smollm2, 256, tuning) == pytest.approx(found, rel=0.2)
