"""Carry a push out: create what is missing, send one commit, look at the result."""

from __future__ import annotations

from yarncli.errors import HubError
from yarncli.hub import writing
from yarncli.hub.uploads import Progress
from yarncli.hub.writing import Commit, Remote
from yarncli.publishing.plan import PushPlan


def carry_out(plan: PushPlan, *, progress: Progress = None) -> Commit:
    """Create what is missing, send one commit, and check what the Hub holds afterwards.

    Args:
        plan: from `make_plan`, of the same minute.
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
        return Commit(start.commit, page, destination.revision)
    done = writing.commit(
        destination, plan.changed, plan.copies, parent=start.commit, progress=progress
    )
    writing.require_same(destination.repo_id, done.oid, (*plan.changed, *plan.copies))
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
