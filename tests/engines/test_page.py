"""docs/engines.md says what the rules say."""

from __future__ import annotations

import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_is_current():
    script = runpy.run_path(str(ROOT / "scripts/engine_matrix.py"))
    page = (ROOT / "docs/engines.md").read_text(encoding="utf-8")
    assert page == script["render"](), "Run `make docs` (scripts/engine_matrix.py)."
