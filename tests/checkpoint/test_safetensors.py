"""The safetensors package is the oracle: what it writes is read, what it refuses is refused."""

import json
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.numpy import save
from safetensors.torch import save_file

from yarncli.checkpoint import safetensors
from yarncli.checkpoint.safetensors import (
    is_safe_name,
    parse_header,
    parse_index,
    read_header,
)
from yarncli.errors import WeightsError

# Every dtype that safetensors 0.8 lists in its "unknown variant" error, with bytes for 8 elements
# as its own reader accepts them.
BYTES_FOR_8 = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8,
    "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32, "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip


def packed(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "U8") -> dict:
    return {"dtype": dtype, "shape": shape or [end - begin], "data_offsets": [begin, end]}


def parse(raw: bytes) -> safetensors.Header:
    return parse_header(raw, file_size=len(raw), where="x.safetensors")


def test_reads_what_safetensors_wrote(tmp_path: Path) -> None:
    tensors = {
        "z": torch.zeros(3, 4, dtype=torch.bfloat16),
        "a": torch.ones(7, dtype=torch.float8_e4m3fn),
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.zeros(0, 5),
    }
    path = tmp_path / "x.safetensors"
    save_file(tensors, path, metadata={"format": "pt", "é": "ü"})
    header = read_header(path)
    assert header.metadata == {"format": "pt", "é": "ü"}
    assert header.file_size == path.stat().st_size
    with safe_open(path, framework="pt") as file:
        assert set(file.keys()) == set(header.tensors)
        for name, info in header.tensors.items():
            assert info.shape == tuple(file.get_slice(name).get_shape())
            assert info.dtype == file.get_slice(name).get_dtype()
            assert info.parameters == tensors[name].numel()
            assert info.nbytes == tensors[name].numel() * tensors[name].element_size()
    begin = header.header_size + header.tensors["z"].data_offsets[0]
    assert path.read_bytes()[begin : begin + 24] == bytes(24)
    offsets = [info.data_offsets for info in header.tensors.values()]
    assert offsets == sorted(offsets)


@pytest.mark.parametrize("dtype", BYTES_FOR_8)
def test_knows_every_dtype_of_the_library(dtype: str) -> None:
    size = BYTES_FOR_8[dtype]
    raw = packed({"t": entry(0, size, [8], dtype)}, bytes(size))
    deserialize(raw)
    assert parse(raw).tensors["t"].nbytes == size


def test_knows_no_other_dtype() -> None:
    with pytest.raises(SafetensorError) as refusal:
        deserialize(packed({"t": entry(0, 1, dtype="?")}, b"x"))
    listed = str(refusal.value).split("expected one of ")[1].split(" at line")[0]
    assert sorted(listed.replace("`", "").split(", ")) == sorted(BYTES_FOR_8)
    assert set(safetensors.DTYPE_BITS) == set(BYTES_FOR_8)


GOOD = {"t": entry(0, 4)}
BROKEN = {
    "empty file": (b"", "too short"),
    "seven bytes": (b"\0" * 7, "too short"),
    "header of 2^63": (struct.pack("<Q", 2**63) + b"{}", "claims a header of"),
    "header over the limit": (struct.pack("<Q", 100_000_001) + b"{}", "more than safetensors"),
    "header beyond the file": (struct.pack("<Q", 50) + b"{}", "truncated"),
    "not JSON": (packed(b"hello"), "not JSON"),
    "not UTF-8": (packed(b'{"\xff": 1}'), "not JSON"),
    "an array": (packed([1]), "not a JSON object"),
    "deep nesting": (packed(b"[" * 200_000), "not JSON"),
    "digits": (packed(b'{"t": ' + b"9" * 5000 + b"}"), "not JSON"),
    "duplicate name": (
        packed(b'{"t": %b, "t": %b}' % ((json.dumps(GOOD["t"]).encode(),) * 2), b"1234"),
        "twice",
    ),
    "duplicate field": (packed(b'{"t": {"dtype": "U8", "dtype": "I8"}}'), "twice"),
    "tensor is no object": (packed({"t": 3}), "not described"),
    "unknown dtype": (packed({"t": entry(0, 4, dtype="F3")}, b"1234"), "does not know"),
    "dtype is a list": (packed({"t": entry(0, 4) | {"dtype": []}}, b"1234"), "does not know"),
    "no shape": (packed({"t": {"dtype": "U8", "data_offsets": [0, 4]}}, b"1234"), "`shape`"),
    "negative size": (packed({"t": entry(0, 4, [-2, -2])}, b"1234"), "`shape`"),
    "fractional size": (packed({"t": entry(0, 4) | {"shape": [4.0]}}, b"1234"), "`shape`"),
    "boolean size": (packed({"t": entry(0, 1) | {"shape": [True]}}, b"1"), "`shape`"),
    "three offsets": (
        packed({"t": entry(0, 4) | {"data_offsets": [0, 2, 4]}}, b"1234"),
        "`data_offsets`",
    ),
    "wrong size": (packed({"t": entry(0, 4, [5])}, b"1234"), "does not fill"),
    "overflowing shape": (packed({"t": entry(0, 4, [2**40, 2**40])}, b"1234"), "does not fill"),
    "huge rank": (packed({"t": entry(0, 4, [9] * 100_000)}, b"1234"), "does not fill"),
    "half a byte": (packed({"t": entry(0, 1, [1], "F4")}, b"1"), "does not fill"),
    "reversed offsets": (packed({"t": entry(4, 0, [0])}, b"1234"), "does not fill"),
    "overlap": (packed({"a": entry(0, 3), "b": entry(2, 4)}, b"1234"), "overlaps 'a'"),
    "hole": (packed({"a": entry(0, 1), "b": entry(2, 4)}, b"1234"), "hole after 'a'"),
    "hole at the start": (packed({"a": entry(1, 4)}, b"1234"), "hole after the header"),
    "truncated data": (packed({"t": entry(0, 4)}, b"123"), "1 bytes beyond"),
    "trailing bytes": (packed({"t": entry(0, 4)}, b"12345"), "1 bytes after"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}}), "__metadata__"),
    "metadata is a text": (packed({"__metadata__": "a"}), "__metadata__"),
    "surrogate": (packed(b'{"\\ud800": %b}' % json.dumps(GOOD["t"]).encode(), b"1234"), "Unicode"),
    "LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n",
        "git lfs pull",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_refuses_with_one_sentence(case: str) -> None:
    raw, expected = BROKEN[case]
    with pytest.raises(WeightsError, match=r"x\.safetensors") as refusal:
        parse(raw)
    assert expected in str(refusal.value)
    assert len(str(refusal.value)) < 400
    if "duplicate" not in case:  # the library takes the last of two
        with pytest.raises(SafetensorError):
            deserialize(raw)


def test_a_hostile_name_is_cut_in_the_message() -> None:
    with pytest.raises(WeightsError) as refusal:
        parse(packed({"n" * 1_000_000: 3}))
    assert len(str(refusal.value)) < 400


def test_a_large_header_costs_a_second_read_only() -> None:
    tensors = {f"a.long.tensor.name.{n:06}": entry(n, n + 1) for n in range(2000)}
    raw = packed(tensors, bytes(2000))
    asked = []

    def read(offset: int, length: int) -> bytes:
        asked.append((offset, length))
        return raw[offset : offset + length]

    header = parse_header(read, file_size=len(raw), where="x")
    assert list(header.tensors) == list(tensors)
    assert asked == [(0, 100_001), (100_001, header.header_size - 100_001)]


def test_tensors_come_in_the_order_of_their_data() -> None:
    raw = packed({"second": entry(1, 4), "first": entry(0, 1), "empty": entry(4, 4)}, b"1234")
    assert set(dict(deserialize(raw))) == {"first", "second", "empty"}
    assert list(parse(raw).tensors) == ["first", "second", "empty"]


def test_a_read_that_ends_inside_the_header() -> None:
    raw = packed(GOOD, b"1234")
    with pytest.raises(WeightsError, match="ends inside its header"):
        parse_header(raw[:20], file_size=len(raw), where="x")


def test_only_the_header_of_a_huge_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    size = 1 << 40  # sparse: one terabyte
    head = packed({"t": entry(0, size, [1 << 20, 1 << 20])})
    path.write_bytes(head)
    os.truncate(path, len(head) + size)
    assert read_header(path).tensors["t"].nbytes == size


@pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "unreadable link"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.safetensors"
    if kind == "directory":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "unreadable link":
        path.symlink_to(path)
    with pytest.raises(WeightsError, match=r"x\.safetensors"):
        read_header(path)


names = st.text(max_size=12)
arrays = st.dictionaries(
    names.filter(lambda name: name != "__metadata__"),
    st.tuples(
        st.sampled_from(["float32", "int8", "uint16", "bool"]),
        st.lists(st.integers(0, 4), max_size=4),
    ),
    max_size=6,
)


@given(arrays)
def test_agrees_with_the_library_on_any_file(spec: dict) -> None:
    tensors = {name: np.zeros(shape, dtype) for name, (dtype, shape) in spec.items()}
    raw = save(tensors)
    header = parse(raw)
    assert {n: i.shape for n, i in header.tensors.items()} == {
        n: array.shape for n, array in tensors.items()
    }
    for name, view in deserialize(raw):
        info = header.tensors[name]
        begin, end = (header.header_size + offset for offset in info.data_offsets)
        assert raw[begin:end] == bytes(view["data"])


@given(st.data())
def test_agrees_with_the_library_on_damaged_files(data: st.DataObject) -> None:
    raw = bytearray(save({"a": np.zeros((2, 3), np.float32), "b": np.ones(4, np.int8)}))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.sampled_from([len(raw), len(raw), len(raw) - 1, 5]))]
    raw = bytes(raw)
    try:
        accepted = {name: view["shape"] for name, view in deserialize(raw)}
    except SafetensorError:
        accepted = None
    refusal, ours = "", None
    try:
        ours = {name: list(info.shape) for name, info in parse(raw).tensors.items()}
    except WeightsError as error:
        refusal = str(error)
    # Only a duplicate key is refused by us alone.
    assert ours == accepted or "twice" in refusal


def index_text(**changes: object) -> bytes:
    document = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-1.safetensors"}}
    return json.dumps(document | changes).encode()


def test_index() -> None:
    index = parse_index(index_text(), "i")
    assert index.weight_map == {"a": "model-1.safetensors"}
    assert index.total_size == 8
    assert parse_index(index_text(metadata={"total_size": 1.6e10}), "i").total_size == 16 * 10**9
    assert parse_index(index_text(metadata={"total_size": "8"}), "i").total_size is None
    assert parse_index(index_text(metadata=None), "i").metadata == {}


@pytest.mark.parametrize(
    "shard",
    ["../x", "/etc/passwd", "a/../../x", "a\\b", "", ".", "./a", "a//b", "a/", "C:x", "a\nb", "a\0",
     3, None, ["x"]],
)  # fmt: skip
def test_index_that_points_out(shard: object) -> None:
    with pytest.raises(WeightsError, match="which is not a file name inside"):
        parse_index(index_text(weight_map={"a": shard}), "i")


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"weight_map": {}}', b'{"weight_map": []}', b"\xff", b"[" * 10**6,
     b'{"weight_map": {"a": "x", "a": "y"}}', b'{"weight_map": {"a": ' + b"1" * 5000 + b"}}",
     b"version https://git-lfs.github.com/spec/v1\noid sha256:0"],
)  # fmt: skip
def test_damaged_index(text: bytes) -> None:
    with pytest.raises(WeightsError):
        parse_index(text, "i")


@given(st.text())
def test_a_safe_name_stays_inside(name: str) -> None:
    if is_safe_name(name):
        assert os.path.normpath(f"/root/{name}") == f"/root/{name}"
