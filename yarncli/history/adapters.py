"""The record beside an adapter: the setting it was trained with, and whether a base has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.source import MAX_JSON_SIZE, Checkpoint
from yarncli.errors import CheckpointError
from yarncli.history import FILE_NAME, History, read_history
from yarncli.jsontext.text import JsonText


def adapter_history(directory: Path) -> History:
    """The steps that the yarncli.json of an adapter records; none if there is no such file.

    Raises:
        CheckpointError: the file cannot be read, or yarncli did not write it.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        return History()
    document = JsonText.parse(read_file(path, MAX_JSON_SIZE), str(path))
    return History.from_json(document.value, str(path))


def other_plan(
    directory: Path, base: Checkpoint, configs: Sequence[Mapping[str, Any] | None] = (None,)
) -> str:
    """How the record of an adapter contradicts its base, in a sentence; empty if it does not.

    Args:
        directory: the directory of the adapter.
        base: the model that the adapter is loaded on.
        configs: the content of config.json in each setting that is tried; None for that of the
            base. It is enough if one of them agrees.

    Raises:
        CheckpointError: a record or a config cannot be read.
    """
    history = adapter_history(directory)
    plan = history.plan
    if plan is None or history.baked:
        return ""
    if any(history.agrees(base.config().value if each is None else each) for each in configs):
        return ""
    return (
        f"{directory} was trained for another RoPE setting than {base.name} has: {plan.method}, "
        f"factor {plan.factor:g}, {plan.length:,} tokens. Load it on the conversion that it was "
        "trained on."
    )


def unknown_plan(directory: Path, base: Checkpoint) -> str:
    """The warning that an adapter for an extended base has no record of its setting; or "".

    Raises:
        CheckpointError: a record cannot be read.
    """
    if read_history(base).plan is None or adapter_history(directory).steps:
        return ""
    return (
        f"Nothing records which RoPE setting {directory} was trained with, and {base.name} is an "
        f"extended model. Record it with: yarncli finish {directory} --from {base.name} --adapter "
        "--in-place"
    )


def require_plan(
    directory: Path, base: Checkpoint, configs: Sequence[Mapping[str, Any] | None] = (None,)
) -> str:
    """Refuse an adapter that was trained for another setting than its base has.

    Args: as `other_plan`.

    Returns:
        The warning; empty if the record agrees, or nothing is extended.

    Raises:
        CheckpointError: the setting differs, or a record cannot be read.
    """
    if told := other_plan(directory, base, configs):
        raise CheckpointError(told)
    return unknown_plan(directory, base)
