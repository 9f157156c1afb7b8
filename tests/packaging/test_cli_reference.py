"""docs/reference/cli.md says what the program says."""

import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_current():
    script = runpy.run_path(str(ROOT / "scripts" / "cli_reference.py"))
    page = script["PAGE"].read_text(encoding="utf-8")
    assert page == script["render"](), "run `make docs`"
    assert "## yarncli convert" in page
