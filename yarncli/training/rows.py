"""Cut texts into training rows of exactly one length, and count the texts that are too short."""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import CheckpointError, MissingExtraError, UsageError
from yarncli.extras import require_extra

Form = Literal["binary", "ids", "text"]
_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """The number of texts and rows in a file for one training length."""

    texts: int
    """All texts."""
    long_enough: int
    """Texts that are at least that long."""
    rows: int
    """Rows of exactly that length that these texts give."""
    tokens: int
    """Tokens of all texts."""
    length: int
    """The training length, tokens."""

    def describe(self) -> str:
        """The counts as a sentence."""
        used = self.rows * self.length
        share = used / self.tokens if self.tokens else 0.0
        return (
            f"{self.long_enough:,} of {self.texts:,} texts reach {self.length:,} tokens; they give "
            f"{self.rows:,} rows, {share:.0%} of all {self.tokens:,} tokens."
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


def count(data: Path, converted: str | Path | Checkpoint, length: int) -> Counted:
    """Count the rows that a file of texts gives.

    Args:
        data: JSON lines, or parquet; each row has `text`, `messages` or `input_ids`.
        converted: the checkpoint whose tokenizer counts.
        length: length of the training rows, tokens.

    Raises:
        UsageError: the file cannot be read, or no text reaches the length.
        CheckpointError: there is no tokenizer.json.
        MissingExtraError: tokenizers or pyarrow is not installed.
    """
    texts = long_enough = tokens = rows = 0
    for ids in _texts(data, converted):
        texts += 1
        tokens += len(ids)
        rows += len(ids) // length
        long_enough += len(ids) >= length
    found = Counted(texts=texts, long_enough=long_enough, rows=rows, tokens=tokens, length=length)
    if not rows:
        raise UsageError(
            f"{data}: {found.describe()} A model cannot learn a length that it never sees. "
            "Use longer texts, or give a smaller --train-length."
        )
    return found


def prepare(
    data: str | Path, converted: str | Path | Checkpoint, length: int, out: str | Path,
    form: Form = "binary",
) -> Counted:  # fmt: skip
    """Cut texts into rows of exactly `length` tokens, and write them. The recipes call it.

    Args:
        data: as `count`.
        converted: as `count`.
        length: as `count`.
        out: the file to write.
        form: "binary": unsigned 32-bit numbers, `length` per row; "ids": JSON lines with
            `input_ids`, `attention_mask` and `labels`; "text": JSON lines with `text` and, as one
            answer, `messages`.

    Raises:
        As `count`.
    """
    found = count(Path(data), converted, length)
    decode = _tokenizer(converted).decode if form == "text" else None
    with Path(out).open("wb") as file:
        for ids in _texts(Path(data), converted):
            for start in range(0, len(ids) - length + 1, length):
                row = ids[start : start + length]
                if form == "binary":
                    numbers = array("I", row)
                    if sys.byteorder == "big":
                        numbers.byteswap()
                    file.write(numbers.tobytes())
                    continue
                if decode is None:
                    document: dict[str, Any] = {
                        "input_ids": row, "attention_mask": [1] * length, "labels": row,
                    }  # fmt: skip
                else:
                    text = decode(row)
                    turn = {"role": "assistant", "content": text}
                    document = {"text": text, "messages": [turn]}
                file.write(json.dumps(document).encode() + b"\n")
    return found


def _texts(data: Path, converted: str | Path | Checkpoint) -> Iterator[list[int]]:
    """Every text of a file as token ids."""
    tokenizer = None
    for number, row in enumerate(_entries(data), 1):
        ids = row.get("input_ids")
        if isinstance(ids, list) and all(type(i) is int and 0 <= i < 1 << 32 for i in ids):
            yield ids
            continue
        text = row.get("text")
        if isinstance(row.get("messages"), list):
            turns = [t.get("content") for t in row["messages"] if isinstance(t, dict)]
            text = "\n".join(turn for turn in turns if isinstance(turn, str))
        if not isinstance(text, str):
            raise UsageError(
                f"{data}, row {number}: it has the keys {', '.join(map(str, row))[:80]}, but none "
                "of text, messages and input_ids."
            )
        tokenizer = tokenizer or _tokenizer(converted)
        yield list(tokenizer.encode(text).ids)


def _entries(data: Path) -> Iterator[dict[str, Any]]:
    if data.suffix == ".parquet":
        yield from _parquet(data)
        return
    try:
        with data.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise UsageError(f"{data}, line {number} is not a JSON object.")
                yield row
    except OSError as error:
        raise UsageError(f"{data} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{data} is not JSON with one object per line: {error}.") from error


def _parquet(data: Path) -> Iterator[dict[str, Any]]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            f"{data} needs pyarrow, which is not installed. Install it with: pip install pyarrow"
        ) from error
    try:
        for batch in parquet.ParquetFile(data).iter_batches(batch_size=16):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise UsageError(f"{data} cannot be read as parquet: {str(error).rstrip('.')}.") from error


def _tokenizer(converted: str | Path | Checkpoint) -> Any:
    require_extra("Counting tokens", "tokenizers")
    from tokenizers import Tokenizer

    checkpoint = open_checkpoint(converted)
    data = checkpoint.read_bytes(_TOKENIZER)
    try:
        tokenizer = Tokenizer.from_str(data.decode())
    except Exception as error:  # tokenizers raises nothing narrower
        raise CheckpointError(
            f"{checkpoint.where(_TOKENIZER)} cannot be loaded: {error}."
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
