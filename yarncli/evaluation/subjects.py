"""Who is asked: checkpoints on this machine, or a model behind a server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError
from yarncli.evaluation.passkey import Decode, Grid, TextCodec, local_cells, require_memory
from yarncli.evaluation.prompts import PasskeyPrompt, PromptBuilder
from yarncli.evaluation.report import Cell
from yarncli.evaluation.server import CHAT_TOKENS, Server
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.variants import Variant, as_it_is


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
