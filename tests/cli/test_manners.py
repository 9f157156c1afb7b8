"""What every command does alike: help, quiet, verbose, JSON, words, completion, Ctrl-C."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from support.checkpoints import DEMO
from support.program import PROGRAM, interrupt, invoke
from yarncli import UsageError, convert
from yarncli.cli import console
from yarncli.cli.app import COMMANDS
from yarncli.options import choose
from yarncli.rope.methods import METHODS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_the_options_of_all(name):
    page = invoke(name, "-h", code=0).stdout
    assert page == invoke("help", name, code=0).stdout == invoke(name, "--help", code=0).stdout
    for option in ("--json", "-q", "-v", "-h"):
        assert option in page.replace(",", " ").split(), option


@pytest.mark.parametrize("name", ["", *COMMANDS])
def test_help_shows_no_python_types(name):
    page = invoke(*filter(None, [name]), "--help", code=0).stdout
    shown = set(re.findall(r"<([^<>]+)>", page))
    # What is left in angle brackets are lists of choices.
    assert not {words for words in shown if "|" not in words}
    types = r"\b(str|int|float|bool|path|Path|file|directory|range|list\[\w+\]|tuple)\b"
    assert not [words for words in shown if re.search(types, words)]


@pytest.mark.parametrize("name", ["convert", "bake", "check-passkey", "push", "engines"])
@pytest.mark.parametrize("columns", ["80", "120"])
def test_help_has_its_options_under_headings(name, columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    page = invoke(name, "--help", code=0).stdout.split("\n  Examples:")[0]
    parts = re.split(r"^([A-Z][^\n]*):$", page, flags=re.MULTILINE)[1:]
    options = {
        heading: re.findall(r"^  (?:-\w, )?(--[\w-]+)", rows, flags=re.MULTILINE)
        for heading, rows in zip(parts[::2], parts[1::2], strict=True)
    }
    assert options.pop("Arguments") == []
    assert len(options) >= 4
    assert "Options" not in options
    assert all(options.values())
    assert {"--json", "--quiet", "--verbose", "--help"} <= {*options["Run"]}
    module = import_module(f"yarncli.cli.{name.replace('-', '_')}")
    assert list(options) == list(module.HEADINGS.values())


def test_help_version_and_module():
    assert invoke("help", code=0).stdout == invoke("-h", code=0).stdout
    assert invoke("-V", code=0).stdout == invoke("--version", code=0).stdout
    assert "No such command 'foo'" in invoke("help", "foo", code=2).stderr
    ran = subprocess.run([sys.executable, "-m", "yarncli", "-V"], capture_output=True, text=True)
    assert ran.stdout == invoke("-V").stdout


# Command lines that fail in every way there is, and what the process ends with.
FAILURES = {
    "no such option": (["inspect", "x", "--lenght", "4"], 2),
    "no value": (["convert", "x", "--length"], 2),
    "missing argument": (["inspect"], 2),
    "bad number": (["convert", "x", "out", "--factor", "abc"], 2),
    "bad choice": (["bake", "x", "out", "--form", "abc"], 2),
    "bad word": (["inspect", str(DEMO), "--method", "abc"], 2),
    "no such command": (["inspec", "x"], 2),
    "contradiction": (["convert", str(DEMO), "--factor", "2"], 2),
    "no such source": (["inspect", "nowhere"], 3),
    "address": (["engines", "https://huggingface.co/org/name"], 2),
    "nothing to bake": (["bake", str(DEMO), "out"], 3),
    "no network": (["inspect", "hf://org/name"], 5),
    "a long name to check": (["check", "x" * 300], 2),
    "a long name to mend": (["bake", "x" * 300, "--recover"], 2),
}


@pytest.mark.parametrize(("arguments", "code"), FAILURES.values(), ids=FAILURES)
def test_a_failure_is_the_json_document_of_a_json_run(monkeypatch, tmp_path, arguments, code):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    plain = invoke(*arguments, code=code)
    result = invoke(arguments[0], "--json", *arguments[1:], code=code)
    assert plain.stdout == ""
    assert result.stderr == plain.stderr
    document = json.loads(result.stdout)
    assert document.keys() == {"schema_version", "error"}
    error = document["error"]
    assert error["code"] == code
    told = f"{error['message']} {error['hint']}" if error["hint"] else error["message"]
    assert told in " ".join(result.stderr.split())


def test_json_after_the_options_ended_is_a_name():
    assert invoke("inspect", "--", "--json", code=3).stdout == ""


def test_a_document_that_says_no_is_the_only_one(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama", "rope_scaling": {"type": 1}}')
    document = json.loads(invoke("check", tmp_path, "--json", code=1).stdout)
    assert document["errors"] == 1
    assert "error" not in document


def test_commands_without_a_report_print_a_document(tmp_path):
    model = tmp_path / "demo"
    written = json.loads(invoke("demo", model, "--json", code=0).stdout)
    assert written == {"schema_version": 1, "output": str(model)}
    card = json.loads(invoke("card", model, "--json", code=0).stdout)
    assert (card["schema_version"], card["name"]) == (1, "demo")


@pytest.mark.parametrize("place", ["before", "after"])
def test_quiet_leaves_warnings_and_results(tmp_path, place):
    def run(name, *more):
        line = ["convert", DEMO, tmp_path / name, "--factor", "4"]
        return invoke(*more, *line, code=0) if place == "before" else invoke(*line, *more, code=0)

    loud, quiet = run("a"), run("b", "-q")
    assert "note:" in loud.stderr
    assert "note:" not in quiet.stderr
    assert quiet.stderr.count("warning:") == loud.stderr.count("warning:") > 0
    assert quiet.stdout.count("\n") == loud.stdout.count("\n")
    assert "note:" in run("c").stderr, "quiet is of one run"


def test_verbose_tells_stages_and_causes(tmp_path):
    assert "note: Copying: " in invoke("convert", DEMO, tmp_path / "a", "--factor", 4, "-v").stderr
    assert "Traceback" in invoke("inspect", "nowhere", "-v", code=3).stderr
    assert "Traceback" not in invoke("inspect", "nowhere", code=3).stderr


@pytest.mark.parametrize(("variables", "has_color"), [
    ({"FORCE_COLOR": "1"}, True),
    ({"FORCE_COLOR": "0"}, False),
    ({"FORCE_COLOR": ""}, False),
    ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ({}, False),
])  # fmt: skip
def test_color_is_forced_and_forbidden_by_the_environment(monkeypatch, variables, has_color):
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert ("\x1b[" in invoke("inspect", "nowhere", color=True).stderr) == has_color


# What people write, and what it is read as: the option, the word, its own spelling.
@pytest.mark.parametrize(("word", "method"), [
    ("pi", "linear"), ("PI", "linear"), ("NTK-aware", "ntk"), ("ntk_by_parts", "ntk-by-parts"),
    ("YaRN", "yarn"), ("Llama-3", "llama3"), ("dynamic-ntk", "dynamic"),
])  # fmt: skip
def test_methods_have_aliases_here_and_in_python(word, method):
    line = ["convert", DEMO, "--dry-run", "--factor", 4, "--method", word, "--json"]
    assert json.loads(invoke(*line, code=0).stdout)["plan"]["method"] == method
    assert convert(DEMO, dry_run=True, factor=4, method=word).plan.method == method


@pytest.mark.parametrize(("arguments", "found"), [
    (["engines", str(DEMO), "--engine", "vLLM"], "vllm"),
    (["engines", str(DEMO), "--engine", "llamacpp"], "llama.cpp"),
    (["engines", str(DEMO), "--engine", "Transformers"], "transformers-5"),
    (["convert", str(DEMO), "--dry-run", "--factor", "4", "--spelling", "V5"], "rope_parameters"),
    (["convert", str(DEMO), "--dry-run", "--factor", "4", "--for", "SGLang,MLX"], "factor 4"),
    (["inspect", str(DEMO), "--assume-like", "Qwen-3"], "qwen3"),
    (["check", "--explain", "V5-Only"], "# v5-only"),
])  # fmt: skip
def test_capitals_and_punctuation_do_not_count(arguments, found):
    assert found in invoke(*arguments, code=0).stdout


@pytest.mark.parametrize(("line", "told"), [
    ("bake {} o --form residul", "--form 'residul'. Did you mean residual?"),
    ("engines {} --engine vllmm", "engine 'vllmm'. Did you mean vllm"),
    ("check {} --ignore v5-onyl", "rule 'v5-onyl'. Did you mean v5-only"),
    ("inspect {} --assume-like lama", "model type 'lama'. Did you mean llama"),
    ("inspect {} --method yarm", "method 'yarm'. Did you mean yarn?"),
    ("bake {} o --layout mal", "layout 'mal'. Did you mean mla"),
    ("recipe {} --out o --train-length 1k --trainer tlr", "trainer 'tlr'. Did you mean trl"),
])  # fmt: skip
def test_a_mistyped_word_gets_a_suggestion(line, told):
    arguments = [word.format(DEMO) for word in line.split()]
    assert f"There is no {told}" in invoke(*arguments, code=2).stderr


@pytest.mark.parametrize(("option", "value", "told"), [
    ("--depths", "x", "'x' is not a whole number of at least 1."),
    ("--depths", "0", "'0' is not a whole number of at least 1."),
    ("--seed", "1.5", "'1.5' is not a whole number."),
    ("--min-accuracy", "90%", "'90%' is not a number from 0 to 1."),
    ("--min-accuracy", "3", "'3' is not a number from 0 to 1."),
    ("--timeout", "soon", "'soon' is not a number of at least 1."),
])  # fmt: skip
def test_numbers_are_refused_in_plain_english(option, value, told):
    stderr = invoke("check-passkey", DEMO, option, value, code=2).stderr
    assert f"Invalid value for '{option}': {told}\n" in stderr


def test_words_of_python_options_are_read_alike():
    assert convert(DEMO, dry_run=True, factor=4, spelling="LEGACY").plan
    with pytest.raises(UsageError, match=r"There is no spelling 'legaci'\. Did you mean legacy\?"):
        convert(DEMO, dry_run=True, factor=4, spelling="legaci")


def test_a_word_of_a_long_list_names_similar_ones_only():
    with pytest.raises(UsageError) as caught:
        choose("w70", [f"w{number}" for number in range(1000, 1200)], "word")
    assert len(str(caught.value)) < 100


def complete(line):
    """What bash would offer after a command line, from a process of its own."""
    words = line.split(" ")
    environment = {
        **os.environ, "_YARNCLI_COMPLETE": "complete_bash", "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }  # fmt: skip
    code = (
        "import sys, atexit\n"
        "heavy = ('torch', 'transformers', 'numpy', 'huggingface_hub', 'matplotlib')\n"
        "atexit.register(lambda: print('HEAVY', *[h for h in heavy if h in sys.modules]))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code + PROGRAM[2]], capture_output=True, text=True, env=environment
    )
    *found, heavy = ran.stdout.splitlines()
    assert heavy == "HEAVY", ran.stdout + ran.stderr
    return found


@pytest.mark.parametrize(("line", "found"), [
    ("yarncli convert a b --method nt", ["ntk", "ntk-by-parts"]),
    ("yarncli convert a b --method LL", ["llama3"]),
    ("yarncli convert a b --for vllm,sg", ["vllm,sglang"]),
    ("yarncli engines a --engine llama", ["llama.cpp"]),
    ("yarncli engines a --explain sg", ["sglang"]),
    ("yarncli check a --ignore v5", ["v5-only"]),
    ("yarncli check --explain v5", ["v5-only"]),
    ("yarncli bake a b --layout mla-k", ["mla-key-norm"]),
    ("yarncli bake a b --form r", ["residual"]),
    ("yarncli inspect a --assume-like qwen2_m", ["qwen2_moe"]),
    ("yarncli check-passkey a --device c", ["cpu", "cuda"]),
    ("yarncli check-passkey a --dtype b", ["bfloat16"]),
    ("yarncli check-passkey a --tasks passkey,tr", ["passkey,tracking"]),
    ("yarncli check-passkey a --compare none,dy", ["none,dynamic", "none,dynamic-yarn"]),
    ("yarncli check-passkey a --override fa", ["factor="]),
    ("yarncli check-passkey a --override factor=4,method=ya", ["factor=4,method=yarn"]),
    ("yarncli recipe a --trainer tr", ["transformers", "trl"]),
    ("yarncli push a b --allow pi", ["pickle"]),
    ("yarncli pu", ["push"]),
])  # fmt: skip
def test_values_are_completed_without_a_heavy_module(line, found):
    assert complete(line) == found


def test_every_method_is_completed():
    assert complete("yarncli convert a b --method ") == [*METHODS]


def test_an_interrupt_says_what_is_saved(tmp_path):
    out = tmp_path / "run.jsonl"
    told = interrupt(
        lambda: out.exists() and out.read_bytes().count(b"\n") > 1,
        "check-passkey", DEMO, "--lengths", "250", "--trials", "100", "--out", out,
    )  # fmt: skip
    assert f"note: Interrupted. {out} holds what was measured so far." in told
    assert "--resume goes on" in told


def test_the_state_of_a_run_ends_with_it():
    invoke("inspect", "nowhere", "--json", "-v")
    invoke("inspect", "nowhere")
    assert not console.is_verbose()
