"""Whether more context helps a model: perplexity over nested, sliding or whole windows of texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import UsageError
from yarncli.evaluation import variants
from yarncli.evaluation.connecting import connect, refuse_server_contradictions
from yarncli.evaluation.losses import PerplexityReport, WindowLoss, read_loss
from yarncli.evaluation.opening import (
    adapter_warning,
    choose_settings,
    fetched,
    name_of,
    open_codec,
)
from yarncli.evaluation.passkey import TextCodec
from yarncli.evaluation.readings import Layout, Pass, plan_readings
from yarncli.evaluation.result_file import ResultFile, refuse_existing, result_file
from yarncli.evaluation.served_losses import ServedReader
from yarncli.evaluation.settings import ServedSettings
from yarncli.evaluation.statistics import Sums
from yarncli.evaluation.subjects import local_directory, used_settings
from yarncli.evaluation.texts import read_texts
from yarncli.extras import require_extra
from yarncli.options import checked
from yarncli.progress import ProgressCallback, stage

# Where nothing is said, texts of so many times the longest context are read.
_TIMES = 8


@dataclass(frozen=True, kw_only=True)
class PerplexityOptions(ServedSettings):
    """Which texts are read, with how much context, under which settings of the model.

    How the model is loaded or reached is said by the fields of `ServedSettings`.
    """

    text: Sequence[Path | str] = ()
    """UTF-8 files."""
    lengths: Sequence[int] = ()
    """Contexts, tokens; empty: half the original window, the window and its doublings."""
    sliding: int | None = None
    """Stride of a sliding window, tokens, as in the paper's §4.3.1; None for nested contexts."""
    by_position: bool = False
    """Read whole windows of the longest context, and report the loss by position."""
    attention_factors: Sequence[float] = ()
    """Attention factors √(1/t) to try side by side with what `override` says, as in the paper's
    A.2; empty for the method's own."""
    tokens: int | None = None
    """The most tokens of the texts to read; None for 8 times the longest context."""
    out: Path | None = None
    """The JSONL file to which every result is written at once."""
    resume: bool = False
    """Continue the run in `out`."""
    max_perplexity: float | None = None
    """The limit of `PerplexityReport.require_perplexity` at every length; None for no limit."""

    @property
    def layout(self) -> Layout:
        """How the texts are read."""
        if self.sliding is not None:
            return "sliding"
        return "by position" if self.by_position else "nested"


def evaluate_perplexity(
    model: str | Path | Checkpoint | None,
    options: PerplexityOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    begin: Callable[[Sequence[Pass], Sequence[variants.Variant]], None] | None = None,
    **changes: Any,
) -> PerplexityReport:
    """Measure how well a model predicts texts, and whether more context helps it.

    Contexts are nested by default: the same last tokens of a stretch of text are predicted with
    each length of context, so that the differences are those of the context alone.

    Args:
        model: a checkpoint directory, a Hub id, or what `open_checkpoint` returned; None only with
            `base_url`.
        options: what to read; `PerplexityOptions()` by default.
        progress: told how far the stages are: "Fetching" in bytes, "Reading" (the name of the
            setting, where there are several) in tokens.
        begin: told what each setting is about to read.
        **changes: fields of `options` to replace.

    Raises:
        YarncliError: options that contradict each other, texts that are too short, or whatever
            fetching, loading, reading or writing meets; the results so far are in `out`.

    Example:
        >>> report = evaluate_perplexity("./model", text=["book.txt"])  # doctest: +SKIP
        >>> [(r.length, round(r.perplexity, 2)) for r in report.results()]  # doctest: +SKIP
        [(4096, 12.41), (8192, 11.87), (16384, 11.52)]
    """
    options = checked(options or PerplexityOptions(), changes)
    source = str(model) if isinstance(model, Path) else model
    _refuse_contradictions(source, options)
    subject = (
        _served(source, options, progress)
        if options.base_url
        else _local(source, options, progress)
    )
    lengths = _lengths(options, subject.settings)
    texts = read_texts(options.text, subject.codec)
    most = _TIMES * lengths[-1] if options.tokens is None else options.tokens
    readings = plan_readings(
        texts, lengths, most=most, sliding=options.sliding, by_position=options.by_position
    )
    recorded = {
        "model": subject.name, "layout": options.layout, "lengths": lengths,
        "sliding": options.sliding, "tokens": most, **_factors(options),
        **texts.record(), **subject.record,
        "variants": {variant.name: variant.to_json() for variant in subject.settings},
    }  # fmt: skip
    file = result_file(options.out, "perplexity", recorded, read_loss, resume=options.resume)
    with file or nullcontext():
        if begin:
            begin(readings, subject.settings)
        losses = _read_all(subject, readings, file=file, progress=progress)
    return PerplexityReport(
        recorded, losses=losses, max_perplexity=options.max_perplexity,
        caveats=(*subject.warnings, *variants.notes_of(subject.settings)),
    )  # fmt: skip


def _factors(options: PerplexityOptions) -> dict[str, Any]:
    """What is recorded of `attention_factors`; older files have no such field."""
    factors = options.attention_factors
    return {"attention_factors": list(factors)} if factors else {}


def _lengths(options: PerplexityOptions, settings: Sequence[variants.Variant]) -> list[int]:
    if options.lengths:
        return sorted(set(options.lengths))
    if not all(variant.original for variant in settings):
        raise UsageError("Give --lengths, because the window of the model is not known.")
    return variants.default_lengths(settings)


@dataclass(frozen=True, kw_only=True)
class _Subject:
    """Who reads: a checkpoint on this machine in its settings, or a model behind a server."""

    name: str
    """Name of the model, as the user gave it."""
    settings: Sequence[variants.Variant]
    """The settings to measure; the setting in question comes first."""
    codec: TextCodec
    """The tokenizer."""
    record: Mapping[str, Any]
    """The record of the subject. A resumed run must have the same."""
    warnings: tuple[str, ...] = ()
    """What should be said of the subject with its results."""
    losses: Callable[[variants.Variant, Pass], Sequence[float]]
    """−log p of the scored tokens of a pass, nats."""


def _local(
    source: str | Checkpoint | None,
    options: PerplexityOptions,
    progress: ProgressCallback | None,
) -> _Subject:
    assert source is not None  # or it was refused
    require_extra("perplexity", "torch", "transformers")
    from yarncli.evaluation.local.measuring import Readers

    checkpoint = fetched(source, options, progress)
    settings = _settings(checkpoint, options, progress)
    warning = adapter_warning(settings, options)
    readers = Readers(options, progress)
    return _Subject(
        name=name_of(source),
        settings=settings,
        warnings=(warning,) if warning else (),
        codec=open_codec(options.tokenizer or source, options, False, progress),
        record=used_settings(local_directory(checkpoint), options),
        losses=lambda variant, reading: readers.of(variant, len(reading.ids)).losses(
            reading.ids, reading.first
        ),
    )


def _served(
    source: str | Checkpoint | None,
    options: PerplexityOptions,
    progress: ProgressCallback | None,
) -> _Subject:
    subject = connect(source, options, chat=False, concurrency=1, progress=progress)
    reader = ServedReader(subject.server)
    return _Subject(
        name=subject.name,
        settings=subject.variants,
        codec=subject.codec,
        record={"base_url": options.base_url, "served_model": subject.server.model},
        losses=lambda _, reading: reader.losses(reading.ids, reading.first),
    )


def _refuse_contradictions(source: str | Checkpoint | None, options: PerplexityOptions) -> None:
    """Refuse what cannot be done before anything is fetched, loaded or asked."""
    if not options.text:
        raise UsageError(
            "Give --text FILE: a text to read, such as a book in the model's language."
        )
    if options.sliding is not None and options.by_position:
        raise UsageError("Give --sliding or --by-position, not both.")
    if options.sliding is not None and options.sliding < 1:
        raise UsageError("--sliding must be at least 1 token.")
    if options.tokens is not None and options.tokens < 1:
        raise UsageError("--tokens must be at least 1.")
    others = options.compare or options.control or options.control_model
    if options.attention_factors and (others or not options.override):
        raise UsageError(
            "--attention-factors needs --override factor=4, and cannot be used with --compare or a "
            "control."
        )
    if options.base_url is not None and options.layout != "nested":
        raise UsageError(
            "A server can only be asked for nested contexts, so --sliding and --by-position "
            "cannot be used with --base-url."
        )
    refuse_server_contradictions(source, options)
    refuse_existing(options.out, resume=options.resume)
    variants.refuse_two_controls(options.control, options.control_model)


def _settings(
    checkpoint: Checkpoint, options: PerplexityOptions, progress: ProgressCallback | None
) -> list[variants.Variant]:
    """What is measured: the settings that are chosen, or one for each attention factor."""
    if not (options.attention_factors and options.override):
        longest = max(options.lengths, default=0)
        return choose_settings(checkpoint, options, longest, progress)
    override = variants.parse_override(options.override)
    return variants.at_attention_factors(checkpoint, override, options.attention_factors)


def _read_all(
    subject: _Subject,
    readings: Sequence[Pass],
    *,
    file: ResultFile[WindowLoss] | None,
    progress: ProgressCallback | None,
) -> dict[str, list[WindowLoss]]:
    """Read with every variant what it has not read yet; by length and window."""
    losses: dict[str, list[WindowLoss]] = {}
    for variant in subject.settings:
        found = list(file.done.get(variant.name, ())) if file else []
        done = {loss.place for loss in found}
        left = [r for r in readings if not {part[:2] for part in r.parts} <= done]
        title = variant.name if len(subject.settings) > 1 else "Reading"
        total = sum(len(reading.ids) for reading in left)
        with stage(progress, title, total, unit="tokens") as advance:
            for reading in left:
                for loss in _losses_of(reading, subject.losses(variant, reading)):
                    if loss.place in done:
                        continue
                    if file:
                        file.add(variant.name, loss)
                    found.append(loss)
                advance(len(reading.ids))
        losses[variant.name] = sorted(found, key=lambda loss: loss.place)
    return losses


def _losses_of(reading: Pass, numbers: Sequence[float]) -> Iterator[WindowLoss]:
    begin = 0
    for length, window, count in reading.parts:
        sums = Sums.of(numbers[begin : begin + count])
        yield WindowLoss(length=length, window=window, tokens=count, nll=sums.values)
        begin += count
