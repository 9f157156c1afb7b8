"""An edit of a GGUF file, and the layout of the new file: its header and the source of its data."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from yarncli.checkpoint.kernel_copy import BLOCK
from yarncli.checkpoint.rewrite import Patch, Span
from yarncli.checkpoint.safetensors import RangeReader
from yarncli.errors import CheckpointError
from yarncli.gguf.header import ALIGNMENT, MAGIC, GgufHeader, GgufTensor, aligned
from yarncli.gguf.types import F32, Value, as_stored, encode, encode_value
from yarncli.gguf.walking import quoted

PADDING = "yarncli.padding"
SPLIT_TENSORS = "split.tensors.count"
_HEAD = struct.Struct("<4sIQQ")  # letters, version, number of tensors, number of keys


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor that is added, or replaces another."""

    shape: tuple[int, ...]
    """Dimensions in the order of the file."""
    type: int
    """Number of its type."""
    data: bytes = field(repr=False)

    @classmethod
    def of_floats(cls, values: Sequence[float]) -> NewTensor:
        """A tensor with one dimension of 32-bit numbers, such as `rope_freqs.weight`."""
        return cls((len(values),), F32, struct.pack(f"<{len(values)}f", *values))


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufEdit:
    """The changes to a file; everything else stays the same, byte for byte."""

    keys: Mapping[str, tuple[str, Value]] = field(default_factory=dict)
    """Key → type and value, replaced or added."""
    drop: Collection[str] = ()
    """Keys to remove."""
    tensors: Mapping[str, NewTensor] = field(default_factory=dict)
    """Name → tensor, replaced or added at the end."""
    drop_tensors: Collection[str] = ()
    """Tensors to remove."""
    patches: tuple[Patch, ...] = ()
    """Changes in the data of tensors that stay; offsets are those of the old file."""
    places: Mapping[tuple[str, str], str | None] = field(default_factory=dict)
    """("keys" or "tensors", new name) → the name before it; None: it becomes the first."""
    size: int | None = None
    """Size of the new file, bytes, if it ends inside the padding of the last tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A file as it will be. It is made as a copy, or in place."""

    header: bytes = field(repr=False)
    """All bytes before the data."""
    parts: tuple[bytes | Span, ...]
    """The data, in order: spans of the old file, and new bytes."""
    patches: tuple[Patch, ...]
    """Changes inside the spans."""

    @property
    def size(self) -> int:
        """Size of the new file, in bytes."""
        lengths = (p.end - p.begin if isinstance(p, Span) else len(p) for p in self.parts)
        return len(self.header) + sum(lengths)


def complete_edit(header: GgufHeader, edit: GgufEdit) -> GgufEdit:
    """The edit with the changes that follow from it, and values as they will be read back.

    The first file of a split model states the number of tensors in all files, so it changes too.
    """
    keys = {name: (kind, as_stored(kind, value)) for name, (kind, value) in edit.keys.items()}
    added = len(edit.tensors.keys() - header.tensors.keys()) - len(set(edit.drop_tensors))
    found = header.keys.get(SPLIT_TENSORS)
    told = SPLIT_TENSORS in edit.keys or SPLIT_TENSORS in edit.drop
    if not added or told or found is None or not isinstance(found.value, int):
        return replace(edit, keys=keys)
    return replace(edit, keys={**keys, SPLIT_TENSORS: (found.type, found.value + added)})


def make_layout(
    header: GgufHeader, edit: GgufEdit, read: RangeReader, *, padded: bool = True
) -> Layout:
    """Compute the layout of a file after an edit.

    Args:
        header: of the old file.
        edit: complete (see `complete_edit`).
        read: returns ranges of the old file; it is asked for the header only.
        padded: add the key `yarncli.padding`, so that the data move by a multiple of `BLOCK`: the
            file system can then share them with the old file, or shift them without a copy.

    Raises:
        CheckpointError: there are no tensors, or a tensor of unknown length would have to move.
    """
    if not header.tensors:
        raise CheckpointError(f"{header.where} has no tensors: it is a vocabulary without a model.")
    old = read(0, header.data_start)
    if len(old) != header.data_start:
        raise CheckpointError(f"{header.where} became shorter while it was read. Run again.")
    assert ALIGNMENT not in {*edit.keys, *edit.drop}, "the tensors would lie elsewhere"
    if padded:
        # An empty value first: only when all other parts are known is the needed length known.
        edit = replace(edit, keys={**edit.keys, PADDING: ("str", "")})
    pairs = _pairs(header, edit, old)
    infos, parts, patches = _data(header, edit, old)
    end = _HEAD.size + sum(map(len, pairs.values())) + sum(map(len, infos))
    start = aligned(end, header.alignment)
    if padded:
        # The data begin at the first position at or after `end` that equals the old one modulo the
        # block. The value of the padding key fills the gap.
        block = max(BLOCK, header.alignment)
        start = end + (header.data_start - end) % block
        pairs[PADDING] = encode(PADDING) + encode_value("str", " " * (start - end))
        end = start
    head = _HEAD.pack(MAGIC, header.version, len(infos), len(pairs))
    made = b"".join((head, *pairs.values(), *infos, bytes(start - end)))
    layout = Layout(header=made, parts=parts, patches=(*edit.patches, *patches))
    # A file may end without the padding of its last tensor; an undo has to give it back so.
    excess = 0 if edit.size is None else layout.size - edit.size
    return replace(layout, parts=_cut(parts, excess)) if excess < header.alignment else layout


def _pairs(header: GgufHeader, edit: GgufEdit, old: bytes) -> dict[str, bytes]:
    """Key → the bytes of the key and its value, in the order of the new file."""
    kept = [name for name in header.keys if name not in edit.drop]
    anchor = f"{header.architecture}.context_length"
    # New keys follow context_length, in the order of the edit, unless the edit names their place.
    last = anchor if anchor in kept else kept[-1] if kept else None
    for name in (name for name in edit.keys if name not in header.keys):
        place = edit.places.get(("keys", name), last)
        kept.insert(_after(kept, place), name)
        last = name if place == last else last
    return {
        name: encode(name) + encode_value(*edit.keys[name])
        if name in edit.keys
        else old[header.keys[name].start : header.keys[name].end]
        for name in kept
    }


def _after(names: Sequence[str], place: str | None) -> int:
    return names.index(place) + 1 if place in names else 0 if place is None else len(names)


def _data(
    header: GgufHeader, edit: GgufEdit, old: bytes
) -> tuple[list[bytes], tuple[bytes | Span, ...], list[Patch]]:
    """The entries of the tensors in the header, the parts of the data, and patches of the parts."""
    names = [name for name in header.tensors if name not in edit.drop_tensors]
    for name in (name for name in edit.tensors if name not in header.tensors):
        names.insert(_after(names, edit.places.get(("tensors", name), "")), name)
    slots = dict(_slots(header))
    infos: list[bytes] = []
    parts: list[bytes | Span] = []
    patches = []
    position = 0
    for number, name in enumerate(names):
        tensor, new = header.tensors.get(name), edit.tensors.get(name)
        if tensor is None or (new and tensor.nbytes != len(new.data)):
            assert new is not None  # every name is that of an old or of a new tensor
            # Added, or replaced by data of another length: new bytes, padded to the alignment.
            part: bytes | Span = new.data + bytes(-len(new.data) % header.alignment)
        else:
            # Kept, or replaced by data of the same length: the old bytes, overwritten by a patch.
            part = slots[name]
            if new and new.data:
                patches.append(_overwrite(header.data_start + tensor.offset, new.data))
            # The last tensor of the old file may lack padding, which it needs if another follows.
            if number + 1 < len(names) and part.end == header.file_size:
                part = _known_end(header, tensor, part)
        infos.append(_info(tensor, new, name, position, old))
        parts.append(part)
        position += part.end - part.begin if isinstance(part, Span) else len(part)
        fill = -position % header.alignment if number + 1 < len(names) else 0
        if fill:
            parts.append(bytes(fill))
            position += fill
    return infos, tuple(_merged(parts)), patches


def _slots(header: GgufHeader) -> Iterator[tuple[str, Span]]:
    """The span of each tensor in the file, including the padding after it."""
    tensors = list(header.tensors.values())
    begins = [header.data_start + tensor.offset for tensor in tensors]
    if begins and begins[0] != header.data_start:
        raise CheckpointError(
            f"{header.where} has {begins[0] - header.data_start:,} bytes before its first tensor, "
            "and llama.cpp does not load such a file. The file is damaged."
        )
    ends = [*begins[1:], header.file_size]
    for tensor, begin, end in zip(tensors, begins, ends, strict=True):
        yield tensor.name, Span(begin, end)


def _known_end(header: GgufHeader, tensor: GgufTensor, slot: Span) -> Span:
    """The span of the last tensor of the old file, so that another tensor can follow it."""
    nbytes = tensor.nbytes
    if nbytes is None:
        raise CheckpointError(
            f"Tensor {quoted(tensor.name)} of {header.where} has the {tensor.type_name}, which "
            "this yarncli does not know, so no tensor can be put after it. Use a newer yarncli."
        )
    if slot.end > slot.begin + aligned(nbytes, header.alignment):
        raise CheckpointError(
            f"{header.where} has unknown bytes after its last tensor, so no tensor "
            "can be put there. The file is damaged."
        )
    return slot


def _info(
    tensor: GgufTensor | None, new: NewTensor | None, name: str, position: int, old: bytes
) -> bytes:
    """The entry of one tensor in the header."""
    if tensor and (not new or (new.shape, new.type) == (tensor.shape, tensor.type)):
        return old[tensor.start : tensor.end - 8] + struct.pack("<Q", position)
    assert new is not None
    count = len(new.shape)
    return encode(name) + struct.pack(f"<I{count}QIQ", count, *new.shape, new.type, position)


def _overwrite(offset: int, data: bytes) -> Patch:
    return Patch(offset, length=len(data), transform=lambda _: data, step=len(data))


def _merged(parts: Sequence[bytes | Span]) -> Iterator[bytes | Span]:
    """The parts, with neighbours joined if they follow each other in the old file as well."""
    last: bytes | Span | None = None
    for part in parts:
        if isinstance(part, Span) and isinstance(last, Span) and last.end == part.begin:
            last = Span(last.begin, part.end)
        elif isinstance(part, bytes) and isinstance(last, bytes):
            last += part
        else:
            if last is not None:
                yield last
            last = part
    if last is not None:
        yield last


def _cut(parts: tuple[bytes | Span, ...], excess: int) -> tuple[bytes | Span, ...]:
    """The parts without padding at the end."""
    if excess <= 0:
        return parts
    *others, last = parts
    kept = Span(last.begin, last.end - excess) if isinstance(last, Span) else last[:-excess]
    return (*others, kept)
