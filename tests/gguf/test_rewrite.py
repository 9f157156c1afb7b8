"""Edited files: tensors and all other bytes as they were, as gguf-py finds them; and back again."""

import errno
import json
import os
import random
import re
import shutil
import struct
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import gguf
import numpy as np
import pytest

from support.gguf_models import floats_of, keys_of, tensors_of, write_gguf
from support.kills import calls_of, kill_at_every_call, run_refused
from support.progress import Stages
from yarncli.checkpoint import kernel_copy
from yarncli.checkpoint.rewrite import Patch
from yarncli.errors import CheckpointError, ConfigError, OutputError, UsageError, YarncliError
from yarncli.gguf import rewrite as rewrites
from yarncli.gguf.header import parse_header
from yarncli.gguf.layout import GgufEdit, NewTensor, make_layout
from yarncli.gguf.record import Rewrite, decide_rewrite, decide_undo, read_record
from yarncli.gguf.source import open_gguf
from yarncli.gguf.types import Array
from yarncli.history import Step

STEP = Step(command="convert", source="m.gguf", options={"factor": 4.0})
FREQS = "rope_freqs.weight"
YARN = GgufEdit(
    keys={
        "llama.context_length": ("u32", 8192),
        "llama.rope.scaling.type": ("str", "yarn"),
        "llama.rope.scaling.factor": ("f32", 4.1),
        "llama.rope.scaling.original_context_length": ("u32", 2048),
        "llama.test.i32": ("i32", -3),
        "llama.test.u64": ("u64", 2**63),
        "llama.test.bool": ("bool", True),
        "llama.test.floats": ("arr", Array("f32", 3, (0.5, 1.1, -2.0))),
    }
)
ADDED = GgufEdit(
    keys={"llama.context_length": ("u32", 8192)},
    tensors={FREQS: NewTensor.of_floats([1.0, 2.5] * 16)},
)
PADDING = "yarncli.padding"


def decide(path: Path, edit: GgufEdit) -> Rewrite:
    return decide_rewrite(open_gguf(path), edit, STEP)


def write(path: Path, out: Path, edit: GgufEdit, **options: bool) -> Path:
    rewrites.write_gguf(open_gguf(path), decide(path, edit), out, **options)
    return out


def undo(path: Path, out: Path) -> Path:
    file = open_gguf(path)
    rewrite = decide_undo(file)
    assert rewrite.is_original
    rewrites.write_gguf(file, rewrite, out)
    return out


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def pairs_of(path: Path) -> dict[str, bytes]:
    """Key → the bytes of the pair, found by gguf-py."""
    data = path.read_bytes()
    return {
        name: data[field.offset : field.offset + sum(part.nbytes for part in field.parts)]
        for name, field in gguf.GGUFReader(path).fields.items()
        if not name.startswith("GGUF.")
    }


def infos_of(path: Path) -> dict[str, bytes]:
    """Name → what the header says of the tensor, found by gguf-py."""
    return {
        tensor.name: b"".join(part.tobytes() for part in tensor.field.parts)
        for tensor in gguf.GGUFReader(path).tensors
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf")


@pytest.fixture
def scaled(tmp_path: Path) -> Path:
    """With keys that may go, and rope_freqs as its first tensor."""
    keys = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    return write_gguf(tmp_path / "s.gguf", keys=keys, rope_freqs=True)


EDITS: dict[str, GgufEdit] = {
    "keys": YARN,
    "a tensor": ADDED,
    "another tensor in its place": GgufEdit(tensors={FREQS: NewTensor.of_floats([3.0] * 32)}),
    "a shorter tensor in its place": GgufEdit(tensors={FREQS: NewTensor.of_floats([3.0] * 9)}),
    "a longer tensor in its place": GgufEdit(tensors={FREQS: NewTensor.of_floats([3.0] * 999)}),
    "dropped": GgufEdit(
        drop=["llama.rope.scaling.type", "llama.rope.scaling.factor"], drop_tensors=[FREQS]
    ),
    "the last tensor dropped": GgufEdit(drop_tensors=["output_norm.weight"]),
    "one there, one here": GgufEdit(
        tensors={"a": NewTensor.of_floats([1.0]), "b": NewTensor.of_floats([2.0, 3.0])},
        drop_tensors=["output_norm.weight", FREQS],
    ),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("alignment", [None, 64])
def test_everything_else_stays(tmp_path: Path, name: str, alignment: int | None) -> None:
    edit = EDITS[name]
    keys = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 2.0}
    keys |= {"zz.last": 1}
    model = write_gguf(tmp_path / "m.gguf", keys=keys, rope_freqs=True, alignment=alignment)
    out = write(model, tmp_path / "o.gguf", edit, verify=True)
    # Tensors, by their checksums
    touched = {*edit.tensors, *edit.drop_tensors}
    old, new = tensors_of(model), tensors_of(out)
    assert {n: t for n, t in new.items() if n not in touched} == {
        n: t for n, t in old.items() if n not in touched
    }
    assert new.keys() == old.keys() - {*edit.drop_tensors} | edit.tensors.keys()
    for tensor, made in edit.tensors.items():
        assert new[tensor][:2] == ("F32", made.shape)
        assert new[tensor][2] == sha256(made.data).hexdigest()
    # Keys, by their bytes and in their order
    ours = {*edit.keys, *edit.drop, "yarncli.plan", PADDING}
    before = [pair for pair in pairs_of(model).items() if pair[0] not in ours]
    assert [pair for pair in pairs_of(out).items() if pair[0] not in ours] == before
    # What the header says of tensors: all but where they lie
    assert {n: i[:-8] for n, i in infos_of(out).items() if n not in touched} == {
        n: i[:-8] for n, i in infos_of(model).items() if n not in touched
    }
    # Nothing stands between these, and the data begin where a file system can share them
    header, start = open_gguf(out).header, open_gguf(model).header.data_start
    assert out.read_bytes()[:24] == b"GGUF" + struct.pack("<IQQ", 3, len(new), len(pairs_of(out)))
    assert header.end == header.data_start
    assert header.data_start % 4096 == start % 4096
    assert len(header.keys[PADDING].value) < 4096
    assert digest(undo(out, tmp_path / "u.gguf")) == digest(model)


def test_new_keys_come_after_the_length_with_their_types(model: Path, tmp_path: Path) -> None:
    out = write(model, tmp_path / "o.gguf", YARN)
    names = list(keys_of(out))
    at = names.index("llama.context_length")
    new = [name for name in YARN.keys if name != "llama.context_length"]
    assert names[at + 1 : at + 10] == [*new, "yarncli.plan", PADDING]
    found = keys_of(out)
    assert found["llama.context_length"] == ("UINT32", 8192)
    assert found["llama.rope.scaling.type"] == ("STRING", "yarn")
    assert found["llama.rope.scaling.factor"] == ("FLOAT32", float(np.float32(4.1)))
    assert found["llama.test.i32"] == ("INT32", -3)
    assert found["llama.test.u64"] == ("UINT64", 2**63)
    assert found["llama.test.bool"] == ("BOOL", True)
    assert found["llama.test.floats"] == ("ARRAY", [0.5, float(np.float32(1.1)), -2.0])
    field = gguf.GGUFReader(out).fields["llama.test.floats"]
    assert field.types == [gguf.GGUFValueType.ARRAY, gguf.GGUFValueType.FLOAT32]


def test_without_the_length_they_come_last(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf")
    data = model.read_bytes().replace(b"llama.context_length", b"qwen2.context_length")
    model.write_bytes(data)
    out = write(model, tmp_path / "o.gguf", YARN)
    assert list(keys_of(out))[-3:] == ["llama.test.floats", "yarncli.plan", PADDING]


def test_the_padding_is_exact(model: Path, tmp_path: Path) -> None:
    """For every remainder of what it fills up: a key of each length up to some blocks."""
    file, seen = open_gguf(model), set()
    for length in range(0, 4300, 41):
        edit = GgufEdit(keys={"llama.test": ("str", "x" * length)})
        layout = decide_rewrite(file, edit, STEP).layout
        assert (len(layout.header) - file.header.data_start) % 4096 == 0
        seen.add(len(decide(model, edit).header.keys[PADDING].value) % 32)
    assert len(seen) == 16  # as the key stands in the record, too


def test_the_new_tensor_is_read_as_it_was_meant(model: Path, tmp_path: Path) -> None:
    out = write(model, tmp_path / "o.gguf", ADDED)
    assert floats_of(out, FREQS) == [1.0, 2.5] * 16
    assert list(tensors_of(out))[-1] == FREQS


def test_several_steps_and_back(scaled: Path, tmp_path: Path) -> None:
    one = write(scaled, tmp_path / "1.gguf", EDITS["dropped"])
    two = write(one, tmp_path / "2.gguf", ADDED)
    three = write(two, tmp_path / "3.gguf", YARN)
    assert len(read_record(open_gguf(three).header).steps) == 3
    assert list(keys_of(three)).count("yarncli.plan") == 1
    back = undo(undo(undo(three, tmp_path / "b2"), tmp_path / "b1"), tmp_path / "b0")
    assert digest(tmp_path / "b2") == digest(two)
    assert digest(tmp_path / "b1") == digest(one)
    assert digest(back) == digest(scaled)
    with pytest.raises(UsageError, match="nothing to undo"):
        decide_undo(open_gguf(back))


def test_padding_that_was_there_comes_back(model: Path, tmp_path: Path) -> None:
    """Of a file that another program edited in this way, or whose record was removed."""
    mine = write(model, tmp_path / "mine.gguf", YARN)
    with_record(mine, b"{}")
    dropped = GgufEdit(drop=["yarncli.plan"])
    bare = tmp_path / "bare.gguf"
    header = open_gguf(mine).header
    layout = make_layout(header, dropped, open_gguf(mine).read)
    bare.write_bytes(layout.header + mine.read_bytes()[header.data_start :])
    assert "yarncli.padding" in keys_of(bare)
    assert "yarncli.plan" not in keys_of(bare)
    out = write(bare, tmp_path / "out.gguf", GgufEdit(keys={"llama.context_length": ("u32", 99)}))
    assert digest(undo(out, tmp_path / "back.gguf")) == digest(bare)


def test_values_that_json_has_not(tmp_path: Path) -> None:
    model = write_gguf(
        tmp_path / "m.gguf", keys={"x.inf": float("inf"), "x.text": 'a\n"é', "x.no": 1.5}
    )
    data = model.read_bytes()
    model.write_bytes(data.replace(b"T\xc3\xa9st", b"T\xff\xa9st"))  # no UTF-8
    edit = GgufEdit(drop=["x.inf", "x.text", "general.name"], keys={"x.no": ("f32", -np.inf)})
    out = write(model, tmp_path / "o.gguf", edit)
    assert keys_of(out)["x.no"] == ("FLOAT32", -np.inf)
    assert digest(undo(out, tmp_path / "u.gguf")) == digest(model)


def test_a_file_without_padding_at_its_end(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "m.gguf")
    info = open_gguf(model).header
    last = info.tensors["output_norm.weight"]
    os.truncate(model, info.data_start + last.offset + 20)
    out = write(model, tmp_path / "o.gguf", ADDED, verify=True)
    assert tensors_of(out).keys() == {*tensors_of(model), FREQS}
    assert floats_of(out, FREQS) == [1.0, 2.5] * 16
    assert digest(undo(out, tmp_path / "u.gguf")) == digest(model)


def test_data_may_pass_through_a_function(scaled: Path, tmp_path: Path) -> None:
    header = open_gguf(scaled).header
    tensor = header.tensors["token_embd.weight"]

    def negate(piece: bytes) -> bytes:
        return (-np.frombuffer(piece, np.float16)).tobytes()

    patch = Patch(header.data_start + tensor.offset, 64, negate, step=2)
    edit = GgufEdit(keys=YARN.keys, drop_tensors=[FREQS], patches=(patch,))
    out = write(scaled, tmp_path / "o.gguf", edit, verify=True)
    old, new = (
        next(t.data for t in gguf.GGUFReader(p).tensors if t.name == "token_embd.weight").ravel()
        for p in (scaled, out)
    )
    assert (new[:32] == -old[:32]).all()
    assert (new[32:] == old[32:]).all()


def test_what_cannot_be_moved_is_refused(model: Path, tmp_path: Path) -> None:
    data = bytearray(model.read_bytes())
    last = open_gguf(model).header.tensors["output_norm.weight"]
    data[last.end - 12 : last.end - 8] = struct.pack("<I", 99)
    model.write_bytes(data)
    with pytest.raises(CheckpointError, match="type 99, which this yarncli does not know"):
        decide(model, ADDED)
    out = write(model, tmp_path / "o.gguf", YARN, verify=True)  # where no length is needed
    assert out.read_bytes()[-2000:] == model.read_bytes()[-2000:]
    model.write_bytes(data[: last.end - 12] + struct.pack("<I", 0) + data[last.end - 8 :] + b"x")
    with pytest.raises(CheckpointError, match="unknown bytes after its last tensor"):
        decide(model, ADDED)


def test_a_vocabulary_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocab.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 0))
    with pytest.raises(CheckpointError, match="vocabulary without a model"):
        decide(path, YARN)


def test_splits(tmp_path: Path) -> None:
    first = write_gguf(tmp_path / "m.gguf", split=3)
    assert first.name == "m-00001-of-00003.gguf"
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "new-00001-of-00003.gguf"
    file = open_gguf(first)
    written = rewrites.write_gguf(file, decide(first, ADDED), out, verify=True)
    assert [path.name for path in written] == [f"new-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    assert names(out.parent) == sorted(path.name for path in written)
    for n in (2, 3):
        assert digest(written[n - 1]) == digest(tmp_path / f"m-0000{n}-of-00003.gguf")
    assert keys_of(first)["split.tensors.count"] == ("INT32", 7)
    assert keys_of(out)["split.tensors.count"] == ("INT32", 8)
    assert sum(len(tensors_of(path)) for path in written) == 8
    back = undo(out, tmp_path / "out" / "old-00001-of-00003.gguf")
    assert digest(back) == digest(first)
    with pytest.raises(UsageError, match=r"must end in -00001-of-00003\.gguf"):
        write(first, tmp_path / "o.gguf", ADDED)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    with pytest.raises(CheckpointError, match=r"m-00002-of-00003\.gguf is missing"):
        write(first, tmp_path / "x-00001-of-00003.gguf", ADDED)


def test_destinations(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "o.gguf"
    with pytest.raises(UsageError, match="is the source itself"):
        write(model, model, YARN, overwrite=True)
    with pytest.raises(UsageError, match=r"does not exist\. Create it first"):
        write(model, tmp_path / "no" / "o.gguf", YARN)
    out.write_bytes(b"mine")
    with pytest.raises(UsageError, match="already exists"):
        write(model, out, YARN)
    with pytest.raises(UsageError, match="not a GGUF file, so --overwrite does not replace it"):
        write(model, out, YARN, overwrite=True)
    assert out.read_bytes() == b"mine"
    shutil.copy(model, out)
    write(model, out, YARN, overwrite=True)
    assert keys_of(out)["llama.context_length"] == ("UINT32", 8192)
    link = tmp_path / "l.gguf"
    link.symlink_to(out)
    with pytest.raises(UsageError, match="not a GGUF file"):
        write(model, link, YARN, overwrite=True)
    assert names(tmp_path) == ["l.gguf", "m.gguf", "o.gguf"]


def test_the_mode_is_that_of_the_source(model: Path, tmp_path: Path) -> None:
    model.chmod(0o640)
    assert write(model, tmp_path / "o.gguf", YARN).stat().st_mode & 0o777 == 0o640


def test_a_source_that_changes_meanwhile(model: Path, tmp_path: Path) -> None:
    file, rewrite = open_gguf(model), decide(model, YARN)
    os.utime(model, ns=(1, 1))
    with pytest.raises(CheckpointError, match="was changed by another program"):
        rewrites.write_gguf(file, rewrite, tmp_path / "o.gguf")
    with pytest.raises(CheckpointError, match="was changed after it was read"):
        decide_rewrite(file, YARN, STEP)
    file, rewrite = open_gguf(model), decide(model, YARN)
    with pytest.raises(CheckpointError, match="was changed by another program"):
        rewrites.write_gguf(
            file, rewrite, tmp_path / "o.gguf", progress=lambda _: os.utime(model, ns=(2, 2))
        )
    assert names(tmp_path) == ["m.gguf"]


@pytest.mark.parametrize("at", [10, 3000, -100])
def test_verification_notices(
    model: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy_files = rewrites.copy_files

    def damage(copies: list, **options: object) -> None:
        copy_files(copies, **options)
        path = copies[0].destination
        data = bytearray(path.read_bytes())
        data[at] ^= 1
        path.write_bytes(data)

    monkeypatch.setattr(rewrites, "copy_files", damage)
    with pytest.raises(
        OutputError, match="differs from what was written"
    ):  # the header is always looked at
        write(model, tmp_path / "o.gguf", YARN, verify=at < 0)
    assert names(tmp_path) == ["m.gguf"]


def test_progress_reaches_its_total(model: Path, tmp_path: Path) -> None:
    told = Stages()
    file = open_gguf(model)
    rewrites.write_gguf(file, decide(model, ADDED), tmp_path / "o", verify=True, progress=told)
    size = (tmp_path / "o").stat().st_size
    assert told.done() == [("Copying", size, size), ("Verifying", size, size)]


def test_holes_stay_holes_and_nothing_is_lost_in_them(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = model.stat().st_size
    with model.open("r+b") as file:
        file.truncate(size + (64 << 20))
    out = write(model, tmp_path / "o.gguf", YARN, verify=True)
    assert out.stat().st_blocks * 512 < 4 << 20
    assert out.read_bytes()[-(64 << 20) :] == bytes(64 << 20)

    def hole(source: int, begin: int, end: int) -> list[tuple[int, int, bool]]:
        return [(begin, end, True)]  # as OpenZFS told of data that it had not written yet

    monkeypatch.setattr(kernel_copy, "_extents", hole)
    write(model, tmp_path / "p.gguf", YARN, verify=True)
    assert digest(tmp_path / "p.gguf") == digest(out)


def test_blocks_can_be_shared(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File systems that share blocks (btrfs, XFS) do it where both places are multiples of one."""
    if not hasattr(os, "copy_file_range"):
        pytest.skip("only Linux has this call")
    copy, seen = os.copy_file_range, []

    def watch(source: int, to: int, length: int, begin: int, at: int) -> int:
        seen.append((begin, at, length))
        return copy(source, to, length, begin, at)

    monkeypatch.setattr(os, "copy_file_range", watch)
    write(model, tmp_path / "o.gguf", YARN)
    (first, _, length), *others = seen
    assert length < 4096
    assert first == open_gguf(model).header.data_start
    assert others
    assert not any(begin % 4096 or at % 4096 for begin, at, _ in others)


@pytest.mark.parametrize("split", [0, 3])
def test_a_kill_leaves_no_part_of_the_output(tmp_path: Path, split: int) -> None:
    start, kills = tmp_path / "start", tmp_path / "kills"
    start.mkdir()
    kills.mkdir()
    first = write_gguf(start / "m.gguf", rows=2, tokens=5, split=split)
    name = first.name.replace("m", "o", 1)
    wanted = decide(first, ADDED).layout

    def run(directory: Path) -> None:
        write(directory / first.name, directory / name, ADDED)

    def check(directory: Path, where: str) -> None:
        out = directory / name
        if not out.exists():  # a later run leaves nothing of the killed one
            assert where != "completed"
            write(directory / first.name, out, ADDED, overwrite=True)
        assert out.read_bytes()[: len(wanted.header)] == wanted.header
        assert out.stat().st_size == wanted.size
        for old, new in zip(open_gguf(first).shards(), open_gguf(out).shards(), strict=True):
            assert new.stat().st_size >= old.stat().st_size

    kill_at_every_call(kills, lambda to: shutil.copytree(start, to), run, check)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_refusal_of_the_system_leaves_nothing(tmp_path: Path, code: int) -> None:
    start = tmp_path / "start"
    start.mkdir()
    write_gguf(start / "m.gguf", rows=2, tokens=5)

    def run(directory: Path) -> None:
        write(directory / "m.gguf", directory / "o.gguf", ADDED)

    shutil.copytree(start, tmp_path / "0")
    for number in range(len(calls_of(run, tmp_path / "0"))):
        place = tmp_path / f"w{number}"
        shutil.copytree(start, place)
        ended = run_refused(run, place, number, code)
        assert ended.completed or ended.status >> 8 == 100 + OutputError.exit_code, ended
        left = names(place)
        if ended.told == "rmdir\n":  # of the hidden directory, which the next run removes
            write(place / "m.gguf", place / "o.gguf", ADDED, overwrite=True)
            left = names(place)
        assert left == ["m.gguf"] or (ended.completed and set(left) == {"m.gguf", "o.gguf"}), left


def test_a_disk_that_is_too_small(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(OutputError, match="MB are needed"):
        write(model, tmp_path / "o.gguf", YARN)


def record_text(path: Path) -> bytes:
    return open_gguf(path).header.text("yarncli.plan").encode()


def record_of(path: Path) -> dict:
    return json.loads(record_text(path))


def with_record(path: Path, record: object) -> Path:
    """The file with another text as its record, of the same length."""
    data, old = path.read_bytes(), record_text(path)
    new = record if isinstance(record, bytes) else json.dumps(record).encode()
    path.write_bytes(data.replace(old, new.ljust(len(old))))
    return path


def change(record: dict, number: int, **values: object) -> dict:
    record["steps"][0]["replaced"][number].update(values)
    return record


DAMAGES: Mapping[str, tuple[object, str]] = {
    "no JSON": (lambda _: b"{", "not valid JSON"),
    "a file": (lambda r: change(r, 0, file="config.json"), "no step of yarncli does"),
    "no path": (lambda r: change(r, 0, path=[]), "changes what no step"),
    "alignment": (lambda r: change(r, 0, path=["general.alignment"]), "changes what no step"),
    "no before": (lambda r: change(r, 0, before=1), "does not say what"),
    "a value of another type": (
        lambda r: change(r, 0, before={"type": "u32", "value": "x", "place": None}),
        "does not say what",
    ),
    "too large a value": (
        lambda r: change(r, 0, before={"type": "u32", "value": 2**40, "place": None}),
        "does not say what",
    ),
    "no such type": (
        lambda r: change(r, 0, before={"type": "x", "value": 1, "place": None}),
        "does not say what",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_record(name: str, model: Path, tmp_path: Path) -> None:
    damage, message = DAMAGES[name]
    out = write(model, tmp_path / "o.gguf", YARN)
    with_record(out, damage(record_of(out)))
    with pytest.raises((ConfigError, CheckpointError), match=message):
        decide_undo(open_gguf(out))


def test_mutated_records_end_in_a_sentence(model: Path, tmp_path: Path) -> None:
    """400 of them: whatever is undone, the result is a file that is read."""
    edit = GgufEdit(keys=YARN.keys, drop=["general.name"], tensors=ADDED.tensors)
    out = write(model, tmp_path / "o.gguf", edit)
    record, source = json.dumps(record_of(out)), random.Random(16)
    places = [match.span() for match in re.finditer(r'"[^"]*"|[0-9.]+|null', record)]
    values = ["null", "-1", "1e999", str(2**70), '"x"', "[]", "{}", "true", '"general.alignment"',
              '"tokenizer.ggml.tokens"', '"AAAA"', '"arr"', "0"]  # fmt: skip
    undone, told = 0, []
    for _ in range(400):
        (begin, end), value = source.choice(places), source.choice(values)
        text = (record[:begin] + value + record[end:]).encode()
        if len(text) > len(record_text(out)):
            continue
        try:
            with_record(Path(shutil.copy(out, tmp_path / "t.gguf")), text)
            file = open_gguf(tmp_path / "t.gguf")
            rewrites.write_gguf(file, decide_undo(file), tmp_path / "u.gguf", overwrite=True)
            undone += 1
        except YarncliError as error:
            told.append(len(str(error)))
    assert undone > 10
    assert len(told) > 100
    assert max(told) < 700


def test_a_file_that_was_changed_since_is_not_undone(model: Path, tmp_path: Path) -> None:
    out = write(model, tmp_path / "o.gguf", YARN)
    data = out.read_bytes()
    out.write_bytes(data.replace(struct.pack("<II", 4, 8192), struct.pack("<II", 4, 8193)))
    with pytest.raises(CheckpointError, match=r"'llama\.context_length' .* is not what yarncli"):
        decide_undo(open_gguf(out))


def test_an_undo_that_is_not_the_original_says_so(model: Path, tmp_path: Path) -> None:
    out = write(model, tmp_path / "o.gguf", YARN)
    data = out.read_bytes()
    out.write_bytes(data.replace("Tést".encode(), b"Tast "))  # by another tool
    file = open_gguf(out)
    rewrite = decide_undo(file)
    assert not rewrite.is_original
    rewrites.write_gguf(file, rewrite, tmp_path / "u.gguf")
    before = keys_of(model) | {"general.name": ("STRING", "Tast ")}
    assert keys_of(tmp_path / "u.gguf") == before


def test_the_decided_header_is_what_stands_in_the_file(model: Path, tmp_path: Path) -> None:
    rewrite = decide(model, ADDED)
    out = write(model, tmp_path / "o.gguf", ADDED)
    data = out.read_bytes()
    found = parse_header(lambda o, n: data[o : o + n], file_size=len(data), where="x")
    assert (found.keys, found.tensors) == (rewrite.header.keys, rewrite.header.tensors)
    assert [(c.file, c.path[0]) for c in rewrite.changes] == [
        ("keys", "llama.context_length"), ("tensors", FREQS)
    ]  # fmt: skip
