"""The examples of docs/python-api.md are run as they stand there."""

import doctest
import re
from pathlib import Path

import pytest

import yarncli

PAGE = Path(__file__).resolve().parents[2] / "docs" / "python-api.md"


def test_the_examples_give_what_is_shown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    example = doctest.DocTestParser().get_doctest(text, {}, PAGE.name, str(PAGE), 0)
    assert len(example.examples) > 30
    printed = []
    doctest.DocTestRunner().run(example, out=printed.append)
    assert not printed, "".join(printed)


@pytest.mark.parametrize("name", [n for n in yarncli.__all__ if n[0].islower()])
def test_every_function_is_shown(name):
    assert re.search(rf"yarncli\.{name}\(", PAGE.read_text(encoding="utf-8"))
