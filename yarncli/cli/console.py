"""What the user sees: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shutil
import sys
import textwrap
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TextIO

from yarncli.checkpoint.system import prepare_terminal
from yarncli.cli.bars import DISPLAY, Bar
from yarncli.errors import OutputError
from yarncli.progress import Advance, Progress, stage
from yarncli.progress import format_bytes as format_bytes  # what commands print

SCHEMA_VERSION = 1
"""Of the JSON documents that only the program prints."""

CellValue = str | int | float | None

_LONGEST_MESSAGE = 3000  # characters
_LINE_EVERY = 10.0  # seconds between progress lines where there is no terminal
_STYLES = {"error": "1;31", "warning": "1;33", "note": "1;36", "heading": "1"}


class _Run:
    """The options of this run that concern all output."""

    json = False
    has_document = False
    verbosity = 0


def begin(*, json: bool) -> None:
    """Start a run of the program: nothing is printed yet, and notes are shown.

    Args:
        json: whether stdout is to hold one JSON document, whatever happens.
    """
    _Run.json, _Run.has_document, _Run.verbosity = json, False, 0


def set_verbosity(level: int) -> None:
    """Print less (-1: neither notes nor progress) or more (1) from here on."""
    _Run.verbosity = level


def is_verbose() -> bool:
    """Whether causes of failures are printed, too."""
    return _Run.verbosity > 0


def print_failure(code: int, text: str) -> None:
    """Print the reason of a failure as the JSON document, unless the run has printed another.

    Args:
        code: the exit code of the process.
        text: the message; the sentences after the first one are the hint.
    """
    if not _Run.json or _Run.has_document:
        return
    message, *rest = re.split(r"(?<=[.?!])\s+(?=[A-Z`])", text.strip(), maxsplit=1)
    failure = {"code": code, "message": message, "hint": rest[0] if rest else None}
    print_document({"error": failure})


def print_document(fields: Mapping[str, object]) -> None:
    """Print the JSON document of a command that has no report, with its schema version."""
    print_json({"schema_version": SCHEMA_VERSION, **fields})


def print_json(data: object) -> None:
    """Print `data` as the one JSON document of a `--json` run.

    NaN and infinities, which a config may hold but JSON cannot express, are printed as strings.

    Raises:
        OutputError: stdout cannot be written.
    """
    try:
        text = json.dumps(data, indent=2, allow_nan=False)
    except ValueError:
        text = json.dumps(_sayable(data), indent=2, allow_nan=False)
    _Run.has_document = True
    _write(sys.stdout, text + "\n")


def _sayable(data: object) -> object:
    if isinstance(data, dict):
        return {key: _sayable(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_sayable(value) for value in data]
    return str(data) if isinstance(data, float) and not math.isfinite(data) else data


def print_text(text: str = "") -> None:
    """Print lines of a result; control characters other than line ends and tabs are escaped.

    Raises:
        OutputError: stdout cannot be written.
    """
    _write(sys.stdout, "\n".join(map(_visible_line, text.split("\n"))) + "\n")


def print_heading(text: str) -> None:
    """Print a line that starts a section, bold on a terminal."""
    _write(sys.stdout, _styled(visible(text), "heading", sys.stdout) + "\n")


def print_facts(facts: Mapping[str, CellValue]) -> None:
    """Print names and values in two columns; a long value is wrapped beside its name."""
    _print_columns(
        [[visible(name), format_cell(cell)] for name, cell in facts.items()], frozenset()
    )


def print_table(columns: Sequence[str], rows: Sequence[Sequence[CellValue]]) -> None:
    """Print a table whose last column is wrapped to the terminal; numbers are right-aligned.

    Args:
        columns: the headings.
        rows: cells in the order of `columns`; None is shown as –.

    Raises:
        OutputError: stdout cannot be written.
    """
    numeric = frozenset(
        i
        for i in range(len(columns))
        if rows and all(row[i] is None or not isinstance(row[i], str) for row in rows)
    )
    texts = [[visible(name) for name in columns]]
    texts += [[format_cell(cell) for cell in row] for row in rows]
    _print_columns(texts, numeric, heading=True)


def format_cell(cell: CellValue) -> str:
    """A cell as text: 131,072 for integers, six significant digits for floats, – for None."""
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return f"{cell:,}"
    return f"{cell:.6g}" if isinstance(cell, float) else visible(cell)


def note(message: str) -> None:
    """Print a note on stderr."""
    tell("note", message)


def warn(message: str) -> None:
    """Print a warning on stderr: something that may surprise the user."""
    tell("warning", message)


def error(message: str) -> None:
    """Print on stderr why the command failed; raise a `YarncliError` to end it."""
    tell("error", message)


def visible(text: str) -> str:
    """`text` with control characters escaped, so that file content cannot drive the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class ProgressBars:
    """Shows the stages of long work, one after the other; an instance is a `progress` argument.

    On a terminal the bar of the innermost stage appears once that stage has taken a second;
    elsewhere a line is written every ten seconds. The size of a fetch is printed before it starts,
    because it may be expensive.
    """

    def __init__(self) -> None:
        self._meters: dict[str, _Meter] = {}

    def __call__(self, now: Progress) -> None:
        """Receive the progress of the work, from any thread but one at a time."""
        if _Run.verbosity < 0:
            return
        if now.ended:
            if meter := self._meters.pop(now.stage, None):
                meter.stop()
        elif now.stage in self._meters:
            self._meters[now.stage].update(now.done)
        else:
            if is_verbose():
                note(f"{now.stage}: {_amount(now.total, now.unit)}.")
            elif now.stage == "Fetching" and now.total:
                note(f"Fetching {format_bytes(now.total)} into the Hub cache.")
            self._meters[now.stage] = _Meter(now.total, visible(now.stage), now.unit)


@contextmanager
def working() -> Iterator[None]:
    """Show on a terminal that the program works, if nothing else was shown for a second."""
    if _Run.verbosity < 0 or not _is_terminal(sys.stderr):
        yield
        return
    bar = Bar("Working")
    DISPLAY.begin(bar)
    try:
        yield
    finally:
        DISPLAY.end(bar)


def nothing_shown() -> AbstractContextManager[None]:
    """Hide the bar in the block, because something other than this module writes there."""
    return DISPLAY.paused()


def progress(
    total: int, description: str, *, unit: str = "bytes"
) -> AbstractContextManager[Advance]:
    """One stage of work, shown; see `yarncli.progress.stage`."""
    return stage(ProgressBars(), description, total, unit=unit)


def discard_output() -> None:
    """Send the rest of stdout nowhere, so that the interpreter does not fail on its last flush."""
    try:
        descriptor = sys.stdout.fileno()
    except (OSError, ValueError):  # a stream of a test or of an embedding program
        return
    os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def prepare_output() -> None:
    """Escape what stdout's encoding lacks instead of failing in the middle of a result."""
    prepare_terminal()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


class _Meter:
    """The display of one stage."""

    def __init__(self, total: int, description: str, unit: str) -> None:
        self._bar = Bar(description, total=total, unit=unit)
        self._last_line = self._bar.started
        self._on_terminal = _is_terminal(sys.stderr)
        if self._on_terminal:
            DISPLAY.begin(self._bar)

    def update(self, done: int) -> None:
        self._bar.done = done
        now = time.monotonic()
        if self._on_terminal:
            DISPLAY.update(self._bar)
        elif now - self._last_line >= _LINE_EVERY:
            self._last_line = now
            self._write_line(now - self._bar.started)

    def stop(self) -> None:
        if self._on_terminal:
            DISPLAY.end(self._bar)

    def _write_line(self, elapsed: float) -> None:
        done, total, unit = self._bar.done, self._bar.total, self._bar.unit
        rate = done / elapsed
        if unit == "bytes":
            amount = f"{format_bytes(done)} of {format_bytes(total)}, {format_bytes(rate)}/s"
        else:
            amount = f"{done:,} of {total:,} {unit}"
        left = max(total - done, 0) / rate if rate else 0.0
        _write(sys.stderr, f"{self._bar.description}: {amount}, {left:.0f} s left\n")


def _amount(count: int, unit: str) -> str:
    if not count:
        return "begun"
    return format_bytes(count) if unit == "bytes" else f"{count:,} {unit}"


def _print_columns(
    rows: Sequence[Sequence[str]], numeric: frozenset[int], *, heading: bool = False
) -> None:
    if not rows:
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    indent = sum(widths[:-1]) + 2 * (len(widths) - 1)
    # Without a terminal nothing is wrapped: the reader is a program or a file.
    limit = _columns()
    room = None if limit is None else max(limit - indent, 20)
    lines = []
    for number, row in enumerate(rows):
        cells = [
            text.rjust(width) if i in numeric else text.ljust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        last = textwrap.wrap(row[-1], room, break_on_hyphens=False) if room else []
        if len(last) > 1:
            cells[-1] = ("\n" + " " * indent).join(last)
        line = "  ".join(cells).rstrip()
        lines.append(_styled(line, "heading", sys.stdout) if heading and not number else line)
    _write(sys.stdout, "\n".join(lines) + "\n")


def _visible_line(line: str) -> str:
    return "\t".join(map(visible, line.split("\t")))


def _columns() -> int | None:
    """The width of the output: that of the terminal, or COLUMNS, or None for no limit."""
    if _is_terminal(sys.stdout) or os.environ.get("COLUMNS", "").isdecimal():
        return shutil.get_terminal_size().columns
    return None


def tell(kind: str, message: str) -> None:
    """Print an "error", a "warning" or a "note" on stderr; --quiet drops the notes."""
    if kind == "note" and _Run.verbosity < 0:
        return
    # A message stays one line even if a file name or a config value in it has line breaks.
    text = visible(" ".join(message.split("\n")))
    if len(text) > _LONGEST_MESSAGE:  # a file name or value of a megabyte
        text = f"{text[: _LONGEST_MESSAGE - 500]} … {text[-400:]}"
    _write(sys.stderr, f"{_styled(kind + ':', kind, sys.stderr)} {text}\n")


def _styled(text: str, style: str, stream: TextIO | None) -> str:
    forced = os.environ.get("FORCE_COLOR", "") not in ("", "0")
    has_color = forced or (_is_terminal(stream) and os.environ.get("TERM") != "dumb")
    if not has_color or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and stream.isatty()


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed by the caller: `yarncli … >&-`
        return
    try:
        with DISPLAY.paused():
            stream.write(text)
            stream.flush()
    except BrokenPipeError:
        raise
    except OSError as failure:
        if stream is not sys.stdout:
            return
        discard_output()
        raise OutputError(f"Cannot write to standard output: {failure.strerror}.") from failure
