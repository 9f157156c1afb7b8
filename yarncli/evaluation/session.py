"""A whole passkey evaluation, from its options to its report: what `check-passkey` runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.output import atomic_write
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import UsageError
from yarncli.evaluation import variants
from yarncli.evaluation.connecting import connect, refuse_server_contradictions
from yarncli.evaluation.opening import (
    adapter_warning,
    choose_settings,
    fetched,
    name_of,
    open_codec,
)
from yarncli.evaluation.passkey import Decode, Grid
from yarncli.evaluation.prompts import KeyKind, PasskeyPrompt, Wording
from yarncli.evaluation.report import Cell, PasskeyReport, read_cell
from yarncli.evaluation.result_file import ResultFile, refuse_existing, result_file
from yarncli.evaluation.settings import ServedSettings
from yarncli.evaluation.subjects import LocalSubject, Subject, local_directory
from yarncli.evaluation.tasks import PASSKEY
from yarncli.extras import require_extra
from yarncli.options import checked
from yarncli.progress import ProgressCallback, stage

# The keys of a line of `dump_prompts`, and the fields of a prompt that they hold.
_DUMPED = {name: name for name in ("task", "length", "depth", "trial", "key")}
_DUMPED |= {"prompt": "text", "token_ids": "token_ids", "answer_ids": "answer_ids"}


@dataclass(frozen=True, kw_only=True)
class PasskeyOptions(ServedSettings):
    """The prompts, the settings of the model, where it runs, and where results are written.

    The fields of `ServedSettings` say how the model is loaded or reached.
    """

    lengths: Sequence[int] = ()
    """Prompt lengths, tokens; empty: half the original window, the window and its doublings."""
    depths: int = 5
    """Positions of the key, from the start of the text to its end."""
    trials: int = 2
    """Keys per length and position."""
    seed: int = 0
    """Random seed of the keys."""
    tasks: Sequence[str] = ()
    """Tasks from `tasks.TASKS`, which are like those of RULER; empty: only the passkey."""
    keys: KeyKind = "digits"
    """Hide five digits or two words."""
    needle: str | None = None
    """The sentence that states the key; must contain `{key}`. None for the paper's sentence."""
    filler: str | None = None
    """The surrounding text; None for the paper's."""
    answer_prefix: str | None = None
    """The beginning of the answer, empty for none; None for the paper's."""
    chat: bool | None = None
    """Use the chat template; None uses it if there is one."""
    concurrency: int = 4
    """Number of simultaneous requests to the server."""
    decode: Decode = "fast"
    """"greedy" generates token by token: the same verdicts, slower."""
    out: Path | None = None
    """The JSONL file to which every answer is written at once."""
    resume: bool = False
    """Continue the run in `out`."""
    dump_prompts: Path | None = None
    """The file to write every prompt to."""
    min_accuracy: float | None = None
    """The smallest accuracy that `PasskeyReport.require_accuracy` allows at any length."""


class PasskeyWatch:
    """Gets the events of a running evaluation. This class ignores them; override what you need."""

    def begin(self, grid: Grid, settings: Sequence[variants.Variant], answered: int) -> None:
        """Called before `grid` is asked for each setting; `answered` cells are known already."""

    def answers(
        self, title: str, grid: Grid, found: Sequence[Cell]
    ) -> AbstractContextManager[Callable[[Cell], None] | None]:
        """A context, open while a setting is asked. Gets the known cells and each new one."""
        return nullcontext()


def evaluate_passkey(
    model: str | Path | Checkpoint | None,
    options: PasskeyOptions | None = None,
    *,
    progress: ProgressCallback | None = None,
    watch: PasskeyWatch | None = None,
    **changes: Any,
) -> PasskeyReport:
    """Measure passkey retrieval over lengths and depths: the whole of `check-passkey`.

    Args:
        model: a checkpoint directory, a Hub id, or what `open_checkpoint` returned; None only with
            `base_url`.
        options: what to ask; `PasskeyOptions()` by default.
        progress: told of the stages "Fetching", "Verifying" (bytes), "Writing prompts" and "Asking"
            (the name of the setting, where there are several) in prompts, and of what is loaded.
        watch: gets the size of the work and each answer.
        **changes: fields of `options` to replace.

    Raises:
        UsageError: options that contradict each other or cannot be used.
        YarncliError: whatever fetching, loading, asking or writing meets; the cells that were
            completed are in `out`.

    Example:
        >>> report = evaluate_passkey("./model", lengths=(256, 512), trials=1)  # doctest: +SKIP
        >>> [result.accuracy for result in report.lengths()]  # doctest: +SKIP
        [1.0, 0.4]
    """
    options = checked(options or PasskeyOptions(), changes)
    watch = watch or PasskeyWatch()
    source = str(model) if isinstance(model, Path) else model
    _refuse_contradictions(source, options)
    subject: Subject
    if options.base_url is not None:
        subject = connect(
            source, options, chat=options.chat, concurrency=options.concurrency, progress=progress
        )
    else:
        assert source is not None  # otherwise the options were refused
        subject = _local(source, options, progress)
    grid = _grid(options, subject.variants)
    recorded = _record(subject, grid)
    file = result_file(options.out, "passkey", recorded, read_cell, resume=options.resume)
    with file or nullcontext():
        answered = sum(len(cells) for cells in file.done.values()) if file else 0
        watch.begin(grid, subject.variants, answered)
        subject.require_fit(grid)
        with stage(progress, "Writing prompts", grid.size, unit="prompts") as advance:
            prompts = grid.prompts(subject.builder(grid), advance)
        if options.dump_prompts:
            _dump_prompts(options.dump_prompts, prompts)
        cells = _ask_all(subject, grid, prompts, file, watch, progress)
    return PasskeyReport(
        settings=recorded,
        cells=cells,
        caveats=tuple(subject.caveats()),
        min_accuracy=options.min_accuracy,
    )


def _refuse_contradictions(model: str | Checkpoint | None, options: PasskeyOptions) -> None:
    """Refuse what cannot be done before anything is fetched, loaded or asked."""
    refuse_existing(options.out, resume=options.resume)
    variants.refuse_two_controls(options.control, options.control_model)
    refuse_server_contradictions(model, options)


def _local(
    model: str | Checkpoint, options: PasskeyOptions, progress: ProgressCallback | None
) -> LocalSubject:
    require_extra("check-passkey", "torch", "transformers")
    checkpoint = fetched(model, options, progress)
    local_directory(checkpoint)
    chosen = choose_settings(checkpoint, options, max(options.lengths, default=0), progress)
    warning = adapter_warning(chosen, options)
    return LocalSubject(
        name=name_of(model),
        variants=chosen,
        warnings=(warning,) if warning else (),
        codec=open_codec(options.tokenizer or model, options, options.chat, progress),
        settings=options,
        decode=options.decode,
        progress=progress,
    )


def _grid(options: PasskeyOptions, settings: Sequence[variants.Variant]) -> Grid:
    lengths = sorted(set(options.lengths))
    if not lengths:
        if not all(variant.original for variant in settings):
            raise UsageError("Give --lengths; how far the model reads is not known.")
        lengths = variants.default_lengths(settings)
    own = {
        "needle": options.needle,
        "filler": options.filler,
        "answer_prefix": options.answer_prefix,
    }
    return Grid(
        lengths=tuple(lengths),
        depths=options.depths,
        trials=options.trials,
        seed=options.seed,
        keys=options.keys,
        tasks=tuple(options.tasks) or (PASSKEY,),
        wording=Wording(**{name: text for name, text in own.items() if text is not None}),
    )


def _record(subject: Subject, grid: Grid) -> dict[str, Any]:
    """The record of a run. A resumed run must have the same."""
    return {
        "model": subject.name,
        **grid.to_json(),
        **subject.record(),
        "variants": {variant.name: variant.to_json() for variant in subject.variants},
    }


def _ask_all(
    subject: Subject,
    grid: Grid,
    prompts: Sequence[PasskeyPrompt],
    file: ResultFile[Cell] | None,
    watch: PasskeyWatch,
    progress: ProgressCallback | None,
) -> dict[str, list[Cell]]:
    """Ask every variant for the missing cells; returns all cells, by their places."""
    cells: dict[str, list[Cell]] = {}
    for variant in subject.variants:
        found = list(file.done.get(variant.name, ())) if file else []
        done = {cell.place for cell in found}
        title = variant.name if len(subject.variants) > 1 else "Asking"
        left = grid.size - len(found)
        with (
            watch.answers(title, grid, found) as show,
            stage(progress, title, left, unit="prompts") as advance,
        ):
            for cell in subject.ask(variant, [p for p in prompts if p.place not in done]):
                if file:
                    file.add(variant.name, cell)
                found.append(cell)
                if show:
                    show(cell)
                advance(1)
        cells[variant.name] = sorted(found, key=lambda cell: cell.place)
    return cells


def _dump_prompts(path: Path, prompts: Sequence[PasskeyPrompt]) -> None:
    """Write every prompt as a line of JSON with text, token ids, key and place.

    Raises:
        CheckpointError, OutputError: as `atomic_write`.
    """
    lines = [
        {name: getattr(prompt, field) for name, field in _DUMPED.items()} for prompt in prompts
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    atomic_write(path, text.encode("utf-8"))
