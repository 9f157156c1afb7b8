"""What a trainer leaves: made by transformers' own save, with weights that were moved a little."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from support.checkpoints import DEMO
from support.training import leave
from yarncli.conversion.convert import convert


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`conv`, the demo ×8, and `out`, what a trainer would have saved of it. Not to be changed."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("training")
    convert(DEMO, root / "conv", factor=8)
    model = AutoModelForCausalLM.from_pretrained(root / "conv", dtype=torch.float32)
    with torch.no_grad():
        for number, weight in enumerate(model.parameters()):
            weight.mul_(1 + 1e-3 * (number % 7))
    model.config.use_cache = False
    model.save_pretrained(root / "out")
    AutoTokenizer.from_pretrained(root / "conv").save_pretrained(root / "out")
    leave(root / "out")
    return root


@pytest.fixture
def conv(made: Path, tmp_path: Path) -> Path:
    """A copy of the conversion."""
    return Path(shutil.copytree(made / "conv", tmp_path / "conv"))


@pytest.fixture
def trained(made: Path, tmp_path: Path) -> Path:
    """A copy of what the trainer left."""
    return Path(shutil.copytree(made / "out", tmp_path / "trained"))
