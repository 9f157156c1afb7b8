"""The record in a GGUF file of what was done to it. Each step extends it; an undo reads it.

The key `yarncli.plan` holds what `yarncli.json` holds for a checkpoint (see `history`). A step
records replaced values under "keys", "tensors" and "file" (size, and checksum of the header).
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
_OWN_PADDING = "padding"  # in `_FILE`: the key PADDING, if the file had it before its first record
_MAX_KEPT = 1 << 20  # bytes of a replaced tensor that a record can keep; rope_freqs has 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """A change of one file, decided in full."""

    layout: Layout
    """Layout of the new file."""
    header: GgufHeader
    """Header of the new file, parsed from the layout."""
    changes: tuple[FieldChange, ...]
    """The keys and tensors that differ."""
    is_original: bool = False
    """Whether an undo gives back, byte for byte, the file from before the step."""


def read_record(header: GgufHeader) -> History:
    """The steps that a file records; none if it has no record.

    Raises:
        ConfigError: the record does not have the form that yarncli writes.
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
    """Refuse a file in which a bake moved the attention factor to a place that no key shows.

    Raises:
        CheckpointError: weights, norms or scales carry an attention factor.
    """
    for step in read_record(header).steps:
        carrier = (step.options or {}).get("carrier", "key")
        if step.command == "bake" and carrier != "key":
            raise CheckpointError(
                f"{header.where} was already baked (carrier {carrier}): its keys no longer show "
                "the whole attention factor, so a second factor would multiply the first. Start "
                "again from the file before the bake."
            )


def decide_rewrite(file: GgufFile, edit: GgufEdit, step: Step) -> Rewrite:
    """Decide an edit of a file together with its record.

    Args:
        file: the old file, on this machine or on the Hub.
        edit: the changes.
        step: the step to record; this function adds the replaced values.

    Raises:
        CheckpointError: the edit cannot be made or could not be undone, the record is damaged, or
            the file has changed since its header was read.
    """
    header, read = file.header, file.read
    edit = complete_edit(header, edit)
    changes = (*_key_changes(header, edit), *_tensor_changes(header, edit, read))
    start = read(0, header.data_start)
    before: dict[str, Any] = {
        "size": header.file_size,
        "header_sha256": sha256(start).hexdigest(),
    }
    if PADDING in header.keys and RECORD not in header.keys:  # padding of an edit without a record
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
    """Decide how the last step of a file is undone.

    Raises:
        UsageError: the file has no record.
        CheckpointError: the file does not hold what its last step wrote, so nothing is undone; or
            one of the reasons of `decide_rewrite`.
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
    """The new header, parsed as a reader will parse it.

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
            # The record does not keep the data of a multiplied tensor, so an undo of such a step is
            # refused instead of restoring only a part.
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
    """A tensor that is removed, with its data."""
    nbytes = tensor.nbytes
    if nbytes is None or nbytes > _MAX_KEPT:
        raise CheckpointError(
            f"Tensor {quoted(tensor.name)} of {header.where} is too large to be replaced or "
            "removed, because the record could not keep it for an undo."
        )
    data = read(header.data_start + tensor.offset, nbytes)
    return {**_described(tensor), "data": base64.b64encode(data).decode()}


def changed_since(header: GgufHeader, step: Step) -> str | None:
    """The name of a key or tensor that is not as a step left it; None if all are.

    Args:
        header: the present header of the file.
        step: the last step in its record.
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
    """Refuse a file if another program changed what the step wrote."""
    name = changed_since(header, step)
    if name is not None:
        raise CheckpointError(
            f"{quoted(name)} of {header.where} is not what yarncli wrote there. Another program "
            "has changed the file since, so the step cannot be undone. Start again from the "
            "file before that step."
        )


def _back(step: Step, left: History, where: str) -> GgufEdit:
    """The edit that undoes a step."""
    # What the step replaced comes back with its old place; what the step added is removed.
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
                    "cannot be undone. Start again from the file before that step."
                ) from error
    # With the last step goes the record itself, and the padding unless the file had some before.
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
    encode_value(kind, found)  # raises an error for a value that no file can hold
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
