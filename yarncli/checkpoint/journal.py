"""The undo journal of a change in place: its format, and who wrote it.

A journal is in the directory that it restores, which may come from an unknown source. So it is used
only if the state directory of this user has its key. The key proves that a run of this user wrote
the journal, byte for byte. Any other journal is only shown.
"""

from __future__ import annotations

import hmac
import json
import os
import re
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO
from zlib import crc32

from yarncli.checkpoint.directory import JOURNAL_NAME, JournalError
from yarncli.checkpoint.safetensors import is_safe_name
from yarncli.checkpoint.system import flush

PAGE = 4096  # bytes of a file that a system writes together, or loses together
_MAGIC = b"yarncli undo journal 2\n"
_RECORD = struct.Struct("<II")  # lengths of the JSON and of the data
_MAX_JSON = 1 << 16
_MAX_DATA = (1 << 30) + (1 << 21)
_KEPT = 90 * 24 * 3600  # seconds that a key is kept for a journal that is not where it was
_RESIZE = ("name", "size", "shift", "new_size")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRecord:
    """A small file that is replaced, made or removed as a whole."""

    name: str
    """POSIX path of the file, relative to the checkpoint."""
    old: bytes | None
    """What it held; None if it did not exist."""
    new: str | None
    """Checksum of what it will hold; None if it is removed."""
    owner: tuple[int, int, int] | None
    """Its mode, user id and group id; None if it did not exist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RangeRecord:
    """A byte range of a large file that is rewritten where it lies."""

    name: str
    """POSIX path of the file, relative to the checkpoint."""
    size: int
    """Of the file, in bytes; it stays."""
    offset: int
    """Where the range begins, in bytes from the start of the file."""
    old: bytes
    """What the range held."""
    new: bytes
    """What it will hold, if that is no more than a page; else a CRC-32 for each of its pages."""

    @classmethod
    def of(cls, new: bytes, *, name: str, size: int, offset: int, old: bytes) -> RangeRecord:
        """The record of a range of a file of `size` bytes that will hold `new`."""
        return cls(name=name, size=size, offset=offset, old=old, new=_told(new, offset))

    @property
    def is_exact(self) -> bool:
        """Whether `new` is what the range will hold, not checksums of it."""
        return len(self.old) <= PAGE

    def is_new(self, data: bytes) -> bool:
        """Whether the range, holding `data`, has been written."""
        return _told(data, self.offset) == self.new

    def strange(self, data: bytes) -> list[int]:
        """Where, in bytes from the start of the file, `data` is neither old nor new.

        In a range of more than one page, a page that is partly old and partly new counts as
        neither: of its new content only a checksum is known.
        """
        if self.is_exact:
            known = enumerate(zip(data, self.old, self.new, strict=True), self.offset)
            return [at for at, (byte, old, new) in known if byte not in (old, new)]
        now = _told(data, self.offset)
        return [
            self.offset + begin
            for at, (begin, end) in enumerate(_pages(len(data), self.offset))
            if now[4 * at : 4 * at + 4] != self.new[4 * at : 4 * at + 4]
            and data[begin:end] != self.old[begin:end]
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class ResizeRecord:
    """A large file that changes its size in place: everything after its start moves."""

    name: str
    """POSIX path of the file, relative to its directory."""
    size: int
    """Of the old file, in bytes."""
    shift: int
    """By how many bytes the rest of the file moves; negative: towards the beginning."""
    new_size: int
    """Of the new file, in bytes."""
    ranges: tuple[tuple[int, bytes], ...]
    """Offsets in the old file where bytes are overwritten or cut off, and these bytes."""


Record = FileRecord | RangeRecord | ResizeRecord


@dataclass(frozen=True, slots=True)
class Key:
    """The key that proves that this user wrote a journal."""

    identifier: str
    """The random name of the journal, and of the file with the secret."""
    secret: bytes
    """Never leaves the state directory."""

    @classmethod
    def create(cls, directory: Path) -> Key:
        """A new key, saved in the state directory if that is writable."""
        key = cls(os.urandom(16).hex(), os.urandom(32))
        about = {"secret": key.secret.hex(), "directory": os.fspath(directory.absolute())}
        with suppress(OSError):  # then only this run itself can take the change back unasked
            place = _keys()
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            _forget_old(place)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(os.open(place / key.identifier, flags, 0o600), "w") as file:
                json.dump(about, file)
                file.flush()
                flush(file.fileno())
        return key

    @classmethod
    def find(cls, identifier: str) -> Key | None:
        """The key of a journal; None if this user has none."""
        try:
            secret = json.loads((_keys() / identifier).read_bytes())["secret"]
            return cls(identifier, bytes.fromhex(secret))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def seal(self, digest: str) -> str:
        """The seal of a journal with this checksum; computing it takes the secret."""
        return hmac.new(self.secret, digest.encode(), sha256).hexdigest()

    def forget(self) -> None:
        """Delete the key after the change, so that no journal can be restored with it any more."""
        with suppress(OSError):
            (_keys() / self.identifier).unlink()


def state_directory() -> Path:
    """Where yarncli keeps what it must remember between runs: `$XDG_STATE_HOME/yarncli`."""
    given = os.environ.get("XDG_STATE_HOME", "")
    place = Path(given) if Path(given).is_absolute() else Path.home() / ".local" / "state"
    return place / "yarncli"


def checksum(data: bytes) -> str:
    """The checksum by which a journal describes the content of a small file."""
    return sha256(data).hexdigest()


def _told(data: bytes, offset: int) -> bytes:
    """What a journal keeps of the bytes to be written at `offset` (see `RangeRecord.new`)."""
    if len(data) <= PAGE:
        return data
    view = memoryview(data)
    found = [crc32(view[begin:end]) for begin, end in _pages(len(data), offset)]
    return struct.pack(f"<{len(found)}I", *found)


def _pages(length: int, offset: int) -> Iterator[tuple[int, int]]:
    """`(begin, end)` in a range, which lies at `offset` of a file, for every page it touches."""
    begin = 0
    while begin < length:
        end = min(length, begin + PAGE - (offset + begin) % PAGE)
        yield begin, end
        begin = end


class JournalWriter:
    """Writes the records of one journal; it counts only once `end` has been written."""

    # Layout: the magic bytes, then entries. An entry is the lengths of its JSON and of its data,
    # the JSON, and the data. The first entry names the key; the last one has the number of records,
    # the checksum of everything before it, and the seal.

    def __init__(self, file: BinaryIO, key: Key) -> None:
        self._file, self._key, self._hash = file, key, sha256()
        self._count = 0
        self._put(_MAGIC)
        self._entry({"id": key.identifier}, b"")

    def add(self, record: Record) -> None:
        """Write one record."""
        if isinstance(record, FileRecord):
            fields: dict[str, Any] = {
                "name": record.name,
                "new": record.new,
                "owner": record.owner,
            }
            fields["existed"] = record.old is not None
            self._entry(fields, record.old or b"")
        elif isinstance(record, ResizeRecord):
            fields = {name: getattr(record, name) for name in _RESIZE}
            fields["ranges"] = [(offset, len(old)) for offset, old in record.ranges]
            self._entry(fields, b"".join(old for _, old in record.ranges))
        else:
            fields = {
                "name": record.name,
                "size": record.size,
                "offset": record.offset,
                "length": len(record.old),
            }
            self._entry(fields, record.old + record.new)
        self._count += 1

    def end(self) -> None:
        """Close the journal with its checksum and seal, and flush it to the disk."""
        digest = self._hash.hexdigest()
        seal = self._key.seal(digest)
        self._entry({"end": self._count, "sha256": digest, "seal": seal}, b"")
        self._file.flush()
        flush(self._file.fileno())

    def _entry(self, fields: Mapping[str, Any], data: bytes) -> None:
        head = json.dumps(fields).encode()
        self._put(_RECORD.pack(len(head), len(data)))
        self._put(head)
        self._put(data)

    def _put(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)


@dataclass(frozen=True, slots=True)
class Journal:
    """A journal as it was found, whole and every record of it well formed."""

    file: BinaryIO
    """Where it is read from, again and again."""
    where: str
    """What to call it in messages."""
    key: Key | None
    """This user's key for it; None if this user did not write it, or it was changed since."""

    def records(self) -> Iterator[Record]:
        """The records, in the order in which the files are changed."""
        for number, (fields, data, _) in enumerate(_entries(self.file, self.where)):
            if number and "end" not in fields:
                yield _record(fields, data, self.where)


def read_journal(file: BinaryIO, where: str) -> Journal:
    """Read a journal once, check every record, and find out whether this user wrote it.

    Raises:
        JournalError: it is damaged.
    """
    identifier = next(_entries(file, where))[0].get("id")
    if not isinstance(identifier, str) or not _ID.fullmatch(identifier):
        raise _damaged(where)
    key = Key.find(identifier)
    found = sha256(_MAGIC)
    count = -1  # the first entry is no record
    for fields, data, raw in _entries(file, where):
        if "end" in fields:
            digest = found.hexdigest()
            if (fields["end"], fields.get("sha256")) != (count, digest):
                break
            ours = key is not None and key.seal(digest) == fields.get("seal")
            return Journal(file, where, key if ours else None)
        found.update(raw)
        count += 1
        if count:
            _record(fields, data, where)
    raise _damaged(where)


def _entries(file: BinaryIO, where: str) -> Iterator[tuple[dict[str, Any], bytes, bytes]]:
    """The fields, data and raw bytes of every entry; the one with "end" is the last."""
    file.seek(0)
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _damaged(where)
    fields: dict[str, Any] = {}
    while "end" not in fields:
        start = file.read(_RECORD.size)
        if len(start) < _RECORD.size:
            raise _damaged(where)
        head_size, data_size = _RECORD.unpack(start)
        if head_size > _MAX_JSON or data_size > _MAX_DATA:
            raise _damaged(where)
        head, data = file.read(head_size), file.read(data_size)
        if len(data) != data_size:
            raise _damaged(where)
        try:
            fields = json.loads(head)
        except (ValueError, RecursionError):
            raise _damaged(where) from None
        if not isinstance(fields, dict):
            raise _damaged(where)
        yield fields, data, start + head + data
    if file.read(1):
        raise _damaged(where)


def _record(fields: Mapping[str, Any], data: bytes, where: str) -> Record:
    name = fields.get("name")
    if not isinstance(name, str) or not is_safe_name(name):
        raise _damaged(where)
    if "offset" in fields:
        return _range(fields, data, where)
    if "ranges" in fields:
        return _resize(fields, data, where)
    new, owner, existed = fields.get("new"), fields.get("owner"), fields.get("existed")
    whole = isinstance(existed, bool) and existed == (owner is not None)
    if owner is not None:
        whole &= isinstance(owner, list) and len(owner) == 3
        whole = whole and all(type(n) is int and 0 <= n < 1 << 32 for n in owner)
    if not whole or not (new is None or isinstance(new, str)):
        raise _damaged(where)
    old = data if existed else None
    return FileRecord(name=name, old=old, new=new, owner=owner and tuple(owner))


def _range(fields: Mapping[str, Any], data: bytes, where: str) -> RangeRecord:
    size, offset, length = (_whole(fields.get(name)) for name in ("size", "offset", "length"))
    if not 0 <= offset < offset + length <= size:
        raise _damaged(where)
    told = length if length <= PAGE else -(-(offset % PAGE + length) // PAGE) * 4
    if len(data) != length + told:
        raise _damaged(where)
    return RangeRecord(
        name=fields["name"], size=size, offset=offset, old=data[:length], new=data[length:]
    )


def _resize(fields: Mapping[str, Any], data: bytes, where: str) -> ResizeRecord:
    size, new_size = (_whole(fields.get(name)) for name in ("size", "new_size"))
    shift, told, position, ranges = fields.get("shift"), fields["ranges"], 0, []
    if type(shift) is not int or min(size, new_size, size + shift) <= 0 or type(told) is not list:
        raise _damaged(where)
    for each in told:
        offset, length = map(_whole, each) if type(each) is list and len(each) == 2 else (-1, -1)
        if not 0 <= offset <= offset + length <= size:
            raise _damaged(where)
        ranges.append((offset, data[position : position + length]))
        position += length
    if position != len(data):
        raise _damaged(where)
    return ResizeRecord(
        name=fields["name"], size=size, shift=shift, new_size=new_size, ranges=tuple(ranges)
    )


def _whole(value: object) -> int:
    return value if type(value) is int else -1


def _damaged(where: str) -> JournalError:
    return JournalError(
        f"{where} is damaged, so the old state cannot be restored from it. Get the checkpoint "
        "again."
    )


def _keys() -> Path:
    return state_directory() / "journals"


def _forget_old(place: Path) -> None:
    """Remove old keys whose journals are gone, deleted with their directories."""
    for entry in place.iterdir():
        with suppress(OSError, ValueError, KeyError, TypeError):
            directory = json.loads(entry.read_bytes())["directory"]
            is_old = time.time() - entry.stat().st_mtime > _KEPT
            if is_old and not os.path.lexists(Path(directory) / JOURNAL_NAME):
                entry.unlink()
