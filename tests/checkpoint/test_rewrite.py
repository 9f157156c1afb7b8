"""Copies with patched ranges, against the same edit done on the whole file in memory."""

import errno
import hashlib
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarncli.checkpoint import rewrite
from yarncli.checkpoint.rewrite import FileCopy, Patch, copy_files, link_file
from yarncli.errors import CheckpointError, HubError, OutputError
from yarncli.hub import Digest

DATA = bytes(range(256)) * 40


def negate(piece: bytes) -> bytes:
    return bytes(255 - byte for byte in piece)


def edited(data: bytes, patches: list[Patch]) -> bytes:
    made = bytearray(data)
    for patch in patches:
        end = patch.offset + patch.length
        made[patch.offset : end] = negate(data[patch.offset : end])
    return bytes(made)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.bin"
    path.write_bytes(DATA)
    return path


PATCHES = [Patch(0, 10, negate), Patch(5000, 300, negate), Patch(len(DATA) - 3, 3, negate)]


def no_kernel_copy(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "copy_file_range", refuse)


@pytest.mark.parametrize("kernel", ["copy_file_range", "none", "EXDEV", "zero"])
def test_patched_copy(source: Path, monkeypatch: pytest.MonkeyPatch, kernel: str) -> None:
    if kernel == "none":
        monkeypatch.delattr(os, "copy_file_range")
    elif kernel == "EXDEV":
        no_kernel_copy(monkeypatch, errno.EXDEV)
    elif kernel == "zero":  # what some file systems of the kernel itself answer
        monkeypatch.setattr(os, "copy_file_range", lambda *_: 0)
    done: list[int] = []
    target = source.with_name("out.bin")
    copy_files([FileCopy(source, target, tuple(PATCHES[::-1]))], progress=done.append)
    assert target.read_bytes() == edited(DATA, PATCHES)
    assert source.read_bytes() == DATA
    assert sum(done) == len(DATA)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 200)), max_size=8), st.integers(1, 9))
def test_any_patches(tmp_path_factory: pytest.TempPathFactory, spans: list, step: int) -> None:
    place = tmp_path_factory.mktemp("any")
    (place / "in").write_bytes(DATA)
    patches, position = [], 0
    for gap, length in spans:
        patches.append(Patch(position + gap, length, negate, step))
        position += gap + length
    copy_files([FileCopy(place / "in", place / "out", tuple(patches))])
    assert (place / "out").read_bytes() == edited(DATA, patches)
    assert rewrite.first_wrong_patch(place / "in", place / "out", patches) is None
    assert rewrite.compare_outside(place / "in", place / "out", patches) is None


def test_pieces_are_bounded_and_whole_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "CHUNK", 1000)
    assert list(Patch(7, 2500, negate).pieces()) == [(7, 1000), (1007, 1000), (2007, 500)]
    assert list(Patch(0, 2400, negate, 300).pieces()) == [(0, 900), (900, 900), (1800, 600)]
    assert list(Patch(0, 6000, negate, 3000).pieces()) == [(0, 3000), (3000, 3000)]


def test_memory_stays_bounded(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "CHUNK", 1024)
    sizes = []

    def watch(piece: bytes) -> bytes:
        sizes.append(len(piece))
        return negate(piece)

    copy_files([FileCopy(source, source.with_name("o"), (Patch(100, 9000, watch, 8),))])
    assert max(sizes) <= 1024
    assert all(size % 8 == 0 for size in sizes)
    assert sum(sizes) == 9000


def test_verification_finds_one_wrong_byte(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "CHUNK", 64)
    target = source.with_name("out.bin")
    copy_files([FileCopy(source, target, tuple(PATCHES))])
    good = target.read_bytes()
    for position, inside in [(0, True), (5299, True), (10, False), (4999, False), (5300, False)]:
        wrong = bytearray(good)
        wrong[position] ^= 1
        target.write_bytes(wrong)
        patch = rewrite.first_wrong_patch(source, target, PATCHES)
        other = rewrite.compare_outside(source, target, PATCHES)
        found, missed = (patch, other) if inside else (other, patch)
        assert missed is None
        assert found is not None
        assert found <= position < found + 64
    target.write_bytes(good[:-1])
    assert rewrite.compare_outside(source, target, PATCHES) == len(good) - 1
    assert rewrite.first_wrong_patch(source, target, PATCHES) is not None
    target.write_bytes(good + b"x")
    assert rewrite.compare_outside(source, target, PATCHES) == len(good)


def test_several_files(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    model = make_checkpoint(shards=5)
    files = sorted(model.iterdir())
    out = tmp_path / "out"
    out.mkdir()
    done: list[int] = []
    copy_files((FileCopy(f, out / f.name) for f in files), workers=3, progress=done.append)
    assert {f.name: f.read_bytes() for f in out.iterdir()} == {
        f.name: f.read_bytes() for f in files
    }
    assert sum(done) == sum(f.stat().st_size for f in files)


def test_an_error_in_one_file_ends_the_run(source: Path) -> None:
    def fail(piece: bytes) -> bytes:
        raise KeyError("a bug")

    out = source.parent
    jobs = [FileCopy(source, out / f"o{n}") for n in range(5)]
    with pytest.raises(KeyError, match="a bug"):
        copy_files([*jobs, FileCopy(source, out / "bad", (Patch(0, 5, fail),))])


def test_interrupt_stops_every_thread(source: Path) -> None:
    started = []

    def progress(_: int) -> None:
        started.append(1)
        raise KeyboardInterrupt

    jobs = [FileCopy(source, source.with_name(f"o{n}")) for n in range(20)]
    with pytest.raises(KeyboardInterrupt):
        copy_files(jobs, workers=2, progress=progress)
    assert len(started) <= 2


def test_destination_exists(source: Path) -> None:
    source.with_name("o").write_bytes(b"precious")
    with pytest.raises(OutputError, match="file exists"):
        copy_files([FileCopy(source, source.with_name("o"))])
    assert source.with_name("o").read_bytes() == b"precious"


def test_source_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="cannot be read: No such file"):
        copy_files([FileCopy(tmp_path / "no", tmp_path / "o")])


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_has_its_sentence(
    source: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    no_kernel_copy(monkeypatch, code)
    with pytest.raises(
        OutputError, match=r"Cannot write .*o: (the disk is full|your disk|the file)"
    ):
        copy_files([FileCopy(source, source.with_name("o"))])


def test_a_file_size_limit(source: Path) -> None:
    pid = os.fork()
    if pid == 0:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        try:
            copy_files([FileCopy(source, source.with_name("o"))])
        except OutputError as error:
            os._exit(0 if "larger than the system allows" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_wrong_patches_are_bugs(source: Path) -> None:
    out = source.with_name("o")
    for patches in [
        (Patch(0, 10, negate), Patch(9, 5, negate)),
        (Patch(len(DATA) - 1, 2, negate),),
        (Patch(0, 4, lambda piece: piece[:-1]),),
    ]:
        with pytest.raises(AssertionError, match="patch"):
            copy_files([FileCopy(source, out, patches)])
        out.unlink()


def test_mode_follows_the_source(source: Path) -> None:
    source.chmod(0o500)
    copy_files([FileCopy(source, source.with_name("o"))])
    assert source.with_name("o").stat().st_mode & 0o700 == 0o700


def test_links(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    via = source.with_name("via")
    via.symlink_to(source)
    hard, soft = source.with_name("hard"), source.with_name("soft")
    link_file(via, hard, "hardlink")
    link_file(via, soft, "symlink")
    assert hard.stat().st_ino == source.stat().st_ino
    assert not hard.is_symlink()
    assert soft.readlink() == source.resolve()
    with pytest.raises(OutputError, match="file exists"):
        link_file(via, hard, "hardlink")

    def other_device(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other_device)
    with pytest.raises(OutputError, match="Copy the weights instead"):
        link_file(via, source.with_name("third"), "hardlink")
    with pytest.raises(CheckpointError, match="cannot be read"):
        link_file(source.with_name("gone"), source.with_name("x"), "symlink")


@pytest.mark.parametrize("clone", [True, False])
def test_the_hash_of_the_source_is_taken_on_the_way(
    tmp_path: Path, clone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what was read, not of what the patches made of it; with the kernel's copy and without."""
    source, data = tmp_path / "in", bytes(range(256)) * 20_000
    source.write_bytes(data)
    monkeypatch.setattr(rewrite, "clone", lambda old, new: clone)
    patches = [Patch(4_000_000, 100, bytes.swapcase), Patch(10, 2_000_000, bytes.swapcase)]
    right = {64: hashlib.sha256(data), 40: hashlib.sha1(b"blob 5120000\0" + data)}
    for number, found in enumerate(right.values()):
        digest = Digest(file="x of org/name", value=found.hexdigest(), listed=False)
        copies = [FileCopy(source, tmp_path / f"out{number}", tuple(patches), digest)]
        counted: list[int] = []
        copy_files(copies, progress=counted.append)
        assert sum(counted) == len(data)
        wrong = replace(digest, value=digest.value[::-1])
        with pytest.raises(HubError, match=f"x of org/name is damaged.*{digest.value}"):
            copy_files([replace(copies[0], destination=tmp_path / f"w{number}", digest=wrong)])
    assert source.exists()  # only what the Hub listed is removed
