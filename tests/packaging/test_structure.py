"""The bounds of the house: sizes of rooms, modules and functions, and no circles of imports."""

from __future__ import annotations

import ast
import graphlib
import itertools
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.sources import ARCHITECTURE as READER
from support.sources import MODULES, PACKAGE, ROOT, parsed
from yarncli.cli.app import COMMANDS

# In one worker of pytest-xdist, so that the source is parsed once.
pytestmark = pytest.mark.xdist_group("source")

# Functions whose signature does not count, because it is the list of a command's options.
SIGNATURES = {f"cli/{name}.py:{name}" for name in (c.replace("-", "_") for c in COMMANDS)}


def dotted(path: Path) -> str:
    """`…/yarncli/rope/__init__.py` → `yarncli.rope`."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def function_lengths() -> Iterator[tuple[str, int]]:
    """`module:function` and its lines, docstring included, decorators not."""
    for path in MODULES:
        module = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{module}:{node.name}"
                first = node.body[0].lineno if name in SIGNATURES else node.lineno
                yield name, node.end_lineno - first + 1


def test_the_package_is_small():
    # Raise it with a new command or a new guarantee, by what that needs; not for anything else.
    assert sum(READER["room_lines"]().values()) <= 37_960


def test_no_room_is_above_15_percent():
    lines = dict(READER["room_lines"]())
    total = sum(lines.values())
    # A file for each engine: none imports another, so they are no room to get lost in.
    apart = sorted((PACKAGE / "engines" / "rules").glob("*.py"))
    lines["engines"] -= sum(map(READER["code_lines"], apart))
    assert not {room: count for room, count in lines.items() if count > 0.15 * total}


def test_modules_are_short():
    lengths = {dotted(p): len(p.read_text(encoding="utf-8").splitlines()) for p in MODULES}
    assert not {name: length for name, length in lengths.items() if length > 400}
    assert statistics.median(lengths.values()) <= 160


def test_functions_are_short():
    assert not {name: length for name, length in function_lengths() if length > 60}


def test_every_command_was_recognised():
    assert {name for name, _ in function_lengths()} >= SIGNATURES


def test_rooms_import_in_no_circle():
    order = list(graphlib.TopologicalSorter(READER["room_imports"]()).static_order())
    assert {"errors", "progress"} >= {order[0]}
    assert order[-1] == "cli"


def test_modules_import_in_no_circle():
    """Late imports count, too. The package's own module only names what the others offer."""
    names = {dotted(path): path for path in MODULES}
    graph = {}
    for name, path in names.items():
        wanted = set()
        for found in READER["imported"](path):
            module = found if found in names else found.rpartition(".")[0]
            wanted |= {module} & names.keys()
        graph[name] = wanted - {"yarncli"}
    del graph["yarncli"]
    order = list(graphlib.TopologicalSorter(graph).static_order())
    assert order.index("yarncli.errors") < order.index("yarncli.cli.app")


def test_every_module_can_be_imported():
    names = [dotted(path) for path in MODULES]
    code = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run([sys.executable, "-c", code, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("source", "lines"), [
    ('"""Prose."""\n\nX = 1  # why\n# alone\n', 1),
    ('def f():\n    """Prose\n\n    on.\n    """\n    return [\n        1,\n    ]\n', 4),
    ('TEXT = """a\n\nb"""\n', 3),
])  # fmt: skip
def test_what_counts_as_a_line_of_code(tmp_path, source, lines):
    (tmp_path / "m.py").write_text(source)
    assert READER["code_lines"](tmp_path / "m.py") == lines


def large_records() -> dict[str, tuple[Path, ast.ClassDef, list[ast.AnnAssign]]]:
    """The dataclasses with more than three fields, by name."""
    found = {}
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ClassDef) and any(
                "dataclass" in ast.unparse(decorator) for decorator in node.decorator_list
            ):
                attributes = [part for part in node.body if isinstance(part, ast.AnnAssign)]
                if len(attributes) > 3:
                    found[node.name] = (path, node, attributes)
    return found


def test_attributes_have_their_docstring_under_them():
    bare = []
    for name, (_, node, attributes) in large_records().items():
        told = {id(a) for a, b in itertools.pairwise(node.body) if isinstance(b, ast.Expr)}
        names = [(ast.unparse(attribute.target), id(attribute)) for attribute in attributes]
        bare += [f"{name}.{a}" for a, place in names if not a.startswith("_") and place not in told]
    assert not bare


def test_large_records_are_built_by_keyword():
    records = large_records()
    positional = []
    for path in MODULES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Call) and len(node.args) > 1:
                name = ast.unparse(node.func).rpartition(".")[2]
                positional += [f"{dotted(path)}:{node.lineno}"] if name in records else []
    assert not positional, "only the subject, which comes first, may stand without its name"
