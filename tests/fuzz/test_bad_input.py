"""Hostile and damaged files: an exit code and one sentence from inspect, check and convert."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yarncli.hub import failures

SHARD = "model-00001-of-00001.safetensors"
INDEX = "model.safetensors.index.json"
RunAll = Callable[[str], dict[str, int]]

DAMAGED = {"inspect": 3, "check": 1, "convert": 3}


def with_header(shard: bytes, edit: Callable[[dict[str, Any]], object]) -> bytes:
    (length,) = struct.unpack("<Q", shard[:8])
    header = json.loads(shard[8 : 8 + length])
    edit(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + shard[8 + length :]


def raw_header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


ENTRY = '{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
SHARDS: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda s: s[:-1],
    "truncated inside the header": lambda s: s[:20],
    "trailing bytes": lambda s: s + b"x",
    "empty": lambda s: b"",
    "seven bytes": lambda s: s[:7],
    "header of 2^63 bytes": lambda s: struct.pack("<Q", 2**63) + s[8:],
    "header of 99 MB in a small file": lambda s: struct.pack("<Q", 99_000_000) + s[8:],
    "header not JSON": lambda s: raw_header(b"{'a': 1}"),
    "header a list": lambda s: raw_header(b"[]"),
    "header not UTF-8": lambda s: raw_header(b'{"\xff": 1}'),
    "header nested": lambda s: raw_header(b"[" * 100_000),
    "duplicate keys": lambda s: raw_header(f'{{"a":{ENTRY},"a":{ENTRY}}}'.encode(), b"0000"),
    "overlapping": lambda s: with_header(s, lambda h: h["b.weight"].update(data_offsets=[0, 64])),
    "out of range": lambda s: with_header(
        s, lambda h: h["b.weight"].update(data_offsets=[64, 192])
    ),
    "negative": lambda s: with_header(s, lambda h: h["b.weight"].update(data_offsets=[-64, 0])),
    "dtype unknown": lambda s: with_header(s, lambda h: h["b.weight"].update(dtype="F31")),
    "shape huge": lambda s: with_header(s, lambda h: h["b.weight"].update(shape=[2**62, 2**62])),
    "digits": lambda s: with_header(s, lambda h: h["b.weight"].update(shape=["9" * 5000])),
    "LFS pointer": lambda s: (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    ),
}


@pytest.mark.parametrize("damage", SHARDS.values(), ids=SHARDS.keys())
def test_damaged_shards(
    model: Path, shard: bytes, run_all: RunAll, damage: Callable[[bytes], bytes]
) -> None:
    (model / SHARD).write_bytes(damage(shard))
    codes = run_all(str(model))
    pointer = damage(shard).startswith(b"version")
    assert codes["inspect"] == 3
    assert codes["check"] == (0 if pointer else 1)


INDEXES = {
    "outside": {"a.weight": "../x.safetensors", "b.weight": SHARD},
    "absolute": {"a.weight": "/etc/passwd", "b.weight": SHARD},
    "backslash": {"a.weight": "..\\x.safetensors", "b.weight": SHARD},
    "not text": {"a.weight": 3, "b.weight": SHARD},
    "missing shard": {"a.weight": "model-00009.safetensors", "b.weight": SHARD},
    "list": [SHARD],
    "null": None,
}


@pytest.mark.parametrize("weight_map", INDEXES.values(), ids=INDEXES.keys())
def test_damaged_indexes(model: Path, run_all: RunAll, weight_map: object) -> None:
    (model / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    codes = run_all(str(model))
    assert (codes["inspect"], codes["check"]) == (3, 1)


CONFIGS: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n",
    "invalid UTF-8": b'{"model_type": "\xff"}',
    "byte order mark": b'\xef\xbb\xbf{"model_type": "llama"}',
    "UTF-16": '{"model_type": "llama"}'.encode("utf-16"),
    "not JSON": b"model_type: llama",
    "a list": b"[1, 2]",
    "a string": b'"llama"',
    "cut off": b'{"model_type": "llama", ',
    "duplicate keys": b'{"model_type": "llama", "rope_theta": 1, "rope_theta": 2}',
    "nested brackets": b'{"model_type": "llama", "x": ' + b"[" * 5_000_000,
    "nested and closed": b'{"x": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "1e999": b'{"model_type": "llama", "rope_theta": 1e999}',
    "NaN theta": b'{"model_type": "llama", "rope_theta": NaN}',
    "5,000 digits": b'{"model_type": "llama", "max_position_embeddings": ' + b"9" * 5000 + b"}",
    "400 digits": b'{"model_type": "llama", "max_position_embeddings": ' + b"9" * 400 + b"}",
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n"
    ),
    "NUL bytes": b"\0" * 100,
}


@pytest.mark.parametrize("data", CONFIGS.values(), ids=CONFIGS.keys())
def test_damaged_configs(model: Path, run_all: RunAll, data: bytes) -> None:
    (model / "config.json").write_bytes(data)
    for source in (str(model), str(model / "config.json")):
        codes = run_all(source)
        assert codes["inspect"] == codes["convert"] == 3
        assert codes["check"] == (0 if data.startswith(b"version") else 1)


def test_fifty_megabytes_are_not_read(model: Path, run_all: RunAll) -> None:
    with (model / "config.json").open("wb") as file:
        file.truncate(50_000_000)
    assert run_all(str(model)) == DAMAGED


def a_directory(path: Path) -> None:
    path.mkdir()


def a_broken_link(path: Path) -> None:
    path.symlink_to(path.parent / "nowhere")


def a_cyclic_link(path: Path) -> None:
    path.symlink_to(path)


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def a_link_out(path: Path) -> None:
    path.symlink_to("/etc/hostname")


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("name", ["config.json", SHARD])
@pytest.mark.parametrize("make", [a_directory, a_broken_link, a_cyclic_link, a_fifo, a_device])
def test_things_that_are_no_files(
    model: Path, run_all: RunAll, name: str, make: Callable[[Path], None]
) -> None:
    (model / name).unlink()
    make(model / name)
    codes = run_all(str(model))
    assert (codes["inspect"], codes["check"]) == (3, 1)
    if name == "config.json":
        assert run_all(str(model / name)) == DAMAGED


def test_a_config_that_is_a_link_out_of_the_checkpoint(model: Path, run_all: RunAll) -> None:
    (model / "config.json").unlink()
    a_link_out(model / "config.json")
    assert run_all(str(model)) == DAMAGED


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
@pytest.mark.parametrize("name", ["config.json", SHARD])
def test_unreadable_files(model: Path, run_all: RunAll, name: str) -> None:
    (model / name).chmod(0)
    codes = run_all(str(model))
    (model / name).chmod(0o644)
    assert (codes["inspect"], codes["check"]) == (3, 1)


@pytest.mark.parametrize(
    ("source", "codes"),
    [
        ("nowhere", DAMAGED),
        ("no/where/at/all", DAMAGED),
        ("", {"inspect": 2, "check": 2, "convert": 2}),
        ("a\0b", {"inspect": 2, "check": 2, "convert": 2}),
        ("https://example.org/m", {"inspect": 2, "check": 2, "convert": 2}),
        ("hf://not an id", {"inspect": 2, "check": 2, "convert": 2}),
    ],
)
def test_sources_that_are_none(
    run_all: RunAll, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str,
    codes: dict[str, int],
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert run_all(source) == codes


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_the_hub_says_no(
    minihub: Any, run_all: RunAll, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setattr(failures, "RETRY_WAITS", (0.0,))
    minihub.add_repo("org/model", {"config.json": b"{}"})
    minihub.fail("GET", "/api/models", times=1000, status=status)
    assert set(run_all("hf://org/model").values()) == {5}


def test_there_is_no_network(
    minihub: Any, run_all: RunAll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "RETRY_WAITS", (0.0,))
    from huggingface_hub import constants

    nobody = "http://127.0.0.1:9"  # the discard port, where nothing listens
    monkeypatch.setenv("HF_ENDPOINT", nobody)
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    assert set(run_all("hf://org/model").values()) == {5}


@pytest.mark.parametrize("arguments", [["check", "--fix"], ["convert", "--factor", "4"]])
def test_a_full_disk(model: Path, tmp_path: Path, arguments: list[str]) -> None:
    """No file may grow past its first bytes, as on a disk that is full."""
    text = (model / "config.json").read_text().replace("{", '{\n  "seq_length": 1024,', 1)
    (model / "config.json").write_text(text)
    before = {p.name: p.read_bytes() for p in model.iterdir()}
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))\n"
        "from yarncli.cli.app import main; main()"
    )
    out = [str(tmp_path / "out")] if arguments[0] == "convert" else []
    done = subprocess.run(
        [sys.executable, "-c", code, arguments[0], str(model), *out, *arguments[1:]],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 6
    assert done.stderr.count("error:") == 1
    assert "Traceback" not in done.stderr
    assert {p.name: p.read_bytes() for p in model.iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
