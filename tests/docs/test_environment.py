"""Every environment variable that the program reads or names stands on its page."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "yarncli"
PAGE = (ROOT / "docs" / "environment.md").read_text(encoding="utf-8")
LISTED = {n for row in re.findall(r"^\| (`.*?) \|", PAGE, re.M) for n in re.findall("`(.+?)`", row)}
OWN = set(re.findall(r"^\| `([A-Z_]+)`", PAGE.partition("## The Hugging Face Hub")[0], re.M))


def variables(path: Path) -> tuple[set[str], int]:
    """The names that a module reads from the environment, and how often it speaks of it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        node.targets[0].id: node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
    }
    names, uses = set(), 0
    for node in ast.walk(tree):
        is_environ = isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")
        uses += is_environ
        keys = []
        if isinstance(node, ast.Call) and re.match(
            r"os\.(environ\.\w+|getenv)$", ast.unparse(node.func)
        ):
            keys = node.args[:1]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
            keys = [node.slice]
        elif isinstance(node, ast.Compare) and "os.environ" in map(ast.unparse, node.comparators):
            keys = [node.left]
        for key in keys:
            value = key.value if isinstance(key, ast.Constant) else constants.get(ast.unparse(key))
            # Where the user names the variable, there is no constant.
            assert value or ast.unparse(key) == "variable", (path, ast.unparse(node))
            names |= {value} - {None}
        uses -= len(keys)
    assert not uses, f"{path} reads the environment in a way that this test does not know"
    return names, uses


def test_what_is_read_is_listed():
    found = {name for path in PACKAGE.rglob("*.py") for name in variables(path)[0]}
    assert found >= {"YARNCLI_DEBUG", "NO_COLOR", "FORCE_COLOR", "XDG_STATE_HOME"}
    assert found <= LISTED
    assert found >= OWN, "listed as read by yarncli itself"


def test_what_messages_name_is_listed():
    named = re.compile(r"\b(?:HF_[A-Z]{4}[A-Z_]+|[A-Z]+_PROXY|SSL_CERT_FILE)\b")
    texts = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    assert {name for text in texts for name in named.findall(text)} <= LISTED
