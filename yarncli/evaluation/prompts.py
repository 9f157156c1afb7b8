"""Passkey prompts of an exact token length, in the wording of the YaRN and Landmark papers.

Builds text and token ids only: needs a tokenizer's two functions, no model and no torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from yarncli.errors import UsageError
from yarncli.evaluation import verdicts
from yarncli.evaluation.sizing import find_size
from yarncli.evaluation.tasks import (
    COMPOSERS,
    PASSKEY,
    WORDS,
    Composer,
    Draft,
    Order,
    repeated,
)

KeyKind = Literal["digits", "words"]

# In a short text, words may by chance stand as often as those that are asked for.
_DRAWS = 16

# Tokens for what is said ahead of an answer that was not begun for the model.
_SENTENCE = 128


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
    """The beginning of the prompt."""
    filler: str = (
        "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."
    )
    """The surrounding text, repeated to the length."""
    needle: str = "The pass key is {key}. Remember it. {key} is the pass key."
    """The sentence that states the key; holds it as `{key}`."""
    question: str = "What is the pass key?"
    """The question after the text."""
    answer_prefix: str = "The pass key is"
    """The beginning of the answer, which the model continues with the key; may be empty."""

    def __post_init__(self) -> None:
        """Refuse a needle without its key and a filler without text."""
        if "{key}" not in self.needle:
            raise UsageError("The needle text has no {key}, the place of the passkey. Add it once.")
        if not self.filler.strip():
            raise UsageError("The filler text is empty. Give a file with at least one sentence.")


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyPrompt:
    """One question to a model; `len(token_ids) + len(answer_ids) == length`."""

    text: str
    """The whole prompt."""
    user_text: str
    """The user's part in a chat, without the beginning of the answer."""
    token_ids: tuple[int, ...]
    """Token ids of the whole prompt, including special tokens."""
    answer_ids: tuple[int, ...]
    """The tokenizer's own continuation of the prompt by the key.

    Empty where it joins the end of the prompt and the start of the key into one token: there is
    none to compare with, and `length` then counts the joined token once.
    """
    key: str
    """What the model has to find; several things are separated by commas."""
    length: int
    """Length of prompt and answer, tokens."""
    depth: float
    """Where the key stands: 0 at the beginning of the text, 1 at its end.

    Of the tasks only the passkey and multikey have one key; for the others it tells prompts apart.
    """
    trial: int
    """Number of the key at this length and depth, from 0."""
    task: str = PASSKEY
    """Name of the task, from `tasks.TASKS`."""
    answers: tuple[str, ...] = ()
    """The parts of the key, if it has several."""
    begun: bool = True
    """Whether the prompt ends with the beginning of the answer."""

    def is_correct(self, response: str) -> bool:
        """Whether `response` has what was asked for; see `verdicts`."""
        if self.answers:
            return verdicts.says_all(response, self.answers)
        return verdicts.is_correct(response, self.key, begun=self.begun)

    def is_decided(self, response: str) -> bool:
        """Whether more text after `response` could no longer change that."""
        if self.answers:
            return verdicts.has_said_all(response, self.answers)
        return verdicts.is_decided(response, self.key, begun=self.begun)

    @property
    def place(self) -> tuple[str, int, float, int]:
        """What tells a prompt from all others of its grid: task, length, depth and trial."""
        return (self.task, self.length, self.depth, self.trial)

    @property
    def max_new_tokens(self) -> int:
        """How many tokens greedy decoding may take: the reference's ten, or more for long keys.

        Several answers may come with words between them; and where the answer was not begun, a
        sentence may come first.
        """
        ahead = 0 if self.begun else _SENTENCE
        if self.answers:
            return ahead + 2 * max(len(self.answer_ids), 6 * len(self.answers)) + 16
        return ahead + max(10, len(self.answer_ids) + 3)


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

    def build(self, length: int, depth: float, trial: int, task: str = PASSKEY) -> PasskeyPrompt:
        """The prompt of one trial; the same arguments and seed always give the same prompt.

        Args:
            length: tokens the model reads: prompt and answer together.
            depth: where the needle stands in the filler, 0 to 1.
            trial: number of the repetition; it changes only the key.
            task: of `tasks.TASKS`.

        Raises:
            UsageError: the length is too short, or cannot be reached with this tokenizer, or the
                tokenizer has no tokens for the key.
        """
        # A string seed is hashed by content, so a cell's key does not depend on the other cells.
        place = f"{length}/{depth:.6f}/{trial}"
        if task != PASSKEY:
            order = Order(
                drawn=random.Random(f"{self.seed}/{task}/{place}"),
                length=length,
                depth=depth,
                filler=self.wording.filler,
            )
            for _ in range(_DRAWS):
                _, draft, whole = self._sized(COMPOSERS[task](order), length, task)
                if draft.clear:
                    return self._prompt(draft, whole, length, depth, trial, task)
            raise UsageError(
                f"A text of {length:,} tokens is too short for a {task} prompt: the words that it "
                "asks for are not more frequent than others. Give longer --lengths."
            )
        drawn = random.Random(f"{self.seed}/{place}")
        key = (
            str(drawn.randint(10_000, 99_999))
            if self.keys == "digits"
            else " ".join(drawn.sample(WORDS, 2))
        )
        return self.compose(key, length, depth, trial)

    def compose(self, key: str, length: int, depth: float, trial: int = 0) -> PasskeyPrompt:
        """As `build`, for a passkey that is given."""
        if length not in self._fill:
            # One count of filler characters per length keeps the text before the needle equal for
            # all keys and nested for growing depths; each prompt then fits its own last bit.
            self._fill[length] = self._sized(self._passkey(key, 0.5, None), length)[0]
        fill = self._fill[length]
        _, draft, whole = self._sized(self._passkey(key, depth, fill), length, start=fill)
        return self._prompt(draft, whole, length, depth, trial)

    def _passkey(self, key: str, depth: float, fill: int | None) -> Composer:
        """The passkey in so many characters of filler.

        Without `fill` both sides of the needle grow together; with it the side before the needle
        stays where `depth` puts it, to a few characters.
        """
        wording = self.wording
        needle = wording.needle.replace("{key}", key)

        def compose(total: int, shift: int) -> Draft:
            before = min(round(depth * (total if fill is None else fill)), total)
            before = before - shift if before >= shift else min(before + shift, total)
            ahead, behind = (repeated(wording.filler, n) for n in (before, total - before))
            user = "\n".join((wording.task, ahead, needle, behind, wording.question))
            return Draft(user=user, prefix=wording.answer_prefix, answers=(key,))

        return compose

    def _prompt(
        self,
        draft: Draft,
        whole: list[int],
        length: int,
        depth: float,
        trial: int,
        task: str = PASSKEY,
    ) -> PasskeyPrompt:
        """The prompt of a draft; `whole` are the token ids of it and its answer."""
        text, key = self._rendered(draft), ", ".join(draft.answers)
        prompt_ids = self.encode(text)
        joined = whole[: len(prompt_ids)] != prompt_ids
        answer_ids = [] if joined else whole[len(prompt_ids) :]
        written = self.decode(whole) if joined else self.decode(answer_ids)
        said = written[-len(key) :] if joined else written.strip()
        if said.lower() != key.lower():
            raise UsageError(
                f"The tokenizer cannot represent the key {key!r}: it gives back {said!r}. Try the "
                "other kind of --keys."
            )
        return PasskeyPrompt(
            text=text, user_text=draft.user,
            token_ids=tuple(prompt_ids), answer_ids=tuple(answer_ids),
            key=key, length=length, depth=depth, trial=trial, task=task,
            answers=draft.answers if len(draft.answers) > 1 else (),
            begun=self.begins and bool(draft.prefix),
        )  # fmt: skip

    def _rendered(self, draft: Draft) -> str:
        if self.render is None:
            return f"{draft.user} {draft.prefix}".rstrip()
        return self.render(draft.user, draft.prefix)

    def _sized(
        self, compose: Composer, length: int, task: str = PASSKEY, start: int = 0
    ) -> tuple[int, Draft, list[int]]:
        """The draft of exactly `length` tokens with its answer.

        Returns:
            Characters of its text, the draft, and the token ids of prompt and answer together.
        """

        def make(total: int, shift: int) -> tuple[tuple[Draft, list[int]], int]:
            draft = compose(total, shift)
            whole = self.encode(f"{self._rendered(draft)} {', '.join(draft.answers)}")
            return (draft, whole), len(whole)

        found = find_size(make, length, start=start, per_token=self._characters_per_token())
        if isinstance(found, tuple):
            return found[0], *found[1]
        if found:
            raise UsageError(
                f"A {task} prompt needs at least {found} tokens with this tokenizer, so {length} "
                "is too short. Give longer --lengths."
            )
        raise UsageError(
            f"No filler text gives a {task} prompt of exactly {length} tokens with this tokenizer. "
            "Try a slightly different length, or another filler text."
        )

    def _characters_per_token(self) -> float:
        if not self._rate:
            filler = self.wording.filler
            tokens = len(self.encode(" ".join([filler] * 4)))
            self._rate = max(1.0, 4 * (len(filler) + 1) / max(1, tokens))
        return self._rate
