"""What `fit` reads: prompts and texts for its search, and others that are held out."""

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
    """What is read at once: a prompt with its answer, or a stretch of text."""

    part: Part
    """Of the run."""
    what: str
    """"answer" or "text"."""
    number: int
    """As in `Measurement`."""
    ids: tuple[int, ...]
    """Token ids; as many as the measurement's length."""
    first: int
    """The position of the last token that is not scored."""
    compared: bool = False
    """Whether it is also held against the model as it is."""

    @property
    def place(self) -> tuple[str, str, int, int]:
        """That of its measurement."""
        return (self.part, self.what, self.number, len(self.ids))


def answer_items(
    codec: TextCodec,
    lengths: Sequence[int],
    prompts: int,
    *,
    seed: int,
    progress: ProgressCallback | None = None,
) -> list[Item]:
    """Passkey prompts of both parts; no key is asked for twice.

    Args:
        codec: the tokenizer.
        lengths: of the prompts with their answers, tokens.
        prompts: of each length in each part.
        seed: decides the keys.
        progress: told how far "Writing prompts" is.

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
            # Depths ascend, so that a prompt shares all before its needle with the one before it.
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
    # Some tokenizers join the end of the prompt and the key into one token: it is the answer's.
    pairs = zip(whole, prompt.token_ids, strict=False)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    return Item(part=part, what="answer", number=place, ids=tuple(whole), first=same - 1)


def text_items(texts: Sequence[tuple[int, ...]], original: int) -> list[Item]:
    """What is read of the texts: the first quarter for the search, the others held out.

    Each is read up to the original window, and, given all of that, behind it.

    Args:
        texts: stretches, token ids.
        original: the original window, tokens.

    Raises:
        UsageError: there is only one.
    """
    if len(texts) < 2:
        raise UsageError(
            f"The texts have one stretch of {len(texts[0]):,} tokens, but two are needed: one to "
            "search on and one that is held out. Give a longer --text or shorter --lengths."
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
