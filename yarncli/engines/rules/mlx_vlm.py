"""mlx-vlm: model folders read different keys; the table says which."""

from __future__ import annotations

import shlex
from dataclasses import replace

from yarncli.engines.loaders import is_v5_only
from yarncli.engines.mlx import read_by_table
from yarncli.engines.shared import IGNORES_ROPE_PARAMETERS, ORIGINAL, refuse_gaps
from yarncli.engines.tables import Row, find_row, get_row
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    NotKnown,
    Reading,
    Used,
)
from yarncli.rope.parameters import RopeParameters


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
    if model.model_type == "deepseek_v4":
        return _deepseek_v4(model)
    row = get_row("mlx-vlm", model.model_type)
    if row and row.entry.get("fixed"):
        return _fixed(model, row)
    return read_by_table("mlx-vlm", model)


def _fixed(model: Model, row: Row) -> Reading:
    """The setting of a class that reads `text_config`, which no published file of its type has.

    Source: mlx_vlm/utils.py:443, `load_model`; models/molmo/config.py, `TextConfig`.

    Raises:
        NotKnown: the file has a `text_config`, or the sizes of another model.
    """
    fixed = row.entry["fixed"]
    if model.config.get("text_config") or any(model.text.get(k) != n for k, n in fixed.items()):
        raise NotKnown(
            f"{row.release} has its own sizes for {row.model_type}: hidden_size "
            f"{fixed['hidden_size']}, {fixed['num_hidden_layers']} layers. This model has others."
        )
    p = RopeParameters(
        rope_type="default",
        rope_theta=row.entry["theta"],
        head_dim=row.entry["dim"],
        max_position_embeddings=model.rope.max_position_embeddings,
    )
    note = f"takes θ {p.rope_theta:g} and heads of {p.head_dim}, whatever config.json says"
    return Reading(dict.fromkeys(model.rope.scopes, Used(p)), notes=(note,))


def _deepseek_v4(model: Model) -> Reading:
    """Plain RoPE in layers that are not compressed, yarn without a temperature in the others.

    Source: mlx_vlm/models/deepseek_v4/language.py:258-305, 822-827, 921-929.
    """
    find_row("mlx-vlm", model)
    block = model.block("rope_scaling")
    kind = str(block.get("type") or block.get("rope_type") or "default")
    if kind not in ("default", "yarn", "deepseek_yarn"):
        raise LoaderError(f"Unsupported DeepSeek-V4 RoPE type: {kind}.")
    main, compress = (
        RopeParameters(
            rope_type="default",
            rope_theta=float(model.text.get(key, theta)),
            head_dim=int(model.text["qk_rope_head_dim"]),
            max_position_embeddings=model.rope.max_position_embeddings,
        )
        for key, theta in (("rope_theta", 10000.0), ("compress_rope_theta", 160000.0))
    )
    if kind != "default":
        refuse_gaps(block, "yarn", not_null=("factor", ORIGINAL, "beta_fast", "beta_slow"))
        if ORIGINAL not in block:
            raise EngineCrash(f"yarn without {ORIGINAL}: KeyError.")
        compress = replace(
            compress,
            rope_type="yarn",
            factor=float(block["factor"]),
            original_max_position_embeddings=block[ORIGINAL],
            beta_fast=float(block.get("beta_fast", 32)),
            beta_slow=float(block.get("beta_slow", 1)),
        )
    found = {"main": Used(main), "compress": Used(compress)}
    notes = (IGNORES_ROPE_PARAMETERS,) if is_v5_only(model) else ()
    return Reading({name: found[name] for name in model.rope.scopes}, notes=notes)


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
