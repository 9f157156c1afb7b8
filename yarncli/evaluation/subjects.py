"""What is measured: checkpoints on this machine, or a model behind a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError
from yarncli.evaluation.passkey import Decode, Grid, TextCodec, local_cells, require_memory
from yarncli.evaluation.prompts import PasskeyPrompt, PromptBuilder
from yarncli.evaluation.report import Cell
from yarncli.evaluation.server import CHAT_TOKENS, Server
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.variants import Variant, as_it_is
from yarncli.progress import ProgressCallback


@dataclass(frozen=True, kw_only=True)
class LocalSubject:
    """Checkpoints on this machine, one of each variant."""

    name: str
    """As the user gave it."""
    variants: Sequence[Variant]
    """The settings to measure, each with its checkpoint."""
    codec: TextCodec
    """The tokenizer of all settings."""
    settings: LoadSettings
    """How to load the checkpoints."""
    decode: Decode = "fast"
    """See `local_cells`."""
    warnings: Sequence[str] = ()
    """Caveats about the answers that are known before anything is asked."""
    progress: ProgressCallback | None = None
    """Called with the progress of loading."""
    _caveats: list[str] = field(default_factory=list, init=False, repr=False)

    def builder(self, grid: Grid) -> PromptBuilder:
        """The builder of the prompts; in a chat it begins the answer if that is possible."""
        self._caveats.extend(self.codec.caveats(grid.wording))
        return self.codec.builder(grid)

    def ask(self, variant: Variant, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """One cell per prompt, in order.

        Raises:
            UsageError: the model has too few positions. Otherwise as `local_cells`.
        """
        most = max((len(p.token_ids) + p.max_new_tokens for p in prompts), default=0)
        variant.require_positions(most)
        if variant.note:
            self._caveats.append(variant.note)
        asked = {
            "codec": self.codec,
            "on_caveat": self._caveats.append,
            "progress": self.progress,
            **self._loading(variant),
        }
        if variant.config_for is None:
            yield from local_cells(prompts=prompts, **asked)
            return
        for length, same in groupby(prompts, lambda prompt: prompt.length):
            config = variant.config_for(length)
            yield from local_cells(prompts=list(same), **{**asked, "config": config})

    def require_fit(self, grid: Grid) -> None:
        """Refuse prompts that are too long, before they are made. Raises as `require_memory`."""
        for variant in self.variants:
            require_memory(length=max(grid.lengths), **self._loading(variant))

    def _loading(self, variant: Variant) -> dict[str, Any]:
        """What `local_cells` and `require_memory` need to know of a variant's model."""
        assert variant.checkpoint is not None  # only what is served has none
        return {
            "directory": local_directory(variant.checkpoint),
            "settings": self.settings,
            "config": variant.config,
            "parameters": variant.checkpoint.parameters(),
            "decode": self.decode,
        }

    def record(self) -> dict[str, Any]:
        """What is recorded beside the grid, and compared when a run is resumed.

        Raises:
            UsageError: a device or dtype that does not exist.
        """
        return {
            "chat": self.codec.frame is not None,
            "frame": _frame(self.codec),
            "decode": self.decode,
            **used_settings(self._loading(self.variants[0])["directory"], self.settings),
        }

    def caveats(self) -> Sequence[str]:
        """What should be known about the answers, once they are there."""
        return list(dict.fromkeys([*self.warnings, *self._caveats]))


@dataclass(frozen=True, kw_only=True)
class ServedSubject:
    """A model behind a server: one setting, the server's."""

    name: str
    """Name of the model, as the user gave it; without one, the server's name of it."""
    server: Server
    """The connection."""
    codec: TextCodec
    """The tokenizer of the model."""
    checkpoint: Checkpoint | None = None
    """The checkpoint that the server runs; None if it is not known."""
    _caveats: list[str] = field(default_factory=list, init=False, repr=False)

    @property
    def variants(self) -> Sequence[Variant]:
        """The server's setting, as far as it is known."""
        if self.checkpoint is None:
            return [Variant(name="served", config=None, window=0, original=0, rope={})]
        return [as_it_is(self.checkpoint, "served")]

    def builder(self, grid: Grid) -> PromptBuilder:
        """Builds the prompts of `grid`; in a chat the assistant's turn is left to the server."""
        begun = not self.server.settings.chat
        if begun:
            self._caveats.extend(self.codec.caveats(grid.wording))
        return self.codec.builder(grid, answer_prefix=begun)

    def require_fit(self, grid: Grid) -> None:
        """Do nothing: the limit of a server is known only when it answers."""

    def ask(self, variant: Variant, prompts: Sequence[PasskeyPrompt]) -> Iterator[Cell]:
        """One cell per prompt, in order. Raises as `Server.cells`."""
        return self.server.cells(prompts)

    def record(self) -> dict[str, Any]:
        """What is recorded beside the grid, and compared when a run is resumed."""
        settings = self.server.settings
        return {
            "chat": self.codec.frame is not None or settings.chat,
            "frame": None if settings.chat else _frame(self.codec),
            "base_url": settings.base_url,
            "served_model": self.server.model,
            "concurrency": settings.concurrency,
        }

    def caveats(self) -> Sequence[str]:
        """What should be known about the answers, once they are there."""
        found = list(self._caveats)
        if self.server.uncounted:
            found.append(
                "The server does not report how many tokens it read (usage). If it cut a prompt, "
                "the key would count as not found."
            )
        if self.server.unfinished:
            found.append(
                f"Some answers were not complete after {CHAT_TOKENS:,} tokens and were judged as "
                "they are. Switch off the model's thinking on the server, or leave out --chat."
            )
        return found


def _frame(codec: TextCodec) -> list[str | None] | None:
    """The chat frame as it is recorded: another one makes other prompts."""
    frame = codec.frame
    return None if frame is None else [frame.before, frame.turn, frame.answer]


def used_settings(directory: Path, settings: LoadSettings) -> dict[str, Any]:
    """How a checkpoint is loaded, as it is recorded.

    The record holds the values that are used, because "auto" may differ on another machine.

    Raises:
        UsageError: a device or dtype that does not exist.
    """
    from yarncli.evaluation.local import load

    device = load.choose_device(settings.device)
    dtype = load.choose_dtype(settings.dtype, device, load.read_config(directory))
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "device": str(device),
        "attn_implementation": settings.attn_implementation,
        "adapter": settings.adapter,
    }


def local_directory(checkpoint: Checkpoint) -> Path:
    """Where the files of a checkpoint lie.

    Raises:
        CheckpointError: it is a config without weights.
    """
    if checkpoint.directory is None:
        raise CheckpointError(
            f"{checkpoint.name} is a config without weights. Give the directory of the checkpoint."
        )
    return checkpoint.directory


Subject = LocalSubject | ServedSubject
