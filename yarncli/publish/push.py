"""Carry a push out: create what is missing, send one commit, look at the result."""

from __future__ import annotations

from yarncli.errors import HubError
from yarncli.hub import writing
from yarncli.hub.uploads import Progress
from yarncli.hub.writing import Commit
from yarncli.publish.local import MAIN
from yarncli.publish.plan import PushPlan


def carry_out(plan: PushPlan, *, progress: Progress = None) -> Commit:
    """Create what is missing, send one commit, and check what the Hub holds afterwards.

    Args:
        plan: from `make_plan`, of the same minute.
        progress: called with bytes sent; never where the client stores through Xet and draws
            its own bars.

    Returns:
        The commit made, or the one that is there where nothing was to be sent.

    Raises:
        HubError: something failed; the branch is as it was, and another push goes on from there.
    """
    destination, remote = plan.destination, plan.remote
    if not plan.exists:
        writing.create_repository(destination.repo_id, private=not plan.public)
        writing.require_write_access(destination.repo_id)
        main = writing.look_up(destination.repo_id)
        if main is None or main.private == plan.public:
            raise HubError(
                f"{destination.repo_id} was not created {'public' if plan.public else 'private'}. "
                "Look at its settings on the Hub before you push again."
            )
        remote = main if destination.revision == MAIN else None
    if remote is None:
        writing.create_branch(destination.repo_id, destination.revision)
        remote = writing.look_up(destination.repo_id, destination.revision)
    if remote is None:
        raise HubError(f"{destination.repo_id} has no {destination.revision} after creating it.")
    if not plan.changed and not plan.copies:
        page = writing.page_of(destination.repo_id, remote.commit, destination.revision)
        return Commit(remote.commit, page, destination.revision)
    done = writing.commit(
        destination, plan.changed, plan.copies, parent=remote.commit, progress=progress
    )
    writing.require_same(destination.repo_id, done.revision, (*plan.changed, *plan.copies))
    return done
