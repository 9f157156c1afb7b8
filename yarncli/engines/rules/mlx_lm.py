"""mlx-lm: model files read different keys; the table says which."""

from __future__ import annotations

import shlex

from yarncli.engines.mlx import read_by_table
from yarncli.engines.types import Engine, Launch, Model, Reading


def read(model: Model) -> Reading:
    """What mlx-lm computes; it sets no limit on the length.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails while loading.
        NotSupported: it has no model file for it.
        NotKnown: nobody examined what it does with it.

    Source: mlx_lm/models/rope_utils.py, `initialize_rope`, and the model files.
    """
    return read_by_table("mlx-lm", model)


def launch(parts: Launch) -> str:
    """`mlx_lm.server`, which takes no config overrides."""
    return shlex.join(["mlx_lm.server", "--model", parts.model.source])


ENGINE = Engine(
    id="mlx-lm",
    name="mlx-lm",
    versions="0.32.2",
    basis="run",
    read=read,
    launch=launch,
    about=(
        "It takes the model file named after the outer `model_type`. Many of them leave all scaling"
        " out; most others read `rope_scaling` and top-level θ only; `type` beats `rope_type`.",
        "yarn: the scale is m(s·mscale) / m(s·mscale_all_dim) with defaults 1 and 0; "
        "`attention_factor` and `truncate` are not read, and the default of "
        "`original_max_position_embeddings` is 4096.",
        "longrope always uses the long factors and a scale from the two lengths.",
    ),
)
