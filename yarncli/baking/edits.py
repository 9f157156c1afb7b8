"""Find the exact tensor rows to multiply, from headers, layout and factors."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from yarncli.baking import quantised
from yarncli.baking.dtypes import ELEMENT_SIZES, SCALABLE, rounding_bound
from yarncli.baking.layouts import Layout, LayoutEdit
from yarncli.baking.modules import BakeRequest, Module
from yarncli.baking.rows import LayerSizes, RowSelection
from yarncli.checkpoint.rewrite import Patch
from yarncli.checkpoint.safetensors import Header, TensorInfo
from yarncli.config.quantisation import Scheme
from yarncli.config.scopes import layer_override, windowed_sizes
from yarncli.errors import UnsupportedArchitectureError, UsageError, WeightsError
from yarncli.history.weights import Side
from yarncli.jsontext.fields import Fields

# Scales of a quantised KV cache: any projection may have them, and they are never multiplied.
_CACHE = ("k_scale", "v_scale", "q_scale", "output_scale")
_KV = "num_key_value_heads"
_MOST = 65_536  # heads, or numbers of one head: more than any model has, and too few to fill memory
# Side → what a tensor makes → power of the factor on it. Query times key needs the factor twice.
# "o" divides the output by the factor that scaled values ("v") bring into it.
_POWERS: dict[Side, dict[str, int]] = {
    "k": {"k": 2, "shared": 2},
    "q": {"q": 2, "shared": 2},
    "both": {"q": 1, "k": 1, "shared": 2, "v": 1, "o": -1},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorEdit:
    """Rows of one stored tensor that are multiplied by `factor`."""

    tensor: str
    """Name of the tensor that changes; a scale if the weight is quantised."""
    shard: str
    """The file that holds it."""
    info: TensorInfo
    """Its header entry."""
    selection: RowSelection
    """The rows that change."""
    factor: float
    """The multiplier."""
    power: int
    """`factor` is the attention factor to this power."""
    offset: float
    """1 for norms that multiply by 1 + w."""
    layer: int
    """Index of the layer."""
    kind: str
    """Name of the parameter within a layer, for summaries."""
    weight: str
    """Name of the multiplied weight: `tensor`, or the weight that `tensor` is a scale of."""
    rows: RowSelection
    """The selected rows of that weight."""
    rows_total: int
    """Number of rows of that weight."""
    is_norm: bool
    """Whether each element counts as a row."""

    @property
    def nbytes(self) -> int:
        """Bytes that are multiplied."""
        size = ELEMENT_SIZES[self.info.dtype]
        return self.selection.count * self.selection.width * size

    @property
    def rounding(self) -> float:
        """The largest relative rounding error of the stored values."""
        return rounding_bound(self.info.dtype, self.factor, self.offset)

    def to_json(self) -> dict[str, Any]:
        """As plain data; `rounding` is relative to the stored value."""
        return {
            "tensor": self.tensor,
            "file": self.shard,
            "dtype": self.info.dtype,
            "rows": self.rows.ranges,
            "total_rows": self.rows_total,
            "power": self.power,
            "factor": self.factor,
            "offset": self.offset,
            "rounding": self.rounding,
            "bytes": self.nbytes,
        }

    def patches(self, header: Header) -> list[Patch]:
        """The byte ranges of the shard that are multiplied."""
        from yarncli.baking.arithmetic import scaler  # numpy comes with it

        chosen, dtype = self.selection, self.info.dtype
        pieces = [chosen]
        if chosen.end - chosen.begin == chosen.period:  # one period: do not read the rows between
            ends = [(chosen.begin + start, chosen.begin + stop) for start, stop in chosen.windows]
            pieces = [
                replace(chosen, period=1, windows=((0, 1),), begin=begin, end=end)
                for begin, end in ends
            ]
        row = chosen.width * ELEMENT_SIZES[dtype]
        start = header.header_size + self.info.data_offsets[0]
        return [
            Patch(
                offset=start + piece.begin * row,
                length=(piece.end - piece.begin) * row,
                transform=scaler(dtype, self.factor, self.offset, piece, self.tensor),
                step=piece.period * row,
            )
            for piece in pieces
        ]


def find_edits(modules: Iterable[Module], request: BakeRequest) -> list[TensorEdit]:
    """Every tensor edit, after checking that all tensors are known and have the right shapes.

    Args:
        modules: the attention modules of the layers that rotate; see `find_modules`.
        request: factors, side and layout.

    Raises:
        WeightsError: a tensor is missing or has an unexpected shape or dtype.
        UnsupportedArchitectureError: the layout does not know an attention tensor, or the
            quantisation cannot hold the factor.
        UsageError: this layout does not have the side.
    """
    layout, powers = request.layout, _POWERS[request.side]
    _check_side(layout, request.side)
    edits: list[TensorEdit] = []
    for module in modules:
        factor = _factor_of(module, request)
        if factor == 1.0:
            continue
        sizes = layer_sizes(module, request)
        if layout.full_rotary and sizes.rotary_dim != sizes.head_dim:
            raise UnsupportedArchitectureError(
                f"{request.rope.model_type} rotates only {sizes.rotary_dim} of {sizes.head_dim} "
                "dimensions of a head, but its learned scales multiply all of them, so the "
                "attention factor cannot be baked. Keep it in the config."
            )
        edits += _module_edits(module, sizes, factor, powers, request)
    return edits


def _factor_of(module: Module, request: BakeRequest) -> float:
    if not module.prediction and not request.entry.stacks:
        return request.factors[module.layer]
    factors = set(request.factors.values())
    if len(factors) > 1:  # the config says nothing about extra layers
        raise UnsupportedArchitectureError(
            f"{module.where} is an extra layer (multi-token prediction), and the layers of this "
            f"{request.rope.model_type} model differ in their RoPE setting. yarncli does not "
            "know which setting the extra layer has, so nothing is baked."
        )
    return factors.pop()


def _check_side(layout: Layout, side: Side) -> None:
    sides = {edit.side for edit in layout.edits}
    if "shared" in sides and side == "q":
        raise UsageError(
            "Queries have no separate learned scale in this architecture. Use --side k."
        )
    if layout.clip and side != "both":
        raise UsageError(
            "This model clamps queries, keys and values, so all of them must be scaled. Use --side "
            "both."
        )


def layer_sizes(module: Module, request: BakeRequest) -> LayerSizes:
    """The sizes of one layer, from the config; `per_layer_config` takes precedence.

    Raises:
        ConfigError: a size is not a positive number in its range.
    """
    rope, text = request.rope, request.text
    scopes = list(rope.scopes.values())
    scope = next((s for s in scopes if module.layer in s.layers), scopes[0])
    fields = Fields(text, rope.text_path, rope.family.names)
    own = layer_override(fields, (module.layer,))
    if own is None and scope.window is not None and rope.family.scope_sizes_rule == "mla_widths":
        own = windowed_sizes(fields)

    def size(key: str, default: int) -> int:
        place = own if own is not None and own.has(key) else fields
        return place.positive(key, default, _MOST)

    family, p = rope.family, scope.parameters
    return LayerSizes(
        head_dim=p.head_dim,
        rotary_dim=p.rotary_dim,
        heads=size("num_attention_heads", rope.num_attention_heads),
        kv_heads=Fields({_KV: rope.num_key_value_heads}, rope.text_path).positive(_KV, 1, _MOST),
        heads_vary=request.entry.heads_vary,
        nope_dim=size("qk_nope_head_dim", family.qk_nope_head_dim or 0) if rope.is_mla else 0,
        kv_lora_rank=size("kv_lora_rank", 512) if rope.is_mla else 0,
        v_head_dim=size("v_head_dim", 128) if rope.is_mla else 0,
        index_head_dim=_index_head_dim(fields),
    )


def _index_head_dim(fields: Fields) -> int:
    nested = fields.mapping("sparse_attention_config")
    if nested is not None and nested.has("sparse_index_dim"):
        return nested.positive("sparse_index_dim", 1, _MOST)
    key = "index_head_dim" if fields.has("index_head_dim") else "indexer_head_dim"
    return fields.positive(key, 128, _MOST)


def _module_edits(
    module: Module,
    sizes: LayerSizes,
    factor: float,
    powers: Mapping[str, int],
    request: BakeRequest,
) -> list[TensorEdit]:
    layout = request.layout
    owners: dict[str, dict[str, tuple[str, TensorInfo]]] = {}
    for name, place in module.tensors.items():
        # bitsandbytes names its parameters below the weight: `q_proj.weight.absmax`.
        owner, inner, parameter = name.partition(".weight.")
        if not inner:
            owner, _, parameter = name.rpartition(".")
        owners.setdefault(owner, {})[f"{inner[1:]}{parameter}"] = place
    _check_schemes(module, owners, powers, request)
    _check_known(module, owners, request)
    # For each rule of the layout, multiply the rows of all owners that its regex matches.
    made: list[TensorEdit] = []
    for edit in layout.edits:
        matching = [owner for owner in owners if re.fullmatch(edit.base, owner)]
        optional = edit.optional or (request.entry.optional_keys and edit.side == "k")
        if not matching and not optional:
            raise WeightsError(
                f"{module.where}.{_label(edit.base)} is missing from these weights, so the layer "
                f"cannot be baked with the layout {layout.name!r}. The checkpoint is incomplete, "
                "or stores attention in another way."
            )
        power = powers.get(edit.side, 0)
        if power:
            for owner in matching:
                kept = request.quantisation
                scheme = kept.scheme_of(f"{module.where}.{owner}") if kept else None
                for name, parameter, selection, chosen in _rows(edit, owners[owner], sizes, scheme):
                    shard, info = owners[owner][parameter]
                    made.append(
                        TensorEdit(
                            tensor=info.name,
                            shard=shard,
                            info=info,
                            selection=selection,
                            factor=factor**power,
                            power=power,
                            offset=edit.offset,
                            layer=module.layer,
                            kind=f"{owner}.{parameter}",
                            weight=f"{module.where}.{owner}.{name}",
                            rows=chosen[0],
                            rows_total=chosen[1],
                            is_norm=edit.is_norm,
                        )
                    )
    return _merged(made)


def _check_schemes(
    module: Module,
    owners: Mapping[str, Mapping[str, tuple[str, TensorInfo]]],
    powers: Mapping[str, int],
    request: BakeRequest,
) -> None:
    """Refuse projections that a loader reads in a format that cannot be multiplied."""
    for edit in request.layout.edits:
        if edit.is_norm or "weight" not in edit.parameters or not powers.get(edit.side, 0):
            continue
        for owner, parameters in owners.items():
            if re.fullmatch(edit.base, owner):
                infos = {name: info for name, (_, info) in parameters.items()}
                quantised.check_scheme(f"{module.where}.{owner}", infos, request.quantisation)


def _check_known(
    module: Module,
    owners: Mapping[str, Mapping[str, tuple[str, TensorInfo]]],
    request: BakeRequest,
) -> None:
    """Refuse parameters that the layout does not know, and cache scales that would be too small."""
    layout = request.layout
    others = re.compile("|".join(f"(?:{other})" for other in layout.others))
    for owner, parameters in owners.items():
        known: set[str] = set()
        for edit in layout.edits:
            if re.fullmatch(edit.base, owner):
                known |= {*edit.parameters, *quantised.PARAMETERS, *_CACHE}
        for parameter, (_, info) in parameters.items():
            name = f"{owner}.{parameter}".lstrip(".")
            if parameter not in known and not (others.fullmatch(name) or others.fullmatch(owner)):
                what = quantised.stored_as({name: i for name, (_, i) in parameters.items()})
                raise UnsupportedArchitectureError(
                    f"{info.name} is a part of attention that the layout {layout.name!r} does not "
                    f"know{f' ({what})' if what else ''}. It may also need the factor, so nothing "
                    "is baked."
                )
            if is_cache_scale(name) and request.side != "q":
                raise UsageError(f"{info.name} scales cached keys, which would grow. Use --side q.")


def _label(base: str) -> str:
    """The regex of a rule as a readable name."""
    return re.sub(r"\(\?:[^()]*\)\??|\\d\+|\\", "", base).replace("|", " or ")


def is_cache_scale(name: str) -> bool:
    """Whether a parameter of an attention module holds the scale of cached keys."""
    owner, _, parameter = name.rpartition(".")
    return parameter == "k_scale" or (owner == "k_proj" and parameter == "output_scale")


def _rows(
    edit: LayoutEdit,
    parameters: Mapping[str, tuple[str, TensorInfo]],
    sizes: LayerSizes,
    scheme: Scheme | None,
) -> list[tuple[str, str, RowSelection, tuple[RowSelection, int]]]:
    """The rows that change in one owner.

    Returns:
        For each parameter that gets the factor: its name; the name and rows of the tensor to
        multiply (the parameter itself, or its scale if it is quantised); the selected rows of the
        parameter, and its number of rows.
    """
    infos = {name: info for name, (_, info) in parameters.items()}
    found: list[tuple[str, str, RowSelection, tuple[RowSelection, int]]] = []
    for name in edit.parameters:
        if name == "weight" and not edit.is_norm and quantised.is_quantised(infos):
            carried = quantised.scale_rows(infos, edit.rows, sizes, scheme)
            if carried is None:
                raise _wrong_shape(next(iter(infos.values())), sizes)
            found.append((name, *carried))
            continue
        if name not in infos:
            continue
        info = infos[name]
        # A bias is a vector; its elements belong to the rows of the matrix beside it.
        is_matrix = name == "weight" and not edit.is_norm
        if is_matrix != (len(info.shape) > 1) and not edit.is_norm:
            raise _wrong_shape(info, sizes)
        width = info.shape[-1] if is_matrix else 1
        rows = prod(info.shape) // width if width else 0
        chosen = edit.rows(sizes, rows) if rows else None
        if chosen is None:
            raise _wrong_shape(info, sizes)
        if info.dtype not in SCALABLE:
            raise UnsupportedArchitectureError(
                f"{info.name} is stored as {info.dtype}, which cannot be multiplied exactly. Bake "
                "the unquantised checkpoint and quantise the result."
            )
        found.append((name, name, replace(chosen, width=width), (chosen, rows)))
    return found


def _wrong_shape(info: TensorInfo, sizes: LayerSizes) -> WeightsError:
    return WeightsError(
        f"{info.name} has the shape {list(info.shape)}, which does not fit the config (heads "
        f"{sizes.heads}, key heads {sizes.kv_heads}, head size {sizes.head_dim}, rotating "
        f"{sizes.rotary_dim}). Nothing is baked."
    )


def _merged(edits: list[TensorEdit]) -> list[TensorEdit]:
    """Join edits of one tensor (queries and keys of a fused one) whose periods are the same."""
    made: list[TensorEdit] = []
    for edit in edits:
        for place, other in enumerate(made):
            a, b = other.selection, edit.selection
            # Patches of one tensor must not overlap, because each reads the bytes of the source.
            alike = other.tensor == edit.tensor and other.factor == edit.factor
            if alike and (a.period, a.begin, a.end) == (b.period, b.begin, b.end):
                windows = tuple(sorted(a.windows + b.windows))
                made[place] = replace(
                    other,
                    selection=replace(a, windows=windows),
                    rows=replace(other.rows, windows=windows),
                )
                break
        else:
            made.append(edit)
    return made
