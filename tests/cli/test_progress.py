"""No command is silent on a terminal for long; nothing of that reaches a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import sys
import termios
import time
from fcntl import ioctl
from pathlib import Path
from typing import Any

import pytest

from support.commands import write_model
from yarncli.conversion.convert import convert
from yarncli.demo import write_demo

SILENCE = 1.8  # seconds that a step takes here
# Runs the program with a function that sleeps when it is called first.
PROGRAM = """
import importlib, sys, time
place, name, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
module = importlib.import_module(place)
owner, _, attribute = name.rpartition(".")
owner = getattr(module, owner) if owner else module
real = getattr(owner, attribute)
sleeps = [seconds]
def slow(*args, **options):
    if sleeps:
        time.sleep(sleeps.pop())
    return real(*args, **options)
setattr(owner, attribute, slow)
sys.argv = ["yarncli", *sys.argv[4:]]
from yarncli.cli.app import main
main()
"""
# Command line → the function that takes long, and what is shown meanwhile.
SLOW = {
    "inspect model": ("yarncli.checkpoint.safetensors:read_header", "Working"),
    "check model": ("yarncli.checkpoint.safetensors:read_header", "Working"),
    "engines model": ("yarncli.checkpoint.source:read_file", "Working"),
    "convert model OUT --factor 4": ("yarncli.checkpoint.rewrite:_copy", "Copying"),
    "convert model OUT --factor 4 --fsync": (
        "yarncli.checkpoint.output:flush_path", "Flushing to the disk",
    ),
    "bake converted OUT": ("yarncli.checkpoint.rewrite:first_wrong_patch", "Baking"),
    "bake HERE --in-place": ("yarncli.checkpoint.in_place:flush", "Baking"),
    "finish trained OUT --from converted": ("yarncli.checkpoint.rewrite:_copy", "Copying"),
    "recipe converted --out OUT --train-length 256": (
        "yarncli.checkpoint.safetensors:read_header", "Working",
    ),
}  # fmt: skip
LOADING = {
    "bake long OUT --verify": ("yarncli.baking.twin:check_layout", "Checking a small random model"),
    "check-passkey demo --lengths 256 --depths 1 --trials 1": (
        "yarncli.evaluation.local.load:load_tokenizer", "Loading the tokenizer",
    ),
    "check-passkey demo --lengths 256 --depths 1 --trials 1 --no-chat": (
        "yarncli.evaluation.local.load:load_model", "Loading the model",
    ),
    "perplexity demo --text text.txt --lengths 128": (
        "yarncli.evaluation.local.sharing:load_model", "Loading the model",
    ),
    "regress demo --override factor=4 --text text.txt --texts 1": (
        "yarncli.evaluation.local.sharing:load_model", "Loading the model",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    write_model(folder / "model")
    convert(folder / "model", folder / "converted", factor=4.0)
    shutil.copytree(folder / "converted", folder / "trained")
    convert(write_demo(folder / "demo"), folder / "long", factor=4.0)
    (folder / "text.txt").write_text("The sky is blue. The grass is green. " * 200)
    return folder


def command(work: Path, tmp_path: Path, line: str, slow: str, seconds: float = SILENCE) -> list:
    if "HERE" in line:
        shutil.copytree(work / "converted", tmp_path / "here")
    words = line.replace("OUT", str(tmp_path / "out")).replace("HERE", str(tmp_path / "here"))
    place, _, name = slow.partition(":")
    return [sys.executable, "-c", PROGRAM, place, name, str(seconds), *words.split()]


def shown(words: list, work: Path, columns: int, **options: Any) -> tuple[int, list]:
    """The exit code on a terminal, and what was written to it with the seconds until then."""
    leader, follower = pty.openpty()
    ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    base = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "LINES", "CI")}
    child = subprocess.Popen(
        words, cwd=work, env={**base, "TERM": "xterm", **options},
        stdin=subprocess.DEVNULL, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    begun, seen = time.monotonic(), []
    try:
        while select.select([leader], [], [], 120)[0] and (data := os.read(leader, 65536)):
            seen.append((time.monotonic() - begun, data.decode("latin-1")))
    except OSError:  # Linux reports the closed terminal as an error
        pass
    os.close(leader)
    return child.wait(), seen


def whole(seen: list) -> str:
    """All that was written; a letter may have come in two pieces."""
    return "".join(data for _, data in seen).encode("latin-1").decode()


def screen(text: str, columns: int) -> list[str]:
    """The lines that stay on a terminal of so many columns; fails where a bar has wrapped."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|[^\x1b]", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif token.endswith("A") and len(token) > 1:
            row = max(row - int(token[2:-1] or 1), 0)
        elif token.endswith("K") and len(token) > 1:
            lines[row] = ""
        elif len(token) == 1:
            if column == columns:
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            lines[row] = lines[row].ljust(column)[:column] + token + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]


def assert_shown(
    work: Path, tmp_path: Path, line: str, slow: tuple[str, str], columns: int
) -> None:
    words = command(work, tmp_path, line, slow[0])
    code, seen = shown(words, work, columns)
    text = whole(seen)
    assert code in (0, 1), text
    assert slow[1] in text
    # The lines that are left are those of a run in which nothing takes long.
    shutil.rmtree(tmp_path, ignore_errors=True)
    tmp_path.mkdir()
    quick = command(work, tmp_path, line, slow[0], 0.0)
    _, plain = shown(quick, work, columns, TERM="dumb")
    wanted = screen(whole(plain), columns)
    assert comparable(screen(text, columns)) == comparable(wanted)


def comparable(lines: list[str]) -> list[str]:
    """Without what differs from run to run: rates and the bars of slow starts."""
    kept = [re.sub(r"\d[\d,.]* tokens/s.*", "", line) for line in lines]
    return [line for line in kept if line and " …" not in line]


@pytest.mark.parametrize("columns", [80, pytest.param(200, marks=pytest.mark.full)])
@pytest.mark.parametrize("line", SLOW)
def test_a_slow_step_is_shown(work: Path, tmp_path: Path, line: str, columns: int) -> None:
    assert_shown(work, tmp_path, line, SLOW[line], columns)


@pytest.mark.full
@pytest.mark.parametrize("columns", [80, 200])
@pytest.mark.parametrize("line", LOADING)
def test_loading_is_shown(work: Path, tmp_path: Path, line: str, columns: int) -> None:
    assert_shown(work, tmp_path, line, LOADING[line], columns)


def test_it_appears_soon(work: Path, tmp_path: Path) -> None:
    words = command(
        work, tmp_path, "inspect model", "yarncli.checkpoint.safetensors:read_header", 6.0
    )
    _, seen = shown(words, work, 80)
    first = next(when for when, data in seen if "Working" in data)
    last = next(when for when, data in seen if "architecture" in data)
    assert last - first > 3  # of 6 seconds and more


@pytest.mark.parametrize(
    "line", ["convert model OUT --factor 4 --json", "bake converted OUT --json"]
)
def test_nothing_of_it_reaches_a_pipe(work: Path, tmp_path: Path, line: str) -> None:
    words = command(work, tmp_path, line, "yarncli.checkpoint.rewrite:_copy")
    done = subprocess.run(words, cwd=work, capture_output=True, text=True)
    assert done.returncode == 0
    json.loads(done.stdout)
    assert "\x1b" not in done.stderr
    assert "Copying" not in done.stderr
    assert "Working" not in done.stderr


def test_the_result_reaches_its_pipe_while_a_bar_is_on_the_terminal(
    work: Path, tmp_path: Path
) -> None:
    words = command(
        work, tmp_path, "inspect model --json", "yarncli.checkpoint.safetensors:read_header"
    )
    result = tmp_path / "result.json"
    shell = ["sh", "-c", '"$@" > ' + str(result), "sh", *words]
    _, seen = shown(shell, work, 80)
    assert "Working" in whole(seen)
    assert json.loads(result.read_text())["architecture"] == "LlamaForCausalLM"


@pytest.mark.parametrize("quiet", [True, False])
def test_a_quiet_push_shows_none(work: Path, tmp_path: Path, quiet: bool) -> None:
    line = "push converted me/long --dry-run" + " --quiet" * quiet
    words = command(work, tmp_path, line, "yarncli.checkpoint.safetensors:read_header")
    _, seen = shown(words, work, 80, HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert ("Working" in whole(seen)) != quiet


def test_a_terminal_of_another_encoding_gets_a_bar_too(work: Path, tmp_path: Path) -> None:
    words = command(work, tmp_path, "inspect model", "yarncli.checkpoint.safetensors:read_header")
    code, seen = shown(words, work, 80, PYTHONIOENCODING="cp1252")
    assert code == 0
    assert "Working" in whole(seen)
