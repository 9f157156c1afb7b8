"""Find the text that gives a prompt of an exact number of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

# One prompt needs a few encodes. While text grows at its end, a tokenizer may skip a length. Then
# the needle is moved by a character, a few times.
_TRIES, _SHIFTS = 32, 8

Made = TypeVar("Made")


def find_size(
    make: Callable[[int, int], tuple[Made, int]], length: int, *, start: int, per_token: float
) -> tuple[int, Made] | int:
    """Find the number of characters for which `make` gives exactly `length` tokens.

    It is a secant search on characters per token, followed by steps of single characters.

    Args:
        make: `(characters, shift) → (result, its tokens)`; another shift gives another result of
            about the same length.
        length: the wanted number of tokens.
        start: characters to try first; 0 measures everything except the text.
        per_token: approximate number of characters per token of the text.

    Returns:
        The characters and the result. If the result is too long even without any text, its number
        of tokens. 0 if no number of characters gives the length.
    """
    total = start
    for shift in range(_SHIFTS):
        tried: dict[int, int] = {}
        while len(tried) < _TRIES:
            made, tokens = make(total, shift)
            tried[total] = length - tokens
            if tried[total] == 0:
                return total, made
            if total == 0 and tried[total] < 0:
                return tokens
            total = _next_try(tried, total, per_token)
    return 0


def _next_try(tried: dict[int, int], total: int, per_token: float) -> int:
    """The next count of filler characters: a secant step, or the nearest one not tried yet."""
    missing = tried[total]
    if len(tried) > 1:
        low, high = sorted(tried, key=lambda count: abs(tried[count]))[:2]
        if tried[low] != tried[high]:
            slope = (high - low) / (tried[low] - tried[high])
            # Only points far apart show the true rate. Near ones show the noise of single tokens.
            if abs(tried[low] - tried[high]) > 16 and slope > 0:
                per_token = slope
        total, missing = low, tried[low]
    # If the guess was tried already, try its neighbours: +1, -1, +2, -2, …
    guess = max(0, total + round(missing * per_token))
    step = 0
    while guess in tried:
        step = -step if step > 0 else -step + 1
        if total + step >= 0:
            guess = total + step
    return guess
