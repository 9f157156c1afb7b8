"""The loss of a model on the tokens of a text, and how two models differ on it.

Logits are computed piece by piece, so that length × vocabulary numbers never exist at once.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from yarncli.config.families.table import FAMILIES
from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation.local.attention import NoFastPath, Track, track_attention
from yarncli.evaluation.local.load import LoadedModel, quiet
from yarncli.evaluation.local.rotary import rope_frozen_at
from yarncli.evaluation.local.score import common_prefix, layer_windows

# Bytes of the logits of one piece in float32, and of those that are compared at a time: on a CPU
# these stay in its cache.
_PIECE = 192 << 20
_COMPARED_ON_CPU, _COMPARED = 2 << 20, 32 << 20
# A text on which a model that no test knows is read in both ways, tokens.
_PROBE = 256


@dataclass(frozen=True, slots=True)
class Divergence:
    """Two models on the same tokens of a text; each list has a number per token."""

    kl: list[float]
    """KL(first ‖ second) of the predictions, nats."""
    agrees: list[bool]
    """Whether the most likely token is the same in both."""
    before: list[float]
    """The first model's loss, −log p of the token that follows, nats."""
    after: list[float]
    """The second model's loss, nats."""


class TextReader:
    """Reads texts with a loaded model.

    A text that fits into one forward call is read as transformers would read it. A longer one goes
    through the model in chunks over a `Track`; where that cannot read the model, it is one call.
    """

    def __init__(self, loaded: LoadedModel, chunk: int) -> None:
        """Prepare to read.

        Args:
            loaded: the model.
            chunk: tokens per forward call.
        """
        self.loaded = loaded
        self.chunk = chunk
        config = loaded.model.config.get_text_config()
        self.vocabulary = int(config.vocab_size)
        self.rows = max(1, min(chunk, _PIECE // (4 * self.vocabulary)))
        self._keeps = "logits_to_keep" in inspect.signature(loaded.model.forward).parameters
        self._windows: list[int | None] | None = None
        self._track: Track | None = None
        family = FAMILIES.get(loaded.model.config.model_type)
        self._is_proven = loaded.device.type == "cpu" and bool(
            family and family.fast_scoring_tested
        )
        try:
            self._windows = layer_windows(config)
        except NoFastPath:
            self._is_proven = True  # there is only one way

    def pieces(
        self, ids: Sequence[int], first: int, *, go_on: bool = False
    ) -> Iterator[torch.Tensor]:
        """Logits of the tokens after position `first`, in pieces of at most `rows` tokens.

        RoPE that depends on the length of the text (dynamic, longrope) is that of `len(ids)`
        tokens (arXiv:2309.00071 §3.3).

        Args:
            ids: the text, token ids; at least two.
            first: the position whose logits are the first given: they predict `ids[first + 1]`.
            go_on: what the last text that was read so begins with, too, is not read again.

        Returns:
            Tensors (tokens, vocabulary) in float32; together `len(ids) - 1 - first` tokens.

        Raises:
            CheckpointError: the logits are not finite.
        """
        if not self._is_proven:
            self._prove(ids)
        scored = len(ids) - 1 - first
        short = len(ids) <= self.chunk + 1 and scored <= self.rows
        if self._windows is None or (short and not go_on):
            found: Iterator[torch.Tensor] = self._whole(ids, first)
        else:
            found = self._in_chunks(ids, first, self._windows, go_on=go_on)
        for piece in found:
            # Both ends are NaN where any number is; `isfinite` takes fifty times as long on a CPU.
            if not all(end.isfinite() for end in torch.aminmax(piece)):
                raise CheckpointError(
                    f"The model's logits are not finite (NaN or infinite) in a text of {len(ids)} "
                    f"tokens in {self.loaded.dtype}. Try --dtype float32 or bfloat16."
                )
            yield piece
            del piece  # here and in what reads pieces: there is no memory for two

    def losses(self, ids: Sequence[int], first: int, *, go_on: bool = False) -> list[float]:
        """−log p of every token after position `first` given all before it, nats.

        Args:
            ids: the text, token ids.
            first: the position of the last token that is not scored.
            go_on: as in `pieces`.

        Raises:
            CheckpointError: as `pieces`.
        """
        found: list[float] = []
        for logits in self.pieces(ids, first, go_on=go_on):
            start = first + 1 + len(found)
            found += _losses(logits, ids[start : start + len(logits)]).tolist()
            del logits
        return found

    def _whole(self, ids: Sequence[int], first: int) -> Iterator[torch.Tensor]:
        keep = len(ids) - 1 - first
        logits = self._forward(None, ids[:-1], 0, keep, len(ids))
        for at in range(0, keep, self.rows):
            yield logits[at : at + self.rows].float()

    def _in_chunks(
        self, ids: Sequence[int], first: int, windows: list[int | None], *, go_on: bool
    ) -> Iterator[torch.Tensor]:
        track = self._track if go_on else None
        self._track = None  # there is never more than one
        if track is None or track.capacity < len(ids):
            track = Track(windows, len(ids))
        start = min(common_prefix(track.tokens, ids), first)
        track.truncate(start)
        while start < first:
            end = min(start + self.chunk, first)
            self._forward(track, ids[start:end], start, 1, len(ids))
            start = end
        while start < len(ids) - 1:
            end = min(start + self.rows, len(ids) - 1)
            yield self._forward(track, ids[start:end], start, end - start, len(ids)).float()
            start = end
        if go_on:
            track.tokens, self._track = list(ids[:-1]), track

    def _forward(
        self, track: Track | None, ids: Sequence[int], start: int, keep: int, length: int
    ) -> torch.Tensor:
        """Logits (keep, vocabulary) of the last `keep` of `ids`, which begin at `start`."""
        extra: dict[str, Any] = {"logits_to_keep": keep} if self._keeps else {}
        given = torch.tensor([list(ids)], device=self.loaded.device)
        model = self.loaded.model
        # Entered for every call: two readers take turns.
        with quiet(), torch.inference_mode(), rope_frozen_at(model, length):
            if track is None:
                logits = model(input_ids=given, use_cache=False, **extra).logits
            else:
                positions = torch.arange(start, start + len(ids), device=given.device)[None]
                track.want(keep)
                with track_attention(model, "split"):
                    logits = model(
                        input_ids=given, position_ids=positions, past_key_values=track,
                        use_cache=True, **extra,
                    ).logits  # fmt: skip
        found: torch.Tensor = logits[0, -keep:]
        return found

    def _prove(self, ids: Sequence[int]) -> None:
        """Read part of a text in both ways; where they differ, only the plain one is taken."""
        self._is_proven = True
        assert self._windows is not None
        ids = ids[:_PROBE]
        tolerance = 1e-3 if self.loaded.dtype == torch.float32 else 5e-2
        plain = torch.cat(list(self._whole(ids, 0)))
        try:
            for _ in range(2):  # the second time goes on from the first half
                read = self._in_chunks(ids, len(ids) // 2, self._windows, go_on=True)
                found = torch.cat(list(read))
        except NoFastPath:
            self._windows = None
            return
        difference = (found - plain[-len(found) :]).abs().max() / plain.abs().max()
        if not float(difference) <= tolerance:
            self._windows = None


def divergence(before: TextReader, after: TextReader, ids: Sequence[int]) -> Divergence:
    """How the predictions of two models differ on every token of a text after its first.

    Args:
        before: reads with the model that is compared with.
        after: reads with the other.
        ids: the text, token ids.

    Raises:
        UsageError: the models have different vocabularies.
        CheckpointError: as `TextReader.pieces`.
    """
    found = Divergence(kl=[], agrees=[], before=[], after=[])
    after.rows = before.rows = min(before.rows, after.rows)
    others = after.pieces(ids, 0)
    for one in before.pieces(ids, 0):
        other = next(others)
        if one.shape != other.shape:
            raise UsageError(
                f"The models predict {one.shape[-1]:,} and {other.shape[-1]:,} different tokens, "
                "so they cannot be compared. Give a base model and a model made from it."
            )
        size = _COMPARED_ON_CPU if one.device.type == "cpu" else _COMPARED
        rows = max(1, size // one[0].nbytes)
        for first, second in zip(one.split(rows), other.split(rows), strict=True):
            start = 1 + len(found.kl)
            _compare(first, second, ids[start : start + len(first)], found)
        del one, other, first, second
    return found


def _compare(one: torch.Tensor, other: torch.Tensor, ids: Sequence[int], into: Divergence) -> None:
    """Add what logits (tokens, vocabulary) of two models say about the tokens `ids`."""
    log_p, log_q = one.log_softmax(-1), other.log_softmax(-1)
    targets = torch.tensor(list(ids), device=one.device)[:, None]
    into.agrees.extend((one.argmax(-1) == other.argmax(-1)).tolist())
    into.before.extend((-log_p.gather(-1, targets)).flatten().tolist())
    into.after.extend((-log_q.gather(-1, targets)).flatten().tolist())
    p = log_p.exp()
    kl = torch.linalg.vecdot(p, log_p.sub_(log_q))
    into.kl.extend(kl.clamp_(min=0).tolist())  # below 0 only by rounding


def _losses(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    targets = torch.tensor(list(ids), device=logits.device)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")
