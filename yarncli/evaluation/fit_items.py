"""The prompts and texts that `fit` reads: some for its search, and others that are held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, product, takewhile

from yarncli.errors import UsageError
from yarncli.evaluation.fit_report import Part
from yarncli.evaluation.passkey import TextCodec
from yarncli.evaluation.prompts import PasskeyPrompt, PromptBuilder, depths
from yarncli.progress import ProgressCallback, stage


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One unit to read: a prompt with its answer, or a piece of text."""

    part: Part
    """Part of the run: search or held-out."""
    what: str
    """"answer" or "text"."""
    number: int
    """As in `Measurement`."""
    ids: tuple[int, ...]
    """Token ids; their number is the length of the measurement."""
    first: int
    """The position of the last token that is not scored."""
    compared: bool = False
    """Whether it is also compared with the unchanged model."""

    @property
    def place(self) -> tuple[str, str, int, int]:
        """The place of its measurement."""
        return (self.part, self.what, self.number, len(self.ids))


def answer_items(
    codec: TextCodec,
    lengths: Sequence[int],
    prompts: int,
    *,
    seed: int,
    progress: ProgressCallback | None = None,
) -> list[Item]:
    """Passkey prompts of both parts, all with different keys.

    Args:
        codec: the tokenizer.
        lengths: lengths of the prompts with their answers, tokens.
        prompts: number of prompts per length and part.
        seed: random seed of the keys.
        progress: called with the progress of "Writing prompts".

    Raises:
        UsageError: as `PromptBuilder.build`.
    """
    builder = PromptBuilder(codec.encode, decode=codec.decode, seed=seed)
    parts: tuple[Part, ...] = ("search", "held-out")
    places = list(product(lengths, enumerate(depths(prompts))))
    found: list[Item] = []
    keys: set[str] = set()
    with stage(progress, "Writing prompts", 2 * len(places), unit="prompts") as advance:
        for part in parts:
            # Depths ascend, so that a prompt shares the text before its needle with the previous
            # prompt.
            for length, (place, depth) in places:
                made = (builder.build(length, depth, trial) for trial in count())
                prompt = next(each for each in made if each.key not in keys)
                keys.add(prompt.key)
                found.append(_answer(codec, part, place, prompt))
                advance(1)
    return found


def _answer(codec: TextCodec, part: Part, place: int, prompt: PasskeyPrompt) -> Item:
    """A prompt with its answer, as the tokenizer writes the two together."""
    whole = codec.encode(f"{prompt.text} {prompt.key}")
    # Some tokenizers join the end of the prompt and the key in one token. It counts as answer.
    pairs = zip(whole, prompt.token_ids, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return Item(part=part, what="answer", number=place, ids=tuple(whole), first=same - 1)


def text_items(texts: Sequence[tuple[int, ...]], original: int) -> list[Item]:
    """The pieces of text to read: the first quarter for the search, the others held out.

    Each is scored within the original window and, with that as context, beyond it.

    Args:
        texts: token ids of the pieces.
        original: the original window, tokens.

    Raises:
        UsageError: there is only one piece.
    """
    if len(texts) < 2:
        raise UsageError(
            f"The texts give one piece of {len(texts[0]):,} tokens, but two are needed: one for "
            "the search and one that is held out. Give a longer --text or shorter --lengths."
        )
    searched = max(1, len(texts) // 4)
    found = []
    for number, ids in enumerate(texts):
        part: Part = "search" if number < searched else "held-out"
        found.append(
            Item(part=part, what="text", number=number, ids=ids[:original], first=0, compared=True)
        )
        if len(ids) > original:
            found.append(Item(part=part, what="text", number=number, ids=ids, first=original - 1))
    return found
