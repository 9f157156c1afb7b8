"""Which stretches of texts are read, with how much context, to measure perplexity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from yarncli.errors import UsageError
from yarncli.evaluation.texts import Texts

Layout = Literal["nested", "sliding", "by position"]


@dataclass(frozen=True, slots=True)
class Pass:
    """One pass of the model, and the results that it gives."""

    ids: tuple[int, ...]
    """Token ids, the start token included."""
    first: int
    """The position of the last token that is not scored."""
    parts: tuple[tuple[int, int, int], ...]
    """Length, window and number of tokens of each result, in the order of the scored tokens."""


def plan_readings(
    texts: Texts,
    lengths: Sequence[int],
    *,
    most: int,
    sliding: int | None = None,
    by_position: bool = False,
) -> list[Pass]:
    """What has to be read, in order: nested contexts, if nothing else is asked for.

    Args:
        texts: all of them.
        lengths: contexts, tokens, ascending.
        most: tokens of the texts that are read at most.
        sliding: the stride of sliding windows, tokens.
        by_position: whether whole windows are read.

    Raises:
        UsageError: the texts are too short, or a length is too small to score anything.
    """
    if lengths[0] < 4:
        raise UsageError(
            f"--lengths: {lengths[0]} tokens are too few for a context. Give at least 4."
        )
    longest = lengths[-1]
    if sliding is not None:
        if sliding > lengths[0]:
            raise UsageError(
                f"--sliding {sliding}: the stride must not be longer than the shortest "
                f"window, {lengths[0]:,} tokens."
            )
        texts.stretches(longest, 1)  # or they are too short
        return [
            Pass(window.ids, window.first, ((length, number, window.scored),))
            for length in lengths
            for number, window in enumerate(texts.sliding(length, sliding, most))
        ]
    stretches = texts.stretches(longest, max(1, most // longest))
    if by_position:
        return [_whole(ids, number, lengths) for number, ids in enumerate(stretches)]
    # Half of the shortest context is scored, so that every scored token has half of it at least.
    scored = lengths[0] // 2
    start = len(texts.start)
    return [
        Pass(
            (*ids[:start], *ids[len(ids) - (length - start) :]),
            length - 1 - scored,
            ((length, number, scored),),
        )
        for number, ids in enumerate(stretches)
        for length in lengths
    ]


def _whole(ids: tuple[int, ...], number: int, lengths: Sequence[int]) -> Pass:
    """A whole window, whose loss is told by position: up to each length from the one before."""
    ends = [0, *(length - 1 for length in lengths)]
    counts = [end - begin for begin, end in pairwise(ends)]
    parts = zip(lengths, counts, strict=True)
    return Pass(ids, 0, tuple((length, number, count) for length, count in parts))
