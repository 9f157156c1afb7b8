"""Model cards in tests: results for them, what is on the Hub, and their Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def card_on_hub(hub: Any, repo_id: str = "me/long", ref: str = "main") -> str:
    """The README.md of a repository of the test Hub."""
    repo = hub.repos[repo_id]
    return str(hub.blob(repo.commits[repo.refs[ref]]["README.md"]).read_bytes().decode())


def passkey_results(path: Path, model: str = "x") -> Path:
    """A result file in the format of `check-passkey --out`."""
    cells = [
        {"variant": "as it is", "length": length, "depth": depth, "trial": 0, "key": "12345",
         "text": "12345" if right else "1", "correct": right}
        for length, depth, right in [(256, 0.0, True), (256, 1.0, True), (2048, 0.0, True),
                                     (2048, 1.0, False)]
    ]  # fmt: skip
    settings = {"model": model, "lengths": [256, 2048], "depths": 2, "trials": 1, "seed": 7,
                "variants": {"as it is": {"original": 256, "window": 2048}}}  # fmt: skip
    head = {"schema_version": 1, "settings": settings}
    path.write_text("".join(json.dumps(line) + "\n" for line in [head, *cells]))
    return path


def rendered(card: str) -> list[Any]:
    """The tokens of the card as Markdown, without its metadata."""
    from markdown_it import MarkdownIt

    from yarncli.hub.cards import body_of

    return MarkdownIt("commonmark").enable("table").parse(body_of(card))
