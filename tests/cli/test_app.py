"""How the program is put together: help, exit codes, and what a failure looks like."""

import os
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

from support.checkpoints import DEMO, PACKAGE
from support.program import PROGRAM, invoke
from yarncli import __version__, errors
from yarncli.cli import app as program
from yarncli.cli import options
from yarncli.rope.methods import METHODS

ROOT = Path(__file__).resolve().parents[2]
CLI = PACKAGE / "cli"
CONFIG = DEMO / "config.json"


def command(name):
    group = typer.main.get_command(program.app)
    return group.get_command(group.make_context("yarncli", [], resilient_parsing=True), name)


@pytest.fixture
def boom(monkeypatch):
    """Register a command `boom` that raises what it is given."""

    def register(error, cause=None):
        def boom() -> None:
            raise error from cause

        module = ModuleType("yarncli.cli.boom")
        module.boom = boom
        module.EXAMPLES = []
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(program, "COMMANDS", ("boom",))
        monkeypatch.delenv("YARNCLI_DEBUG", raising=False)

    return register


# The table of design and docs: what a script may rely on.
@pytest.mark.parametrize(
    ("kind", "code"),
    [
        ("CheckFailed", 1),
        ("UsageError", 2),
        ("CheckpointError", 3),
        ("ConfigError", 3),
        ("WeightsError", 3),
        ("UnsupportedArchitectureError", 3),
        ("MissingExtraError", 4),
        ("HubError", 5),
        ("OutputError", 6),
    ],
)
def test_a_foreseen_failure_is_one_line_and_an_exit_code(boom, kind, code):
    boom(getattr(errors, kind)("what, where\nand what next"))
    result = invoke("boom")
    assert result.exit_code == code
    assert result.stderr == "error: what, where and what next\n"
    assert result.stdout == ""


def test_every_kind_of_failure_has_a_row_in_the_documentation():
    page = (ROOT / "docs" / "exit-codes.md").read_text(encoding="utf-8")
    codes = {
        kind.exit_code
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, errors.YarncliError)
    }
    assert codes == {1, 2, 3, 4, 5, 6}
    for code in (0, *codes, 130, 141):
        assert f"| {code} |" in page


def test_a_message_cannot_drive_the_terminal(boom):
    boom(errors.ConfigError("rope_type '\x1b[2J\x9b1m\u202e\udcff'"))
    assert invoke("boom").stderr == r"error: rope_type '\x1b[2J\x9b1m\u202e\udcff'" + "\n"


def test_debug_shows_the_chain_of_causes(boom, monkeypatch):
    boom(errors.HubError("no answer"), cause=OSError("connection refused"))
    assert "Traceback" not in invoke("boom").stderr
    monkeypatch.setenv("YARNCLI_DEBUG", "1")
    stderr = invoke("boom").stderr
    assert stderr.index("OSError: connection refused") < stderr.index("HubError: no answer")
    assert stderr.endswith("error: no answer\n")


def test_a_bug_keeps_its_traceback(boom):
    boom(ValueError("a bug"))
    assert isinstance(invoke("boom").exception, ValueError)


def test_an_interrupt_ends_with_130(boom):
    boom(KeyboardInterrupt())
    result = invoke("boom")
    assert (result.exit_code, result.stderr) == (130, "")


def run(*arguments, **settings):
    # What is still buffered at the end is what fails at the end.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    return subprocess.run(
        [*PROGRAM, *arguments],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        **settings,
    )


def test_a_reader_that_went_away_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    try:
        result = run("inspect", str(CONFIG), "--json", stdout=writing)
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_behind_stdout_is_one_sentence():
    with Path("/dev/full").open("w") as full:
        result = run("inspect", str(CONFIG), stdout=full)
    assert result.returncode == 6
    assert result.stderr == b"error: Cannot write to standard output: No space left on device.\n"


def test_stdout_of_another_encoding_gets_escapes(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    result = run("inspect", str(CONFIG), stdout=subprocess.PIPE)
    assert result.returncode == 0
    assert b"\\u03b8" in result.stdout  # θ


def test_version():
    assert invoke("--version").stdout == f"yarncli {__version__}\n"


def test_the_package_runs_as_the_command():
    command = [sys.executable, "-m", "yarncli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True).stdout == (
        f"yarncli {__version__}\n"
    )


def test_help_lists_every_command_with_its_first_sentence():
    result = invoke("--help")
    assert result.exit_code == 0
    for name in program.COMMANDS:
        assert f"\n  {name}  " in result.stdout


def test_no_arguments_show_the_help_page():
    assert invoke().output == invoke("--help").output


def test_a_mistyped_command_gets_a_suggestion():
    result = invoke("inspcet")
    assert result.exit_code == 2
    assert "Did you mean 'inspect'?" in result.stderr


def test_every_command_module_is_registered():
    modules = {path.stem for path in CLI.glob("*.py") if "\nEXAMPLES" in path.read_text("utf-8")}
    assert {name.replace("-", "_") for name in program.COMMANDS} == modules


@pytest.mark.parametrize("name", program.COMMANDS)
def test_examples_are_on_the_help_page_and_parse(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "40")  # narrow: command lines must not be wrapped
    page = invoke(name, "--help")
    assert page.exit_code == 0
    examples = program.load_examples(name)
    assert examples
    for line, purpose in examples:
        assert f"\n    {line}\n        {purpose}\n" in page.stdout
        words = shlex.split(line)
        assert words[:2] == ["yarncli", name]
        command(name).make_context(name, words[2:])


@pytest.mark.parametrize("name", ["convert", "inspect"])
def test_the_methods_offered_are_those_of_the_library(name):
    assert f"--method <{'|'.join(METHODS)}>" in invoke(name, "--help").stdout
    refused = invoke(name, str(CONFIG), "--method", "yarnn", "--factor", "2")
    assert refused.exit_code == 2
    assert "There is no method 'yarnn'. Did you mean yarn? Known: yarn, ntk," in refused.stderr


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1", 1),
        ("131072", 131072),
        ("128k", 131072),
        ("128K", 131072),
        ("1M", 1048576),
        ("131,072", 131072),
        ("128_000", 128000),
        ("1,048,576", 1048576),
        ("1.5M", 1572864),
        ("1.5k", 1536),
        ("0.5k", 512),
        (" 4k ", 4096),
    ],
)
def test_lengths(text, tokens):
    assert options.parse_length(text) == tokens


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "1.1k",
        "1.5",
        "0.0k",
        "1,5",
        "13,1072",
        "1,",
        "12 k",
        "1kk",
        "1e6",
        "k",
        "٣",
        "1__000",
        "9" * 30,
        "nan",
    ],
)
def test_what_is_not_a_length(text):
    with pytest.raises(typer.BadParameter, match="is not a length"):
        options.parse_length(text)


def test_a_bad_length_is_a_usage_error():
    result = invoke("inspect", str(CONFIG), "--length", "long")
    assert result.exit_code == 2
    assert "--length" in result.stderr
    assert "'long' is not a length" in result.stderr
