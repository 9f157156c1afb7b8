"""Means of numbers per token of a text, with their 95 % intervals.

Neighbouring tokens are often hard or easy together, so their losses are not independent. They are
summed in blocks of `BLOCK` tokens. Blocks are nearly independent of each other, and the interval is
that of the mean of blocks (the method of batch means).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

BLOCK = 64  # tokens

Interval = tuple[float, float]

# 97.5 % quantiles of Student's t for 1 to 30 degrees of freedom.
_STUDENT = (
    12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281,
    2.2010, 2.1788, 2.1604, 2.1448, 2.1314, 2.1199, 2.1098, 2.1009, 2.0930, 2.0860,
    2.0796, 2.0739, 2.0687, 2.0639, 2.0595, 2.0555, 2.0518, 2.0484, 2.0452, 2.0423,
)  # fmt: skip
_NORMAL = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over blocks of tokens; the last block of a text may be smaller than the others."""

    values: tuple[float, ...]
    """The sum of every block."""
    tokens: tuple[int, ...]
    """The number of tokens in it."""

    @classmethod
    def of(cls, numbers: Sequence[float]) -> Sums:
        """The blocks of consecutive tokens, from the first token on.

        Example:
            >>> Sums.of([0.5] * 65)
            Sums(values=(32.0, 0.5), tokens=(64, 1))
        """
        blocks = [numbers[at : at + BLOCK] for at in range(0, len(numbers), BLOCK)]
        return cls(tuple(map(math.fsum, blocks)), tuple(map(len, blocks)))

    @classmethod
    def in_blocks(cls, values: Sequence[float], tokens: int) -> Sums:
        """The sums of `tokens` consecutive tokens, in blocks as `of` makes them."""
        whole, rest = divmod(tokens, BLOCK)
        return cls(tuple(values), (BLOCK,) * whole + ((rest,) if rest else ()))

    @classmethod
    def joined(cls, parts: Iterable[Sums]) -> Sums:
        """The blocks of several sums, one after the other."""
        parts = list(parts)
        return cls(
            tuple(value for part in parts for value in part.values),
            tuple(count for part in parts for count in part.tokens),
        )

    def minus(self, other: Sums) -> Sums:
        """The sums of the differences from `other`, which has the same tokens in the same blocks.

        Raises:
            ValueError: it has other blocks.
        """
        if self.tokens != other.tokens:
            raise ValueError("blocks of different tokens cannot be compared")
        pairs = zip(self.values, other.values, strict=True)
        return Sums(tuple(a - b for a, b in pairs), self.tokens)


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean per token."""

    value: float
    """The sum of all blocks divided by the number of tokens."""
    interval: Interval | None
    """Its 95 % interval; None for a single block, which gives no interval."""
    tokens: int
    """Number of tokens."""

    @property
    def exp(self) -> Mean:
        """The perplexity of a loss in nats, with its interval."""
        ends = self.interval
        return Mean(_exp(self.value), ends and (_exp(ends[0]), _exp(ends[1])), self.tokens)


def mean(sums: Sums) -> Mean:
    """The mean per token of `sums` and its 95 % interval.

    Every token counts once, so the mean is the ratio of two sums over blocks. The variance is that
    of the ratio estimator (W. G. Cochran, Sampling Techniques, 3rd ed., 1977, eq. 6.12).

    Raises:
        ValueError: there are no tokens.

    Example:
        >>> mean(Sums((64.0, 128.0), (64, 64))).value
        1.5
    """
    total, blocks = sum(sums.tokens), len(sums.tokens)
    if not total:
        raise ValueError("no tokens")
    value = math.fsum(sums.values) / total
    if blocks < 2:
        return Mean(value, None, total)
    squares = [(v - value * n) ** 2 for v, n in zip(sums.values, sums.tokens, strict=True)]
    half = student(blocks - 1) * math.sqrt(blocks / (blocks - 1) * math.fsum(squares)) / total
    return Mean(value, (value - half, value + half), total)


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t distribution.

    Above 30 degrees of freedom it is computed with the first two terms of its expansion around the
    normal quantile, exact to 1e-5 (Abramowitz and Stegun, 26.7.5).
    """
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = _NORMAL
    first = (z**3 + z) / (4 * freedom)
    return z + first + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def quantile(numbers: Sequence[float], share: float) -> float:
    """The value below which `share` of the numbers lie, interpolated between two numbers.

    The same as numpy's default ("linear").

    Example:
        >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5)
        2.5
    """
    ordered = sorted(numbers)
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf
