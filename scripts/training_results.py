"""Train the demo as docs/training.md describes, and write the tables of that page.

    python scripts/training_results.py WORK    measure what is missing, then write the tables
    python scripts/training_results.py         write the tables from the results that are there

WORK gets the models; about 15 minutes on one thread. The interpreter that has TRL is read from
YARNCLI_TRAINERS_PYTHON, as in `make test-full`. Results are the files of --out in docs/training/;
to measure anew, remove them. Every number in the tables comes from these files.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any

from train_demo import FACTOR, ROOT, TUNED_RATE, TUNED_ROWS, WINDOW, run_recipe, write_texts

from yarncli import convert, finish, recipe
from yarncli.checkpoint.output import atomic_write
from yarncli.demo import write_demo
from yarncli.evaluation.report import read_report
from yarncli.evaluation.session import evaluate_passkey

PAGE = ROOT / "docs" / "training.md"
RESULTS = PAGE.with_suffix("")
LENGTHS = [256, 512, 1024, 2048]
TRAIN_LENGTH = 4 * WINDOW
STAGE_RATE = 5e-4
# Result file → the row of a table of the page that shows it.
ROWS = {
    "converted": "×8, not trained",
    "transformers": "transformers 5.23.0, 60 steps",
    "trl": "TRL 1.16.0, 60 steps",
    "longer": "transformers 5.23.0, 100 steps",
    "tuned": "the tuned variant, 100 other prompts",
    "stage-1": "×4, 40 steps, finished",
    "stage-2": "`convert --rescale --length 2048`, 20 steps, finished",
}
# Of `check-passkey`; the tuned variant gets prompts that its settings were not chosen with.
PROMPTS: dict[str, dict[str, int]] = {
    name: {"depths": 10, "trials": 10, "seed": 1} if name == "tuned"
    else {"depths": 10, "trials": 5, "seed": 0}
    for name in ROWS
}  # fmt: skip


def train(work: Path, name: str, trainer: str, steps: int) -> None:
    """Fine-tune the ×8 conversion with the files of `recipe`."""
    files = work / f"recipe-{name}"
    python = os.environ["YARNCLI_TRAINERS_PYTHON"] if trainer == "trl" else sys.executable
    write_texts(work / f"{name}.jsonl", work / "base", 0, steps * TUNED_ROWS, TRAIN_LENGTH)
    recipe(
        work / "converted", files, trainer=trainer, train_length=TRAIN_LENGTH,
        data=work / f"{name}.jsonl", gpus=64 // TUNED_ROWS,
    )  # fmt: skip
    run_recipe(files, "prepare.py", python=python)
    run = ("train.py", "--steps", steps, "--learning-rate", TUNED_RATE)
    run_recipe(files, *run, python=python)
    finish(files / "trained", work / "converted", work / name)


def train_stages(work: Path) -> None:
    """Two stages on texts of one length: ×4, then the window grows to ×8."""
    files, texts = work / "recipe-stages", work / "stages.jsonl"
    rate = ("--learning-rate", STAGE_RATE)
    convert(work / "base", work / "converted-4", factor=FACTOR / 2)
    write_texts(texts, work / "base", 0, 60 * TUNED_ROWS, TRAIN_LENGTH)
    recipe(
        work / "converted-4", files, train_length=TRAIN_LENGTH, stage2=2 * TRAIN_LENGTH, data=texts,
        gpus=64 // TUNED_ROWS,
    )  # fmt: skip
    run_recipe(files, "prepare.py")
    run_recipe(files, "train.py", "--steps", 40, *rate)
    finish(files / "trained", work / "converted-4", work / "stage-1")
    convert(work / "stage-1", files / "stage2", rescale=True, length=2 * TRAIN_LENGTH)
    again = ("--model", "stage2", "--out", "trained-2", "--steps", 20)
    run_recipe(files, "train.py", *again, *rate)
    finish(files / "trained-2", files / "stage2", work / "stage-2")


def prepare(work: Path) -> None:
    """Make the models that are missing."""
    if not (work / "base").exists():
        write_demo(work / "base")
        write_demo(work / "tuned", tuned=True)
        convert(work / "base", work / "converted", factor=FACTOR)
    for name, trainer, steps in (
        ("transformers", "transformers", 60), ("trl", "trl", 60), ("longer", "transformers", 100),
    ):  # fmt: skip
        if not (work / name).exists():
            train(work, name, trainer, steps)
    if not (work / "stage-2").exists():
        train_stages(work)


def measure(work: Path, results: Path) -> None:
    """Measure every model whose result is missing or incomplete."""
    os.chdir(work)  # so that results name the models without a directory
    for name in ROWS:
        options: dict[str, Any] = {**PROMPTS[name], "dtype": "float32", "device": "cpu"}
        out = results / f"{name}.jsonl"
        evaluate_passkey(name, lengths=LENGTHS, **options, out=out, resume=True)


def row(name: str, results: Path = RESULTS) -> str:
    """The row of a table for one result: the share of passkeys found at each length."""
    shares = [each.accuracy for each in read_report(results / f"{name}.jsonl").lengths()]
    cells = [f"{share:.2f}".removeprefix("0") for share in shares]
    return " | ".join([f"| {ROWS[name]}", *cells]) + " |"


def render(page: str, results: Path = RESULTS) -> str:
    """The page with the rows of its tables made from the results.

    Raises:
        ValueError: the page has no such row, or several.
    """
    for name, label in ROWS.items():
        page, count = re.subn(
            rf"^\| {re.escape(label)} \|.*$", row(name, results), page, flags=re.M
        )
        if count != 1:
            raise ValueError(f"{PAGE.name} has {count} rows {label!r}")
    return page


def main() -> None:
    """Measure, if there is a directory for it, and write the tables."""
    if sys.argv[1:]:
        work = Path(sys.argv[1]).resolve()
        work.mkdir(parents=True, exist_ok=True)
        RESULTS.mkdir(exist_ok=True)
        prepare(work)
        measure(work, RESULTS)
    atomic_write(PAGE, render(PAGE.read_text(encoding="utf-8")).encode())


if __name__ == "__main__":
    main()
