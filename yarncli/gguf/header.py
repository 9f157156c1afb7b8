"""The header of a GGUF file: its keys and where its tensors lie, checked with hard limits.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, as `gguf.cpp` of llama.cpp b11434
enforces it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from yarncli.checkpoint.safetensors import RangeReader, is_lfs_pointer
from yarncli.errors import WeightsError
from yarncli.gguf.types import ARRAY, FORMATS, NAMES, STRING, TENSOR_TYPES, Array, Value
from yarncli.gguf.walking import Walk, quoted

MAGIC = b"GGUF"
ALIGNMENT = "general.alignment"
_VERSIONS = (2, 3)
_OLDER = (b"ggml", b"lmgg", b"ggmf", b"fmgg", b"ggjt", b"tjgg", b"ggla", b"algg")
_MAX_COUNT = 100_000  # keys, or tensors; the largest models have 100 and 5,000
_MAX_NAME = 65_535  # bytes, as the format says
_MAX_DIMENSIONS = 4
_MAX_KEPT = 4096  # elements of an array that are kept: one for each layer, not for each token
_BOOL, _U32 = 7, 4
# A key has at least a length, a type and a byte; a tensor a length, dimensions, a type, an offset.
_LEAST_KEY, _LEAST_TENSOR = 13, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Kv:
    """One key and its value."""

    type: str
    """Type of the value: "u32", "f32", "str", "arr", …"""
    value: Value
    """The value. Bytes of a string that are not UTF-8 are lone surrogates."""
    start: int
    """Where the key and its value begin, in bytes from the start of the file."""
    end: int
    """Where the value ends, in bytes from the start of the file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """What the header says of one tensor."""

    name: str
    """Name of the tensor."""
    shape: tuple[int, ...]
    """Dimensions in the order of the file: the first one is contiguous."""
    type: int
    """Number of its type; `TENSOR_TYPES` lists the known ones."""
    offset: int
    """Where its data begin, in bytes from the start of all data."""
    start: int
    """Where its entry in the header begins, in bytes from the start of the file."""
    end: int
    """Where its entry in the header ends; the last 8 bytes of the entry are the offset."""

    @property
    def type_name(self) -> str:
        """Name of the type in ggml, such as "Q4_K"; for an unknown type "type 99"."""
        known = TENSOR_TYPES.get(self.type)
        return known[0] if known else f"type {self.type}"

    @property
    def nbytes(self) -> int | None:
        """Length of its data, bytes; None if the type, and so the length, is unknown."""
        known = TENSOR_TYPES.get(self.type)
        return math.prod(self.shape) // known[1] * known[2] if known else None


@dataclass(frozen=True, kw_only=True)
class GgufHeader:
    """What one GGUF file holds. Byte order is always little-endian."""

    where: str
    """What to call the file in messages."""
    version: int
    """2 or 3. The versions do not differ in anything that is read here."""
    keys: Mapping[str, Kv]
    """Key → value, in the order of the file."""
    tensors: Mapping[str, GgufTensor]
    """Name → tensor, in the order of the file; their data have the same order."""
    alignment: int
    """Alignment of the data of each tensor, in bytes."""
    end: int
    """Where the entries of the tensors end, in bytes."""
    data_start: int
    """Where the data begin: the next multiple of the alignment, in bytes."""
    file_size: int
    """Size of the whole file, in bytes."""

    @property
    def keys_end(self) -> int:
        """Where the keys end and the entries of the tensors begin."""
        first = next(iter(self.tensors.values()), None)
        return first.start if first else self.end

    @property
    def architecture(self) -> str:
        """`general.architecture`: the prefix of the model's keys; empty if it is missing."""
        return self.text("general.architecture")

    @property
    def kind(self) -> str:
        """`general.type`: "model", "mmproj", "adapter", …; "model" if it is missing."""
        return self.text("general.type") or "model"

    def text(self, name: str) -> str:
        """The value of a key if it is a string, else the empty string."""
        found = self.keys.get(name)
        return found.value if found and isinstance(found.value, str) else ""


class PointerError(WeightsError):
    """A file is a Git-LFS pointer: the model itself was not fetched."""


def is_gguf(start: bytes) -> bool:
    """Whether a file that begins with these bytes (at least 4) is a GGUF file."""
    return start.startswith(MAGIC)


def parse_header(read: RangeReader, *, file_size: int, where: str) -> GgufHeader:
    """Parse a header and check it against the size of its file.

    Args:
        read: returns ranges of the file; it is asked for the header only, from its beginning on.
        file_size: in bytes.
        where: what to call the file in messages.

    Raises:
        WeightsError: the file is truncated, damaged or hostile, or is not GGUF version 2 or 3.
    """
    walk = Walk(read, file_size, where)
    version = _version(walk)
    tensor_count, key_count = walk.u64(), walk.u64()
    for what, count, least in (
        ("tensors", tensor_count, _LEAST_TENSOR),
        ("keys", key_count, _LEAST_KEY),
    ):
        if count > min(_MAX_COUNT, file_size // least):
            raise WeightsError(
                f"{where} claims to have {count:,} {what}. Its {file_size:,} bytes cannot hold "
                "so many, or no model has so many. The file is damaged."
            )
    keys: dict[str, Kv] = {}
    for _ in range(key_count):
        name, kv = _key(walk)
        if name in keys:
            raise WeightsError(f"{where} has the key {quoted(name)} twice. The file is damaged.")
        keys[name] = kv
    alignment = _alignment(keys, where)
    tensors: dict[str, GgufTensor] = {}
    for _ in range(tensor_count):
        tensor = _tensor(walk)
        if tensor.name in tensors:
            raise _wrong(where, tensor, "is listed twice")
        tensors[tensor.name] = tensor
    end = walk.position
    data_start = aligned(end, alignment)
    if not tensors:  # without data there is nothing to align
        data_start = min(data_start, file_size)
    _check_data(tensors, alignment, file_size - data_start, where)
    return GgufHeader(
        where=where, version=version, keys=keys, tensors=tensors, alignment=alignment, end=end,
        data_start=data_start, file_size=file_size,
    )  # fmt: skip


def aligned(position: int, alignment: int) -> int:
    """The smallest multiple of `alignment` that is at least `position`.

    Example:
        >>> aligned(33, 32)
        64
    """
    return -(-position // alignment) * alignment


def _version(walk: Walk) -> int:
    where = walk.where
    if not walk.size:
        raise WeightsError(f"{where} is empty. Download it again.")
    start = walk.bytes(min(walk.size, 64))
    if is_lfs_pointer(start):
        raise PointerError(
            f"{where} is a Git-LFS pointer, not the model. Run `git lfs pull` there first."
        )
    if start[:4] in _OLDER:
        raise WeightsError(
            f"{where} is a GGML file. llama.cpp no longer reads this older format. Get the "
            "model as a GGUF file."
        )
    if not is_gguf(start):
        cut = walk.size < 4 and MAGIC.startswith(start)
        raise WeightsError(
            f"{where} is truncated after {walk.size} bytes. Download it again."
            if cut
            else f"{where} does not begin with the letters GGUF, so it is not a GGUF file."
        )
    walk.rewind(4)
    version = walk.u32()
    if version and not version & 0xFFFF:
        raise WeightsError(
            f"{where} is big-endian, which yarncli does not read or write. Convert its byte order "
            "with llama.cpp's gguf_convert_endian.py first."
        )
    if version not in _VERSIONS:
        older = "llama.cpp no longer reads it. Get a newer file of the model"
        raise WeightsError(
            f"{where} has the GGUF version {version}; yarncli reads 2 and 3. "
            f"{older if version == 1 else 'Use a newer yarncli if there is one'}."
        )
    return version


def _key(walk: Walk) -> tuple[str, Kv]:
    start = walk.position
    name = walk.string("a key", _MAX_NAME)
    if not name:
        raise WeightsError(f"{walk.where} has a key without a name at byte {start:,}.")
    kind = walk.u32()
    value: Value
    if kind == ARRAY:
        value = _array(walk, name)
    elif kind == STRING:
        value = walk.string(f"the value of {quoted(name)}")
    elif kind in FORMATS:
        value = walk.number(kind)
        value = bool(value) if kind == _BOOL else value
    else:
        raise _unknown_type(walk, name, kind)
    return name, Kv(type=NAMES[kind], value=value, start=start, end=walk.position)


def _array(walk: Walk, name: str) -> Array:
    kind, count = walk.u32(), walk.u64()
    if kind == ARRAY:
        raise WeightsError(
            f"The key {quoted(name)} of {walk.where} is an array of arrays, which llama.cpp does "
            "not read. The file is damaged."
        )
    if kind not in NAMES:
        raise _unknown_type(walk, name, kind)
    form = FORMATS.get(kind)
    size = form.size if form else 8  # a string takes at least the 8 bytes of its length
    if count > walk.left // size:
        raise WeightsError(
            f"The key {quoted(name)} of {walk.where} claims {count:,} elements, more than the file "
            "can hold. The file is truncated or damaged: download it again."
        )
    if form is None:
        walk.skip_strings(count)
        return Array("str", count)
    if count > _MAX_KEPT:
        walk.skip(count * size)
        return Array(NAMES[kind], count)
    values = tuple(value for (value,) in form.iter_unpack(walk.bytes(count * size)))
    return Array(NAMES[kind], count, tuple(map(bool, values)) if kind == _BOOL else values)


def _unknown_type(walk: Walk, name: str, kind: int) -> WeightsError:
    return WeightsError(
        f"The key {quoted(name)} of {walk.where} has a value of the type {kind}, which GGUF does "
        "not have. The file is damaged."
    )


def _alignment(keys: Mapping[str, Kv], where: str) -> int:
    found = keys.get(ALIGNMENT)
    if found is None:
        return 32
    value = found.value
    if found.type != NAMES[_U32] or not isinstance(value, int) or value.bit_count() != 1:
        raise WeightsError(
            f"The key {ALIGNMENT} of {where} is not a power of two of type u32, so its tensors "
            "cannot be found. The file is damaged."
        )
    return value


def _tensor(walk: Walk) -> GgufTensor:
    start = walk.position
    name = walk.string("the name of a tensor", _MAX_NAME)
    dimensions = walk.u32()
    if dimensions > _MAX_DIMENSIONS:
        raise WeightsError(
            f"Tensor {quoted(name)} of {walk.where} has {dimensions:,} dimensions; GGUF has at "
            f"most {_MAX_DIMENSIONS}. The file is damaged."
        )
    shape = tuple(walk.u64() for _ in range(dimensions))
    tensor = GgufTensor(
        name=name, shape=shape, type=walk.u32(), offset=walk.u64(), start=start, end=walk.position
    )
    if max(shape, default=1) >= 2**63 or math.prod(shape) >= 2**63:
        raise _wrong(walk.where, tensor, f"has the shape {shape}, which no memory can hold")
    known = TENSOR_TYPES.get(tensor.type)
    if known and (shape[0] if shape else 1) % known[1]:
        raise _wrong(walk.where, tensor, f"has rows that are not whole blocks of {known[0]}")
    return tensor


def _check_data(tensors: Mapping[str, GgufTensor], alignment: int, size: int, where: str) -> None:
    """Check that tensors follow each other in the file, are aligned, and do not overlap."""
    position = 0
    for tensor in tensors.values():
        if tensor.offset % alignment:
            raise _wrong(where, tensor, f"does not begin at a multiple of {alignment} bytes")
        if tensor.offset < position:
            raise _wrong(where, tensor, "overlaps the one before it, or is out of order")
        position = tensor.offset + (tensor.nbytes or 0)
        if position > size:
            raise WeightsError(
                f"Tensor {quoted(tensor.name)} of {where} ends {position - size:,} bytes beyond "
                "the end of the file. It is truncated: download it again."
            )


def _wrong(where: str, tensor: GgufTensor, what: str) -> WeightsError:
    return WeightsError(f"Tensor {quoted(tensor.name)} of {where} {what}. The file is damaged.")
