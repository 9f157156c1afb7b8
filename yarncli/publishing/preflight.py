"""Everything that speaks against publishing a checkpoint, found before a byte leaves."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from yarncli.checkpoint.files import SourceFile
from yarncli.checkpoint.safetensors import is_lfs_pointer
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError
from yarncli.history import Step
from yarncli.publishing.record import origin_of
from yarncli.publishing.selection import Selection, is_pickle
from yarncli.rules.catalogue import RULES as CHECK_RULES
from yarncli.rules.checkpoint_rules import check_weights
from yarncli.rules.finding import Finding, Rule, Severity
from yarncli.rules.sources import check_source

RULES = {
    rule.id: rule
    for rule in (
        Rule(
            "outside-link",
            "error",
            "A file is a link out of the checkpoint, or no regular file",
            "The content of a file that is not part of the model would be published.",
            "Remove it, or put a real file there.",
        ),
        Rule(
            "pickle",
            "error",
            "A file may run code when it is loaded",
            "Pickled weights run code on the machine of everybody who loads them.",
            "Convert it to safetensors, leave it out (--exclude), or insist with --allow-pickle.",
        ),
        Rule(
            "secret",
            "error",
            "A file holds what looks like an access token or a private key",
            "Everybody who can read the repository could use it, in all later versions too.",
            "Remove it from the file, and revoke it if it was ever published.",
        ),
        Rule(
            "tokenizer-missing",
            "warning",
            "There is no tokenizer",
            "Nobody can load the model without finding the right tokenizer elsewhere.",
            "Copy the tokenizer files of the base model.",
        ),
        Rule(
            "licence-unknown",
            "warning",
            "Nothing says under which licence the model may be used",
            "Nobody may use a model that states no licence. An error in a public repository.",
            "Give --license, or write `license:` into the metadata of README.md.",
        ),
        Rule(
            "weights-twice",
            "warning",
            "The weights are there as safetensors and as pickles",
            "Loaders differ in which they take, and the pickles may be of another state.",
            "Leave the pickles out with --exclude '*.bin'.",
        ),
        Rule(
            "base-baked",
            "error",
            "The weights of a baked checkpoint are not those of its base",
            "--from would publish a config without temperature over weights without it.",
            "Push without --from.",
        ),
        Rule(
            "base-other",
            "error",
            "The checkpoint was not made from what --from names",
            "The config would be published over the weights of another model.",
            "Make sure that --from names the model that the config was made from.",
        ),
        Rule(
            "base-gated",
            "warning",
            "The base model is gated and the target is public",
            "Its licence may forbid to hand it on without the same conditions.",
            "Read the licence of the base; gate the repository in its settings.",
        ),
    )
}

_TOKENIZERS = re.compile(
    r"(tokenizer\.json|tokenizer\.model|vocab\.(json|txt)|spiece\.model|tekken\.json"
    r"|sentencepiece\.bpe\.model|.*\.tiktoken)"
)
_LICENCE_FILE = re.compile(r"(LICEN[CS]E|COPYING)([._-][^/]*)?", re.IGNORECASE)
_LEGAL_FILE = re.compile(r"(LICEN[CS]E|COPYING|NOTICE|USE_POLICY)([._-][^/]*)?", re.IGNORECASE)
_SECRET = re.compile(
    rb"\bhf_[A-Za-z0-9]{30,}\b|\bgh[pousr]_[A-Za-z0-9]{36,}\b|\bgithub_pat_\w{50,}\b"
    rb"|\bsk-[A-Za-z0-9_-]{40,}|\bAKIA[0-9A-Z]{16}\b|\bxox[abprs]-[A-Za-z0-9-]{20,}"
    rb"|\bAIza[A-Za-z0-9_-]{35}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_TEXT = re.compile(
    r"\.(json|jsonl|ipynb|md|txt|log|csv|tsv|py|ya?ml|toml|cfg|conf|ini|sh|jinja|html|xml)$"
    r"|(^|/)[^.]+$",
    re.IGNORECASE,
)
_MAX_TEXT = 1 << 20  # bytes; larger texts are vocabularies and results
_POINTER_SIZE = 1024  # bytes; a Git-LFS pointer is always smaller
_VOCABULARY = {"tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"}
# What `check` says of weights does not matter where none are sent.
_ABOUT_WEIGHTS = {"lfs-pointer", "ambiguous-weights"}
# What `check` warns of and what must not be published: loaders would differ in what they load.
_STRICTER = {"tensor-unlisted"}
_WEIGHT_RULE = re.compile(r"(shard|tensor|index)-")


@dataclass(frozen=True)
class Wanted:
    """The choices that decide what counts as wrong.

    `base` is the checkpoint of `--from`, whose weights are published instead of local ones.
    """

    config_only: bool = False
    allow_pickle: bool = False
    base: Checkpoint | None = None


def preflight(
    checkpoint: Checkpoint, selection: Selection, steps: tuple[Step, ...], wanted: Wanted
) -> list[Finding]:
    """All findings about what is to be sent: those of `check`, and push's own.

    Args:
        checkpoint: a local one.
        selection: the files to send.
        steps: of its yarncli.json.
        wanted: what was asked for.

    Raises:
        HubError: the base of `--from` cannot be read.
    """
    weightless = wanted.config_only or wanted.base is not None
    report = check_source(checkpoint.name, require_weights=not weightless)
    found = [f for f in report.findings if not (weightless and _is_about_weights(f))]
    found = [replace(f, severity="error") if f.rule.id in _STRICTER else f for f in found]
    for file in selection.files:
        found += _about_file(checkpoint, file, wanted)
    if wanted.base is not None:
        found += _about_base(checkpoint, steps, wanted.base)
    if not wanted.config_only:
        found += _about_whole(checkpoint, selection, wanted)
    return found


def finding(
    rule: str, file: str, message: str, *, line: int | None = None, severity: Severity | None = None
) -> Finding:
    """A finding of one of this module's rules."""
    kind = RULES[rule]
    return Finding(kind, severity or kind.severity, file, line, (), message)


def told(found: Finding) -> str:
    """A finding as a person reads it; of push's own rules with what to do, as no page tells."""
    where = "" if found.file in found.message else f"{found.file}: "
    line = "" if found.line is None else f" (line {found.line})"
    mend = f" {found.rule.mend}" if found.rule.id in RULES else ""
    return f"{where}{found.message}{line}{mend} [{found.rule.id}]"


def licence_of(checkpoint: Checkpoint, metadata: dict[str, Any]) -> str | None:
    """What says the licence: the metadata of the card, or a licence file; None if nothing does."""
    named = metadata.get("license")
    if named:
        return str(named)
    return next((f.name for f in checkpoint.files if is_licence_file(f.name)), None)


def is_licence_file(name: str) -> bool:
    """Whether a file states a licence."""
    return _LICENCE_FILE.fullmatch(name) is not None


def is_legal_file(name: str) -> bool:
    """Whether a licence may ask to hand the file on: itself, a notice, a policy of use."""
    return _LEGAL_FILE.fullmatch(name) is not None


def _is_about_weights(found: Finding) -> bool:
    return found.rule.id in _ABOUT_WEIGHTS or _WEIGHT_RULE.match(found.rule.id) is not None


def _about_file(checkpoint: Checkpoint, file: SourceFile, wanted: Wanted) -> Iterator[Finding]:
    where = checkpoint.where(file.name)
    if file.problem:
        yield finding("outside-link", where, f"{where} {file.problem}.")
        return
    if is_pickle(file.name) and not wanted.allow_pickle:
        yield finding("pickle", where, f"{where} may run code when it is loaded.")
    small = file.size < _POINTER_SIZE and not file.is_weights  # check knows those of weights
    if small and is_lfs_pointer(checkpoint.read_bytes(file.name)):
        pointer = CHECK_RULES["lfs-pointer"]
        yield Finding(pointer, "error", where, None, (), f"{where} was not fetched.")
    name = file.name.rpartition("/")[2]
    if file.size <= _MAX_TEXT and _TEXT.search(file.name) and name not in _VOCABULARY:
        text = checkpoint.read_bytes(file.name)
        if match := _SECRET.search(text):
            line = text.count(b"\n", 0, match.start()) + 1
            kind = "a private key" if match[0].startswith(b"---") else "an access token"
            yield finding("secret", where, f"{where} holds what looks like {kind}.", line=line)


def _about_whole(checkpoint: Checkpoint, selection: Selection, wanted: Wanted) -> Iterator[Finding]:
    there = (*checkpoint.files, *(wanted.base.files if wanted.base else ()))
    if not any(_TOKENIZERS.fullmatch(file.name) for file in there):
        yield finding("tokenizer-missing", checkpoint.name, f"{checkpoint.name} has no tokenizer.")
    kinds = {"pickle" if is_pickle(f.name) else f.kind for f in selection.files if f.is_weights}
    if {"pickle", "shard"} <= kinds:
        yield finding(
            "weights-twice", checkpoint.name, f"{checkpoint.name} has safetensors and pickles."
        )


def _about_base(
    checkpoint: Checkpoint, steps: tuple[Step, ...], base: Checkpoint
) -> Iterator[Finding]:
    """What speaks against the base's weights under this checkpoint's config."""
    name = checkpoint.name
    if any(step.baked for step in steps):
        yield finding("base-baked", name, f"{name} is baked, so its weights are not {base.name}'s.")
    origin = origin_of(steps)
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
