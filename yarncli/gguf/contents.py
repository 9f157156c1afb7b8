"""Turns the header of a GGUF file into a `Gguf`, and a `GgufPlan` into an edit of the file."""

from __future__ import annotations

import struct
from typing import Any

from yarncli.errors import UnsupportedArchitectureError, WeightsError
from yarncli.gguf.facts import FREQS, LONG, SHORT, Gguf, Tensor, Typed
from yarncli.gguf.header import GgufTensor, Kv
from yarncli.gguf.layout import GgufEdit, NewTensor
from yarncli.gguf.plan import GgufPlan
from yarncli.gguf.source import GgufFile, later_shards
from yarncli.gguf.types import Array
from yarncli.gguf.walking import quoted

# The sizes that all quantisations of one model share.
_ALIKE = ("embedding_length", "block_count", "vocab_size")
_LISTS = (FREQS, LONG, SHORT)
# Sizes that the runtime reads as whole numbers; some may be given for each layer.
_SINGLE = ("block_count", "nextn_predict_layers", "vocab_size")
_COUNTS = (
    *_SINGLE, "attention.head_count", "attention.head_count_kv", "feed_forward_length",
)  # fmt: skip
_MOST = 1 << 16  # frequency factors; a head has at most 512
_FORMATS = {"F32": ("f", 4), "F16": ("e", 2)}


def read_contents(file: GgufFile) -> Gguf:
    """The keys of a file, and the tensors of all files of its model; reads no weights.

    Raises:
        CheckpointError: a file of the model is missing, damaged, or changed since it was opened.
        HubError: a range cannot be fetched.
    """
    tensors = {}
    for part in (file, *later_shards(file)):
        for name, tensor in part.header.tensors.items():
            tensors[name] = _tensor(part, name, tensor)
    found = Gguf({name: _typed(kv) for name, kv in file.header.keys.items()}, tensors)
    _require_counts(found, file.name)
    return found


def is_same_model(one: Gguf, other: Gguf) -> bool:
    """Whether two files can be quantisations of one model, by architecture and sizes."""
    return one.architecture == other.architecture and all(
        one.get(key) == other.get(key) for key in _ALIKE
    )


def count_tensors(file: GgufFile) -> int | None:
    """How many tensors all files of a split model hold; `None` for a model in one file."""
    if file.split_count == 1:
        return None
    return sum(len(part.header.tensors) for part in (file, *later_shards(file)))


def as_edit(file: GgufFile, plan: GgufPlan) -> GgufEdit:
    """The edit of a file that carries out a plan.

    Raises:
        UnsupportedArchitectureError: a tensor to replace is in a later file of the model.
    """
    header = file.header
    touched = (*plan.tensors, *plan.drop_tensors)
    if file.split_count > 1 and touched:
        for part in later_shards(file):
            found = next((name for name in touched if name in part.header.tensors), None)
            if found:
                raise UnsupportedArchitectureError(
                    f"{found} is in {part.name}, but yarncli changes only the first file of a "
                    "split model. Join the files with llama.cpp's `llama-gguf-split --merge` first."
                )
    return GgufEdit(
        keys={name: (value.type, value.value) for name, value in plan.keys.items()},
        drop=[name for name in plan.drop if name in header.keys],
        tensors={name: NewTensor.of_floats(values) for name, values in plan.tensors.items()},
        drop_tensors=plan.drop_tensors,
    )


def _require_counts(gguf: Gguf, where: str) -> None:
    """Refuse a file whose sizes are not numbers; llama.cpp does not load such a file either."""
    for key in _COUNTS:
        value = gguf.get(key)
        each = value if isinstance(value, tuple) else (value,)
        one = key in _SINGLE and isinstance(value, tuple)
        if value is not None and (one or not all(type(n) is int and 0 <= n < 2**32 for n in each)):
            raise WeightsError(
                f"The key {quoted(gguf.name(key))} of {where} is {str(value)[:80]}, which is "
                "not a size, so llama.cpp does not load the file. It is damaged."
            )


def _typed(kv: Kv) -> Typed:
    value: Any = kv.value.values if isinstance(kv.value, Array) else kv.value
    return Typed(kv.type, value)


def _tensor(file: GgufFile, name: str, tensor: GgufTensor) -> Tensor:
    values: tuple[float, ...] | None = None
    if name in _LISTS:  # the numbers of other tensors are not read
        values, length = (), tensor.nbytes or 0
        form = _FORMATS.get(tensor.type_name)
        if form and 0 < length <= _MOST:
            data = file.read(file.header.data_start + tensor.offset, length)
            values = struct.unpack(f"<{len(data) // form[1]}{form[0]}", data)
    return Tensor(tensor.type_name, tensor.shape, values)
