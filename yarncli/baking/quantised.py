"""Which scales of a quantised projection can hold a factor exactly.

A scale may be multiplied only if all rows of its group are multiplied. Formats: FP8 and INT8 with
per-tensor, per-channel or block scales; packed integers of compressed-tensors; GPTQ and AWQ. The
config decides which format a loader reads, see `config/quantisation.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from yarncli.baking.dtypes import SCALABLE
from yarncli.baking.rows import LayerSizes, RowRule, RowSelection
from yarncli.checkpoint.safetensors import TensorInfo
from yarncli.config.quantisation import (
    ADVICE,
    BITSANDBYTES,
    KEY,
    MXFP4,
    NVFP4,
    Quantisation,
    Scheme,
)
from yarncli.errors import UnsupportedArchitectureError

# Parameters beside a quantised weight that do not change its magnitude.
_COMPANIONS = frozenset(
    {"input_scale", "weight_zero_point", "weight_shape", "weight_g_idx", "qzeros", "g_idx"}
)
_SCALES = ("weight_scale_inv", "weight_scale", "scales")
_WEIGHTS = ("weight", "weight_packed", "qweight")
PARAMETERS = _COMPANIONS | {*_SCALES, *_WEIGHTS}
_BITSANDBYTES = ("weight.absmax", "weight.quant_map", "SCB", "weight_format")


def is_quantised(parameters: Mapping[str, TensorInfo]) -> bool:
    """Whether these are the parameters of a quantised projection."""
    weight = parameters.get("weight")
    if weight is not None and weight.dtype in SCALABLE:
        return any(name in parameters for name in _SCALES)
    return any(name in parameters for name in PARAMETERS)


def stored_as(parameters: Mapping[str, TensorInfo]) -> str:
    """The name of a stored format in which no scale can hold a factor; empty for others."""
    weight = parameters.get("weight") or parameters.get("weight_packed")
    if any(name in parameters for name in _BITSANDBYTES):
        return BITSANDBYTES
    scale = next((parameters[name] for name in _SCALES if name in parameters), None)
    if weight is not None and scale is not None and weight.dtype in ("U8", "F4"):
        return NVFP4 if scale.dtype == "F8_E4M3" else MXFP4
    return ""


def check_scheme(
    module: str, parameters: Mapping[str, TensorInfo], quantisation: Quantisation | None
) -> None:
    """Check that a loader reads a projection in the stored format, and that it can be multiplied.

    Args:
        module: the full name of the projection.
        parameters: its parameters.
        quantisation: what the config says.

    Raises:
        UnsupportedArchitectureError: the message says what is stored, and why it cannot hold the
            factor.
    """
    scheme = quantisation.scheme_of(module) if quantisation else None
    stored, reason = is_quantised(parameters), ""
    if scheme is not None and scheme.takes_floats and not stored:
        return
    if scheme is not None and scheme.trouble:
        reason = scheme.trouble
    elif stored and quantisation is None:
        reason = stored_as(parameters) or (
            f"it is stored quantised, but no {KEY} says how a loader reads it"
        )
    elif stored and scheme is None:
        reason = stored_as(parameters) or (
            f"it is stored quantised, but {_where(quantisation)} leaves it in floating point"
        )
    elif scheme is not None and not stored:
        reason = (
            f"it is stored in floating point, but {_where(quantisation)} does not list it among "
            "the modules that are not quantised"
        )
    if reason:
        raise _refusal(f"{module}.weight", reason)


def _where(quantisation: Quantisation | None) -> str:
    return quantisation.where if quantisation else KEY


def scale_rows(
    parameters: Mapping[str, TensorInfo],
    rule: RowRule,
    sizes: LayerSizes,
    scheme: Scheme | None,
) -> tuple[str, RowSelection, tuple[RowSelection, int]] | None:
    """The scale for the rows that `rule` selects, and the rows of the scale.

    Args:
        parameters: the parameters of one projection.
        rule: the rule that selects output rows.
        sizes: the sizes of the layer.
        scheme: the format in which a loader reads it.

    Returns:
        The name of the scale, its rows, and the rows of the weight with their total; None if the
        rule does not fit the shape.

    Raises:
        UnsupportedArchitectureError: no scale can hold the factor exactly; the message says why.
    """
    weight = next((parameters[name] for name in _WEIGHTS if name in parameters), None)
    name = next((name for name in _SCALES if name in parameters), None)
    where = weight.name if weight else next(iter(parameters.values())).name
    if weight is None or name is None:
        raise _refusal(where, "it is quantised and has no scale of its own")
    scale = parameters[name]
    if scale.dtype not in SCALABLE:
        raise _refusal(where, f"its scales are {scale.dtype}, which cannot hold the product")
    if weight.dtype in SCALABLE or weight.dtype not in ("F8_E4M3", "F8_E5M2", "I8", "I32"):
        raise _refusal(where, f"it is stored as {weight.dtype} with scales, an unknown format")
    if not (weight.parameters and scale.parameters):
        return None
    # GPTQ and AWQ store one row of scales per group of inputs, one column per output.
    by_column = name == "scales"
    if by_column and len(scale.shape) != 2:
        return None
    rows = scale.shape[1] if by_column else weight.shape[0]
    chosen = rule(sizes, rows)
    if chosen is None:
        return None
    if by_column:
        # Read the matrix as one long vector, in which the columns repeat in every row of scales.
        own = RowSelection(period=rows, windows=tuple(chosen.ranges), end=scale.shape[0] * rows)
    else:
        own = _by_row(scale, chosen, rows, scheme.block if scheme else None, where)
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


def _refusal(where: str, reason: str) -> UnsupportedArchitectureError:
    return UnsupportedArchitectureError(f"{where} cannot hold the factor: {reason}. {ADVICE}")
