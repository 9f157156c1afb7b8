"""Find the attention modules of a text model by the names of their tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from yarncli.baking.layouts import Layout
from yarncli.baking.registry import RegistryEntry
from yarncli.checkpoint.safetensors import Header, TensorInfo
from yarncli.config import names
from yarncli.config.quantisation import Quantisation
from yarncli.config.reading import RopeConfig
from yarncli.config.text_model import MOST_LAYERS
from yarncli.errors import UnsupportedArchitectureError, WeightsError
from yarncli.history.weights import Side
from yarncli.jsontext.fields import Fields


@dataclass(kw_only=True)
class Module:
    """The tensors of one attention module."""

    layer: int
    """Index of its layer; layers of multi-token prediction are numbered after the others."""
    where: str
    """The common beginning of the names of its tensors."""
    prediction: bool
    """Whether it is an extra layer for multi-token prediction."""
    tensors: dict[str, tuple[str, TensorInfo]] = field(default_factory=dict)
    """Name below the module → shard and header entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeRequest:
    """What to bake into which model."""

    rope: RopeConfig
    """The config as read."""
    text: Mapping[str, Any]
    """The text part of the config."""
    factors: Mapping[int, float]
    """Index of a layer that rotates → the factor (m) for its weights."""
    side: Side
    """Which projections are multiplied."""
    layout: Layout
    """Which tensors hold these projections."""
    entry: RegistryEntry
    """The registry entry of the model type."""
    quantisation: Quantisation | None = None
    """How a loader reads quantised weights; None if they are not quantised."""


def find_modules(headers: Mapping[str, Header], request: BakeRequest) -> list[Module]:
    """The attention modules of all layers that rotate, in order.

    Raises:
        WeightsError: a layer is missing, or two shards hold one tensor in different forms.
        UnsupportedArchitectureError: there are attention tensors in unknown places.
        ConfigError: a number of layers is out of range.
    """
    layout, entry, rope = request.layout, request.entry, request.rope
    usual = re.compile(entry.stacks or names.TEXT_STACKS)
    prediction = re.compile(names.PREDICTION)
    inside = re.compile(rf"{layout.module}\.(?P<name>.+)")
    per_layer = rope.family.attentions_per_layer
    count = rope.num_hidden_layers // per_layer
    found: dict[tuple[str, int], Module] = {}
    for shard, header in headers.items():
        for info in header.tensors.values():
            stack, number, rest = names.in_layer(info.name) or ("", 0, "")
            if not (usual.fullmatch(stack) or prediction.fullmatch(stack)):
                if not (entry.beside and re.fullmatch(entry.beside, stack)):
                    _refuse_unknown_place(info.name)  # skipped, it would be silently wrong
                continue
            match = inside.fullmatch(rest)
            if match is None:
                continue
            # Some checkpoints continue the layer numbers for layers of multi-token prediction.
            extra = bool(prediction.fullmatch(stack)) or number >= count
            layer = number * per_layer + int(match.groupdict().get("sub") or 0)
            where = info.name[: -len(match["name"]) - 1]
            module = found.setdefault(
                (f"{stack}{'+' if extra else ''}", layer),
                Module(layer=layer, where=where, prediction=extra),
            )
            _refuse_two_kinds(module.tensors.get(match["name"]), shard, info)
            module.tensors[match["name"]] = (shard, info)
    # If two stacks look like the text model, only one of them can be it.
    stacks = {stack for stack, _ in found if not stack.endswith("+") and usual.fullmatch(stack)}
    if len(stacks) > 1 and not entry.stacks:
        raise UnsupportedArchitectureError(
            f"The checkpoint holds several stacks of layers ({', '.join(sorted(stacks))}), and "
            "yarncli does not know which of them is the text model. Nothing is baked."
        )
    _check_all_layers(found, stacks, request)
    # Extra layers, and layers in the places of `entry.stacks`, have no entry in `factors`.
    rotating = set(request.factors)
    return [
        module
        for (_, layer), module in sorted(found.items(), key=lambda item: item[0])
        if module.prediction or entry.stacks or layer in rotating
    ]


def _check_all_layers(
    found: Mapping[tuple[str, int], Module],
    stacks: set[str],
    request: BakeRequest,
) -> None:
    needed = {layer for layer, factor in request.factors.items() if factor != 1.0}
    if request.entry.stacks:
        fields = Fields(request.text, request.rope.text_path)
        count = request.rope.num_hidden_layers  # the default of transformers
        needed = set(range(fields.positive("num_layers_per_stack", count, MOST_LAYERS)))
    if request.layout.shared_block and stacks:  # only some layers store the block they share
        needed = {layer for _, layer in found} & needed
    missing = [layer for stack in stacks or {""} for layer in needed if (stack, layer) not in found]
    if missing or not needed:
        layer = min(missing, default=0)
        raise WeightsError(
            f"Layer {layer} has no attention tensors of the layout {request.layout.name!r} in "
            f"these weights, but a {request.rope.model_type} model needs them. The checkpoint is "
            "incomplete, or its tensors have other names. Nothing is baked."
        )


def _refuse_two_kinds(known: tuple[str, TensorInfo] | None, shard: str, info: TensorInfo) -> None:
    """Refuse two copies of different form; `copies.py` compares the bytes of the others."""
    if known and (known[1].dtype, known[1].shape) != (info.dtype, info.shape):
        raise WeightsError(
            f"{info.name} is {known[1].dtype} of shape {list(known[1].shape)} in {known[0]}, and "
            f"{info.dtype} of shape {list(info.shape)} in {shard}; engines differ in which "
            "copy they load. Remove the wrong copy."
        )


def _refuse_unknown_place(name: str) -> None:
    if names.looks_like_attention(name) and not names.is_foreign(name):
        raise UnsupportedArchitectureError(
            f"{name} looks like attention, but is outside the layers of the text model. yarncli "
            "does not know whether it needs the factor, so nothing is baked."
        )
