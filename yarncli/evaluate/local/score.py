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

from yarncli.errors import CheckpointError
from yarncli.evaluate.local.attention import (
    AttentionKind,
    NoFastPath,
    SharedKeysLost,
    Track,
    track_attention,
)
from yarncli.evaluate.local.greedy import greedy_text
from yarncli.evaluate.local.load import LoadedModel, quiet
from yarncli.evaluate.local.rotary import is_length_dependent, rope_frozen_at
from yarncli.evaluate.prompts import PasskeyPrompt, is_correct, is_decided
from yarncli.evaluate.report import Cell

# Compared with one plain forward by the tests (tests/evaluate/test_score.py); any other
# architecture is compared with one at run time, on the first prompt.
VERIFIED_MODEL_TYPES = frozenset(
    {
        "deepseek_v3",
        "gemma3_text",
        "gpt_neox",
        "llama",
        "llama4_text",
        "mistral",
        "mixtral",
        "olmo2",
        "phi3",
        "qwen2",
        "qwen3",
        "smollm3",
        "stablelm",
    }
)
_ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}


@dataclass
class FastScorer:
    """Scores prompts with a loaded model.

    Args:
        loaded: the model.
        decode: token ids → text, without special tokens.
        chunk: tokens per forward call while reading.
        batch_tokens: trials of one depth are read together up to this many tokens.
        attention: "split" where the device has it, or "masked".
    """

    loaded: LoadedModel
    decode: Callable[[list[int]], str]
    chunk: int = 2048
    batch_tokens: int = 4096
    attention: AttentionKind = "split"
    tokens_forwarded: int = 0
    fallback: str | None = None

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
                windows = _layer_windows(self.loaded.model.config.get_text_config())
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
        for length, same_length in groupby(prompts, lambda p: p.length):
            if self._length_dependent:
                track.truncate(0)
            for _, same_depth in groupby(same_length, lambda p: p.depth):
                yield from self._score_depth(track, length, list(same_depth))

    def _score_depth(
        self, track: Track, length: int, prompts: list[PasskeyPrompt]
    ) -> Iterator[Cell]:
        # What all trials share ends at the needle; only the rest is multiplied by the rows.
        shared = _common_prefix(*[[*p.token_ids, *p.answer_ids] for p in prompts])
        rows = max(1, self.batch_tokens // max(1, length - shared))
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
        texts = [[*p.token_ids, *p.answer_ids] for p in batch]
        keep = max(len(p.answer_ids) for p in batch) + 1
        # The last prompt token must be read even if known: its logits are wanted.
        most = len(texts[0]) - keep
        if len(batch) == 1:
            known = min(_common_prefix(track.tokens, texts[0]), most)
            track.truncate(known)
            logits = self._read(track, [texts[0][known:]], keep)
        else:
            shared = min(_common_prefix(*texts), most)
            track.truncate(_common_prefix(track.tokens, texts[0][:shared]))
            if len(track.tokens) < shared:
                self._read(track, [texts[0][len(track.tokens) : shared]], 1)
            track.branch(len(batch), len(texts[0]) - shared)
            logits = self._read(track, [text[shared:] for text in texts], keep)
        if not bool(torch.isfinite(logits).all()):
            raise CheckpointError(
                f"The model's logits are not finite (NaN or infinite) with a prompt of "
                f"{batch[0].length} tokens in {self.loaded.dtype}. Try --dtype float32 or bfloat16."
            )
        best = logits.argmax(-1).tolist()
        said = [
            self._said(prompt, row[keep - 1 - len(prompt.answer_ids) :])
            for prompt, row in zip(batch, best, strict=True)
        ]
        branched = len(track.tokens) if len(batch) > 1 else None
        cells = []
        for row, (prompt, ids) in enumerate(zip(batch, said, strict=True)):
            if not self._is_final(prompt, ids):
                ids = self._decode_on(track, branched, row, prompt, ids)
            text = self.decode(ids)
            cells.append(Cell.of(prompt, text, is_correct(text, prompt.key)))
        if branched is not None:
            track.truncate(branched)
        return cells

    def _said(self, prompt: PasskeyPrompt, best: list[int]) -> list[int]:
        """The beginning of the greedy answer that the teacher-forced pass proves.

        `best[i]` follows the answer's first i tokens, so it is what greedy decoding says as long
        as all before it agree.
        """
        agreed = _common_prefix(best, prompt.answer_ids)
        return best[: agreed + 1]

    def _is_final(self, prompt: PasskeyPrompt, ids: list[int]) -> bool:
        return (
            ids[-1] in self._ends
            or len(ids) >= prompt.max_new_tokens
            or is_decided(self.decode(ids), prompt.key)
        )

    def _decode_on(
        self, track: Track, branched: int | None, row: int, prompt: PasskeyPrompt, ids: list[int]
    ) -> list[int]:
        """Go on decoding after `ids`, of which the track has read all but the last."""
        read = [*prompt.token_ids, *ids[:-1]]
        if branched is None:
            track.truncate(len(read))
        else:
            track.adopt(row, branched, read)
        ids = list(ids)
        while not self._is_final(prompt, ids):
            # Models that miss the key say the same thing each time: what the last one said is
            # read as a guess in the same pass, and kept as far as decoding confirms it.
            same = self._last_said[: len(ids)] == ids
            guess = self._last_said[len(ids) : prompt.max_new_tokens - 1] if same else []
            best = self._read(track, [[ids[-1], *guess]], len(guess) + 1)[0].argmax(-1).tolist()
            for token in best[: _common_prefix(best, guess) + 1]:
                ids.append(token)
                if self._is_final(prompt, ids):
                    break
            track.rewind(len(prompt.token_ids) + len(ids) - 1)
        self._last_said = ids
        return ids

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
        """One uncached pass through the model as it is; generation where that is no proof."""
        keep = len(prompt.answer_ids) + 1
        best = self._plain_logits(prompt)[0, -keep:].argmax(-1).tolist()
        said = self._said(prompt, best)
        final = self._is_final(prompt, said)
        text = self.decode(said) if final else greedy_text(self.loaded, prompt, self.decode)
        return Cell.of(prompt, text, is_correct(text, prompt.key))

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
        if not bool(torch.isfinite(logits[:, -keep:]).all()):
            raise CheckpointError(
                f"The model's logits are not finite (NaN or infinite) with a prompt of "
                f"{prompt.length} tokens in {self.loaded.dtype}. Try --dtype float32 or bfloat16."
            )
        return logits[:, -keep:].float()

    def _check(self, prompt: PasskeyPrompt, windows: list[int | None]) -> None:
        """For an architecture that the tests do not cover: the fast path must equal the plain one.

        Raises:
            NoFastPath: it does not.
        """
        if self.loaded.model.config.model_type in VERIFIED_MODEL_TYPES:
            return
        tolerance = 1e-3 if self.loaded.dtype == torch.float32 else 5e-2
        if self.difference_from_plain(prompt, windows) > tolerance:
            raise NoFastPath("logits that differ from a plain forward")

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
            windows = _layer_windows(self.loaded.model.config.get_text_config())
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


def _layer_windows(config: Any) -> list[int | None]:
    """The sliding window of every layer, None for full attention.

    Raises:
        NoFastPath: some layers keep another state than keys and values.
    """
    layers = int(config.num_hidden_layers)
    types = getattr(config, "layer_types", None)
    if types is None:
        return [None] * layers
    if not set(types) <= _ATTENTION_LAYERS:
        raise NoFastPath("layers without attention")
    window = getattr(config, "sliding_window", None)
    return [window if kind == "sliding_attention" else None for kind in types]


def _end_tokens(model: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    if ends is None:
        return set()
    return set(ends) if isinstance(ends, list) else {int(ends)}


def _common_prefix(*texts: Iterable[int]) -> int:
    """How many tokens all texts begin with."""
    count = 0
    for tokens in zip(*texts, strict=False):
        if any(token != tokens[0] for token in tokens):
            break
        count += 1
    return count
