"""Real trainers with the files of `recipe`: the guard agrees, `finish` makes the result whole."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.checkpoints import DEMO, ROOT
from yarncli import convert, evaluate_passkey, finish, judge, recipe

# One worker runs all of it, so that the fixtures are made once.
pytestmark = [
    pytest.mark.full, pytest.mark.xdist_group("live-training"), pytest.mark.timeout(900),
]  # fmt: skip

TRAINERS = os.environ.get("YARNCLI_TRAINERS_PYTHON", "")
STEPS, LENGTH, ROWS, RATE = 60, 512, 2, 5e-4
# Two processes on a CPU (gloo).
TWO = "\n".join((
    "compute_environment: LOCAL_MACHINE", "distributed_type: MULTI_GPU", "num_machines: 1",
    "num_processes: 2", "use_cpu: true", "mixed_precision: 'no'",
))  # fmt: skip


def run(python: str, directory: Path, *arguments: object) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    command = [python, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def texts(path: Path) -> Path:
    """A few rows of 512 tokens."""
    random = np.random.default_rng(0)
    rows = [{"input_ids": random.integers(3, 500, 512).tolist()} for _ in range(16)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def demo_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new row for each step: passkeys, stories and copies, as the demo was trained on."""
    out = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    script = runpy.run_path(str(ROOT / "scripts" / "train_demo.py"))
    script["write_texts"](out, DEMO, 0, STEPS * ROWS, LENGTH)
    return out


def train(
    conv: Path, place: Path, python: str, data: Path, *launch: object, trainer: str = "transformers"
) -> Path:
    """Run the files of a recipe; returns what the trainer saved."""
    # A recipe divides its 64 rows of a step among GPUs, and a process has the rows of one.
    processes = 2 if launch else 1
    gpus = 64 // ROWS * processes
    recipe(conv, place, trainer=trainer, train_length=LENGTH, data=data, gpus=gpus)
    run(python, place, "prepare.py")
    run(python, place, *launch, "train.py", "--steps", STEPS, "--learning-rate", RATE)
    return place / "trained"


@pytest.fixture(scope="module")
def alone(made: Path, demo_texts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What transformers.Trainer saved, in one process."""
    place = tmp_path_factory.mktemp("alone") / "recipe"
    return train(made / "conv", place, sys.executable, demo_texts)


@pytest.fixture(scope="module")
def untrained(made: Path) -> float:
    return found_keys(made / "conv")


def found_keys(model: Path) -> float:
    """The share of passkeys that a model finds, within the length of its training."""
    lengths = (LENGTH // 2, LENGTH)
    results = evaluate_passkey(str(model), lengths=lengths, depths=10, trials=2).lengths()
    return sum(result.accuracy for result in results) / len(results)


PARQUET = """
import json, pyarrow, pyarrow.parquet as parquet
rows = [json.loads(line) for line in open("texts.jsonl")]
parquet.write_table(pyarrow.Table.from_pylist(rows), "texts.parquet")
"""


def test_rows_of_a_parquet_file(conv: Path, tmp_path: Path) -> None:
    """With the data given to the script, as `recipe` was not told them."""
    if not TRAINERS:
        pytest.skip("needs YARNCLI_TRAINERS_PYTHON; `make test-full` sets it")
    place = tmp_path / "recipe"
    recipe(conv, place, train_length=512)
    lines = texts(place / "texts.jsonl").read_text().splitlines()
    rows = [json.loads(line)["input_ids"] for line in lines]
    run(TRAINERS, place, "-c", PARQUET)
    run(TRAINERS, place, "prepare.py", "texts.parquet")
    assert np.fromfile(place / "rows.bin", "<u4").reshape(-1, 512).tolist() == rows


def require_kept(out: Path, conv: Path, done: Path, share: float) -> None:
    """The setting was kept, every engine computes as before, and this share of keys is found."""
    found = finish(out, conv, done)
    assert (found.run.steps, found.run.train_length, found.run.guarded) == (STEPS, LENGTH, True)
    exact = [{v.engine.id: v.status for v in judge(d).verdicts} for d in (conv, done)]
    assert exact[0] == exact[1]
    assert found_keys(done) >= share


def test_a_training_keeps_the_setting(
    made: Path, alone: Path, untrained: float, tmp_path: Path
) -> None:
    require_kept(alone, made / "conv", tmp_path / "done", untrained + 0.05)


def test_a_training_with_trl_keeps_the_setting(
    made: Path, demo_texts: Path, untrained: float, tmp_path: Path
) -> None:
    if not TRAINERS:
        pytest.skip("needs YARNCLI_TRAINERS_PYTHON; `make test-full` sets it")
    out = train(made / "conv", tmp_path / "recipe", TRAINERS, demo_texts, trainer="trl")
    require_kept(out, made / "conv", tmp_path / "done", untrained)


def test_a_second_stage(conv: Path, tmp_path: Path) -> None:
    """The window grows, the training texts do not: the commands of the README, run."""
    place, data = tmp_path / "r", texts(tmp_path / "texts.jsonl")
    recipe(conv, place, train_length=512, data=data, gpus=32, stage2=4096)
    run(sys.executable, place, "prepare.py")
    run(sys.executable, place, "train.py", "--steps", 2)
    finish(place / "trained", conv, place / "finished")
    convert(place / "finished", place / "stage2", rescale=True, length=4096)
    again = ("--model", "stage2", "--out", "trained-2", "--steps", 1)
    run(sys.executable, place, "train.py", *again)
    found = finish(place / "trained-2", place / "stage2", place / "finished-2")
    assert [step.command for step in found.history.steps] == ["convert", "finish"] * 2
    assert (found.run.steps, found.run.train_length, found.run.guarded) == (1, 512, True)
    config = json.loads((place / "finished-2" / "config.json").read_text())
    assert config["max_position_embeddings"] == 4096


def test_two_processes_train_the_same_model(
    made: Path, alone: Path, demo_texts: Path, untrained: float, tmp_path: Path
) -> None:
    (tmp_path / "two.yaml").write_text(TWO)
    launch = ("-m", "accelerate.commands.launch", "--config_file", tmp_path / "two.yaml")
    two = train(made / "conv", tmp_path / "recipe", sys.executable, demo_texts, *launch)
    pair = [load_file(out / "model.safetensors") for out in (two, alone)]
    differences = {name: np.abs(pair[0][name] - pair[1][name]).max() for name in pair[0]}
    assert max(differences.values()) < 1e-4
    require_kept(two, made / "conv", tmp_path / "done", untrained + 0.05)
