"""Output directories and files: whole or absent, whatever happens, wherever the run is killed."""

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.checkpoints import snapshot
from support.kills import kill_at_every_call
from yarncli.checkpoint.output import (
    atomic_write,
    check_destination,
    make_parents,
    output_directory,
    output_errors,
    require_space,
    write_new,
)
from yarncli.checkpoint.rewrite import FileCopy, Patch, copy_files
from yarncli.errors import CheckpointError, OutputError, UsageError

UMASK = os.umask(0)
os.umask(UMASK)


def fill(staging: Path, text: str = "new") -> None:
    (staging / "config.json").write_text(text)
    (staging / "sub").mkdir()
    (staging / "sub" / "data").write_text(text)


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@pytest.mark.parametrize("fsync", [False, True])
def test_a_directory_appears_when_done(tmp_path: Path, fsync: bool) -> None:
    with output_directory(tmp_path / "out", fsync=fsync) as staging:
        fill(staging)
        assert not (tmp_path / "out").exists()
        assert staging.parent == tmp_path
        assert staging.name.startswith(".")
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / "sub" / "data").read_text() == "new"


def test_fsync_reaches_every_file_and_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[int, str]] = []

    def record(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        synced.append((os.fstat(descriptor).st_ino, name))

    monkeypatch.setattr(os, "fsync", record)
    with output_directory(tmp_path / "out", fsync=True) as staging:
        fill(staging)
        expected = {path.stat().st_ino for path in staging.rglob("*")} | {staging.stat().st_ino}
    assert {inode for inode, _ in synced[:-1]} == expected
    assert synced[-1][1] == str(tmp_path)  # the rename, last
    synced.clear()
    with output_directory(tmp_path / "other") as staging:
        fill(staging)
    assert not synced


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_nothing_remains_after_an_exception(tmp_path: Path, error: type[BaseException]) -> None:
    def fail() -> None:
        with output_directory(tmp_path / "out") as staging:
            fill(staging)
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == set()


def test_overwrite_keeps_the_old_one_until_the_end(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    with pytest.raises(UsageError, match="--overwrite"), output_directory(out):
        pass
    with pytest.raises(ZeroDivisionError), output_directory(out, overwrite=True) as staging:
        (staging / "config.json").write_text(str(1 / 0))
    assert (out / "config.json").read_text() == "old"
    with output_directory(out, overwrite=True) as staging:
        (staging / "config.json").write_text("new")
    assert names(tmp_path) == {"out"}
    assert names(out) == {"config.json"}


def test_a_failing_rename_puts_the_old_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    fill(out, "old")
    real, count = os.rename, 0

    def second_fails(*args: Any) -> None:
        nonlocal count
        count += 1
        if count == 2:
            raise OSError(errno.EACCES, "Permission denied")
        real(*args)

    monkeypatch.setattr(os, "rename", second_fails)
    with (
        pytest.raises(OutputError, match="permission"),
        output_directory(out, overwrite=True) as staging,
    ):
        fill(staging)
    assert names(tmp_path) == {"out"}
    assert (out / "config.json").read_text() == "old"


def test_refused_destinations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "models" / "source"
    source.mkdir(parents=True)
    fill(source)
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "notes.txt").write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(source)
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    home = tmp_path / "home"
    home.mkdir()
    fill(home)
    (tmp_path / "models" / "config.json").write_text("{}")
    monkeypatch.setenv("HOME", str(home))

    def refuse(path: Path, text: str, *, overwrite: bool = True) -> None:
        before = sorted(tmp_path.rglob("*"))
        with (
            pytest.raises(UsageError, match=text),
            output_directory(path, source=source, overwrite=overwrite),
        ):
            pass
        assert sorted(tmp_path.rglob("*")) == before

    refuse(plain, "already exists", overwrite=False)
    refuse(plain, "no config.json")
    refuse(tmp_path / "file", "no config.json")
    refuse(link, "no config.json")
    refuse(dangling, "no config.json")
    refuse(source, "is or holds the source")
    refuse(tmp_path / "models", "is or holds the source")
    refuse(source / "out", "inside the source")
    refuse(link / "out", "inside the source")
    refuse(source / "sub" / ".." / "out", "inside the source")
    refuse(home, "home directory")
    refuse(tmp_path / "missing" / "out", "does not exist")
    monkeypatch.chdir(home)
    monkeypatch.setenv("HOME", str(plain))
    refuse(Path("../home"), "current directory")
    check_destination(tmp_path / "source-2", source=source, overwrite=False)


def test_long_names_and_neighbours(tmp_path: Path) -> None:
    long = "x" * 200
    with output_directory(tmp_path / long) as staging:
        fill(staging)
    with output_directory(tmp_path / (long + "y")) as staging:
        fill(staging)
    assert names(tmp_path) == {long, long + "y"}


KILLED = """
import os, signal, sys
from pathlib import Path
from yarncli.checkpoint.output import output_directory
with output_directory(Path(sys.argv[1])) as staging:
    (staging / "big").write_bytes(b"x" * 100)
    print(staging, flush=True)
    if sys.argv[2] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    sys.stdin.read()
"""


def start(out: Path, how: str) -> tuple[Any, Path]:
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(out), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return child, Path(child.stdout.readline().strip())  # type: ignore[union-attr]


def test_the_next_run_removes_what_a_killed_run_left(tmp_path: Path) -> None:
    dead, left = start(tmp_path / "out", "die")
    dead.communicate()
    alive, used = start(tmp_path / "out", "wait")  # cleans up, and is not cleaned up
    assert not left.exists()
    with output_directory(tmp_path / "out") as staging:
        fill(staging)
    assert names(tmp_path) == {"out", used.name}
    alive.communicate()
    assert alive.returncode == 1  # the destination has appeared in the meantime
    assert names(tmp_path) == {"out"}
    assert (tmp_path / "out" / "config.json").read_text() == "new"


def test_kill_at_every_call_of_a_copy(tmp_path: Path, make_checkpoint: Any) -> None:
    model = make_checkpoint(shards=1)
    whole = snapshot(model)
    shard = "model-00001-of-00001.safetensors"
    data = bytearray((model / shard).read_bytes())
    data[200:210] = b"A" * 10
    whole[shard] = bytes(data)
    old = {"config.json": snapshot(model)["config.json"]}

    def prepare(directory: Path) -> None:
        shutil.copytree(model, directory / "source")
        (directory / "replaced").mkdir()
        shutil.copy(model / "config.json", directory / "replaced")

    def convert(directory: Path, out: str) -> None:
        source = directory / "source"
        with output_directory(
            directory / out, source=source, overwrite=True, fsync=out == "out"
        ) as staging:
            patch = Patch(200, 10, lambda piece: b"A" * len(piece))
            copy_files(
                FileCopy(f, staging / f.name, (patch,) if f.name == shard else ())
                for f in source.iterdir()
            )

    def run(directory: Path) -> None:
        convert(directory, "out")
        convert(directory, "replaced")

    def check(directory: Path, where: str) -> None:
        assert snapshot(directory / "source") == snapshot(model)
        if (directory / "out").exists():
            assert snapshot(directory / "out") == whole
        if (directory / "replaced").exists():
            assert snapshot(directory / "replaced") in (old, whole)
        if where == "completed":
            assert names(directory) == {"source", "out", "replaced"}
        else:  # the next run finishes the job and leaves nothing behind
            run(directory)
            assert names(directory) == {"source", "out", "replaced"}
        assert snapshot(directory / "out") == snapshot(directory / "replaced") == whole

    calls = kill_at_every_call(tmp_path, prepare, run, check)
    assert {"copy_file_range", "pwrite", "fsync", "rename", "mkdir"} <= set(calls)


def test_after_a_kill_between_the_renames_the_old_one_returns(tmp_path: Path) -> None:
    aside = tmp_path / ".out.yarncli-old-1-0123abcd"
    aside.mkdir()
    fill(aside, "old")
    with pytest.raises(UsageError, match="already exists"), output_directory(tmp_path / "out"):
        pass
    assert (tmp_path / "out" / "config.json").read_text() == "old"
    assert names(tmp_path) == {"out"}


def test_atomic_write(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    atomic_write(path, b"one")
    path.chmod(0o640)
    atomic_write(path, b"two")
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o640
    assert names(tmp_path) == {"config.json"}


def test_shared_files_are_not_changed(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"x")
    link = tmp_path / "link"
    link.symlink_to(real)
    with pytest.raises(CheckpointError, match="symbolic link"):
        atomic_write(link, b"y")
    os.link(real, tmp_path / "second")
    with pytest.raises(CheckpointError, match="hard links"):
        atomic_write(real, b"y")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CheckpointError, match="regular file"):
        atomic_write(tmp_path / "fifo", b"y")
    cached = tmp_path / "models--a--b" / "snapshots" / "c" / "config.json"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"x")
    with pytest.raises(CheckpointError, match="Hub cache"):
        atomic_write(cached, b"y")
    mine = tmp_path / "models--mine"
    mine.mkdir()
    atomic_write(mine / "config.json", b"y")
    assert real.read_bytes() == cached.read_bytes() == b"x"


def test_space(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    require_space(tmp_path, free // 2)
    with pytest.raises(OutputError, match=r"MB free but .* MB are needed"):
        require_space(tmp_path, free * 2)


@pytest.mark.parametrize(
    ("code", "text"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EACCES, "permission denied"),
     (errno.EROFS, "read-only"), (errno.EIO, "input/output error")],
)  # fmt: skip
def test_every_cause_has_a_sentence(code: int, text: str) -> None:
    with (
        pytest.raises(OutputError, match=rf"^Cannot write OUT: .*{text}.*\.$"),
        output_errors("OUT"),
    ):
        raise OSError(code, os.strerror(code))


def test_errors_that_are_not_the_systems_pass() -> None:
    with pytest.raises(OSError, match="from a library"), output_errors("OUT"):
        raise OSError("from a library")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EACCES, errno.EROFS])
def test_an_error_of_the_system_inside_the_block(tmp_path: Path, code: int) -> None:
    with pytest.raises(OutputError, match="Cannot write"), output_directory(tmp_path / "out"):
        raise OSError(code, os.strerror(code))
    assert names(tmp_path) == set()


def test_modes_are_those_of_the_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "sub").mkdir(mode=0o750)
    (source / "config.json").write_bytes(b"old")
    source.chmod(0o700)
    (source / "config.json").chmod(0o600)
    with output_directory(tmp_path / "out", source=source) as staging:
        write_new(staging / "config.json", b"new", source / "config.json")
        make_parents(staging, "sub/deep/data", source)
        write_new(staging / "yarncli.json", b"new", source / "missing")
    found = {p.name: p.stat().st_mode & 0o777 for p in [tmp_path / "out", *names_below(tmp_path)]}
    assert found["out"] == 0o700
    assert found["config.json"] == 0o600
    assert found["sub"] == 0o750
    assert found["deep"] == 0o777 & ~UMASK
    assert found["yarncli.json"] == 0o666 & ~UMASK


def names_below(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "out").rglob("*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_parent(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(OutputError, match="permission"), output_directory(tmp_path / "out"):
            pass
    finally:
        tmp_path.chmod(0o700)


def test_a_parent_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(OutputError, match="read-only"), output_directory(tmp_path / "out"):
        pass


def test_leftovers_inside_a_checkpoint(make_checkpoint: Callable[..., Path]) -> None:
    """A checkpoint listing leaves out what killed runs left inside it."""
    from yarncli.checkpoint.source import open_checkpoint

    model = make_checkpoint()
    (model / ".config.json.yarncli-new-12-0123abcd").write_text("{")
    listed = {file.name for file in open_checkpoint(str(model)).files}
    assert listed == {path.name for path in model.iterdir() if not path.name.startswith(".")}
