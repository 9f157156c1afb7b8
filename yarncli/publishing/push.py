"""Publish a checkpoint: decide the push, ask, send one commit, look at the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.copying import require_unchanged
from yarncli.checkpoint.in_place import using
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import HubError
from yarncli.hub import writing
from yarncli.hub.writing import Commit, Contents, Remote
from yarncli.options import checked
from yarncli.progress import Advance, ProgressCallback, stage
from yarncli.publishing.local import LocalModel, prepare_local
from yarncli.publishing.messages import Message, Messages, Notify
from yarncli.publishing.options import PushOptions
from yarncli.publishing.plan import PushPlan, plan_push
from yarncli.publishing.preflight import PreflightFailed, told
from yarncli.publishing.results import Results, draw_heatmap, read_results
from yarncli.rules.finding import Finding

COMPARING = "Comparing"
SENDING = "Sending"

_DEFAULTS = PushOptions()


@dataclass(frozen=True, kw_only=True)
class Push:
    """What a push did, or would do."""

    plan: PushPlan
    """What was decided: target, files, the card's diff."""

    findings: tuple[Finding, ...]
    """What the preflight found; no errors."""

    messages: tuple[Message, ...]
    """Everything that was told, in order: the findings and the notes of `plan` among them."""

    commit: Commit | None = None
    """The commit, or the one that was there already; None where nothing was carried out."""

    @property
    def sent(self) -> bool:
        """Whether this push changed the Hub's files."""
        return self.commit is not None and not self.plan.is_empty

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`: that of a dry run where there is no commit."""
        document = {**self.plan.to_json(), "sent": self.sent}
        if self.commit is None:
            return {**document, "findings": [found.to_json() for found in self.findings]}
        done = {"commit": self.commit.oid, "revision": self.commit.revision, "url": self.commit.url}
        return {**document, **done}


def push(
    source: str | Path | Checkpoint,
    target: str,
    options: PushOptions = _DEFAULTS,
    *,
    confirm: Callable[[PushPlan], bool] | None = None,
    progress: ProgressCallback | None = None,
    notify: Notify = None,
    **changes: Any,
) -> Push:
    """Publish a checkpoint on the Hub: preflight, model card, one commit or a pull request.

    Nothing is sent if the preflight finds an error. A second call after a failure goes on where
    the first one stopped. Nothing is printed.

    Args:
        source: the directory of a checkpoint, or what `open_checkpoint` returned.
        target: the repository, `org/name`.
        options: what the caller decides.
        confirm: asked with the plan before anything is sent; False ends the push. It is not asked
            in a dry run.
        progress: told how far the stages are, "Comparing" and "Sending", in bytes.
        notify: called with the severity and the text of each message, as soon as it is known.
        **changes: single options by name, in place of those in `options`.

    Returns:
        What was decided and, if it was carried out, the commit.

    Raises:
        UsageError: contradictory options, a public target without `public`, or `source` is no
            local directory.
        PreflightFailed: something speaks against publishing; a `CheckFailed` with the findings.
        CheckFailed: nothing states the licence of what becomes public.
        CheckpointError: `source` or the result file cannot be read.
        HubError: no token, no access, or the Hub cannot be reached.

    Example:
        >>> push("model-yarn", "me/model-128k", dry_run=True).plan.size  # doctest: +SKIP
        16060556376
    """
    options = checked(options, changes)
    with using(source, in_place=False):
        return _push(source, target, options, confirm, progress, Messages(notify))


def _push(
    source: str | Path | Checkpoint,
    target: str,
    options: PushOptions,
    confirm: Callable[[PushPlan], bool] | None,
    progress: ProgressCallback | None,
    messages: Messages,
) -> Push:
    local = prepare_local(source, options)
    for found in local.findings:
        messages.add(found.severity, told(found))
    if any(found.severity == "error" for found in local.findings):
        raise PreflightFailed(local.findings)
    results, heatmap = _results(local, messages)
    total = sum(file.size for file in local.selection.files)
    with stage(progress, COMPARING, total) as advance:
        plan = plan_push(local, target, results=results, heatmap=heatmap, progress=advance)
    for found in plan.findings:
        messages.add(found.severity, told(found))
    if any(found.severity == "error" for found in plan.findings):
        raise PreflightFailed(plan.findings)
    for note in plan.notes:
        messages.add("note", note)
    commit = None
    if not options.dry_run and (confirm is None or confirm(plan)):
        require_unchanged(local.checkpoint, [file.name for file in local.selection.files])
        with stage(progress, SENDING, plan.size) as advance:
            commit = carry_out(plan, progress=advance)
        for remark in commit.remarks:
            messages.add("warning", remark)
    findings = (*local.findings, *plan.findings)
    return Push(plan=plan, findings=findings, messages=messages.kept, commit=commit)


def _results(local: LocalModel, messages: Messages) -> tuple[Results | None, bytes | None]:
    """The passkey results for the card, and their figure."""
    if not local.options.results:
        return None, None
    found = read_results(local.options.results, local.checkpoint, messages)
    return found, draw_heatmap(found.report, messages) if local.options.with_card else None


def carry_out(plan: PushPlan, *, progress: Advance | None = None) -> Commit:
    """Create what is missing, send one commit, and check what the Hub holds afterwards.

    Args:
        plan: from `plan_push`, of the same minute.
        progress: called with bytes sent, from worker threads.

    Returns:
        The commit made, or the one that is there where nothing was to be sent.

    Raises:
        CheckpointError: a file cannot be read any more.
        HubError: something failed; the branch is as it was, and another push goes on from there.
    """
    destination = plan.target.destination
    start = plan.target.start or _new_repository(destination.repo_id, public=plan.public)
    if plan.target.is_new_branch:
        writing.create_branch(destination.repo_id, destination.revision)
    if plan.is_empty:
        page = writing.page_of(destination.repo_id, start.commit, destination.revision)
        return Commit(oid=start.commit, url=page, revision=destination.revision)
    contents = Contents(uploads=plan.changed, copies=plan.copies, deleted=plan.deleted)
    done = writing.commit(destination, contents, parent=start.commit, progress=progress)
    writing.require_same(destination.repo_id, done.oid, contents)
    return done


def _new_repository(repo_id: str, *, public: bool) -> Remote:
    """Create a repository; one that appeared meanwhile must be as wanted, and the user's."""
    writing.create_repository(repo_id, private=not public)
    writing.require_write_access(repo_id)
    main = writing.look_up(repo_id)
    if main is None or main.private == public:
        raise HubError(
            f"{repo_id} was not created {'public' if public else 'private'}. Look at its settings "
            "on the Hub before you push again."
        )
    return main
