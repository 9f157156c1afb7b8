"""Access rights, repositories, branches, tags and pull requests on the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from yarncli.errors import HubError
from yarncli.hub import waits
from yarncli.hub.failures import client_utils, hub_errors, retried
from yarncli.hub.uploads import RemoteFile

LONGEST_TITLE = 200  # characters; the client refuses a longer title of a pull request


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A repository at one commit."""

    repo_id: str
    """Its Hub id."""
    commit: str
    """Full commit hash."""
    private: bool
    """Whether only its owners can see it."""
    gated: bool
    """Whether users must ask for access to its files."""
    files: dict[str, RemoteFile]
    """POSIX path → file on the Hub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """The target of a commit, and its message."""

    repo_id: str
    """Hub id of the repository."""
    author: str
    """The user's name."""
    message: str
    """First line of the commit message, and the title of a pull request."""
    description: str = ""
    """The text below the first line; empty for none."""
    revision: str = "main"
    """The branch."""
    pull_request: bool = False
    """Whether a pull request on the main branch is to be opened for the commit."""


@contextmanager
def session(what: str) -> Iterator[Any]:
    """The client's API with limits on waiting. Failures become sentences about `what`.

    Raises:
        HubError: see `hub_errors`; also if HF_HUB_OFFLINE is set.
    """
    with hub_errors(what):
        from huggingface_hub import HfApi

        if is_offline():
            raise HubError("HF_HUB_OFFLINE is set, so the Hub cannot be asked. Unset it to push.")
        waits.limit_waits()
        yield HfApi()


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def has_token() -> bool:
    """Whether the client has a token to send."""
    from huggingface_hub import get_token

    return get_token() is not None


def who_am_i() -> str:
    """The name of the user whose token the client sends.

    Raises:
        HubError: there is no token, it is not accepted, or the Hub cannot be reached.
    """
    with session("") as api:
        return str(retried(api.whoami)["name"])


def is_repo_id(text: str) -> bool:
    """Whether a text has the form of a repository's name with its owner, `org/name`."""
    from huggingface_hub.errors import HFValidationError

    try:
        client_utils().validate_repo_id(text)
    except HFValidationError:
        return False
    return text.count("/") == 1


def look_up(repo_id: str, revision: str | None = None) -> Remote | None:
    """A repository at a revision; None if the repository or the revision does not exist.

    The Hub answers for a private repository of another user as if it did not exist.

    Raises:
        HubError: the Hub cannot be reached, or the server is not a Hub.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    with session(repo_id) as api:
        try:
            info = retried(
                lambda: api.model_info(
                    repo_id, revision=revision, files_metadata=True, timeout=waits.ANSWER_WAIT
                )
            )
        except GatedRepoError:
            raise
        except RepositoryNotFoundError as error:
            if error.response.status_code == 401 and has_token():
                raise
            return None
        except RevisionNotFoundError:
            return None
    files = {}
    for entry in info.siblings or ():
        if entry.size is None or entry.blob_id is None:
            raise HubError(f"The server's answer about {repo_id} lacks sizes. Check HF_ENDPOINT.")
        sha256 = entry.lfs.sha256 if entry.lfs else None
        files[entry.rfilename] = RemoteFile(entry.size, entry.blob_id, sha256)
    return Remote(
        repo_id=repo_id, commit=info.sha,
        private=bool(info.private), gated=bool(info.gated), files=files,
    )  # fmt: skip


def require_write_access(repo_id: str) -> None:
    """Check that the token may commit to a repository.

    Raises:
        HubError: the token may not, or the Hub cannot be reached.
    """
    with session(repo_id) as api:
        retried(lambda: api.auth_check(repo_id, write=True))


def create_repository(repo_id: str, *, private: bool) -> None:
    """Create a model repository. If it exists meanwhile, it is not changed.

    Raises:
        HubError: the token does not permit it, or the Hub cannot be reached.
    """
    with session(repo_id) as api:
        retried(lambda: api.create_repo(repo_id, private=private, exist_ok=True))


def create_branch(repo_id: str, branch: str) -> None:
    """Create a branch from main. An existing branch is not changed.

    Raises:
        HubError: as `create_repository`; also if git does not allow the name.
    """
    with session(f"{repo_id}@{branch}") as api:
        retried(lambda: api.create_branch(repo_id, branch=branch, exist_ok=True))


@dataclass(frozen=True, slots=True)
class PullRequest:
    """An open pull request of the user."""

    revision: str
    """`refs/pr/N`."""
    is_draft: bool
    """Whether it is still a draft; every pull request begins as a draft."""


def find_pull_request(destination: Destination) -> PullRequest | None:
    """The user's newest open pull request with that title; None if there is none.

    Raises:
        HubError: the Hub cannot be reached, or has no such model.
    """
    with session(destination.repo_id) as api:
        found = retried(
            lambda: list(
                api.get_repo_discussions(
                    destination.repo_id,
                    author=destination.author,
                    discussion_type="pull_request",
                    repo_type="model",
                )
            )
        )
    fitting = [
        entry
        for entry in found
        if entry.is_pull_request
        and entry.status in ("open", "draft")
        and entry.title == destination.message[:LONGEST_TITLE]
    ]
    if not fitting:
        return None
    newest = max(fitting, key=lambda entry: entry.num)
    return PullRequest(f"refs/pr/{newest.num}", newest.status == "draft")


def open_pull_request(destination: Destination, body: str) -> PullRequest:
    """Open a pull request on the main branch, as a draft without changes.

    If the answer of the server gets lost, the pull request is found and not opened twice.

    Raises:
        HubError: as `find_pull_request`; also if the token may not.
    """
    tried = False

    def attempt(api: Any) -> PullRequest:
        nonlocal tried
        if tried and (found := find_pull_request(destination)):
            return found
        tried = True
        opened = api.create_pull_request(
            destination.repo_id,
            destination.message[:LONGEST_TITLE],
            description=body,
            repo_type="model",
        )
        return PullRequest(f"refs/pr/{opened.num}", opened.status == "draft")

    with session(destination.repo_id) as api:
        return retried(lambda: attempt(api))


def publish_pull_request(repo_id: str, revision: str) -> None:
    """Put a draft up for review.

    Raises:
        HubError: the Hub does not permit it, or cannot be reached.
    """
    number = int(revision.rpartition("/")[2])
    with session(f"{repo_id}@{revision}") as api:
        retried(lambda: api.change_discussion_status(repo_id, number, "open", repo_type="model"))


@dataclass(frozen=True, slots=True)
class Refs:
    """Branches and tags of a repository: name → full commit hash."""

    branches: dict[str, str]
    tags: dict[str, str]


def list_refs(repo_id: str) -> Refs:
    """The branches and tags of a repository.

    Raises:
        HubError: the Hub cannot be reached, or has no such model.
    """
    with session(repo_id) as api:
        found = retried(lambda: api.list_repo_refs(repo_id, repo_type="model"))
    return Refs(
        {ref.name: ref.target_commit for ref in found.branches},
        {ref.name: ref.target_commit for ref in found.tags},
    )


def create_tag(repo_id: str, tag: str, commit: str) -> None:
    """Create a tag for a commit. An existing tag is not changed.

    Raises:
        HubError: the token does not permit it, or the Hub cannot be reached.
    """
    with session(f"{repo_id}@{tag}") as api:
        retried(lambda: api.create_tag(repo_id, tag=tag, revision=commit, exist_ok=True))
