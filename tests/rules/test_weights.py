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


def lose_index(model: Path) -> None:
    (model / INDEX).unlink()


def lose_index_and_shard(model: Path) -> None:
    (model / INDEX).unlink()
    (model / SECOND).unlink()


def index_half(model: Path) -> None:
    """The second shard lies there, and the index of an aborted save does not name it."""
    write_index(model, {k: v for k, v in the_map(model).items() if v == FIRST}, 128)


def number_one_more(model: Path) -> None:
    """An index of two shards of three: the third was never uploaded."""
    names = {FIRST: "model-00001-of-00003.safetensors", SECOND: "model-00002-of-00003.safetensors"}
    for old, new in names.items():
        (model / old).rename(model / new)
    write_index(model, {k: names[v] for k, v in the_map(model).items()}, 192)


def lose_layers(model: Path) -> None:
    """Layer 1 of 2 is there, and the size is that of all that is there."""
    config = {**TINY_LLAMA, "num_hidden_layers": 2}
    (model / "config.json").write_text(json.dumps(config, indent=2))
    tensor = np.ones((4, 4), np.float32)
    save_file({"model.layers.1.mlp.down_proj.weight": tensor}, model / SECOND)
    weight_map = {**the_map(model), "model.layers.1.mlp.down_proj.weight": SECOND}
    write_index(model, {k: v for k, v in weight_map.items() if k != "c.weight"}, 999)


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
    (lose_index, [("index-missing", ERROR)]),
    (lose_index_and_shard, [("shard-missing", ERROR)]),
    (index_half, [("shard-unlisted", ERROR)]),
    (number_one_more, [("shard-missing", ERROR)]),
    (lose_layers, [("layers-missing", ERROR)]),
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


def test_fix_builds_the_index_that_save_pretrained_would_have_written(model: Path) -> None:
    right = json.loads((model / INDEX).read_text())
    lose_index(model)
    report = check_all(str(model), fix=True)
    assert json.loads((model / INDEX).read_text()) == right
    assert found(report) == []
    assert found(check_all(str(model))) == []


def test_fix_builds_no_index_over_shards_that_hold_one_tensor_twice(model: Path) -> None:
    duplicate(model)
    lose_index(model)
    report = check_all(str(model), fix=True)
    assert ("index-missing", ERROR) in found(report)
    assert not (model / INDEX).exists()


@pytest.mark.parametrize("damage", [number_one_more, index_half, lose_layers, lose_shard])
def test_a_total_size_is_not_lowered_over_missing_weights(
    model: Path, damage: Callable[[Path], None]
) -> None:
    damage(model)
    index = json.loads((model / INDEX).read_text())
    index["metadata"]["total_size"] = 4096
    (model / INDEX).write_text(json.dumps(index))
    check_all(str(model), fix=True)
    assert json.loads((model / INDEX).read_text())["metadata"]["total_size"] == 4096


@pytest.mark.parametrize(
    "names",
    [
        ["consolidated.safetensors"],  # Mistral's own format beside its shards
        ["original/model-00001-of-00009.safetensors"],
        ["mtp.safetensors"],
    ],
)
def test_what_is_no_shard_of_the_model_is_left_alone(model: Path, names: list[str]) -> None:
    for name in names:
        (model / name).parent.mkdir(exist_ok=True)
        save_file({"x": np.ones(1, np.float32)}, model / name)
    assert found(check_all(str(model))) == []


def test_layers_are_counted_in_the_text_part_alone(model: Path) -> None:
    """A tower with fewer layers, and one layer more for multi-token prediction."""
    (model / "config.json").write_text(json.dumps({**TINY_LLAMA, "num_hidden_layers": 2}))
    names = [f"model.language_model.layers.{n}.a" for n in range(3)]
    names += ["model.vision_tower.encoder.layers.0.a"]
    save_file({name: np.ones((4, 4), np.float32) for name in names}, model / SECOND)
    write_index(model, {"a.weight": FIRST, "b.weight": FIRST, **dict.fromkeys(names, SECOND)}, 384)
    assert found(check_all(str(model))) == []


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
