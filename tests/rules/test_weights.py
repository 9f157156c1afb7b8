"""Index, shards and headers: files written by the safetensors package, then damaged."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from support.checkpoints import write_index
from support.configs import TINY_LLAMA
from yarncli.rules.check import CheckReport
from yarncli.rules.check import check as check_all
from yarncli.rules.sources import place_of

SHARDS = {
    "model-00001-of-00002.safetensors": ("a.weight", "b.weight"),
    "model-00002-of-00002.safetensors": ("c.weight",),
}
FIRST, SECOND = SHARDS
INDEX = "model.safetensors.index.json"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:%s\nsize 5000\n" % (b"0" * 64)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two sound shards of 3 tensors of 64 bytes each, and their index."""
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA, indent=2))
    weight_map = {}
    for shard, names in SHARDS.items():
        save_file({name: np.ones((4, 4), np.float32) for name in names}, tmp_path / shard)
        weight_map |= dict.fromkeys(names, shard)
    write_index(tmp_path, weight_map, 3 * 64)
    return tmp_path


def the_map(model: Path) -> dict[str, str]:
    weight_map: dict[str, str] = json.loads((model / INDEX).read_text())["weight_map"]
    return weight_map


def found(report: CheckReport) -> list[tuple[str, str]]:
    return [(f.rule.id, f.severity) for f in report.findings]


def test_a_sound_checkpoint_passes(model: Path) -> None:
    assert found(check_all(str(model))) == []


def truncate(model: Path) -> None:
    data = (model / FIRST).read_bytes()
    (model / FIRST).write_bytes(data[:-1])


def overlap(model: Path) -> None:
    data = (model / FIRST).read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["b.weight"]["data_offsets"] = header["a.weight"]["data_offsets"]
    text = json.dumps(header).encode()
    (model / FIRST).write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


def huge_header(model: Path) -> None:
    data = (model / FIRST).read_bytes()
    (model / FIRST).write_bytes(struct.pack("<Q", 2**63) + data[8:])


def escape(model: Path) -> None:
    write_index(model, {**the_map(model), "c.weight": "../elsewhere.safetensors"}, 192)


def absolute(model: Path) -> None:
    write_index(model, {**the_map(model), "c.weight": "/etc/passwd"}, 192)


def misplace(model: Path) -> None:
    write_index(model, {**the_map(model), "a.weight": SECOND}, 192)


def forget(model: Path) -> None:
    write_index(model, {k: v for k, v in the_map(model).items() if k != "b.weight"}, 192)


def invent(model: Path) -> None:
    write_index(model, {**the_map(model), "d.weight": FIRST}, 192)


def lose_shard(model: Path) -> None:
    (model / SECOND).unlink()


def duplicate(model: Path) -> None:
    tensor = np.ones((4, 4), np.float32)
    save_file({"c.weight": tensor, "a.weight": tensor}, model / SECOND)


def wrong_size(model: Path) -> None:
    write_index(model, the_map(model), 191)


def two_sets(model: Path) -> None:
    save_file({"a.weight": np.ones(1, np.float32)}, model / "model.safetensors")


def pointer(model: Path) -> None:
    (model / SECOND).write_bytes(POINTER)


def pending(model: Path) -> None:
    (model / "config.json").rename(model / "config.json.yarncli-pending")


def garbage_index(model: Path) -> None:
    (model / INDEX).write_text('{"weight_map": [')


ERROR, WARNING, NOTE = "error", "warning", "note"
CASES: list[tuple[Callable[[Path], None], list[tuple[str, str]]]] = [
    (truncate, [("shard-damaged", ERROR)]),
    (overlap, [("shard-damaged", ERROR)]),
    (huge_header, [("shard-damaged", ERROR)]),
    (escape, [("index-damaged", ERROR)]),
    (absolute, [("index-damaged", ERROR)]),
    (garbage_index, [("index-damaged", ERROR)]),
    (misplace, [("tensor-missing", ERROR)]),
    (invent, [("tensor-missing", ERROR)]),
    (forget, [("tensor-unlisted", WARNING)]),
    (lose_shard, [("shard-missing", ERROR)]),
    (duplicate, [("tensor-duplicate", WARNING), ("index-size", WARNING)]),
    (wrong_size, [("index-size", WARNING)]),
    (two_sets, [("ambiguous-weights", ERROR)]),
    (pointer, [("lfs-pointer", NOTE)]),
    (pending, [("change-pending", ERROR)]),
]


@pytest.mark.parametrize(("damage", "expected"), CASES, ids=[c[0].__name__ for c in CASES])
def test_each_damage_is_named(
    model: Path, damage: Callable[[Path], None], expected: list[tuple[str, str]]
) -> None:
    damage(model)
    assert found(check_all(str(model))) == expected


def test_pointers_are_errors_only_where_weights_are_required(model: Path) -> None:
    pointer(model)
    assert found(check_all(str(model), require_weights=True)) == [("lfs-pointer", ERROR)]


def test_required_weights_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY_LLAMA))
    assert found(check_all(str(tmp_path))) == []
    assert found(check_all(str(tmp_path), require_weights=True)) == [("shard-missing", ERROR)]


def test_the_line_of_the_index_is_named(model: Path) -> None:
    invent(model)
    (finding,) = check_all(str(model)).findings
    lines = (model / INDEX).read_text().splitlines()
    assert finding.file.endswith(INDEX)
    assert '"d.weight"' in lines[(finding.line or 0) - 1]


def test_many_tensors_make_one_finding(model: Path) -> None:
    extra = {f"layer.{n}": FIRST for n in range(1000)}
    write_index(model, {**the_map(model), **extra}, 192)
    (finding,) = check_all(str(model)).findings
    assert "layer.0 and 999 more" in finding.message


def test_fix_writes_the_right_total_size_and_nothing_else(model: Path) -> None:
    wrong_size(model)
    before = (model / INDEX).read_text()
    report = check_all(str(model), fix=True)
    assert (model / INDEX).read_text() == before.replace("191", "192")
    assert [c.describe() for c in report.changes] == [
        f"{model}/{INDEX}: metadata.total_size 191 → 192"
    ]
    assert found(report) == []


def test_a_shard_stands_for_its_directory(model: Path) -> None:
    wrong_size(model)
    for name in (FIRST, INDEX):
        place = place_of(str(model / name), whole=False)
        assert found(check_all(place)) == [("index-size", WARNING)]
    config = str(model / "config.json")
    assert found(check_all(place_of(config, whole=False))) == []
    assert found(check_all(place_of(config, whole=True))) == [("index-size", WARNING)]


def test_config_rules_run_on_a_directory_too(model: Path) -> None:
    config: dict[str, Any] = {**TINY_LLAMA, "seq_length": 1024}
    (model / "config.json").write_text(json.dumps(config))
    lose_shard(model)
    assert found(check_all(str(model))) == [("stale-length", WARNING), ("shard-missing", ERROR)]


def test_a_model_on_the_hub_is_checked_by_its_headers(model: Path, minihub: Any) -> None:
    forget(model)
    minihub.add_repo("org/model", model)
    assert found(check_all("hf://org/model")) == [("tensor-unlisted", WARNING)]
