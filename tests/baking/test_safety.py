"""Killed at any instant: the source untouched, OUT absent or whole, in place old or new."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from support.checkpoints import snapshot
from support.kills import kill_at_every_call
from yarncli.baking.bake import bake
from yarncli.baking.deciding import decide_bake
from yarncli.baking.writing import write_copy
from yarncli.checkpoint.directory import pending
from yarncli.checkpoint.recovery import recover
from yarncli.checkpoint.source import open_checkpoint
from yarncli.errors import CheckpointError, OutputError, UsageError

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


def contents(directory):
    return {name: held for name, held in snapshot(directory).items() if ".orig" not in name}


def bake_in_place(directory):
    bake(directory, in_place=True, side="both")


def test_in_place_writes_what_a_copy_would(handmade, tmp_path, bake_directory):
    source = handmade()
    old = contents(source)
    bake_directory(source, tmp_path / "out", side="both")
    bake_in_place(source)
    assert contents(source) == contents(tmp_path / "out")
    assert (source / "config.json.orig").read_bytes() == old["config.json"]
    assert not pending(source)


def test_a_killed_copy_leaves_nothing_or_everything(handmade, tmp_path, bake_directory):
    source = handmade()
    bake_directory(source, tmp_path / "whole")
    before, whole = contents(source), contents(tmp_path / "whole")

    def check(directory, where):
        assert contents(source) == before
        if (directory / "out").exists():
            assert contents(directory / "out") == whole
        else:
            assert where != "completed"

    (tmp_path / "kills").mkdir()
    calls = kill_at_every_call(
        tmp_path / "kills",
        lambda directory: directory.mkdir(),
        lambda directory: bake_directory(source, directory / "out"),
        check,
    )
    # Threads take turns as they like, so which call has which number differs from run to run.
    assert len(calls) >= 10
    assert calls[-1] == "rename"


def test_killed_in_place_is_old_or_new_or_recoverable(handmade, tmp_path):
    model = handmade()
    old = contents(model)
    states = set()

    def fresh(directory):
        directory.mkdir()
        shutil.copytree(model, directory / "source")

    fresh(tmp_path / "whole")
    bake_in_place(tmp_path / "whole" / "source")
    new = contents(tmp_path / "whole" / "source")

    def check(directory, where):
        found = contents(directory / "source")
        shards = {name: found[name] for name in SHARDS}
        if "config.json" in found:  # an engine would load this
            assert shards in ({n: s[n] for n in SHARDS} for s in (old, new))
            assert (shards == {n: new[n] for n in SHARDS}) == (
                found["config.json"] == new["config.json"]
            )
        else:
            with pytest.raises(CheckpointError, match="--recover"):
                open_checkpoint(str(directory / "source"))
        states.add(recover(directory / "source"))
        left = {f.name for f in open_checkpoint(str(directory / "source")).files}
        found = {n: d for n, d in contents(directory / "source").items() if n in left}
        assert found in (old, new)
        assert where != "completed" or found == new

    (tmp_path / "kills").mkdir()
    kill_at_every_call(
        tmp_path / "kills", fresh, lambda directory: bake_in_place(directory / "source"), check
    )
    assert states == {"nothing", "old", "new"}


@pytest.mark.full
def test_random_kills_by_the_clock(handmade, tmp_path):
    source = handmade()
    before = contents(source)
    code = "import sys; from yarncli.cli.app import main; sys.argv[0] = 'yarncli'; main()"
    ended = set()
    for attempt in range(12):
        out = tmp_path / f"out{attempt}"
        child = subprocess.Popen(
            [sys.executable, "-c", code, "bake", str(source), str(out)], stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        time.sleep(0.1 + 0.05 * attempt)
        child.send_signal(signal.SIGKILL)
        ended.add(child.wait())
        assert contents(source) == before
        if out.exists():
            assert (out / "yarncli.json").exists()
            assert (out / "config.json").exists()
    assert -signal.SIGKILL in ended


def test_shared_files_are_not_changed_in_place(handmade):
    source = handmade()
    os.link(source / SHARDS[0], source.parent / "twin.safetensors")
    before = contents(source)
    with pytest.raises(CheckpointError, match="several hard links"):
        bake_in_place(source)
    assert contents(source) == before


def test_a_config_file_alone_is_not_baked(handmade):
    with pytest.raises(CheckpointError, match="no safetensors weights"):
        bake_in_place(handmade() / "config.json")


def test_an_existing_out_is_refused(handmade, tmp_path, bake_directory):
    source = handmade()
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="already exists"):
        bake_directory(source, tmp_path / "out")


def test_a_full_disk_leaves_nothing(handmade, tmp_path):
    import resource

    source = handmade()
    checkpoint = open_checkpoint(str(source))
    baking = decide_bake(checkpoint)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, old[1]))
    try:
        with pytest.raises(OutputError, match="larger than the system allows"):
            write_copy(baking, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_written_byte_that_changed_is_seen(handmade, tmp_path, monkeypatch):
    from yarncli.checkpoint import copying

    real = copying.copy_files

    def damaging(copies, **rest):
        copies = list(copies)
        real(copies, **rest)
        job = next(job for job in copies if job.patches)
        with job.destination.open("r+b") as file:
            file.seek(job.patches[0].offset)
            file.write(b"\xff")

    monkeypatch.setattr(copying, "copy_files", damaging)
    with pytest.raises(OutputError, match="does not read back"):
        write_copy(decide_bake(open_checkpoint(str(handmade()))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_verify_sees_other_bytes_too(handmade, tmp_path, monkeypatch):
    from yarncli.checkpoint import copying

    real = copying.copy_files

    def damaging(copies, **rest):
        copies = list(copies)
        real(copies, **rest)
        job = next(job for job in copies if job.destination.name.startswith("model-"))
        size = job.destination.stat().st_size
        with job.destination.open("r+b") as file:
            file.seek(size - 1)
            last = file.read(1)
            file.seek(size - 1)
            file.write(bytes([last[0] ^ 1]))

    monkeypatch.setattr(copying, "copy_files", damaging)
    baking = decide_bake(open_checkpoint(str(handmade())))
    write_copy(baking, tmp_path / "unseen")
    with pytest.raises(OutputError, match="does not read back"):
        write_copy(baking, tmp_path / "out", verify=True)
