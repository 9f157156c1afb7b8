"""The shipped checkpoint: what is written, and that it does what the docs say of it."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from yarncli.checkpoint.source import open_checkpoint
from yarncli.conversion.conversion import prepare
from yarncli.demo import write_demo
from yarncli.errors import UsageError
from yarncli.evaluation.session import evaluate_passkey
from yarncli.planning.plan import Target

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "train_demo.py"


def accuracy(directory, length, trials=2, override=None):
    report = evaluate_passkey(
        directory, lengths=[length], depths=10, trials=trials, seed=7, override=override
    )
    (result,) = report.lengths()
    return result.accuracy


@pytest.mark.parametrize("tuned", [False, True])
def test_written_files_are_the_packaged_ones(tmp_path, tuned):
    out = write_demo(tmp_path / "model", tuned=tuned)
    packaged = ROOT / "yarncli" / "demo" / ("tuned" if tuned else "base")
    names = {path.name for path in packaged.iterdir()}
    assert names >= {"config.json", "model.safetensors", "tokenizer.json", "README.md"}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in packaged.iterdir()
    }
    assert (out / "model.safetensors").stat().st_mode & 0o044  # readable for others too


def test_existing_directory_is_refused_and_kept(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").touch()
    with pytest.raises(UsageError, match="already exists"):
        write_demo(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["mine"]


def test_size_and_number_of_parameters():
    demo = ROOT / "yarncli" / "demo"
    assert sum(path.stat().st_size for path in demo.rglob("*") if path.is_file()) < 3_000_000
    for name in ("base", "tuned"):
        with safe_open(demo / name / "model.safetensors", "pt") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
        total = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
        assert total == 650_112


def test_base_is_a_plain_config_that_every_engine_reads():
    config = json.loads((ROOT / "yarncli/demo/base/config.json").read_text())
    assert config["rope_theta"] == 10000.0
    assert config["max_position_embeddings"] == 256
    assert not {"rope_scaling", "rope_parameters"} & set(config)


def test_tuned_is_what_convert_writes():
    conversion = prepare(
        open_checkpoint(str(ROOT / "yarncli/demo/base")), Target("yarn", factor=8.0)
    )
    written = {name: after.text for name, (_, after) in conversion.files.items()}
    tuned = ROOT / "yarncli" / "demo" / "tuned"
    assert written == {name: (tuned / name).read_text() for name in written}
    assert {"config.json", "tokenizer_config.json"} <= set(written)


def test_the_story_of_the_demo(demo_model, tuned_model):
    """Inside the window it finds all; far beyond it only YaRN does, and best when fine-tuned."""
    assert accuracy(demo_model, 256, trials=5) >= 0.95
    assert accuracy(demo_model, 2048, trials=1) <= 0.15
    assert accuracy(demo_model, 2048, override="method=yarn,factor=8") >= 0.35
    assert accuracy(tuned_model, 2048) >= 0.85


@pytest.mark.full
def test_the_story_of_the_demo_with_more_prompts(demo_model, tuned_model):
    assert accuracy(demo_model, 256, trials=10) >= 0.95
    assert accuracy(demo_model, 2048, trials=5) <= 0.05
    assert accuracy(demo_model, 2048, trials=5, override="method=linear,factor=8") == 0
    assert accuracy(tuned_model, 2048, trials=5) >= 0.9


@pytest.mark.full
@pytest.mark.timeout(3000)
def test_training_again_gives_a_model_that_does_the_same(tmp_path, monkeypatch):
    for arguments in (["base", "base"], ["tuned", "tuned", "base"]):
        paths = [str(tmp_path / name) for name in arguments[1:]]
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), arguments[0], *paths])
        runpy.run_path(str(SCRIPT), run_name="__main__")
    packaged = ROOT / "yarncli" / "demo"
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "base" / name).read_bytes() == (packaged / "base" / name).read_bytes()
    # On the same processor and torch the weights are the same bytes; elsewhere sums may differ.
    assert accuracy(tmp_path / "base", 256, trials=5) >= 0.9
    assert accuracy(tmp_path / "tuned", 2048, trials=2) >= 0.8


@pytest.fixture(scope="module")
def demo_model():
    return ROOT / "yarncli" / "demo" / "base"


@pytest.fixture(scope="module")
def tuned_model():
    return ROOT / "yarncli" / "demo" / "tuned"
