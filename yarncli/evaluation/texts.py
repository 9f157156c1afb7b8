"""Texts to measure a model on, as token ids, and the windows to read from them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.files import read_file
from yarncli.errors import UsageError
from yarncli.evaluation.passkey import TextCodec

_MAX_SIZE = 256 << 20  # bytes of a text


@dataclass(frozen=True, slots=True)
class Text:
    """A text of which a model predicts every token."""

    name: str
    """Name of its file."""
    token_ids: tuple[int, ...]
    """Its token ids, without the token that starts a text."""


@dataclass(frozen=True, slots=True)
class Window:
    """A piece of a text, as the model reads it."""

    ids: tuple[int, ...]
    """Token ids; the first is the token that starts a text, if the tokenizer has one."""
    first: int
    """The position of the last token that is not scored: those after it are."""

    @property
    def scored(self) -> int:
        """Number of tokens that are scored."""
        return len(self.ids) - 1 - self.first


@dataclass(frozen=True, slots=True)
class Texts:
    """All texts of a run."""

    texts: tuple[Text, ...]
    """The texts in the order given."""
    start: tuple[int, ...] = ()
    """The token that the tokenizer puts before a text, or nothing."""

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(len(text.token_ids) for text in self.texts)

    def record(self) -> dict[str, Any]:
        """The record of the texts. A resumed run must have the same."""
        return {
            "text": {text.name: len(text.token_ids) for text in self.texts},
            "text_sha256": digest(text.token_ids for text in self.texts),
        }

    def stretches(self, length: int, most: int) -> list[tuple[int, ...]]:
        """Stretches of the texts that do not overlap, each of `length` tokens with the start token.

        Args:
            length: tokens, the start token included.
            most: how many at most. They are taken from all texts by turns, each from its start.

        Raises:
            UsageError: no text is that long.
        """
        own = length - len(self.start)
        found = []
        for place in range(max((len(t.token_ids) for t in self.texts), default=0) // max(own, 1)):
            for text in self.texts:
                piece = text.token_ids[place * own : (place + 1) * own]
                if len(piece) == own:
                    found.append((*self.start, *piece))
        if not found:
            longest = max(self.texts, key=lambda text: len(text.token_ids))
            raise UsageError(
                f"The longest text, {longest.name}, has {len(longest.token_ids):,} tokens, but "
                f"{own:,} are needed. Give a longer --text or shorter --lengths."
            )
        return found[:most]

    def sliding(self, length: int, stride: int, most: int) -> list[Window]:
        """The windows of arXiv:2309.00071 §4.3.1 (Press et al. 2022): every token is scored once.

        A window begins every `stride` tokens. The first scores all its tokens, each later one those
        that the window before it did not reach.

        Args:
            length: of a window, tokens, the start token included.
            stride: from the beginning of one window to that of the next, tokens.
            most: tokens of all texts that are read at most.
        """
        windows = []
        own = length - len(self.start)
        for text in self.texts:
            ids = text.token_ids[:most]
            most -= len(ids)
            end = 0
            for begin in range(0, len(ids), stride):
                reached, end = end, min(begin + own, len(ids))
                window = (*self.start, *ids[begin:end])
                first = max(len(window) - 1 - (end - reached), 0)
                if len(window) - 1 > first:
                    windows.append(Window(window, first))
                if end == len(ids):
                    break
        return windows


def read_texts(paths: Sequence[Path | str], codec: TextCodec) -> Texts:
    """The token ids of text files.

    Args:
        paths: UTF-8 files.
        codec: the model's tokenizer.

    Raises:
        UsageError: a file is not UTF-8, or is empty.
        CheckpointError: a file cannot be read.
    """
    start = start_ids(codec)
    texts = []
    for path in map(Path, paths):
        try:
            content = read_file(path, _MAX_SIZE).decode("utf-8")
        except UnicodeDecodeError as error:
            raise UsageError(f"{path} is not UTF-8 text.") from error
        ids = codec.tokenizer.encode(content, add_special_tokens=False)
        if not ids:
            raise UsageError(f"{path} is empty.")
        texts.append(Text(str(path), tuple(ids)))
    return Texts(tuple(texts), start)


def start_ids(codec: TextCodec) -> tuple[int, ...]:
    """The token that the tokenizer puts before every text, as the model was trained; or nothing."""
    first = codec.tokenizer.bos_token_id
    ids = codec.tokenizer.encode("a")
    return (first,) if first is not None and ids and ids[0] == first else ()


def digest(texts: Iterable[Sequence[int]]) -> str:
    """The SHA-256 of token ids, by which a run that is resumed knows its texts."""
    lines = (",".join(map(str, ids)) for ids in texts)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
