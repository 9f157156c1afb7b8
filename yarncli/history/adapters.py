"""An adapter and its base: whether they fit, and the record of the setting it was trained with."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yarncli.checkpoint.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.safetensors import Header, TensorInfo
from yarncli.checkpoint.source import MAX_JSON_SIZE, Checkpoint
from yarncli.config import names
from yarncli.errors import CheckpointError
from yarncli.history import FILE_NAME, History, read_history
from yarncli.jsontext.text import JsonText

_FLOATS = ("F64", "F32", "F16", "BF16")
# For each part of an adapter, which axis of it must be as long as which axis of the weight. A
# weight has one row per output; an embedding has one row per token.
_SIDES = {
    "lora_A": (1, 1), "lora_B": (0, 0), "lora_embedding_A": (1, 0), "lora_embedding_B": (0, 1),
}  # fmt: skip


def adapter_config(directory: Path, *weights: str) -> JsonText:
    """The adapter_config.json of an adapter.

    Args:
        directory: the directory of the adapter.
        weights: names of files that can hold its weights; one of them must be there.

    Raises:
        CheckpointError: there is no adapter, or its files are missing or cannot be read.
    """
    if not directory.is_dir():
        raise CheckpointError(f"There is no directory {directory}. Give that of a LoRA adapter.")
    for wanted in ((ADAPTER_CONFIG,), weights or (ADAPTER_WEIGHTS,)):
        if not any((directory / name).is_file() for name in wanted):
            raise CheckpointError(f"{directory} is not a LoRA adapter: it has no {wanted[0]}.")
    path = directory / ADAPTER_CONFIG
    return JsonText.parse(read_file(path, MAX_JSON_SIZE), str(path))


def misfits(
    adapter: Header, base: Checkpoint, config: Mapping[str, Any]
) -> Iterator[tuple[str, bool]]:
    """Why the weights of an adapter do not fit its base: sentences, and whether PEFT would stop.

    Args:
        adapter: the header of its weights.
        base: the model that it is loaded on.
        config: the content of its adapter_config.json.

    Raises:
        CheckpointError: the base cannot be read.
    """
    if config.get("peft_type") != "LORA":
        return
    stored: dict[Any, TensorInfo] = {}
    modules = set()
    for header in base.headers().values():
        for name, info in header.tensors.items():
            stored[names.key_of(name)] = info
            modules.add(names.key_of(name.rpartition(".")[0]))
    owners = {name: names.in_adapter(name) for name in adapter.tensors}
    parts = {name: owner for name, (owner, part) in owners.items() if part}
    lost = [name for name, owner in parts.items() if names.key_of(owner) not in modules]
    if modules and lost:
        some = f"{lost[0]}" + (f" and {len(lost) - 1:,} more" if len(lost) > 1 else "")
        text = f"{some} belong to modules that {base.name} does not store under these names."
        yield text, len(lost) == len(parts)
    for name, (owner, part) in owners.items():
        mine, weight = adapter.tensors[name], stored.get(names.key_of(f"{owner}.weight"))
        if part not in _SIDES or weight is None or weight.dtype not in _FLOATS:
            continue
        if len(mine.shape) != 2 or len(weight.shape) != 2:
            continue
        ours, theirs = _SIDES[part]
        if config.get("fan_in_fan_out") and "embedding" not in part:
            theirs = 1 - theirs
        if mine.shape[ours] != weight.shape[theirs]:
            text = (
                f"{name} is {list(mine.shape)}, and {weight.name} of {base.name} is "
                f"{list(weight.shape)}: they do not fit."
            )
            yield text, True
            return  # the others of its kind do not fit either


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
    command = shlex.join(
        ["yarncli", "finish", str(directory), "--from", base.name, "--adapter", "--in-place"]
    )
    return (
        f"Nothing records which RoPE setting {directory} was trained with, and {base.name} is an "
        f"extended model. Record it with: {command}"
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
