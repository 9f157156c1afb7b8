"""The JSONL file of a run: a line with the settings, then a line for every result.

Every command that measures writes and continues the same file: `check-passkey`, `perplexity`,
`regress` and `fit`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Generic, Literal, Protocol, TypeVar

from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.output import output_errors
from yarncli.errors import CheckpointError, OutputError, UsageError

SCHEMA_VERSION = 1

Kind = Literal["passkey", "perplexity", "regress", "fit"]

_MAX_SIZE = 64 << 20  # bytes of a result file
# Settings that may change when a run is resumed, because they do not change a result.
_FREE_SETTINGS = frozenset({"device", "concurrency"})


class Entry(Protocol):
    """One result: a dataclass of plain data that knows its place in the run."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


E = TypeVar("E", bound=Entry)
Parse = Callable[[Mapping[str, Any]], E]
"""Makes a result from the fields of a line; raises ValueError, TypeError or KeyError."""


class ResultFile(Generic[E]):
    """The file of a run. Each result is written as soon as it is known.

    Use as a context manager. Results of an interrupted run are in `done` when it is resumed. A new
    file that has no result at the end is removed again.
    """

    def __init__(
        self,
        path: Path,
        kind: Kind,
        settings: Mapping[str, Any],
        parse: Parse[E],
        *,
        resume: bool,
    ) -> None:
        """Create the file, or open it again to continue the run.

        Raises:
            UsageError: it exists and `resume` is not set, or it is of a run with other settings.
            CheckpointError: it is not a result file.
            OutputError: it cannot be written.
        """
        self.path = path
        self.done: dict[str, list[E]] = {}
        refuse_existing(path, resume=resume)
        self._is_unused = not path.exists()  # created by this run, and still without a result
        begins = self._is_unused or path.stat().st_size == 0
        if not begins:
            written = read_results(path)
            written.require(kind)
            _refuse_other_settings(path, written.settings, settings)
            self.done = written.entries(parse)
            with output_errors(str(path)):
                os.truncate(path, written.end)  # an incomplete line of an interrupted run
        with output_errors(str(path)):
            # Without a buffer, so that data that cannot be written are not written again on
            # closing.
            self._file: BinaryIO = path.open("ab", buffering=0)
        if begins:
            head = {"schema_version": SCHEMA_VERSION, "kind": kind, "settings": dict(settings)}
            try:
                self._write(head)
            except OutputError:
                self.close()
                raise

    def add(self, variant: str, entry: E) -> None:
        """Append one result; it is in the file when this returns.

        Raises:
            OutputError: the file cannot be written.
        """
        self._write({"variant": variant, **asdict(entry)})
        self._is_unused = False

    def _write(self, document: Mapping[str, Any]) -> None:
        data = json.dumps(document).encode() + b"\n"
        with output_errors(str(self.path)):
            while data:
                data = data[self._file.write(data) :]

    def close(self) -> None:
        """Close the file, and remove it if it is new and without a result."""
        self._file.close()
        if self._is_unused:
            self.path.unlink(missing_ok=True)

    def __enter__(self) -> ResultFile[E]:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def result_file(
    out: Path | None, kind: Kind, settings: Mapping[str, Any], parse: Parse[E], *, resume: bool
) -> ResultFile[E] | None:
    """The file of `--out`, created or opened again; None without `--out`. As `ResultFile`."""
    return None if out is None else ResultFile(out, kind, settings, parse, resume=resume)


class Written:
    """The content of a result file, which may be incomplete."""

    def __init__(self, path: Path, kind: str, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.kind = kind
        self.settings = settings
        self.lines: list[dict[str, Any]] = []
        self.end = 0
        """The size in bytes of its complete lines."""
        self.is_cut = False
        """Whether an incomplete line follows them."""

    def require(self, kind: Kind) -> None:
        """Refuse the file of another command.

        Raises:
            UsageError: it is the file of another command.
        """
        if self.kind != kind:
            raise UsageError(f"{self.path} holds results of {self.kind}, not of {kind}.")

    def entries(self, parse: Parse[E]) -> dict[str, list[E]]:
        """The results of every variant, by its name, in the order of the run.

        Raises:
            CheckpointError: a line does not belong to such a file.
        """
        found: dict[str, list[E]] = {name: [] for name in self.settings.get("variants", {})}
        try:
            for line in self.lines:
                fields = dict(line)
                found.setdefault(str(fields.pop("variant")), []).append(parse(fields))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _no_result_file(self.path) from error
        return found


def refuse_existing(out: Path | None, *, resume: bool) -> None:
    """Refuse to write over a result, before any work is done.

    Args:
        out: the file of `--out`; None for none.
        resume: whether to continue the run.

    Raises:
        UsageError: the file exists and `resume` is not set, there is no file to continue, its name
            is that of another format, or its directory does not exist.
    """
    if out is not None and out.suffix.lower() in (".csv", ".tsv", ".xlsx", ".parquet"):
        raise UsageError(
            f"Results are written as lines of JSON, so that a run can be continued, but {out.name} "
            f"is the name of another format. Give --out {out.with_suffix('.jsonl')}. The "
            "plot command can make a table (.csv) from it afterwards."
        )
    if out is not None and not out.parent.is_dir():
        raise UsageError(f"The directory {out.parent} of {out} does not exist. Create it first.")
    if resume and out is None:
        raise UsageError("--resume needs --out, the file of the run to continue.")
    if out is not None and out.exists() and not resume:
        raise UsageError(
            f"{out} already exists. Continue that run with --resume, or choose another name."
        )


def read_results(path: Path) -> Written:
    """What stands in a result file.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
    """
    data = read_file(path, _MAX_SIZE)
    end = data.rfind(b"\n") + 1
    try:
        lines = [json.loads(line) for line in data[:end].splitlines()]
        head = lines[0]
        settings = head["settings"]
        if "kind" not in head:  # check-passkey's, before there were other commands and tasks
            settings = {"tasks": ["passkey"], **settings}
        written = Written(path, head.get("kind", "passkey"), settings)
        if head["schema_version"] != SCHEMA_VERSION or not isinstance(written.settings, dict):
            raise KeyError("schema_version")
        if not isinstance(written.settings.get("variants", {}), dict):
            raise TypeError("variants")
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _no_result_file(path) from error
    written.lines, written.end, written.is_cut = lines[1:], end, end < len(data)
    return written


def _no_result_file(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a result file of yarncli check-passkey, perplexity, regress or fit (or of "
        "a newer version)."
    )


def _refuse_other_settings(path: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    plain = json.loads(json.dumps(dict(new)))
    for name in sorted({*old, *plain} - _FREE_SETTINGS):
        if old.get(name) != plain.get(name):
            raise UsageError(
                f"{path} was written with other settings ({name}: {_brief(old.get(name))} there, "
                f"{_brief(plain.get(name))} now). Use the same settings, or choose another file."
            )


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "…"
