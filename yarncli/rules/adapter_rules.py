"""Rules on a LoRA adapter: its files, and whether it fits the base model that it names."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from yarncli.checkpoint.contents import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from yarncli.checkpoint.files import read_file
from yarncli.checkpoint.safetensors import Header, is_lfs_pointer, read_header
from yarncli.checkpoint.source import MAX_JSON_SIZE, Checkpoint, open_checkpoint
from yarncli.errors import CheckpointError, UsageError
from yarncli.history import BAKED_MARKER, History, read_history
from yarncli.history.adapters import adapter_history, misfits, other_plan, unknown_plan
from yarncli.jsontext.text import JsonText
from yarncli.rules.catalogue import RULES
from yarncli.rules.finding import Finding


def check_adapter(directory: Path) -> Iterator[Finding]:
    """Everything wrong with an adapter; the first finding says what it is.

    Args:
        directory: holds `adapter_config.json`.
    """
    where = str(directory / ADAPTER_CONFIG)
    try:
        config = JsonText.parse(read_file(Path(where), MAX_JSON_SIZE, where), where).value
        history = adapter_history(directory)
    except CheckpointError as error:
        yield _finding("unreadable", where, str(error))
        return
    header: Header | None = None
    weights = directory / ADAPTER_WEIGHTS
    if not weights.is_file():
        if not (directory / "adapter_model.bin").is_file():
            yield _finding("shard-missing", str(weights), f"{directory} has no {ADAPTER_WEIGHTS}.")
    elif weights.stat().st_size < 1024 and is_lfs_pointer(weights.read_bytes()):
        text = f"{weights} is a Git-LFS pointer; its content was not checked."
        yield _finding("lfs-pointer", str(weights), text)
    else:
        try:
            header = read_header(weights, str(weights))
        except CheckpointError as error:
            yield _finding("shard-damaged", str(weights), str(error))
    base, said = _base(config)
    kind = str(config.get("peft_type") or "PEFT")
    rank = f" of rank {config['r']}" if isinstance(config.get("r"), int) else ""
    verb = "holds" if (directory / "config.json").exists() else "is"
    yield _finding("adapter", where, f"{directory} {verb} an adapter ({kind}{rank}). {said}")
    if base is None:
        return
    mismatch = list(_baked(directory, where, history, base))
    yield from mismatch or _planned(directory, where, base)
    if header is not None:
        yield from _fit(str(weights), config, header, base)


def _base(config: Mapping[str, Any]) -> tuple[Checkpoint | None, str]:
    """The base model, if it lies here, and what to say of it."""
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        return None, "It names no base model, so only the adapter was checked."
    if "\0" in name or not Path(name).is_dir():
        return None, (
            f"Its base model {name} is not a directory here, so only the adapter was checked. PEFT "
            "looks for the base in the directory where PEFT is started, and on the Hub."
        )
    try:
        found = open_checkpoint(name, bare_hub_id=False, allow_pending=True)
    except (CheckpointError, UsageError) as error:
        return None, f"Its base model cannot be read: {error}"
    return found, f"It was checked against its base model {name}."


def _baked(directory: Path, where: str, history: History, base: Checkpoint) -> Iterator[Finding]:
    try:
        marked = base.config().get((BAKED_MARKER,)) is not None
        carries = marked or read_history(base).baked is not None
    except CheckpointError as error:
        yield _finding("unreadable", base.where("config.json"), str(error))
        return
    if carries and history.baked is None:
        yield _finding(
            "adapter-mismatch", where,
            f"The weights of {base.name} carry the attention factor (baked), and this adapter was "
            "not scaled with them. Scale it in the bake of the unbaked base, here called SOURCE: "
            f"yarncli bake SOURCE OUT --adapter {shlex.quote(str(directory))} ADAPTER_OUT.",
        )  # fmt: skip
    elif history.baked is not None and not carries:
        yield _finding(
            "adapter-mismatch", where,
            f"This adapter was scaled for a baked base, and {base.name} is not baked. Name the "
            "baked base, or use the adapter that this one was made from.",
        )  # fmt: skip


def _planned(directory: Path, where: str, base: Checkpoint) -> Iterator[Finding]:
    """Whether an adapter was trained with the setting that its base has."""
    if (directory / "config.json").exists():
        return  # the record there is the model's own
    try:
        if told := other_plan(directory, base):
            yield _finding("adapter-mismatch", where, told)
        elif told := unknown_plan(directory, base):
            yield _finding("adapter-mismatch", where, told, severe=False)
    except CheckpointError as error:
        yield _finding("unreadable", base.where("config.json"), str(error))


def _fit(
    where: str, config: Mapping[str, Any], header: Header, base: Checkpoint
) -> Iterator[Finding]:
    try:
        for text, severe in misfits(header, base, config):
            yield _finding("adapter-mismatch", where, text, severe=severe)
    except CheckpointError:
        return  # `check` of the base says what is wrong with it


def _finding(rule: str, file: str, message: str, *, severe: bool = True) -> Finding:
    found = RULES[rule]
    severity = found.severity if severe else "warning"
    return Finding(found, severity=severity, file=file, line=None, path=(), message=message)
