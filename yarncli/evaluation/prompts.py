"""Passkey prompts of an exact token length, in the wording of the YaRN and Landmark papers.

Builds text and token ids only: needs a tokenizer's two functions, no model and no torch.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from yarncli.errors import UsageError
from yarncli.evaluation import verdicts

KeyKind = Literal["digits", "words"]

# One prompt costs a few encodes. A tokenizer may skip a length when text grows at its end; then
# the needle is moved by a character, a few times.
_TRIES, _SHIFTS = 32, 8

# Tokens for what is said ahead of an answer that was not begun for the model.
_SENTENCE = 128

# Two of these make a key of `--keys words`: short and common, so that every tokenizer has them.
_WORDS = re.findall(
    r"\w+",
    "amber apple arrow autumn bamboo basket bridge bronze butter candle canyon castle cherry "
    "circle cloud copper coral cotton desert dragon eagle ember falcon feather forest garden "
    "ginger glacier golden harbor hazel honey island ivory jasmine jungle ladder lemon lily "
    "marble meadow mirror monkey morning mountain ocean olive orange palace pepper planet "
    "purple rabbit ribbon river saddle silver spring summer temple thunder tiger valley "
    "velvet violet window winter",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wording:
    """The five pieces of a prompt; `needle` holds the key as `{key}`.

    The default is the reference's text, word for word.
    Reference: arXiv:2309.00071 §4.3.2; jquesnelle/yarn eval/passkey.py, itself from
    epfml/landmark-attention llama/run_test.py.
    """

    task: str = (
        "There is an important info hidden inside a lot of irrelevant text. Find it and "
        "memorize them. I will quiz you about the important information there."
    )
    """What the prompt begins with."""
    filler: str = (
        "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
    )
    """The surrounding text, repeated to the length."""
    needle: str = "The pass key is {key}. Remember it. {key} is the pass key."
    """The sentence that states the key; holds it as `{key}`."""
    question: str = "What is the pass key?"
    """What the text is followed by."""
    answer_prefix: str = "The pass key is"
    """The beginning of the answer, which the model continues by the key; may be empty."""

    def __post_init__(self) -> None:
        """Refuse a needle without its key and a filler without text."""
        if "{key}" not in self.needle:
            raise UsageError("The needle text has no {key} where the passkey goes. Add it once.")
        if not self.filler.strip():
            raise UsageError("The filler text is empty. Give a file with at least one sentence.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyPrompt:
    """One question to a model; `len(token_ids) + len(answer_ids) == length`."""

    text: str
    """The whole prompt."""
    user_text: str
    """The part that is the user's in a chat, without the beginning of the answer."""
    token_ids: tuple[int, ...]
    """Of the whole prompt, special tokens included."""
    answer_ids: tuple[int, ...]
    """The tokenizer's own continuation of the prompt by the key.

    Empty where it joins the end of the prompt and the start of the key into one token: there is
    none to compare with, and `length` then counts the joined token once.
    """
    key: str
    """What has to be found."""
    length: int
    """Of prompt and answer, in tokens."""
    depth: float
    """Where the key stands: 0 at the beginning of the text, 1 at its end."""
    trial: int
    """Number of the key at this length and depth, from 0."""
    begun: bool = True
    """Whether the prompt ends with the beginning of the answer."""

    def is_correct(self, response: str) -> bool:
        """Whether `response` finds the key; see `verdicts.is_correct`."""
        return verdicts.is_correct(response, self.key, begun=self.begun)

    def is_decided(self, response: str) -> bool:
        """Whether more text after `response` could no longer change that."""
        return verdicts.is_decided(response, self.key, begun=self.begun)

    @property
    def place(self) -> tuple[int, float, int]:
        """What tells a prompt from all others of its grid: length, depth and trial."""
        return (self.length, self.depth, self.trial)

    @property
    def max_new_tokens(self) -> int:
        """How many tokens greedy decoding may take: the reference's ten, or more for long keys.

        Where the answer was not begun, a sentence may come first.
        """
        return max(10, len(self.answer_ids) + 3) + (0 if self.begun else _SENTENCE)


def depths(count: int) -> tuple[float, ...]:
    """`count` needle positions from 0 (right after the task) to 1 (right before the question)."""
    if count < 1:
        raise UsageError(f"--depths must be at least 1, not {count}.")
    if count == 1:
        return (0.5,)
    return tuple(i / (count - 1) for i in range(count))


@dataclass
class PromptBuilder:
    """Builds prompts for one tokenizer."""

    encode: Callable[[str], list[int]]
    """Text → token ids of the whole prompt, special tokens included."""
    decode: Callable[[list[int]], str]
    """Token ids → text."""
    wording: Wording = field(default_factory=Wording)
    """The pieces of the prompt."""
    keys: KeyKind = "digits"
    """"digits" for five digits, "words" for two words."""
    seed: int = 0
    """With length, depth and trial it alone decides a prompt's key."""
    render: Callable[[str, str], str] | None = None
    """`(user text, answer prefix) → prompt text`, for a chat template.

    None joins the two by a space, as in the reference.
    """
    begins: bool = True
    """Whether `render` puts the answer prefix where the model's answer begins."""
    _fill: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _rate: float = field(default=0.0, init=False, repr=False)  # filler characters per token

    def build(self, length: int, depth: float, trial: int) -> PasskeyPrompt:
        """The prompt of one trial; the same arguments and seed always give the same prompt.

        Args:
            length: tokens the model reads: prompt and answer together.
            depth: where the needle stands in the filler, 0 to 1.
            trial: number of the repetition; it changes only the key.

        Raises:
            UsageError: the length is too short, or cannot be reached with this tokenizer, or the
                tokenizer has no tokens for the key.
        """
        # A string seed is hashed by content, so a cell's key does not depend on the other cells.
        drawn = random.Random(f"{self.seed}/{length}/{depth:.6f}/{trial}")
        key = (
            str(drawn.randint(10_000, 99_999))
            if self.keys == "digits"
            else " ".join(drawn.sample(_WORDS, 2))
        )
        return self.compose(key, length, depth, trial)

    def compose(self, key: str, length: int, depth: float, trial: int = 0) -> PasskeyPrompt:
        """As `build`, for a given key."""
        if length not in self._fill:
            # One count of filler characters per length keeps the text before the needle equal for
            # all keys and nested for growing depths; each prompt then fits its own last bit.
            self._fill[length] = sum(self._fit(key, length, 0.5, None)[:2])
        before, after, whole = self._fit(key, length, depth, self._fill[length])
        user = self._user_text(key, before, after)
        text = self._rendered(user)
        prompt_ids = self.encode(text)
        joined = whole[: len(prompt_ids)] != prompt_ids
        answer_ids = [] if joined else whole[len(prompt_ids) :]
        written = self.decode(whole) if joined else self.decode(answer_ids)
        said = written[-len(key) :] if joined else written.strip()
        if said.lower() != key.lower():
            raise UsageError(
                f"The tokenizer cannot write the key {key!r}: it reads it as {said!r}. Try the "
                "other kind of --keys."
            )
        return PasskeyPrompt(
            text=text, user_text=user,
            token_ids=tuple(prompt_ids), answer_ids=tuple(answer_ids),
            key=key, length=length, depth=depth, trial=trial,
            begun=self.begins and bool(self.wording.answer_prefix),
        )  # fmt: skip

    def _user_text(self, key: str, before: int, after: int) -> str:
        wording = self.wording
        filler = " ".join([wording.filler] * (max(before, after) // len(wording.filler) + 1))
        needle = wording.needle.replace("{key}", key)
        return "\n".join((wording.task, filler[:before], needle, filler[:after], wording.question))

    def _rendered(self, user: str) -> str:
        if self.render is None:
            return f"{user} {self.wording.answer_prefix}".rstrip()
        return self.render(user, self.wording.answer_prefix)

    def _fit(
        self, key: str, length: int, depth: float, fill: int | None
    ) -> tuple[int, int, list[int]]:
        """Find how many filler characters stand before and after the needle.

        A secant search on characters per token over whole tokenised prompts, then single
        characters; without `fill` both sides grow together, with it the side before the needle
        stays where `depth` puts it, to a few characters.

        Returns:
            Characters before and after the needle, and the token ids of prompt and key together.
        """
        # Without a guess, the first try measures everything but the filler.
        total = fill if fill is not None else 0
        for shift in range(_SHIFTS):
            tried: dict[int, int] = {}
            while len(tried) < _TRIES:
                before = min(round(depth * (total if fill is None else fill)), total)
                before = before - shift if before >= shift else min(before + shift, total)
                text = self._rendered(self._user_text(key, before, total - before))
                whole = self.encode(f"{text} {key}")
                tried[total] = length - len(whole)
                if tried[total] == 0:
                    return before, total - before, whole
                if total == 0 and tried[total] < 0:
                    raise UsageError(
                        f"A passkey prompt needs at least {len(whole)} tokens with this tokenizer; "
                        f"{length} is too short. Give longer --lengths."
                    )
                total = _next_try(tried, total, self._characters_per_token())
        raise UsageError(
            f"No filler text gives a prompt of exactly {length} tokens with this tokenizer. "
            "Try a length a few tokens away, or another filler text."
        )

    def _characters_per_token(self) -> float:
        if not self._rate:
            filler = self.wording.filler
            tokens = len(self.encode(" ".join([filler] * 4)))
            self._rate = max(1.0, 4 * (len(filler) + 1) / max(1, tokens))
        return self._rate


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
