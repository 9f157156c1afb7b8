"""Real trainers with the files of `recipe`: the guard agrees, `finish` makes the result whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from support.checkpoints import ROOT
from yarncli import convert, finish, judge, recipe

pytestmark = pytest.mark.full

TRAINERS = os.environ.get("YARNCLI_TRAINERS_PYTHON", "")
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


def train(conv: Path, place: Path, python: str, trainer: str, gpus: int, *launch: object) -> Path:
    data = texts(place.with_suffix(".jsonl"))
    recipe(conv, place, trainer=trainer, train_length=512, data=data, gpus=gpus)
    run(python, place, "prepare.py")
    run(python, place, *launch, "train.py", "--steps", 3, "--learning-rate", 1e-3)
    return place / "trained"


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


@pytest.mark.parametrize("trainer", ["transformers", "trl"])
def test_a_training_keeps_the_setting(trainer: str, conv: Path, tmp_path: Path) -> None:
    python = TRAINERS if trainer == "trl" else sys.executable
    if not python:
        pytest.skip("needs YARNCLI_TRAINERS_PYTHON; `make test-full` sets it")
    out = train(conv, tmp_path / "recipe", python, trainer, 32)
    found = finish(out, conv, tmp_path / "done")
    assert (found.run.steps, found.run.train_length, found.run.guarded) == (3, 512, True)
    before, after = load_file(conv / "model.safetensors"), load_file(out / "model.safetensors")
    assert any(not np.array_equal(before[n].astype("f4"), after[n]) for n in before)
    exact = [{v.engine.id: v.status for v in judge(d).verdicts} for d in (conv, tmp_path / "done")]
    assert exact[0] == exact[1]


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


def test_two_processes_train_the_same_model(conv: Path, tmp_path: Path) -> None:
    (tmp_path / "two.yaml").write_text(TWO)
    launch = ("-m", "accelerate.commands.launch", "--config_file", tmp_path / "two.yaml")
    two = train(conv, tmp_path / "a", sys.executable, "transformers", 32, *launch)
    one = train(conv, tmp_path / "b", sys.executable, "transformers", 16)
    pair = [load_file(out / "model.safetensors") for out in (two, one)]
    assert all(np.allclose(pair[0][name], pair[1][name], atol=1e-5) for name in pair[0])
    assert finish(two, conv, tmp_path / "done").run.guarded
