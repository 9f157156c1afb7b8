"""Headers: what gguf-py wrote is read as written; what is damaged is refused in a sentence."""

import itertools
import math
import os
import random
import struct
import time
import tracemalloc
from pathlib import Path

import gguf
import pytest

from support.gguf_models import keys_of, tensors_of, write_gguf
from yarncli.errors import WeightsError
from yarncli.gguf import header as headers
from yarncli.gguf import walking
from yarncli.gguf.header import GgufHeader, parse_header
from yarncli.gguf.source import open_gguf
from yarncli.gguf.types import NAMES, TENSOR_TYPES, Array

Q2_0 = 42  # newer than gguf-py 0.19


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "m.gguf", keys={"llama.some_list": [1, 2, 3]}, rope_freqs=True)


def parse(data: bytes, size: int | None = None) -> GgufHeader:
    def read(offset: int, length: int) -> bytes:
        return data[offset : offset + length]

    return parse_header(read, file_size=len(data) if size is None else size, where="m.gguf")


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def number(name: str, kind: int = 4, form: str = "I", value: float = 1) -> bytes:
    return text(name) + struct.pack(f"<I{form}", kind, value)


def tensor(name: str, shape: tuple[int, ...] = (8,), kind: int = 0, offset: int = 0) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def made(
    *,
    keys: tuple[bytes, ...] = (),
    tensors: tuple[bytes, ...] = (),
    data: int = 0,
    counts: tuple[int, int] | None = None,
    version: int = 3,
) -> bytes:
    """A file put together by hand."""
    count = counts or (len(tensors), len(keys))
    start = b"GGUF" + struct.pack("<IQQ", version, *count) + b"".join(keys + tensors)
    return start + bytes(-len(start) % 32 + data)


def test_the_table_of_types_is_that_of_gguf_py() -> None:
    theirs = {
        int(kind): (kind.name, *gguf.GGML_QUANT_SIZES[kind]) for kind in gguf.GGMLQuantizationType
    }
    assert {n: row for n, row in TENSOR_TYPES.items() if n != Q2_0} == theirs
    assert set(NAMES) == {int(kind) for kind in gguf.GGUFValueType}


def test_keys_and_tensors_as_gguf_py_reads_them(model: Path) -> None:
    header = open_gguf(model).header
    reader = gguf.GGUFReader(model)
    assert (header.version, header.architecture, header.kind) == (3, "llama", "model")
    assert list(header.keys) == list(keys_of(model))
    for name, (kind, value) in keys_of(model).items():
        kv, field = header.keys[name], reader.fields[name]
        assert kv.type == NAMES[gguf.GGUFValueType[kind]]
        assert (kv.start, kv.end - kv.start) == (field.offset, sum(p.nbytes for p in field.parts))
        if isinstance(kv.value, Array):
            assert (kv.value.type, kv.value.count) == (NAMES[field.types[1]], len(value))
            assert kv.value.values is None or list(kv.value.values) == value
        else:
            assert kv.value == value
    assert header.keys["llama.some_list"].value == Array("i32", 3, (1, 2, 3))
    assert header.keys["tokenizer.ggml.add_bos_token"].value is True
    theirs = [(t.name, t.shape.tolist(), t.tensor_type, t.data_offset) for t in reader.tensors]
    assert theirs == [
        (t.name, list(t.shape), t.type, header.data_start + t.offset)
        for t in header.tensors.values()
    ]
    assert [t.nbytes for t in header.tensors.values()] == [t.n_bytes for t in reader.tensors]
    assert header.data_start == reader.data_offset
    assert header.tensors["blk.0.q4_k.weight"].type_name == "Q4_K"


@pytest.mark.parametrize("alignment", [8, 64, 4096])
def test_alignment(tmp_path: Path, alignment: int) -> None:
    path = write_gguf(tmp_path / "m.gguf", alignment=alignment)
    header = open_gguf(path).header
    assert header.alignment == alignment
    assert header.data_start == gguf.GGUFReader(path).data_offset
    assert len(tensors_of(path)) == len(header.tensors)


@pytest.mark.parametrize("piece", [1, 7, 100])
def test_the_size_of_the_pieces_does_not_matter(
    model: Path, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = parse(model.read_bytes())
    monkeypatch.setattr(walking, "_FIRST", piece)
    monkeypatch.setattr(walking, "_LARGEST", piece)
    monkeypatch.setattr(headers, "_MAX_KEPT", 3)
    small = parse(model.read_bytes())
    assert small.tensors == whole.tensors
    assert [(k.start, k.end) for k in small.keys.values()] == [
        (k.start, k.end) for k in whole.keys.values()
    ]


def test_only_the_header_is_read_and_no_byte_twice(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", tokens=30_000, rows=4096)
    data, asked = path.read_bytes(), []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, offset + length))
        return data[offset : offset + length]

    header = parse_header(read, file_size=len(data), where="m")
    assert asked[0] == (0, 1 << 18)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(asked))
    assert header.data_start <= asked[-1][1] < 2 * header.data_start + (1 << 18) < len(data)


def test_text_that_is_no_utf_8_is_kept() -> None:
    key = text("a") + struct.pack("<IQ", 8, 3) + b"x\xff\xfe"
    assert parse(made(keys=(key,))).keys["a"].value == "x\udcff\udcfe"


def test_numbers_of_every_type() -> None:
    rows = [
        (0, "B", 255), (1, "b", -128), (2, "H", 65535), (3, "h", -3), (4, "I", 2**32 - 1),
        (5, "i", -7), (6, "f", 0.5), (10, "Q", 2**64 - 1), (11, "q", -(2**63)), (12, "d", math.pi),
    ]  # fmt: skip
    header = parse(made(keys=tuple(number(f"k{n}", *row) for n, row in enumerate(rows))))
    assert [kv.value for kv in header.keys.values()] == [row[2] for row in rows]


def test_version_2_is_read() -> None:
    assert parse(made(version=2, keys=(number("a"),))).version == 2


def test_an_unknown_type_of_tensor_is_no_hindrance() -> None:
    found = parse(made(tensors=(tensor("a", kind=99), tensor("b", offset=64)), data=96))
    assert (found.tensors["a"].type_name, found.tensors["a"].nbytes) == ("type 99", None)


A = number("a")
ARRAY = 9
HOSTILE = {
    "empty": (b"", "is empty"),
    "short": (b"GG", "truncated after 2 bytes"),
    "only the letters": (b"GGUF", "ends inside its header"),
    "other letters": (b"PK\3\4" + bytes(40), "does not begin with the letters GGUF"),
    "GGML": (b"tjgg" + bytes(40), "form before GGUF"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n", "git lfs pull"
    ),
    "version 1": (made(version=1), r"version 1; .*get a newer file"),
    "version 4": (made(version=4), r"version 4; .*newer yarncli"),
    "version 0": (made(version=0), "version 0"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "many tensors": (made(counts=(2**63, 0)), "claims to have 9,223,372,036,854,775,808 tensors"),
    "many keys": (made(counts=(0, 10**6)), "claims to have 1,000,000 keys"),
    "a key too many": (made(keys=(A,), counts=(0, 2), data=64), "without a name"),
    "long key": (made(keys=(struct.pack("<Q", 65536),), data=70000), "65,536 bytes at byte 24"),
    "key beyond the end": (made(keys=(struct.pack("<Q", 60000),)), "ends inside its header"),
    "huge string": (
        made(keys=(text("a") + struct.pack("<IQ", 8, 2**40),)), "the value of 'a' of 1,099,511,627"
    ),
    "twice": (made(keys=(A, A)), "the key 'a' twice"),
    "unknown value": (made(keys=(text("a") + struct.pack("<II", 13, 0),)), "of the type 13"),
    "nested": (
        made(keys=(text("a") + struct.pack("<IIQ", ARRAY, ARRAY, 1),)), "array of arrays"
    ),
    "unknown element": (
        made(keys=(text("a") + struct.pack("<IIQ", ARRAY, 77, 1),)), "of the type 77"
    ),
    "long array": (
        made(keys=(text("a") + struct.pack("<IIQ", ARRAY, 10, 2**61),)), "2,305,843,009,213,693,952"
    ),
    "long array of strings": (
        made(keys=(text("a") + struct.pack("<IIQ", ARRAY, 8, 2**60),)), "elements, more than"
    ),
    "string of an array beyond the end": (
        made(keys=(text("a") + struct.pack("<IIQQ", ARRAY, 8, 2, 2**64 - 1),), data=99),
        "ends inside its header",
    ),
    "alignment 0": (made(keys=(number("general.alignment", value=0),)), "no power of two"),
    "alignment 24": (made(keys=(number("general.alignment", value=24),)), "no power of two"),
    "alignment of another type": (
        made(keys=(number("general.alignment", 10, "Q", 32),)), "of the type u32"
    ),
    "five dimensions": (made(tensors=(tensor("t", (1,) * 5),), data=32), "has 5 dimensions"),
    "many dimensions": (
        made(tensors=(text("t") + struct.pack("<I", 2**32 - 1),), data=32), "4,294,967,295 dim"
    ),
    "overflow": (made(tensors=(tensor("t", (2**32, 2**32)),), data=32), "no memory can hold"),
    "negative": (made(tensors=(tensor("t", (2**64 - 1, 0)),), data=32), "no memory can hold"),
    "half a block": (made(tensors=(tensor("t", (40,), 2),), data=64), "no whole blocks of Q4_0"),
    "unaligned": (made(tensors=(tensor("t", offset=4),), data=64), "multiple of 32"),
    "overlap": (
        made(tensors=(tensor("t", (16,)), tensor("u", offset=32)), data=96), "'u' .* overlaps"
    ),
    "out of order": (
        made(tensors=(tensor("t", offset=32), tensor("u", offset=0)), data=96), "out of order"
    ),
    "same name": (made(tensors=(tensor("t"), tensor("t", offset=32)), data=96), "is there twice"),
    "beyond the end": (made(tensors=(tensor("t"),), data=31), "1 bytes beyond the end"),
    "far beyond the end": (
        made(tensors=(tensor("t", offset=2**64 - 32, kind=99),), data=32), "beyond the end"
    ),
    "no data at all": (made(tensors=(tensor("t"),))[:60], "ends inside its header|beyond the end"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(name: str, tmp_path: Path) -> None:
    data, message = HOSTILE[name]
    path = tmp_path / "bad.gguf"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=message) as error:
        open_gguf(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 500
    assert error.value.exit_code == 3


def test_a_header_of_strings_that_never_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MAX_HEADER_SIZE", 1 << 20)
    path = tmp_path / "bad.gguf"
    path.write_bytes(made(keys=(text("a") + struct.pack("<IIQ", ARRAY, 8, 2**28),)))
    os.truncate(path, 1 << 32)
    with pytest.raises(WeightsError, match="a header of more than 1,048,576 bytes"):
        open_gguf(path)


def test_a_file_that_is_cut_while_it_is_read(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a mapping that would end the process (SIGBUS)."""
    monkeypatch.setattr(walking, "_FIRST", 64)
    size, data = model.stat().st_size, model.read_bytes()

    def read(offset: int, length: int) -> bytes:
        return data[offset : min(offset + length, 500)]

    with pytest.raises(WeightsError, match="ends inside its header"):
        parse_header(read, file_size=size, where="m")


def mutated(data: bytes, source: random.Random) -> bytes:
    """A header with some bytes, lengths or pieces changed."""
    new = bytearray(data)
    for _ in range(source.randint(1, 4)):
        at = source.randrange(len(new))
        kind = source.randrange(5)
        if kind == 0:
            new[at] = source.randrange(256)
        elif kind == 1:
            value = source.choice([0, 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1, len(new), 2**40])
            new[at : at + 8] = struct.pack("<Q", value)
        elif kind == 2:
            del new[at : at + source.randint(1, 40)]
        elif kind == 3:
            new[at:at] = new[at : at + source.randint(1, 40)]
        else:
            new[at : at + 4] = struct.pack("<I", source.choice([0, 8, 9, 13, 2**31, 2**32 - 1]))
        if not new:
            return b""
    return bytes(new)


def test_mutated_headers_end_in_a_sentence_soon(tmp_path: Path) -> None:
    """3,000 of them: no other exception, none takes a second, memory stays small."""
    model = write_gguf(tmp_path / "m.gguf", tokens=20, rows=1, rope_freqs=True)
    data = model.read_bytes()
    end = open_gguf(model).header.data_start
    source = random.Random(16)
    refused = slowest = 0
    tracemalloc.start()
    for _ in range(3000):
        trial = mutated(data[:end], source) + data[end:]
        started = time.perf_counter()
        try:
            parse(trial, source.choice([len(trial), len(trial), 2**40]))
        except WeightsError:
            refused += 1
        slowest = max(slowest, time.perf_counter() - started)
    assert 1000 < refused < 3000
    assert slowest < 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000
