"""One GGUF file checked, and mended through the same path as a conversion."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import Any

from yarncli.checkpoint.in_place import using
from yarncli.errors import CheckpointError, UsageError
from yarncli.gguf.contents import as_edit, count_tensors, read_contents
from yarncli.gguf.facts import Gguf, Typed
from yarncli.gguf.header import PointerError
from yarncli.gguf.in_place import change_gguf
from yarncli.gguf.intended import Intended
from yarncli.gguf.plan import GgufPlan
from yarncli.gguf.record import decide_rewrite
from yarncli.gguf.source import GgufFile, open_gguf, why_no_model
from yarncli.history import Step
from yarncli.jsontext.changes import ABSENT, FieldChange
from yarncli.rules.catalogue import RULES
from yarncli.rules.finding import Finding
from yarncli.rules.gguf_copy import mended_elsewhere
from yarncli.rules.gguf_rules import check_gguf

Found = tuple[tuple[Finding, ...], tuple[FieldChange, ...]]


def check_gguf_source(
    source: str,
    *,
    fix: bool,
    require_weights: bool,
    ignore: Collection[str],
    against: Intended | None,
) -> Found:
    """Check a GGUF file; one that holds no language model passes.

    Args:
        source: a path, or `hf://org/name/file.gguf`.
        fix: mend what can be mended with certainty.
        require_weights: whether a file that was not fetched is an error.
        ignore: ids of rules that are neither reported nor mended.
        against: the checkpoint that it should compute like.

    Returns:
        What is wrong, or still wrong, and what was changed.

    Raises:
        UsageError: `fix` on the Hub.
        HubError: the Hub cannot be reached.
        CheckpointError, OutputError: a fix cannot be written.
    """
    look = partial(_look, source, ignore, against, require_weights=require_weights)
    if not fix:
        return tuple(look()[0]), ()
    if source.startswith("hf://"):
        raise UsageError(f"{source} is on the Hub; --fix works on local files.")
    with using(source, in_place=True) as directory:
        found, opened = look()
        if opened is None or not any(finding.gguf_edit for finding in found):
            return tuple(found), ()
        file, gguf = opened
        plan, left = _mended(file, gguf, found, ignore, against)
        if not plan.keys:
            return tuple(left), ()
        step = Step(command="check", source=file.source, options={"fix": True})
        rewrite = decide_rewrite(file, as_edit(file, plan), step)
        assert directory is not None  # the file is here
        try:
            change_gguf(file, rewrite, directory)
        except CheckpointError as error:
            elsewhere = mended_elsewhere(file, gguf, plan.applied(gguf))
            raise CheckpointError(f"{error} {elsewhere}") from error
    return tuple(left), tuple(_plain(change, file.name) for change in rewrite.changes)


def _look(
    source: str, ignore: Collection[str], against: Intended | None, *, require_weights: bool
) -> tuple[list[Finding], tuple[GgufFile, Gguf] | None]:
    try:
        file = open_gguf(source)
        gguf, count = read_contents(file), count_tensors(file)
    except CheckpointError as error:
        is_pointer = isinstance(error, PointerError)
        rule = RULES["lfs-pointer" if is_pointer else "unreadable"]
        found = Finding(
            rule, severity="error" if require_weights else rule.severity, file=source, line=None,
            path=(), message=str(error),
        )  # fmt: skip
        return [] if rule.id in ignore else [found], None
    return _findings(file, gguf, count, ignore, against), (file, gguf)


def _findings(
    file: GgufFile,
    gguf: Gguf,
    count: int | None,
    ignore: Collection[str],
    against: Intended | None,
) -> list[Finding]:
    if why_no_model(file) or not gguf.tensors:
        return []
    found = check_gguf(gguf, where=file.name, against=against, tensor_count=count)
    return [finding for finding in found if finding.rule.id not in ignore]


def _mended(
    file: GgufFile,
    gguf: Gguf,
    found: list[Finding],
    ignore: Collection[str],
    against: Intended | None,
) -> tuple[GgufPlan, list[Finding]]:
    """Every edit that breaks nothing, each looked at again, and what is wrong afterwards."""
    count, tried = count_tensors(file), list[GgufPlan]()
    keys: dict[str, Typed] = {}
    while True:
        edits = (finding.gguf_edit for finding in found if finding.gguf_edit)
        edit = next((each for each in edits if each not in tried), None)
        if edit is None:
            return GgufPlan(keys=keys, drop=()), found
        tried.append(edit)
        after = edit.applied(gguf)
        left = _findings(file, after, count, ignore, against)
        if _errors(left) <= _errors(found):
            gguf, found, keys = after, left, {**keys, **edit.keys}


def _errors(findings: list[Finding]) -> int:
    return sum(finding.severity == "error" for finding in findings)


def _plain(change: FieldChange, name: str) -> FieldChange:
    """The change with bare values, under the name of the file."""
    return replace(change, file=name, before=_value(change.before), after=_value(change.after))


def _value(side: Any) -> Any:
    return side if side is ABSENT else side["value"]
