"""Rooms import one way, and start-up imports nothing heavy."""

import json
import runpy
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "yarncli"
READER = runpy.run_path(str(ROOT / "scripts" / "architecture.py"))

# What each room may import besides itself.
FOUNDATION = {"errors", "extras", "options", "progress", "threads", "jsontext"}
DECIDING = {*FOUNDATION, "rope", "config", "planning", "history", "engines"}
FILES = {*DECIDING, "hub", "checkpoint", "gguf"}
MAY_IMPORT = {
    "errors": set(),
    "extras": {"errors"},
    "options": {"errors"},
    "progress": set(),
    "threads": {"progress"},
    "jsontext": {"errors"},
    "hub": FOUNDATION,
    "rope": {"errors", "options"},
    "config": {*FOUNDATION, "rope"},
    "planning": {*FOUNDATION, "rope", "config"},
    "history": {*FOUNDATION, "rope", "config", "planning", "__init__", "checkpoint"},
    "engines": {*DECIDING, "checkpoint", "gguf"},
    "checkpoint": {*FOUNDATION, "rope", "config", "hub", "__init__"},
    "gguf": FILES - {"engines"},
    "inspection": FILES,
    "conversion": {*FILES, "baking", "__init__"},
    "baking": {*FILES, "__init__"},
    "rules": FILES,
    "evaluation": {*FILES, "__init__"},
    "figures": {*FILES, "inspection", "evaluation"},
    "demo": {*FOUNDATION, "checkpoint"},
    "training": {*FILES, "__init__"},
    "publishing": {*FILES, "__init__", "inspection", "rules", "evaluation", "figures"},
}
MAY_IMPORT["cli"] = {*MAY_IMPORT, "__init__"}
MAY_IMPORT["__main__"] = {"cli"}
MAY_IMPORT["__init__"] = set(MAY_IMPORT)  # for type checkers; it imports nothing by itself

# Third-party libraries that only these modules import; numpy and the rest may be lazy anywhere.
OWNERS = {
    "typer": ("cli/",),
    "rich": ("cli/bars.py",),
    "huggingface_hub": ("hub.py", "hub/"),
    "matplotlib": ("figures/",),
    "torch": ("evaluation/local/", "baking/twin.py"),
    "transformers": ("evaluation/local/", "baking/twin.py"),
    "numpy": ("baking/", "evaluation/", "training/"),
    "openai": ("evaluation/",),
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


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_one_way(module):
    room = module.removesuffix(".py").split("/")[0]
    rooms = {
        READER["room_of"](name)
        for name in READER["imported"](PACKAGE / module)
        if name.startswith("yarncli.")
    }
    assert rooms - {room} <= MAY_IMPORT[room]


@pytest.mark.parametrize("module", MODULES)
def test_third_party_libraries_have_owners(module):
    roots = {name.split(".")[0] for name in READER["imported"](PACKAGE / module)}
    strangers = {root for root in roots & OWNERS.keys() if not module.startswith(OWNERS[root])}
    assert not strangers


def test_deciding_needs_the_standard_library_only():
    for module in MODULES:
        if module.startswith(("rope/", "jsontext/", "config/", "planning/", "engines/")):
            roots = {name.split(".")[0] for name in READER["imported"](PACKAGE / module)}
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
        (
            "from yarncli.cli.app import main; main()",
            ("convert", str(PACKAGE / "demo" / "base"), "--factor", "4", "--dry-run"),
        ),
        (
            "from yarncli.cli.app import main; main()",
            ("bake", str(PACKAGE / "demo" / "tuned"), "--dry-run"),
        ),
    ],
    ids=["import", "help", "command-help", "inspect-config", "convert-dry-run", "bake-dry-run"],
)
def test_start_up_is_light(code, arguments):
    loaded = modules_after(code, *arguments)
    assert "typer" in loaded
    assert not loaded & HEAVY


@pytest.mark.parametrize("words", ["inspect", "engines", "check", "convert --dry-run --factor 4"])
def test_gguf_files_are_read_without_numpy(words, tmp_path):
    keys = {"general.architecture": (8, struct.pack("<Q", 5) + b"llama")}
    sizes = {"context_length": 256, "embedding_length": 128, "block_count": 1,
             "attention.head_count": 4, "vocab_size": 1}  # fmt: skip
    keys |= {f"llama.{name}": (4, struct.pack("<I", size)) for name, size in sizes.items()}
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, len(keys))
    for name, (kind, value) in keys.items():
        header += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value
    name = b"blk.0.attn_k.weight"
    header += struct.pack("<Q", len(name)) + name + struct.pack("<IQQIQ", 2, 128, 1, 0, 0)
    path = tmp_path / "m.gguf"
    path.write_bytes(header.ljust(-(-len(header) // 32) * 32, b"\0") + bytes(512))
    command, *options = words.split()
    code = "from yarncli.cli.app import main; main()"
    assert not modules_after(code, command, str(path), *options) & HEAVY


def test_the_package_itself_imports_nothing():
    loaded = modules_after("import yarncli")
    assert loaded <= {*sys.stdlib_module_names, "yarncli", "__main__"} | modules_after("pass")
