"""Results, messages and progress, on a terminal and elsewhere."""

import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from yarncli.cli import console

ROOT = Path(__file__).resolve().parents[2]


def on_terminal(code, **environment):
    """What `code` writes to stdout and stderr when both are one terminal of 80 columns."""
    leader, follower = pty.openpty()
    base = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES")}
    child = subprocess.Popen(
        [sys.executable, "-c", "import time\nfrom yarncli.cli import bars, console\n" + code],
        cwd=ROOT,
        env={**base, "TERM": "xterm", **environment},
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
    )
    os.close(follower)
    seen = b""
    try:
        while chunk := os.read(leader, 4096):
            seen += chunk
    except OSError:  # Linux reports the closed terminal as an error
        pass
    finally:
        os.close(leader)
    assert child.wait() == 0, seen.decode()
    return seen.decode().replace("\r\n", "\n")


def test_json_is_one_document(capsys):
    data = {"θ": 1e-7, "lengths": [1, 2**40], "text": "\udcff"}
    console.print_json(data)
    out = capsys.readouterr().out
    assert json.loads(out) == data
    assert out.isascii()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_has_no_nan(number, capsys):
    console.print_json({"x": [1.5, {"y": number}]})
    assert json.loads(capsys.readouterr().out) == {"x": [1.5, {"y": str(number)}]}


def test_a_table_aligns_numbers_right_and_text_left(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console.print_table(
        ["engine", "length", "scale"], [["vllm", 131072, 1.1386294361], ["mlx-lm", None, 1.0]]
    )
    assert capsys.readouterr().out.splitlines() == [
        "engine   length    scale",
        "vllm    131,072  1.13863",
        "mlx-lm        –        1",
    ]


def test_a_long_last_column_is_wrapped_below_itself(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    console.print_table(["id", "note"], [["a", "one two three four five six seven eight nine"]])
    assert capsys.readouterr().out.splitlines() == [
        "id  note",
        "a   one two three four five six seven",
        "    eight nine",
    ]


def test_a_reader_that_is_no_terminal_gets_whole_lines(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    console.print_facts({"note": "word " * 60 + "end"})
    assert capsys.readouterr().out == "note  " + "word " * 60 + "end\n"


def test_cells():
    cells = (None, True, 1234567, 0.000012345678, 10000.0, "a\x1b[1m")
    assert list(map(console.format_cell, cells)) == [
        "–",
        "yes",
        "1,234,567",
        "1.23457e-05",
        "10000",
        r"a\x1b[1m",
    ]


def test_bytes():
    sizes = (0, 999, 1000, 999_949, 999_950, 2_600_000_000, 5e15)
    assert [console.format_bytes(size) for size in sizes] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "999.9 kB",
        "1.0 MB",
        "2.6 GB",
        "5000.0 TB",
    ]


def test_text_keeps_tabs_and_line_ends_only(capsys):
    console.print_text("\t+ a\n\x1b[31m")
    assert capsys.readouterr().out == "\t+ a\n\\x1b[31m\n"


def test_messages_go_to_stderr(capsys):
    console.note("n")
    console.warn("w")
    console.error("e")
    captured = capsys.readouterr()
    assert captured.err == "note: n\nwarning: w\nerror: e\n"
    assert captured.out == ""


def test_colour_only_where_it_is_wanted():
    code = "console.warn('x')\nconsole.print_heading('y')"
    assert on_terminal(code) == "\x1b[1;33mwarning:\x1b[0m x\n\x1b[1my\x1b[0m\n"
    assert on_terminal(code, NO_COLOR="1") == "warning: x\ny\n"
    assert on_terminal(code, TERM="dumb") == "warning: x\ny\n"


def test_short_work_shows_no_progress():
    assert on_terminal("with console.progress(10, 'Copying') as done:\n done(10)") == ""


def test_a_terminal_gets_a_bar_that_leaves_no_trace_of_markup():
    code = """
bars.AFTER = 0.0
with console.progress(4_000_000, 'Copying [red]x[/red]') as done:
    done(1_000_000)
    done(1_000_000)
"""
    seen = on_terminal(code, COLUMNS="100")
    assert "Copying [red]x[/red]" in seen
    assert "2.0/4.0 MB" in seen
    assert seen.endswith("\x1b[2K")  # the bar removes itself


def test_a_bar_counts_other_things_too():
    code = """
bars.AFTER = 0.0
with console.progress(40, 'Asking', unit='prompts') as done:
    done(12)
"""
    assert "12/40" in on_terminal(code)


def test_elsewhere_lines_are_written_from_any_thread(capsys, monkeypatch):
    monkeypatch.setattr(console, "_LINE_EVERY", 0.0)
    with console.progress(4000, "Copying") as done:
        threads = [threading.Thread(target=done, args=(1000,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "Copying: 1.0 kB of 4.0 kB",
        "Copying: 2.0 kB of 4.0 kB",
        "Copying: 3.0 kB of 4.0 kB",
    ]
    assert all(line.endswith(" s left") for line in lines)


def test_elsewhere_other_units_are_named(capsys, monkeypatch):
    monkeypatch.setattr(console, "_LINE_EVERY", 0.0)
    with console.progress(40, "Asking", unit="prompts") as done:
        done(10)
    assert capsys.readouterr().err.startswith("Asking: 10 of 40 prompts, ")
