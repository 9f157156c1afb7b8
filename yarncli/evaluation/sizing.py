"""Finding the text that makes a prompt of an exact number of tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

# One prompt costs a few encodes. A tokenizer may skip a length when text grows at its end; then
# what the text is about is moved by a character, a few times.
_TRIES, _SHIFTS = 32, 8

Made = TypeVar("Made")


def find_size(
    make: Callable[[int, int], tuple[Made, int]], length: int, *, start: int, per_token: float
) -> tuple[int, Made] | int:
    """The number of characters for which `make` gives something of `length` tokens.

    A secant search on characters per token, then single characters.

    Args:
        make: `(characters, shift) → (what is made, its tokens)`; another shift makes another one
            of about the same length.
        length: wanted, tokens.
        start: characters to try first; 0 measures everything but the text.
        per_token: characters of the text per token, about.

    Returns:
        The characters and what was made of them; or, where no text at all is too much, the tokens
        of that; or 0 where no number of characters gives the length.
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
            # Far apart points know the true rate; near ones only the noise of single tokens.
            if abs(tried[low] - tried[high]) > 16 and slope > 0:
                per_token = slope
        total, missing = low, tried[low]
    guess = max(0, total + round(missing * per_token))
    step = 0
    while guess in tried:
        step = -step if step > 0 else -step + 1
        if total + step >= 0:
            guess = total + step
    return guess
