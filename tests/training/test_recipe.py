"""`recipe`: what stands in the files, the rows, the memory, and what is refused."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from support.checkpoints import DEMO
from support.program import invoke
from yarncli import UsageError, convert, recipe
from yarncli.checkpoint.source import open_checkpoint
from yarncli.config.reading import read_rope
from yarncli.training.memory import estimate
from yarncli.training.rows import count, prepare
from yarncli.training.trainers import trainers

WRITTEN = [name for name, trainer in trainers().items() if trainer.files]
# What would change RoPE in one of the trainers, where it is set.
ROPE_KEYS = {
    "rope_scaling", "rope_parameters", "rope_theta", "max_model_len", "overrides_of_model_config",
    "rope_type", "max_position_embeddings", "model_init_kwargs", "overrides_of_model_kwargs",
}  # fmt: skip


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Three rows of 512 tokens and one that is too short."""
    path = tmp_path / "texts.jsonl"
    rows: list[dict[str, Any]] = [{"input_ids": [*range(3, 503)] * 3}]
    rows += [{"text": "The grass is green. " * 100}, {"text": "short"}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("trainer", WRITTEN)
def test_the_files_hold_no_rope_option(
    trainer: str, tuning: Any, conv: Path, tmp_path: Path
) -> None:
    found = recipe(
        conv, tmp_path / "r", trainer=trainer, train_length=1024, tuning=tuning, gpus=2,
        stage2=4096,
    )  # fmt: skip
    assert {path.name for path in (tmp_path / "r").iterdir()} == found.files.keys()
    for name, text in found.files.items():
        assert "$" not in text
        if name.endswith(".py"):
            words = {n.arg for n in ast.walk(ast.parse(text)) if isinstance(n, ast.keyword)}
        elif name.endswith(".yaml"):
            words = yaml.safe_load(text).keys()
        else:
            continue
        assert not words & ROPE_KEYS, name
    whole = "".join(found.files.values())
    assert "yarncli.guard(" in whole
    assert str(conv.resolve()) in whole
    saved = ("/checkpoint-400", "/checkpoint-200") if trainer == "swift" else ("", "")
    words = found.files["README.md"]
    adapter = " --adapter" if tuning == "lora" else ""
    assert f"yarncli finish trained{saved[0]} finished --from {conv}{adapter}\n" in words
    assert f"yarncli finish trained-2{saved[1]} finished-2 --from stage2{adapter}\n" in words
    model = "merged" if tuning == "lora" else "finished"
    assert f"yarncli convert {model} stage2 --rescale --length 4096" in words
    assert ("lora" in whole.lower()) is (tuning == "lora")
    assert ("python merge.py" in words) is ("merge.py" in found.files) is (tuning == "lora")


def test_the_guard_of_a_second_stage_compares_with_its_conversion(
    conv: Path, tmp_path: Path
) -> None:
    """That of ms-swift has the conversion in it, because a callback is not told the model."""
    found = recipe(conv, tmp_path / "r", trainer="swift", train_length=1024, stage2=4096)
    second = yaml.safe_load(found.files["train-2.yaml"])
    assert (second["model"], second["external_plugins"]) == ("stage2", ["yarncli_guard_2.py"])
    assert 'CONVERTED = "stage2"\n' in found.files["yarncli_guard_2.py"]
    assert f'CONVERTED = "{conv.resolve()}"\n' in found.files["yarncli_guard.py"]


@pytest.mark.parametrize(("trainer", "key", "value"), [
    ("axolotl", "sequence_len", 1024), ("axolotl", "excess_length_strategy", "raise"),
    ("llamafactory", "cutoff_len", 1024), ("swift", "max_length", 1024),
    ("swift", "truncation_strategy", "split"),
    ("axolotl", "gradient_accumulation_steps", 8), ("swift", "learning_rate", 2e-5),
])  # fmt: skip
def test_what_cuts_without_a_word_is_set(
    trainer: str, key: str, value: object, conv: Path, tmp_path: Path
) -> None:
    found = recipe(conv, tmp_path / "r", trainer=trainer, train_length=1024, gpus=8)
    assert yaml.safe_load(found.files["train.yaml"])[key] == value


def test_trl_is_told_its_length(conv: Path, tmp_path: Path) -> None:
    text = recipe(conv, tmp_path / "r", trainer="trl", train_length=1024).files["train.py"]
    assert "max_length=LENGTH" in text
    assert "LENGTH = 1024" in text


def test_rows_are_counted_and_cut(conv: Path, texts: Path, tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(conv / "tokenizer.json"))
    long = len(tokenizer.encode("The grass is green. " * 100).ids)
    found = count(texts, conv, 512)
    assert (found.texts, found.long_enough) == (3, 1 + (long >= 512))
    assert found.rows == 1500 // 512 + long // 512
    prepare(texts, conv, 512, tmp_path / "rows.bin")
    rows = np.fromfile(tmp_path / "rows.bin", "<u4").reshape(-1, 512)
    assert len(rows) == found.rows
    assert [*rows[0][:3], rows[1][0]] == [3, 4, 5, 3 + 512 % 500]
    for form in ("ids", "text"):
        prepare(texts, conv, 512, tmp_path / form, form)
        lines = (tmp_path / form).read_text().splitlines()
        assert len(lines) == found.rows
        assert set(json.loads(lines[0])) in (
            {"input_ids", "attention_mask", "labels"}, {"text", "messages"},
        )  # fmt: skip


@pytest.mark.parametrize(("content", "words"), [
    ('{"text": "short"}\n', "0 of 1 texts reach 1,024"),
    ('{"prompt": "x"}\n', "none of text, messages and input_ids"),
    ("[1]\n", "not a JSON object"),
    ("nothing\n", "not JSON"),
    ("", "0 of 0 texts"),
])  # fmt: skip
def test_data_without_long_texts_are_refused(
    content: str, words: str, conv: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.jsonl").write_text(content)
    arguments = ("--train-length", "1k", "--data", tmp_path / "t.jsonl", "--out", tmp_path / "r")
    assert words in invoke("recipe", conv, *arguments, code=2).stderr
    assert not (tmp_path / "r").exists()


def test_what_is_refused(conv: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "r")
    for arguments, code, words in (
        ((conv, "--train-length", "4k"), 2, "more than the 2,048"),
        ((conv, "--train-length", 1024, "--stage2", 2048), 2, "not more than"),
        ((conv, "--train-length", 1024, "--trainer", "torchtune"), 2, "would not train the model"),
        ((conv, "--train-length", 1024, "--trainer", "mystery"), 2, "no trainer 'mystery'. Known"),
        ((conv, "--train-length", 1024, "--gpus", 0), 2, "positive"),
        ((DEMO, "--train-length", 256), 3, "not a conversion"),
    ):
        assert words in invoke("recipe", *arguments, *out, code=code).stderr
    (tmp_path / "r").mkdir()
    assert "exists" in invoke("recipe", conv, "--train-length", 1024, *out, code=2).stderr
    convert(DEMO, tmp_path / "dynamic", method="dynamic", factor=4)
    recipe(conv, tmp_path / "fine", train_length=512)


def test_the_table_of_trainers(conv: Path) -> None:
    shown = invoke("engines", conv, "--trainers", code=0).stdout
    assert all(trainer.id in shown for trainer in trainers().values())
    rows = json.loads(invoke("engines", conv, "--trainers", "--json", code=0).stdout)["trainers"]
    assert [row["id"] for row in rows] == [*trainers()]
    assert "--trainers goes" in invoke("engines", conv, "--trainers", "--factor", 2, code=2).stderr
    assert "has no RoPE scaling" in invoke("engines", DEMO, "--trainers", code=0).stderr


def test_more_gpus_split_weights_and_optimizer(conv: Path) -> None:
    checkpoint = open_checkpoint(conv)
    rope = read_rope(checkpoint.config().value)
    one, eight = (estimate(checkpoint, rope, 1024, gpus=n) for n in (1, 8))
    assert one.weights // eight.weights == 8
    assert one.logits == eight.logits
    assert one.weights == checkpoint.parameters() * 4


def test_a_place_that_is_taken(conv: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        recipe(conv, tmp_path / "no" / "r", train_length=512)
