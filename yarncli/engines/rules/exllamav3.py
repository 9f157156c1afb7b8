"""exllamav3: `rope_scaling` as it stands in the file; YaRN's factor from the two lengths."""

from __future__ import annotations

import shlex

from yarncli.engines.loaders import is_v5_only, legacy
from yarncli.engines.shared import (
    ORIGINAL,
    factor_by_lengths,
    longrope_scale_by_lengths,
    second_hand_softmax,
)
from yarncli.engines.types import Engine, Launch, LoaderError, Model, NotKnown, Reading, Used
from yarncli.rope.parameters import RopeParameters


def read(model: Model) -> Reading:
    """What exllamav3 computes; the cache size is the limit, by default max_position_embeddings.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it computes a factor below 1.
        NotKnown: there is no rule.
    """
    if is_v5_only(model):
        raise NotKnown("yarncli has no rule for how it reads rope_parameters.")
    parameters = legacy(model, type_wins=False)
    scopes = {name: _used(model, p) for name, p in parameters.items()}
    return Reading(scopes, served_length=model.rope.max_position_embeddings)


def _used(model: Model, p: RopeParameters) -> Used:
    match p.rope_type:
        case "dynamic":
            raise LoaderError("dynamic is not supported: ValueError.")
        case "yarn":
            original = model.block("rope_scaling").get(ORIGINAL)
            if original is not None:
                p = factor_by_lengths(p, original, "the lengths")
            return Used(p, p.effective_attention_factor(), second_hand_softmax(model, p))
        case "longrope":
            return Used(p, longrope_scale_by_lengths(p))
    return Used(p)


def launch(parts: Launch) -> str:
    """TabbyAPI, the usual server around exllamav3; it takes no config overrides."""
    words = ["python", "main.py", "--model-name", parts.model.source]
    return shlex.join([*words, "--max-seq-len", str(parts.length)])


ENGINE = Engine(
    id="exllamav3",
    name="exllamav3",
    versions="2026",
    read=read,
    launch=launch,
    about=(
        "yarn: the factor is max_position_embeddings / original_max_position_embeddings wherever "
        "the latter is given; `attention_factor`, the mscale pair and `truncate` are read.",
        "dynamic is refused; longrope's `attention_factor` is not read.",
    ),
)
