"""The examples in Python of the documentation are run as they stand there."""

import doctest
import re
from pathlib import Path

import pytest

import yarncli

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = DOCS / "python-api.md"
PAGES = [page for page in DOCS.rglob("*.md") if "```pycon" in page.read_text(encoding="utf-8")]


def test_the_examples_are_found():
    assert {"notebook.md", "python-api.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_examples_give_what_is_shown(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")
    example = doctest.DocTestParser().get_doctest(text, {}, page.name, str(page), 0)
    assert example.examples
    printed = []
    doctest.DocTestRunner().run(example, out=printed.append)
    assert not printed, "".join(printed)


@pytest.mark.parametrize("name", [n for n in yarncli.__all__ if n[0].islower()])
def test_every_function_is_shown(name):
    assert re.search(rf"yarncli\.{name}\(", PAGE.read_text(encoding="utf-8"))
