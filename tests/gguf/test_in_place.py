"""A GGUF file changed where it lies: the old one or the new one, whoever kills it, alone only."""

import errno
import mmap
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from support.gguf_models import keys_of, write_gguf
from support.kills import calls_of, kill_at_every_call, leave_killed, pause_at, run_refused
from yarncli.checkpoint import directory as directories
from yarncli.checkpoint import resizing, shifting
from yarncli.checkpoint.directory import JOURNAL_NAME, pending
from yarncli.checkpoint.in_place import changing
from yarncli.checkpoint.journal import FileRecord, JournalWriter, Key, ResizeRecord, read_journal
from yarncli.checkpoint.recovery import recover
from yarncli.checkpoint.rewrite import Patch
from yarncli.checkpoint.shifting import PENDING_SUFFIX
from yarncli.errors import CheckpointError, OutputError, UsageError
from yarncli.gguf.in_place import change_gguf
from yarncli.gguf.layout import GgufEdit, NewTensor
from yarncli.gguf.record import decide_rewrite, decide_undo
from yarncli.gguf.rewrite import write_gguf as write_copy
from yarncli.gguf.source import open_gguf
from yarncli.history import Step

STEP = Step(command="convert", source="m.gguf")
FREQS = "rope_freqs.weight"
KEYS = {"llama.context_length": ("u32", 8192), "llama.rope.scaling.type": ("str", "yarn")}
EDITS = {
    "keys": GgufEdit(keys=KEYS),
    "a tensor": GgufEdit(keys=KEYS, tensors={"new": NewTensor.of_floats([2.0] * 50)}),
    "a tensor in its place": GgufEdit(tensors={FREQS: NewTensor.of_floats([2.0] * 32)}),
    "as many blocks as it takes": GgufEdit(keys={"llama.text": ("str", "x" * 9000)}),
}


def change(path: Path, edit: GgufEdit) -> None:
    with changing(path.parent) as held:
        file = open_gguf(path)
        change_gguf(file, decide_rewrite(file, edit, STEP), held)


def undo(path: Path) -> None:
    with changing(path.parent) as held:
        file = open_gguf(path)
        change_gguf(file, decide_undo(file), held)


def changed(path: Path, edit: GgufEdit, out: Path) -> bytes:
    """What a file is to be, written as a copy."""
    file = open_gguf(path)
    write_copy(file, decide_rewrite(file, edit, STEP), out)
    return out.read_bytes()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    return write_gguf(tmp_path / "model" / "m.gguf", rope_freqs=True, rows=8)


@pytest.mark.parametrize("name", EDITS)
def test_in_place_and_back(name: str, model: Path, tmp_path: Path) -> None:
    old, wanted = model.read_bytes(), changed(model, EDITS[name], tmp_path / "o.gguf")
    model.chmod(0o640)
    before = model.stat()
    change(model, EDITS[name])
    assert model.read_bytes() == wanted
    assert (model.stat().st_ino, model.stat().st_mode) == (before.st_ino, before.st_mode)
    assert names(model.parent) == ["m.gguf"]
    undo(model)
    assert model.read_bytes() == old


def test_a_second_change_fits_into_the_padding(model: Path) -> None:
    """As long as that is as much as the record gets longer; then nothing has to move."""
    change(model, EDITS["keys"])
    size = model.stat().st_size
    assert len(open_gguf(model).header.text("yarncli.padding")) > 1500
    change(model, GgufEdit(keys={"llama.context_length": ("u32", 16384)}))
    assert model.stat().st_size == size
    assert keys_of(model)["llama.context_length"] == ("UINT32", 16384)


def test_the_first_file_of_a_split_model(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "m.gguf", split=3)
    others = {path: path.read_bytes() for path in tmp_path.iterdir() if path != first}
    change(first, EDITS["a tensor"])
    assert keys_of(first)["split.tensors.count"] == ("INT32", 8)
    assert {path: path.read_bytes() for path in others} == others


def test_data_that_pass_through_a_function(model: Path, tmp_path: Path) -> None:
    header = open_gguf(model).header
    at = header.data_start + header.tensors["token_embd.weight"].offset
    patch = Patch(at, 100, lambda piece: bytes(255 - byte for byte in piece))
    edit = GgufEdit(keys=KEYS, patches=(patch,))
    wanted = changed(model, edit, tmp_path / "o.gguf")
    change(model, edit)
    assert model.read_bytes() == wanted


@pytest.mark.parametrize("back", [False, True], ids=["change", "undo"])
@pytest.mark.parametrize("name", ["a tensor", "a tensor in its place"])
def test_kill_at_every_call(name: str, back: bool, model: Path, tmp_path: Path) -> None:
    old, new = model.read_bytes(), changed(model, EDITS[name], tmp_path / "o.gguf")
    if back:
        model.write_bytes(new)
        old, new = new, old
    seen = set()

    def run(directory: Path) -> None:
        undo(directory / "m.gguf") if back else change(directory / "m.gguf", EDITS[name])

    def check(directory: Path, where: str) -> None:
        path = directory / "m.gguf"
        if where == "completed":
            assert path.read_bytes() == new
            assert names(directory) == ["m.gguf"]
            return
        if path.exists():  # an engine would load this
            assert path.read_bytes() in (old, new)
        else:
            with pytest.raises(CheckpointError, match="yarncli bake --recover"):
                open_gguf(path)
        seen.add(recover(directory))
        assert path.read_bytes() in (old, new)
        assert names(directory) == ["m.gguf"]

    (tmp_path / "kills").mkdir()
    kill_at_every_call(tmp_path / "kills", lambda to: shutil.copytree(model.parent, to), run, check)
    assert seen == {"nothing", "old", "new"}


@pytest.mark.parametrize("back", [False, True], ids=["change", "undo"])
def test_kill_at_every_call_of_a_recovery(back: bool, model: Path, tmp_path: Path) -> None:
    new = changed(model, EDITS["a tensor"], tmp_path / "o.gguf")
    if back:
        model.write_bytes(new)
    old = model.read_bytes()

    def run(directory: Path) -> None:
        undo(directory / "m.gguf") if back else change(directory / "m.gguf", EDITS["a tensor"])

    half = tmp_path / "half"
    shutil.copytree(model.parent, half)
    leave_killed(run, half, "fsync", 4, half=True)
    assert names(half) == ["m.gguf.yarncli-pending", JOURNAL_NAME]

    def check(directory: Path, where: str) -> None:
        recover(directory, trust_journal=True)  # as the child may have forgotten the key
        assert (directory / "m.gguf").read_bytes() == old
        assert names(directory) == ["m.gguf"]

    (tmp_path / "kills").mkdir()
    kill_at_every_call(
        tmp_path / "kills",
        lambda to: shutil.copytree(half, to),
        lambda directory: recover(directory, trust_journal=True),
        check,
    )


def test_the_next_change_recovers_first(model: Path, tmp_path: Path) -> None:
    wanted = changed(model, EDITS["keys"], tmp_path / "o.gguf")
    leave_killed(
        lambda place: change(place / "m.gguf", EDITS["a tensor"]), model.parent, "fsync", 4,
        half=True,
    )  # fmt: skip
    assert pending(model.parent)
    change(model, EDITS["keys"])
    assert model.read_bytes() == wanted


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_refusal_of_the_system_leaves_the_old_file(
    code: int, model: Path, tmp_path: Path
) -> None:
    old, new = model.read_bytes(), changed(model, EDITS["a tensor"], tmp_path / "o.gguf")

    def run(directory: Path) -> None:
        change(directory / "m.gguf", EDITS["a tensor"])

    def copy(name: str) -> Path:
        return Path(shutil.copytree(model.parent, tmp_path / name))

    for number in range(len(calls_of(run, copy("count")))):
        place = copy(f"w{number}")
        ended = run_refused(run, place, number, code)
        assert ended.completed or ended.status >> 8 in (103, 106), ended
        if pending(place):
            assert "bake --recover" in ended.told
            recover(place, trust_journal=True)
        assert (place / "m.gguf").read_bytes() in ([new] if ended.completed else [old, new])
        assert names(place) == ["m.gguf"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_exception_puts_the_old_file_back(
    error: type[BaseException], model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = model.read_bytes()

    def fail(*_: object) -> bytes:
        assert names(model.parent) == ["m.gguf.yarncli-pending", JOURNAL_NAME]
        raise error

    read, count = resizing.read_exactly, 0

    def sometimes(*given: int) -> bytes:
        nonlocal count
        count += 1
        return read(*given) if count < 4 else fail()  # two old ranges, then what was written

    monkeypatch.setattr(resizing, "read_exactly", sometimes)
    with pytest.raises(error):
        change(model, EDITS["a tensor"])
    assert count == 4
    assert model.read_bytes() == old
    assert names(model.parent) == ["m.gguf"]


def test_what_does_not_read_back(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, read = model.read_bytes(), resizing.read_exactly

    def damaged(descriptor: int, offset: int, length: int) -> bytes:
        data = read(descriptor, offset, length)
        is_new = offset == 0 and b"yarncli.plan" in data
        return data[:-1] + b"?" if is_new else data

    monkeypatch.setattr(resizing, "read_exactly", damaged)
    with pytest.raises(OutputError, match="does not read back what was written at byte 0"):
        change(model, EDITS["keys"])
    assert model.read_bytes() == old


def test_a_file_system_that_moves_nothing(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = model.read_bytes()

    def refuse(_descriptor: int, shift: int) -> None:
        if shift:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(resizing, "shift_content", refuse)
    with pytest.raises(CheckpointError, match=r"cannot make room .* OUT, instead"):
        change(model, EDITS["keys"])
    assert model.read_bytes() == old
    assert names(model.parent) == ["m.gguf"]


def test_a_file_system_that_really_moves_nothing() -> None:
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        pytest.skip("there is no tmpfs to write to")
    place = shared / f"yarncli-test-{os.getpid()}"
    place.mkdir()
    try:
        model = write_gguf(place / "m.gguf")
        old = model.read_bytes()
        with pytest.raises(CheckpointError, match="cannot make room"):
            change(model, EDITS["keys"])
        assert model.read_bytes() == old
    finally:
        shutil.rmtree(place)


def test_without_the_call_of_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    import ctypes

    monkeypatch.setattr(ctypes, "CDLL", lambda *_, **__: object())
    with pytest.raises(OSError, match="not supported"):
        shifting.shift_content(0, 4096)


def test_blocks_of_another_size(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(model)
    large = os.statvfs_result((65536, *found[1:]))
    monkeypatch.setattr(os, "statvfs", lambda _: large)
    with pytest.raises(CheckpointError, match="moves blocks of 65,536 only"):
        change(model, EDITS["keys"])


@pytest.mark.parametrize(
    "edit",
    [
        GgufEdit(drop_tensors=["token_embd.weight"]),
        GgufEdit(tensors={FREQS: NewTensor.of_floats([1.0])}),
    ],
)
def test_tensors_that_would_move_among_each_other(edit: GgufEdit, model: Path) -> None:
    with pytest.raises(CheckpointError, match=r"change their order.*as OUT instead"):
        change(model, edit)


def test_to_cut_and_grow_at_once(model: Path) -> None:
    edit = GgufEdit(keys=KEYS, drop_tensors=["output_norm.weight"])
    with pytest.raises(CheckpointError, match="cut and put together anew"):
        change(model, edit)


@pytest.mark.parametrize("limit", ["_MOST_BYTES", "_MOST_RANGES"])
def test_more_than_a_journal_takes(
    limit: str, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resizing, limit, 1)
    with pytest.raises(CheckpointError, match=r"Too much of .* OUT, instead"):
        change(model, EDITS["keys"])


def test_a_journal_takes_as_many_ranges(model: Path) -> None:
    ranges = tuple((1 << 50, b"") for _ in range(resizing._MOST_RANGES))
    record = ResizeRecord(
        name="m" * 200, size=1 << 51, shift=0, new_size=1 << 51, ranges=((0, b"GGUF"), *ranges)
    )
    with (model.parent / JOURNAL_NAME).open("w+b") as file:
        writer = JournalWriter(file, Key.create(model.parent))
        writer.add(record)
        writer.end()
        assert list(read_journal(file, "journal").records()) == [record]


HOLDERS = {
    "open": "import sys; f = open(sys.argv[1]); print('x', flush=True); sys.stdin.read()",
    "mapped": (
        "import mmap, sys; f = open(sys.argv[1], 'rb'); m = mmap.mmap(f.fileno(), 0, prot=1); "
        "f.close(); print('x', flush=True); sys.stdin.read()"
    ),
}


@pytest.mark.parametrize("how", HOLDERS)
def test_another_process_has_it(how: str, model: Path) -> None:
    old = model.read_bytes()
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDERS[how], model], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        wanted = rf"has .*m\.gguf open: python.* \(process {holder.pid}\)\. End it first"
        with pytest.raises(CheckpointError, match=wanted):
            change(model, EDITS["keys"])
        holder.kill()
    assert model.read_bytes() == old
    assert names(model.parent) == ["m.gguf"]
    change(model, EDITS["keys"])


def test_this_process_has_it_mapped(model: Path) -> None:
    with model.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    with mapped, pytest.raises(CheckpointError, match="open"):
        change(model, EDITS["keys"])


def test_who_opens_it_meanwhile_waits_and_finds_the_new_file(model: Path, tmp_path: Path) -> None:
    wanted = changed(model, EDITS["keys"], tmp_path / "o.gguf")
    # Paused before the journal is written: then the file still has its name.
    child = pause_at(lambda place: change(place / "m.gguf", EDITS["keys"]), model.parent, 3)
    assert child.told()
    assert model.exists()
    code = (
        "import sys; print('x', flush=True); file = open(sys.argv[1], 'rb'); "
        "sys.stdout.buffer.write(file.read())"
    )
    reader = subprocess.Popen([sys.executable, "-c", code, model], stdout=subprocess.PIPE)
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"x\n"
    time.sleep(0.2)
    child.go()
    assert child.wait().completed
    found, _ = reader.communicate(timeout=60)
    assert found == wanted


@pytest.mark.parametrize("code", [errno.EACCES, errno.EINVAL])
def test_where_nobody_can_tell_it_is_refused(
    code: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = resizing.fcntl.fcntl

    def refuse(descriptor: int, command: int, *rest: int) -> int:
        if command == resizing.fcntl.F_SETLEASE:
            raise OSError(code, os.strerror(code))
        return real(descriptor, command, *rest)

    monkeypatch.setattr(resizing.fcntl, "fcntl", refuse)
    with pytest.raises(CheckpointError, match="does not tell whether another process"):
        change(model, EDITS["keys"])


def test_a_system_without_leases(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resizing, "fcntl", None)
    with pytest.raises(CheckpointError, match="cannot tell whether another process"):
        change(model, EDITS["keys"])


def test_a_second_writer_waits_for_its_turn(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    child = pause_at(lambda place: change(place / "m.gguf", EDITS["keys"]), model.parent, 3)
    child.told()
    monkeypatch.setattr(directories, "PATIENCE", 0.05)
    with pytest.raises(CheckpointError, match="Another process is using"):
        change(model, EDITS["keys"])
    with pytest.raises(CheckpointError, match="Another process is changing"):
        open_gguf(model)
    child.go()
    assert child.wait().completed
    assert keys_of(model)["llama.context_length"] == ("UINT32", 8192)


def link(model: Path) -> Path:
    found = model.with_name("l.gguf")
    found.symlink_to(model)
    return found


def hard_link(model: Path) -> Path:
    model.with_name("l.gguf").hardlink_to(model)
    return model


def in_the_cache(model: Path) -> Path:
    place = model.parent / "models--org--name" / "blobs"
    place.mkdir(parents=True)
    return model.rename(place / "0123")


def ollamas(model: Path) -> Path:
    return model.rename(model.with_name(f"sha256-{'0123456789abcdef' * 4}"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (link, "symbolic link"),
        (hard_link, "several hard links"),
        (in_the_cache, "the Hub cache"),
        (ollamas, "as Ollama stores files"),
    ],
)
def test_what_others_share_is_refused(
    make: Callable[[Path], Path], message: str, model: Path
) -> None:
    path = make(model)
    with pytest.raises(CheckpointError, match=message):
        change(path, EDITS["keys"])


def test_a_file_that_changed_after_it_was_read(model: Path) -> None:
    with changing(model.parent) as held:
        file = open_gguf(model)
        rewrite = decide_rewrite(file, EDITS["keys"], STEP)
        os.utime(model, ns=(1, 1))
        with pytest.raises(CheckpointError, match="was changed after it was read"):
            change_gguf(file, rewrite, held)


def test_a_full_disk(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = shutil.disk_usage(model)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(OutputError, match="MB are needed"):
        change(model, EDITS["keys"])


def half_changed(model: Path) -> Path:
    leave_killed(
        lambda place: change(place / "m.gguf", EDITS["keys"]), model.parent, "fsync", 4, half=True
    )
    return model.with_name(f"m.gguf{PENDING_SUFFIX}")


def test_a_recovery_of_another_file_is_refused(model: Path) -> None:
    waiting = half_changed(model)
    with waiting.open("ab") as file:
        file.write(b"x" * 9999)
    with pytest.raises(CheckpointError, match=r"has another size\. Nothing was restored"):
        recover(model.parent)


def test_a_recovery_beside_a_new_download_is_refused(model: Path) -> None:
    half_changed(model)
    model.write_bytes(b"GGUF, new")
    with pytest.raises(CheckpointError, match=r"holds both m\.gguf and m\.gguf\.yarncli-pending"):
        recover(model.parent)
    assert model.read_bytes() == b"GGUF, new"
    model.unlink()
    assert recover(model.parent) == "old"


def test_a_journal_that_names_something_else_is_not_obeyed(model: Path) -> None:
    key = Key.create(model.parent)
    with (model.parent / JOURNAL_NAME).open("wb") as file:
        writer = JournalWriter(file, key)
        record = ResizeRecord(name="m.gguf", size=9, shift=0, new_size=9, ranges=((0, b"PK"),))
        writer.add(record)
        writer.end()
    with pytest.raises(CheckpointError, match="which yarncli never changes"):
        recover(model.parent)


@pytest.mark.parametrize(
    "wrong",
    [
        {"shift": 1.5}, {"size": 0}, {"new_size": -1}, {"shift": -9}, {"ranges": 3},
        {"ranges": [3]}, {"ranges": [[0, 100]]}, {"ranges": [[0, 3]]},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_record_of_a_change_is_not_obeyed(wrong: dict[str, object], model: Path) -> None:
    class Damaged(JournalWriter):
        def _entry(self, fields: dict, data: bytes) -> None:
            super()._entry({**fields, **wrong} if "ranges" in fields else fields, data)

    with (model.parent / JOURNAL_NAME).open("w+b") as file:
        writer = Damaged(file, Key.create(model.parent))
        writer.add(FileRecord(name="x.json", old=None, new=None, owner=None))
        writer.add(ResizeRecord(name="m", size=9, shift=0, new_size=9, ranges=((0, b"GGUF"),)))
        writer.end()
        with pytest.raises(CheckpointError, match="is damaged"):
            read_journal(file, "journal")


def test_the_hub_has_no_place(model: Path) -> None:
    with changing(model.parent) as held:
        file = open_gguf(model)
        rewrite = decide_rewrite(file, EDITS["keys"], STEP)
        remote = type(file)(name="hf://o/n/m.gguf", header=file.header)
        with pytest.raises(UsageError, match="on the Hub"):
            change_gguf(remote, rewrite, held)
