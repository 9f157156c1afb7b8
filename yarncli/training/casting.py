"""Cast weights to another floating-point dtype: write and check a new shard in small pieces."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.kernel_copy import CHUNK
from yarncli.checkpoint.output import output_errors
from yarncli.checkpoint.safetensors import Header, TensorInfo
from yarncli.checkpoint.system import open_new, read_exactly, write_exactly
from yarncli.errors import OutputError, WeightsError
from yarncli.progress import Advance

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Dtypes that can be cast → bytes per number.
SIZES: Mapping[str, int] = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
# Bits of the significand. A cast to fewer bits rounds.
_BITS = {"F64": 53, "F32": 24, "F16": 11, "BF16": 8}


@dataclass(frozen=True, slots=True)
class Cast:
    """One shard and the new dtypes of its tensors."""

    header: Header
    """Header of the shard that the trainer saved."""
    dtypes: Mapping[str, str]
    """Name of a tensor that changes → its new dtype."""

    def size_of(self, tensor: TensorInfo) -> int:
        """Bytes of a tensor after the cast."""
        dtype = self.dtypes.get(tensor.name)
        return (
            tensor.nbytes if dtype is None else tensor.nbytes // SIZES[tensor.dtype] * SIZES[dtype]
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors after the cast."""
        return sum(map(self.size_of, self.header.tensors.values()))

    def head(self) -> bytes:
        """The header of the new file, padded as safetensors does."""
        entries: dict[str, Any] = {}
        if self.header.metadata:
            entries["__metadata__"] = self.header.metadata
        at = 0
        for tensor in self.header.tensors.values():
            end = at + self.size_of(tensor)
            entries[tensor.name] = {
                "dtype": self.dtypes.get(tensor.name, tensor.dtype),
                "shape": list(tensor.shape),
                "data_offsets": [at, end],
            }
            at = end
        text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text


def rounds(old: str, new: str) -> bool:
    """Whether a cast between two dtypes can change a value."""
    return _BITS[new] < _BITS[old] or {old, new} == {"F16", "BF16"}


def write_cast(cast: Cast, source: Path, destination: Path, progress: Advance) -> None:
    """Write a shard with other dtypes, and read back what was written.

    Args:
        cast: the shard and its new dtypes.
        source: the shard.
        destination: the new file.
        progress: called with bytes of the source, once when they are written and once when checked.

    Raises:
        WeightsError: a value does not fit into the new dtype.
        OutputError: it cannot be written, or is different when it is read back.
    """
    with source.open("rb", buffering=0) as old, output_errors(str(destination)):
        mode = os.fstat(old.fileno()).st_mode & 0o777 | 0o200
        new = open_new(destination, mode)
        try:
            head = cast.head()
            write_exactly(new, head, 0)
            for piece, at in _pieces(cast, old.fileno(), len(head)):
                write_exactly(new, piece, at)
                progress(len(piece))
            for piece, at in _pieces(cast, old.fileno(), len(head)):
                if read_exactly(new, at, len(piece)) != piece:
                    raise OutputError(
                        f"{destination} differs from what was written to it. Run again."
                    )
                progress(len(piece))
        finally:
            os.close(new)


def _pieces(cast: Cast, source: int, begin: int) -> Iterator[tuple[bytes, int]]:
    """Pieces of the new file with their offsets in it; `begin` is where its data start."""
    for tensor in cast.header.tensors.values():
        start, end = (cast.header.header_size + offset for offset in tensor.data_offsets)
        dtype = cast.dtypes.get(tensor.name)
        for offset in range(start, end, CHUNK):
            data = read_exactly(source, offset, min(CHUNK, end - offset))
            made = data if dtype is None else converted(data, tensor.dtype, dtype, tensor.name)
            yield made, begin
            begin += len(made)


def converted(data: bytes, old: str, new: str, name: str = "A tensor") -> bytes:
    """Convert numbers from one dtype to another, rounded to nearest, ties to even.

    Args:
        data: the bytes, little-endian.
        old: their dtype, one of `SIZES`.
        new: the wanted dtype.
        name: name of the tensor in messages.

    Raises:
        WeightsError: a finite number is too large for the new dtype.
    """
    import numpy as np

    wide = _wide(data, old)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        made = _narrow(wide, new)
        back = _wide(made, new)
    if bool(np.any(np.isinf(back) & np.isfinite(wide))):
        raise WeightsError(
            f"{name} holds a number that does not fit into {new}. Leave out --dtype, which keeps "
            "the weights as they were trained."
        )
    return made


def _wide(data: bytes, dtype: str) -> NDArray[Any]:
    import numpy as np

    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, {"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])


def _narrow(values: NDArray[Any], dtype: str) -> bytes:
    import numpy as np

    if dtype != "BF16":
        return values.astype({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype]).tobytes()
    bits = values.astype("<f4").view("<u4")  # F64 is rounded twice (to F32, to BF16), as in torch
    rounded = (bits + (0x7FFF + ((bits >> 16) & 1))) >> 16
    # A NaN must stay a NaN with its sign, but rounding its bits could turn it into infinity.
    quiet = (bits >> 16) | 0x40
    return np.where(np.isnan(values), quiet, rounded).astype("<u2").tobytes()
