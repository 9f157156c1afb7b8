"""Means and intervals against textbook numbers and a simulation."""

import math
import random

import pytest

from yarncli.evaluation.statistics import BLOCK, Sums, mean, quantile, student


@pytest.mark.parametrize(
    ("freedom", "expected"),
    # NIST/SEMATECH e-Handbook of Statistical Methods, 1.3.6.7.2 (upper 0.025)
    [(1, 12.706), (2, 4.303), (9, 2.262), (30, 2.042), (31, 2.040), (60, 2.000), (100, 1.984)],
)
def test_students_quantile(freedom, expected):
    assert student(freedom) == pytest.approx(expected, abs=6e-4)


def test_interval_of_equal_blocks_is_the_textbook_one():
    # Ten blocks with the means 1 … 10: mean 5.5, s = 3.02765, t(9) = 2.262, s·t/√10 = 2.1659.
    sums = Sums(tuple(float(BLOCK * n) for n in range(1, 11)), (BLOCK,) * 10)
    found = mean(sums)
    assert (found.value, found.tokens) == (5.5, 640)
    assert found.interval == pytest.approx((5.5 - 2.1659, 5.5 + 2.1659), abs=1e-3)


def test_every_token_counts_once():
    assert mean(Sums((64.0, 10.0), (64, 1))).value == pytest.approx(74 / 65)  # not (1 + 10) / 2
    assert mean(Sums((3.0,), (2,))).interval is None
    with pytest.raises(ValueError, match="no tokens"):
        mean(Sums((), ()))


def test_blocks_are_of_one_run_each():
    sums = Sums.joined([Sums.of([1.0] * 70), Sums.of([2.0] * 3)])
    assert sums == Sums((64.0, 6.0, 6.0), (64, 6, 3))
    with pytest.raises(ValueError, match="different tokens"):
        sums.minus(Sums.of([1.0] * 73))


def test_perplexity_carries_the_interval_over():
    found = mean(Sums((64.0, 128.0, 64.0), (64, 64, 64)))
    ends = found.interval
    assert found.exp.value == pytest.approx(math.exp(4 / 3))
    assert found.exp.interval == (math.exp(ends[0]), math.exp(ends[1]))
    assert mean(Sums((1e6,), (1,))).exp.value == math.inf


def test_intervals_cover_the_truth_although_neighbours_are_alike():
    """Losses that drift: intervals of single tokens would be far too small."""
    rng, hits = random.Random(5), 0
    for _ in range(200):
        level, numbers = 0.0, []
        for _ in range(40 * BLOCK):
            level = 0.9 * level + rng.gauss(0, 1)  # its mean is 0
            numbers.append(level)
        low, high = mean(Sums.of(numbers)).interval
        hits += low <= 0 <= high
    assert 175 <= hits <= 198


def test_quantile_is_numpys():
    numpy = pytest.importorskip("numpy")
    numbers = [random.Random(1).random() for _ in range(37)]
    for share in (0.0, 0.5, 0.99, 1.0):
        assert quantile(numbers, share) == pytest.approx(float(numpy.quantile(numbers, share)))
