"""Every command on Windows and on macOS, as far as those can be played here (`support.systems`)."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import yarncli
from support.checkpoints import snapshot
from support.commands import write_model
from support.gguf_files import demo_arrays, demo_keys, write_gguf
from support.minihub import MiniHub
from support.minihub_writing import open_for_writing
from yarncli.cli.app import COMMANDS
from yarncli.conversion.convert import convert
from yarncli.demo import write_demo
from yarncli.errors import UsageError

PACKAGE = Path(yarncli.__file__).parent
TOKEN = "hf_" + "t" * 34
# What Windows refuses, with what it says; all else ends with 0 there, too.
REFUSED = {
    "convert in place": "Give the directory to write, OUT, instead.",
    "bake in place": "Give the directory to write, OUT, instead.",
    "check --fix": "Give the directory to write, OUT, instead.",
    "recover": "Give the directory to write, OUT, instead.",
    "finish in place": "Give the directory to write, OUT, instead.",
}
CALLS = {
    "demo": "demo made",
    "inspect": "inspect model --factor 4 --table",
    "inspect --json": "inspect model --json",
    "inspect a GGUF": "inspect demo.gguf",
    "inspect on the Hub": "inspect hf://me/model",
    "engines": "engines model --factor 4",
    "check": "check model",
    "convert": "convert model conv --factor 4",
    "convert --fsync": "convert model flushed --factor 4 --fsync",
    "convert --overwrite": "convert model conv --factor 4 --overwrite",
    "convert from the Hub": "convert hf://me/model fetched --factor 4",
    "convert with links": "convert model linked --factor 4 --weights hardlink",
    "convert a GGUF": "convert demo.gguf long.gguf --factor 4",
    "bake": "bake conv baked",
    "convert in place": "convert here --factor 4 --in-place",
    "bake in place": "bake here --in-place",
    "check --fix": "check here/config.json --fix",
    "recover": "bake --recover here",
    "recipe": "recipe conv --out files --train-length 256",
    "finish": "finish trained whole --from conv",
    "finish in place": "finish trained --from conv --in-place",
    "card": "card conv",
    "push --dry-run": "push conv me/new --dry-run",
    "push": "push conv me/new",
}
MEASURED = {
    "check-passkey": "check-passkey small --lengths 256 --depths 1 --trials 1 --out passkey.jsonl",
    "plot": "plot passkey.jsonl --out passkey.svg",
    "perplexity": "perplexity small --text text.txt --lengths 128,256",
    "regress": "regress small long --text text.txt",
    "fit": "fit small --factor 2 --budget 1 --prompts 2 --texts 2 --lengths 200",
}


def run_on(system: str, calls: dict[str, str], work: Path, **more: Any) -> dict[str, Any]:
    """How the command lines end in a child that plays the system."""
    request = {"system": system, "to": str(work / "ended.json"), **more}
    request["calls"] = {name: line.split() for name, line in calls.items()}
    folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    child = subprocess.run(
        [sys.executable, "-m", "support.systems"], cwd=work, input=json.dumps(request), text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders), "PYTHONWARNINGS": "ignore"},
        capture_output=True, timeout=250,
    )  # fmt: skip
    assert child.returncode == 0, child.stderr
    found: dict[str, Any] = json.loads((work / "ended.json").read_text())
    return found


def fill(work: Path) -> None:
    """What the commands work on; in a file, bytes that Windows may read as ends of lines."""
    write_model(work / "model")
    shutil.copytree(work / "model", work / "here")
    (work / "model" / "notes.txt").write_bytes(b"one\r\ntwo\n\x1a\x00three\r")
    convert(work / "model", work / "trained", factor=4.0)
    (work / "trained" / "yarncli.json").unlink()
    folder = write_demo(work / "small")
    write_gguf(work / "demo.gguf", demo_keys(), demo_arrays(folder))


@pytest.fixture(scope="module", params=["windows", "macos"])
def ended(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The system, how each command ended, what was counted, and the directory."""
    work = tmp_path_factory.mktemp(request.param)
    fill(work)
    with MiniHub(work / "hub") as hub, pytest.MonkeyPatch.context() as patch:
        open_for_writing(hub)
        hub.add_user(TOKEN, "me")
        hub.add_repo("me/model", work / "model")
        for name, value in {
            "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(work / "cache"), "HF_TOKEN": TOKEN,
            "HF_HOME": str(work / "home"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        found = run_on(request.param, CALLS, work)
    return request.param, found["ended"], found["counts"], work


@pytest.mark.parametrize("name", CALLS)
def test_every_command(ended: Any, name: str) -> None:
    system, found, _, _ = ended
    refused = REFUSED.get(name) if system == "windows" else None
    assert found[name]["code"] == (2 if refused else 0), found[name]
    assert "Traceback" not in found[name]["err"]
    if refused:
        assert refused in found[name]["err"]
        assert found[name]["err"].count("\n") == 1


def test_what_is_written_is_what_linux_writes(ended: Any, tmp_path: Path) -> None:
    *_, work = ended
    convert(work / "model", tmp_path / "conv", factor=4.0)
    wanted = snapshot(tmp_path / "conv")
    for name in ("conv", "flushed", "linked"):
        assert {**snapshot(work / name), "README.md": b""} == {**wanted, "README.md": b""}, name
    assert not list(work.glob(".*yarncli-new*")), "staging directories are removed"


def test_flushes_reach_the_disk_of_a_mac(ended: Any) -> None:
    system, _, counts, _ = ended
    assert counts["flushes"] == 0
    assert (counts["full flushes"] > 10) == (system == "macos")


@pytest.mark.full
@pytest.mark.parametrize("system", ["windows", "macos"])
def test_every_command_that_measures(system: str, tmp_path: Path) -> None:
    fill(tmp_path)
    convert(tmp_path / "small", tmp_path / "long", factor=4.0)
    (tmp_path / "text.txt").write_text("The sky is blue. The grass is green. " * 400)
    found = run_on(system, MEASURED, tmp_path, model="small")["ended"]
    assert {name: each["code"] for name, each in found.items()} == dict.fromkeys(MEASURED, 0), found


def test_one_module_asks_for_what_only_some_systems_have() -> None:
    """The rest opens descriptors only in folders that are held, for a change in place."""
    asks = re.compile(
        r"sys\.platform|os\.name\b|import fcntl$|os\.fsync\(|hasattr\(os,", re.MULTILINE
    )
    texts = {path.relative_to(PACKAGE).as_posix(): path.read_text(encoding="utf-8")
             for path in PACKAGE.rglob("*.py")}  # fmt: skip
    assert {name for name, text in texts.items() if asks.search(text)} == {
        "checkpoint/system.py", "checkpoint/kernel_copy.py",
    }  # fmt: skip
    assert {name for name, text in texts.items() if "os.open(" in text} == {
        "checkpoint/system.py", "checkpoint/directory.py", "checkpoint/journal.py",
        "checkpoint/output.py", "cli/console.py",
    }  # fmt: skip


def test_a_system_that_bounds_no_memory_renders_templates_all_the_same() -> None:
    """macOS refuses RLIMIT_AS."""
    code = (
        "import resource, runpy, sys\n"
        "real = resource.setrlimit\n"
        "def limit(kind, most):\n"
        "    if kind == resource.RLIMIT_AS: raise ValueError('exceeds maximum limit')\n"
        "    real(kind, most)\n"
        "resource.setrlimit = limit\n"
        "runpy.run_path(sys.argv[1], run_name='__main__')"
    )
    path = PACKAGE / "evaluation" / "template.py"
    request = json.dumps({"template": "{{ messages[0].content }}:", "tokens": {}})
    child = subprocess.run([sys.executable, "-c", code, path], input=request, text=True,
                           capture_output=True)  # fmt: skip
    assert json.loads(child.stdout) == ["YARNCLI-USER-TEXT:", None], child.stderr


def test_the_source_under_another_spelling_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Played: a file system that does not tell capitals from small letters."""
    write_model(tmp_path / "Model")
    shutil.copytree(tmp_path / "Model", tmp_path / "model")  # what it would find under that name
    monkeypatch.setattr(Path, "samefile", lambda a, b: str(a).lower() == str(b).lower())
    with pytest.raises(UsageError, match="is or holds the source"):
        convert(tmp_path / "Model", tmp_path / "model", factor=4.0, overwrite=True)
    with pytest.raises(UsageError, match="is inside the source"):
        convert(tmp_path / "Model", tmp_path / "model" / "out", factor=4.0)


def test_no_command_is_left_out() -> None:
    assert {line.split()[0] for line in (CALLS | MEASURED).values()} == {*COMMANDS}
