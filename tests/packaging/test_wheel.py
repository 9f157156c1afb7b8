"""The wheel holds the whole package, and works alone in a fresh environment."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from support.gguf_files import demo_arrays, demo_keys, write_gguf

ROOT = Path(__file__).resolve().parents[2]
LOWEST = os.environ.get("YARNCLI_LOWEST_PYTHON")
# They install packages, which takes long where the network or the machine is slow.
# In one worker of pytest-xdist, so that the wheel is installed once.
pytestmark = [pytest.mark.timeout(900), pytest.mark.xdist_group("wheel")]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder]
    subprocess.run([*command, ROOT], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module", params=["pinned", pytest.param("lowest", marks=pytest.mark.full)])
def installed(request, wheel, tmp_path_factory):
    """`yarncli` and `python` of an environment that has the wheel and its base dependencies."""
    folder = tmp_path_factory.mktemp("installed") / "env"
    venv.create(folder, with_pip=True)
    binaries = folder / ("Scripts" if os.name == "nt" else "bin")
    versions = ROOT / "constraints.txt"
    if request.param == "lowest":
        command = [sys.executable, ROOT / "scripts" / "lowest_versions.py", "--base"]
        versions = folder / "constraints.txt"
        versions.write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    pip = [binaries / "python", "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, "-c", versions, wheel], check=True, capture_output=True)
    return binaries


@pytest.fixture
def run(installed, tmp_path, monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "YARNCLI_DEBUG"):
        monkeypatch.delenv(name, raising=False)

    def run(program, *arguments):
        return subprocess.run(
            [installed / program, *arguments], cwd=tmp_path, capture_output=True, text=True
        )

    return run


def package_files():
    """Every file of the package in the working tree: relative name → SHA-256."""
    return {
        path.relative_to(ROOT).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (ROOT / "yarncli").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_the_wheel_holds_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {
            name: hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if ".dist-info/" not in name
        }
        metadata = [name for name in archive.namelist() if ".dist-info/" in name]
    assert packed == package_files()
    assert "yarncli/py.typed" in packed
    assert any(name.endswith("/licenses/LICENSE") for name in metadata)


def test_the_demo_checkpoints_stay_small():
    total = sum(p.stat().st_size for p in (ROOT / "yarncli" / "demo").rglob("*.safetensors"))
    assert 0 < total <= 3_000_000


def test_the_base_install_has_no_torch(run):
    code = """
import importlib.util, json
print(json.dumps([importlib.util.find_spec(name) is not None for name in
    ("typer", "safetensors", "torch", "transformers", "matplotlib", "openai")]))
"""
    assert json.loads(run("python", "-c", code).stdout) == [True, True, False, False, False, False]


def test_every_command_has_a_help_page(run):
    listed = run("yarncli", "--help")
    assert listed.returncode == 0
    names = [line.split()[0] for line in listed.stdout.split("Commands:\n")[1].splitlines() if line]
    assert {"inspect", "convert", "demo"} <= set(names)
    for name in names:
        assert run("yarncli", name, "--help").returncode == 0


def test_the_base_commands_work(run, tmp_path):
    for arguments in (
        ("demo", "base"),
        ("demo", "tuned", "--tuned"),
        ("inspect", "base"),
        ("inspect", "base", "--factor", "8", "--table"),
        ("convert", "base", "dry", "--factor", "8", "--dry-run"),
        ("convert", "base", "yarn8", "--factor", "8"),
        ("inspect", "tuned"),
    ):
        done = run("yarncli", *arguments)
        assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert not (tmp_path / "dry").exists()
    for name, folder in (("base", "base"), ("tuned", "tuned")):
        shipped = ROOT / "yarncli" / "demo" / folder / "model.safetensors"
        assert (tmp_path / name / "model.safetensors").read_bytes() == shipped.read_bytes()
    found = json.loads(run("yarncli", "inspect", "yarn8", "--json").stdout)
    (scope,) = found["scopes"].values()
    assert scope["rope_type"] == "yarn"
    assert scope["factor"] == 8.0
    assert scope["original_max_position_embeddings"] == 256
    assert scope["max_position_embeddings"] == 2048


def test_each_base_command_works_without_the_extras(run, tmp_path):
    run("yarncli", "demo", "base")
    write_gguf(tmp_path / "m.gguf", demo_keys(), demo_arrays(tmp_path / "arrays"))
    for line in (
        "convert base long --factor 8",
        "bake long baked",
        "check base long baked m.gguf",
        "engines long",
        "engines base --factor 8",
        "card long --name me/long",
        "recipe long --train-length 1k --trainer trl --out recipe",
        "inspect m.gguf",
        "check m.gguf",
        "engines m.gguf",
        "convert m.gguf long.gguf --length 1k",
        "inspect long.gguf --json",
        "convert long --undo --in-place",
    ):
        done = run("yarncli", *line.split())
        assert (line, done.returncode, done.stderr.count("Traceback")) == (line, 0, 0), done.stderr


def test_a_missing_extra_is_named_with_its_install_line(run, tmp_path):
    run("yarncli", "demo", "base")
    run("yarncli", "convert", "base", "long", "--factor", "8")
    shutil.copy(ROOT / "tests" / "fixtures" / "0.1.0" / "passkey.jsonl", tmp_path / "run.jsonl")
    (tmp_path / "text.txt").write_text("text " * 1000, encoding="utf-8")
    for line, extra in {
        "inspect base --plot rope.png": "plot",
        "plot run.jsonl": "plot",
        "check-passkey base": "eval",
        "perplexity base --text text.txt": "eval",
        "regress base --override factor=8": "eval",
        "bake long baked --verify": "eval",
    }.items():
        done = run("yarncli", *line.split())
        assert (line, done.returncode) == (line, 4), done.stderr
        assert done.stderr.count("\n") == 1
        assert f"pip install 'yarncli[{extra}]'" in done.stderr


@pytest.mark.parametrize("installed", ["pinned"], indirect=True)
def test_what_pip_installs_is_what_constraints_say(run):
    pins = dict(
        line.split("==")
        for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
        if "==" in line
    )
    freeze = run("python", "-m", "pip", "list", "--format", "json").stdout
    found = {item["name"].replace("_", "-").lower(): item["version"] for item in json.loads(freeze)}
    for name in ("pip", "setuptools", "yarncli"):
        found.pop(name, None)
    assert found
    assert found.items() <= pins.items()


@pytest.mark.full
def test_the_lowest_versions_are_enough(wheel):
    """The rooms that use a dependency, where each has the lowest version that is allowed."""
    if not LOWEST:
        pytest.skip("YARNCLI_LOWEST_PYTHON names no Python; `make test-full` sets it")
    pip = [LOWEST, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall"]
    subprocess.run([*pip, wheel], check=True, capture_output=True)
    command = [LOWEST, ROOT / "scripts" / "wheel_tests.py", "--lowest", "-q"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
    assert " passed" in done.stdout
