"""One set of weights under several RoPE settings: loaded once, with a model around it for each."""

from __future__ import annotations

import filecmp
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from yarncli.checkpoint.source import Checkpoint
from yarncli.evaluation.local.load import (
    LoadedModel,
    config_directory,
    load_model,
    loading_errors,
    neutralise_generation,
    quiet,
)
from yarncli.evaluation.settings import LoadSettings
from yarncli.evaluation.subjects import local_directory


class SharedWeights:
    """The weights of a checkpoint, and the models made of them."""

    def __init__(self, directory: Path, settings: LoadSettings) -> None:
        """Nothing is read yet.

        Args:
            directory: of the checkpoint.
            settings: how to load it.
        """
        self.directory = directory
        self._settings = settings
        self._first: LoadedModel | None = None

    def model(self, config: Mapping[str, Any] | None) -> LoadedModel:
        """The model under `config`, the content of config.json; None for the checkpoint's own.

        Every model is made by transformers from its config, as a converted copy would be; only the
        tensors are those of the first.

        Raises:
            CheckpointError, UsageError: as `load_model`.
        """
        first = self._first
        if first is None or not _can_share(first.model):
            self._first = load_model(self.directory, self._settings, config=config)
            return self._first
        shared: dict[str, Any] = {
            "trust_remote_code": self._settings.trust_remote_code,
            "local_files_only": True,
        }
        with (
            quiet(),
            loading_errors(self.directory),
            config_directory(self.directory, config) as read_from,
        ):
            loaded_config = AutoConfig.from_pretrained(read_from, **shared)
            model = type(first.model).from_pretrained(
                None,
                config=loaded_config,
                state_dict=first.model.state_dict(),
                dtype=first.dtype,
                attn_implementation=self._settings.attn_implementation,
            )
        model = model.to(first.device)
        neutralise_generation(model)
        return LoadedModel(
            model=model.eval(), device=first.device, dtype=first.dtype, unused=first.unused
        )


def _can_share(model: Any) -> bool:
    """Whether the model's tensors are all in one place and in no format of a quantiser."""
    return not hasattr(model, "hf_device_map") and getattr(model, "hf_quantizer", None) is None


def same_weights(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether two checkpoints on this machine have weight files of the same names and bytes."""
    mine, its = local_directory(one), local_directory(other)
    names = [sorted(f.name for f in c.files if f.is_weights) for c in (one, other)]
    return names[0] == names[1] and all(
        filecmp.cmp(mine / name, its / name, shallow=False) for name in names[0]
    )
