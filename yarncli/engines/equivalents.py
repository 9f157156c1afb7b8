"""Other ways to write a setting that mean the same: what one engine ignores another reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from yarncli.rope.formulas import get_mscale
from yarncli.rope.parameters import RopeParameters


def stated_temperatures(p: RopeParameters, scale: float | None = None) -> Iterator[RopeParameters]:
    """The setting with its attention factor stated in every way some engine reads.

    Args:
        p: yarn or longrope; other types have no temperature and yield themselves.
        scale: what cos and sin are to be multiplied by; by default what transformers 5 applies.
    """
    scale = p.effective_attention_factor() if scale is None else scale
    extra = {k: v for k, v in p.extra.items() if k != "attn_factor"}
    if p.rope_type == "longrope":
        both = {"short_mscale": scale, "long_mscale": scale}
        yield replace(p, attention_factor=scale, extra={**extra, **both})
    elif p.rope_type == "yarn":
        bare = replace(p, attention_factor=scale, mscale=None, mscale_all_dim=None, extra=extra)
        yield bare
        if scale == 1.0:
            yield replace(bare, mscale=1.0, mscale_all_dim=1.0)
        attn_factor = scale / get_mscale(p.resolved_factor())
        yield replace(bare, extra={**extra, "attn_factor": attn_factor})
    else:
        yield p


def stated_together(
    settings: Sequence[RopeParameters], scales: Sequence[float | None]
) -> Iterator[list[RopeParameters]]:
    """Settings of several scopes, all with their attention factors stated in the same way.

    Args:
        settings: one per scope.
        scales: of each; see `stated_temperatures`.
    """
    ways = [list(stated_temperatures(*pair)) for pair in zip(settings, scales, strict=True)]
    for number in range(max(map(len, ways), default=0)):
        yield [way[min(number, len(way) - 1)] for way in ways]
