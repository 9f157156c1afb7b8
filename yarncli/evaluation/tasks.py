"""The tasks of `check-passkey --tasks` beside the passkey: what each hides and asks for.

They are like those of RULER (Hsieh et al., arXiv:2404.06654; NVIDIA/RULER scripts/data/synthetic):
what is asked, and of how many needles, hops and words, is RULER's. The wordings are not, keys have
five digits, the haystack is filler text, and word counts grow with the length.
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

PASSKEY = "passkey"

_NEEDLES = 4  # of the tasks with several; RULER's num_needle_k, _v and _q
_HOPS = 4  # RULER's num_hops
_COMMON, _OFTEN = 10, 10  # RULER's num_cw, and freq_cw / freq_ucw
_FREQUENT = 3
_NOISE = "..."  # RULER's most frequent "word", which does not count

# Short and common words, so that every tokenizer has them.
WORDS = re.findall(
    r"\w+",
    "amber apple arrow autumn bamboo basket bridge bronze butter candle canyon castle cherry "
    "circle cloud copper coral cotton desert dragon eagle ember falcon feather forest garden "
    "ginger glacier golden harbor hazel honey island ivory jasmine jungle ladder lemon lily "
    "marble meadow mirror monkey morning mountain ocean olive orange palace pepper planet "
    "purple rabbit ribbon river saddle silver spring summer temple thunder tiger valley "
    "velvet violet window winter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A question with its text, not yet of the right length."""

    user: str
    """The whole text of the user."""
    prefix: str
    """The beginning of the answer."""
    answers: tuple[str, ...]
    """What has to be said."""
    clear: bool = True
    """Whether the text is long enough for the answers to be the right ones."""


Composer = Callable[[int, int], Draft]
"""`(characters of the text around what is asked for, characters or words to move it by) → Draft`"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a task is to be composed of."""

    drawn: random.Random
    """Decides everything that is left to chance."""
    length: int
    """Tokens of the prompt to come."""
    depth: float
    """Where the needle stands that is asked for, where there is one: 0 to 1."""
    filler: str
    """The text around needles."""


def _multikey(order: Order) -> Composer:
    """Several needles with a name each; one is asked for. RULER: niah_multikey_1."""
    names, numbers = order.drawn.sample(WORDS, _NEEDLES), _numbers(order, _NEEDLES)
    places = [order.depth, *_places(order, _NEEDLES - 1)]
    return _among_filler(
        order, [_code(*each) for each in zip(names, numbers, strict=True)], places,
        question=f"What is the code of the {names[0]}?",
        prefix=f"The code of the {names[0]} is", answers=numbers[:1],
    )  # fmt: skip


def _multivalue(order: Order) -> Composer:
    """Several needles with the same name; all are asked for. RULER: niah_multivalue."""
    (name,), numbers = order.drawn.sample(WORDS, 1), _numbers(order, _NEEDLES)
    return _among_filler(
        order, [f"One code of the {name} is {number}. Remember it." for number in numbers],
        _places(order, _NEEDLES), question=f"What are the {_NEEDLES} codes of the {name}?",
        prefix=f"The {_NEEDLES} codes of the {name} are", answers=numbers,
    )  # fmt: skip


def _multiquery(order: Order) -> Composer:
    """Several needles with a name each; all are asked for. RULER: niah_multiquery."""
    names, numbers = order.drawn.sample(WORDS, _NEEDLES), _numbers(order, _NEEDLES)
    all_names = ", ".join(f"the {name}" for name in names[:-1]) + f" and the {names[-1]}"
    return _among_filler(
        order, [_code(*each) for each in zip(names, numbers, strict=True)],
        _places(order, _NEEDLES), question=f"What are the codes of {all_names}?",
        prefix=f"The codes of {all_names} are", answers=numbers,
    )  # fmt: skip


def _tracking(order: Order) -> Composer:
    """A number is handed on from name to name; all its names are asked for. RULER: vt."""
    drawn = order.drawn
    names: list[str] = []
    while len(names) <= _HOPS:
        # Without vowels, so that no name is a word of the text.
        name = "".join(drawn.choices("BCDFGHJKLMNPQRSTVWXZ", k=3))
        if name not in names:
            names.append(name)
    (number,) = _numbers(order, 1)
    lines = [f"Let {name} be {value}." for value, name in pairwise([number, *names])]
    return _among_filler(
        order, lines, sorted(_places(order, len(lines))),
        question=f"Which {len(names)} names stand for {number}?",
        prefix=f"The {len(names)} names that stand for {number} are", answers=names,
    )  # fmt: skip


def _common_words(order: Order) -> Composer:
    """A list of words, ten of which stand more often; those are asked for. RULER: cwe."""
    words = order.drawn.sample(WORDS, len(WORDS))
    weights = {w: _OFTEN if i < _COMMON else 1 for i, w in enumerate(words)}
    return _among_words(
        order, weights, words[:_COMMON], task="Below is a list of words. Some stand more often.",
        question=f"What are the {_COMMON} most common words of the list?",
        prefix=f"The {_COMMON} most common words are",
    )  # fmt: skip


def _frequent_words(order: Order) -> Composer:
    """Made-up words with the frequencies of a language; the top three are asked for. RULER: fwe.

    The word of rank k has the share k⁻²/ζ(2) of the text; the first is noise.
    """
    drawn, words = order.drawn, [_NOISE]
    while len(words) < 4 * math.isqrt(order.length) + 8:  # rarer ones than fit into the text
        word = "".join(drawn.choice(letters) for letters in ("bdfgklmnprstvz", "aeiou") * 3)
        if word not in words:
            words.append(word)
    weights = {word: rank**-2.0 for rank, word in enumerate(words, 1)}
    return _among_words(
        order, weights, words[1 : 1 + _FREQUENT],
        task=f"Below is a text in coded words. Track how often each stands, but not {_NOISE}",
        question=f"What are the {_FREQUENT} most frequent coded words?",
        prefix=f"The {_FREQUENT} most frequent coded words are",
    )  # fmt: skip


COMPOSERS: dict[str, Callable[[Order], Composer]] = {
    "multikey": _multikey,
    "multivalue": _multivalue,
    "multiquery": _multiquery,
    "tracking": _tracking,
    "common-words": _common_words,
    "frequent-words": _frequent_words,
}
TASKS = (PASSKEY, *COMPOSERS)


def repeated(filler: str, characters: int) -> str:
    """`characters` of a filler that is said again and again."""
    return " ".join([filler] * (characters // len(filler) + 1))[:characters]


def _numbers(order: Order, count: int) -> list[str]:
    return [str(number) for number in order.drawn.sample(range(10_000, 100_000), count)]


def _places(order: Order, count: int) -> list[float]:
    return [order.drawn.random() for _ in range(count)]


def _code(name: str, number: str) -> str:
    return f"The code of the {name} is {number}. Remember it."


def _among_filler(
    order: Order,
    lines: Sequence[str],
    places: Sequence[float],
    *,
    question: str,
    prefix: str,
    answers: Sequence[str],
) -> Composer:
    """`lines` hidden in filler, each at its place from 0 to 1."""
    task = (
        "Some lines with facts are hidden inside a lot of irrelevant text. Find and remember them. "
        "I will ask about them after the text."
    )
    hidden = sorted(zip(places, lines, strict=True), key=lambda each: each[0])

    def compose(total: int, shift: int) -> Draft:
        cuts = [round(place * total) for place, _ in hidden]
        cuts[0] = cuts[0] - shift if cuts[0] >= shift else min(cuts[0] + shift, *cuts[1:], total)
        pieces = [repeated(order.filler, end - start) for start, end in pairwise([0, *cuts, total])]
        parts = [part for piece, (_, line) in zip(pieces, hidden, strict=False)
                 for part in (piece, line)]  # fmt: skip
        user = "\n".join((task, *parts, pieces[-1], question))
        return Draft(user=user, prefix=prefix, answers=tuple(answers))

    return compose


def _among_words(
    order: Order,
    weights: Mapping[str, float],
    answers: Sequence[str],
    *,
    task: str,
    question: str,
    prefix: str,
) -> Composer:
    """A text in which each word stands as often as its weight says; `answers` are the heaviest."""
    stream = list(_stream(weights, order.length, order.drawn))

    def compose(total: int, shift: int) -> Draft:
        text = " ".join(stream[shift:])[:total]
        counts = Counter(dict.fromkeys(weights, 0))
        counts.update(text.split())
        del counts[_NOISE]
        most_other = max(count for word, count in counts.items() if word not in answers)
        clear = min(counts[word] for word in answers) > most_other
        user = "\n".join((task, text, question))
        return Draft(user=user, prefix=prefix, answers=tuple(answers), clear=clear)

    return compose


def _stream(weights: Mapping[str, float], count: int, drawn: random.Random) -> Iterator[str]:
    """About `count` words; in every beginning each has its share of the places, to one or two.

    Each word comes once in every stretch of as many places as its share is a fraction, at a place
    of the stretch that is drawn. A word is a token at least, so `count` tokens are enough.
    """
    total = sum(weights.values())
    events = [
        ((number + drawn.random()) * total / weight, word)
        for word, weight in weights.items()
        for number in range(math.ceil(count * weight / total))
    ]
    return (word for _, word in sorted(events))
