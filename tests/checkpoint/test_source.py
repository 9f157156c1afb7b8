"""Which files make up a checkpoint, where they may come from, and what is refused by name."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, ConfigError, UsageError, WeightsError


@pytest.fixture
def model(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


def test_a_directory(model: Path) -> None:
    (model / "extra").mkdir()
    (model / "extra" / "notes.md").write_text("x")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    for skipped in (".git", ".cache"):
        (model / skipped).mkdir()
        (model / skipped / "object").write_text("x")
    checkpoint = open_checkpoint(str(model) + "/")
    assert checkpoint.name == str(model)
    assert checkpoint.directory == model
    assert (checkpoint.repo_id, checkpoint.commit, checkpoint.is_remote) == (None, None, False)
    assert {file.name: file.kind for file in checkpoint.files} == {
        "config.json": "config",
        "extra/notes.md": "other",
        "model-00001-of-00002.safetensors": "shard",
        "model-00002-of-00002.safetensors": "shard",
        "model.safetensors.index.json": "index",
        "pytorch_model.bin": "weights",
        "tokenizer.json": "other",
    }
    assert [file.name for file in checkpoint.files if file.is_weights] == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
    ]
    assert checkpoint.files_to_copy() == checkpoint.files
    assert checkpoint.config().value == {"model_type": "llama"}
    assert checkpoint.optional_json("generation_config.json") is None
    assert checkpoint.shard_names() == (
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    )
    headers = checkpoint.headers()
    assert sum(info.nbytes for header in headers.values() for info in header.tensors.values()) == (
        checkpoint.index().total_size  # type: ignore[union-attr]
    )
    assert checkpoint.headers() is headers
    assert checkpoint.download() is checkpoint
    assert checkpoint.missing_bytes() == 0
    assert checkpoint.path("tokenizer.json") == model / "tokenizer.json"


def test_a_config_file_alone(model: Path) -> None:
    config = (model / "config.json").rename(model / "llama.json")
    checkpoint = open_checkpoint(str(config))
    assert checkpoint.directory is None
    assert checkpoint.config().value == {"model_type": "llama"}
    assert checkpoint.headers() == {}
    assert checkpoint.optional_json("tokenizer.json") is None
    assert not checkpoint.is_remote
    config.write_text("[")
    with pytest.raises(ConfigError, match=r"llama\.json"):
        open_checkpoint(str(config)).config()


def test_which_shards_are_the_model(model: Path) -> None:
    for name in ("model.safetensors", "consolidated.safetensors"):
        (model / name).write_bytes((model / "model-00001-of-00002.safetensors").read_bytes())
    with pytest.raises(WeightsError, match="both"):
        open_checkpoint(str(model)).shard_names()
    (model / "model.safetensors.index.json").unlink()
    assert open_checkpoint(str(model)).shard_names() == ("model.safetensors",)
    (model / "model.safetensors").unlink()
    assert open_checkpoint(str(model)).shard_names() == (
        "consolidated.safetensors",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    )


def test_missing_and_damaged_weights(model: Path) -> None:
    shard = model / "model-00002-of-00002.safetensors"
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    with pytest.raises(WeightsError, match=f"{shard}.*truncated"):
        open_checkpoint(str(model)).headers()
    shard.unlink()
    with pytest.raises(WeightsError, match=f"names {shard.name}, which is not there"):
        open_checkpoint(str(model)).headers()
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd"}}))
    with pytest.raises(WeightsError, match="not a file name inside"):
        open_checkpoint(str(model)).headers()


def test_links_inside_are_followed(model: Path) -> None:
    (model / "real.json").write_text('{"a": 1}')
    (model / "tokenizer_config.json").symlink_to("real.json")
    checkpoint = open_checkpoint(str(model))
    assert checkpoint.optional_json("tokenizer_config.json").value == {"a": 1}  # type: ignore[union-attr]
    assert checkpoint.files_to_copy()


@pytest.mark.parametrize("kind", ["file", "broken", "cyclic", "directory", "fifo", "link to fifo"])
def test_what_cannot_be_carried_over_is_named(model: Path, tmp_path: Path, kind: str) -> None:
    bad = model / "generation_config.json"
    outside = tmp_path / "secret"
    if kind == "file":
        outside.write_text('{"secret": 1}')
        bad.symlink_to(outside)
    elif kind == "broken":
        bad.symlink_to("nowhere")
    elif kind == "cyclic":
        bad.symlink_to(bad.name)
    elif kind == "directory":
        bad.symlink_to(model)
    else:
        os.mkfifo(bad if kind == "fifo" else outside)
        if kind != "fifo":
            bad.symlink_to(outside)
    checkpoint = open_checkpoint(str(model))  # the rest can still be looked at
    assert checkpoint.config().value
    assert checkpoint.headers()
    with pytest.raises(CheckpointError, match=str(bad)):
        checkpoint.files_to_copy()
    with pytest.raises(CheckpointError, match=str(bad)):
        checkpoint.optional_json("generation_config.json")


def test_a_sibling_with_the_same_prefix_is_outside(model: Path) -> None:
    other = model.with_name(model.name + "-2")
    other.mkdir()
    (other / "x").write_text("x")
    (model / "x").symlink_to(other / "x")
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        open_checkpoint(str(model)).files_to_copy()


def test_headers_may_lie_behind_a_link_but_are_not_copied(model: Path, tmp_path: Path) -> None:
    """`convert --weights symlink` makes such a checkpoint; inspect must read it."""
    shard = model / "model-00001-of-00002.safetensors"
    shard.rename(tmp_path / "elsewhere")
    shard.symlink_to(tmp_path / "elsewhere")
    checkpoint = open_checkpoint(str(model))
    assert len(checkpoint.headers()) == 2
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        checkpoint.files_to_copy()
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        checkpoint.read_bytes(shard.name)


@pytest.fixture
def cached(tmp_path: Path, model: Path) -> Path:
    """A Hub cache that holds `model`."""
    repo = tmp_path / "cache" / "models--org--name"
    snapshot = repo / "snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    (repo / "blobs").mkdir()
    for number, file in enumerate(sorted(model.iterdir())):
        file.rename(repo / "blobs" / str(number))
        (snapshot / file.name).symlink_to(f"../../blobs/{number}")
    return snapshot


def test_a_snapshot_of_the_hub_cache(cached: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(cached))
    assert (checkpoint.repo_id, checkpoint.commit) == ("org/name", cached.name)
    assert checkpoint.files_to_copy()
    assert len(checkpoint.headers()) == 2
    via = tmp_path / "via"
    via.symlink_to(cached)
    assert open_checkpoint(str(via)).repo_id == "org/name"
    other = cached.parents[2] / "models--org--other" / "blobs"
    other.mkdir(parents=True)
    (other / "1").write_text("{}")
    (cached / "generation_config.json").symlink_to(other / "1")
    with pytest.raises(CheckpointError, match=r"generation_config\.json is a link"):
        open_checkpoint(str(cached)).files_to_copy()


def test_blobs_that_are_a_link_do_not_open_another_place(cached: Path, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    (cached.parents[1] / "blobs").rename(secrets)
    (cached.parents[1] / "blobs").symlink_to(secrets)
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        open_checkpoint(str(cached)).files_to_copy()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.mkdir(), "no config.json"),
        (lambda path: (path / "config.json").mkdir(parents=True), "config.json is a directory"),
        (lambda path: path.symlink_to(path), "broken link"),
        (lambda path: path.symlink_to("nowhere"), "broken link"),
        (lambda path: os.mkfifo(path), "neither a directory nor a regular file"),
    ],
    ids=["missing", "empty", "directory config", "cyclic", "broken", "fifo"],
)
def test_no_checkpoint(tmp_path: Path, make: Callable[[Path], object], text: str) -> None:
    path = tmp_path / "model"
    make(path)
    with pytest.raises(CheckpointError, match=text):
        open_checkpoint(str(path))


def test_a_directory_called_config_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="is a directory"):
        open_checkpoint(str(tmp_path / "config.json"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_unreadable(model: Path) -> None:
    (model / "config.json").chmod(0)
    with pytest.raises(CheckpointError, match="Permission denied"):
        open_checkpoint(str(model)).config()


def test_a_huge_config_is_not_read(model: Path) -> None:
    os.truncate(model / "config.json", 1 << 40)
    with pytest.raises(CheckpointError, match="bytes"):
        open_checkpoint(str(model)).config()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("hf://", "not a Hub id"),
        ("hf://a/b/c", "not a Hub id"),
        ("hf://../x", "not a Hub id"),
        ("hf://a/b@", "not a Hub id"),
        ("hf://a/b@x y", "not a Hub id"),
        ("", "not a path"),
        ("a\0b", "not a path"),
        ("https://huggingface.co/a/b", "Write hf://a/b."),
    ],
)
def test_what_is_no_source(source: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        open_checkpoint(source)


def test_bare_ids_reach_the_hub_only_where_nothing_local_has_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Path
) -> None:
    from yarncli import hub

    asked = []

    def list_files(repo_id: str, revision: str | None = None) -> hub.Listing:
        asked.append((repo_id, revision))
        return hub.Listing("c" * 40, {"config.json": 3})

    monkeypatch.setattr(hub, "list_files", list_files)
    monkeypatch.chdir(tmp_path)
    assert open_checkpoint("org/name").repo_id == "org/name"
    assert open_checkpoint("org/name@v1").name == "hf://org/name@v1"
    assert open_checkpoint("hf://org/name@refs/pr/3").commit == "c" * 40
    assert asked == [("org/name", None), ("org/name", "v1"), ("org/name", "refs/pr/3")]
    with pytest.raises(CheckpointError, match="does not exist"):
        open_checkpoint("org/name", bare_hub_id=False)
    for nothing in ("name", "./org/name", "a/b/c"):
        with pytest.raises(CheckpointError, match="does not exist"):
            open_checkpoint(nothing)
    (tmp_path / "org").mkdir()
    with pytest.raises(CheckpointError, match="There is no org/name here"):
        open_checkpoint("org/name")
    model.rename(tmp_path / "org" / "name")
    assert open_checkpoint("org/name").directory == Path("org/name")
    assert len(asked) == 3
    assert open_checkpoint("hf://org/name").is_remote
    assert len(asked) == 4
