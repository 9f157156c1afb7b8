"""What was done to a GGUF file, inside the file: written with each step, and taken back from.

The key `yarncli.plan` holds what `yarncli.json` holds of a checkpoint (see `history`). The parts
that a step replaces are "keys", "tensors", and of the "file" size and checksum of its header.
"""

from __future__ import annotations

import base64
import binascii
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

from yarncli.checkpoint.safetensors import RangeReader
from yarncli.errors import CheckpointError, ConfigError, UsageError
from yarncli.gguf.header import ALIGNMENT, GgufHeader, GgufTensor, parse_header
from yarncli.gguf.layout import PADDING, GgufEdit, Layout, NewTensor, complete_edit, make_layout
from yarncli.gguf.source import GgufFile
from yarncli.gguf.types import Array, Value, encode_value
from yarncli.gguf.walking import quoted
from yarncli.history import GGUF_PARTS, NO_HISTORY, History, Step
from yarncli.jsontext.changes import ABSENT, FieldChange
from yarncli.jsontext.text import JsonText

RECORD = "yarncli.plan"
_KEYS, _TENSORS, _FILE = GGUF_PARTS
_OWN_PADDING = "padding"  # in `_FILE`: the key PADDING of a file that has no record yet
_MAX_KEPT = 1 << 20  # bytes of a replaced tensor that a record keeps; rope_freqs has 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A decided change of one file."""

    layout: Layout
    """The file as it is to be."""
    header: GgufHeader
    """Its header, read from there."""
    changes: tuple[FieldChange, ...]
    """What is different: keys and tensors."""
    is_original: bool = False
    """Whether it is, byte for byte, the file of before the step that is taken back."""


def read_record(header: GgufHeader) -> History:
    """The steps that a file carries; none where it has no record.

    Raises:
        ConfigError: the record is not what yarncli writes.
    """
    if RECORD not in header.keys:
        return NO_HISTORY
    where = f"{RECORD} of {header.where}"
    text = header.text(RECORD).encode("utf-8", "surrogateescape")
    history = History.from_json(JsonText.parse(text, where).value, where, GGUF_PARTS)
    changes = [change for step in history.steps for change in step.replaced]
    if not all(len(change.path) == 1 and change.path != (ALIGNMENT,) for change in changes):
        raise ConfigError(f"{where} changes what no step of yarncli changes. Remove the key.")
    return history


def refuse_baked(header: GgufHeader) -> None:
    """Refuse a file whose attention factor a bake put where no key shows it.

    Raises:
        CheckpointError: weights, norms or scales carry one.
    """
    for step in read_record(header).steps:
        carrier = (step.options or {}).get("carrier", "key")
        if step.command == "bake" and carrier != "key":
            raise CheckpointError(
                f"{header.where} was baked already (carrier {carrier}): its keys do not show the "
                "whole attention factor any more, and another would come on top. Start again from "
                "the file of before."
            )


def decide_rewrite(file: GgufFile, edit: GgufEdit, step: Step) -> Rewrite:
    """A file with an edit, and with the record of it.

    Args:
        file: the old one, here or on the Hub.
        edit: what is to be different.
        step: what is done; the replaced values are filled in here.

    Raises:
        CheckpointError: the edit cannot be made, or could not be taken back; a damaged record; the
            file has changed since its header was read.
    """
    header, read = file.header, file.read
    edit = complete_edit(header, edit)
    changes = (*_key_changes(header, edit), *_tensor_changes(header, edit, read))
    start = read(0, header.data_start)
    before: dict[str, Any] = {
        "size": header.file_size,
        "header_sha256": sha256(start).hexdigest(),
    }
    if PADDING in header.keys and RECORD not in header.keys:  # that of an edit nobody recorded
        padding = header.keys[PADDING]
        before[_OWN_PADDING] = _to_json(padding.type, padding.value)
    told = [
        FieldChange(file=_FILE, path=(name,), before=value, after=ABSENT)
        for name, value in before.items()
    ]
    history = read_record(header).then(replace(step, replaced=(*changes, *told)))
    layout = make_layout(header, replace(edit, keys={**edit.keys, **_record(history)}), read)
    return Rewrite(layout=layout, header=_read_back(header, layout), changes=changes)


def decide_undo(file: GgufFile) -> Rewrite:
    """The file of before its last step.

    Raises:
        UsageError: the file has no record.
        CheckpointError: it does not hold what its last step left, so nothing is taken back; or as
            `decide_rewrite`.
    """
    header, read = file.header, file.read
    history = read_record(header)
    if not history.steps:
        raise UsageError(
            f"{header.where} has no record of yarncli ({RECORD}), so there is nothing to undo."
        )
    step, left = history.steps[-1], History(history.steps[:-1])
    _require_as_left(header, step)
    before = {change.path[0]: change.before for change in step.replaced if change.file == _FILE}
    size = before.get("size")
    edit = replace(_back(step, left, header.where), size=size if type(size) is int else None)
    layout = make_layout(header, edit, read, padded=bool(left.steps))
    found = (sha256(layout.header).hexdigest(), layout.size)
    wanted = (before.get("header_sha256"), size)
    return Rewrite(
        layout=layout, header=_read_back(header, layout), changes=tuple(_reversed(step)),
        is_original=found == wanted,
    )  # fmt: skip


def _read_back(header: GgufHeader, layout: Layout) -> GgufHeader:
    """The header as a reader will find it.

    Raises:
        CheckpointError: a reader would refuse it.
    """
    made = layout.header
    return parse_header(
        lambda offset, length: made[offset : offset + length],
        file_size=layout.size,
        where=f"What {header.where} would become",
    )


def _record(history: History) -> dict[str, tuple[str, Value]]:
    return {RECORD: ("str", history.to_bytes().decode())} if history.steps else {}


def _key_changes(header: GgufHeader, edit: GgufEdit) -> Iterator[FieldChange]:
    previous = None
    for name, kv in header.keys.items():
        before = {**_to_json(kv.type, kv.value), "place": previous}
        previous = name
        if name in edit.drop:
            yield FieldChange(file=_KEYS, path=(name,), before=before, after=ABSENT)
        elif name in edit.keys:
            after = _to_json(*edit.keys[name])
            if after != _to_json(kv.type, kv.value):
                yield FieldChange(file=_KEYS, path=(name,), before=before, after=after)
    for name, value in edit.keys.items():
        if name not in header.keys:
            yield FieldChange(file=_KEYS, path=(name,), before=ABSENT, after=_to_json(*value))


def _tensor_changes(header: GgufHeader, edit: GgufEdit, read: RangeReader) -> Iterator[FieldChange]:
    previous = None
    for name, tensor in header.tensors.items():
        if _is_patched(header, tensor, edit):
            # Without its data, so that what is multiplied is never taken back by half.
            same = _described(tensor)
            before = {**same, "place": previous}
            yield FieldChange(file=_TENSORS, path=(name,), before=before, after=same)
        elif name in edit.tensors or name in edit.drop_tensors:
            new = edit.tensors.get(name)
            before = {**_kept(header, tensor, read), "place": previous}
            after = _described(new) if new else ABSENT
            yield FieldChange(file=_TENSORS, path=(name,), before=before, after=after)
        previous = name
    for name, new in edit.tensors.items():
        if name not in header.tensors:
            after = _described(new)
            yield FieldChange(file=_TENSORS, path=(name,), before=ABSENT, after=after)


def _is_patched(header: GgufHeader, tensor: GgufTensor, edit: GgufEdit) -> bool:
    start = header.data_start + tensor.offset
    end = start + (tensor.nbytes or 0)
    return any(start <= patch.offset < end for patch in edit.patches)


def _to_json(kind: str, value: Value) -> dict[str, Any]:
    """A typed value as plain data; JSON has no infinities."""
    if isinstance(value, Array):
        kept = None if value.values is None else [*map(_number, value.values)]
        return {"type": kind, "of": value.type, "count": value.count, "value": kept}
    return {"type": kind, "value": value if isinstance(value, str) else _number(value)}


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else repr(value)


def _described(tensor: NewTensor | GgufTensor) -> dict[str, Any]:
    return {"type": tensor.type, "shape": list(tensor.shape)}


def _kept(header: GgufHeader, tensor: GgufTensor, read: RangeReader) -> dict[str, Any]:
    """A tensor that goes, with its data."""
    nbytes = tensor.nbytes
    if nbytes is None or nbytes > _MAX_KEPT:
        raise CheckpointError(
            f"Tensor {quoted(tensor.name)} of {header.where} is too large to be replaced or "
            "dropped: it could not be put back."
        )
    data = read(header.data_start + tensor.offset, nbytes)
    return {**_described(tensor), "data": base64.b64encode(data).decode()}


def changed_since(header: GgufHeader, step: Step) -> str | None:
    """A key or tensor that is not what a step left there; None where all are.

    Args:
        header: of the file as it is.
        step: the last one that its record has.
    """
    for change in step.replaced:
        name = str(change.path[0])
        found: Any = ABSENT
        if change.file == _KEYS and name in header.keys:
            found = _to_json(header.keys[name].type, header.keys[name].value)
        elif change.file == _TENSORS and name in header.tensors:
            found = _described(header.tensors[name])
        if change.file != _FILE and found != change.after:
            return name
    return None


def _require_as_left(header: GgufHeader, step: Step) -> None:
    """Refuse a file in which something else changed what the step wrote."""
    name = changed_since(header, step)
    if name is not None:
        raise CheckpointError(
            f"{quoted(name)} of {header.where} is not what yarncli wrote there, so something "
            "else has changed the file since, and the step cannot be undone. Start again from "
            "the file of before."
        )


def _back(step: Step, left: History, where: str) -> GgufEdit:
    """The edit that takes a step back."""
    keys: dict[str, tuple[str, Value]] = {}
    tensors: dict[str, NewTensor] = {}
    places: dict[tuple[str, str], str | None] = {}
    gone: dict[str, list[str]] = {part: [] for part in GGUF_PARTS}
    for change in step.replaced:
        name = str(change.path[0])
        if change.before is ABSENT:
            gone[change.file].append(name)
        elif change.file != _FILE or name == _OWN_PADDING:
            try:
                if change.file == _FILE:
                    keys[PADDING] = _value(change.before)
                    continue
                if change.file == _KEYS:
                    keys[name] = _value(change.before)
                else:
                    tensors[name] = _tensor(change.before)
                places[change.file, name] = change.before["place"]
            except (LookupError, TypeError, ValueError, OverflowError, binascii.Error) as error:
                raise ConfigError(
                    f"{RECORD} of {where} does not say what {quoted(name)} was before, so the step "
                    "cannot be undone. Start again from the file of before."
                ) from error
    ours = [] if left.steps else [RECORD, *([] if PADDING in keys else [PADDING])]
    drop: Collection[str] = [*gone[_KEYS], *ours]
    return GgufEdit(
        keys={**keys, **_record(left)}, drop=drop, tensors=tensors, places=places,
        drop_tensors=gone[_TENSORS],
    )  # fmt: skip


def _value(before: Mapping[str, Any]) -> tuple[str, Value]:
    kind, value = before["type"], before["value"]
    if kind == "arr":
        read = tuple(float(v) if isinstance(v, str) else v for v in value)
        found: Value = Array(before["of"], len(read), read)
    else:
        found = float(value) if isinstance(value, str) and kind in ("f32", "f64") else value
    encode_value(kind, found)  # fails on what no file can hold
    return kind, found


def _tensor(before: Mapping[str, Any]) -> NewTensor:
    shape, kind = tuple(before["shape"]), before["type"]
    data = base64.b64decode(before["data"], validate=True)
    tensor = GgufTensor(name="", shape=shape, type=kind, offset=0, start=0, end=0)
    if tensor.nbytes != len(data):
        raise ValueError("the data of a tensor do not fill it")
    return NewTensor(shape, kind, data)


def _reversed(step: Step) -> Iterator[FieldChange]:
    for change in step.replaced:
        if change.file != _FILE:
            yield replace(change, before=change.after, after=change.before)
