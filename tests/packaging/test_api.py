"""`import yarncli`: the public names, lazily; every function twice, after every submodule."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest

import yarncli
from support.checkpoints import DEMO
from support.minihub_writing import open_for_writing
from yarncli.demo import write_demo_text

FUNCTIONS = {
    "bake", "card", "check", "convert", "evaluate_passkey", "evaluate_perplexity", "finish",
    "fit", "guard", "inspect", "judge", "open_checkpoint", "plan", "push", "recipe", "regress",
}  # fmt: skip
EXCEPTIONS = {
    name
    for name, value in vars(importlib.import_module("yarncli.errors")).items()
    if isinstance(value, type) and issubclass(value, Exception)
}


def test_every_name_is_there_and_is_what_it_says() -> None:
    assert set(yarncli.__all__) >= EXCEPTIONS | FUNCTIONS
    rest = set(yarncli.__all__) - EXCEPTIONS - FUNCTIONS
    assert all(name.endswith("Options") for name in rest)
    assert set(yarncli.__all__) <= set(dir(yarncli))
    for name in yarncli.__all__:
        value = getattr(yarncli, name)
        assert value.__name__.removesuffix("_checkpoint" if name == "judge" else "") == name
        assert value.__doc__
        assert value.__module__.startswith("yarncli.")
    with pytest.raises(AttributeError, match="no attribute 'convrt'"):
        _ = yarncli.convrt


def test_type_checkers_are_told_the_same_names() -> None:
    """The imports under TYPE_CHECKING say for each name the module that it comes from."""
    tree = ast.parse(Path(str(yarncli.__file__)).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    told = {
        alias.asname or alias.name: f"{node.module}"
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == {name: getattr(yarncli, name).__module__ for name in yarncli.__all__}


def test_a_name_is_imported_when_it_is_used() -> None:
    code = (
        "import sys, yarncli\n"
        "before = {n for n in sys.modules if n.startswith('yarncli.')}\n"
        "yarncli.plan\n"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub', 'rich', 'typer'}\n"
        "print(sorted(before), sorted(heavy & sys.modules.keys()), sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n[]\n"


@pytest.fixture
def calls(tmp_path: Path, minihub: Any) -> dict[str, Callable[[int], Any]]:
    """Each public function with small arguments; it takes the number of the call."""
    open_for_writing(minihub)
    minihub.add_user("hf_token", "me")
    minihub.log_in("hf_token")
    y, few = yarncli, {"lengths": (256,), "depths": 1, "trials": 1}
    converted = tmp_path / "converted"
    stories = write_demo_text(tmp_path / "stories.txt")
    y.convert(DEMO, converted, factor=8)
    trained = tmp_path / "trained"  # as a trainer leaves it: without its record
    shutil.copytree(converted, trained)
    (trained / "yarncli.json").unlink()

    def guarded(n: int) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(converted))
        return y.guard(model, converted, trained)

    return {
        "open_checkpoint": lambda n: y.open_checkpoint(DEMO),
        "inspect": lambda n: y.inspect(DEMO, factor=4),
        "plan": lambda n: y.plan(DEMO, factor=4),
        "convert": lambda n: y.convert(DEMO, tmp_path / f"out{n}", factor=4),
        "bake": lambda n: y.bake(converted, tmp_path / f"baked{n}"),
        "judge": lambda n: y.judge(converted),
        "check": lambda n: y.check(converted),
        "evaluate_passkey": lambda n: y.evaluate_passkey(DEMO, **few),
        "evaluate_perplexity": lambda n: y.evaluate_perplexity(
            DEMO, text=[stories], lengths=(64,), tokens=64
        ),
        "regress": lambda n: y.regress(DEMO, converted, text=[stories], length=64, texts=1),
        "card": lambda n: y.card(converted, name="me/demo"),
        "finish": lambda n: y.finish(trained, converted, tmp_path / f"finished{n}"),
        "fit": lambda n: y.fit(
            DEMO, factor=4, budget=1, prompts=2, lengths=(200,), text=[stories], texts=2
        ),
        "guard": guarded,
        "recipe": lambda n: y.recipe(converted, tmp_path / f"recipe{n}", train_length=512),
        "push": lambda n: y.push(converted, "me/demo", dry_run=True),
    }


def test_every_function_works_twice_once_every_submodule_is_imported(
    calls: dict[str, Callable[[int], Any]], capfd: pytest.CaptureFixture[str]
) -> None:
    for found in pkgutil.walk_packages(yarncli.__path__, "yarncli."):
        importlib.import_module(found.name)
    assert calls.keys() == FUNCTIONS
    for name, call in calls.items():
        assert isinstance(getattr(yarncli, name), FunctionType)
        first, second = call(1), call(2)
        if name == "open_checkpoint":
            assert first.files == second.files
            continue
        documents = [json.loads(json.dumps(x.to_json(), allow_nan=False)) for x in (first, second)]
        assert documents[0].keys() == documents[1].keys(), name
        with pytest.raises(FrozenInstanceError):
            setattr(first, fields(first)[0].name, None)
    assert capfd.readouterr() == ("", "")
