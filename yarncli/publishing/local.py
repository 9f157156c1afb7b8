"""The local part of a push: the files to send and the findings about them."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from yarncli.checkpoint.contents import ADAPTER_CONFIG
from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import UsageError
from yarncli.history import History
from yarncli.publishing.gguf import GgufRepository, history_of, open_published
from yarncli.publishing.gguf_preflight import gguf_preflight, preflight_beside, refuse_options
from yarncli.publishing.options import PushOptions
from yarncli.publishing.preflight import preflight
from yarncli.publishing.selection import FileSelection, select_files
from yarncli.rules.finding import Finding


@dataclass(frozen=True)
class LocalModel:
    """What a push would send, decided without the Hub."""

    options: PushOptions
    """The options of the caller."""

    checkpoint: Checkpoint
    """The checkpoint to publish."""

    history: History
    """The steps of its record, oldest first."""

    selection: FileSelection
    """The files to send."""

    findings: tuple[Finding, ...]
    """The findings of the preflight."""

    copy_base: Checkpoint | None
    """The checkpoint on the Hub that the weights are copied from; None without `--from`."""


def prepare_local(source: str | Path | Checkpoint, options: PushOptions) -> LocalModel:
    """Open the checkpoint, choose its files, and run the preflight; nothing is sent.

    Raises:
        UsageError: options contradict each other, or `source` is not on this machine.
        CheckpointError: `source` is neither a checkpoint nor GGUF files of a model.
        HubError: the base of `--from` cannot be read.
    """
    options.require_consistent()
    _refuse_adapter(source)
    checkpoint = open_published(source)
    if isinstance(checkpoint, GgufRepository):
        refuse_options(options)
    if options.copy_from and any(file.is_weights for file in checkpoint.files):
        raise UsageError(
            f"{checkpoint.name} has its own weights, so --from cannot copy any. Leave --from "
            "out, or convert with --config-only."
        )
    selection = select_files(checkpoint, options)
    history, base = history_of(checkpoint), None
    if isinstance(checkpoint, GgufRepository):
        found = gguf_preflight(checkpoint, selection, options)
    else:
        base = _copy_base(options.copy_from, history) if options.copy_from else None
        found = preflight(checkpoint, selection, history, options, base)
        found += preflight_beside(checkpoint, selection, options)
    return LocalModel(
        options=options, checkpoint=checkpoint, history=history, selection=selection,
        findings=tuple(found), copy_base=base,
    )  # fmt: skip


def _refuse_adapter(source: str | Path | Checkpoint) -> None:
    if isinstance(source, Checkpoint):
        return
    found = set()
    with suppress(OSError):  # what is no path is refused where it is opened
        found = {name for name in ("config.json", ADAPTER_CONFIG) if Path(source, name).is_file()}
    if found == {ADAPTER_CONFIG}:
        place = shlex.quote(str(source))
        raise UsageError(
            f"{source} is an adapter, and push uploads whole models. Check the adapter with: "
            f"yarncli check {place}. Then upload it with: hf upload ORG/NAME {place}"
        )


def _copy_base(repo_id: str, history: History) -> Checkpoint:
    """The checkpoint of `--from`, at the commit that the conversion started from."""
    name = repo_id.removeprefix("hf://")
    origin = history.origin
    at = f"@{origin[1]}" if origin and origin[0] == name else ""
    return open_checkpoint(f"hf://{name}{at}")
