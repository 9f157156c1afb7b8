"""What the documentation shows is what the commands print: each console block is a test."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SPEC = importlib.util.spec_from_file_location("docs_output", ROOT / "scripts" / "docs_output.py")
assert SPEC is not None
assert SPEC.loader is not None
SCRIPT = importlib.util.module_from_spec(SPEC)
sys.modules[SPEC.name] = SCRIPT  # where its dataclass looks itself up
SPEC.loader.exec_module(SCRIPT)


def place(block: Any) -> str:
    return f"{block.page.relative_to(ROOT).as_posix()}:{block.line}"


# Pages that measure for half a minute and more.
LONG = {"check-passkey.md", "fit.md", "perplexity.md", "regress.md"}


def marks(page: Path) -> list[pytest.MarkDecorator]:
    """The blocks of a page are one story in one directory: one worker of pytest-xdist has them."""
    group = pytest.mark.xdist_group(f"docs {page.name}")
    return [group, pytest.mark.full] if page.name in LONG else [group]


BLOCKS = [
    pytest.param(block, id=place(block), marks=marks(page))
    for page in SCRIPT.PAGES
    for block in SCRIPT.blocks(page)
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], str]:
    """What a block prints, once those before it on its page have run."""
    places: dict[Path, Path] = {}
    printed: dict[str, str] = {}

    def run(wanted: Any) -> str:
        if wanted.page not in places:
            places[wanted.page] = tmp_path_factory.mktemp("page")
        for block in SCRIPT.blocks(wanted.page):
            if block.line > wanted.line:
                break
            if place(block) not in printed:
                printed[place(block)] = ""  # for the blocks below, if this one runs out of time
                try:
                    printed[place(block)] = block.run(places[wanted.page])
                except SystemExit as error:
                    printed[place(block)] = str(error)
        return printed[place(wanted)]

    return run


@pytest.mark.parametrize("block", BLOCKS)
def test_the_block_shows_what_is_printed(block: Any, run: Callable[[Any], str]) -> None:
    assert run(block) == block.shown, f"{place(block)}: `make docs` writes what is printed now"


def test_a_changed_output_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo 4\n5\n```\n", encoding="utf-8")
    assert SCRIPT.render(page) == "```console\n$ echo 4\n4\n```\n"
    page.write_text("```console\n$ seq 3\n1\n[…]\n```\n", encoding="utf-8")
    assert SCRIPT.render(page) == page.read_text(encoding="utf-8")


def test_blocks_are_told_by_their_line(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\n```console\n$ echo 1\n1\n```\n\n```console\n$ a\n```\n", "utf-8")
    assert [(block.line, block.shown) for block in SCRIPT.blocks(page)] == [
        (3, "$ echo 1\n1\n"),
        (8, "$ a\n"),
    ]
