"""Hooks with which MkDocs makes the site from pages written for GitHub; see mkdocs.yml.

README.md and its neighbours become pages, their links follow them, `rules/` in the navigation
becomes all pages of that folder, and lists, tables and anchors are read as GitHub reads them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
ROOT_PAGES = {
    "README.md": "index.md",
    **{name: name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")},
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:)([^)#\s]+\.md)")
_ITEM = re.compile(r"([-*]|\d+\.) +(?=\S)")
_ROW = re.compile(r"^\|.*\|$", re.MULTILINE)
_FENCE = re.compile(r"```|~~~")


def on_config(config: Any) -> Any:
    """Expand `rules/` in the navigation, and name anchors as GitHub does."""
    from pymdownx.slugs import slugify

    config["mdx_configs"].setdefault("toc", {})["slugify"] = slugify(case="lower")
    config["nav"] = expanded(config["nav"])
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages of the root folder."""
    from mkdocs.structure.files import File

    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Rewrite what MkDocs and GitHub read differently: links, lists, and code in tables."""
    source = page.file.src_uri
    here = next((ROOT / name for name, made in ROOT_PAGES.items() if made == source), None)
    return _ROW.sub(bare_pipes, widened(relinked(markdown, here or ROOT / "docs" / source)))


def expanded(nav: list[Any]) -> list[Any]:
    """The navigation of mkdocs.yml with a list of pages for each folder that it names."""
    made = []
    for entry in nav:
        ((title, value),) = entry.items()
        if isinstance(value, list):
            value = expanded(value)
        elif value.endswith("/"):
            names = {path.name for path in (ROOT / "docs" / value).glob("*.md")} - {"README.md"}
            value = [value + name for name in ("README.md", *sorted(names))]
        made.append({title: value})
    return made


def relinked(markdown: str, path: Path) -> str:
    """`markdown` of the file `path`, with links to other files changed to those of the site."""
    up = "../" * (len(path.relative_to(ROOT).parts) - 2)  # from the page to the root of the site

    def link(match: re.Match[str]) -> str:
        target = (path.parent / match[1]).resolve()
        name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
        if name in ROOT_PAGES:
            return up + ROOT_PAGES[name]
        return name.removeprefix("docs/") if path.parent == ROOT else match[1]

    return _LINK.sub(link, markdown)


def bare_pipes(row: re.Match[str]) -> str:
    """The row of a table with unescaped `|` in code; GitHub needs the escape, MkDocs does not."""
    return re.sub(r"`[^`]*`", lambda code: code[0].replace(r"\|", "|"), row[0])


def widened(markdown: str) -> str:
    """`markdown` with the content of list items indented by four spaces, as MkDocs needs it."""
    return "\n".join(_widened(markdown.split("\n")))


def _widened(lines: list[str]) -> Iterator[str]:
    width, fenced = 0, False
    for line in lines:
        if not fenced and (item := _ITEM.match(line)):
            width = len(item[0])
        elif line.strip() and not line.startswith(" " * width):
            width = 0
        if not width and _FENCE.match(line):
            fenced = not fenced
        inside = width and line.startswith(" " * width)
        yield " " * (4 - width) + line if inside else line
