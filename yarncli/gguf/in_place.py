"""An edited GGUF file in the place of the old one, without a second copy: only when asked for."""

from __future__ import annotations

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.resizing import Resizing, resize
from yarncli.checkpoint.rewrite import Span
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.record import Rewrite
from yarncli.gguf.source import GgufFile


def change_gguf(file: GgufFile, rewrite: Rewrite, directory: Directory) -> None:
    """Change a file where it lies; of a split model the first file is the only one that changes.

    Args:
        file: as it is, read while `directory` was held.
        rewrite: decided for it.
        directory: that it lies in, held alone (see `in_place.changing`).

    Raises:
        UsageError: the file is on the Hub.
        CheckpointError: it must not or cannot be changed in place: a link, several hard links, the
            Hub cache, another process has it open, its tensors or its file system cannot be moved.
        OutputError: it cannot be written, or does not read back; the old file is back.
    """
    if file.path is None:
        raise UsageError(f"{file.name} is on the Hub; --in-place needs a file on this machine.")
    layout = rewrite.layout
    kept, *tail = layout.parts
    if (
        not isinstance(kept, Span)
        or kept.begin != file.header.data_start
        or any(isinstance(part, Span) for part in tail)
    ):
        raise CheckpointError(
            f"Tensors of {file.name} would have to move among each other, which is not done in "
            "place. Give the file to write, OUT, instead."
        )
    resizing = Resizing(
        start=layout.header,
        kept=kept,
        tail=b"".join(part for part in tail if isinstance(part, bytes)),
        patches=layout.patches,
    )
    resize(directory, file.path.name, resizing, file.identity)
