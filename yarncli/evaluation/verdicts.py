"""Whether a model's answer is correct, and when more text could not change that."""

from __future__ import annotations

import re
from collections.abc import Sequence


def is_correct(response: str, key: str, *, begun: bool = True) -> bool:
    """The reference's rule: the first run of digits in `response` is the key's number.

    For a key of words: the first words of the response are the key's, whatever the case. Where the
    answer was not begun for the model, a sentence may come first, so the key's words count wherever
    they stand.
    Reference: jquesnelle/yarn eval/passkey.py, `test_model`.
    """
    if key.isdecimal():
        match = re.search(r"\d+", response)
        # int() itself refuses runs of more than 4,300 digits, which no key has.
        return match is not None and len(match.group()) < 1000 and int(match.group()) == int(key)
    wanted = key.lower().split()
    said = _words(response)
    places = 1 if begun else max(1, len(said) - len(wanted) + 1)
    return any(said[place : place + len(wanted)] == wanted for place in range(places))


def is_decided(response: str, key: str, *, begun: bool = True) -> bool:
    """Whether more text after `response` could no longer change `is_correct`.

    Lets a decoder stop early: a first run of digits that has ended, or is not the beginning of
    the key, settles the verdict.
    """
    if key.isdecimal():
        match = re.search(r"\d+", response)
        if match is None:
            return False
        if match.end() < len(response):
            return True
        # Digits of other scripts have a value too; they are left to the end.
        digits = match.group().lstrip("0")
        return digits.isascii() and not key.lstrip("0").startswith(digits)
    open_end = response[-1:].isalpha()
    if not begun:
        ended = response.rpartition(_words(response)[-1])[0] if open_end else response
        return is_correct(ended, key, begun=False)
    wanted = key.lower().split()
    found = _words(response)
    open_word = len(found) - 1 if open_end else None
    for index, (word, said) in enumerate(zip(wanted, found, strict=False)):
        if not (word.startswith(said) if index == open_word else word == said):
            return True
    return len(found) > len(wanted) or (len(found) == len(wanted) and open_word is None)


def says_all(response: str, answers: Sequence[str]) -> bool:
    """Whether each of `answers` is in `response` as a whole word or number, in any order and case.

    Reference: NVIDIA/RULER scripts/eval/synthetic/constants.py, `string_match_all`, which takes
    parts of words, too, and gives a share of a point for some of the answers.
    """
    said = set(re.findall(r"\w+", response.lower()))
    return all(answer.lower() in said for answer in answers)


def has_said_all(response: str, answers: Sequence[str]) -> bool:
    """Whether more text after `response` could no longer change `says_all`."""
    # The last word may be incomplete.
    return says_all(re.sub(r"\w+\Z", "", response), answers)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]+", text.lower())
