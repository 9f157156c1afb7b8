"""Rooms import one way, and start-up imports nothing heavy."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "yarncli"

# What each room may import besides itself.
FOUNDATION = {"errors", "extras", "jsontext"}
FILES = {*FOUNDATION, "hub", "checkpoint", "rope"}
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "extras": {"errors"},
    "jsontext": {"errors"},
    "hub": FOUNDATION,
    "console": {"errors"},
    "rope": FOUNDATION,
    "checkpoint": {*FOUNDATION, "hub", "rope", "__init__"},
    "describe": FILES,
    "convert": {*FILES, "__init__"},
    "bake": {*FILES, "__init__"},
    "check": FILES,
    "evaluate": {*FILES, "__init__"},
    "figures": {*FILES, "describe", "evaluate"},
    "demo": {*FOUNDATION, "checkpoint"},
    "publish": {*FILES, "__init__", "hub", "check", "evaluate"},
}
MAY_IMPORT["cli"] = set(MAY_IMPORT)

# Third-party libraries that only these modules import; numpy and the rest may be lazy anywhere.
OWNERS = {
    "typer": ("cli/",),
    "rich": ("console.py",),
    "huggingface_hub": ("hub.py", "hub/"),
    "matplotlib": ("figures/",),
    "torch": ("evaluate/local/", "bake/twin.py"),
    "transformers": ("evaluate/local/", "bake/twin.py"),
    "numpy": ("bake/", "evaluate/"),
    "openai": ("evaluate/",),
}

HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "huggingface_hub",
    "safetensors",
    "rich",
    "matplotlib",
    "openai",
    "jinja2",
}

MODULES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def imported(module):
    """Dotted names that `module` imports, wherever in the file."""
    for node in ast.walk(ast.parse((PACKAGE / module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(dotted):
    """`yarncli.rope.plan.make_plan` → `rope`; a name of the package itself → `__init__`."""
    name = dotted.split(".")[1]
    return name if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists() else "__init__"


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    room = module.removesuffix(".py").split("/")[0]
    rooms = {room_of(name) for name in imported(module) if name.startswith("yarncli.")}
    assert rooms - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("module", MODULES)
def test_third_party_libraries_have_owners(module):
    roots = {name.split(".")[0] for name in imported(module)}
    strangers = {root for root in roots & OWNERS.keys() if not module.startswith(OWNERS[root])}
    assert not strangers


def test_rope_and_jsontext_need_the_standard_library_only():
    for module in MODULES:
        if module.startswith("rope/") or module == "jsontext.py":
            roots = {name.split(".")[0] for name in imported(module)}
            assert roots <= {*sys.stdlib_module_names, "yarncli"}, module


def modules_after(code, *arguments):
    """The top-level modules that a fresh interpreter has loaded after `code`."""
    report = (
        "import atexit, json, sys\n"
        "atexit.register(lambda: print('\\n' + json.dumps(sorted(sys.modules))))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", report + code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        ("import yarncli.cli.app", ()),
        ("from yarncli.cli.app import main; main()", ("--help",)),
        ("from yarncli.cli.app import main; main()", ("convert", "--help")),
        (
            "from yarncli.cli.app import main; main()",
            ("inspect", str(PACKAGE / "demo" / "base" / "config.json")),
        ),
    ],
    ids=["import", "help", "command-help", "inspect-config"],
)
def test_start_up_is_light(code, arguments):
    loaded = modules_after(code, *arguments)
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_the_package_itself_imports_nothing():
    loaded = modules_after("import yarncli")
    assert loaded <= {*sys.stdlib_module_names, "yarncli", "__main__"} | modules_after("pass")
