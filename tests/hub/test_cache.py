"""Snapshot directories of the real client's cache, filled over HTTP and through Xet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import DEMO
from support.minihub_writing import open_for_writing
from support.program import invoke
from yarncli import hub
from yarncli.checkpoint.source import open_checkpoint
from yarncli.progress import Progress

FILES = {path.name: path.read_bytes() for path in DEMO.iterdir() if path.is_file()}


FULL = pytest.mark.full


@pytest.fixture(
    params=[pytest.param("lfs", marks=FULL), "xet", pytest.param("xet-not-shared", marks=FULL)]
)
def snapshot(request: pytest.FixtureRequest, minihub: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A snapshot directory of `org/name`, the demo, as the client left it."""
    from huggingface_hub import constants, snapshot_download

    if request.param != "lfs":
        request.getfixturevalue("xet_hub")
    if request.param == "xet-not-shared":
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_SHARED_BLOBS", True, raising=False)
    minihub.add_repo("org/name", FILES)
    return Path(snapshot_download("org/name"))


def shared(directory: Path) -> bool:
    """Whether the weights lie in the store that all repositories of the cache share."""
    return "models--" not in str((directory / "model.safetensors").resolve())


def test_the_client_shares_what_came_through_xet(snapshot: Path, request: Any) -> None:
    from huggingface_hub import constants

    has_store = hasattr(constants, "HF_HUB_DISABLE_SHARED_BLOBS")  # 1.32 and newer
    assert shared(snapshot) is (has_store and request.node.callspec.id == "xet")


COMMANDS = {
    "inspect": ["inspect", "SOURCE"],
    "engines": ["engines", "SOURCE"],
    "check": ["check", "SOURCE"],
    "card": ["card", "SOURCE"],
    "convert": ["convert", "SOURCE", "OUT", "--factor", 8],
    "hard links": ["convert", "SOURCE", "OUT", "--factor", 8, "--weights", "hardlink"],
    "links": ["convert", "SOURCE", "OUT", "--factor", 8, "--weights", "symlink"],
    "convert and bake": ["convert", "SOURCE", "OUT", "--factor", 8, "--bake"],
    "bake": ["bake", "SOURCE", "OUT", "--attention-factor", 1.1],
    "push": ["push", "SOURCE", "me/name"],
}

HEADER = "bytes=0-100000"


def run(command: str, source: object, out: Path, minihub: Any) -> None:
    open_for_writing(minihub)
    minihub.add_user("hf_me", "me")
    minihub.log_in("hf_me")
    words = {"SOURCE": source, "OUT": out}
    invoke(*(words.get(str(word), word) for word in COMMANDS[command]), code=0)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("moved", [False, pytest.param(True, marks=FULL)])
def test_every_command(
    minihub: Any, snapshot: Path, tmp_path: Path, command: str, moved: bool
) -> None:
    if moved:
        cache = snapshot.parents[2]
        cache.rename(tmp_path / "another place")
        snapshot = tmp_path / "another place" / snapshot.relative_to(cache)
    out = tmp_path / "out"
    run(command, snapshot, out, minihub)
    if command in {"convert", "hard links", "links", "bake"}:
        made = (out / "model.safetensors").read_bytes()
        assert (made == FILES["model.safetensors"]) is (command != "bake")
        assert (out / "model.safetensors").is_symlink() is (command == "links")
        assert not (out / "tokenizer.json").is_symlink()
    if command == "push":
        repo = minihub.repos["me/name"]
        pushed = repo.commits[repo.refs["main"]]
        assert minihub.blob(pushed["model.safetensors"]).read_bytes() == FILES["model.safetensors"]


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in {"card", "push"}])
def test_every_command_of_a_hub_id(
    minihub: Any, snapshot: Path, tmp_path: Path, command: str
) -> None:
    minihub.log.clear()
    run(command, "hf://org/name", tmp_path / "out", minihub)
    # It is all in the cache; headers are asked for anew.
    assert {r.range for r in minihub.requests("GET", "/storage/|/read-xorbs/")} <= {HEADER}


@pytest.mark.full
def test_the_passkey_command_loads_it(snapshot: Path) -> None:
    pytest.importorskip("torch")
    invoke("check-passkey", snapshot, "--lengths", 128, "--depths", 1, "--trials", 1, code=0)


@pytest.mark.parametrize("command", ["convert", "bake"])
def test_nothing_is_changed_in_place(snapshot: Path, command: str) -> None:
    before = {path: path.read_bytes() for path in snapshot.parents[2].rglob("*") if path.is_file()}
    how = ["--factor", 8] if command == "convert" else ["--attention-factor", 1.1]
    refusal = invoke(command, snapshot, "--in-place", *how, code=3).output
    assert "is a symbolic link, so it is not changed in place" in refusal
    real = (snapshot / "model.safetensors").resolve()
    assert hub.in_cache(real)
    assert {path: path.read_bytes() for path in before} == before


def test_bytes_are_counted_once(xet_hub: Any) -> None:
    """The client has two bars for what comes through Xet."""
    xet_hub.add_repo("org/name", FILES)
    remote = open_checkpoint("hf://org/name")
    told: list[Progress] = []
    remote.download(progress=told.append)
    (fetching, *_) = (now for now in told if now.ended)
    assert (
        fetching.done == fetching.total == sum(map(len, FILES.values())) - len(FILES["config.json"])
    )


def test_a_folder_of_a_snapshot(minihub: Any, snapshot: Path, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    minihub.add_repo("org/many", {f"sub/one/{name}": data for name, data in FILES.items()})
    one = Path(snapshot_download("org/many")) / "sub" / "one"
    invoke("convert", one, tmp_path / "out", "--factor", 8, code=0)
    assert (tmp_path / "out/model.safetensors").read_bytes() == FILES["model.safetensors"]
    assert open_checkpoint(one).repo_id is None  # it is not all of the repository


def test_files_in_a_directory_of_the_users_own(
    minihub: Any, snapshot: Path, tmp_path: Path
) -> None:
    from huggingface_hub import snapshot_download

    mine = snapshot_download("org/name", local_dir=tmp_path / "mine")
    invoke("convert", mine, tmp_path / "out", "--factor", 8, code=0)
    assert not (tmp_path / "out/.cache").exists()
    invoke("convert", mine, "--in-place", "--factor", 8, code=0)


STORE = "0123456789abcdef" * 4


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A snapshot directory that somebody made by hand; its weights are a link into a store."""
    snapshot = tmp_path / "cache/models--org--name/snapshots" / ("0123456789" * 4)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_bytes(FILES["config.json"])
    store = tmp_path / "cache/blobs/01"
    store.mkdir(parents=True)
    (store / STORE).write_bytes(FILES["model.safetensors"])
    (store.parent / ".huggingface-shared-blobs").write_text("1\n")
    (snapshot / "model.safetensors").symlink_to(f"../../../blobs/01/{STORE}")
    return snapshot


def problem(directory: Path) -> str:
    (file,) = (f for f in open_checkpoint(directory).files if f.name == "model.safetensors")
    return file.problem


def test_the_store_is_known_by_its_marker(strange: Path) -> None:
    assert problem(strange) == ""
    store = strange.parents[2] / "blobs"
    (store / ".huggingface-shared-blobs").unlink()
    assert "outside the checkpoint" in problem(strange)
    (store / ".huggingface-shared-blobs").symlink_to(strange / "config.json")
    assert "outside the checkpoint" in problem(strange)


@pytest.mark.parametrize("place", [
    "blobs/01/secret", "blobs/02/" + STORE, "blobs/" + STORE, "blobs/01/x/" + STORE,
    "models--org--other/blobs/1", "id_rsa", "blobs/01/" + STORE.upper(),
])  # fmt: skip
def test_a_link_to_anything_else_is_refused(strange: Path, place: str) -> None:
    target = strange.parents[2] / place
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text("secret")
    link = strange / "model.safetensors"
    link.unlink()
    link.symlink_to(target)
    assert "outside the checkpoint" in problem(strange)


def test_the_store_of_another_cache_is_refused(strange: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (strange.parents[2] / "blobs").rename(tmp_path / "mine/blobs")
    link = strange / "model.safetensors"
    link.unlink()
    link.symlink_to(tmp_path / "mine/blobs/01" / STORE)
    assert "outside the checkpoint" in problem(strange)
    (strange.parents[2] / "blobs").symlink_to(tmp_path / "mine/blobs")
    assert "outside the checkpoint" in problem(strange)


def test_a_blob_that_leads_out_is_refused(strange: Path, tmp_path: Path) -> None:
    blob = strange.parents[2] / "blobs/01" / STORE
    blob.rename(tmp_path / "secret")
    blob.symlink_to(tmp_path / "secret")
    assert "outside the checkpoint" in problem(strange)


def test_the_store_outside_of_a_snapshot_is_refused(strange: Path, tmp_path: Path) -> None:
    folder = strange.rename(strange.parents[2] / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(f"../blobs/01/{STORE}")
    assert "outside the checkpoint" in problem(folder)


def test_only_the_name_of_a_repositorys_own_blob_is_a_hash(strange: Path) -> None:
    """The store's names are hashes of Xet; what is no SHA-256 may be anything a mirror has."""
    blobs = strange.parents[1] / "blobs"
    blobs.mkdir()
    for name in ("a" * 64, "b" * 40):
        (blobs / name).write_text("x")
        (strange / name[0]).symlink_to(f"../../blobs/{name}")
    digests = {file.name: file.digest for file in open_checkpoint(strange).files}
    assert {name for name, digest in digests.items() if digest} == {"a"}
    assert digests["a"].value == "a" * 64
