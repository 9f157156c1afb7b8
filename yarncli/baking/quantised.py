"""Where a quantised projection can carry a factor exactly: in scales that are its rows' own.

A scale may be multiplied only if every row of its group is. Formats: FP8 and INT8 with per-tensor,
per-channel or block scales; compressed-tensors' packed integers; GPTQ and AWQ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.baking.arithmetic import SCALABLE, RowSelection
from yarncli.baking.rows import LayerSizes, RowRule
from yarncli.checkpoint.safetensors import TensorInfo
from yarncli.errors import UnsupportedArchitectureError

# What stands beside a quantised weight and says nothing about its magnitude.
_COMPANIONS = frozenset(
    {"input_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "qzeros", "g_idx"}
)
_SCALES = ("weight_scale_inv", "weight_scale", "scales")
_WEIGHTS = ("weight", "weight_packed", "qweight")
PARAMETERS = _COMPANIONS | {*_SCALES, *_WEIGHTS}
_ADVICE = "Bake the unquantised checkpoint and quantise the result."


def is_quantised(parameters: Mapping[str, TensorInfo]) -> bool:
    """Whether the parameters of one projection are those of a quantised one."""
    weight = parameters.get("weight")
    if weight is not None and weight.dtype in SCALABLE:
        return any(name in parameters for name in _SCALES)
    return any(name in parameters for name in PARAMETERS)


def scale_rows(
    parameters: Mapping[str, TensorInfo],
    rule: RowRule,
    sizes: LayerSizes,
    block: int | None,
) -> tuple[str, RowSelection, tuple[RowSelection, int]] | None:
    """The scale that carries the factor of the rows that `rule` selects, and its own rows.

    Args:
        parameters: the parameters of one projection.
        rule: selects output rows.
        sizes: of the layer.
        block: rows per block scale, from the quantisation config.

    Returns:
        Name of the parameter, its own rows, and the weight's rows with their total; None where the
        rule does not fit the shape.

    Raises:
        UnsupportedArchitectureError: the factor cannot be carried exactly; says why.
    """
    weight = next((parameters[name] for name in _WEIGHTS if name in parameters), None)
    name = next((name for name in _SCALES if name in parameters), None)
    where = weight.name if weight else next(iter(parameters.values())).name
    if weight is None or name is None:
        raise _refusal(where, "it is quantised in a way that has no scale of its own")
    scale = parameters[name]
    if scale.dtype not in SCALABLE:
        raise _refusal(where, f"its scales are {scale.dtype}, which cannot hold the product")
    if weight.dtype in SCALABLE or weight.dtype not in ("F8_E4M3", "F8_E5M2", "I8", "I32"):
        raise _refusal(where, f"it is stored as {weight.dtype} with scales, an unknown format")
    # GPTQ and AWQ store one row of scales per group of inputs, one column per output.
    by_column = name == "scales"
    if by_column and len(scale.shape) != 2:
        return None
    rows = scale.shape[1] if by_column else weight.shape[0]
    chosen = rule(sizes, rows)
    if chosen is None:
        return None
    if by_column:
        # Seen as one long vector: the columns repeat in every row of scales.
        own = RowSelection(period=rows, windows=tuple(chosen.ranges), end=scale.shape[0] * rows)
    else:
        own = _by_row(scale, chosen, rows, block, where)
    return name, own, (chosen, rows)


def _by_row(
    scale: TensorInfo, chosen: RowSelection, rows: int, block: int | None, where: str
) -> RowSelection:
    shape = scale.shape or (1,)
    width = shape[1] if len(shape) == 2 else 1
    if len(shape) > 2:
        raise _refusal(where, f"its scales have the shape {list(shape)}, an unknown format")
    if shape[0] == rows and rows > 1:
        return replace(chosen, width=width)
    size = rows if shape[0] == 1 else block
    if size is None or shape[0] != -(-rows // size):
        raise _refusal(where, f"its scales have the shape {list(shape)}, an unknown format")
    windows = []
    for start, stop in chosen.ranges:
        # The last block may be smaller than the others; it ends where the rows end.
        if start % size or (stop % size and stop != rows):
            raise _refusal(
                where,
                f"one scale covers {size} rows, and only some of those are to be multiplied "
                f"(rows {start} to {stop})",
            )
        windows.append((start // size, -(-stop // size)))
    return RowSelection(period=shape[0], windows=tuple(windows), end=shape[0], width=width)


def block_rows(config: Mapping[str, Any]) -> int | None:
    """Rows per scale of a block-quantised checkpoint, from its quantisation config."""
    quantisation = config.get("quantization_config")
    if not isinstance(quantisation, Mapping):
        return None
    size = quantisation.get("weight_block_size")
    if size is None:  # compressed-tensors
        groups = quantisation.get("config_groups")
        first = next(iter(groups.values()), None) if isinstance(groups, Mapping) else None
        weights = first.get("weights") if isinstance(first, Mapping) else None
        size = weights.get("block_structure") if isinstance(weights, Mapping) else None
    rows = size[0] if isinstance(size, list) and size else None
    return rows if type(rows) is int and rows > 0 else None


def _refusal(where: str, reason: str) -> UnsupportedArchitectureError:
    return UnsupportedArchitectureError(f"{where} cannot carry the factor: {reason}. {_ADVICE}")
