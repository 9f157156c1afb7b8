"""`plot`: the formats of figures, what the user decides about one, and tables."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import matplotlib
import pytest

from support.checkpoints import DEMO
from support.program import invoke

RUN = Path(__file__).parents[1] / "fixtures" / "0.1.0" / "passkey.jsonl"
LINES = [json.loads(line) for line in RUN.read_text("utf-8").splitlines()[1:]]


def png_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, as the header of a PNG states them."""
    data = path.read_bytes()
    return int.from_bytes(data[16:20]), int.from_bytes(data[20:24])


@pytest.mark.parametrize(("ending", "begins"), [
    ("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF"), ("PDF", b"%PDF"),
])  # fmt: skip
def test_the_name_decides_the_format_and_the_same_data_give_the_same_file(tmp_path, ending, begins):
    files = [tmp_path / f"{name}.{ending}" for name in "ab"]
    for file in files:
        invoke("plot", RUN, "--out", file, code=0)
    assert files[0].read_bytes().startswith(begins)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_size_dots_and_title_are_the_users(tmp_path):
    png, svg = tmp_path / "a.png", tmp_path / "a.svg"
    invoke("plot", RUN, "--out", png, "--size", "6.5x4", "--dpi", 100, code=0)
    assert png_size(png) == (650, 400)
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # words as words
        invoke("plot", RUN, "--out", svg, "--title", "Retrieval of $5", "--size", "5×3", code=0)
    text = svg.read_text("utf-8")
    assert text.count("Retrieval of $5") == 1
    assert "Passkey" not in text
    assert re.search(r'width="360pt" height="216pt"', re.sub(r"\.0*(?=pt)", "", text))


def test_a_figure_that_no_memory_holds_is_refused(tmp_path):
    """3.6 billion pixels took seven minutes, and more of them ended in a traceback."""
    big = ("--size", "50x50", "--dpi", 1200)
    told = invoke("plot", RUN, "--out", tmp_path / "a.png", *big, code=2).stderr
    assert "60,000 × 60,000 pixels" in " ".join(told.split())
    assert not [*tmp_path.iterdir()]
    invoke("plot", RUN, "--out", tmp_path / "a.svg", *big, code=0)


@pytest.mark.parametrize("size", ["6", "6x", "0x4", "6x4x2", "1000x4", "x", "1.2.3x4", "nanx4"])
def test_what_is_no_size(tmp_path, size):
    told = invoke("plot", RUN, "--out", tmp_path / "a.png", "--size", size, code=2).stderr
    assert "is not a width and a height in inches. Write for example 6.5x4." in told


def test_a_table_has_a_line_for_each_result(tmp_path):
    out = tmp_path / "run.csv"
    answer = json.loads(invoke("plot", RUN, "--out", out, "--json", code=0).stdout)
    assert answer == {"schema_version": 1, "output": str(out), "messages": []}
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(LINES) > 1
    for row, line in zip(rows, LINES, strict=True):
        assert row.pop("file") == "passkey.jsonl"
        assert row.keys() >= line.keys()
        assert (row["variant"], int(row["length"])) == (line["variant"], line["length"])
        assert row["correct"] == str(line["correct"]).lower()


def test_no_cell_is_a_formula_for_a_spreadsheet(tmp_path):
    head, line = RUN.read_text("utf-8").splitlines()[:2]
    run, out = tmp_path / "run.jsonl", tmp_path / "run.csv"
    run.write_text(f"{head}\n{json.dumps({**json.loads(line), 'answer': '=1+1'})}\n")
    invoke("plot", run, "--out", out, code=0)
    assert ",'=1+1" in out.read_text("utf-8")


def test_a_table_of_an_interrupted_run_says_so(tmp_path):
    run = tmp_path / "run.jsonl"
    run.write_bytes(RUN.read_bytes()[:-5])
    told = invoke("plot", run, "--out", tmp_path / "run.csv", code=0).stderr
    assert "ends in the middle of a line" in told


@pytest.mark.parametrize("command", ["check-passkey", "perplexity", "regress"])
@pytest.mark.parametrize("name", ["run.csv", "run.TSV", "run.xlsx"])
def test_json_lines_are_not_written_under_the_name_of_a_table(tmp_path, command, name):
    more = ["--text", RUN] if command == "perplexity" else []
    more += ["--override", "factor=2"] if command == "regress" else []
    told = invoke(command, DEMO, *more, "--out", tmp_path / name, code=2).stderr
    assert f"Give --out {tmp_path / 'run.jsonl'}" in told
    assert not list(tmp_path.iterdir())
