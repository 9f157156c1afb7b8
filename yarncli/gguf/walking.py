"""Read the header of a GGUF file piece by piece, without keeping what was skipped."""

from __future__ import annotations

import reprlib
import struct

from yarncli.checkpoint.safetensors import RangeReader
from yarncli.errors import WeightsError
from yarncli.gguf.types import FORMATS

MAX_HEADER_SIZE = 100_000_000  # bytes; ten times the largest known: 256k tokens and 500k merges
_MAX_STRING = 16 << 20  # bytes; a chat template has some thousands
_FIRST, _LARGEST = 1 << 18, 1 << 22  # bytes per request: it grows from the first to the second
_LENGTH = struct.Struct("<Q").unpack_from


class Walk:
    """The position of a reader in a header, and the piece of the file around it.

    Every method raises `WeightsError` if the file ends too early, or if the header is larger than
    `MAX_HEADER_SIZE`.
    """

    def __init__(self, read: RangeReader, size: int, where: str) -> None:
        """Start at the beginning of a file of `size` bytes, called `where` in messages."""
        self.size, self.where = size, where
        self._read, self._next = read, _FIRST
        self._piece, self._start, self._at = b"", 0, 0

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._start + self._at

    @property
    def left(self) -> int:
        """Bytes up to the end of the file."""
        return self.size - self.position

    def bytes(self, length: int) -> bytes:
        """The next bytes."""
        self._need(length)
        self._at += length
        return self._piece[self._at - length : self._at]

    def rewind(self, position: int) -> None:
        """Go back to a position near the beginning of the file."""
        assert self._start == 0
        self._at = position

    def number(self, kind: int) -> int | float:
        """The next number, of a type of `FORMATS`."""
        form = FORMATS[kind]
        self._need(form.size)
        found: int | float = form.unpack_from(self._piece, self._at)[0]
        self._at += form.size
        return found

    def u32(self) -> int:
        """The next number of 32 bits."""
        return int(self.number(4))

    def u64(self) -> int:
        """The next number of 64 bits."""
        return int(self.number(10))

    def string(self, what: str, limit: int = _MAX_STRING) -> str:
        """The next string; bytes that are not UTF-8 become lone surrogates.

        Args:
            what: what the string is, for the message.
            limit: its largest permitted length, in bytes.
        """
        length = self.u64()
        if length > limit:
            raise WeightsError(
                f"{self.where} claims {what} of {length:,} bytes at byte {self.position - 8:,}, "
                f"but at most {limit:,} are possible. The file is damaged."
            )
        return self.bytes(length).decode("utf-8", "surrogateescape")

    def skip(self, length: int) -> None:
        """Skip bytes without reading them."""
        if self._at + length <= len(self._piece):
            self._at += length
            return
        self._require(length)
        self._start, self._piece, self._at = self.position + length, b"", 0

    def skip_strings(self, count: int) -> None:
        """Skip strings; only the length of each is read."""
        left = count
        while left:
            piece, at = self._piece, self._at
            try:
                for left in range(left, 0, -1):  # noqa: B007, B020 used where it ends
                    (length,) = _LENGTH(piece, at)
                    at += 8 + length
                left = 0
            except (struct.error, OverflowError):  # the next string ends beyond the piece
                pass
            self.skip(at - self._at)
            if left:
                self._need(8)

    def _need(self, length: int) -> None:
        """Make sure that the piece holds the next bytes."""
        if self._at + length <= len(self._piece):
            return
        self._require(length)
        rest = self._piece[self._at :]
        wanted = max(length - len(rest), min(self._next, self.left - len(rest)))
        more = self._read(self.position + len(rest), wanted)
        self._start, self._piece, self._at = self.position, rest + more, 0
        self._next = min(2 * self._next, _LARGEST)
        if len(self._piece) < length:
            raise self._truncated()

    def _require(self, length: int) -> None:
        if self.position + length > self.size:
            raise self._truncated()
        if self.position + length > MAX_HEADER_SIZE:
            raise WeightsError(
                f"{self.where} claims a header of more than {MAX_HEADER_SIZE:,} bytes. No model "
                "has such a large header: the file is damaged."
            )

    def _truncated(self) -> WeightsError:
        return WeightsError(
            f"{self.where} ends inside its header, after {self.size:,} bytes. It is truncated: "
            "download it again."
        )


def quoted(name: str) -> str:
    """A name for a message: shortened, and without control characters, as it may be hostile."""
    shown = reprlib.Repr()
    shown.maxstring = 120
    return shown.repr(name)
