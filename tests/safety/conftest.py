"""The states that the commands of `support.commands` start from, each made once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.commands import COMMANDS, CONFIG, half_bake, write_adapter, write_model
from yarncli.checkpoint import directory as directories


@pytest.fixture(scope="session")
def states(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Name → a directory with `model` in that state, to be copied."""
    root = tmp_path_factory.mktemp("states")
    found = {"plain": root / "plain"}
    write_model(found["plain"] / "model")
    for name, earlier, command in (
        ("converted", "plain", "convert in place"),
        ("half baked", "converted", None),
        ("with an adapter", "converted", None),
        ("faulty", "plain", None),
        ("trained", "converted", None),
    ):
        found[name] = root / name
        shutil.copytree(found[earlier], found[name])
        if command:
            COMMANDS[command].run(found[name])
    half_bake(found["half baked"])
    write_adapter(found["with an adapter"] / "adapter")
    trained = found["trained"] / "model"
    shutil.copytree(trained, found["trained"] / "conv")
    left = json.loads((trained / "config.json").read_text())
    left.pop("rope_scaling")
    (trained / "config.json").write_text(json.dumps(left, indent=2))
    (trained / "tokenizer_config.json").unlink()
    (trained / "yarncli.json").unlink()
    faulty = {**CONFIG, "rope_scaling": {"rope_type": "linear", "factor": 4}, "seq_length": 8}
    (found["faulty"] / "model" / "config.json").write_text(json.dumps(faulty, indent=2))
    (found["faulty"] / "model" / "tokenizer_config.json").write_text('{"model_max_length": 32}')
    return found


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directories, "PATIENCE", 0.0)
