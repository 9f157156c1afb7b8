"""Safetensors headers and weight indexes, parsed with hard limits; weights are never read.

Format: https://huggingface.co/docs/safetensors/index#format, as safetensors 0.8 enforces it.
"""

from __future__ import annotations

import json
import reprlib
import stat
import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from yarncli.errors import WeightsError

# Bits per element of every dtype that safetensors 0.8 knows; its reader names them in its error.
DTYPE_BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}

MAX_HEADER_SIZE = 100_000_000  # bytes of JSON; the limit of the safetensors library
MAX_INDEX_SIZE = 64_000_000  # three times the largest on the Hub
# A tensor has about five values in a header and one in an index: room for 100,000 tensors in one
# file, and for 500,000 in all; the largest models have 20,000 and 350,000.
_MAX_VALUES = 500_000
_MAX_SHARDS = 4096
# One request of this size holds the header of nearly every shard on the Hub.
FIRST_READ = 100_001
_MAX_ELEMENTS = 2**63
_LFS_VERSION = b"version https://git-lfs.github.com/spec/v1"

RangeReader = Callable[[int, int], bytes]
"""`read(offset, length)`: the bytes of a file from `offset`, fewer only at its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor of a header."""

    name: str
    """As the header spells it."""
    dtype: str
    """As safetensors calls it: "F32", "BF16"."""
    shape: tuple[int, ...]
    """Empty for a single number."""
    data_offsets: tuple[int, int]
    """Begin and end of its data, in bytes from the end of the header."""

    @property
    def nbytes(self) -> int:
        """Size in the file, in bytes."""
        return self.data_offsets[1] - self.data_offsets[0]

    @property
    def parameters(self) -> int:
        """Number of stored elements (packed formats count their containers)."""
        return _elements(self.shape) or 0


@dataclass(frozen=True, kw_only=True)
class Header:
    """What one safetensors file holds."""

    tensors: dict[str, TensorInfo]
    """Name → tensor, in the order of their data in the file."""
    metadata: dict[str, str]
    """The `__metadata__` entry; empty if there is none."""
    header_size: int
    """8 + the length of the JSON, in bytes: where the data starts."""
    file_size: int
    """Of the whole file, in bytes."""


@dataclass(frozen=True)
class Index:
    """A weight index: which shard holds which tensor.

    Attributes:
        weight_map: tensor name → shard name, relative to the index.
        total_size: `metadata.total_size` in bytes, None where it is absent or no whole number.
        metadata: all of `metadata`.
    """

    weight_map: dict[str, str]
    total_size: int | None
    metadata: dict[str, Any]


def is_lfs_pointer(start: bytes) -> bool:
    """Whether a file that begins with `start` (at least 42 bytes of it) is a Git-LFS pointer."""
    return start.startswith(_LFS_VERSION)


def read_header(path: Path, where: str | None = None) -> Header:
    """Read and check the header of a local file.

    Args:
        path: the file.
        where: what to call it in messages; its path by default.

    Raises:
        WeightsError: the file cannot be read, or is not a sound safetensors file.
    """
    where = where or str(path)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise WeightsError(f"{where} is not a regular file, so no weights can be read from it.")
        with path.open("rb", buffering=0) as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            return parse_header(read, file_size=info.st_size, where=where)
    except OSError as error:
        raise WeightsError(f"{where} cannot be read: {error.strerror}.") from error


def parse_header(raw: bytes | RangeReader, *, file_size: int, where: str) -> Header:
    """Parse a header and check it against the size of its file.

    Refuses all that safetensors 0.8 refuses, and duplicate keys.

    Args:
        raw: the beginning of the file, header included, or a function that reads ranges of it.
        file_size: in bytes.
        where: what to call the file in messages.

    Raises:
        WeightsError: the file is truncated, damaged, hostile, or a Git-LFS pointer.
    """
    read = _reader_of(raw) if isinstance(raw, bytes) else raw
    start = read(0, min(FIRST_READ, file_size))
    if is_lfs_pointer(start):
        raise WeightsError(
            f"{where} is a Git-LFS pointer, not the weights. Run `git lfs pull` there first."
        )
    if len(start) < 8 or file_size < 8:
        raise WeightsError(f"{where} is too short ({file_size} bytes) to be a safetensors file.")
    # Layout: 8 bytes with the length of the header, the header as JSON, then the data. The length
    # is checked before anything of that size is read: a hostile file may claim any number.
    (length,) = struct.unpack("<Q", start[:8])
    if length > MAX_HEADER_SIZE:
        raise WeightsError(
            f"{where} claims a header of {length} bytes, more than safetensors allows "
            f"({MAX_HEADER_SIZE}). It is damaged or not a safetensors file."
        )
    if 8 + length > file_size:
        raise WeightsError(
            f"{where} claims a header of {length} bytes but has only {file_size} bytes. "
            "It is truncated; download it again."
        )
    text = start[8 : 8 + length]
    if len(text) < length:
        text += read(8 + len(text), length - len(text))
    if len(text) != length:
        raise WeightsError(f"{where} ends inside its header. It is truncated; download it again.")
    entries = _load_object(text, where, "header")
    metadata = _metadata(entries.pop("__metadata__", None), where)
    tensors = [_tensor(name, entry, where) for name, entry in entries.items()]
    tensors.sort(key=lambda tensor: tensor.data_offsets)
    _check_coverage(tensors, file_size - 8 - length, where)
    return Header(
        tensors={t.name: t for t in tensors}, metadata=metadata,
        header_size=8 + length, file_size=file_size,
    )  # fmt: skip


def parse_index(text: bytes, where: str) -> Index:
    """Parse a `*.safetensors.index.json`.

    Raises:
        WeightsError: not JSON, duplicate keys, or a shard name that points out of the directory.
    """
    if is_lfs_pointer(text):
        raise WeightsError(
            f"{where} is a Git-LFS pointer, not the index. Run `git lfs pull` there first."
        )
    document = _load_object(text, where, "index")
    weight_map = document.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise WeightsError(f"{where} has no `weight_map`, so the tensors' shards are unknown.")
    shards = dict.fromkeys(weight_map.values() if _all_text(weight_map) else [None])
    if len(shards) > _MAX_SHARDS:
        raise WeightsError(f"{where} names {len(shards):,} files; no model has so many.")
    for shard in shards:
        if not is_safe_name(shard):
            raise WeightsError(
                f"{where} places tensors in {_quote(shard)}, which is not a file name inside the "
                "checkpoint. Correct `weight_map`."
            )
    metadata = document.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    size = metadata.get("total_size")
    if isinstance(size, float) and size.is_integer():
        size = int(size)  # some published indexes hold a float
    return Index(weight_map, size if type(size) is int and size >= 0 else None, metadata)


def is_safe_name(name: object) -> bool:
    """Whether `name` is a plain relative POSIX path that cannot leave its directory."""
    if not isinstance(name, str) or not name or len(name) > 1024 or not name.isprintable():
        return False
    path = PurePosixPath(name)
    return (
        "\\" not in name
        and ":" not in name
        and not path.is_absolute()
        and ".." not in path.parts
        and str(path) == name != "."
    )


def _quote(value: object) -> str:
    """`value` as shown in a message: a hostile name may be as long as the header."""
    shown = reprlib.Repr()
    shown.maxstring = 160
    return shown.repr(value)


def _all_text(weight_map: dict[str, Any]) -> bool:
    return all(type(shard) is str for shard in weight_map.values())


def _reader_of(raw: bytes) -> RangeReader:
    return lambda offset, length: raw[offset : offset + length]


def _load_object(text: bytes, where: str, what: str) -> dict[str, Any]:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            counts = Counter(key for key, _ in pairs)
            twice = next(key for key, count in counts.items() if count > 1)
            raise WeightsError(f"The {what} of {where} has the key {_quote(twice)} twice.")
        return made

    if text.count(b",") >= _MAX_VALUES:
        raise WeightsError(
            f"The {what} of {where} holds more than {_MAX_VALUES:,} values, which would fill the "
            "memory. No model has so many."
        )
    try:
        document = json.loads(text.decode("utf-8"), object_pairs_hook=unique)
    # ValueError: not UTF-8, not JSON, or an integer of thousands of digits.
    except (ValueError, RecursionError) as error:
        raise WeightsError(
            f"The {what} of {where} is not JSON. The file is damaged; download it again."
        ) from error
    if not isinstance(document, dict):
        raise WeightsError(f"The {what} of {where} is not a JSON object. The file is damaged.")
    return document


def _metadata(entry: Any, where: str) -> dict[str, str]:
    if entry is None:
        return {}
    if not isinstance(entry, dict) or not _all_text(entry):
        raise WeightsError(f"`__metadata__` of {where} is not a map of texts. The file is damaged.")
    return entry


def _tensor(name: str, entry: Any, where: str) -> TensorInfo:
    if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
        raise WeightsError(f"The tensor name {_quote(name)} of {where} is not valid Unicode.")
    if not isinstance(entry, dict):
        raise WeightsError(f"Tensor {_quote(name)} of {where} is not described by an object.")
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise WeightsError(
            f"Tensor {_quote(name)} of {where} has the dtype {_quote(dtype)}, "
            "which safetensors does not know."
        )
    if not _is_naturals(shape):
        raise WeightsError(f"Tensor {_quote(name)} of {where} has no valid `shape`.")
    if not _is_naturals(offsets) or len(offsets) != 2:
        raise WeightsError(f"Tensor {_quote(name)} of {where} has no valid `data_offsets`.")
    elements = _elements(shape)
    begin, end = offsets
    # Sub-byte tensors must end on a byte boundary, as safetensors demands.
    if elements is None or elements * DTYPE_BITS[dtype] != (end - begin) * 8:
        raise WeightsError(
            f"Tensor {_quote(name)} of {where} is {dtype} of shape {shape[:8]}, which does "
            f"not fill its {end - begin} bytes. The file is damaged; download it again."
        )
    return TensorInfo(name=name, dtype=dtype, shape=tuple(shape), data_offsets=(begin, end))


def _is_naturals(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _elements(shape: tuple[int, ...] | list[int]) -> int | None:
    """The product of `shape`; None where it overflows (so hostile shapes cost no big integers)."""
    product = 1
    for size in shape:
        product *= size
        if product >= _MAX_ELEMENTS:
            return None
    return product


def _check_coverage(tensors: list[TensorInfo], data_size: int, where: str) -> None:
    """Tensors, sorted by offset, must tile the data from its first byte to its last."""
    position, previous = 0, "the header"
    for tensor in tensors:
        begin, end = tensor.data_offsets
        if end > data_size:
            raise WeightsError(
                f"Tensor {_quote(tensor.name)} of {where} ends {end - data_size} bytes beyond "
                "the end of the file. It is truncated; download it again."
            )
        if begin != position:
            problem = "overlaps" if begin < position else "leaves a hole after"
            raise WeightsError(
                f"Tensor {_quote(tensor.name)} of {where} {problem} {previous}. "
                "The file is damaged."
            )
        position, previous = end, _quote(tensor.name)
    if position != data_size:
        raise WeightsError(
            f"{where} has {data_size - position} bytes after its last tensor. The file is damaged."
        )
