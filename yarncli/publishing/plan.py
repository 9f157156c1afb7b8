"""Decide a push: look at the Hub, write the card, and compare every file. Only reads."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from yarncli.checkpoint.files import SourceFile, kind_of
from yarncli.errors import CheckFailed
from yarncli.evaluation.report import PasskeyReport
from yarncli.hub import writing
from yarncli.hub.cards import read_metadata, with_metadata
from yarncli.hub.uploads import Copy, Progress, RemoteFile, Upload
from yarncli.hub.writing import Remote
from yarncli.publishing import card as cards
from yarncli.publishing.card import Base, CardRequest
from yarncli.publishing.local import Local, Options, about_licence
from yarncli.publishing.preflight import finding, is_legal_file, is_licence_file, told
from yarncli.publishing.record import origin_of
from yarncli.publishing.section import HEATMAP
from yarncli.publishing.selection import README, is_pickle, reason_to_stay, select_files
from yarncli.publishing.target import Target, find_target


@dataclass(frozen=True)
class PushPlan:
    """Everything that a push will do.

    Attributes:
        target: where to.
        public: whether everybody can read the repository, or will once it is made.
        changed: files to send.
        unchanged: names of files that the Hub holds already.
        copies: files to copy inside the Hub.
        card_diff: unified diff of README.md against the Hub's; empty without a change.
        left_out: name → reason.
        notes: what a person should know.
    """

    target: Target
    public: bool
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

    @property
    def is_empty(self) -> bool:
        """Whether the Hub holds everything already."""
        return not self.changed and not self.copies


def make_plan(
    local: Local,
    name: str,
    options: Options,
    *,
    results: PasskeyReport | None = None,
    heatmap: bytes | None = None,
    progress: Progress = None,
) -> PushPlan:
    """Ask the Hub, write the card, and decide what to send. Only reads.

    Args:
        local: what `prepare_local` found; its findings have been heeded.
        name: `org/name`.
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
    target = find_target(local, name, options, notes)
    base = _base(local, options, notes)
    if base is not None and not options.config_only:
        _heed_base(local, base, options, notes)
    uploads = _uploads(local, base, options)
    copies = _copies(local, uploads, options)
    old = _remote_card(target.start)
    if options.with_card:
        if heatmap is not None:
            uploads[HEATMAP] = Upload.of(HEATMAP, heatmap)
        request = CardRequest(
            name, base, options.licence, results, heatmap is not None, options.config_only
        )
        text = _card(local, old, request, options, notes)
        uploads[README] = Upload.of(README, text.encode())
    held = target.start.files if target.start else {}
    files: list[Upload | Copy] = [*uploads.values(), *copies]
    same = {f.name for f in files if f.name in held and _equals(f, held[f.name], progress)}
    _warn_of_weights(local, set(held), {file.name for file in files}, options, notes)
    return PushPlan(
        target,
        not target.start.private if target.start else options.public,
        tuple(upload for upload in uploads.values() if upload.name not in same),
        tuple(sorted(same)),
        tuple(file for file in copies if file.name not in same),
        _diff(old or "", uploads.get(README)),
        local.selection.left_out,
        tuple(notes),
    )


def _equals(file: Upload | Copy, remote: RemoteFile, progress: Progress) -> bool:
    return file.equals(remote) if isinstance(file, Copy) else file.equals(remote, progress)


def _base(local: Local, options: Options, notes: list[str]) -> Base | None:
    """The model that the checkpoint was made from, if it is on the Hub and may be read."""
    origin = origin_of(local.steps)
    copied = local.copy_base
    if options.base_model:
        repo_id, commit = options.base_model, None
    elif copied is not None and copied.repo_id:
        repo_id, commit = copied.repo_id, copied.commit
    elif origin:
        repo_id, commit = origin
    else:
        return None
    base = cards.base_of(repo_id, commit, notes)
    if base.files and not base.metadata:  # it could be read
        notes.append(f"The card of {repo_id} has no metadata, so none are taken over.")
    return base


def _heed_base(local: Local, base: Base, options: Options, notes: list[str]) -> None:
    """The licence, and the conditions of access, which only the Hub knows."""
    if not base.metadata.get("license") and not any(map(is_licence_file, base.files)):
        for found in about_licence(local.checkpoint, cards.local_card(local.checkpoint), options):
            if found.severity == "error":
                raise CheckFailed(told(found))
            notes.append(told(found))
    if options.public and not writing.is_offline():
        remote = writing.look_up(base.repo_id)
        if remote is not None and remote.gated:
            message = f"{base.repo_id} is gated and the target is public."
            notes.append(told(finding("base-gated", base.repo_id, message)))


def _uploads(local: Local, base: Base | None, options: Options) -> dict[str, Upload]:
    """The files to send, and the licence files of the base that would get lost."""
    checkpoint = local.checkpoint
    paths = {file.name: checkpoint.path(file.name) for file in local.selection.files}
    if not options.with_card:
        paths.pop(README, None)
    if base is not None and not options.config_only:
        for name in filter(is_legal_file, base.files):
            if name not in paths and not reason_to_stay(name, options.include, options.exclude):
                paths[name] = cards.fetch(base.repo_id, base.commit, name)
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
        for file in select_files(base, include=options.include, exclude=options.exclude).files
        if file.name not in uploads and file.name in held and _may_copy(file, options)
    ]


def _may_copy(file: SourceFile, options: Options) -> bool:
    own = file.name in (README, ".gitattributes")
    return not own and (options.allow_pickle or not is_pickle(file.name))


def _warn_of_weights(
    local: Local, held: set[str], names: set[str], options: Options, notes: list[str]
) -> None:
    """Weights on the Hub that are not the checkpoint's, and weights that will be missing there."""
    if options.config_only:
        return
    lacking = sorted(set(local.checkpoint.shard_names()) - names - held)
    if lacking:
        notes.append(
            f"{_first(lacking)} will be missing on the Hub: --include or --exclude leaves weights "
            "out that the model needs."
        )
    stale = [n for n in held - names if kind_of(n) in ("shard", "weights", "index")]
    if stale and not options.include:
        notes.append(
            f"The repository also holds {_first(sorted(stale))}, which the checkpoint does not "
            "have. Delete on the Hub what is old."
        )


def _first(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" and others" if names[3:] else "")


def _remote_card(remote: Remote | None) -> str | None:
    if remote is None or README not in remote.files:
        return None
    path = cards.fetch(remote.repo_id, remote.commit, README)
    return path.read_text(encoding="utf-8", errors="replace")


def _card(
    local: Local, old: str | None, request: CardRequest, options: Options, notes: list[str]
) -> str:
    """README.md as it will be; `old` is the Hub's."""
    current = _current_card(local, old, request.base, options, notes)
    card = cards.make_card(local.checkpoint, current, request)
    if not local.steps or options.config_only:
        return card
    if "base_model" not in read_metadata(card, README):
        notes.append(
            "yarncli.json names no model of the Hub as the source, so the card has no base_model. "
            "Give --base-model ORG/NAME if there is one."
        )
    return card


def _current_card(
    local: Local, old: str | None, base: Base | None, options: Options, notes: list[str]
) -> str | None:
    """The card to put our part into: the Hub's, so that nothing written there gets lost."""
    mine = cards.local_card(local.checkpoint)
    copied = mine is not None and base is not None and mine == base.card
    if options.force_card or old is None:
        if mine and local.steps and not copied and not cards.has_our_part(mine):
            notes.append(
                "README.md goes along, with our part below. Do its words and metadata still hold "
                "after the conversion? `yarncli card` shows it."
            )
        return mine
    # A Hub's card that cannot be read ends it here, by its name; --force-card gets round it.
    known = read_metadata(old, f"{README} of the Hub")
    if mine is None or copied or options.config_only:
        return old
    if cards.own_words(mine) != cards.own_words(old):
        notes.append(
            "README.md on the Hub differs from the local one and is kept; --force-card sends the "
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
