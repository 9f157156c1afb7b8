"""docs/exit-codes.md is what happens: every case that it names is brought about."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import yarncli
from support.checkpoints import DEMO
from support.program import invoke
from yarncli.errors import YarncliError

PAGE = (Path(__file__).parents[2] / "docs" / "exit-codes.md").read_text(encoding="utf-8")
ROWS = {int(c): meaning for c, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.M)}
SHELL = {130, 141}  # brought about in test_app.py and test_manners.py


def phrases() -> set[tuple[int, str]]:
    """(code, case) for every case that the page names."""
    found = set()
    for code, meaning in ROWS.items():
        cases = re.split(r"[:,;]\s+(?:or )?", meaning)
        if re.search(r"cannot be (?:processed|written):", meaning):
            cases = cases[1:]
        found |= {(code, case) for case in cases if code not in SHELL}
    return found


def config(place: Path, **values: Any) -> Path:
    """A config that is a checkpoint's."""
    path = place / "config.json"
    path.write_text(json.dumps({**json.loads((DEMO / "config.json").read_text()), **values}))
    return path


def yarn(**more: Any) -> dict[str, Any]:
    """A scaling by four."""
    return {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, **more}


BAD = {"max_position_embeddings": 256, "rope_scaling": yarn()}
# (code, case of the page) → command lines; {} is an empty directory. More than one where the same
# mistake can be made in several commands.
CASES: dict[tuple[int, str], list[str]] = {
    (0, "done"): ["inspect DEMO", "check DEMO", "convert DEMO {}/out --factor 2"],
    (1, "the command ran correctly and the answer is no"): ["check BAD"],
    (1, "`check --fix` changed a file"): ["check BAD --fix"],
    (2, "a bad option or value"): [
        "inspect DEMO --nope", "convert DEMO {}/out --factor x", "bake DEMO {}/out --form x",
        "engines DEMO --engine x", "check --explain x", "inspect DEMO --plot {}/a.jpg",
        "check-passkey DEMO --out {}/run.csv", "plot x.jsonl --size 3 --out {}/a.png",
    ],
    (2, "an output that exists"): ["convert DEMO {} --factor 2", "demo {}"],
    (2, "no directory for the output"): [
        "convert DEMO {}/no/out --factor 2", "demo {}/no/out", "inspect DEMO --plot {}/no/a.png",
        "check-passkey DEMO --out {}/no/run.jsonl",
        "perplexity DEMO --text DEMO/README.md --out {}/no/r",
    ],
    (2, "options that contradict each other"): [
        "convert DEMO {}/out --factor 2 --length 4k", "demo {}/out --text --tuned",
        "convert DEMO {}/out --in-place --factor 2", "engines DEMO --trainers --engine vllm",
    ],
    (2, "an address or a dataset in the place of a model"): [
        "inspect https://huggingface.co/org/name", "inspect datasets/org/name",
    ],
    (3, "missing"): ["inspect nowhere", "convert nowhere {}/out --factor 2", "card nowhere"],
    (3, "not a model"): [
        "inspect DEMO/model.safetensors", "inspect DEMO/tokenizer_config.json", "engines {}",
    ],
    (3, "damaged"): ["inspect DAMAGED", "plot DEMO/config.json"],
    (3, "contradictory"): ["inspect CONTRADICTORY"],
    (3, "of an architecture that cannot be extended"): ["convert NO_ROPE {}/out --factor 2"],
    (3, "long enough already"): [
        "convert DEMO {}/out --length 256", "convert BAD {}/o --length 512",
    ],
    (4, "an optional dependency is missing"): [
        "inspect DEMO --plot {}/a.png", "check-passkey DEMO",
    ],
    (4, "the message has the install line"): ["inspect DEMO --plot {}/a.png"],
    (5, "the Hub or the network refused or failed"): ["inspect hf://org/name", "check hf://org/name"],
    (5, "a file differs from what the Hub has"): ["inspect hf://org/spoilt"],
    (6, "disk full"): ["convert DEMO {}/closed/out --factor 2"],
    (6, "permission"): ["convert DEMO {}/closed/out --factor 2"],
    (6, "read-only"): ["convert DEMO {}/closed/out --factor 2"],
}  # fmt: skip


def test_every_case_of_the_page_is_brought_about():
    assert CASES.keys() == phrases()


def kinds() -> Iterator[type[YarncliError]]:
    """Every exception that a user can meet, of all rooms."""
    for module in pkgutil.walk_packages(yarncli.__path__, "yarncli."):
        if not module.name.startswith(("yarncli.__main__", "yarncli.evaluation.local")):
            importlib.import_module(module.name)
    waiting: list[type[YarncliError]] = [YarncliError]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


def test_every_exception_ends_with_a_code_of_the_page():
    codes = {kind.exit_code for kind in kinds()}
    assert codes == ROWS.keys() - {0, *SHELL}
    for kind in kinds():  # a kind of failure is not another's code
        assert all(kind.exit_code == base.exit_code for base in kind.__mro__[1:]
                   if issubclass(base, YarncliError) and base is not YarncliError)  # fmt: skip


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, str]:
    """What the words in capitals stand for."""
    made = {"DEMO": shutil.copytree(DEMO, tmp_path / "demo")}
    both = {"rope_scaling": yarn(), "rope_parameters": yarn(factor=8.0)}
    wrong = {"BAD": BAD, "CONTRADICTORY": both, "NO_ROPE": {"model_type": "gpt2"}, "DAMAGED": {}}
    for name, values in wrong.items():
        place = tmp_path / name.lower()
        place.mkdir()
        made[name] = place
        config(place, **values)
    (made["DAMAGED"] / "config.json").write_text('{"model_type": ')
    return {name: str(place) for name, place in made.items()}


LINES = [(code, case, line) for (code, case), lines in CASES.items() for line in lines]


@pytest.mark.parametrize(("code", "case", "line"), LINES, ids=[f"{c} {x}" for c, _, x in LINES])
def test_the_exit_code_is_that_of_the_page(
    code, case, line, sources, tmp_path, monkeypatch, request
):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(tmp_path)
    if code == 4:
        blocked = {"matplotlib", "torch", "transformers", "tokenizers"}
        monkeypatch.setattr("yarncli.extras.find_spec", lambda name: name not in blocked or None)
    if code == 5:
        hub = request.getfixturevalue("minihub")
        hub.add_repo("org/spoilt", DEMO)
        if "spoilt" in line:
            hub.fail("GET", "resolve/.*/config.json", times=9, how="flip")
    if code == 6:
        number = {"disk full": 28, "permission": 13, "read-only": 30}[case]

        def refuse(*_: Any, **__: Any) -> None:
            raise OSError(number, os.strerror(number))

        (empty / "closed").mkdir()
        monkeypatch.setattr(Path, "mkdir", refuse)
    words = [
        re.sub(r"^[A-Z_]{3,}", lambda m: sources[m[0]], word).format(empty) for word in line.split()
    ]
    result = invoke(*words)
    assert result.exit_code == code, result.output
    if code not in (0, 1):
        assert re.search(r"^(?:error|Error): ", result.stderr, re.M)
    if code == 4:
        assert "pip install 'yarncli[" in result.stderr
