"""mlx-vlm: each model folder reads what it likes; the table says what."""

from __future__ import annotations

import shlex

from yarncli.engines.mlx import read_by_table
from yarncli.engines.types import Engine, Launch, Model, NotKnown, Reading


def read(model: Model) -> Reading:
    """What mlx-vlm computes; it sets no limit on the length.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails while loading.
        NotSupported: it has no folder for the model.
        NotKnown: nobody examined what it does with it.

    Source: mlx_vlm/models/rope_utils.py, `initialize_rope`; mlx_vlm/utils.py, `get_model_type`.
    """
    if model.config.get("dflash_config") is not None:
        raise NotKnown("dflash_config makes it a draft model, whose code was not examined.")
    return read_by_table("mlx-vlm", model)


def launch(parts: Launch) -> str:
    """`mlx_vlm.server`, which takes no config overrides."""
    return shlex.join(["mlx_vlm.server", "--model", parts.model.source])


ENGINE = Engine(
    id="mlx-vlm",
    name="mlx-vlm",
    versions="0.7.10",
    read=read,
    launch=launch,
    about=(
        "It takes the folder named after the outer `model_type`. Those of Qwen's multimodal models "
        "have plain M-RoPE only: they refuse or ignore every scaling.",
        "yarn and llama3 as in mlx-lm; dynamic is refused by its shared function.",
        "longrope switches between its two lists; `short_mscale` and `long_mscale` are read.",
    ),
)
