"""Change a checkpoint where it lies, entirely or not at all, and recover from an interruption.

The steps of a change; whatever ends it, the directory is in one of these states:

1. Everything that can fail is tried: links, permissions, space; new small files are written beside
   the old ones under hidden names. Nothing has changed.
2. The journal is written: the old bytes, and checksums of the new ones.
3. Where weights change, `config.json` becomes `config.json.yarncli-pending`, so that no engine
   loads what follows, and the weights are patched, flushed and read back.
4. The small files get their names, `config.json` last.
5. The pending config and the journal are removed.

After a kill in 2 nothing has changed; in 3 and 4 the next change, or `recover`, puts the old bytes
back; in 5 it finds all bytes new, and finishes (see `recovery`).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from zlib import crc32

from yarncli.checkpoint.backups import backup_numbers, backups_of
from yarncli.checkpoint.directory import (
    JOURNAL_NAME,
    PENDING_NAME,
    Directory,
    hold,
    temporary_name,
)
from yarncli.checkpoint.journal import (
    FileRecord,
    JournalWriter,
    Key,
    RangeRecord,
    Record,
    checksum,
)
from yarncli.checkpoint.output import output_errors, require_space
from yarncli.checkpoint.recovery import (
    clean_up,
    journal_of,
    recover_held,
    recovery_command,
    undo,
)
from yarncli.checkpoint.rewrite import Patch
from yarncli.checkpoint.source import Checkpoint
from yarncli.checkpoint.system import flush, read_exactly, start_flush, write_exactly
from yarncli.errors import CheckpointError, OutputError
from yarncli.progress import Advance
from yarncli.threads import in_order, in_parallel

CONFIG = "config.json"


class LeftoverError(OutputError):
    """The change succeeded, but its journal could not be removed."""


@contextmanager
def changing(path: Path) -> Iterator[Directory]:
    """Lock a directory exclusively, after recovery from an interrupted change of this user.

    Read what you want to change inside the block: before it, another process may change it.

    Raises:
        CheckpointError: another process has locked it, or another user's change was interrupted.
        UsageError: this system or file system has no locks.
        OutputError: the old state cannot be written.
    """
    with hold(path, "exclusive") as directory:
        with output_errors(str(path)):
            recover_held(directory, trust=False)
        yield directory


@contextmanager
def using(source: str | Path | Checkpoint, *, in_place: bool) -> Iterator[Directory | None]:
    """Lock what a command works on: exclusively to change it in place, else shared with readers.

    Args:
        source: as the user gave it; for a file, its directory is locked.
        in_place: whether the command changes it.

    Yields:
        The directory; None where there is nothing to lock, as on the Hub.

    Raises:
        As `changing`.
    """
    path = _folder(source)
    if path is None:
        yield None
    elif in_place:
        with changing(path) as directory:
            yield directory
    else:
        with hold(path, "shared") as directory:
            yield directory


def _folder(source: str | Path | Checkpoint) -> Path | None:
    if isinstance(source, Checkpoint):
        path = source.directory or source.config_path
    else:
        given = os.fspath(source)
        path = Path(given) if given and "\0" not in given else None
    with suppress(OSError):  # a name that is too long: whoever opens it says so
        if path is not None and path.exists():
            return path if path.is_dir() else path.absolute().parent
    return None


def change(
    directory: Directory,
    files: Mapping[str, bytes | None],
    patches: Mapping[str, Sequence[Patch]] | None = None,
    *,
    keep: Collection[str] = (),
    progress: Advance | None = None,
) -> dict[str, str]:
    """Replace small files and patch weights in place: all of it, or nothing.

    Args:
        directory: locked exclusively (see `changing`).
        files: name → new content; None removes the file.
        patches: shard → patches (not overlapping).
        keep: names of files whose old content is kept as `<name>.orig`.
        progress: called with bytes done; their sum is three times the bytes of all patches.

    Returns:
        Name → its backup, of those in `keep` that existed and change.

    Raises:
        CheckpointError: a file must not be changed in place.
        OutputError: the disk is full, a file cannot be written, or does not read back. The old
            state is then restored; if that fails too, the message says how to restore it.
    """
    patches = patches or {}
    with output_errors(str(directory.path)):
        for name in [*files, *patches]:
            directory.refuse_shared(name)
        plan = _plan(directory, files, keep)
        _try_everything(directory, patches)
        if len(plan.changed) == 1 and not patches:
            (name,) = plan.changed
            _put(directory, name, plan.changed[name], plan.like[name])
            directory.sync(name)
        elif plan.changed or patches:
            _Change(directory, plan, patches, progress).run()
        return plan.backups


def _put(directory: Directory, name: str, data: bytes | None, like: os.stat_result | None) -> None:
    if data is None:
        directory.remove(name)
    else:
        directory.replace(name, data, like)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """The small files of a change, backups among them, `config.json` last."""

    changed: dict[str, bytes | None]
    """Name → new content, in the order of writing; None removes the file."""
    old: dict[str, bytes | None]
    """Name → content of before; None where there is no such file."""
    like: dict[str, os.stat_result | None]
    """Name → whose mode and owner the new file takes over."""
    backups: dict[str, str]
    """Name → the file that keeps its old content."""


def _plan(directory: Directory, files: Mapping[str, bytes | None], keep: Collection[str]) -> _Plan:
    old = {name: directory.read(name) for name in files}
    info = {name: directory.info(name) for name in files}
    ordered = sorted(files, key=lambda name: name == CONFIG)
    changed = {name: files[name] for name in ordered if files[name] != old[name]}
    backups: dict[str, str] = {}
    made: dict[str, bytes | None] = {}
    for name in changed:
        data = old[name]
        if name not in keep or data is None:
            continue
        backup, exists = _backup(directory, name, data)
        backups[name] = backup
        if not exists:
            made[backup] = data
            old[backup], info[backup] = None, info[name]
    config = directory.info(CONFIG)
    like = {name: info[name] or config for name in [*made, *changed]}
    return _Plan(changed=made | changed, old=old, like=like, backups=backups)


def _backup(directory: Directory, name: str, data: bytes) -> tuple[str, bool]:
    """The name for a backup of `data`, and whether a backup with this content exists already."""
    for backup in backups_of(directory, name):
        found = directory.info(backup)
        same_size = found and stat.S_ISREG(found.st_mode) and found.st_size == len(data)
        if same_size and directory.read(backup) == data:
            return backup, True
    numbers = backup_numbers(directory, name)
    return (f"{name}.orig.{numbers[-1] + 1}" if numbers else f"{name}.orig"), False


def _try_everything(directory: Directory, patches: Mapping[str, Sequence[Patch]]) -> None:
    """Open every shard for writing, and look for the space of the journal."""
    for name in patches:
        with output_errors(str(directory.path / name)):
            os.close(directory.open(name, os.O_RDWR))
    nbytes = sum(patch.length for each in patches.values() for patch in each)
    require_space(directory.path, nbytes + nbytes // 512 + (1 << 16))


class _Change:
    """One change of a directory, from the journal to its removal."""

    def __init__(
        self,
        directory: Directory,
        plan: _Plan,
        patches: Mapping[str, Sequence[Patch]],
        progress: Advance | None,
    ) -> None:
        self.directory, self.plan, self.patches = directory, plan, patches
        self.progress: Advance = progress or (lambda _: None)
        self.staged: dict[str, str] = {}

    def run(self) -> None:
        directory = self.directory
        key = Key.create(directory.path)
        try:
            self._stage()
            write_journal(directory, key, self._records())
            if self.patches:
                directory.rename(CONFIG, PENDING_NAME)
                directory.sync()
                jobs = [partial(self._patch, name) for name in self.patches]
                in_parallel(jobs, progress=self.progress)
            for name in self.plan.changed:
                if name in self.staged:
                    directory.rename(self.staged.pop(name), name)
                else:
                    directory.remove(name)
            directory.sync(*self.plan.changed)
        except BaseException:
            take_back(directory, key)
            raise
        finish(directory, key)

    def _stage(self) -> None:
        for name, data in self.plan.changed.items():
            if data is not None:
                self.staged[name] = self.directory.stage(name, data, self.plan.like[name])

    def _records(self) -> Iterator[Record]:
        for record in in_order(self._ranges()):
            yield record
            self.progress(len(record.old))
        for name in self.plan.changed:
            yield self._file_record(name)

    def _ranges(self) -> Iterator[Callable[[], RangeRecord]]:
        """For each piece of each patch, a function that makes its record."""
        for name, patches in self.patches.items():
            for patch in patches:
                for offset, length in patch.pieces():
                    yield partial(self._range_record, name, patch, offset, length)

    def _range_record(self, name: str, patch: Patch, offset: int, length: int) -> RangeRecord:
        descriptor = self.directory.open(name)
        try:
            old = read_exactly(descriptor, offset, length)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        return RangeRecord.of(patch.apply(old), name=name, size=size, offset=offset, old=old)

    def _file_record(self, name: str) -> FileRecord:
        old, new, like = self.plan.old[name], self.plan.changed[name], self.plan.like[name]
        owner = None
        if old is not None:
            assert like is not None  # it exists
            owner = (stat.S_IMODE(like.st_mode), like.st_uid, like.st_gid)
        return FileRecord(
            name=name, old=old, new=None if new is None else checksum(new), owner=owner
        )

    def _patch(self, name: str, count: Advance) -> None:
        """Write the patches of one shard, flush them, and read them back."""
        descriptor = self.directory.open(name, os.O_RDWR)
        try:
            written = []
            for patch in self.patches[name]:
                for offset, length in patch.pieces():
                    made = patch.apply(read_exactly(descriptor, offset, length))
                    write_exactly(descriptor, made, offset)
                    written.append((offset, length, crc32(made)))
                    start_flush(descriptor, offset, length)
                    count(length)
            flush(descriptor)
            for offset, length, wanted in written:
                if crc32(read_exactly(descriptor, offset, length)) != wanted:
                    raise OutputError(
                        f"{self.directory.path / name} does not read back what was written at "
                        f"byte {offset}. The disk may be failing."
                    )
                count(length)
        finally:
            os.close(descriptor)


def write_journal(directory: Directory, key: Key, records: Iterable[Record]) -> None:
    """Write the journal under a hidden name and rename it, so that a file of its name is whole."""
    hidden = temporary_name(JOURNAL_NAME, "new")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with os.fdopen(directory.open(hidden, flags, 0o600), "wb") as file:
        writer = JournalWriter(file, key)
        for record in records:
            writer.add(record)
            start_flush(file.fileno(), 0, 0)
        writer.end()
    directory.rename(hidden, JOURNAL_NAME)
    directory.sync()


def finish(directory: Directory, key: Key) -> None:
    """Remove what a completed change leaves.

    Raises:
        LeftoverError: the journal could not be removed.
    """
    try:
        clean_up(directory)
    except BaseException as error:
        raise LeftoverError(
            f"{directory.path} was changed as asked, but the journal of the change could not "
            f"be removed. Remove it with: {recovery_command(directory)}"
        ) from error
    key.forget()


def take_back(directory: Directory, key: Key) -> None:
    """Restore the old state after an error.

    Raises:
        OutputError: that failed, too; says how to restore it.
    """
    try:
        with journal_of(directory) as journal:
            if journal:
                undo(directory, journal)
        with suppress(OSError) if journal is None else nullcontext():  # nothing was changed
            clean_up(directory)
        key.forget()
    except (OSError, CheckpointError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).rstrip(".")
        raise OutputError(
            f"The change of {directory.path} failed, and its old state could not be restored: "
            f"{reason}. Correct this, then run: {recovery_command(directory)}"
        ) from error
