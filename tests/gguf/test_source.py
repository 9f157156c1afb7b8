"""GGUF files here and on the Hub: known by their bytes, read by ranges, the first of a split."""

import os
import struct
from pathlib import Path
from typing import Any

import pytest

from support.gguf_models import write_gguf
from support.progress import Stages
from yarncli.errors import CheckpointError, HubError, UsageError
from yarncli.gguf.layout import GgufEdit
from yarncli.gguf.record import decide_rewrite
from yarncli.gguf.rewrite import write_gguf as write_edited
from yarncli.gguf.source import download, looks_like_gguf, models_in, open_gguf
from yarncli.history import Step


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf", rows=512)


@pytest.fixture
def repo(minihub: Any, model: Path, tmp_path: Path) -> Any:
    (tmp_path / "s").mkdir()
    first = write_gguf(tmp_path / "s" / "m.gguf", split=3)
    shards = {f"Q4/{path.name}": path.read_bytes() for path in first.parent.iterdir()}
    files = {"README.md": b"#", "m.gguf": model.read_bytes(), **shards}
    return minihub.add_repo("org/name", files)


def test_an_ollama_blob_needs_no_ending(model: Path) -> None:
    blob = model.rename(model.with_name("sha256-0123"))
    assert looks_like_gguf(blob)
    assert open_gguf(blob).header.architecture == "llama"
    assert open_gguf(blob).shards() == (blob,)


def test_what_is_none(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    assert not looks_like_gguf(path)
    assert not looks_like_gguf(tmp_path)
    path.write_bytes(b"GGU")
    assert not looks_like_gguf(path)
    os.mkfifo(tmp_path / "pipe")
    assert not looks_like_gguf(tmp_path / "pipe")
    for bad, message in (
        (tmp_path / "no", "does not exist"),
        (tmp_path, "is not a regular file"),
        (tmp_path / "pipe", "is not a regular file"),
        (path / "x", "Not a directory"),
        (Path("a\0b"), "it is not a valid path"),
    ):
        with pytest.raises(CheckpointError, match=message):
            open_gguf(bad)


def test_splits(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "m.gguf", split=3)
    file = open_gguf(first)
    assert file.split_count == 3
    assert [path.name for path in file.shards()] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    with pytest.raises(
        CheckpointError, match=r"is file 2 of a split.*give .*m-00001-of-00003\.ggu"
    ):
        open_gguf(file.shards()[1])
    renamed = file.shards()[2].rename(tmp_path / "last.gguf")
    with pytest.raises(CheckpointError, match=r"is file 3 of a split model.*give the first"):
        open_gguf(renamed)
    with pytest.raises(CheckpointError, match=r"first of 3 files, but .*00003\.gguf is missing"):
        file.shards()
    alone = first.rename(tmp_path / "one.gguf")
    with pytest.raises(CheckpointError, match=r"must end in -00001-of-00003\.gguf"):
        open_gguf(alone)


def test_on_the_hub_only_the_header_is_read(minihub: Any, repo: Any, model: Path) -> None:
    file = open_gguf("hf://org/name/m.gguf")
    assert file.header.tensors == open_gguf(model).header.tensors
    assert file.remote == ("org/name", repo.refs["main"], "m.gguf")
    asked = [r for r in minihub.requests("GET", "m.gguf") if r.range]
    assert [r.range for r in asked] == [f"bytes=0-{(1 << 18) - 1}"]
    assert sum(request.sent for request in minihub.log) < model.stat().st_size
    rewrite = decide_rewrite(
        file, GgufEdit(keys={"llama.x": ("u32", 1)}), Step(command="convert", source="x")
    )
    assert rewrite.header.keys["llama.x"].value == 1
    with pytest.raises(UsageError, match="is on the Hub"):
        file.shards()


def test_revisions_and_folders(minihub: Any, repo: Any) -> None:
    commit = repo.refs["main"]
    minihub.commit("org/name", {"README.md": b"x"})
    for revision in (commit, "main"):
        name = f"hf://org/name@{revision}/Q4/m-00001-of-00003.gguf"
        if revision == "main":
            with pytest.raises(CheckpointError, match=r"hf://org/name has no Q4/m-00001"):
                open_gguf(name)
        else:
            file = open_gguf(name)
            assert file.shard_names()[2] == "Q4/m-00003-of-00003.gguf"


def test_names_that_are_none(minihub: Any, repo: Any) -> None:
    with pytest.raises(CheckpointError, match=r"has no x\.gguf. Its GGUF files are: Q4/m-00001"):
        open_gguf("hf://org/name/x.gguf")
    for bad in ("hf://org/name", "hf://org/m.gguf", "hf://org/name/../m.gguf", "hf://org/name/ "):
        with pytest.raises(
            UsageError, match=r"does not name a file on the Hub\. Write hf://org/name/file"
        ):
            open_gguf(bad)
    with pytest.raises(CheckpointError, match="is file 2 of a split model"):
        open_gguf("hf://org/name/Q4/m-00002-of-00003.gguf")


def test_offline_the_cache_is_read(minihub: Any, repo: Any, model: Path) -> None:
    from huggingface_hub import hf_hub_download

    for name in ("m.gguf", "Q4/m-00001-of-00003.gguf"):
        hf_hub_download("org/name", name)
    minihub.go_offline()
    file = open_gguf("hf://org/name/m.gguf")
    assert file.header.keys == open_gguf(model).header.keys
    assert open_gguf("hf://org/name/Q4/m-00001-of-00003.gguf").split_count == 3
    with pytest.raises(HubError):
        open_gguf("hf://org/name/other.gguf")


def test_a_download_brings_all_files(minihub: Any, repo: Any, tmp_path: Path) -> None:
    told = Stages()
    file = open_gguf("hf://org/name/Q4/m-00001-of-00003.gguf")
    here = download(file, progress=told)
    assert [path.name for path in here.shards()] == [f"m-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert [path.stat().st_size for path in here.shards()] == list(file.sizes)
    assert told.done() == [("Fetching", sum(file.sizes), sum(file.sizes))]
    assert here.source == file.source == f"org/name@{repo.refs['main']}"
    assert download(here) is here
    out = tmp_path / "o-00001-of-00003.gguf"
    edit = GgufEdit(keys={"llama.x": ("u32", 1)})
    rewrite = decide_rewrite(here, edit, Step(command="convert", source=here.source))
    assert len(write_edited(here, rewrite, out, verify=True)) == 3
    assert not out.is_symlink()
    assert open_gguf(out).source == out.name


def test_a_split_model_that_is_not_whole_on_the_hub(minihub: Any, tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "m.gguf", split=3)
    minihub.add_repo("org/half", {first.name: first.read_bytes()})
    with pytest.raises(
        CheckpointError, match=r"first of 3 files, but m-00002-of-00003\.gguf is missing"
    ):
        open_gguf(f"hf://org/half/{first.name}")


def test_a_folder_of_quantisations(tmp_path: Path) -> None:
    write_gguf(tmp_path / "a-Q4.gguf")
    write_gguf(tmp_path / "sha256-1")
    write_gguf(tmp_path / "split.gguf", split=3)
    write_gguf(tmp_path / "mmproj.gguf", keys={"general.type": "mmproj"})
    write_gguf(tmp_path / "m.imatrix.gguf", keys={"general.type": "imatrix"})
    write_gguf(tmp_path / "old-mmproj.gguf", keys={"general.architecture": "clip"})
    (tmp_path / "vocab.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    (tmp_path / "cut.gguf").write_bytes((tmp_path / "a-Q4.gguf").read_bytes()[:999])
    (tmp_path / "README.md").write_text("#")
    models, others = models_in(tmp_path)
    assert [file.source for file in models] == [
        "a-Q4.gguf", "sha256-1", "split-00001-of-00003.gguf"
    ]  # fmt: skip
    assert list(others) == [
        "cut.gguf", "m.imatrix.gguf", "mmproj.gguf", "old-mmproj.gguf", "vocab.gguf"
    ]  # fmt: skip
    assert "ends inside its header" in others["cut.gguf"]
    assert others["mmproj.gguf"] == "mmproj.gguf is not a model: its general.type is 'mmproj'."
    assert "'clip', an image encoder" in others["old-mmproj.gguf"]
    assert others["vocab.gguf"] == "vocab.gguf is not a model: it holds only a vocabulary."
    with pytest.raises(CheckpointError, match="cannot be read"):
        models_in(tmp_path / "no")
