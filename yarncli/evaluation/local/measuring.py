"""The readers of an evaluation: one for each of its settings, of weights that are loaded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.evaluation.local import load, memory
from yarncli.evaluation.local.likelihood import TextReader
from yarncli.evaluation.local.sharing import SharedWeights, same_weights
from yarncli.evaluation.settings import LOADING, LoadSettings
from yarncli.evaluation.subjects import local_directory
from yarncli.evaluation.variants import Variant
from yarncli.progress import ProgressCallback, unmeasured


class Readers:
    """Makes the reader of a setting; those of one checkpoint share its weights."""

    def __init__(self, settings: LoadSettings, progress: ProgressCallback | None = None) -> None:
        """Nothing is loaded yet.

        Args:
            settings: how to load.
            progress: told of the stage "Loading the model".
        """
        self._settings, self._progress = settings, progress
        self._weights: list[tuple[Checkpoint, SharedWeights]] = []
        self._last: tuple[Variant, Mapping[str, Any] | None, TextReader] | None = None

    def of(self, variant: Variant, length: int) -> TextReader:
        """The reader of a setting for texts of `length` tokens.

        Raises:
            UsageError: too few positions, or too little memory, with the numbers.
            CheckpointError, UsageError: as `load_model`.
        """
        variant.require_positions(length)
        config = variant.config_for(length) if variant.config_for else variant.config
        if self._last and self._last[0] is variant and self._last[1] == config:
            return self._last[2]
        self._last = None  # let go of its model before the next is made
        assert variant.checkpoint is not None  # only what is served has none
        reader = self.reader(variant.checkpoint, config, length)
        self._last = (variant, config, reader)
        return reader

    def reader(
        self, checkpoint: Checkpoint, config: Mapping[str, Any] | None, length: int
    ) -> TextReader:
        """The reader of a checkpoint under `config`, or its own. Raises as `of`."""
        directory = local_directory(checkpoint)
        device = load.choose_device(self._settings.device)
        raw = dict(config) if config is not None else load.read_config(directory)
        dtype = load.choose_dtype(self._settings.dtype, device, raw)
        shared = self._shared(checkpoint)
        needed = memory.estimate_any(raw, checkpoint.parameters(), length, dtype, device)
        loaded = 0 if shared else needed.weights
        memory.refuse_too_much(replace(needed, weights=loaded), device, length)
        if shared is None:
            shared = SharedWeights(directory, self._settings)
            self._weights.append((checkpoint, shared))
        with memory.out_of_memory_errors(length):
            if config is None and directory != shared.directory:
                config = raw  # the weights are those of the other, the config is its own
            with unmeasured(self._progress, LOADING):
                model = shared.model(config)
            return TextReader(model, needed.chunk)

    def _shared(self, checkpoint: Checkpoint) -> SharedWeights | None:
        """The weights that are loaded already, if they are those of `checkpoint`."""
        for loaded, weights in self._weights:
            if loaded.directory == checkpoint.directory or same_weights(loaded, checkpoint):
                return weights
        return None
