"""What an extension costs on texts that the model could read before: KL, agreement, perplexity."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckFailed, UsageError
from yarncli.evaluation import variants
from yarncli.evaluation.opening import adapter_warning, fetched, name_of, open_codec
from yarncli.evaluation.passkey import TextCodec
from yarncli.evaluation.result_file import (
    SCHEMA_VERSION,
    ResultFile,
    read_results,
    refuse_existing,
    result_file,
)
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.statistics import Interval, Mean, Sums, mean, quantile
from yarncli.evaluation.subjects import local_directory, used_settings
from yarncli.evaluation.texts import digest, read_texts
from yarncli.extras import require_extra
from yarncli.options import checked
from yarncli.progress import ProgressCallback, stage

if TYPE_CHECKING:
    from yarncli.evaluation.local.measuring import Readers

# Where nothing is said: texts of at most so many tokens, and so many of them.
LONGEST_SAMPLE = 4096
_TEXTS = 8
SAMPLED = "samples of the base model"


@dataclass(frozen=True, kw_only=True)
class RegressOptions(LoadSettings):
    """On which texts two settings of a model are compared.

    How the models are loaded is said by the fields of `LoadSettings`.
    """

    text: Sequence[Path | str] = ()
    """UTF-8 files; empty: texts that the base model writes itself."""
    length: int | None = None
    """Tokens of each text; None for the original window, at most 4,096."""
    texts: int = _TEXTS
    """Number of texts of that length."""
    seed: int = 0
    """Random seed of the texts that the base model writes."""
    override: str | None = None
    """The conversion to compare with, without writing it, such as `method=yarn,factor=4`."""
    compare: Sequence[str] = ()
    """Methods to compare with, side by side."""
    tokenizer: str | None = None
    """Checkpoint or directory to load the tokenizer from, instead of the base's."""
    out: Path | None = None
    """The JSONL file to which every result is written at once."""
    resume: bool = False
    """Continue the run in `out`."""
    max_kl: float | None = None
    """The largest mean KL that `RegressReport.require` allows, nats per token."""
    min_top1: float | None = None
    """The smallest agreement that `RegressReport.require` allows, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TextDivergence:
    """How two settings differ on one text; a number per predicted token."""

    text: int
    """Number of the text."""
    kl: tuple[float, ...]
    """KL(base ‖ converted), nats."""
    agrees: tuple[bool, ...]
    """Whether the most likely token is the same."""
    before: tuple[float, ...]
    """−log p of the text's own token by the base, nats."""
    after: tuple[float, ...]
    """The same by the converted model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """What one conversion costs."""

    kl: Mean
    """Mean KL(base ‖ converted) per predicted token, nats."""
    kl_p99: float
    """The KL that 99 % of the tokens do not exceed."""
    top1_agreement: float
    """Share of positions at which the most likely token is the same in both models."""
    top1_interval: Interval | None
    """Its 95 % interval; None for a single block of tokens."""
    perplexity_before: float
    """Perplexity of the base."""
    perplexity_after: float
    """Perplexity of the converted model, on the same tokens."""
    ratio: Mean
    """`perplexity_after` divided by `perplexity_before`, with its paired interval."""

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`, without its settings."""
        return {
            "kl_mean": self.kl.value,
            "kl_interval": list(self.kl.interval) if self.kl.interval else None,
            "kl_p99": self.kl_p99,
            "top1_agreement": self.top1_agreement,
            "top1_interval": list(self.top1_interval) if self.top1_interval else None,
            "perplexity_before": self.perplexity_before,
            "perplexity_after": self.perplexity_after,
            "perplexity_ratio": self.ratio.value,
            "perplexity_ratio_interval": list(self.ratio.interval) if self.ratio.interval else None,
            "tokens": self.kl.tokens,
        }


@dataclass(frozen=True)
class RegressReport:
    """A whole comparison: its settings and its numbers."""

    settings: Mapping[str, Any]
    """The settings of the run, as recorded in the result file."""
    divergences: Mapping[str, Sequence[TextDivergence]]
    """Name of a conversion → its measurements."""
    max_kl: float | None = None
    """The largest mean KL allowed; None for no limit."""
    min_top1: float | None = None
    """The smallest agreement allowed; None for no limit."""
    caveats: Sequence[str] = ()
    """Caveats about the results, each as a sentence."""

    def regression(self, variant: str | None = None) -> Regression:
        """What one conversion costs, the first by default."""
        return summarise(self.divergences[variant or next(iter(self.divergences))])

    def require(self) -> None:
        """The gates of `--max-kl` and `--min-top1`.

        Raises:
            CheckFailed: a conversion fails one; all are named.
        """
        failed = []
        for name in self.divergences:
            found = self.regression(name)
            # Not `>`: what is no number fails.
            if self.max_kl is not None and not found.kl.value <= self.max_kl:
                failed.append(f"{name}: mean KL {found.kl.value:.4g} is above {self.max_kl:g}")
            if self.min_top1 is not None and not found.top1_agreement >= self.min_top1:
                failed.append(
                    f"{name}: top-1 agreement {found.top1_agreement:.4g} is below {self.min_top1:g}"
                )
        if failed:
            raise CheckFailed("; ".join(failed) + ".")

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`; its numbers are those of the first conversion."""
        first, *others = self.divergences
        return {
            "schema_version": SCHEMA_VERSION,
            **self.regression(first).to_json(),
            "settings": dict(self.settings),
            "variants": {name: self.regression(name).to_json() for name in others},
        }


def regress(
    base: str | Path | Checkpoint,
    converted: str | Path | Checkpoint | None = None,
    options: RegressOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    begin: Callable[[Mapping[str, Any]], None] | None = None,
    **changes: Any,
) -> RegressReport:
    """Compare what a conversion predicts with what its base does, on texts within the old window.

    Args:
        base: a checkpoint directory, a Hub id, or what `open_checkpoint` returned.
        converted: the same for what was made of it; None to try `override` or `compare` on `base`.
        options: on what; `RegressOptions()` by default.
        progress: told how far the stages are: "Fetching" in bytes, "Sampling" and "Comparing" (the
            name of the conversion, where there are several) in tokens.
        begin: told the settings of the run before anything is read.
        **changes: fields of `options` to replace.

    Raises:
        UsageError: options that contradict each other, texts that are too short, or models with
            different vocabularies.
        YarncliError: whatever fetching, loading, reading or writing meets; the results that were
            completed are in `out`.

    Example:
        >>> report = regress("./model", override="factor=4")  # doctest: +SKIP
        >>> round(report.regression().kl.value, 3)  # doctest: +SKIP
        0.119
    """
    options = checked(options or RegressOptions(), changes)
    source = str(base) if isinstance(base, Path) else base
    _refuse_contradictions(converted, options)
    require_extra("regress", "torch", "transformers")
    from yarncli.evaluation.local.measuring import Readers

    checkpoint = fetched(source, options, progress)
    before = variants.as_it_is(checkpoint, "base")
    after = _conversions(checkpoint, converted, options, progress)
    warning = adapter_warning([*after, before], options)
    codec = open_codec(options.tokenizer or source, options, False, progress)
    readers = Readers(options, progress)
    stretches = _stretches(readers, before, codec, options, progress)
    recorded = {
        **_record(source, converted, before, after, options, stretches),
        **used_settings(local_directory(checkpoint), options),
    }
    file = result_file(options.out, "regress", recorded, read_divergence, resume=options.resume)
    with file or nullcontext():
        if begin:
            begin(recorded)
        found = _compare_all(
            readers, before, after, stretches=stretches, file=file, progress=progress
        )
    return RegressReport(
        recorded, divergences=found, max_kl=options.max_kl, min_top1=options.min_top1,
        caveats=(*filter(None, (warning,)), *variants.notes_of([before, *after])),
    )  # fmt: skip


def _stretches(
    readers: Readers,
    before: variants.Variant,
    codec: TextCodec,
    options: RegressOptions,
    progress: ProgressCallback | None,
) -> list[tuple[int, ...]]:
    """What is read: of the given texts, or of those that the base writes itself."""
    known = before.original or before.window or LONGEST_SAMPLE
    length = options.length or min(known, LONGEST_SAMPLE)
    if options.text:
        return read_texts(options.text, codec).stretches(length, options.texts)
    from yarncli.evaluation.local.sampling import sample_stretches

    return sample_stretches(
        readers, before, codec, length=length, count=options.texts, seed=options.seed,
        progress=progress,
    )  # fmt: skip


def _record(
    source: str | Checkpoint,
    converted: object,
    before: variants.Variant,
    after: Sequence[variants.Variant],
    options: RegressOptions,
    stretches: Sequence[tuple[int, ...]],
) -> dict[str, Any]:
    """What was compared on what, as it is recorded, and compared when a run is resumed."""
    return {
        "model": name_of(source),
        "converted": None if converted is None else str(converted),
        "length": len(stretches[0]),
        "text": [str(path) for path in options.text] or SAMPLED,
        "texts": len(stretches),
        "texts_sha256": digest(stretches),
        "seed": None if options.text else options.seed,
        "base": before.to_json(),
        "variants": {variant.name: variant.to_json() for variant in after},
    }


def _conversions(
    checkpoint: Checkpoint,
    converted: str | Path | Checkpoint | None,
    options: RegressOptions,
    progress: ProgressCallback | None,
) -> list[variants.Variant]:
    """What the base is compared with."""
    if converted is not None:
        source = str(converted) if isinstance(converted, Path) else converted
        other = fetched(source, options, progress)
        return [variants.as_it_is(other, "converted")]
    override = variants.parse_override(options.override) if options.override else None
    choice = variants.Choice(override=override, methods=options.compare)
    if override is None or not override.has_target:
        raise UsageError(
            "Say how far the model is extended: --override method=yarn,factor=4, or with "
            "--compare --override factor=4."
        )
    return variants.choose_variants(checkpoint, choice)


def _refuse_contradictions(converted: object, options: RegressOptions) -> None:
    """Refuse what cannot be done before anything is fetched or loaded."""
    asked = bool(options.override or options.compare)
    if converted is None and not asked:
        raise UsageError(
            "Give BASE and CONVERTED, or BASE and --override method=yarn,factor=4 to try a "
            "conversion before it is written."
        )
    if converted is not None and asked:
        raise UsageError("Give CONVERTED or --override, not both.")
    if options.length is not None and options.length < 2:
        raise UsageError("--length must be at least 2 tokens.")
    if options.texts < 1:
        raise UsageError("--texts must be at least 1.")
    refuse_existing(options.out, resume=options.resume)


def _compare_all(
    readers: Readers,
    before: variants.Variant,
    after: Sequence[variants.Variant],
    *,
    stretches: Sequence[tuple[int, ...]],
    file: ResultFile[TextDivergence] | None,
    progress: ProgressCallback | None,
) -> dict[str, list[TextDivergence]]:
    """Compare the base with every conversion on every text that is not done yet."""
    from yarncli.evaluation.local.likelihood import divergence

    length = len(stretches[0])
    base = readers.of(before, length)
    found: dict[str, list[TextDivergence]] = {}
    for variant in after:
        known = list(file.done.get(variant.name, ())) if file else []
        done = {entry.text for entry in known}
        other = readers.of(variant, length)
        title = variant.name if len(after) > 1 else "Comparing"
        with stage(progress, title, length * len(stretches), unit="tokens") as advance:
            for number, ids in enumerate(stretches):
                if number not in done:
                    numbers = divergence(base, other, ids)
                    entry = TextDivergence(
                        text=number,
                        kl=tuple(numbers.kl),
                        agrees=tuple(numbers.agrees),
                        before=tuple(numbers.before),
                        after=tuple(numbers.after),
                    )
                    if file:
                        file.add(variant.name, entry)
                    known.append(entry)
                advance(length)
        found[variant.name] = sorted(known, key=lambda entry: entry.text)
    return found


def summarise(divergences: Sequence[TextDivergence]) -> Regression:
    """The numbers of one conversion over all texts; every token counts once."""
    before = Sums.joined(Sums.of(entry.before) for entry in divergences)
    after = Sums.joined(Sums.of(entry.after) for entry in divergences)
    every = [value for entry in divergences for value in entry.kl]
    top1 = mean(Sums.joined(Sums.of(entry.agrees) for entry in divergences))
    return Regression(
        kl=mean(Sums.joined(Sums.of(entry.kl) for entry in divergences)),
        kl_p99=quantile(every, 0.99),
        top1_agreement=top1.value,
        top1_interval=top1.interval and (max(top1.interval[0], 0), min(top1.interval[1], 1)),
        perplexity_before=mean(before).exp.value,
        perplexity_after=mean(after).exp.value,
        ratio=mean(after.minus(before)).exp,
    )


def read_regress_report(path: Path) -> RegressReport:
    """The report of a JSONL file, as far as it got.

    Raises:
        CheckpointError: it cannot be read, or is not a result file.
        UsageError: it is one of another command.
    """
    written = read_results(path)
    written.require("regress")
    return RegressReport(written.settings, divergences=written.entries(read_divergence))


def read_divergence(entry: Mapping[str, Any]) -> TextDivergence:
    """The result of a line of a result file.

    Raises:
        TypeError, ValueError: it is none.
    """
    numbers = ("kl", "before", "after")
    fields = {name: tuple(entry[name]) for name in (*numbers, "agrees")}
    found = TextDivergence(**{**entry, **fields})
    if type(found.text) is not int or not all(type(a) is bool for a in found.agrees):
        raise TypeError("a field has the wrong type")
    for name in numbers:
        if not all(type(v) is float and math.isfinite(v) for v in fields[name]):
            raise TypeError(f"{name} holds what is no number")
    if not found.kl or {len(values) for values in fields.values()} != {len(found.kl)}:
        raise ValueError("the lists of a line differ in length")
    return found
