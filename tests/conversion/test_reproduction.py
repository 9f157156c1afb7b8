"""The command that the card prints makes the same files: every method, options alone, in pairs."""

from __future__ import annotations

import itertools
import json
import re
import shlex
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import typer

from support.program import invoke
from yarncli.baking import bake
from yarncli.cli import bake_print, convert_print
from yarncli.cli.app import app
from yarncli.conversion import convert as convert_module
from yarncli.demo import write_demo
from yarncli.errors import YarncliError
from yarncli.history import History
from yarncli.publishing.reproduction import reproduction
from yarncli.rope.methods import METHODS

GROUP = typer.main.get_command(app)
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
}
YARN = {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 128}
SOURCES = {
    "plain": LLAMA,
    "scaled": {**LLAMA, "rope_scaling": YARN},
    "unknown": {**LLAMA, "model_type": "mystery"},
}
FACTORS = ",".join(str(1 + i / 7) for i in range(8))

# What decides what is written: parameter → the words that give it.
CONVERT = {
    "length": "--length 1k",
    "factor": "--factor 3.7",
    "original_length": "--original-length 128",
    "beta_fast": "--beta-fast 24.5",
    "beta_slow": "--beta-slow 2",
    "attention_factor": "--attention-factor 1.0625",
    "truncate": "--no-truncate",
    "rope_theta": "--rope-theta 123456.789",
    "low_freq_factor": "--low-freq-factor 1.5",
    "high_freq_factor": "--high-freq-factor 3.3",
    "short_factor": f"--short-factor {FACTORS}",
    "long_factor": "--long-factor factors.json",
    "rescale": "--rescale",
    "replace_scaling": "--replace-scaling",
    "assume_like": "--assume-like llama",
    "spelling": "--spelling v5",
    "for_": "--for llama.cpp,transformers-5",
    "config_only": "--config-only",
    "sliding_window": "--sliding-window 8192",
}
BAKE = {
    "form": "--form residual",
    "side": "--side both",
    "attention_factor": "--attention-factor 1.21",
    "layout": "--layout plain",
    "assume_like": "--assume-like llama",
}
# What is about one run and its output: where to, how, what else to check or to tell; and what is
# about GGUF files, which have no card.
RUN = {
    "convert": {"from_", "weights", "in_place", "undo", "dry_run", "overwrite", "fsync", "json",
                "quiet", "verbose"},
    "bake": {
        "carrier", "engine", "adapter", "verify", "verify_logits", "in_place", "recover",
        "trust_journal", "dry_run",
        "overwrite", "fsync", "json", "quiet", "verbose",
    },
}  # fmt: skip


def command(name: str) -> Any:
    return GROUP.get_command(typer.Context(GROUP), name)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "known"),
    [("convert", {"method", "bake", *CONVERT}), ("bake", set(BAKE))],
)
def test_every_option_is_recorded_or_about_the_run(name: str, known: set[str]) -> None:
    """A new option must be put into one of the tables above."""
    options = {parameter.name for parameter in command(name).params} - {"source", "out", "help"}
    assert options == known | RUN[name]
    assert not known & RUN[name]


def printed(history: History) -> list[list[str]]:
    """The words of the commands that a card prints under "How to reproduce it"."""
    text = "\n".join(reproduction(history, "again"))
    return [shlex.split(line) for line in re.findall(r"^yarncli (.*)$", text, re.M)]


@pytest.fixture
def sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directories of `SOURCES`, and a file of factors, in the current directory."""
    for name, config in SOURCES.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config, indent=1))
        (tmp_path / name / "tokenizer_config.json").write_text('{"model_max_length": 256}')
        (tmp_path / name / "generation_config.json").write_text('{"max_length": 256}')
    (tmp_path / "factors.json").write_text(json.dumps([2 + i / 3 for i in range(8)]))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def conversions(sources: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What every `convert` decides from here on; nothing is written, no engine is judged."""
    found: list[Any] = []
    monkeypatch.setattr(convert_module, "write_copy", lambda *given, **named: None)
    monkeypatch.setattr(convert_print, "print_conversion", lambda made, **how: found.append(made))
    return found


def run(words: list[str]) -> None:
    command(words[0]).main(words[1:], standalone_mode=False)


# What each method takes besides the options that all take.
OPTIONS = {
    "yarn": "beta_fast beta_slow attention_factor truncate for_ rescale",
    "ntk": "rope_theta for_ rescale",
    "ntk-by-parts": "beta_fast beta_slow truncate for_ rescale",
    "linear": "for_ rescale",
    "dynamic": "for_ rescale",
    "llama3": "low_freq_factor high_freq_factor for_ rescale",
    "longrope": "attention_factor short_factor long_factor",
}
COMMON = "length factor original_length replace_scaling assume_like spelling config_only"


def words_of(method: str, names: tuple[str, ...]) -> list[str]:
    """The words of a conversion with the options `names`, and with what these need besides."""
    needed = () if "length" in names else ("factor",)
    needed += ("short_factor", "long_factor") if method == "longrope" else ()
    needed += ("original_length",) if "replace_scaling" in names else ()
    given = [CONVERT[name] for name in dict.fromkeys((*names, *needed))]
    is_scaled = {"rescale", "replace_scaling"} & set(names)
    source = "unknown" if "assume_like" in names else "scaled" if is_scaled else "plain"
    return ["convert", source, "out", "--method", method, *" ".join(given).split()]


@pytest.mark.parametrize("method", METHODS)
def test_a_conversion_is_reproduced(conversions: list[Any], method: str) -> None:
    made: Counter[str] = Counter()
    for names in itertools.chain.from_iterable(
        itertools.combinations(CONVERT, n) for n in (0, 1, 2)
    ):
        words = words_of(method, names)
        try:
            run(words)
        except YarncliError:
            continue
        first = conversions.pop()
        (again,) = printed(first.history)
        assert again[:3] == ["convert", words[1], "again"]
        run(again)
        assert conversions.pop().written_files == first.written_files, words
        made.update(names)
    assert made.keys() == {*OPTIONS[method].split(), *COMMON.split()}


def test_a_bake_is_reproduced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Any] = []
    monkeypatch.setattr(bake, "_check_twin", lambda *rest: None)
    monkeypatch.setattr(bake_print, "print_report", lambda report: found.append(report.baking))
    monkeypatch.chdir(tmp_path)
    scaling = {**YARN, "factor": 4.0, "original_max_position_embeddings": 256}
    for name, change in (("yarn", {"rope_scaling": scaling}), ("plain", {})):
        config = write_demo(tmp_path / name) / "config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), **change}))
    made: Counter[str] = Counter()
    for size, source in itertools.product((0, 1, 2), ("yarn", "plain")):
        for names in itertools.combinations(BAKE, size):
            words = ["bake", source, "out", *(w for n in names for w in BAKE[n].split())]
            try:
                run([*words, "--dry-run"])
            except YarncliError:
                continue
            first = found.pop()
            (again,) = printed(first.history)
            run([*again, "--dry-run"])
            second = found.pop()
            assert (second.files, second.edits) == (first.files, first.edits), words
            made.update(names)
    assert made.keys() == BAKE.keys()


@pytest.mark.parametrize(
    "options",
    [
        "--method ntk --rope-theta 500000 --factor 4",
        "--no-truncate --factor 4",
        "--factor 4 --bake --attention-factor 1.2",
        "--method linear --factor 4 --for llama.cpp --config-only",
    ],
)
def test_the_card_of_a_checkpoint_reproduces_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str
) -> None:
    """The whole way: files written, the card printed, its lines run, all files compared."""
    monkeypatch.chdir(tmp_path)
    write_demo(tmp_path / "model")

    def cli(*words: str) -> str:
        return invoke(*words, code=0).stdout

    cli("convert", "model", "first", *options.split())
    for line in re.findall(r"^yarncli (.*)$", cli("card", "first", "--name", "me/again"), re.M):
        cli(*shlex.split(line))
    files = {path.name for path in (tmp_path / "first").iterdir()}
    assert files == {path.name for path in (tmp_path / "again").iterdir()}
    records = []
    for name in files:
        one, two = ((tmp_path / d / name).read_bytes() for d in ("first", "again"))
        if name == "yarncli.json":
            records = [json.loads(text)["steps"] for text in (one, two)]
        else:
            assert one == two, name
    for step in itertools.chain(*records):
        step.pop("source")
    assert records[0] == records[1]
    shutil.rmtree(tmp_path / "again")
