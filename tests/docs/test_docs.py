"""What the documentation shows is what the commands print."""

import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts/docs_output.py"))
PAGES = [page for page in SCRIPT["PAGES"] if "```console" in page.read_text(encoding="utf-8")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_shows_what_is_printed(page):
    assert SCRIPT["render"](page) == page.read_text(encoding="utf-8")


def test_a_changed_output_would_be_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo 4\n5\n```\n", encoding="utf-8")
    assert SCRIPT["render"](page) == "```console\n$ echo 4\n4\n```\n"
    page.write_text("```console\n$ seq 3\n1\n[…]\n```\n", encoding="utf-8")
    assert SCRIPT["render"](page) == page.read_text(encoding="utf-8")
