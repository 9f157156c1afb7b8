"""Write the tables of methods in docs/methods.md and docs/config.md (`make docs`)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from yarncli.rope.method import Extension, Method
from yarncli.rope.methods import METHODS
from yarncli.rope.parameters import RopeParameters

DOCS = Path(__file__).resolve().parent.parent / "docs"

# Each page has one table whose first column is `--method`; it ends at an empty line.
_TABLE = re.compile(r"^\| `--method` \|.*?(?=\n\n)", re.DOTALL | re.MULTILINE)

_PLAIN = RopeParameters(
    rope_type="default", rope_theta=10000.0, head_dim=128, max_position_embeddings=8192
)
_LISTS = {"short_factor": [1.0] * 64, "long_factor": [4.0] * 64}


def _computes(method: Method) -> list[str]:
    """What the method computes, as a row of docs/methods.md."""
    frequencies = (method.apply.__doc__ or "").removesuffix(".")
    source = f"[{method.label}]({method.reference_url})"
    return [f"`{method.name}`", frequencies, method.attention_factor or "–", source]


def _writes(method: Method) -> list[str]:
    """What the method writes into a small config, as a row of docs/config.md."""
    asked = Extension(
        factor=4.0,
        original_length=8192,
        maximum=8192 if method.keeps_max else 32768,
        options={name: value for name, value in _LISTS.items() if name in method.options},
        mrope=False,
    )
    after = method.extended(_PLAIN, asked)
    names = [n for n in RopeParameters.__dataclass_fields__ if n not in ("extra", "rope_type")]
    changed = [n for n in names if getattr(after, n) != getattr(_PLAIN, n)]
    written = [n for n in changed if n != "max_position_embeddings"]
    if method.leaves_mark:
        written.insert(0, f"rope_type {method.rope_type}")
    more = [name for name in method.options if name not in written]
    asked_for = f"; {', '.join(more)} where they are asked for" if more else ""
    maximum = f"original window: {method.keeps_max}" if method.keeps_max else "original × factor"
    return [f"`{method.name}`", ", ".join(written) + asked_for, maximum]


TABLES: dict[str, tuple[list[str], Callable[[Method], list[str]]]] = {
    "methods.md": (["`--method`", "frequencies", "temperature", "name and source"], _computes),
    "config.md": (["`--method`", "written", "`max_position_embeddings`"], _writes),
}


def render(name: str) -> str:
    """The page `name` with its table as `METHODS` gives it."""
    head, row = TABLES[name]
    lines = [f"| {' | '.join(cells)} |" for cells in (head, *map(row, METHODS.values()))]
    lines.insert(1, "|---" * len(head) + "|")
    table = "\n".join(lines)
    return _TABLE.sub(lambda _: table, (DOCS / name).read_text(encoding="utf-8"), count=1)


def main() -> None:
    """Write the tables; with `--check` only say whether they are current."""
    pages = {DOCS / name: render(name) for name in TABLES}
    if "--check" in sys.argv:
        sys.exit(any(page.read_text(encoding="utf-8") != text for page, text in pages.items()))
    for page, text in pages.items():
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
