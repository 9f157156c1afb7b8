"""The fast path: verdicts of greedy decoding from one teacher-forced pass per prompt.

The model reads prompt and answer at once. Where its most likely token is the answer's at every
position, greedy decoding would have said the same; where it is not, decoding goes on from there
until the verdict is certain. What a prompt shares with the one before is not computed again.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from yarncli.config.families.table import FAMILIES
from yarncli.evaluation.local.attention import (
    AttentionKind,
    NoFastPath,
    SharedKeysLost,
    Track,
    track_attention,
)
from yarncli.evaluation.local.greedy import greedy_text
from yarncli.evaluation.local.load import LoadedModel, quiet
from yarncli.evaluation.local.rotary import is_length_dependent, rope_frozen_at
from yarncli.evaluation.prompts import PasskeyPrompt
from yarncli.evaluation.report import Cell

_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass
class FastScorer:
    """Scores prompts with a loaded model."""

    loaded: LoadedModel
    """The model."""
    decode: Callable[[list[int]], str]
    """Token ids → text, without special tokens."""
    chunk: int = 2048
    """Tokens per forward call while reading."""
    batch_tokens: int = 4096
    """Trials of one depth are read together up to this many tokens."""
    attention: AttentionKind = "split"
    """"split" where the device has it, or "masked"."""
    tokens_forwarded: int = 0
    """Counts the tokens that pass through the model."""
    fallback: str | None = None
    """Why the fast path is not taken; None where it is."""

    def __post_init__(self) -> None:
        """Find what of the model the fast path depends on."""
        model = self.loaded.model
        self._ends = _end_tokens(model)
        self._last_said: list[int] = []
        self._length_dependent = is_length_dependent(model)
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def score(self, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """One cell per prompt, in the order given; best by length, depth ascending, trial.

        Raises:
            CheckpointError: the model's logits are not finite.
        """
        done = 0
        if prompts and self.fallback is None:
            try:
                windows = layer_windows(self.loaded.model.config.get_text_config())
                self._check(prompts[0], windows)
                for cell in self._score_fast(prompts, windows):
                    yield cell
                    done += 1
            except NoFastPath as reason:
                self.fallback = str(reason)
        for prompt in prompts[done:]:
            yield self._plain(prompt)

    def _score_fast(
        self, prompts: Sequence[PasskeyPrompt], windows: list[int | None]
    ) -> Iterator[Cell]:
        room = max(len(p.token_ids) + p.max_new_tokens for p in prompts)
        track = Track(windows, max(room, max(p.length for p in prompts)))
        for (_, length), same_length in groupby(prompts, lambda p: (p.task, p.length)):
            if self._length_dependent:
                track.truncate(0)
            for _, same_depth in groupby(same_length, lambda p: p.depth):
                yield from self._score_depth(track, length, list(same_depth))

    def _score_depth(
        self, track: Track, length: int, prompts: list[PasskeyPrompt]
    ) -> Iterator[Cell]:
        # What all trials share ends at the needle; only the rest is multiplied by the rows.
        shared = common_prefix(*[[*p.token_ids, *p.answer_ids] for p in prompts])
        rows = max(1, self.batch_tokens // max(1, length - shared))
        if not all(prompt.answer_ids for prompt in prompts):
            rows = 1  # without an answer to read, such texts differ in length
        first = 0
        while first < len(prompts):
            batch = prompts[first : first + rows]
            try:
                with (
                    quiet(),
                    torch.inference_mode(),
                    rope_frozen_at(self.loaded.model, length),
                    track_attention(self.loaded.model, self.attention),
                ):
                    cells = self._score_batch(track, batch)
            except SharedKeysLost:
                self.batch_tokens = rows = 1
                track.truncate(0)
                continue
            yield from cells
            first += len(batch)

    def _score_batch(self, track: Track, batch: list[PasskeyPrompt]) -> list[Cell]:
        drafts = [self._draft(prompt, alone=len(batch) == 1) for prompt in batch]
        texts = [[*p.token_ids, *draft] for p, draft in zip(batch, drafts, strict=True)]
        keep = max(map(len, drafts)) + 1
        # The last prompt token must be read even if known: its logits are wanted.
        most = len(texts[0]) - keep
        if len(batch) == 1:
            known = min(common_prefix(track.tokens, texts[0]), most)
            track.truncate(known)
            logits = self._read(track, [texts[0][known:]], keep)
        else:
            shared = min(common_prefix(*texts), most)
            track.truncate(common_prefix(track.tokens, texts[0][:shared]))
            if len(track.tokens) < shared:
                self._read(track, [texts[0][len(track.tokens) : shared]], 1)
            room = max(len(p.token_ids) + p.max_new_tokens for p in batch)
            track.branch(len(batch), max(room, len(texts[0])) - shared)
            logits = self._read(track, [text[shared:] for text in texts], keep)
        self.loaded.require_finite(logits, batch[0].length)
        said = [
            self._said(draft, best[keep - 1 - len(draft) :])
            for draft, best in zip(drafts, logits.argmax(-1).tolist(), strict=True)
        ]
        self._decode_on(track, batch, said)
        if len(batch) > 1:
            track.truncate(shared)
        texts_said = [self.decode(ids) for ids in said]
        cells = [
            Cell.of(prompt, text, prompt.is_correct(text))
            for prompt, text in zip(batch, texts_said, strict=True)
        ]
        self._last_said = [] if cells[-1].correct else said[-1]
        return cells

    def _draft(self, prompt: PasskeyPrompt, *, alone: bool) -> list[int]:
        """What is read after the prompt as a guess of what the model says.

        The key, or where the last prompt's was missed, what was said there: models that miss it
        say the same thing each time. Beside other rows the text keeps its length.
        """
        answer = list(prompt.answer_ids)
        if not self._last_said:
            return answer
        if alone:
            return self._last_said[: prompt.max_new_tokens - 1]
        return [*self._last_said, *answer[len(self._last_said) :]][: len(answer)]

    def _said(self, draft: Sequence[int], best: list[int]) -> list[int]:
        """What a pass over `draft` proves, up to an end of the text; nothing is said behind it."""
        ids = _proven(draft, best)
        end = next((place for place, token in enumerate(ids) if token in self._ends), len(ids))
        return ids[: end + 1]

    def _is_final(self, prompt: PasskeyPrompt, ids: list[int]) -> bool:
        return (
            ids[-1] in self._ends
            or len(ids) >= prompt.max_new_tokens
            or prompt.is_decided(self.decode(ids))
        )

    def _decode_on(self, track: Track, batch: list[PasskeyPrompt], said: list[list[int]]) -> None:
        """Extend each of `said` greedily until its verdict is certain; rows go side by side."""
        open_rows: dict[int, list[int]] = {}
        for row, (prompt, ids) in enumerate(zip(batch, said, strict=True)):
            if not self._is_final(prompt, ids):
                open_rows.setdefault(len(prompt.token_ids) + len(ids), []).append(row)
        # From the back: reading a row writes over what all rows hold from its position on.
        for position, rows in sorted(open_rows.items(), reverse=True):
            self._decode_rows(track, batch, said, rows, position)

    def _decode_rows(
        self,
        track: Track,
        batch: list[PasskeyPrompt],
        said: list[list[int]],
        rows: list[int],
        position: int,
    ) -> None:
        """Decode those `rows` of the batch whose prompt and answer have `position` tokens."""
        while rows:
            room = min(batch[row].max_new_tokens - len(said[row]) for row in rows) - 1
            guesses = {row: self._guess(batch[row], said[row])[:room] for row in rows}
            count = min(map(len, guesses.values()))
            fed = [[0] * (count + 1) for _ in batch]
            for row in rows:
                fed[row] = [said[row][-1], *guesses[row][:count]]
            track.seek(position - 1)
            best = self._read(track, fed, count + 1).argmax(-1).tolist()
            confirmed = min(len(_proven(fed[row][1:], best[row])) for row in rows)
            for row in rows:
                for token in best[row][:confirmed]:
                    said[row].append(token)
                    if self._is_final(batch[row], said[row]):
                        break
            position += confirmed
            rows = [row for row in rows if not self._is_final(batch[row], said[row])]

    def _guess(self, prompt: PasskeyPrompt, said: list[int]) -> list[int]:
        """How the model may go on after `said`: as it did at the last prompt, or with the key."""
        for known in (self._last_said, list(prompt.answer_ids)):
            if known[: len(said)] == said:
                return known[len(said) :]
        return []

    def _read(self, track: Track, rows: list[list[int]], keep: int) -> torch.Tensor:
        """Feed token ids in chunks; logits (rows, keep, vocabulary) of the last `keep`."""
        ids = torch.tensor(rows, device=self.loaded.device)
        total = ids.shape[1]
        start = 0
        while total - start > self.chunk + keep:
            self._forward(track, ids[:, start : start + self.chunk], 1)
            start += self.chunk
        logits = self._forward(track, ids[:, start:], keep)
        if len(rows) == 1 and not track.layers[0].rows:
            track.tokens += rows[0]
        return logits[:, -keep:].float()

    def _forward(self, track: Track, ids: torch.Tensor, keep: int) -> torch.Tensor:
        seen = track.get_seq_length()
        positions = torch.arange(seen, seen + ids.shape[1], device=ids.device)[None]
        self.tokens_forwarded += ids.numel()
        track.want(keep)
        extra: dict[str, Any] = {"logits_to_keep": keep} if self._keeps else {}
        output = self.loaded.model(
            input_ids=ids,
            position_ids=positions.expand(ids.shape[0], -1),
            past_key_values=track,
            use_cache=True,
            **extra,
        )
        logits: torch.Tensor = output.logits
        return logits

    def _plain(self, prompt: PasskeyPrompt) -> Cell:
        """One pass through the model as it is, and decoding on from its own cache."""
        text = greedy_text(self.loaded, prompt, self.decode, until_decided=True)
        return Cell.of(prompt, text, prompt.is_correct(text))

    def _plain_logits(self, prompt: PasskeyPrompt) -> torch.Tensor:
        ids = torch.tensor([[*prompt.token_ids, *prompt.answer_ids]], device=self.loaded.device)
        keep = len(prompt.answer_ids) + 1
        extra: dict[str, Any] = {"logits_to_keep": keep} if self._keeps else {}
        with (
            quiet(),
            torch.inference_mode(),
            rope_frozen_at(self.loaded.model, prompt.length),
        ):
            logits = self.loaded.model(input_ids=ids, use_cache=False, **extra).logits
        self.loaded.require_finite(logits[:, -keep:], prompt.length)
        return logits[:, -keep:].float()

    def _check(self, prompt: PasskeyPrompt, windows: list[int | None]) -> None:
        """Where the tests do not reach, the fast path must equal the plain one on this prompt.

        The tests run the architectures they know on a CPU.

        Raises:
            NoFastPath: it does not.
        """
        family = FAMILIES.get(self.loaded.model.config.model_type)
        if family and family.fast_scoring_tested and self.loaded.device.type == "cpu":
            return
        tolerance = 1e-3 if self.loaded.dtype == torch.float32 else 5e-2
        if self.difference_from_plain(prompt, windows) > tolerance:
            raise NoFastPath("its logits would differ from those of a plain forward")

    def difference_from_plain(
        self, prompt: PasskeyPrompt, windows: list[int | None] | None = None
    ) -> float:
        """The largest difference of the answer's logits from one uncached forward of the model.

        In units of the largest logit. Every way of reading is tried: in two pieces, rewound, and
        as two branches.

        Raises:
            NoFastPath: the fast path cannot read this model at all.
        """
        if windows is None:
            windows = layer_windows(self.loaded.model.config.get_text_config())
        plain = self._plain_logits(prompt)
        keep = plain.shape[1]
        text = [*prompt.token_ids, *prompt.answer_ids]
        half = len(text) // 2
        track = Track(windows, len(text))
        with (
            quiet(),
            torch.inference_mode(),
            rope_frozen_at(self.loaded.model, prompt.length),
            track_attention(self.loaded.model, self.attention),
        ):
            self._read(track, [text[:half]], 1)
            found = [self._read(track, [text[half:]], keep)]
            track.truncate(half)
            try:
                track.branch(2, len(text) - half)
                found.append(self._read(track, [text[half:]] * 2, keep))
            except SharedKeysLost:
                self.batch_tokens = 1
        worst = max(float((logits - plain).abs().max()) for logits in found)
        return worst / float(plain.abs().max())


def layer_windows(config: Any) -> list[int | None]:
    """The sliding window of every layer, None for full attention.

    Raises:
        NoFastPath: some layers keep another state than keys and values.
    """
    layers = int(config.num_hidden_layers)
    types = getattr(config, "layer_types", None)
    if types is None:
        return [None] * layers
    if not set(types) <= _ATTENTION_LAYERS:
        raise NoFastPath("the model has layers without attention")
    window = getattr(config, "sliding_window", None)
    return [window if kind == "sliding_attention" else None for kind in types]


def _end_tokens(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        return set()
    return set(ends) if isinstance(ends, list) else {int(ends)}


def _proven(fed: Sequence[int], best: list[int]) -> list[int]:
    """The beginning of the greedy text that one pass over `fed` proves.

    `best[i]` follows the first i tokens of `fed`, so it is what greedy decoding says as long as
    all before it agree.
    """
    return best[: common_prefix(best, fed) + 1]


def common_prefix(*texts: Iterable[int]) -> int:
    """How many tokens all texts begin with."""
    count = 0
    for tokens in zip(*texts, strict=False):
        if any(token != tokens[0] for token in tokens):
            break
        count += 1
    return count
