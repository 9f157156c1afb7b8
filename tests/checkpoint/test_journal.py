"""In-place changes: entirely old, recoverable to entirely old, or entirely new."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kills import kill_at_every_call
from yarncli.checkpoint import journal, rewrite
from yarncli.checkpoint.journal import patch_in_place, recover
from yarncli.checkpoint.output import JOURNAL_NAME, PENDING_NAME, pending
from yarncli.checkpoint.rewrite import Patch
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, OutputError

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NEW_CONFIG = b'{"model_type": "llama", "baked": true}\n'


def negate(piece: bytes) -> bytes:
    return bytes(255 - byte for byte in piece)


PATCHES = {ONE: [Patch(300, 700, negate), Patch(1100, 5, negate)], TWO: [Patch(400, 64, negate)]}
OTHERS = {"yarncli.json": b"{}\n", "tokenizer.json": b'{"new": 1}'}


def change(directory: Path, progress: Callable[[int], None] | None = None) -> Path:
    return patch_in_place(directory, PATCHES, NEW_CONFIG, OTHERS, progress=progress)


def new_state(directory: Path) -> dict[str, bytes]:
    """What the files are to be, worked out on whole files in memory."""
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    for name, patches in PATCHES.items():
        data = bytearray(files[name])
        for patch in patches:
            end = patch.offset + patch.length
            data[patch.offset : end] = negate(bytes(data[patch.offset : end]))
        files[name] = bytes(data)
    files["config.json.orig"] = files["config.json"]
    return files | {"config.json": NEW_CONFIG} | OTHERS


def state(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def model(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


def test_a_change(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "CHUNK", 100)
    wanted, done = new_state(model), []
    backup = change(model, done.append)
    assert backup.name == "config.json.orig"
    assert state(model) == wanted
    assert sum(done) == 2 * (700 + 5 + 64)
    assert recover(model) == "nothing"


def test_kill_at_every_call(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "CHUNK", 400)
    old, new = state(model), new_state(model)
    seen = set()

    def prepare(directory: Path) -> None:
        shutil.copytree(model, directory)

    def check(directory: Path, where: str) -> None:
        found = state(directory)
        weights_changed = any(found[name] not in (old[name], new[name]) for name in (ONE, TWO)) or (
            (found[ONE] == old[ONE]) != (found[TWO] == old[TWO])
        )
        if "config.json" in found:  # an engine would load this
            assert not weights_changed
            assert (found["config.json"] == NEW_CONFIG) == (found[ONE] == new[ONE])
        if where == "completed":
            assert found == new
            return
        if pending(directory):
            with pytest.raises(CheckpointError, match="yarncli bake --recover"):
                open_checkpoint(str(directory))
            with pytest.raises(CheckpointError, match="yarncli bake --recover"):
                change(directory)
        result = recover(directory)
        seen.add(result)
        assert not pending(directory)
        # What a kill leaves beside the files (never instead of them) is not part of a checkpoint.
        left = {f.name for f in open_checkpoint(str(directory)).files}
        found = {name: data for name, data in state(directory).items() if name in left}
        assert found == (old if found["config.json"] == old["config.json"] else new)

    calls = kill_at_every_call(tmp_path / "kills", prepare, change, check)
    assert seen == {"nothing", "old", "new"}
    assert calls.count("pwrite") == 4  # 2 pieces, 1, 1


@pytest.fixture(autouse=True)
def _kills(tmp_path: Path) -> None:
    (tmp_path / "kills").mkdir()


def test_kill_at_every_call_of_a_recovery(tmp_path: Path, model: Path) -> None:
    old = state(model)
    half = tmp_path / "half"
    leave_half_patched(model, half)

    def prepare(directory: Path) -> None:
        shutil.copytree(half, directory)

    def check(directory: Path, where: str) -> None:
        if where == "completed":
            assert state(directory) == old
        found = state(directory)
        if "config.json" in found:
            assert {name: found[name] for name in old} == old
        recover(directory)
        assert state(directory) == old

    kill_at_every_call(tmp_path / "kills", prepare, recover, check)


def leave_half_patched(model: Path, place: Path) -> None:
    """A copy of `model` as a kill after all patches, before the new config, leaves it."""
    shutil.copytree(model, place)
    pid = os.fork()
    if pid == 0:
        os.replace = lambda *_: os._exit(0)  # the first atomic write after the patches
        change(place)
        os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0
    assert (place / PENDING_NAME).exists()
    assert (place / ONE).read_bytes() == new_state(model)[ONE]
    for path in place.glob(".*yarncli*"):
        path.unlink()


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_puts_the_old_state_back(model: Path, error: type[BaseException]) -> None:
    old, count = state(model), 0

    def interrupt(_: int) -> None:
        nonlocal count
        count += 1
        if count == 5:  # three undo records, then the second patch
            assert not (model / "config.json").exists()
            raise error

    with pytest.raises(error):
        change(model, interrupt)
    assert count == 5
    assert state(model) == old


@pytest.mark.parametrize("when", ["journal", "patch"])
def test_a_full_disk(model: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = state(model)
    real = os.pwrite
    counts = {"fsync": 0, "pwrite": 0}

    def full(*args: Any) -> Any:
        counts["pwrite"] += 1
        if counts["pwrite"] == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*args)

    def no_sync(_: int) -> None:
        counts["fsync"] += 1
        if counts["fsync"] == 1:
            raise OSError(errno.ENOSPC, "No space left on device")

    if when == "journal":
        monkeypatch.setattr(os, "fsync", no_sync)
    else:
        monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OutputError, match="disk is full"):
        change(model)
    assert state(model) == old


def test_the_journal_is_on_disk_before_anything_changes(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_rename, real_pwrite = os.fsync, os.rename, os.pwrite

    def fsync(descriptor: int) -> None:
        events.append("fsync " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real_fsync(descriptor)

    def rename(old: Any, new: Any, **options: Any) -> None:
        events.append(f"rename {Path(old).name}")
        real_rename(old, new, **options)

    def pwrite(descriptor: int, *args: Any) -> int:
        events.append("pwrite " + Path(f"/proc/self/fd/{descriptor}").readlink().name)
        return real_pwrite(descriptor, *args)

    for name, call in (("fsync", fsync), ("rename", rename), ("pwrite", pwrite)):
        monkeypatch.setattr(os, name, call)
    change(model)
    assert events[:9] == [
        f"fsync {JOURNAL_NAME}", "fsync model", "rename config.json", "fsync model",
        f"pwrite {ONE}", f"pwrite {ONE}", f"fsync {ONE}", f"pwrite {TWO}", f"fsync {TWO}",
    ]  # fmt: skip


def test_what_does_not_read_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = state(model)
    real = journal.write_exactly
    first = True

    def lossy(descriptor: int, data: bytes, offset: int) -> None:
        nonlocal first
        real(descriptor, data[:-1] + b"?" if first else data, offset)
        first = False

    monkeypatch.setattr(journal, "write_exactly", lossy)
    with pytest.raises(OutputError, match="does not read back"):
        change(model)
    assert state(model) == old


@pytest.mark.parametrize("position", ["start", "middle", "end", "cut", "tail", "gone"])
def test_a_damaged_journal_changes_nothing(model: Path, tmp_path: Path, position: str) -> None:
    half = tmp_path / "half"
    leave_half_patched(model, half)
    path = half / JOURNAL_NAME
    data = bytearray(path.read_bytes())
    if position == "gone":
        path.unlink()
    elif position == "cut":
        path.write_bytes(data[:-1])
    elif position == "tail":
        path.write_bytes(data + b"x")
    else:
        data[{"start": 3, "middle": len(data) // 2, "end": -3}[position]] ^= 1
        path.write_bytes(data)
    before = state(half)
    with pytest.raises(CheckpointError, match="missing or damaged"):
        recover(half)
    assert state(half) == before


@pytest.mark.parametrize("tamper", ["size", "gone", "link", "hard link"])
def test_other_files_than_the_journals(model: Path, tmp_path: Path, tamper: str) -> None:
    half = tmp_path / "half"
    leave_half_patched(model, half)
    shard = half / TWO
    if tamper == "size":
        with shard.open("ab") as file:
            file.write(b"x")
    elif tamper == "hard link":
        os.link(shard, tmp_path / "second")
    else:
        shard.rename(tmp_path / "elsewhere")
        if tamper == "link":
            shard.symlink_to(tmp_path / "elsewhere")
    before = (half / ONE).read_bytes()
    with pytest.raises(CheckpointError, match=TWO):
        recover(half)
    assert (half / ONE).read_bytes() == before
    assert not (half / "config.json").exists()


def test_a_hostile_journal_cannot_leave_the_directory(model: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (model / "config.json").rename(model / PENDING_NAME)
    for name in ("../victim", str(victim)):
        with (model / JOURNAL_NAME).open("wb") as file:
            file.write(journal._MAGIC)
            journal._write_record(file, journal._Record(name=name, size=8, offset=0, data=b"gone"))
            journal._write_json(file, {"end": 1}, b"")
        with pytest.raises(CheckpointError, match="damaged"):
            recover(model)
    assert victim.read_bytes() == b"precious"


def test_shared_weights_are_refused(model: Path, tmp_path: Path) -> None:
    os.link(model / TWO, tmp_path / "second")
    old = state(model)
    with pytest.raises(CheckpointError, match="several hard links"):
        change(model)
    assert state(model) == old


def test_two_at_a_time(model: Path) -> None:
    def second(_: int) -> None:
        with pytest.raises(CheckpointError, match="Another process"):
            recover(model)

    change(model, second)
    assert (model / "config.json").read_bytes() == NEW_CONFIG


def test_pending_can_be_opened_on_request(model: Path, tmp_path: Path) -> None:
    (model / JOURNAL_NAME).write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="--recover"):
        open_checkpoint(str(model))
    assert open_checkpoint(str(model), allow_pending=True).config().value
    assert recover(model) == "old"
    assert not pending(model)
