"""`--fix`: one edit after the other; an edit is kept if the rules then find nothing worse."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress

from yarncli.checkpoint.directory import Directory
from yarncli.checkpoint.in_place import change
from yarncli.checkpoint.source import INDEX_NAME, Checkpoint
from yarncli.errors import ConfigError
from yarncli.jsontext.changes import FieldChange, changed_fields
from yarncli.jsontext.text import JsonText
from yarncli.rules.finding import Finding

Documents = Mapping[str, JsonText]
Look = Callable[[Documents], list[Finding]]


def mend(
    checkpoint: Checkpoint,
    documents: Documents,
    findings: Sequence[Finding],
    look: Look,
    ignore: Collection[str] = (),
    *,
    directory: Directory,
) -> tuple[tuple[Finding, ...], tuple[FieldChange, ...]]:
    """Apply every edit that mends something and breaks nothing; write the files that changed.

    Args:
        checkpoint: local.
        documents: its JSON files as read.
        findings: what was found in them and in the weights.
        look: the findings of all rules that look at JSON files only.
        ignore: ids of rules that are neither reported nor mended.
        directory: the directory of the files, locked exclusively.

    Returns:
        What is still wrong, and what was changed.

    Raises:
        CheckpointError: a file is shared with others (a link, the Hub cache) and is left alone.
        OutputError: a file cannot be written; all are as they were.
    """
    before = dict(documents)
    where = checkpoint.where(INDEX_NAME)
    if checkpoint.directory and any(f.edit and f.file == where for f in findings):
        exists = checkpoint.file(INDEX_NAME) is not None
        data = checkpoint.read_bytes(INDEX_NAME, limit=1 << 30) if exists else b"{}\n"
        with suppress(ConfigError):  # an index too large to edit as text keeps its finding
            before[INDEX_NAME] = JsonText.parse(data, where)
    names = {checkpoint.where(name): name for name in before}
    first_look = look(before)
    others = [finding for finding in findings if finding not in first_look]
    files, done = before, list[Finding]()
    made: set[tuple[object, ...]] = set()
    refused: set[tuple[object, ...]] = set()  # until another edit has changed something
    waiting = [f for f in findings if f.edit and f.file in names and f.rule.id not in ignore]
    while waiting:
        finding = waiting.pop(0)
        # One rule may mend the same place twice, with another edit: once for each spelling.
        key = (finding.rule.id, finding.file, finding.path, repr(finding.edit))
        if key in made or key in refused:
            continue
        edited = _edited(files, names[finding.file], finding)
        if _errors(look(edited)) > _errors(look(files)):
            refused.add(key)
            continue
        files = edited
        done.append(finding)
        made.add(key)
        refused.clear()
        waiting = [f for f in waiting if names[f.file] == INDEX_NAME]
        waiting += [f for f in look(files) if f.edit and f.rule.id not in ignore]
    changes = _write(checkpoint, directory, before, files)
    remaining = [*(f for f in others if f not in done), *look(files)]
    return tuple(f for f in remaining if f.rule.id not in ignore), changes


def _edited(files: Documents, name: str, finding: Finding) -> dict[str, JsonText]:
    assert finding.edit is not None
    return {**files, name: files[name].edited(finding.edit.changes, finding.edit.removals)}


def _errors(findings: Sequence[Finding]) -> int:
    return sum(finding.severity == "error" for finding in findings)


def _write(
    checkpoint: Checkpoint, directory: Directory, before: Documents, after: Documents
) -> tuple[FieldChange, ...]:
    changed = [name for name, text in after.items() if text.text != before[name].text]
    # A lone config file may have any name.
    change(directory, {checkpoint.path(name).name: after[name].to_bytes() for name in changed})
    return tuple(
        change
        for name in changed
        for change in changed_fields(checkpoint.where(name), before[name], after[name])
    )
