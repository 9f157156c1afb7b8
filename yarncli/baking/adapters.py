"""LoRA adapters of a baked model: the same rows are scaled as in the base model.

LoRA adds the product B·A to a projection, so the output rows of B are scaled like those of the
projection. A DoRA magnitude is scaled too, because the direction that it multiplies is normalised.
Copies of base parameters are scaled like the originals.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.baking.deciding import Baking
from yarncli.baking.dtypes import SCALABLE
from yarncli.baking.edits import TensorEdit
from yarncli.checkpoint import output, rewrite
from yarncli.checkpoint.contents import ADAPTER_CONFIG as CONFIG_NAME
from yarncli.checkpoint.contents import ADAPTER_WEIGHTS as WEIGHTS_NAME
from yarncli.checkpoint.copying import fill
from yarncli.checkpoint.files import SourceFile, walk_files
from yarncli.checkpoint.rewrite import Patch
from yarncli.checkpoint.safetensors import Header, TensorInfo, read_header
from yarncli.config import names
from yarncli.config.names import Place
from yarncli.errors import CheckpointError, OutputError, UnsupportedArchitectureError, WeightsError
from yarncli.history import FILE_NAME, History
from yarncli.history.adapters import adapter_config, adapter_history, require_plan

# Values of init_lora_weights with which loading an adapter does not change the base's weights.
_PLAIN_STARTS = (None, True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, kw_only=True)
class AdapterBaking:
    """How one adapter will change; decided before anything is written."""

    directory: Path
    """The directory of the adapter."""
    header: Header
    """The header of its weights."""
    files: tuple[SourceFile, ...]
    """All files of the directory."""
    edits: tuple[TensorEdit, ...]
    """What changes; empty if the norms of the base hold the factor."""
    history: History
    """The steps of its own `yarncli.json`, with this bake as the last."""
    notes: tuple[str, ...]
    """What a user should know about the result."""


def decide_adapter(directory: Path, baking: Baking) -> AdapterBaking:
    """Decide how an adapter of the source follows the bake.

    Args:
        directory: holds `adapter_config.json` and `adapter_model.safetensors`.
        baking: the bake of its base model.

    Raises:
        CheckpointError: there is no readable LoRA adapter, it is already baked, or it was trained
            for another setting than the base has.
        UnsupportedArchitectureError: it is another kind of adapter, or it belongs to modules that
            the base does not have.
    """
    config = adapter_config(directory)
    header = read_header(directory / WEIGHTS_NAME)
    _refuse_others(directory, config.value)
    warning = require_plan(directory, baking.checkpoint)
    base = _Base.of(baking)
    edits = [edit for info in header.tensors.values() for edit in _edits_of(info, base)]
    # An adapter has no config.json: the same step, but without replaced fields.
    done = baking.history.steps[-1]
    baked = done.baked and replace(done.baked, adapter=True)
    step = replace(done, source=directory.resolve().name, replaced=(), baked=baked)
    files = tuple(sorted(walk_files(directory.resolve()), key=lambda file: file.name))
    return AdapterBaking(
        directory=directory,
        header=header,
        files=files,
        edits=tuple(edits),
        history=adapter_history(directory).then(step),
        notes=(warning,) if warning else (),
    )


def write_adapter(adapter: AdapterBaking, destination: Path, *, overwrite: bool = False) -> None:
    """Write the scaled adapter to a new directory, completely or not at all, and read it back.

    Raises:
        UsageError: the destination is refused.
        CheckpointError: a file cannot be copied.
        OutputError: something cannot be written, or does not read back.
    """
    source = adapter.directory
    for file in adapter.files:
        if file.problem:
            raise CheckpointError(f"{source / file.name} {file.problem}. Put a real file there.")
    patches = _patches(adapter)
    with output.output_directory(destination, source=source, overwrite=overwrite) as staging:
        carried = [file for file in adapter.files if file.name != FILE_NAME]
        written = {FILE_NAME: adapter.history.to_bytes()}
        like = source / CONFIG_NAME
        fill(staging, source, carried, written, {WEIGHTS_NAME: patches}, like=like)
        made = staging / WEIGHTS_NAME
        if rewrite.first_wrong_patch(source / WEIGHTS_NAME, made, patches) is not None:
            raise OutputError(f"{WEIGHTS_NAME} does not read back as it was written. Run again.")


def is_written(adapter: AdapterBaking, destination: Path) -> bool:
    """Whether a directory holds, byte for byte, what `write_adapter` would write there."""
    source, patches = adapter.directory, _patches(adapter)
    try:
        found = {file.name for file in walk_files(destination.resolve())}
        if found != {file.name for file in adapter.files} | {FILE_NAME}:
            return False
        if (destination / FILE_NAME).read_bytes() != adapter.history.to_bytes():
            return False
        for name in found - {FILE_NAME}:
            pair = source / name, destination / name
            mine = patches if name == WEIGHTS_NAME else ()
            if rewrite.compare_outside(*pair, mine) is not None:
                return False
            if rewrite.first_wrong_patch(*pair, mine) is not None:
                return False
    except (OSError, CheckpointError):
        return False
    return True


def _patches(adapter: AdapterBaking) -> tuple[Patch, ...]:
    return tuple(patch for edit in adapter.edits for patch in edit.patches(adapter.header))


def _refuse_others(directory: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise UnsupportedArchitectureError(
            f"{directory} is a {kind} adapter, and only LoRA and DoRA adapters can be scaled. "
            "Merge it into its base model first, then bake the result."
        )
    if config.get("fan_in_fan_out"):
        raise UnsupportedArchitectureError(
            f"{directory} stores its matrices transposed (fan_in_fan_out). Merge it into its base "
            "model first, then bake the result."
        )
    if config.get("layer_replication"):
        raise UnsupportedArchitectureError(
            f"{directory} repeats layers of its base model (layer_replication), so its layers have "
            "other numbers. Merge it into its base model first, then bake the result."
        )
    start = config.get("init_lora_weights")
    if start not in _PLAIN_STARTS:
        raise UnsupportedArchitectureError(
            f"{directory} has init_lora_weights {start!r}: loading it recomputes the weights of "
            "the base, with another result after a bake. Merge it into its base model first, then "
            "bake the result."
        )
    if adapter_history(directory).baked:
        raise CheckpointError(
            f"{directory} is baked already, as its {FILE_NAME} says. Bake the adapter that it was "
            "made from."
        )


@dataclass(frozen=True, slots=True)
class _Base:
    """The base model by the places of its modules, because name prefixes differ in releases."""

    stacks: str
    """Regex of the places of its layers, if they are not the usual ones."""
    places: frozenset[Place | str]
    """The place of every module and parameter; outside the text layers its name."""
    edits: Mapping[Place, list[TensorEdit]]
    """Place of the weight → its edits."""

    @classmethod
    def of(cls, baking: Baking) -> _Base:
        stacks = "|".join(filter(None, (each.entry.stacks for each in baking.requests)))
        headers = baking.checkpoint.headers().values()
        found = {name for header in headers for name in header.tensors}
        found |= {name.rpartition(".")[0] for name in found}
        edits: dict[Place, list[TensorEdit]] = {}
        for edit in baking.edits:
            place = names.place_of(edit.weight, stacks)
            # Copies of one tensor in several shards are one edit of the adapter.
            known = edits.setdefault(place, []) if place else []
            if all((edit.rows, edit.factor) != (other.rows, other.factor) for other in known):
                known.append(edit)
        return cls(stacks, frozenset(names.key_of(name, stacks) for name in found), edits)


def _edits_of(info: TensorInfo, base: _Base) -> list[TensorEdit]:
    """The edits of one tensor of the adapter."""
    owner, part = names.in_adapter(info.name)
    place = names.place_of(owner, base.stacks)
    if names.key_of(owner, base.stacks) not in base.places and (place or _may_be_text(owner)):
        raise UnsupportedArchitectureError(
            f"{info.name} belongs to a module that the base checkpoint does not store under that "
            "name, so yarncli does not know whether it must be scaled. Merge the adapter first."
        )
    if place is None:
        return []  # vision and audio towers, embeddings, output head: only layers hold the factor
    if part is None:  # a copy of a base parameter, which replaces it
        return [_follow(info, edit) for edit in base.edits.get(place, [])]
    if part in ("lora_A", "lora_embedding_A", "lora_embedding_B"):
        return []  # the input of a projection, not its rows
    weight = base.edits.get(place._replace(rest=f"{place.rest}.weight"), [])
    return [_follow(info, edit) for edit in weight]


def _may_be_text(name: str) -> bool:
    """Whether a name outside of the known layers could be that of a part of the text model."""
    if names.is_foreign(name):
        return False
    return names.in_layer(name) is not None or names.looks_like_attention(name)


def _follow(info: TensorInfo, edit: TensorEdit) -> TensorEdit:
    """`edit` applied to a tensor of the adapter that has the same output rows."""
    width = info.shape[-1] if len(info.shape) > 1 and not edit.is_norm else 1
    rows = info.parameters // width if width else 0
    if rows != edit.rows_total or (info.dtype not in SCALABLE):
        raise WeightsError(
            f"{info.name} is {info.dtype} of shape {list(info.shape)}; it should have the "
            f"{edit.rows_total} rows of {edit.weight}, in floating point."
        )
    # An adapter is not quantised, so these are rows of the weight even if the base has scales.
    selection = replace(edit.rows, width=width)
    return replace(edit, tensor=info.name, shard=WEIGHTS_NAME, info=info, selection=selection)
