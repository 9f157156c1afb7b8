"""In-place changes: entirely old, recoverable to entirely old, or entirely new."""

import errno
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.kills import calls_of, kill_at_every_call, leave_killed
from yarncli.checkpoint import directory as directories
from yarncli.checkpoint import in_place, journal, rewrite, system
from yarncli.checkpoint.directory import JOURNAL_NAME, PENDING_NAME, Directory, hold, pending
from yarncli.checkpoint.in_place import changing
from yarncli.checkpoint.journal import FileRecord, JournalWriter, Key, RangeRecord, checksum
from yarncli.checkpoint.recovery import recover
from yarncli.checkpoint.rewrite import Patch
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, OutputError, UsageError

ONE, TWO = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
NEW_CONFIG = b'{"model_type": "llama", "baked": true}\n'


def negate(piece: bytes) -> bytes:
    return bytes(255 - byte for byte in piece)


PATCHES = {ONE: [Patch(300, 700, negate), Patch(1100, 5, negate)], TWO: [Patch(400, 64, negate)]}
FILES = {"config.json": NEW_CONFIG, "yarncli.json": b"{}\n", "tokenizer_config.json": b'{"new": 1}'}


def change(model: Path, progress: Callable[[int], None] | None = None) -> dict[str, str]:
    with changing(model) as held:
        return in_place.change(held, FILES, PATCHES, keep=["config.json"], progress=progress)


def change_config(model: Path, data: bytes = NEW_CONFIG) -> dict[str, str]:
    with changing(model) as held:
        return in_place.change(held, {"config.json": data}, keep=["config.json"])


def new_state(directory: Path) -> dict[str, bytes]:
    """What the files are to be, worked out on whole files in memory."""
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    for name, patches in PATCHES.items():
        data = bytearray(files[name])
        for patch in patches:
            end = patch.offset + patch.length
            data[patch.offset : end] = negate(bytes(data[patch.offset : end]))
        files[name] = bytes(data)
    return files | {"config.json.orig": files["config.json"]} | FILES


def keys() -> set[str]:
    """The keys in the state directory, where other tests leave theirs."""
    place = journal.state_directory() / "journals"
    return {path.name for path in place.iterdir()} if place.exists() else set()


def state(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture
def model(make_checkpoint: Callable[..., Path]) -> Path:
    return make_checkpoint()


@pytest.fixture
def half(model: Path, tmp_path: Path) -> Path:
    """A copy of `model`, killed when all weights were patched and no small file had its name."""
    place = tmp_path / "half"
    shutil.copytree(model, place)
    leave_killed(change, place, "rename", 2, half=False)
    assert (place / PENDING_NAME).exists()
    assert (place / ONE).read_bytes() == new_state(model)[ONE]
    return place


def test_a_change(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "CHUNK", 100)
    wanted, done, held = new_state(model), [], keys()
    assert change(model, done.append) == {"config.json": "config.json.orig"}
    assert state(model) == wanted
    assert sum(done) == 3 * (700 + 5 + 64)
    assert recover(model) == "nothing"
    assert keys() == held  # its own is forgotten


@pytest.mark.parametrize("large", [False, True])
def test_kill_at_every_call(
    tmp_path: Path, model: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if large:  # several pieces, several pages each
        monkeypatch.setattr(rewrite, "CHUNK", 400)
        monkeypatch.setattr(journal, "PAGE", 64)
    old, new = state(model), new_state(model)
    seen = set()

    def prepare(directory: Path) -> None:
        shutil.copytree(model, directory)

    def check(directory: Path, where: str) -> None:
        found = state(directory)
        if "config.json" in found:  # an engine would load this
            wanted = new if found["config.json"] == NEW_CONFIG else old
            assert all(found[name] == wanted[name] for name in (ONE, TWO))
        if where == "completed":
            assert found == new
            return
        if pending(directory):
            with pytest.raises(CheckpointError, match="yarncli bake --recover"):
                open_checkpoint(str(directory))
        seen.add(recover(directory))
        assert not pending(directory)
        assert state(directory) in (old, new)

    kill_at_every_call(kills(tmp_path), prepare, change, check)
    assert seen == {"nothing", "old", "new"}
    calls = calls_of(change, model)
    assert calls.count("pwrite") == (4 if large else 3) + len(FILES) + 1  # and the backup


def test_the_next_change_finishes_what_a_kill_left(tmp_path: Path, model: Path) -> None:
    new = new_state(model)

    def prepare(directory: Path) -> None:
        shutil.copytree(model, directory)

    def check(directory: Path, where: str) -> None:
        if where != "completed" and (directory / ONE).read_bytes() != new[ONE]:
            change(directory)
        elif pending(directory):
            recover(directory)
            if state(directory) != new:
                change(directory)
        assert state(directory) == new

    kill_at_every_call(kills(tmp_path), prepare, change, check)


def kills(tmp_path: Path) -> Path:
    (tmp_path / "kills").mkdir()
    return tmp_path / "kills"


def test_kill_at_every_call_of_a_recovery(tmp_path: Path, model: Path, half: Path) -> None:
    old = state(model)

    def prepare(directory: Path) -> None:
        shutil.copytree(half, directory)

    def check(directory: Path, where: str) -> None:
        found = state(directory)
        assert where != "completed" or found == old
        if "config.json" in found:
            assert {name: found[name] for name in old} == old
        recover(directory, trust_journal=True)  # as the child may have forgotten the key
        assert state(directory) == old

    kill_at_every_call(
        kills(tmp_path), prepare, lambda place: recover(place, trust_journal=True), check
    )


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


def test_an_undo_that_fails_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = state(model)

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(in_place, "write_exactly", fail)
    monkeypatch.setattr(in_place, "undo", fail)
    with pytest.raises(OutputError, match=r"could not be restored.*yarncli bake --recover"):
        change(model)
    monkeypatch.undo()
    assert recover(model) == "old"
    assert state(model) == old


@pytest.mark.parametrize("when", ["small file", "journal", "patch"])
def test_a_full_disk(model: Path, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    old = state(model)
    real = {"fsync": os.fsync, "pwrite": os.pwrite}
    at = {"small file": ("pwrite", 1), "journal": ("fsync", 5), "patch": ("pwrite", 6)}[when]
    count = 0

    def full(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == at[1]:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real[at[0]](*args)

    monkeypatch.setattr(os, at[0], full)
    with pytest.raises(OutputError, match="disk is full"):
        change(model)
    assert count >= at[1]
    assert state(model) == old


def test_the_journal_is_on_disk_before_anything_changes(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_rename, real_pwrite = os.fsync, os.rename, os.pwrite

    def named(descriptor: int) -> str:
        return Path(f"/proc/self/fd/{descriptor}").readlink().name

    def fsync(descriptor: int) -> None:
        events.append(f"fsync {named(descriptor)}")
        real_fsync(descriptor)

    def rename(old: Any, new: Any, **options: Any) -> None:
        events.append(f"rename {Path(old).name}")
        real_rename(old, new, **options)

    def pwrite(descriptor: int, *args: Any) -> int:
        events.append(f"pwrite {named(descriptor)}")
        return real_pwrite(descriptor, *args)

    for name, call in (("fsync", fsync), ("rename", rename), ("pwrite", pwrite)):
        monkeypatch.setattr(os, name, call)
    change(model)
    events = [re.sub(r"\.(yarncli-journal\.bin)\.yarncli-new-\S+", r"\1", e) for e in events]
    begin = events.index(f"fsync {JOURNAL_NAME}")
    assert not any(event.startswith("rename") for event in events[:begin])
    assert events[begin : begin + 5] == [
        f"fsync {JOURNAL_NAME}", f"rename {JOURNAL_NAME}", "fsync model", "rename config.json",
        "fsync model",
    ]  # fmt: skip
    # The shards are written side by side, each flushed at its end.
    assert [event for event in events[begin:] if event.endswith(ONE)] == [
        f"pwrite {ONE}", f"pwrite {ONE}", f"fsync {ONE}",
    ]  # fmt: skip
    assert [event for event in events[begin:] if event.endswith(TWO)] == [
        f"pwrite {TWO}", f"fsync {TWO}",
    ]  # fmt: skip
    last = max(events.index(f"fsync {ONE}"), events.index(f"fsync {TWO}"))
    assert not any(event.startswith("rename") for event in events[begin + 5 : last])
    assert events[-3:] == ["fsync model"] * 3  # new names, the end of all else, of the journal


def test_what_does_not_read_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = state(model)
    real = in_place.write_exactly
    first = True

    def lossy(descriptor: int, data: bytes, offset: int) -> None:
        nonlocal first
        real(descriptor, data[:-1] + b"?" if first else data, offset)
        first = False

    monkeypatch.setattr(in_place, "write_exactly", lossy)
    with pytest.raises(OutputError, match="does not read back"):
        change(model)
    assert state(model) == old


@pytest.mark.parametrize("position", ["start", "middle", "end", "tail", "gone"])
def test_a_damaged_journal_changes_nothing(half: Path, position: str) -> None:
    path = half / JOURNAL_NAME
    data = bytearray(path.read_bytes())
    if position == "gone":
        path.unlink()
    elif position == "tail":
        path.write_bytes(data + b"x")
    else:
        end = data.rindex(b'"sha256"') + 15
        data[{"start": 3, "middle": len(data) // 2, "end": end}[position]] ^= 1
        path.write_bytes(data)
    before = state(half)
    for trusting in (False, True):
        with pytest.raises(CheckpointError, match=r"damaged|without the journal"):
            recover(half, trust_journal=trusting)
    assert state(half) == before


def test_a_journal_cut_anywhere_is_not_obeyed(half: Path) -> None:
    whole = (half / JOURNAL_NAME).read_bytes()
    before = {name: data for name, data in state(half).items() if name != JOURNAL_NAME}
    for length in [*range(0, len(whole), 17), len(whole) - 1]:
        (half / JOURNAL_NAME).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            recover(half, trust_journal=True)
        found = {name: data for name, data in state(half).items() if name != JOURNAL_NAME}
        assert found == before
    (half / JOURNAL_NAME).write_bytes(whole)
    assert recover(half) == "old"


@pytest.mark.parametrize("tamper", ["size", "gone", "link", "other"])
def test_other_files_than_the_journals(half: Path, tmp_path: Path, tamper: str) -> None:
    shard = half / TWO
    data = shard.read_bytes()
    if tamper == "size":
        shard.write_bytes(data + b"x")
    elif tamper == "other":
        shard.unlink()
        shard.write_bytes(bytes(len(data)))
    else:
        shard.rename(tmp_path / "elsewhere")
        if tamper == "link":
            shard.symlink_to(tmp_path / "elsewhere")
    before = (half / ONE).read_bytes()
    with pytest.raises((CheckpointError, OutputError), match=TWO):
        recover(half)
    assert (half / ONE).read_bytes() == before
    assert not (half / "config.json").exists()


def test_a_config_put_back_proves_nothing(model: Path, half: Path) -> None:
    """`git checkout config.json` after a kill: the weights are still half changed."""
    old = state(model)
    shutil.copy(model / "config.json", half / "config.json")
    with pytest.raises(CheckpointError, match="--recover"):
        open_checkpoint(str(half))
    assert recover(half) == "old"
    assert state(half) == old


def test_a_config_of_somebody_else_is_kept(half: Path) -> None:
    (half / "config.json").write_bytes(b'{"mine": 1}')
    before = state(half)
    with pytest.raises(CheckpointError, match=r"config\.json has neither"):
        recover(half)
    assert state(half) == before


def test_weights_put_back_are_left_alone(model: Path, half: Path) -> None:
    for name in (ONE, TWO):
        (half / name).unlink()
        shutil.copy(model / name, half / name)
        (half / name).chmod(0o444)
    stamps = [(half / name).stat().st_mtime_ns for name in (ONE, TWO)]
    assert recover(half) == "old"
    assert [(half / name).stat().st_mtime_ns for name in (ONE, TWO)] == stamps
    assert state(half) == state(model)


def foreign(place: Path, *records: Any) -> Key:
    """Write a journal with a key that is not in the state directory."""
    key = Key("0" * 32, bytes(32))
    with (place / JOURNAL_NAME).open("wb") as file:
        writer = JournalWriter(file, key)
        for record in records:
            writer.add(record)
        writer.end()
    return key


def file_record(name: str, old: bytes | None) -> FileRecord:
    owner = None if old is None else (0o600, os.getuid(), os.getgid())
    return FileRecord(name=name, old=old, new=checksum(b"new"), owner=owner)


def test_a_strangers_journal_is_shown_not_obeyed(model: Path) -> None:
    size = (model / ONE).stat().st_size
    before = (model / "config.json").read_bytes()
    foreign(
        model,
        RangeRecord(name=ONE, size=size, offset=100, old=b"abcd", new=b"ABCD"),
        RangeRecord(name=ONE, size=size, offset=104, old=b"efgh", new=b"EFGH"),
        RangeRecord(name=ONE, size=size, offset=200, old=b"ij", new=b"IJ"),
        file_record("config.json", b"evil"),
        file_record("yarncli.json", None),
    )
    with pytest.raises(CheckpointError, match="--trust-journal") as caught:
        recover(model)
    assert caught.value.restores == (
        f"{ONE}: bytes 100 to 107",
        f"{ONE}: bytes 200 to 201",
        "config.json: 4 bytes, the whole file",
        "yarncli.json: removed",
    )
    for command in (change, change_config):
        with pytest.raises(CheckpointError, match="--trust-journal"):
            command(model)
    assert (model / "config.json").read_bytes() == before


def test_a_journal_changed_after_it_was_written_is_a_strangers(half: Path) -> None:
    """The same key, but another seal: its owner cannot be told from who changed it."""
    with (half / JOURNAL_NAME).open("rb") as file:
        identifier = json.loads(re.findall(rb'\{"id": "[0-9a-f]+"\}', file.read(200))[0])["id"]
    with (half / JOURNAL_NAME).open("wb") as file:
        writer = JournalWriter(file, Key(identifier, bytes(32)))
        writer.add(file_record("config.json", b"evil"))
        writer.end()
    with pytest.raises(CheckpointError, match="not written by you"):
        recover(half)


@pytest.mark.parametrize(
    "name", [".bashrc", "sub/run.sh", "tokenizer.json", "model.bin", "config.json.orig.x"]
)
def test_even_a_trusted_journal_restores_only_what_we_change(model: Path, name: str) -> None:
    before = state(model)
    foreign(model, file_record(name, b"evil"))
    with pytest.raises(CheckpointError, match="which yarncli never changes"):
        recover(model, trust_journal=True)
    assert {n: d for n, d in state(model).items() if n != JOURNAL_NAME} == before


@pytest.mark.parametrize("name", ["../victim", "/etc/victim", "a/../../victim", "", ".", "a\0b"])
def test_names_that_leave_the_directory(model: Path, name: str) -> None:
    foreign(model, file_record(name, b"evil"))
    with pytest.raises(CheckpointError, match="damaged"):
        recover(model, trust_journal=True)


def test_links_are_not_followed_in_any_part(model: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "model.safetensors.index.json").write_bytes(b"precious")
    (model / "ld").symlink_to(outside)
    foreign(model, file_record("ld/model.safetensors.index.json", b"evil"))
    with pytest.raises(CheckpointError, match="symbolic link"):
        recover(model, trust_journal=True)
    (model / JOURNAL_NAME).unlink()
    (model / JOURNAL_NAME).symlink_to(outside / "model.safetensors.index.json")
    with pytest.raises(CheckpointError, match="not a regular file"):
        recover(model, trust_journal=True)
    (model / JOURNAL_NAME).unlink()
    (model / "config.json").unlink()
    (model / "config.json").symlink_to(outside / "model.safetensors.index.json")
    for command in (change, change_config):
        with pytest.raises(CheckpointError, match="symbolic link"):
            command(model)
    assert (outside / "model.safetensors.index.json").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["config.json", "sub/config.json"])
def test_a_link_put_in_place_meanwhile_is_not_opened(
    model: Path, tmp_path: Path, name: str
) -> None:
    """What was looked at before may be a link by now: the opening itself must not follow it."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "config.json").write_bytes(b"precious")
    if "/" in name:
        (model / "sub").symlink_to(tmp_path / "outside")
    else:
        (model / name).unlink()
        (model / name).symlink_to(tmp_path / "outside" / "config.json")
    with hold(model, "exclusive") as held, pytest.raises(CheckpointError, match="symbolic link"):
        held.open(name, os.O_RDWR)


def test_shared_weights_are_refused(model: Path, tmp_path: Path) -> None:
    os.link(model / TWO, tmp_path / "second")
    old = state(model)
    with pytest.raises(CheckpointError, match="several hard links"):
        change(model)
    assert state(model) == old


def test_weights_that_cannot_be_written_are_found_out_first(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, real = state(model), Directory.open

    def refuse(self: Directory, name: str, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
        if name == TWO and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(self, name, flags, mode)

    monkeypatch.setattr(Directory, "open", refuse)
    with pytest.raises(OutputError, match=f"{TWO}: permission denied"):
        change(model)
    assert state(model) == old


def test_a_read_only_file_system(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call that writes is refused, the removal of what is not there too."""
    old, real = state(model), os.open

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    def only_read(path: Any, flags: int, *rest: Any, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            refuse()
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", only_read)
    for name in ("unlink", "rename", "pwrite", "mkdir"):
        monkeypatch.setattr(os, name, refuse)
    for command in (change, change_config):
        with pytest.raises(OutputError, match=r"^Cannot write .*: the file system is read-only"):
            command(model)
    monkeypatch.undo()
    assert state(model) == old


def test_modes_stay(model: Path) -> None:
    (model / "config.json").chmod(0o600)
    (model / "tokenizer_config.json").write_bytes(b"{}")
    (model / "tokenizer_config.json").chmod(0o640)
    model.chmod(0o700)
    change(model)
    modes = {path.name: path.stat().st_mode & 0o777 for path in model.iterdir()}
    assert modes["config.json"] == modes["config.json.orig"] == modes["yarncli.json"] == 0o600
    assert modes["tokenizer_config.json"] == 0o640
    assert model.stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owners_stay(model: Path, half: Path) -> None:
    for place in (model, half):
        for name in ("config.json", PENDING_NAME):
            if (place / name).exists():
                os.chown(place / name, 12345, 54321)
    change(model)
    for name in ("config.json", "config.json.orig", "yarncli.json"):
        found = (model / name).stat()
        assert (found.st_uid, found.st_gid) == (12345, 54321)


def test_backups_are_numbered_and_never_doubled(model: Path) -> None:
    first = (model / "config.json").read_bytes()
    assert change_config(model, b"two") == {"config.json": "config.json.orig"}
    assert change_config(model, b"three") == {"config.json": "config.json.orig.1"}
    (model / "config.json.orig.9").write_bytes(b"mine")
    (model / "config.json.original").write_bytes(b"mine")
    assert change_config(model, b"four") == {"config.json": "config.json.orig.10"}
    (model / "config.json").write_bytes(b"three")  # the newest backup holds that already
    assert change_config(model, b"five") == {"config.json": "config.json.orig.10"}
    contents = {n: d for n, d in state(model).items() if n.startswith("config.json")}
    assert contents == {
        "config.json": b"five",
        "config.json.orig": first,
        "config.json.orig.1": b"two",
        "config.json.orig.9": b"mine",
        "config.json.orig.10": b"three",
        "config.json.original": b"mine",
    }


def test_one_small_file_needs_no_journal(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Key, "create", lambda directory: pytest.fail("a key was made"))
    with changing(model) as held:
        assert in_place.change(held, {"config.json": b"new"}) == {}
        assert in_place.change(held, {"config.json": b"new"}) == {}
    assert (model / "config.json").read_bytes() == b"new"


def test_two_at_a_time(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_place, "hold", lambda path, lock: hold(path, lock))
    monkeypatch.setattr(directories, "PATIENCE", 0.0)

    def second(_: int) -> None:
        for other in (recover, change, change_config):
            with pytest.raises(CheckpointError, match="Another process"):
                other(model)

    change(model, second)
    assert (model / "config.json").read_bytes() == NEW_CONFIG


def test_waiting_for_a_short_change(model: Path) -> None:
    import threading

    with hold(model, "shared"):
        thread = threading.Thread(target=change_config, args=(model,))
        thread.start()
        thread.join(0.1)
        assert thread.is_alive()
    thread.join(5)
    assert (model / "config.json").read_bytes() == NEW_CONFIG


def test_readers_hold_a_directory_together(model: Path) -> None:
    with hold(model, "shared"), hold(model, "shared"):
        pass


def test_pending_can_be_opened_on_request(half: Path, model: Path) -> None:
    shutil.copy(model / "config.json", half / "config.json")
    with pytest.raises(CheckpointError, match="--recover"):
        open_checkpoint(str(half))
    assert open_checkpoint(str(half), allow_pending=True).config().value


@pytest.mark.parametrize("missing", ["O_NOFOLLOW", "O_DIRECTORY", "pwrite", "fcntl", "dir_fd"])
def test_without_what_a_safe_change_needs(
    model: Path, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = state(model)
    if missing == "fcntl":
        monkeypatch.setattr(system, "fcntl", None)
    elif missing == "dir_fd":
        monkeypatch.setattr(system, "_HAS_DIR_FD", False)
    else:
        monkeypatch.delattr(os, missing)
    with pytest.raises(UsageError, match="OUT"):
        change(model)
    with pytest.raises(UsageError, match="OUT"):
        recover(model)
    assert state(model) == old


def test_a_file_system_without_locks(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBADF, "Bad file descriptor")  # NFS: directories cannot be locked

    monkeypatch.setattr(system.fcntl, "flock", refuse)
    with pytest.raises(UsageError, match="has no locks"):
        change(model)
    with hold(model, "shared"):
        pass
