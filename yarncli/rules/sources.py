"""One source checked: its JSON files, its weights, and the order in which findings appear."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from yarncli.checkpoint.contents import ADAPTER_CONFIG
from yarncli.checkpoint.directory import Directory, JournalError
from yarncli.checkpoint.directory import pending as is_pending
from yarncli.checkpoint.safetensors import is_lfs_pointer
from yarncli.checkpoint.source import INDEX_NAME, Checkpoint, open_checkpoint
from yarncli.config.other_files import describe_json
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.detection import ENDING, is_gguf_source
from yarncli.jsontext.changes import FieldChange
from yarncli.jsontext.text import JsonText
from yarncli.rope.methods import METHODS
from yarncli.rules.catalogue import RULES
from yarncli.rules.config_rules import check_config, check_tokenizer
from yarncli.rules.config_view import view_config
from yarncli.rules.finding import Finding
from yarncli.rules.training_rules import check_trained

if TYPE_CHECKING:
    from yarncli.gguf.intended import Intended
    from yarncli.history import History

# A later file of a split GGUF model, which has no keys of its own.
_LATER = re.compile(r".*-(?!00001)[0-9]{5}-of-[0-9]{5}\.gguf", re.DOTALL).fullmatch
CONFIG, TOKENIZER, HISTORY = "config.json", "tokenizer_config.json", "yarncli.json"


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What checking one source gave; `changes` is what `--fix` wrote."""

    source: str
    findings: tuple[Finding, ...]
    changes: tuple[FieldChange, ...] = ()


def place_of(path: str, *, whole: bool) -> str:
    """What to check for a path the user gave: a shard or an index stands for its directory.

    Args:
        path: as given; a Hub id stays as it is.
        whole: let a config file, and a GGUF file beside one, stand for its directory as well.
    """
    if "://" in path or not path:
        return path
    file = Path(path)
    if file.suffix == ".json" and not whole and not path.endswith(".index.json"):
        return path
    if file.suffix in (".json", ".safetensors") and not file.is_dir():
        return str(file.parent)
    if whole and file.suffix == ENDING and (file.parent / CONFIG).exists():
        return str(file.parent)
    return path


def places_in(path: str, *, below: bool) -> list[str]:
    """What to check in a folder: a checkpoint and the GGUF files beside it, or what is below it.

    Below a folder that is not a checkpoint itself, checkpoints, single configs, adapters and GGUF
    files are found. Hidden folders and links are not searched. What is no folder is checked alone.

    Args:
        path: as `place_of` returned it.
        below: whether to look below a folder that is not a checkpoint itself.
    """
    folder = Path(path) if path and "\0" not in path and "://" not in path else None
    if folder is None or not folder.is_dir() or is_pending(folder):
        return [path]
    if not below and not _is_place(folder):
        return [path]
    found: list[str] = []
    for top, folders, files in os.walk(folder):
        place = Path(top)
        if _is_place(place):
            found.append(path if place == folder else str(place))
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [str(place / n) for n in sorted(files) if n.endswith(ENDING) and not _LATER(n)]
    return found or [path]


def _is_place(folder: Path) -> bool:
    """Whether a folder is a checkpoint, a config, or an adapter."""
    return (folder / CONFIG).exists() or (folder / ADAPTER_CONFIG).exists()


def check_source(
    source: str,
    *,
    fix: bool = False,
    require_weights: bool = False,
    ignore: Collection[str] = (),
    engines: Collection[str] = (),
    against: Intended | None = None,
) -> SourceReport:
    """Check a config file, a checkpoint directory, a Hub model or a GGUF file.

    Whatever is wrong with the files is a finding.

    Args:
        source: a path, or `hf://org/name`; a bare id never reaches for the network.
        fix: mend what can be mended with certainty.
        require_weights: whether weights that were not fetched are an error.
        ignore: ids of rules that are neither reported nor mended.
        engines: ids of engines whose misreadings are errors.
        against: the checkpoint that a GGUF file should compute like.

    Raises:
        UsageError: an unknown engine; `source` is neither a path nor a Hub id, or `fix` on the Hub.
        HubError: the Hub cannot be reached.
        CheckpointError, OutputError: a fix cannot be written.
    """
    if is_gguf_source(source):
        from yarncli.rules.gguf_source import check_gguf_source

        found = check_gguf_source(
            source, fix=fix, require_weights=require_weights, ignore=ignore, against=against
        )
        return SourceReport(source, *found)
    checked = partial(
        _check, source, require_weights=require_weights, ignore=ignore, engines=engines
    )
    if not fix:
        return checked(None)
    if source.startswith("hf://"):
        raise UsageError(f"{source} is on the Hub; --fix works on local files.")
    from yarncli.checkpoint.in_place import using

    try:
        with using(source, in_place=True) as directory:
            return checked(directory)
    except JournalError as error:
        return SourceReport(source, (_plain("change-pending", source, str(error)),))


def _check(
    source: str,
    directory: Directory | None,
    *,
    require_weights: bool,
    ignore: Collection[str],
    engines: Collection[str],
) -> SourceReport:
    """Check a source, and correct it if `directory`, locked for that, is given."""
    adapter = _adapter_directory(source)
    if adapter is not None:
        found = _check_adapter(adapter)
        return SourceReport(source, tuple(f for f in found if f.rule.id not in ignore))
    if _is_pending(source):
        return SourceReport(
            source, (_plain("change-pending", source, "A change was interrupted."),)
        )
    try:
        checkpoint = open_checkpoint(source, bare_hub_id=False, allow_pending=True)
    except CheckpointError as error:
        return SourceReport(source, (_unreadable(source, error),))

    def look(documents: Mapping[str, JsonText]) -> list[Finding]:
        return check_documents(checkpoint, documents, engines)

    documents, findings = _read_documents(checkpoint)
    if CONFIG in documents and (what := describe_json(documents[CONFIG].value)):
        where = checkpoint.where(CONFIG)
        told = f"{where} is no config.json of a model: it is {what}, and it was not checked."
        findings.append(replace(_plain("unreadable", where, told), severity="note"))
    findings += look(documents)
    if checkpoint.directory is not None or checkpoint.is_remote:
        from yarncli.rules.checkpoint_rules import check_weights

        try:
            findings += check_weights(checkpoint, require_weights=require_weights)
        except CheckpointError as error:
            findings.append(_unreadable(checkpoint.where(INDEX_NAME), error))
    if checkpoint.directory is not None and checkpoint.file(ADAPTER_CONFIG):
        findings += _check_adapter(checkpoint.directory)
    if directory and any(finding.edit for finding in findings):
        from yarncli.rules.fix import mend

        left, changes = mend(checkpoint, documents, findings, look, ignore, directory=directory)
        return SourceReport(source, left, changes)
    return SourceReport(source, tuple(f for f in findings if f.rule.id not in ignore))


def check_documents(
    checkpoint: Checkpoint, documents: Mapping[str, JsonText], engines: Collection[str] = ()
) -> list[Finding]:
    """The findings of all rules that look at JSON files only.

    Args:
        checkpoint: says what to call the files.
        documents: file name → content, of those that could be read.
        engines: ids of engines whose misreadings are errors.
    """
    if CONFIG not in documents:
        return []
    history = _history(checkpoint, documents)
    if isinstance(history, Finding):
        return [history]
    bakes = [step.baked for step in history.steps if step.baked and not step.baked.adapter]
    view = view_config(
        checkpoint.where(CONFIG), documents[CONFIG], _planned_maximum(history), bakes
    )
    if view is None:
        return []
    found = check_config(view)
    if TOKENIZER in documents:
        found += check_tokenizer(view, checkpoint.where(TOKENIZER), documents[TOKENIZER])
    if not history.steps:
        found += check_trained(view, checkpoint, documents.get(TOKENIZER))
    if engines:
        from yarncli.rules.engine_rules import check_engines

        found += check_engines(view, history, engines, checkpoint)
    return found


def _adapter_directory(source: str) -> Path | None:
    """The directory of the adapter that `source` is; `None` where it is none, or a model too."""
    if not source or "\0" in source or source.startswith("hf://"):
        return None
    path = Path(source)
    if path.name == ADAPTER_CONFIG and path.is_file():
        return path.parent
    is_one = (path / ADAPTER_CONFIG).is_file() and not (path / CONFIG).exists()
    return path if is_one else None


def _check_adapter(directory: Path) -> list[Finding]:
    from yarncli.rules.adapter_rules import check_adapter

    return list(check_adapter(directory))


def _is_pending(source: str) -> bool:
    return bool(source) and "\0" not in source and is_pending(Path(source))


def _read_documents(checkpoint: Checkpoint) -> tuple[dict[str, JsonText], list[Finding]]:
    documents: dict[str, JsonText] = {}
    findings: list[Finding] = []
    for name in (CONFIG, TOKENIZER, HISTORY):
        if checkpoint.file(name) is None:
            continue
        where = checkpoint.where(name)
        try:
            data = checkpoint.read_bytes(name)
            if is_lfs_pointer(data):
                findings.append(_plain("lfs-pointer", where, f"{where} was not fetched."))
            else:
                documents[name] = JsonText.parse(data, where)
        except CheckpointError as error:
            findings.append(_unreadable(where, error))
    return documents, findings


def _history(checkpoint: Checkpoint, documents: Mapping[str, JsonText]) -> History | Finding:
    from yarncli.history import History

    where = checkpoint.where(HISTORY)
    try:
        found = documents.get(HISTORY) or checkpoint.json_beside(HISTORY)
        return History.from_json(found.value, found.where) if found else History()
    except CheckpointError as error:
        return _unreadable(where, error)


def _planned_maximum(history: History) -> int | None:
    """What the last conversion wrote as maximum, if its method keeps the original one."""
    plan = history.plan
    method = METHODS.get(plan.method) if plan else None
    return plan.max_position_embeddings if plan and method and method.keeps_max else None


def _unreadable(file: str, error: CheckpointError) -> Finding:
    found = re.search(r"line (\d+)", str(error))
    return _plain("unreadable", file, str(error), int(found[1]) if found else None)


def _plain(rule: str, file: str, message: str, line: int | None = None) -> Finding:
    found = RULES[rule]
    return Finding(found, severity=found.severity, file=file, line=line, path=(), message=message)
