"""Results in words, for the commands and the model card."""

from __future__ import annotations

from yarncli.evaluation.statistics import Mean


def price_sentence(ratio: Mean, length: int) -> str:
    """What a ratio of perplexities means: "texts of up to 256 tokens get 14 % worse …".

    Args:
        ratio: perplexity after over perplexity before, with its paired interval.
        length: longest length of the texts, tokens.
    """
    texts = f"texts of up to {length:,} tokens"
    if ratio.value == 1:
        return f"{texts} are predicted exactly as before."
    ends = ratio.interval
    told = "" if ends is None else f" ({_percent(ends[0]):+.1f} to {_percent(ends[1]):+.1f} %)"
    if ends is None or ends[0] <= 1 <= ends[1]:
        return f"{texts} get neither better nor worse beyond chance{told}."
    word = "worse" if ratio.value > 1 else "better"
    return f"{texts} get {abs(_percent(ratio.value)):.1f} % {word} in perplexity{told}."


def _percent(ratio: float) -> float:
    return 100 * (ratio - 1)
