"""Decide a push: look at the Hub, write the card, and compare every file. Only reads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from yarncli import hub
from yarncli.checkpoint.files import SourceFile, kind_of
from yarncli.errors import CheckFailed, HubError, UsageError
from yarncli.evaluate.report import Report
from yarncli.hub import writing
from yarncli.hub.cards import read_metadata, with_metadata
from yarncli.hub.uploads import Copy, Progress, RemoteFile, Upload
from yarncli.hub.writing import Destination, Remote
from yarncli.publish import card as cards
from yarncli.publish.card import Base, CardRequest
from yarncli.publish.local import MAIN, Local, Options, about_licence
from yarncli.publish.preflight import is_licence_file, origin_of
from yarncli.publish.section import HEATMAP, last_plan
from yarncli.publish.selection import README, is_pickle, select_files


@dataclass(frozen=True)
class PushPlan:
    """Everything that a push will do.

    Attributes:
        destination: where to; for a pull request that is continued, its `refs/pr/N`.
        remote: the branch as it is; None where it, or the repository, is still to be made.
        exists: whether the repository exists.
        changed: files to send.
        unchanged: names of files that the Hub holds already.
        copies: files to copy inside the Hub.
        card_diff: unified diff of README.md against the Hub's; empty without a change.
        left_out: name → reason.
        notes: what a person should know.
    """

    destination: Destination
    public: bool
    remote: Remote | None
    exists: bool
    changed: tuple[Upload, ...]
    unchanged: tuple[str, ...]
    copies: tuple[Copy, ...]
    card_diff: str
    left_out: dict[str, str]
    notes: tuple[str, ...]

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(upload.size for upload in self.changed)


def make_plan(
    local: Local,
    target: str,
    options: Options,
    *,
    results: Report | None = None,
    heatmap: bytes | None = None,
    progress: Progress = None,
) -> PushPlan:
    """Ask the Hub, write the card, and decide what to send. Only reads.

    Args:
        local: what `prepare_local` found; its findings have been heeded.
        target: `org/name`.
        options: the user's.
        results: passkey results for the card.
        heatmap: their figure as PNG.
        progress: called with bytes of local files read for comparison.

    Raises:
        UsageError: a public target without `public`.
        CheckFailed: nothing states the licence of what becomes public.
        HubError: no token, no access, no such repository, or the Hub cannot be reached.
    """
    notes: list[str] = []
    destination, remote, exists = _look(_destination(local, target, options), options, notes)
    base = _base(local, options, notes)
    if base is not None and not options.config_only:
        _heed_base(local, base, options, notes)
    uploads = _uploads(local, base, options)
    copies = _copies(local, uploads, options)
    old = _remote_card(target, remote)
    if options.with_card:
        if heatmap is not None:
            uploads[HEATMAP] = Upload.of(HEATMAP, heatmap)
        request = CardRequest(
            target, base, options.licence, results, heatmap is not None, options.config_only
        )
        current = _current_card(local, old, base, options, notes)
        text = cards.make_card(local.checkpoint, current, request)
        uploads[README] = Upload.of(README, text.encode())
    held = remote.files if remote else {}
    files: list[Upload | Copy] = [*uploads.values(), *copies]
    same = {f.name for f in files if f.name in held and _equals(f, held[f.name], progress)}
    _warn_of_stale_weights(held, {file.name for file in files}, options, notes)
    return PushPlan(
        destination,
        options.public,
        remote,
        exists,
        tuple(upload for upload in uploads.values() if upload.name not in same),
        tuple(sorted(same)),
        tuple(file for file in copies if file.name not in same),
        _diff(old or "", uploads.get(README)),
        local.selection.left_out,
        tuple(notes),
    )


def _destination(local: Local, target: str, options: Options) -> Destination:
    writing.require_repo_id(target)
    return Destination(
        target,
        _author(options),
        options.message or _message(local, options),
        options.description,
        options.revision,
        options.create_pr,
    )


def _equals(file: Upload | Copy, remote: RemoteFile, progress: Progress) -> bool:
    return file.equals(remote) if isinstance(file, Copy) else file.equals(remote, progress)


def _author(options: Options) -> str:
    """The user's name; empty where a dry run has no token to ask with."""
    if options.dry_run and (writing.is_offline() or not writing.has_token()):
        return ""
    return writing.who_am_i()


def _message(local: Local, options: Options) -> str:
    plan = last_plan(local.steps)
    to = f"{plan.get('length'):,} tokens with {plan['method']}" if plan else ""
    if options.config_only:
        return f"Extend the context window to {to}" if plan else "Correct the RoPE configuration"
    name = Path(local.checkpoint.name).resolve().name
    return f"Upload {name}: {to}" if plan else f"Upload {name}"


def _look(
    destination: Destination, options: Options, notes: list[str]
) -> tuple[Destination, Remote | None, bool]:
    """The destination, the branch that it means, and whether the repository exists."""
    target = destination.repo_id
    if options.dry_run and writing.is_offline():
        notes.append("HF_HUB_OFFLINE is set, so every file counts as new.")
        return destination, None, False
    main = writing.look_up(target)
    if main is None:
        if options.create_pr or options.config_only:
            raise HubError(
                f"{target}: the Hub has no such model, or it is private. A pull request and "
                "--config-only need one that exists."
            )
        return destination, None, False
    _require_visibility(main, options, notes)
    if destination.author and not options.create_pr and not options.revision.startswith("refs/pr/"):
        writing.require_write_access(target)
    if options.create_pr:
        opened = writing.open_pull_request(destination) if destination.author else None
        if opened is None:
            return destination, main, True
        notes.append(f"Your open pull request {opened} is continued.")
        destination = replace(destination, revision=opened, pull_request=False)
        return destination, writing.look_up(target, opened), True
    if options.revision == MAIN:
        return destination, main, True
    return destination, writing.look_up(target, options.revision), True


def _require_visibility(main: Remote, options: Options, notes: list[str]) -> None:
    if main.private:
        if options.public:
            notes.append(f"{main.repo_id} is private and stays so; change it in its settings.")
        return
    if not options.public and not (options.create_pr and options.config_only):
        raise UsageError(
            f"{main.repo_id} is public, so everybody could read what is sent. Add --public if that "
            "is meant."
        )


def _base(local: Local, options: Options, notes: list[str]) -> Base | None:
    """The model that the checkpoint was made from, if it is on the Hub and may be read."""
    origin = origin_of(local.steps)
    copied = local.copy_base
    if options.base_model:
        repo_id, commit = options.base_model, None
    elif copied is not None and copied.repo_id:
        repo_id, commit = copied.repo_id, copied.commit
    elif origin:
        repo_id, commit = origin[0], origin[1]
    else:
        return None
    try:
        return cards.read_base(repo_id, commit)
    except HubError as error:
        notes.append(f"The card takes nothing over from the base model. {error}")
        return Base(repo_id, commit or "", None, ())


def _heed_base(local: Local, base: Base, options: Options, notes: list[str]) -> None:
    """The licence, and the conditions of access, which only the Hub knows."""
    inherited = read_metadata(base.card, f"{README} of {base.repo_id}") if base.card else {}
    if not inherited.get("license") and not any(map(is_licence_file, base.files)):
        for found in about_licence(local.checkpoint, cards.local_card(local.checkpoint), options):
            if found.severity == "error":
                raise CheckFailed(found.message)
            notes.append(found.message)
    if options.public and not writing.is_offline():
        remote = writing.look_up(base.repo_id)
        if remote is not None and remote.gated:
            message = (
                f"{base.repo_id} is gated and the target is public. Read its licence, and gate "
                "the repository in its settings if that asks for it."
            )
            notes.append(message)


def _uploads(local: Local, base: Base | None, options: Options) -> dict[str, Upload]:
    """The files to send, and the licence files of the base that would get lost."""
    checkpoint = local.checkpoint
    paths = {file.name: checkpoint.path(file.name) for file in local.selection.files}
    if not options.with_card:
        paths.pop(README, None)
    if base is not None and not options.config_only and not options.include:
        for name in filter(is_licence_file, base.files):
            if name not in paths:
                paths[name] = hub.cached_file(base.repo_id, base.commit, name)
    return {name: Upload.of(name, path) for name, path in paths.items()}


def _copies(local: Local, uploads: Mapping[str, Upload], options: Options) -> list[Copy]:
    """The files of the base that the checkpoint lacks; pickles and the base's card stay."""
    base = local.copy_base
    if base is None or base.repo_id is None or base.commit is None:
        return []
    there = writing.look_up(base.repo_id, base.commit)
    held = there.files if there else {}
    return [
        Copy(file.name, base.repo_id, base.commit, held[file.name])
        for file in select_files(base, exclude=options.exclude).files
        if file.name not in uploads and file.name in held and _may_copy(file, options)
    ]


def _may_copy(file: SourceFile, options: Options) -> bool:
    own = file.name in (README, ".gitattributes")
    return not own and (options.allow_pickle or not is_pickle(file.name))


def _warn_of_stale_weights(
    held: Mapping[str, RemoteFile], names: set[str], options: Options, notes: list[str]
) -> None:
    """Weights on the Hub that are not part of the checkpoint would be loaded, or downloaded."""
    stale = sorted(
        name
        for name in held
        if name not in names and kind_of(name) in ("shard", "weights", "index")
    )
    if stale and not options.config_only and not options.include:
        more = " and others" if stale[3:] else ""
        notes.append(
            f"The repository also holds {', '.join(stale[:3])}{more}, "
            "which are not part of this checkpoint. Delete them on the Hub if they are old."
        )


def _remote_card(target: str, remote: Remote | None) -> str | None:
    if remote is None or README not in remote.files:
        return None
    path = hub.cached_file(target, remote.commit, README)
    return path.read_text(encoding="utf-8", errors="replace")


def _current_card(
    local: Local, old: str | None, base: Base | None, options: Options, notes: list[str]
) -> str | None:
    """The card to put our part into: the Hub's, so that nothing written there gets lost."""
    mine = cards.local_card(local.checkpoint)
    if options.force_card or old is None:
        return mine
    if mine is None or (base is not None and mine == base.card) or options.config_only:
        return old
    if cards.own_words(mine) != cards.own_words(old):
        notes.append(
            "README.md on the Hub differs from the local one and is kept; --force-card sends the "
            "local one."
        )
    known = read_metadata(old, README)
    added = read_metadata(mine, local.checkpoint.where(README))
    return with_metadata(old, {k: v for k, v in added.items() if k not in known})


def _diff(old: str, upload: Upload | None) -> str:
    if upload is None or not isinstance(upload.content, bytes):
        return ""
    new = upload.content.decode()
    return "".join(
        difflib.unified_diff(
            old.splitlines(True), new.splitlines(True), f"a/{README}", f"b/{README}"
        )
    )
