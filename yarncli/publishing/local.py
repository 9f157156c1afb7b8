"""What a push would send, as far as this machine knows: options, files, findings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from yarncli.checkpoint.source import Checkpoint, open_checkpoint
from yarncli.errors import UsageError
from yarncli.history import History, read_history
from yarncli.hub.cards import read_metadata
from yarncli.publishing import card as cards
from yarncli.publishing.preflight import Wanted, finding, licence_of, preflight
from yarncli.publishing.selection import README, Selection, select_files
from yarncli.rules.finding import Finding, Severity

MAIN = "main"
# What git allows as the name of a branch (git check-ref-format).
_BRANCH = re.compile(
    r"(?![-./])(?!.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)))[^\s\x00-\x20~^:?*\[\\\x7f]{1,255}(?<![./])"
)


@dataclass(frozen=True)
class Options:
    """What a user can decide about a push; see the command's help."""

    public: bool = False
    create_pr: bool = False
    config_only: bool = False
    allow_pickle: bool = False
    revision: str = MAIN
    message: str | None = None
    description: str = ""
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    copy_from: str | None = None
    with_card: bool = True
    force_card: bool = False
    licence: str | None = None
    base_model: str | None = None
    dry_run: bool = False


@dataclass(frozen=True)
class Local:
    """What there is to send, as far as this machine knows."""

    checkpoint: Checkpoint
    history: History
    selection: Selection
    findings: tuple[Finding, ...]
    copy_base: Checkpoint | None


def prepare_local(path: str, options: Options) -> Local:
    """Open the checkpoint, choose its files, and run the preflight; nothing is sent.

    Raises:
        UsageError: options that contradict each other, or `path` is no local directory.
        CheckpointError: it is not a checkpoint.
        HubError: the base of `--from` cannot be read.
    """
    _require_consistent(options)
    checkpoint = open_checkpoint(path, bare_hub_id=False)
    if checkpoint.directory is None:
        raise UsageError(f"{path} is not a directory. Give the directory of a local checkpoint.")
    if options.copy_from and any(file.is_weights for file in checkpoint.files):
        raise UsageError(
            f"{path} has weights of its own, so --from has nothing to give. Leave it out, or "
            "convert with --config-only."
        )
    selection = select_files(
        checkpoint,
        include=options.include,
        exclude=options.exclude,
        config_only=options.config_only,
    )
    history = read_history(checkpoint)
    base = _copy_base(options.copy_from, history) if options.copy_from else None
    wanted = Wanted(options.config_only, options.allow_pickle, base)
    found = preflight(checkpoint, selection, history, wanted)
    if not options.config_only and not history.origin and base is None:
        found += about_licence(checkpoint, cards.local_card(checkpoint), options)
    return Local(
        checkpoint=checkpoint,
        history=history,
        selection=selection,
        findings=tuple(found),
        copy_base=base,
    )


def about_licence(checkpoint: Checkpoint, card: str | None, options: Options) -> list[Finding]:
    """Whether nothing states the licence: an error for what becomes public, else a warning."""
    metadata = read_metadata(card, checkpoint.where(README)) if card else {}
    if options.licence or licence_of(checkpoint, metadata):
        return []
    message = f"Nothing states the licence of {checkpoint.name}."
    severity: Severity = "error" if options.public else "warning"
    return [finding("licence-unknown", checkpoint.name, message, severity=severity)]


def _require_consistent(options: Options) -> None:
    if options.create_pr and options.revision != MAIN:
        raise UsageError(
            "--create-pr goes to the main branch, so leave out --revision. To add to a pull "
            "request give --revision refs/pr/N alone."
        )
    if not _BRANCH.fullmatch(options.revision):
        raise UsageError(f"--revision {options.revision!r} cannot be the name of a branch.")
    if options.copy_from and options.config_only:
        raise UsageError("--from publishes weights and --config-only none. Leave one out.")
    if options.force_card and not options.with_card:
        raise UsageError("--force-card and --no-card contradict each other. Leave one out.")


def _copy_base(repo_id: str, history: History) -> Checkpoint:
    """The checkpoint of `--from`, at the commit that the conversion started from."""
    name = repo_id.removeprefix("hf://")
    origin = history.origin
    at = f"@{origin[1]}" if origin and origin[0] == name else ""
    return open_checkpoint(f"hf://{name}{at}")
