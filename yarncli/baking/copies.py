"""Tensors that several shards hold: loaders take different copies, so all copies change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from yarncli import hub
from yarncli.baking.edits import TensorEdit
from yarncli.checkpoint.safetensors import TensorInfo
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import WeightsError

_CHUNK = 1 << 22  # bytes compared at once


def with_copies(edits: Iterable[TensorEdit], checkpoint: Checkpoint) -> Iterator[TensorEdit]:
    """The edits, and the same edits for every further copy of their tensors.

    Bytes are read and compared only if a tensor is stored more than once.

    Raises:
        WeightsError: two copies differ, or a shard cannot be read.
        HubError: a shard cannot be fetched.
    """
    for edit in edits:
        yield edit
        for shard, header in checkpoint.headers().items():
            other = header.tensors.get(edit.tensor)
            if other is None or shard == edit.shard:
                continue
            _insist_on_equal(edit, shard, other, checkpoint)
            yield replace(edit, shard=shard, info=other)


def _insist_on_equal(
    edit: TensorEdit, shard: str, other: TensorInfo, checkpoint: Checkpoint
) -> None:
    # `find_modules` has checked that both have the same dtype and shape.
    pieces = zip(
        _pieces(checkpoint, edit.shard, edit.info),
        _pieces(checkpoint, shard, other),
        strict=True,
    )
    if any(a != b for a, b in pieces):
        raise WeightsError(
            f"{checkpoint.name} stores {edit.tensor} in {edit.shard} and with other values in "
            f"{shard}, and engines differ in which copy they load. Remove the wrong copy."
        )


def _pieces(checkpoint: Checkpoint, shard: str, info: TensorInfo) -> Iterator[bytes]:
    """The data of a stored tensor, piece by piece."""
    begin = checkpoint.headers()[shard].header_size + info.data_offsets[0]
    ranges = [
        (begin + first, min(_CHUNK, info.nbytes - first)) for first in range(0, info.nbytes, _CHUNK)
    ]
    if checkpoint.is_remote:
        assert checkpoint.repo_id is not None
        assert checkpoint.commit is not None
        for offset, length in ranges:
            yield hub.read_range(checkpoint.repo_id, checkpoint.commit, shard, offset, length)
        return
    try:
        with checkpoint.path(shard).open("rb") as file:
            for offset, length in ranges:
                file.seek(offset)
                yield file.read(length)
    except OSError as error:
        raise WeightsError(
            f"{checkpoint.where(shard)} cannot be read: {error.strerror}."
        ) from error
