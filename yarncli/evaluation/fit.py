"""Find the temperature, betas and factor that suit a model, and test them on held-out prompts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation import variants
from yarncli.evaluation.candidates import (
    DEFAULT,
    Changes,
    Tune,
    axes_of,
    name_of_changes,
    search,
)
from yarncli.evaluation.fit_items import Item, answer_items, text_items
from yarncli.evaluation.fit_report import FitReport, Measurement, Part, read_measurement
from yarncli.evaluation.opening import adapter_warning, fetched, name_of, open_codec
from yarncli.evaluation.passkey import TextCodec
from yarncli.evaluation.regress import LONGEST_SAMPLE, SAMPLED
from yarncli.evaluation.result_file import ResultFile, refuse_existing, result_file
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.statistics import Sums
from yarncli.evaluation.subjects import local_directory, used_settings
from yarncli.evaluation.texts import digest, read_texts
from yarncli.extras import require_extra
from yarncli.history import read_history
from yarncli.options import checked
from yarncli.planning.plan import check_values
from yarncli.planning.rope_plan import RopePlan, parameters_to_json
from yarncli.planning.target import Target
from yarncli.planning.writing import write_rope
from yarncli.progress import ProgressCallback, stage
from yarncli.rope.methods import DEFAULT_METHOD

if TYPE_CHECKING:
    from yarncli.evaluation.local.likelihood import TextReader
    from yarncli.evaluation.local.measuring import Readers

_BUDGET, _PROMPTS, _TEXTS = 20, 16, 8


@dataclass(frozen=True, kw_only=True)
class FitOptions(LoadSettings):
    """What to search, and the prompts and texts for it.

    The fields of `LoadSettings` say how the model is loaded.
    """

    factor: float | None = None
    """The window to reach, as a multiple of the original one; there is no default."""
    method: str = DEFAULT_METHOD
    """The method of the extension: a name in `yarncli.rope.methods.METHODS`."""
    tune: Tune = "temperature"
    """What to search: the attention factor, the ends of yarn's ramp, or these and the factor."""
    budget: int = _BUDGET
    """The largest number of settings to try, without the default."""
    lengths: Sequence[int] = ()
    """Lengths of the prompts, tokens; empty: the original window and the new one."""
    prompts: int = _PROMPTS
    """Number of prompts per length for the search; as many others are held out."""
    text: Sequence[Path | str] = ()
    """UTF-8 files; empty: texts within the original window that the model writes itself."""
    texts: int = _TEXTS
    """Number of pieces of text. A quarter is for the search, the others are held out."""
    seed: int = 0
    """Random seed of the keys and of the texts that the model writes."""
    original_length: int | None = None
    """The window that the model was trained with, if the config does not state it."""
    replace_scaling: bool = False
    """Drop the scaling that the model has and start from `original_length`."""
    tokenizer: str | None = None
    """Checkpoint or directory to load the tokenizer from, instead of the model's."""
    out: Path | None = None
    """The JSONL file to which every result is written at once."""
    resume: bool = False
    """Continue the run in `out`."""


def fit(
    model: str | Path | Checkpoint,
    options: FitOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    begin: Callable[[Mapping[str, Any], int], None] | None = None,
    **changes: Any,
) -> FitReport:
    """Search the temperature, the betas or the factor that suit a model best.

    Settings are compared by the probability of the answers of passkey prompts. The best one is then
    compared with the default (the method's own values) on other prompts and texts.

    Args:
        model: a checkpoint directory, a Hub id, or what `open_checkpoint` returned.
        options: what to search; `factor` has no default.
        progress: called with the progress of "Fetching" in bytes and of each setting in tokens.
        begin: called with the recorded settings and the largest number of tokens to read.
        **changes: fields of `options` to replace.

    Raises:
        YarncliError: options contradict each other, texts are too short, or fetching, loading,
            reading or writing fails. The results so far are in `out`.

    Example:
        >>> report = fit("./model", factor=8, text=["book.txt"])  # doctest: +SKIP
        >>> report.better, report.convert  # doctest: +SKIP
        (False, 'yarncli convert ./model OUT --factor 8')
    """
    options = checked(options or FitOptions(), changes)
    source = str(model) if isinstance(model, Path) else model
    axes = axes_of(options.tune, options.method)
    _refuse_contradictions(options)
    require_extra("fit", "torch", "transformers")
    from yarncli.evaluation.local.measuring import Readers

    checkpoint = fetched(source, options, progress)
    default, plan = _setting(checkpoint, options, {})
    adapter_warning([default], options)
    lengths, readers = _lengths(options.lengths, plan), Readers(options)
    readers.of(default, max(lengths))  # raises an error if there is too little memory
    codec = open_codec(options.tokenizer or source, options, False, progress)
    items = answer_items(codec, lengths, options.prompts, seed=options.seed, progress=progress)
    longest = (plan.original_length, lengths[-1])
    items += _texts(checkpoint, readers, codec, longest, options, progress)
    usual = {axis.name: _usual(plan)[axis.name] for axis in axes}
    recorded = {
        **_record(source, options, default, items), "lengths": lengths, "usual": usual,
        **used_settings(local_directory(checkpoint), options),
    }  # fmt: skip
    file = result_file(options.out, "fit", recorded, read_measurement, resume=options.resume)
    with file or nullcontext():
        run = _Run(checkpoint, options=options, readers=readers, items=items, plan=plan, file=file,
                   progress=progress)  # fmt: skip
        if begin:
            begin(recorded, run.most_tokens)
        search(axes, usual, run.score, options.budget)
        for name in dict.fromkeys((DEFAULT, run.report(recorded).best)):
            run.measure(name, "held-out")
    return run.report(recorded)


def _record(
    source: str | Checkpoint, options: FitOptions, default: variants.Variant, items: Sequence[Item]
) -> dict[str, Any]:
    """The settings of the run for its record. A resumed run must have the same."""
    return {
        "model": name_of(source), "method": options.method, "factor": options.factor,
        "tune": options.tune, "budget": options.budget, "prompts": options.prompts,
        "text": [str(path) for path in options.text] or SAMPLED,
        "sha256": digest(item.ids for item in items), "seed": options.seed,
        "original_length": options.original_length, "replace_scaling": options.replace_scaling,
        "variants": {DEFAULT: default.to_json()},
    }  # fmt: skip


@dataclass
class _Run:
    """Measures each setting once."""

    checkpoint: Checkpoint
    """The checkpoint whose settings are measured."""
    options: FitOptions
    """The options of the caller."""
    readers: Readers
    """The readers for the settings."""
    items: Sequence[Item]
    """The prompts and texts of both parts."""
    plan: RopePlan
    """The plan of the default."""
    file: ResultFile[Measurement] | None
    """The result file, with earlier measurements; new ones are added."""
    progress: ProgressCallback | None
    """Called with the progress of each setting."""
    _measured: dict[str, list[Measurement]] = field(default_factory=dict, init=False)
    _settings: dict[str, variants.Variant] = field(default_factory=dict, init=False)
    _effects: set[str] = field(default_factory=set, init=False)

    @property
    def most_tokens(self) -> int:
        """The most tokens to read: all candidates on the search part, two on the other."""
        times = {"search": self.options.budget + 1, "held-out": 2}
        return sum(
            times[item.part] * len(item.ids) * (2 if item.compared else 1) for item in self.items
        )

    def report(self, recorded: Mapping[str, Any]) -> FitReport:
        """The report of the measurements so far."""
        return FitReport(recorded, {name: tuple(m) for name, m in self._measured.items()})

    def score(self, changes: Changes) -> float | None:
        """The score for `candidates.search`; None for an impossible or repeated setting."""
        try:
            variant, plan = _setting(self.checkpoint, self.options, changes)
        except (CheckpointError, UsageError):
            return None  # but for the default, which was made before
        scopes = [(s.name, s.after) for s in plan.scopes]
        effect = repr([(n, p.inv_freq(), p.effective_attention_factor()) for n, p in scopes])
        if effect in self._effects or plan.length < self.plan.length:
            return None
        self._effects.add(effect)
        self._settings[variant.name] = variant
        self.measure(variant.name, "search")
        return self.report({}).score(variant.name)

    def measure(self, name: str, part: Part) -> None:
        """Measure a setting on a part, except what the result file already has."""
        items = [item for item in self.items if item.part == part]
        done = {m.place: m for m in self.file.done.get(name, ())} if self.file else {}
        found = self._measured.setdefault(name, [])
        tokens = sum(len(item.ids) for item in items)
        with stage(self.progress, f"{name}, {part}", tokens, unit="tokens") as advance:
            for item in items:
                measured = done.get(item.place)
                if measured is None:
                    measured = self._read(name, item)
                    if self.file:
                        self.file.add(name, measured)
                found.append(measured)
                advance(len(item.ids))

    def _read(self, name: str, item: Item) -> Measurement:
        from yarncli.evaluation.local.likelihood import divergence

        reader = self.readers.of(self._settings[name], max(len(i.ids) for i in self.items))
        kl: tuple[float, ...] = ()
        if item.compared:
            numbers = divergence(self._base, reader, item.ids)
            losses, kl = numbers.after, Sums.of(numbers.kl).values
        else:
            losses = reader.losses(item.ids, item.first, go_on=item.what == "answer")
        return Measurement(
            part=item.part, what=item.what, number=item.number, length=len(item.ids),
            tokens=len(losses), nll=Sums.of(losses).values, kl=kl,
        )  # fmt: skip

    @cached_property
    def _base(self) -> TextReader:
        """The reader of the unchanged model."""
        longest = max(len(item.ids) for item in self.items if item.compared)
        return self.readers.of(variants.as_it_is(self.checkpoint), longest)


def _refuse_contradictions(options: FitOptions) -> None:
    """Refuse contradictory options before anything is fetched or loaded."""
    if options.factor is None:
        raise UsageError("Say how far the model is extended, such as --factor 8.")
    for name, least in (("budget", 1), ("prompts", 2), ("texts", 2)):
        if getattr(options, name) < least:
            raise UsageError(f"--{name} must be at least {least}.")
    refuse_existing(options.out, resume=options.resume)


def _setting(
    checkpoint: Checkpoint, options: FitOptions, changes: Changes
) -> tuple[variants.Variant, RopePlan]:
    """What `convert` would write with `changes`.

    Raises:
        CheckpointError, UsageError: `convert` would refuse it.
    """
    numbers = dict(changes)
    target = Target(
        options.method,
        factor=numbers.pop("factor", options.factor),
        replace_scaling=options.replace_scaling,
        options=numbers,
    )
    config = checkpoint.config()
    rope, plan = read_history(checkpoint).planned(
        config.value, target, assume_like=None, original_length=options.original_length
    )
    check_values(plan)
    variant = variants.Variant(
        name=name_of_changes(changes),
        config=write_rope(config, rope, plan).value,
        window=plan.length,
        original=plan.original_length,
        rope={scope.name: parameters_to_json(scope.after) for scope in plan.scopes},
        checkpoint=checkpoint,
    )
    return variant, plan


def _usual(plan: RopePlan) -> dict[str, float]:
    """The numbers of the default."""
    after = plan.scopes[0].after
    return {
        "factor": plan.factor,
        "attention_factor": after.effective_attention_factor(),
        "beta_fast": after.beta_fast or 32.0,
        "beta_slow": after.beta_slow or 1.0,
    }


def _lengths(asked: Sequence[int], plan: RopePlan) -> list[int]:
    """The lengths of the prompts, ascending.

    Raises:
        UsageError: a length is more than the window.
    """
    lengths = sorted(set(asked)) or [plan.original_length, plan.length]
    if lengths[-1] > plan.length:
        raise UsageError(
            f"--lengths: {lengths[-1]:,} tokens are more than the wanted window of "
            f"{plan.length:,}. Give shorter lengths, or a larger --factor."
        )
    return lengths


def _texts(
    checkpoint: Checkpoint,
    readers: Readers,
    codec: TextCodec,
    lengths: tuple[int, int],
    options: FitOptions,
    progress: ProgressCallback | None,
) -> list[Item]:
    """Pieces of the given texts, or of texts that the model writes itself within its window.

    `lengths` are the original window and the longest prompt, in tokens.

    Raises:
        UsageError: the texts are too short.
    """
    original, longest = lengths
    if options.text:
        found = read_texts(options.text, codec).stretches(longest, options.texts)
        return text_items(found, original)
    from yarncli.evaluation.local.sampling import sample_stretches

    found = sample_stretches(
        readers, variants.as_it_is(checkpoint), codec,
        length=min(original, longest, LONGEST_SAMPLE), count=options.texts, seed=options.seed,
        progress=progress,
    )  # fmt: skip
    return text_items(found, original)
