"""Whether more context helps a model: perplexity over nested, sliding or whole windows of texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckFailed, UsageError
from yarncli.evaluation import variants
from yarncli.evaluation.opening import fetched, name_of, open_codec
from yarncli.evaluation.result_file import (
    SCHEMA_VERSION,
    ResultFile,
    read_results,
    refuse_existing,
)
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.statistics import BLOCK, Interval, Mean, Sums, mean
from yarncli.evaluation.subjects import local_directory, used_settings
from yarncli.evaluation.texts import Texts, digest, read_texts
from yarncli.extras import require_extra
from yarncli.options import checked
from yarncli.progress import ProgressCallback, stage

Layout = Literal["nested", "sliding", "by position"]

# Where nothing is said, texts of so many times the longest context are read.
_TIMES = 8


@dataclass(frozen=True, kw_only=True)
class PerplexityOptions(LoadSettings):
    """Which texts are read, with how much context, under which settings of the model.

    How the model is loaded is said by the fields of `LoadSettings`.
    """

    text: Sequence[Path | str] = ()
    """UTF-8 files."""
    lengths: Sequence[int] = ()
    """Contexts, tokens; empty: half the original window, the window and its doublings."""
    sliding: int | None = None
    """Stride of a sliding window, tokens, as in the paper's §4.3.1; None for nested contexts."""
    by_position: bool = False
    """Read whole windows of the longest context, and report the loss by position."""
    tokens: int | None = None
    """Tokens of the texts that are read at most; None for 8 times the longest context."""
    tokenizer: str | None = None
    """Checkpoint or directory to load the tokenizer from, instead of the model's."""
    override: str | None = None
    """A conversion to try without writing it, such as `method=yarn,factor=4`."""
    compare: Sequence[str] = ()
    """Methods, or "none", to try side by side."""
    control: bool = False
    """Also read with the scaling off, as `yarncli.json` records it."""
    control_model: str | None = None
    """Also read with this checkpoint, as it is."""
    out: Path | None = None
    """The JSONL file to which every result is written as it comes."""
    resume: bool = False
    """Go on with the run in `out`."""
    max_perplexity: float | None = None
    """What `PerplexityReport.require_perplexity` allows at every length."""

    @property
    def layout(self) -> Layout:
        """How the texts are read."""
        if self.sliding is not None:
            return "sliding"
        return "by position" if self.by_position else "nested"


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowLoss:
    """The loss of a model on the scored tokens of one window."""

    length: int
    """Of the context, tokens; by position: the end of the stretch of positions."""
    window: int
    """Number of the window in its layout."""
    tokens: int
    """That were scored."""
    nll: tuple[float, ...]
    """Sums of −log p, nats, over blocks of 64 tokens."""

    @property
    def place(self) -> tuple[int, int]:
        """What tells it from all others of its variant: length and window."""
        return (self.length, self.window)

    @property
    def sums(self) -> Sums:
        """The blocks with their numbers of tokens."""
        whole, rest = divmod(self.tokens, BLOCK)
        return Sums(tuple(self.nll), (BLOCK,) * whole + ((rest,) if rest else ()))


@dataclass(frozen=True, slots=True)
class Reading:
    """One pass of the model, and the results that it gives."""

    ids: tuple[int, ...]
    """Token ids, the start token included."""
    first: int
    """The position of the last token that is not scored."""
    parts: tuple[tuple[int, int, int], ...]
    """Length, window and number of tokens of each result, in the order of the scored tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PerplexityResult:
    """The perplexity with one context."""

    length: int
    """Of the context, tokens; by position: the end of the stretch."""
    perplexity: float
    """exp of the mean −log p of the scored tokens, every token counted once."""
    interval: Interval | None
    """Its 95 % interval; None for too few tokens."""
    tokens: int
    """That were scored."""
    gain: float | None = None
    """Nested contexts: nats per token won over the shortest one, on the same tokens."""
    gain_interval: Interval | None = None
    """Its 95 % interval, paired."""
    window_mean_perplexity: float | None = None
    """Sliding windows: exp of the mean over windows, as the paper's script averages."""

    def to_json(self) -> dict[str, Any]:
        """The fields that have a value."""
        found = {name: getattr(self, name) for name in self.__slots__}
        for name in ("interval", "gain_interval"):
            found[name] = found[name] and list(found[name])
        always = ("length", "perplexity", "interval", "tokens")
        return {name: v for name, v in found.items() if name in always or v is not None}


@dataclass(frozen=True)
class PerplexityReport:
    """A whole run: its settings and its losses."""

    settings: Mapping[str, Any]
    """What was read with what, as it is recorded in the result file."""
    losses: Mapping[str, Sequence[WindowLoss]]
    """Of each variant, by its name, the setting in question first."""
    max_perplexity: float | None = None
    """What is allowed at every length; None for anything."""

    def results(self, variant: str | None = None) -> list[PerplexityResult]:
        """The results of one variant, of the setting in question by default, shortest first."""
        found = self.losses[next(iter(self.losses)) if variant is None else variant]
        return summarise(found, self.settings["layout"])

    def require_perplexity(self) -> None:
        """The gate of `--max-perplexity`.

        Raises:
            CheckFailed: it is above at a length of the setting in question.
        """
        if self.max_perplexity is None:
            return
        # Not `>`: a perplexity that is no number is above every limit.
        above = [r for r in self.results() if not r.perplexity <= self.max_perplexity]
        if above:
            named = ", ".join(f"{r.perplexity:.4g} at {r.length:,}" for r in above)
            raise CheckFailed(f"Perplexity is above {self.max_perplexity:g}: {named}.")

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`; `results` are those of the setting in question."""
        first, *others = self.losses
        return {
            "schema_version": SCHEMA_VERSION,
            "results": [result.to_json() for result in self.results(first)],
            "settings": dict(self.settings),
            "variants": {
                name: {"results": [result.to_json() for result in self.results(name)]}
                for name in others
            },
        }


def evaluate_perplexity(
    model: str | Path | Checkpoint,
    options: PerplexityOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    begin: Callable[[Sequence[Reading], Sequence[variants.Variant]], None] | None = None,
    **changes: Any,
) -> PerplexityReport:
    """Measure how well a model predicts texts, and whether more context helps it.

    Contexts are nested by default: the same last tokens of a stretch of text are predicted with
    each length of context, so that the differences are those of the context alone.

    Args:
        model: a checkpoint directory, a Hub id, or what `open_checkpoint` returned.
        options: what to read; `PerplexityOptions()` by default.
        progress: told how far the stages are: "Fetching" in bytes, "Reading" (the name of the
            setting, where there are several) in tokens.
        begin: told what each setting is about to read.
        **changes: fields of `options` to replace.

    Raises:
        UsageError: options that contradict each other, or texts that are too short.
        YarncliError: whatever fetching, loading, reading or writing meets; the results that were
            completed are in `out`.

    Example:
        >>> report = evaluate_perplexity("./model", text=["book.txt"])  # doctest: +SKIP
        >>> [(r.length, round(r.perplexity, 2)) for r in report.results()]  # doctest: +SKIP
        [(4096, 12.41), (8192, 11.87), (16384, 11.52)]
    """
    options = checked(options or PerplexityOptions(), changes)
    source = str(model) if isinstance(model, Path) else model
    _refuse_contradictions(options)
    require_extra("perplexity", "torch", "transformers")
    checkpoint = fetched(source, options, progress)
    local_directory(checkpoint)
    chosen = choose(checkpoint, options, progress)
    lengths = sorted(set(options.lengths)) or variants.default_lengths(chosen)
    texts = read_texts(
        options.text, open_codec(options.tokenizer or source, options, False, progress)
    )
    readings = plan_readings(texts, lengths, options)
    recorded = {
        "model": name_of(source),
        "layout": options.layout,
        "lengths": lengths,
        "sliding": options.sliding,
        "tokens": _most(options, lengths),
        "text": {text.name: len(text.token_ids) for text in texts.texts},
        "text_sha256": digest(text.token_ids for text in texts.texts),
        **used_settings(local_directory(checkpoint), options),
        "variants": {variant.name: variant.to_json() for variant in chosen},
    }
    file: ResultFile[WindowLoss] | None = None
    if options.out:
        file = ResultFile(options.out, "perplexity", recorded, read_loss, resume=options.resume)
    with file or nullcontext():
        if begin:
            begin(readings, chosen)
        losses = _read_all(chosen, readings, options, file, progress)
    return PerplexityReport(recorded, losses, options.max_perplexity)


def choose(
    checkpoint: Checkpoint, options: PerplexityOptions, progress: ProgressCallback | None
) -> list[variants.Variant]:
    """The settings to read with, the one in question first. Raises as `choose_variants`."""
    control = options.control_model
    choice = variants.Choice(
        override=variants.parse_override(options.override) if options.override else None,
        methods=options.compare,
        control=options.control,
        control_checkpoint=fetched(control, options, progress) if control else None,
    )
    return variants.choose_variants(checkpoint, choice, max(options.lengths, default=0))


def plan_readings(
    texts: Texts, lengths: Sequence[int], options: PerplexityOptions
) -> list[Reading]:
    """What has to be read, in order.

    Args:
        texts: all of them.
        lengths: contexts, tokens, ascending.
        options: how.

    Raises:
        UsageError: the texts are too short, or a length is too small to score anything.
    """
    if lengths[0] < 4:
        raise UsageError(f"--lengths: {lengths[0]} tokens are no context. Give at least 4.")
    most = _most(options, lengths)
    longest = lengths[-1]
    if options.sliding is not None:
        if options.sliding > lengths[0]:
            raise UsageError(
                f"--sliding {options.sliding}: the stride must not be longer than the shortest "
                f"window, {lengths[0]:,} tokens."
            )
        texts.stretches(longest, 1)  # or they are too short
        return [
            Reading(window.ids, window.first, ((length, number, window.scored),))
            for length in lengths
            for number, window in enumerate(texts.sliding(length, options.sliding, most))
        ]
    stretches = texts.stretches(longest, max(1, most // longest))
    if options.by_position:
        return [_whole(ids, number, lengths) for number, ids in enumerate(stretches)]
    # Half of the shortest context is scored, so that every scored token has half of it at least.
    scored = lengths[0] // 2
    start = len(texts.start)
    return [
        Reading(
            (*ids[:start], *ids[len(ids) - (length - start) :]),
            length - 1 - scored,
            ((length, number, scored),),
        )
        for number, ids in enumerate(stretches)
        for length in lengths
    ]


def _whole(ids: tuple[int, ...], number: int, lengths: Sequence[int]) -> Reading:
    """A whole window, whose loss is told by position: up to each length from the one before."""
    ends = [0, *(length - 1 for length in lengths)]
    counts = [end - begin for begin, end in pairwise(ends)]
    parts = zip(lengths, counts, strict=True)
    return Reading(ids, 0, tuple((length, number, count) for length, count in parts))


def _most(options: PerplexityOptions, lengths: Sequence[int]) -> int:
    return _TIMES * max(lengths) if options.tokens is None else options.tokens


def _refuse_contradictions(options: PerplexityOptions) -> None:
    """Refuse what cannot be done before anything is fetched or loaded."""
    if not options.text:
        raise UsageError("Give --text FILE, a text to read; a book, say, of the model's language.")
    if options.sliding is not None and options.by_position:
        raise UsageError("Give --sliding or --by-position, not both.")
    if options.sliding is not None and options.sliding < 1:
        raise UsageError("--sliding must be at least 1 token.")
    if options.tokens is not None and options.tokens < 1:
        raise UsageError("--tokens must be at least 1.")
    if options.resume and options.out is None:
        raise UsageError("--resume needs --out, the file of the run to go on with.")
    if options.out is not None:
        refuse_existing(options.out, resume=options.resume)
    if options.control and options.control_model:
        raise UsageError("Give --control or --control-model, not both.")


def _read_all(
    chosen: Sequence[variants.Variant],
    readings: Sequence[Reading],
    options: PerplexityOptions,
    file: ResultFile[WindowLoss] | None,
    progress: ProgressCallback | None,
) -> dict[str, list[WindowLoss]]:
    """Read with every variant what it has not read yet; by length and window."""
    from yarncli.evaluation.local.measuring import Readers

    losses: dict[str, list[WindowLoss]] = {}
    readers = Readers(options)
    for variant in chosen:
        found = list(file.done.get(variant.name, ())) if file else []
        done = {loss.place for loss in found}
        left = [r for r in readings if not {part[:2] for part in r.parts} <= done]
        title = variant.name if len(chosen) > 1 else "Reading"
        total = sum(len(reading.ids) for reading in left)
        with stage(progress, title, total, unit="tokens") as advance:
            for reading in left:
                reader = readers.of(variant, len(reading.ids))
                for loss in _losses_of(reading, reader.losses(reading.ids, reading.first)):
                    if loss.place in done:
                        continue
                    if file:
                        file.add(variant.name, loss)
                    found.append(loss)
                advance(len(reading.ids))
        losses[variant.name] = sorted(found, key=lambda loss: loss.place)
    return losses


def _losses_of(reading: Reading, numbers: Sequence[float]) -> Iterator[WindowLoss]:
    begin = 0
    for length, window, count in reading.parts:
        sums = Sums.of(numbers[begin : begin + count])
        yield WindowLoss(length=length, window=window, tokens=count, nll=sums.values)
        begin += count


def summarise(losses: Sequence[WindowLoss], layout: Layout) -> list[PerplexityResult]:
    """Perplexity per length, shortest first; nested contexts are compared with the shortest."""
    by_length: dict[int, list[WindowLoss]] = {}
    for loss in sorted(losses, key=lambda loss: loss.place):
        by_length.setdefault(loss.length, []).append(loss)
    results = []
    shortest = next(iter(by_length.values()), [])
    for length, here in by_length.items():
        found = mean(Sums.joined(loss.sums for loss in here)).exp
        gained = _gain(shortest, here) if layout == "nested" and here is not shortest else None
        results.append(
            PerplexityResult(
                length=length,
                perplexity=found.value,
                interval=found.interval,
                tokens=found.tokens,
                gain=gained.value if gained else None,
                gain_interval=gained.interval if gained else None,
                window_mean_perplexity=_window_mean(here) if layout == "sliding" else None,
            )
        )
    return results


def _gain(short: Sequence[WindowLoss], long: Sequence[WindowLoss]) -> Mean | None:
    """Nats per token won by a longer context, over the windows that were read with both."""
    earlier = {loss.window: loss.sums for loss in short}
    pairs = [(earlier[loss.window], loss.sums) for loss in long if loss.window in earlier]
    if not pairs:
        return None
    return mean(Sums.joined(one.minus(other) for one, other in pairs))


def _window_mean(losses: Sequence[WindowLoss]) -> float:
    return math.exp(sum(sum(loss.nll) / loss.tokens for loss in losses) / len(losses))


def read_perplexity_report(path: Path) -> PerplexityReport:
    """The report of a JSONL file, as far as it got.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
        UsageError: it is one of another command.
    """
    written = read_results(path)
    written.require("perplexity")
    return PerplexityReport(written.settings, written.entries(read_loss))


def read_loss(entry: Mapping[str, Any]) -> WindowLoss:
    """The result of a line of a result file.

    Raises:
        TypeError, ValueError: it is none.
    """
    loss = WindowLoss(**{**entry, "nll": tuple(entry["nll"])})
    if not all(type(value) is int for value in (loss.length, loss.window, loss.tokens)):
        raise TypeError("a loss's field has the wrong type")
    if not all(type(value) is float and math.isfinite(value) for value in loss.nll):
        raise TypeError("a loss is no number")
    if loss.tokens < 1 or len(loss.nll) != -(-loss.tokens // BLOCK) or loss.length < 1:
        raise ValueError("a loss's number is none that a run has")
    return loss
