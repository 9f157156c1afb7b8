"""Publish a model: decide the push, ask, send one commit, check the result."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.copying import require_unchanged
from yarncli.checkpoint.in_place import using
from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import HubError, UsageError
from yarncli.gguf.detection import is_gguf_source
from yarncli.hub import waits, writing
from yarncli.hub.commits import Commit, Contents, Draft, page_of, require_same
from yarncli.hub.writing import Destination, Remote
from yarncli.options import checked
from yarncli.progress import ProgressCallback, stage
from yarncli.publishing.local import LocalModel, prepare_local
from yarncli.publishing.measurements import read_all
from yarncli.publishing.messages import Message, Messages, Notify
from yarncli.publishing.options import PushOptions
from yarncli.publishing.plan import PushPlan, plan_push
from yarncli.publishing.preflight import PreflightFailed, finding, told
from yarncli.publishing.results import Results, draw_heatmap
from yarncli.rules.finding import Finding

COMPARING = "Comparing"

_DEFAULTS = PushOptions()


@dataclass(frozen=True, kw_only=True)
class Push:
    """What a push did, or would do."""

    plan: PushPlan
    """The decided push: target, files, diff of the card."""

    findings: tuple[Finding, ...]
    """The findings of the preflight, without errors."""

    messages: tuple[Message, ...]
    """All messages in order, including the findings and the notes of `plan`."""

    commit: Commit | None = None
    """The new commit, or the present one if nothing had to be sent; None if nothing was done."""

    @property
    def sent(self) -> bool:
        """Whether this push changed files on the Hub."""
        return self.commit is not None and not self.plan.is_empty

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`; without a commit it is that of a dry run."""
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

    Nothing is sent if the preflight finds an error. After a failure, a second call continues where
    the first one stopped. Nothing is printed.

    Args:
        source: the directory of a checkpoint, a GGUF file, a folder of GGUF files of one model, or
            what `open_checkpoint` returned.
        target: the repository: `org/name`, `hf://org/name`, or the address of its page.
        options: the options of the caller.
        confirm: called with the plan before anything is sent; False ends the push. It is not
            called in a dry run.
        progress: called with the progress of the stages, in bytes: "Comparing", "Hashing" (if the
            Hub does not use Xet storage), "Sending".
        notify: called with the severity and the text of each message as soon as it is known, also
            about waits and retries. Other threads call it too, but only one at a time.
        **changes: single options by name, which replace those in `options`.

    Returns:
        The decided push and, if it was carried out, the commit.

    Raises:
        UsageError: contradictory options, a public target without `public`, or `source` is not
            on this machine.
        PreflightFailed: the preflight found errors; a `CheckFailed` with the findings.
        CheckFailed: nothing states the licence, and the repository is public.
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
    _refuse_swapped(source, target)
    local = prepare_local(source, options)
    _heed(local.findings, messages)
    results, heatmap = _results(local, messages)
    total = sum(file.size for file in local.selection.files)
    with waits.told_waits(messages.note), stage(progress, COMPARING, total) as advance:
        plan = plan_push(local, target, results=results, heatmap=heatmap, progress=advance)
    _heed(plan.findings, messages)
    for note in plan.notes:
        messages.note(note)
    commit = None
    if not options.dry_run and (confirm is None or confirm(plan)):
        require_unchanged(local.checkpoint, [file.name for file in local.selection.files])
        commit = carry_out(plan, progress=progress, messages=messages)
        for remark in commit.remarks:
            messages.add("warning", remark)
    findings = (*local.findings, *plan.findings)
    return Push(plan=plan, findings=findings, messages=messages.kept, commit=commit)


def _refuse_swapped(source: str | Path | Checkpoint, target: str) -> None:
    """Refuse the arguments if the repository stands first and the directory second."""
    is_swapped = not isinstance(source, Checkpoint) and not os.path.lexists(source)
    if is_swapped and (Path(target).is_dir() or is_gguf_source(target)):
        raise UsageError(
            f"{target} is on this machine, but {source} is not. Give the model first: "
            f"{shlex.join(['yarncli', 'push', target, str(source)])}"
        )


def _heed(findings: tuple[Finding, ...], messages: Messages) -> None:
    """Report the findings, and stop if there is an error."""
    for found in findings:
        messages.add(found.severity, told(found))
    if any(found.severity == "error" for found in findings):
        raise PreflightFailed(findings)


def _results(local: LocalModel, messages: Messages) -> tuple[Results | None, bytes | None]:
    """The measurements for the card, and the figure of passkey results."""
    found = read_all(local.options.results, local.checkpoint, messages)
    report = found.report if found and local.options.with_card else None
    return found, draw_heatmap(report, messages)


def carry_out(
    plan: PushPlan, *, progress: ProgressCallback | None = None, messages: Messages | None = None
) -> Commit:
    """Create what is missing, send one commit, and check the content of the Hub afterwards.

    Args:
        plan: a fresh result of `plan_push`.
        progress: called with the progress of the stages, from worker threads.
        messages: gets waits and, after a failure, what this push has created on the Hub.

    Returns:
        The new commit, or the present one if nothing had to be sent.

    Raises:
        PreflightFailed: the Hub would leave files out of the commit.
        CheckpointError: a file can no longer be read.
        HubError: something failed. The branch is unchanged, and another push continues the work.
    """
    messages = messages or Messages(None)
    made: list[str] = []
    try:
        with waits.told_waits(messages.note):
            return _carry_out(plan, progress, messages, made)
    except BaseException:
        for what in made:
            messages.note(what)
        raise


def _carry_out(
    plan: PushPlan, progress: ProgressCallback | None, messages: Messages, made: list[str]
) -> Commit:
    destination = plan.target.destination
    repo_id, start = destination.repo_id, plan.target.start
    if start is None:
        start = _new_repository(repo_id, public=plan.public, made=made)
    if plan.target.is_new_branch:
        writing.create_branch(repo_id, destination.revision)
        made.append(f"The branch {destination.revision} of {repo_id} was created and exists.")
    if plan.is_empty:
        page = page_of(repo_id, start.commit, destination.revision)
        done = Commit(oid=start.commit, url=page, revision=destination.revision)
        if plan.target.is_draft:
            writing.publish_pull_request(repo_id, destination.revision)
    else:
        done = _commit(plan, start, progress, messages, made)
    if plan.tag:
        writing.create_tag(repo_id, plan.tag, done.oid)
    return done


def _commit(
    plan: PushPlan,
    start: Remote,
    progress: ProgressCallback | None,
    messages: Messages,
    made: list[str],
) -> Commit:
    destination = plan.target.destination
    contents = Contents(uploads=plan.changed, copies=plan.copies, deleted=plan.deleted)
    draft = Draft(destination, contents=contents)
    _heed(tuple(_ignored(draft, destination)), messages)
    draft.send(progress)
    is_draft = plan.target.is_draft
    if destination.pull_request:
        opened = writing.open_pull_request(destination, plan.body)
        is_draft = opened.is_draft
        destination = replace(destination, revision=opened.revision, pull_request=False)
        page = page_of(destination.repo_id, "", opened.revision)
        made.append(f"The pull request {page} is open. The same command continues it.")
    done = draft.commit(destination, parent=start.commit)
    require_same(destination.repo_id, done.oid, contents)
    if is_draft:
        writing.publish_pull_request(destination.repo_id, destination.revision)
    return done


def _ignored(draft: Draft, destination: Destination) -> Iterator[Finding]:
    """A finding for each file that the Hub would leave out of the commit."""
    for name in draft.left_out():
        message = f"A .gitignore in {destination.repo_id} excludes {name}."
        yield finding("ignored", destination.repo_id, message)


def _new_repository(repo_id: str, *, public: bool, made: list[str]) -> Remote:
    """Create a repository. If one appeared meanwhile, it must be the user's and as wanted."""
    kind = "public" if public else "private"
    writing.create_repository(repo_id, private=not public)
    made.append(
        f"{repo_id} was created ({kind}) and exists. The same command continues from there."
    )
    writing.require_write_access(repo_id)
    main = writing.look_up(repo_id)
    if main is None or main.private == public:
        raise HubError(
            f"{repo_id} was not created as {kind}. Check its settings on the Hub before you push "
            "again."
        )
    return main
