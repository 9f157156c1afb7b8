"""The shipped checkpoint: what is written, and that it does what the docs say of it."""

import json
import runpy
import sys
from pathlib import Path

import pytest
from safetensors import safe_open

from support.checkpoints import DEMO, TUNED
from yarncli.checkpoint.source import open_checkpoint
from yarncli.conversion.convert import convert
from yarncli.demo import write_demo, write_demo_text
from yarncli.errors import UsageError
from yarncli.evaluation.session import evaluate_passkey
from yarncli.history import read_history
from yarncli.history.weights import Trained
from yarncli.rules.check import check

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
    packaged = TUNED if tuned else DEMO
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
    assert sum(path.stat().st_size for path in DEMO.parent.rglob("*") if path.is_file()) < 3_000_000
    for model in (DEMO, TUNED):
        with safe_open(model / "model.safetensors", "pt") as file:
            shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
        total = sum(shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes)
        assert total == 650_112


def test_base_is_a_plain_config_that_every_engine_reads():
    config = json.loads((DEMO / "config.json").read_text())
    assert config["rope_theta"] == 10000.0
    assert config["max_position_embeddings"] == 256
    assert not {"rope_scaling", "rope_parameters"} & set(config)


def test_tuned_is_a_conversion_that_was_trained_and_finished():
    conversion = convert(DEMO, method="yarn", factor=8.0, dry_run=True)
    for name in ("config.json", "tokenizer_config.json"):
        wanted = json.loads(conversion.files[name][1].text)
        found = json.loads((TUNED / name).read_text())
        assert {key: found[key] for key in wanted} == wanted
    history = read_history(open_checkpoint(TUNED))
    made, wanted = history.steps[0].to_json(), conversion.history.steps[0].to_json()
    assert {**made, "tool_version": None} == {**wanted, "tool_version": None}
    assert [step.command for step in history.steps] == ["convert", "finish"]
    assert history.trained == Trained(
        steps=60, train_length=1024, guarded=True, adapter=False, dtype="F16"
    )
    assert check(TUNED, strict=True).findings == ()


def test_the_story_of_the_demo():
    """Inside the window it finds all; far beyond it only YaRN does, and best when fine-tuned."""
    assert accuracy(DEMO, 256, trials=5) >= 0.95
    assert accuracy(DEMO, 2048, trials=1) <= 0.15
    assert accuracy(DEMO, 2048, override="method=yarn,factor=8") >= 0.35
    assert accuracy(TUNED, 2048) >= 0.85


def test_the_script_of_make_demo_runs_to_its_end(tmp_path, capfd):
    """With few prompts; that the figures are right is for a person to see."""
    script = runpy.run_path(str(ROOT / "scripts" / "demo.py"))
    few = {"LENGTHS": [256, 512], "DEPTHS": 1, "TRIALS": 1}
    script["main"].__globals__.update(few)
    script["main"](tmp_path / "run")
    assert {"rope.png", "retrieval.png"} <= {path.name for path in (tmp_path / "run").iterdir()}
    printed = capfd.readouterr()
    assert "after: yarn ×8" in printed.out
    assert "Traceback" not in printed.err


@pytest.mark.full
def test_the_story_of_the_demo_with_more_prompts():
    assert accuracy(DEMO, 256, trials=10) >= 0.95
    assert accuracy(DEMO, 2048, trials=5) <= 0.05
    assert accuracy(DEMO, 2048, trials=5, override="method=linear,factor=8") == 0
    assert accuracy(TUNED, 2048, trials=5) >= 0.9


def run_script(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, arguments)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


@pytest.mark.full
@pytest.mark.timeout(900)
def test_tuning_again_gives_a_model_that_does_the_same(tmp_path, monkeypatch):
    tuned = tmp_path / "tuned"
    run_script(monkeypatch, "tuned", tuned, DEMO)
    made, packaged = (json.loads((place / "yarncli.json").read_text()) for place in (tuned, TUNED))
    for step in [*made["steps"], *packaged["steps"]]:
        del step["tool_version"]  # of the yarncli that did it
    assert made == packaged
    # On the same processor and torch the weights are the same bytes; elsewhere sums may differ.
    assert accuracy(tuned, 2048) >= 0.8


@pytest.mark.deep
@pytest.mark.timeout(3000)
def test_training_again_gives_a_model_that_reads_its_window(tmp_path, monkeypatch):
    base = tmp_path / "base"
    run_script(monkeypatch, "base", base)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        assert (base / name).read_bytes() == (DEMO / name).read_bytes()
    assert accuracy(base, 256, trials=5) >= 0.9


def test_the_text_is_what_its_script_writes(tmp_path):
    made = tmp_path / "made.txt"
    runpy.run_path(str(SCRIPT))["write_stories"](made, 0)
    out = write_demo_text(tmp_path / "stories.txt")
    assert out.read_bytes() == made.read_bytes()
    with pytest.raises(UsageError, match="already exists"):
        write_demo_text(out)
