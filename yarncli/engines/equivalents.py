"""Other ways to write the same setting, because engines read different keys."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters


def stated_attention_factors(
    p: RopeParameters, attention_factor: float | None = None
) -> Iterator[RopeParameters]:
    """The setting with its attention factor written in each of the ways that some engine reads.

    Args:
        p: yarn or longrope; other types have no attention factor and yield themselves.
        attention_factor: what cos and sin are to be multiplied by; by default what transformers 5
            applies.
    """
    attention_factor = (
        p.effective_attention_factor() if attention_factor is None else attention_factor
    )
    extra = {k: v for k, v in p.extra.items() if k != "attn_factor"}
    if p.rope_type == "longrope":
        both = {"short_mscale": attention_factor, "long_mscale": attention_factor}
        yield replace(p, attention_factor=attention_factor, extra={**extra, **both})
    elif p.rope_type == "yarn":
        bare = replace(
            p, attention_factor=attention_factor, mscale=None, mscale_all_dim=None, extra=extra
        )
        yield bare
        if attention_factor == 1.0:
            yield replace(bare, mscale=1.0, mscale_all_dim=1.0)
        attn_factor = attention_factor / get_mscale(p.resolved_factor())
        yield replace(bare, extra={**extra, "attn_factor": attn_factor})
    else:
        yield p


def stated_together(
    settings: Sequence[RopeParameters], attention_factors: Sequence[float | None]
) -> Iterator[list[RopeParameters]]:
    """Settings of several scopes, all with their attention factors stated in the same way.

    Args:
        settings: one per scope.
        attention_factors: of each; see `stated_attention_factors`.
    """
    ways = [
        list(stated_attention_factors(*pair))
        for pair in zip(settings, attention_factors, strict=True)
    ]
    for number in range(max(map(len, ways), default=0)):
        yield [way[min(number, len(way) - 1)] for way in ways]
