"""Decide a push: read the Hub, write the card, and compare every file. Changes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from yarncli.checkpoint.files import SourceFile, kind_of
from yarncli.errors import CheckFailed, UsageError
from yarncli.hub import writing
from yarncli.hub.cards import read_metadata, with_metadata
from yarncli.hub.uploads import Copy, RemoteFile, Upload
from yarncli.hub.writing import Remote
from yarncli.progress import Advance
from yarncli.publishing.base import Base, base_of, card_text, fetch, local_card
from yarncli.publishing.card import (
    LONE_MARK,
    has_lone_mark,
    has_our_part,
    make_card,
    own_words,
)
from yarncli.publishing.gguf import GgufRepository, origin_of
from yarncli.publishing.landing import few, find_misfits
from yarncli.publishing.local import LocalModel
from yarncli.publishing.metadata import CardRequest
from yarncli.publishing.options import PushOptions
from yarncli.publishing.preflight import (
    SCHEMA_VERSION,
    about_licence,
    finding,
    heeding,
    is_legal_file,
    told,
)
from yarncli.publishing.proposal import proposal
from yarncli.publishing.results import Results
from yarncli.publishing.section import HEATMAP
from yarncli.publishing.selection import README, is_pickle, reason_to_stay, select_files
from yarncli.publishing.target import PushTarget, find_target, repository_name
from yarncli.rules.finding import Finding


@dataclass(frozen=True)
class PushPlan:
    """Everything that a push will do."""

    target: PushTarget
    """Repository and branch."""

    public: bool
    """Whether the repository is public, or will be when it is created."""

    changed: tuple[Upload, ...]
    """Files to send."""

    unchanged: tuple[str, ...]
    """Names of files that the Hub already holds with the same content."""

    copies: tuple[Copy, ...]
    """Files to copy inside the Hub."""

    card_diff: str
    """Unified diff from the README.md on the Hub to the new one; empty if there is no change."""

    left_out: dict[str, str]
    """Files that are not sent: name → reason."""

    notes: tuple[str, ...]
    """Sentences that the user should read."""

    deleted: tuple[str, ...] = ()
    """Names of files that the commit deletes."""

    findings: tuple[Finding, ...] = ()
    """Findings from a comparison with the branch. If one is an error, nothing is sent."""

    body: str = ""
    """The body of the pull request to open; empty if none is opened."""

    tag: str | None = None
    """The tag to create for the commit; None if it exists already or none is wanted."""

    @property
    def size(self) -> int:
        """Bytes to send."""
        return sum(upload.size for upload in self.changed)

    @property
    def is_empty(self) -> bool:
        """Whether the Hub already holds everything."""
        return not self.changed and not self.copies and not self.deleted

    def to_json(self) -> dict[str, Any]:
        """The plan as `--json` shows it."""
        destination = self.target.destination
        return {
            "schema_version": SCHEMA_VERSION,
            "repository": destination.repo_id,
            "exists": self.target.start is not None,
            "public": self.public,
            "pull_request": destination.pull_request,
            "body": self.body,
            "revision": destination.revision,
            "tag": self.tag,
            "files": [{"name": u.name, "size": u.size} for u in self.changed],
            "copies": [{"name": c.name, "from": f"{c.repo_id}@{c.commit}"} for c in self.copies],
            "unchanged": list(self.unchanged),
            "deleted": list(self.deleted),
            "left_out": self.left_out,
            "card_diff": self.card_diff,
            "notes": list(self.notes),
        }


def plan_push(
    local: LocalModel,
    name: str,
    *,
    results: Results | None = None,
    heatmap: bytes | None = None,
    progress: Advance | None = None,
) -> PushPlan:
    """Read the Hub, write the card, and decide what to send. Changes nothing.

    Args:
        local: the result of `prepare_local`, without errors among its findings.
        name: `org/name`, or another form that `repository_name` takes.
        results: the measurements for the card.
        heatmap: their figure as PNG.
        progress: called with bytes of local files read for comparison.

    Raises:
        UsageError: a public target without `public`, or a tag that names another commit.
        CheckFailed: nothing states the licence, and the repository is public.
        HubError: no token, no access, no such repository, or the Hub cannot be reached.
    """
    name = repository_name(name)
    notes: list[str] = []
    target = find_target(local, name, notes)
    base = _base(local, notes)
    if base is not None and not local.options.config_only:
        _heed_base(local, base, notes)
    uploads = _uploads(local, base)
    copies = _copies(local, uploads)
    old = _remote_card(target.start)
    if local.options.with_card:
        request = _request(local, name, base, results, heatmap)
        _add_card(local, old, request, heatmap, uploads, notes)
    held = target.start.files if target.start else {}
    files: list[Upload | Copy] = [*uploads.values(), *copies]
    deleted = _deleted(local.options, set(held) - {file.name for file in files}, notes)
    same = {f.name for f in files if f.name in held and _equals(f, held[f.name], progress)}
    _warn_of_weights(local, set(held) - set(deleted), {file.name for file in files}, notes)
    changed = {name: file for name, file in uploads.items() if name not in same}
    copies = [file for file in copies if file.name not in same]
    is_new = bool(changed or copies or deleted)
    public = not target.start.private if target.start else local.options.public
    found = [*find_misfits(local, target.start, files, deleted)]
    found += _private_bases(local, base, uploads, name) if public else ()
    start, opens = target.start, target.destination.pull_request and is_new
    return PushPlan(
        target=target,
        public=public,
        changed=tuple(changed.values()),
        unchanged=tuple(sorted(same)),
        copies=tuple(copies),
        card_diff=_diff(old or "", uploads.get(README)),
        left_out=local.selection.left_out,
        notes=tuple(notes),
        deleted=deleted,
        findings=heeding(found, local.options.allow),
        body=proposal(local, start, changed, copies, results) if start and opens else "",
        tag=_tag(local.options.tag, target, is_new=is_new),
    )


def _tag(tag: str | None, target: PushTarget, *, is_new: bool) -> str | None:
    """The tag to create. A tag that names another commit is an error, as tags are not moved."""
    there = target.refs.tags.get(tag) if target.refs and tag else None
    if there is None:
        return tag
    if is_new or target.start is None or there != target.start.commit:
        raise UsageError(
            f"{target.destination.repo_id} already has a tag {tag} for the commit {there[:12]}. "
            "Give another --tag."
        )
    return None


def _private_bases(
    local: LocalModel, base: Base | None, uploads: Mapping[str, Upload], target: str
) -> Iterator[Finding]:
    """A finding for each private model whose name the public repository `target` would show."""
    if writing.is_offline():
        return
    names = set(filter(None, [base and base.repo_id, *(local.history.origin or ())[:1]]))
    if README in uploads:
        with uploads[README].open() as file:
            stated = read_metadata(file.read().decode(errors="replace"), README).get("base_model")
        found = stated if isinstance(stated, list) else [stated]
        names |= {name for name in found if isinstance(name, str) and writing.is_repo_id(name)}
    for name in sorted(names - {target}):
        remote = writing.look_up(name)
        if remote is not None and remote.private:
            yield finding(
                "private-base", name, f"{name} is private, but everybody could read its name."
            )


def _deleted(options: PushOptions, held: set[str], notes: list[str]) -> tuple[str, ...]:
    """The files on the branch to delete. `.gitattributes` belongs to the Hub and stays."""
    found: set[str] = set()
    for pattern in options.delete:
        fits = {name for name in held if fnmatchcase(name, pattern)} - {".gitattributes"}
        if not fits:
            notes.append(
                f"--delete {pattern} matches no file on the Hub, except files that are sent."
            )
        found |= fits
    return tuple(sorted(found))


def _equals(file: Upload | Copy, remote: RemoteFile, progress: Advance | None) -> bool:
    return file.equals(remote) if isinstance(file, Copy) else file.equals(remote, progress)


def _base(local: LocalModel, notes: list[str]) -> Base | None:
    """The base model, if it is on the Hub and this user may read it."""
    copied, commit = local.copy_base, None
    if local.options.base_model:
        repo_id = local.options.base_model
    elif copied is not None and copied.repo_id:
        repo_id, commit = copied.repo_id, copied.commit
    elif origin := origin_of(local.checkpoint):
        repo_id, commit = origin
    else:
        return None
    base = base_of(repo_id, commit, notes, stated=local.options.base_model is not None)
    if base.files and not base.metadata:  # the Hub shows the model
        notes.append(f"The card of {repo_id} has no metadata, so the new card takes over none.")
    return base


def _heed_base(local: LocalModel, base: Base, notes: list[str]) -> None:
    """Findings about the base's licence and its access conditions, which only the Hub knows."""
    for found in about_licence(local.checkpoint, local.options, base):
        if found.severity == "error":
            raise CheckFailed(told(found))
        notes.append(told(found))
    if local.options.public and not writing.is_offline():
        remote = writing.look_up(base.repo_id)
        if remote is not None and remote.gated:
            message = f"{base.repo_id} is gated, but the target is public."
            notes.append(told(finding("base-gated", base.repo_id, message)))


def _uploads(local: LocalModel, base: Base | None) -> dict[str, Upload]:
    """The files to send, and the licence files of the base that the checkpoint lacks."""
    checkpoint = local.checkpoint
    paths = {file.name: checkpoint.path(file.name) for file in local.selection.files}
    if not local.options.with_card:
        paths.pop(README, None)
    if base is not None and not local.options.config_only:
        for name in filter(is_legal_file, base.files):
            if name not in paths and not reason_to_stay(name, local.options):
                paths[name] = fetch(base.repo_id, base.commit, name)
    return {name: Upload.of(name, path) for name, path in paths.items()}


def _copies(local: LocalModel, uploads: Mapping[str, Upload]) -> list[Copy]:
    """The files of the base that the checkpoint lacks, without pickles and the base's card."""
    base = local.copy_base
    if base is None or base.repo_id is None or base.commit is None:
        return []
    there = writing.look_up(base.repo_id, base.commit)
    held = there.files if there else {}
    return [
        Copy(name=file.name, repo_id=base.repo_id, commit=base.commit, file=held[file.name])
        for file in select_files(base, local.options).files
        if file.name not in uploads and file.name in held and _may_copy(file, local.options)
    ]


def _may_copy(file: SourceFile, options: PushOptions) -> bool:
    own = file.name in (README, ".gitattributes")
    return not own and ("pickle" in options.allow or not is_pickle(file.name))


def _warn_of_weights(local: LocalModel, held: set[str], names: set[str], notes: list[str]) -> None:
    """Add notes on weights that will be missing on the Hub, and on foreign weights there."""
    if local.options.config_only:
        return
    lacking = sorted(set(local.checkpoint.shard_names()) - names - held)
    if lacking:
        notes.append(
            f"{few(lacking)} will be missing on the Hub, because --include or --exclude leaves "
            "out weights that the model needs."
        )
    # `landing` reports old safetensors, so only other weights are left here.
    stale = [n for n in held - names if kind_of(n) == "weights"]
    if stale and not local.options.include:
        notes.append(
            f"The repository also holds {few(sorted(stale))}, which the checkpoint does not "
            "have. Delete old files with --delete."
        )


def _remote_card(remote: Remote | None) -> str | None:
    if remote is None or README not in remote.files:
        return None
    return card_text(fetch(remote.repo_id, remote.commit, README), f"{README} of the Hub")


def _request(
    local: LocalModel,
    name: str,
    base: Base | None,
    results: Results | None,
    heatmap: bytes | None,
) -> CardRequest:
    return CardRequest(
        name=name,
        base=base,
        licence=local.options.licence,
        results=results,
        heatmap=heatmap is not None,
        repairs=local.options.config_only,
        rest=local.copy_base,
    )


def _add_card(
    local: LocalModel,
    old: str | None,
    request: CardRequest,
    heatmap: bytes | None,
    uploads: dict[str, Upload],
    notes: list[str],
) -> None:
    """Add README.md and its figure to the files to send; `old` is the card on the Hub."""
    if heatmap is not None:
        uploads[HEATMAP] = Upload.of(HEATMAP, heatmap)
    uploads[README] = Upload.of(README, _card(local, old, request, notes).encode())


def _card(local: LocalModel, old: str | None, request: CardRequest, notes: list[str]) -> str:
    """The new README.md; `old` is the one on the Hub."""
    current = _current_card(local, old, request.base, notes)
    if current is not None and has_lone_mark(current):
        notes.append(LONE_MARK.format(README))
    card = make_card(local.checkpoint, current, request)
    if not local.history.steps or local.options.config_only:
        return card
    if "base_model" not in read_metadata(card, README):
        where = "The header" if isinstance(local.checkpoint, GgufRepository) else "yarncli.json"
        notes.append(
            f"{where} names no model on the Hub as the source, so the card has no base_model. "
            "Give --base-model ORG/NAME if the base model is on the Hub."
        )
    return card


def _current_card(
    local: LocalModel, old: str | None, base: Base | None, notes: list[str]
) -> str | None:
    """The card that gets our section: the one on the Hub, so that no text there gets lost."""
    mine = local_card(local.checkpoint)
    copied = mine is not None and base is not None and mine == base.card
    if local.options.force_card or old is None:
        if mine and local.history.steps and not copied and not has_our_part(mine):
            notes.append(
                "README.md is sent too, with the yarncli section added below. Check that its text "
                "and metadata are still right after the conversion, with: yarncli card SOURCE"
            )
        return mine
    # If the Hub's card cannot be read, this raises an error; --force-card avoids that.
    known = read_metadata(old, f"{README} of the Hub")
    if mine is None or copied or local.options.config_only:
        return old
    if own_words(mine) != own_words(old):
        notes.append(
            "README.md on the Hub differs from the local one and is kept. --force-card sends the "
            "local one."
        )
    added = read_metadata(mine, local.checkpoint.where(README))
    return with_metadata(old, {k: v for k, v in added.items() if k not in known})


def _diff(old: str, upload: Upload | None) -> str:
    if upload is None or not isinstance(upload.content, bytes):
        return ""
    new = upload.content.decode()
    names = (f"a/{README}", f"b/{README}")
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm="")
    return "\n".join(lines)
