"""Whatever a checkpoint holds: a documented exit code, soon, and nothing else is touched."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from hostile.corpus import ITEMS
from hostile.trial import COMMANDS, IN_PLACE, Trial, remove
from support.checkpoints import DEMO
from support.configs import TINY_LLAMA
from support.program import invoke

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
FEW = ("check", "convert", "card")  # what every checkpoint meets in the default tests
DEEP = "YARNCLI_FUZZ_SEED" in os.environ
READING = tuple(name for name in COMMANDS if name not in IN_PLACE)
ABOUT_NUMBERS = ("inspect json", "check json", "convert", "bake", "card", "check-passkey")


@pytest.fixture(scope="session")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound checkpoint that every command takes: yarn in the config, and nothing recorded."""
    place = tmp_path_factory.mktemp("healthy") / "model"
    place.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(DEMO / name, place / name)
    (place / "config.json").write_text(json.dumps(TINY_LLAMA | {"rope_scaling": YARN}))
    (place / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n")
    parts = {f"model.layers.0.self_attn.{part}_proj.weight": (64, 64) for part in "qkvo"}
    tensors = {name: np.ones(shape, np.float32) for name, shape in parts.items()}
    save_file(tensors, place / "model.safetensors")
    warm = place.with_name("warm")
    # What the children import they would each import anew.
    for argv in (
        ["inspect", place], ["engines", place], ["card", place], ["plot", place],
        ["convert", place, warm, "--rescale", "--length", "4096"], ["check", place],
        ["bake", place, warm / "baked"], ["push", place, "org/x", "--dry-run", "--include", "no"],
    ):  # fmt: skip
        invoke(*argv)
    return place


def kinds() -> dict[str, list[str]]:
    """The names of the items by kind, which is what stands before the colon."""
    found: dict[str, list[str]] = {}
    for name in ITEMS:
        found.setdefault(name.partition(":")[0], []).append(name)
    return found


def complaints(names: list[str], commands: tuple[str, ...], healthy: Path, work: Path) -> list[str]:
    """What is wrong after each of the named checkpoints met each of the commands.

    Those that read meet one and the same checkpoint, those that change it a fresh one each.
    """
    found = []
    reading = [command for command in commands if command not in IN_PLACE]
    for name in names:
        for met in (reading, *([command] for command in commands if command in IN_PLACE)):
            work.mkdir()
            try:
                for command, (ended, wrong) in Trial(ITEMS[name], healthy, work).meet(met).items():
                    found += [f"{name} / {command} ({ended}): {x}" for x in wrong]
            finally:
                remove(work)
    return found


def test_a_sound_checkpoint_is_taken(healthy: Path, tmp_path: Path) -> None:
    """Else everything below could be refused for a reason of its own."""
    trial = Trial(lambda place, canary: None, healthy, tmp_path)
    found = trial.meet(READING)
    assert {command: ended for command, (ended, _) in found.items()} == dict.fromkeys(
        READING, "0"
    ) | {
        "inspect preview": "3", "check json": "1", "bake an adapter": "3",
        "card of results": "3", "plot": "3", "check-passkey": "torch",
    }  # fmt: skip
    assert not [wrong for _, wrong in found.values() if wrong]


def test_the_guards_see(healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that hangs, crashes, writes outside or changes its source is found out."""
    from yarncli.cli import console

    def misbehave(*_: object) -> None:
        Path("item/config.json").write_text("{}")
        Path("canary/deep/run.sh").write_text("false\n")
        Path("home/.bashrc").write_text("x")
        raise ZeroDivisionError

    monkeypatch.setattr(console, "print_facts", misbehave)
    trial = Trial(lambda place, canary: None, healthy, tmp_path)
    ((ended, wrong),) = trial.meet(["inspect"]).values()
    assert ended == "traceback"
    assert {"the canary was touched", "the checkpoint was changed", "home: .bashrc"} < {*wrong}


@pytest.mark.parametrize("kind", kinds())
def test_nothing_but_a_documented_end(kind: str, healthy: Path, tmp_path: Path) -> None:
    names = kinds()[kind]
    names = names[:: 1 + len(names) // 8]  # at most eight of a kind; the others in `full`
    assert not complaints(names, FEW, healthy, tmp_path / "work")


@pytest.mark.full
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", kinds())
def test_every_command_meets_every_kind(kind: str, healthy: Path, tmp_path: Path) -> None:
    """Each checkpoint meets a sixth of the commands in turn; in `make test-deep` all of them."""
    commands = ABOUT_NUMBERS if kind.endswith("number") else tuple(COMMANDS)
    names = kinds()[kind]
    parts = 1 if DEEP or len(names) < 4 else min(len(names), 6)
    for part in range(parts):
        met = commands[part::parts]
        assert not complaints(names[part::parts], met, healthy, tmp_path / "work")
