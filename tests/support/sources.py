"""The source of the package as the tests of its structure read it: parsed once."""

from __future__ import annotations

import ast
import runpy
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "yarncli"
MODULES = sorted(PACKAGE.rglob("*.py"))
ARCHITECTURE = runpy.run_path(str(ROOT / "scripts" / "architecture.py"))


@cache
def parsed(path: Path) -> ast.Module:
    """The syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))
