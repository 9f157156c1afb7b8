"""Edit a GGUF file in place, without a second copy. Done only when the user asks for it."""

from __future__ import annotations

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.resizing import Resizing, resize
from yarncli.checkpoint.rewrite import Span
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.record import Rewrite
from yarncli.gguf.source import GgufFile


def change_gguf(file: GgufFile, rewrite: Rewrite, directory: Directory) -> None:
    """Change a file in place; of a split model only the first file changes.

    Args:
        file: the file, read while `directory` was locked.
        rewrite: the change that was decided for this file.
        directory: the directory of the file, locked by this process (see `in_place.changing`).

    Raises:
        UsageError: the file is on the Hub.
        CheckpointError: the file cannot be changed in place: it is a link, has several hard links,
            is in the Hub cache, is open in another process, or its tensors cannot be moved.
        OutputError: it cannot be written or read back; the old content is restored.
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
            f"The tensors of {file.name} would change their order, which cannot be done in "
            "place. Give the file to write as OUT instead."
        )
    resizing = Resizing(
        start=layout.header,
        kept=kept,
        tail=b"".join(part for part in tail if isinstance(part, bytes)),
        patches=layout.patches,
    )
    resize(directory, file.path.name, resizing, file.identity)
