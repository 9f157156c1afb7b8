"""The attention modules of a checkpoint's text model, found by the names of their tensors."""

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
    """Its index in the model; a module of multi-token prediction counts on."""
    where: str
    """The part of its tensors' names that they share."""
    prediction: bool
    """Whether it is an extra layer for multi-token prediction."""
    tensors: dict[str, tuple[str, TensorInfo]] = field(default_factory=dict)
    """Name below the module → shard, and the header's entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BakeRequest:
    """What is to be baked into which model."""

    rope: RopeConfig
    """The config as read."""
    text: Mapping[str, Any]
    """The text part of the config."""
    factors: Mapping[int, float]
    """Layer that rotates → the factor (m) that its weights take."""
    side: Side
    """Which projections take it."""
    layout: Layout
    """Which tensors those are."""
    entry: RegistryEntry
    """What else the registry knows of the model type."""
    quantisation: Quantisation | None = None
    """How a loader takes the weights for quantised; None where they are not."""


def find_modules(headers: Mapping[str, Header], request: BakeRequest) -> list[Module]:
    """The attention modules of all layers that rotate, in order.

    Raises:
        WeightsError: a layer is missing, or two shards hold one tensor in two forms.
        UnsupportedArchitectureError: attention tensors in places that are not known.
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
                    _refuse_unknown_place(info.name)  # left out, it would be silently wrong
                continue
            match = inside.fullmatch(rest)
            if match is None:
                continue
            # Some checkpoints number the layers of multi-token prediction on from the last layer.
            extra = bool(prediction.fullmatch(stack)) or number >= count
            layer = number * per_layer + int(match.groupdict().get("sub") or 0)
            where = info.name[: -len(match["name"]) - 1]
            module = found.setdefault(
                (f"{stack}{'+' if extra else ''}", layer),
                Module(layer=layer, where=where, prediction=extra),
            )
            _refuse_two_kinds(module.tensors.get(match["name"]), shard, info)
            module.tensors[match["name"]] = (shard, info)
    # Of two stacks that look like the text model, only one may be it.
    stacks = {stack for stack, _ in found if not stack.endswith("+") and usual.fullmatch(stack)}
    if len(stacks) > 1 and not entry.stacks:
        raise UnsupportedArchitectureError(
            f"The checkpoint holds several stacks of layers ({', '.join(sorted(stacks))}), and it "
            "is not known which of them is the text model. It is not baked."
        )
    _check_all_layers(found, stacks, request)
    # Extra layers and layers in places of their own have no entry in `factors`.
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
        count = request.rope.num_hidden_layers  # what transformers takes where it is silent
        needed = set(range(fields.positive("num_layers_per_stack", count, MOST_LAYERS)))
    if request.layout.shared_block and stacks:  # only some layers store the block they share
        needed = {layer for _, layer in found} & needed
    missing = [layer for stack in stacks or {""} for layer in needed if (stack, layer) not in found]
    if missing or not needed:
        layer = min(missing, default=0)
        raise WeightsError(
            f"Layer {layer} has no attention tensors of the layout {request.layout.name!r} in "
            f"these weights, but a {request.rope.model_type} model needs them. The checkpoint is "
            "incomplete, or its tensors have other names; it is not baked."
        )


def _refuse_two_kinds(known: tuple[str, TensorInfo] | None, shard: str, info: TensorInfo) -> None:
    """Which of two copies a loader takes is not known; `copies.py` compares the bytes of equals."""
    if known and (known[1].dtype, known[1].shape) != (info.dtype, info.shape):
        raise WeightsError(
            f"{info.name} is {known[1].dtype} of shape {list(known[1].shape)} in {known[0]}, and "
            f"{info.dtype} of shape {list(info.shape)} in {shard}; engines differ in which they "
            "load. Remove the one that is not the model's."
        )


def _refuse_unknown_place(name: str) -> None:
    if names.looks_like_attention(name) and not names.is_foreign(name):
        raise UnsupportedArchitectureError(
            f"{name} looks like attention, but lies outside the layers of the text model. It is "
            "not known whether it carries the temperature, so nothing is baked."
        )
