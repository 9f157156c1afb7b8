"""The findings against publishing a checkpoint, made before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.safetensors import is_lfs_pointer
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckFailed, CheckpointError
from yarncli.history import History
from yarncli.hub.cards import read_metadata
from yarncli.hub.uploads import Upload
from yarncli.options import choose
from yarncli.publishing.base import Base, local_card
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.gguf_header import licence_of
from yarncli.publishing.options import ALLOWABLE, PushOptions, is_text
from yarncli.publishing.secrets import find_secrets
from yarncli.publishing.selection import README, FileSelection, is_pickle
from yarncli.rules.catalogue import RULES as CHECK_RULES
from yarncli.rules.catalogue import read_rules
from yarncli.rules.checkpoint_rules import check_weights
from yarncli.rules.finding import Finding, Severity
from yarncli.rules.sources import check_source

SCHEMA_VERSION = 1

PUSH_RULES = read_rules(Path(__file__).with_name("push_rules.json"))

_TOKENIZERS = re.compile(
    r"(tokenizer\.json|tokenizer\.model|vocab\.(json|txt)|spiece\.model|tekken\.json"
    r"|sentencepiece\.bpe\.model|.*\.tiktoken)"
)
_LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING)([._-][^/]*)?", re.IGNORECASE)
_LEGAL_FILE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|USE_POLICY)([._-][^/]*)?", re.IGNORECASE)
_POINTER_SIZE = 1024  # bytes; a Git-LFS pointer is always smaller
_MOST_SECRETS = 20  # findings reported for one file
# Findings of `check` about weights, which do not matter if no weights are sent.
_ABOUT_WEIGHTS = {"lfs-pointer", "ambiguous-weights"}
# Warnings of `check` that are errors for push, because loaders would load different weights.
_STRICTER = {"tensor-unlisted"}
_WEIGHT_RULE = re.compile(r"(shard|tensor|index)-")


class PreflightFailed(CheckFailed):
    """The preflight found errors, so nothing was sent; `findings` lists them."""

    def __init__(self, findings: tuple[Finding, ...]) -> None:
        errors = sum(found.severity == "error" for found in findings)
        super().__init__(f"{errors} error{'' if errors == 1 else 's'}. Nothing was sent.")
        self.findings = findings

    def to_json(self) -> dict[str, Any]:
        """The findings as `--json` shows them."""
        return {
            "schema_version": SCHEMA_VERSION,
            "findings": [found.to_json() for found in self.findings],
        }


def preflight(
    checkpoint: Checkpoint,
    selection: FileSelection,
    history: History,
    options: PushOptions,
    base: Checkpoint | None,
) -> list[Finding]:
    """All findings about the files to send: those of `check`, and those of push.

    Args:
        checkpoint: a local checkpoint.
        selection: the files to send.
        history: the steps of its yarncli.json.
        options: the options of the caller.
        base: the checkpoint of `copy_from`, whose weights are published; None without it.

    Raises:
        HubError: the base of `--from` cannot be read.
    """
    weightless = options.config_only or base is not None
    report = check_source(checkpoint.name, require_weights=not weightless)
    found = [f for f in report.findings if not (weightless and _is_about_weights(f))]
    found = [replace(f, severity="error") if f.rule.id in _STRICTER else f for f in found]
    for file in selection.files:
        found += about_file(checkpoint, file)
    if base is not None:
        found += _about_base(checkpoint, history, base)
    if not options.config_only:
        found += _about_whole(checkpoint, selection, base)
        if base is None and not history.origin:
            found += about_licence(checkpoint, options)
    return [*heeding(found, options.allow)]


def heeding(findings: Iterable[Finding], allow: Collection[str]) -> tuple[Finding, ...]:
    """The findings; those of rules that the user allows become warnings."""
    allowed = {choose(name, ALLOWABLE, "rule for --allow") for name in allow}
    return tuple(
        replace(found, severity="warning") if found.rule.id in allowed else found
        for found in findings
    )


def finding(
    rule: str, file: str, message: str, *, line: int | None = None, severity: Severity | None = None
) -> Finding:
    """A finding of a rule of push or of `check`."""
    kind = PUSH_RULES.get(rule) or CHECK_RULES[rule]
    return Finding(
        rule=kind, severity=severity or kind.severity, file=file, line=line, path=(),
        message=message,
    )  # fmt: skip


def told(found: Finding) -> str:
    """A finding as text. Rules of push have no page in the docs, so the text says what to do."""
    where = "" if found.file in found.message else f"{found.file}: "
    line = "" if found.line is None else f" (line {found.line})"
    mend = f" {found.rule.mend}" if found.rule.id in PUSH_RULES else ""
    return f"{where}{found.message}{line}{mend} [{found.rule.id}]"


def about_licence(
    checkpoint: Checkpoint, options: PushOptions, base: Base | None = None
) -> list[Finding]:
    """A finding if nothing states the licence: an error for a public model, else a warning.

    A licence that the base states is enough.
    """
    if base and (base.metadata.get("license") or any(map(is_licence_file, base.files))):
        return []
    if isinstance(checkpoint, GgufRepository) and licence_of(checkpoint.model_header):
        return []
    card = local_card(checkpoint)
    metadata = read_metadata(card, checkpoint.where(README)) if card else {}
    files = (file.name for file in checkpoint.files)
    if options.licence or metadata.get("license") or any(map(is_licence_file, files)):
        return []
    message = f"Nothing states the licence of {checkpoint.name}."
    severity: Severity = "error" if options.public else "warning"
    return [finding("licence-unknown", checkpoint.name, message, severity=severity)]


def is_licence_file(name: str) -> bool:
    """Whether a file states a licence."""
    return _LICENCE_FILE.fullmatch(name) is not None


def is_legal_file(name: str) -> bool:
    """Whether a licence may require this file to be included: a licence, a notice, a use policy."""
    return _LEGAL_FILE.fullmatch(name) is not None


def _is_about_weights(found: Finding) -> bool:
    return found.rule.id in _ABOUT_WEIGHTS or _WEIGHT_RULE.match(found.rule.id) is not None


def about_file(checkpoint: Checkpoint, file: SourceFile) -> Iterator[Finding]:
    """Findings about one file for every kind of model: its name, a link, a pickle, a secret."""
    where = checkpoint.where(file.name)
    if not is_text(file.name):
        yield finding("file-name", where, f"The name of {where} is not UTF-8.")
        return
    if file.problem:
        yield finding("outside-link", where, f"{where} {file.problem}.")
        return
    if is_pickle(file.name):
        yield finding("pickle", where, f"{where} may run code when it is loaded.")
    small = file.size < _POINTER_SIZE and not file.is_weights  # check finds others
    if small and is_lfs_pointer(checkpoint.read_bytes(file.name)):
        yield finding("lfs-pointer", where, f"{where} is only a Git-LFS pointer.", severity="error")
    if file.is_weights:
        return
    with Upload.of(file.name, checkpoint.path(file.name)).open() as text:
        found = list(islice(find_secrets(text), _MOST_SECRETS))
    for secret in found:
        message = f"{where} holds what looks like {secret.kind}."
        yield finding("secret", where, message, line=secret.line)


def _about_whole(
    checkpoint: Checkpoint, selection: FileSelection, base: Checkpoint | None
) -> Iterator[Finding]:
    there = (*checkpoint.files, *(base.files if base else ()))
    if not any(_TOKENIZERS.fullmatch(file.name) for file in there):
        yield finding("tokenizer-missing", checkpoint.name, f"{checkpoint.name} has no tokenizer.")
    kinds = {"pickle" if is_pickle(f.name) else f.kind for f in selection.files if f.is_weights}
    if {"pickle", "shard"} <= kinds:
        yield finding(
            "weights-twice", checkpoint.name, f"{checkpoint.name} has both safetensors and pickles."
        )


def _about_base(checkpoint: Checkpoint, history: History, base: Checkpoint) -> Iterator[Finding]:
    """Findings against using the base's weights with this checkpoint's config."""
    name = checkpoint.name
    if history.baked:
        yield finding(
            "base-baked", name, f"{name} is baked, so its weights differ from those of {base.name}."
        )
    origin = history.origin
    if origin is None:
        message = f"Nothing records that {name} was made from {base.repo_id}."
        yield finding("base-other", name, message, severity="warning")
    elif origin != (base.repo_id, base.commit):
        wrong = f"{base.repo_id}@{base.commit}"
        message = f"{name} was made from {'@'.join(origin)}, not from {wrong}."
        yield finding("base-other", name, message)
    if not base.shard_names():
        yield finding("base-other", base.name, f"{base.name} has no safetensors weights.")
    try:
        yield from check_weights(base, require_weights=True)
    except CheckpointError as error:
        yield finding("base-other", base.name, str(error))
