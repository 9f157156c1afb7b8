"""The site: every page is in its navigation, links and anchors resolve, and it builds strictly."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HOOKS = runpy.run_path(str(ROOT / "scripts" / "site_hooks.py"))
PYTHON = os.environ.get("YARNCLI_SITE_PYTHON", "")
PAGES = [*(ROOT / name for name in HOOKS["ROOT_PAGES"]), *sorted((ROOT / "docs").rglob("*.md"))]


def named(nav: list[dict[str, Any]]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            if isinstance(value, str):
                yield value
            else:
                yield from named([v if isinstance(v, dict) else {"": v} for v in value])


def test_the_navigation_of_mkdocs_yml_has_every_page_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert sorted(named(HOOKS["expanded"](nav))) == sorted([*pages, *HOOKS["ROOT_PAGES"].values()])


def prose(path: Path) -> str:
    """The page without its blocks of code, fenced or indented."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text(encoding="utf-8"), flags=re.S | re.M)
    return re.sub(r"^(\n {4,}.*)+", "", text, flags=re.M)


def anchors(path: Path) -> set[str]:
    """The names that GitHub gives to the headings of a page."""
    found = set()
    for heading in re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE):
        shown = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", shown.lower()).strip().replace(" ", "-"))
    return found


def broken(path: Path) -> Iterator[str]:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(path)):
        target, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        there = (path.parent / target) if target else path
        if not there.is_file() or (anchor and anchor not in anchors(there)):
            yield link


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_to_a_file_and_a_heading(path: Path) -> None:
    assert not list(broken(path))


def test_a_broken_link_would_be_seen(tmp_path: Path) -> None:
    page = tmp_path / "a.md"
    links = "[1](b.md) [2](a.md#one-more) [3](#nothing) [4](https://x.invalid/y) `[`5](a.md)"
    page.write_text(f"# One *more*!\n\n{links}\n\n    [6](c.md)\n", encoding="utf-8")
    assert list(broken(page)) == ["b.md", "#nothing"]


@pytest.mark.parametrize(
    ("page", "link", "there"),
    [
        ("README.md", "docs/bake.md", "bake.md"),
        ("README.md", "SECURITY.md#reporting", "SECURITY.md#reporting"),
        ("docs/bake.md", "../SECURITY.md", "SECURITY.md"),
        ("docs/bake.md", "rules/README.md", "rules/README.md"),
        ("docs/rules/adapter.md", "../../README.md", "../index.md"),
        ("docs/reference/cli.md", "../exit-codes.md", "../exit-codes.md"),
        ("docs/bake.md", "https://x.invalid/a.md", "https://x.invalid/a.md"),
    ],
)
def test_links_follow_the_pages_to_the_site(page: str, link: str, there: str) -> None:
    assert HOOKS["relinked"](f"see [it]({link}).", ROOT / page) == f"see [it]({there})."


def test_lists_are_read_as_on_github() -> None:
    rest = "out\n\n```\n1. not\n   a list\n```\n"
    shown = "1. one\n   more\n\n   ```sh\n   x\n   ```\n\n2. two\n\n"
    made = "1. one\n    more\n\n    ```sh\n    x\n    ```\n\n2. two\n\n"
    assert HOOKS["widened"](shown + rest) == made + rest


def test_pipes_in_the_code_of_a_table_need_no_backslash() -> None:
    row = HOOKS["_ROW"].match(r"| `a \| b` | c \| d |")
    assert HOOKS["bare_pipes"](row) == r"| `a | b` | c \| d |"


@pytest.mark.full
def test_the_site_builds_without_a_warning_and_asks_no_other_host(tmp_path: Path) -> None:
    if not PYTHON:
        pytest.skip("YARNCLI_SITE_PYTHON names no Python with MkDocs; `make test-full` sets it")
    command = [PYTHON, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = sorted(tmp_path.rglob("*.html"))
    assert len(pages) == len(PAGES) + 1  # and 404.html
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?([^\s\">]+)", text)
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], page
    words = (tmp_path / "search" / "search_index.json").read_text(encoding="utf-8")
    assert "yarn_attn_factor" in words
