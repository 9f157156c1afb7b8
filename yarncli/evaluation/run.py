"""One run of `check-passkey`: who is asked, what is recorded, and whether the answer is enough."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from yarncli.checkpoint.output import atomic_write
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckFailed, CheckpointError
from yarncli.evaluation.passkey import Decode, Grid, TextCodec, local_cells, require_memory
from yarncli.evaluation.prompts import PasskeyPrompt, PromptBuilder
from yarncli.evaluation.report import Cell, Report, ResultFile, summarise
from yarncli.evaluation.server import CHAT_TOKENS, Server
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.variants import CONTROL, NONE, Variant, as_it_is

# Opened once per variant with the cells known before; takes each new cell.
Watch = Callable[[Variant, Sequence[Cell]], AbstractContextManager[Callable[[Cell], None]]]


class Subject(Protocol):
    """Whoever is asked: a checkpoint on this machine, or a model behind a server."""

    @property
    def name(self) -> str:
        """What the results are recorded under."""

    @property
    def variants(self) -> Sequence[Variant]:
        """Its RoPE settings, the one in question first."""

    def builder(self, grid: Grid) -> PromptBuilder:
        """Builds the prompts of `grid` as this subject reads them."""

    def require_fit(self, grid: Grid) -> None:
        """Refuse prompts that are too long to be asked, before they are made."""

    def ask(self, variant: Variant, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """One cell per prompt, in order."""

    def record(self) -> dict[str, Any]:
        """What is recorded with the results beside the grid, and compared when resuming."""

    def caveats(self) -> Sequence[str]:
        """What should be known about the answers, once they are there."""


@dataclass(frozen=True)
class LocalSubject:
    """Checkpoints on this machine, one of each variant.

    Attributes:
        name: as the user gave it.
        variants: each with its checkpoint.
        codec: the tokenizer of all.
        settings: how to load.
        decode: see `local_cells`.
    """

    name: str
    variants: Sequence[Variant]
    codec: TextCodec
    settings: LoadSettings
    decode: Decode = "fast"
    _caveats: list[str] = field(default_factory=list, init=False, repr=False)

    def builder(self, grid: Grid) -> PromptBuilder:
        """See `Subject`; in a chat the assistant's turn begins with the answer prefix."""
        return self.codec.builder(grid)

    def ask(self, variant: Variant, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """See `Subject`. Raises as `local_cells`."""
        return local_cells(
            _directory(variant),
            prompts,
            settings=self.settings,
            codec=self.codec,
            config=variant.config,
            parameters=_parameters(variant),
            decode=self.decode,
            on_caveat=self._caveats.append,
        )

    def require_fit(self, grid: Grid) -> None:
        """See `Subject`. Raises as `require_memory`."""
        for variant in self.variants:
            require_memory(
                _directory(variant),
                max(grid.lengths),
                settings=self.settings,
                config=variant.config,
                parameters=_parameters(variant),
                decode=self.decode,
            )

    def record(self) -> dict[str, Any]:
        """See `Subject`.

        Raises:
            UsageError: a device or dtype that does not exist.
        """
        from yarncli.evaluation.local import load

        config = load.read_config(_directory(self.variants[0]))
        device = load.choose_device(self.settings.device)
        dtype = load.choose_dtype(self.settings.dtype, device, config)
        return {
            "chat": self.codec.frame is not None,
            "decode": self.decode,
            # As they are used, not as they were asked for: another machine's "auto" may differ.
            "dtype": str(dtype).removeprefix("torch."),
            "device": str(device),
            "attn_implementation": self.settings.attn_implementation,
            "adapter": self.settings.adapter,
        }

    def caveats(self) -> Sequence[str]:
        """See `Subject`."""
        return list(dict.fromkeys(self._caveats))


@dataclass(frozen=True)
class ServedSubject:
    """A model behind a server: one setting, the server's.

    Attributes:
        name: as the user gave it.
        server: the connection.
        codec: the tokenizer of the model.
        checkpoint: what is known to be served there, if anything.
    """

    name: str
    server: Server
    codec: TextCodec
    checkpoint: Checkpoint | None = None

    @property
    def variants(self) -> Sequence[Variant]:
        """See `Subject`."""
        if self.checkpoint is None:
            return [Variant("served", None, 0, 0, {})]
        return [as_it_is(self.checkpoint, "served")]

    def builder(self, grid: Grid) -> PromptBuilder:
        """See `Subject`; in chat completions the assistant's turn is the server's."""
        return self.codec.builder(grid, answer_prefix=not self.server.settings.chat)

    def require_fit(self, grid: Grid) -> None:
        """See `Subject`; how far a server reads shows when it is asked."""

    def ask(self, variant: Variant, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """See `Subject`. Raises as `Server.cells`."""
        return self.server.cells(prompts)

    def record(self) -> dict[str, Any]:
        """See `Subject`."""
        settings = self.server.settings
        return {
            "chat": self.codec.frame is not None or settings.chat,
            "base_url": settings.base_url,
            "served_model": self.server.model,
            "concurrency": settings.concurrency,
        }

    def caveats(self) -> Sequence[str]:
        """See `Subject`."""
        found = []
        if self.server.uncounted:
            found.append(
                "The server does not say how many tokens it read (usage), so a prompt that it cut "
                "would count as a key not found."
            )
        if self.server.unfinished:
            found.append(
                f"Some answers were not finished after {CHAT_TOKENS:,} tokens and count as they "
                "are. Switch off the model's thinking on the server, or leave out --chat."
            )
        return found


def _directory(variant: Variant) -> Path:
    assert variant.checkpoint is not None  # only what is served has none
    return local_directory(variant.checkpoint)


def _parameters(variant: Variant) -> int:
    assert variant.checkpoint is not None
    return variant.checkpoint.parameters()


def local_directory(checkpoint: Checkpoint) -> Path:
    """Where the files of a checkpoint lie.

    Raises:
        CheckpointError: it is a config without weights.
    """
    if checkpoint.directory is None:
        raise CheckpointError(
            f"{checkpoint.name} is a config without weights. Name the checkpoint's directory."
        )
    return checkpoint.directory


def record_settings(subject: Subject, grid: Grid) -> dict[str, Any]:
    """What is written with the results and compared when a run is resumed."""
    return {
        "model": subject.name,
        **grid.to_json(),
        **subject.record(),
        "variants": {variant.name: variant.to_json() for variant in subject.variants},
    }


def ask_all(
    subject: Subject, prompts: Sequence[PasskeyPrompt], file: ResultFile | None, watch: Watch
) -> dict[str, list[Cell]]:
    """Ask every variant what it has not been asked yet.

    Args:
        subject: whom.
        prompts: all of the grid.
        file: has the cells of an interrupted run, and takes each new one as it comes.
        watch: is shown each new one.

    Returns:
        All cells of each variant, by length, depth and trial.

    Raises:
        YarncliError: whatever loading, asking or writing meets; earlier cells are in `file`.
    """
    cells: dict[str, list[Cell]] = {}
    for variant in subject.variants:
        found = list(file.done.get(variant.name, ())) if file else []
        done = {cell.place for cell in found}
        with watch(variant, found) as show:
            for cell in subject.ask(variant, [p for p in prompts if p.place not in done]):
                if file:
                    file.add(variant.name, cell)
                found.append(cell)
                show(cell)
        cells[variant.name] = sorted(found, key=lambda cell: cell.place)
    return cells


def dump_prompts(path: Path, prompts: Sequence[PasskeyPrompt]) -> None:
    """Write every prompt as a line of JSON: text and token ids, key and place.

    Raises:
        CheckpointError, OutputError: as `atomic_write`.
    """
    lines = [
        {
            "length": prompt.length,
            "depth": prompt.depth,
            "trial": prompt.trial,
            "key": prompt.key,
            "prompt": prompt.text,
            "token_ids": list(prompt.token_ids),
            "answer_ids": list(prompt.answer_ids),
        }
        for prompt in prompts
    ]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    atomic_write(path, text.encode("utf-8"))


def require_accuracy(report: Report, minimum: float) -> None:
    """The gate of `--min-accuracy`, for every setting that is meant to work.

    Settings without scaling that stand beside another one are there to be compared with, and may
    be below.

    Args:
        report: of the run.
        minimum: share of keys that must be found at every length.

    Raises:
        CheckFailed: some length's accuracy is below `minimum`; all such are named.
    """
    judged = [name for name in report.cells if name not in (NONE, CONTROL)] or list(report.cells)
    low = []
    for name in judged:
        # Not `<`: a minimum that is no number is never reached.
        below = [r for r in summarise(report.cells[name]) if not r.accuracy >= minimum]
        if below:
            named = ", ".join(f"{r.accuracy:.2f} at {r.length:,}" for r in below)
            low.append(f"{name} {named}" if len(report.cells) > 1 else named)
    if low:
        raise CheckFailed(f"Accuracy is below {minimum:g}: {'; '.join(low)}.")


def control_says_the_same(report: Report) -> bool:
    """Whether there is a control, and it answered every prompt as the setting in question did."""
    first = next(iter(report.cells))
    if CONTROL not in report.cells or first == CONTROL:
        return False
    said = [{cell.place: cell.text for cell in report.cells[name]} for name in (first, CONTROL)]
    return said[0] == said[1]
