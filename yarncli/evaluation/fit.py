"""Which temperature, betas and factor suit a model: a search, and a verdict on held-out prompts."""

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
from yarncli.evaluation.opening import fetched, name_of, open_codec
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
    """What is searched, and on which prompts and texts.

    How the model is loaded is said by the fields of `LoadSettings`.
    """

    factor: float | None = None
    """The window to reach, as a multiple of the original one; there is no default."""
    method: str = DEFAULT_METHOD
    """How the context is extended: a name of `yarncli.rope.methods.METHODS`."""
    tune: Tune = "temperature"
    """What is searched: the attention factor, the ends of yarn's ramp, or these and the factor."""
    budget: int = _BUDGET
    """How many settings are tried at most, the default not counted."""
    lengths: Sequence[int] = ()
    """Of the prompts, tokens; empty: the original window and the new one."""
    prompts: int = _PROMPTS
    """Of each length for the search, and as many others that are held out."""
    text: Sequence[Path | str] = ()
    """UTF-8 files; empty: texts within the original window that the model writes itself."""
    texts: int = _TEXTS
    """How many stretches of text; a quarter of them is for the search, the others are held out."""
    seed: int = 0
    """Decides the keys of the prompts, and what the model writes."""
    original_length: int | None = None
    """The window that the model was trained with, where the config does not tell it."""
    replace_scaling: bool = False
    """Drop the scaling that the model has and start from `original_length`."""
    tokenizer: str | None = None
    """Checkpoint or directory to load the tokenizer from, instead of the model's."""
    out: Path | None = None
    """The JSONL file to which every result is written as it comes."""
    resume: bool = False
    """Go on with the run in `out`."""


def fit(
    model: str | Path | Checkpoint,
    options: FitOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    begin: Callable[[Mapping[str, Any], int], None] | None = None,
    **changes: Any,
) -> FitReport:
    """Search the temperature, the betas or the factor that suit a model best.

    Settings are compared by how likely they make the answers of passkey prompts. The best of the
    search is then held against the default (the method's own values) on other prompts and texts.

    Args:
        model: a checkpoint directory, a Hub id, or what `open_checkpoint` returned.
        options: what to search; `factor` has no default.
        progress: told how far the stages are: "Fetching" in bytes, each setting in tokens.
        begin: told what is searched, as it is recorded, and the tokens that are read at most.
        **changes: fields of `options` to replace.

    Raises:
        YarncliError: options that contradict each other, texts that are too short, or whatever
            fetching, loading, reading or writing meets; what was measured is in `out`.

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
    lengths = _lengths(options.lengths, plan)
    readers = Readers(options)
    readers.of(default, max(lengths))  # or there is too little memory
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
    """What is searched on what, as it is recorded, and compared when a run is resumed."""
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
    """Measures settings, each of them once."""

    checkpoint: Checkpoint
    """Whose settings they are."""
    options: FitOptions
    """What is asked for."""
    readers: Readers
    """Read with them."""
    items: Sequence[Item]
    """What is read, of both parts."""
    plan: RopePlan
    """Of the default."""
    file: ResultFile[Measurement] | None
    """Has what was measured before, and takes what is measured now."""
    progress: ProgressCallback | None
    """Told how far each setting is."""
    _measured: dict[str, list[Measurement]] = field(default_factory=dict, init=False)
    _settings: dict[str, variants.Variant] = field(default_factory=dict, init=False)
    _effects: set[str] = field(default_factory=set, init=False)

    @property
    def most_tokens(self) -> int:
        """How many tokens are read at most: by every candidate, and by two on what is held out."""
        times = {"search": self.options.budget + 1, "held-out": 2}
        return sum(
            times[item.part] * len(item.ids) * (2 if item.compared else 1) for item in self.items
        )

    def report(self, recorded: Mapping[str, Any]) -> FitReport:
        """What was measured so far."""
        return FitReport(recorded, {name: tuple(m) for name, m in self._measured.items()})

    def score(self, changes: Changes) -> float | None:
        """As `candidates.search` wants it: None for what cannot be, or rotates as one before."""
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
        """Measure a setting on a part, but for what the result file has of it."""
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
        """Reads with the model as it is."""
        longest = max(len(item.ids) for item in self.items if item.compared)
        return self.readers.of(variants.as_it_is(self.checkpoint), longest)


def _refuse_contradictions(options: FitOptions) -> None:
    """Refuse what cannot be done before anything is fetched or loaded."""
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
        CheckpointError, UsageError: it would refuse it.
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
        UsageError: one is beyond the window.
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
    """Stretches of the given texts, or what the model writes itself within its window.

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
