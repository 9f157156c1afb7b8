"""Writing to the Hub: who may, repositories and branches, one commit or one pull request.

Uploads go through the client's pre-upload and create-commit calls, so a repository changes at once
or not at all, and what the Hub holds already is not sent again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from yarncli.errors import HubError
from yarncli.hub.failures import client_utils, hub_errors, retried, without_secrets
from yarncli.hub.uploads import (
    Copy,
    RemoteFile,
    Upload,
    add_operation,
    copy_operation,
    counted_uploads,
    delete_operation,
)
from yarncli.progress import Advance

ANSWER_WAIT = 60.0  # seconds without a byte after which a server counts as hanging


@dataclass(frozen=True, kw_only=True)
class Remote:
    """A repository at one commit."""

    repo_id: str
    """Its Hub id."""
    commit: str
    """Full commit hash."""
    private: bool
    """Whether only its owners see it."""
    gated: bool
    """Whether its files are given only to those who asked for access."""
    files: dict[str, RemoteFile]
    """POSIX path → what the Hub holds there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """What a push left behind."""

    oid: str
    """Full commit hash."""
    url: str
    """Page of the commit, or of the pull request."""
    revision: str
    """The branch or `refs/pr/N` it is on."""
    remarks: tuple[str, ...] = ()
    """What the Hub has to say about the card; a sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """Where a commit goes, and how it is called."""

    repo_id: str
    """Hub id of the repository."""
    author: str
    """The user's name."""
    message: str
    """First line of the commit message; the title of a pull request."""
    description: str = ""
    """The text below the first line; empty for none."""
    revision: str = "main"
    """The branch."""
    pull_request: bool = False
    """Whether the commit becomes a pull request on the main branch.

    The user's own open one with the same title is continued, otherwise one is opened.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a commit changes."""

    uploads: Sequence[Upload] = ()
    """Files to send."""
    copies: Sequence[Copy] = ()
    """Files to copy inside the Hub."""
    deleted: Sequence[str] = ()
    """Names of files to delete."""

    def missing_in(self, remote: Remote) -> str | None:
        """The first file that a commit does not hold as it should; None if all is there."""
        files: tuple[Upload | Copy, ...] = (*self.uploads, *self.copies)
        for file in files:
            if file.name not in remote.files or not file.equals(remote.files[file.name]):
                return file.name
        return next((name for name in self.deleted if name in remote.files), None)


@contextmanager
def _session(what: str) -> Iterator[Any]:
    """The client's API, with a limit on waiting."""
    with hub_errors(what):
        from huggingface_hub import HfApi

        if is_offline():
            raise HubError("HF_HUB_OFFLINE is set, so the Hub cannot be asked. Unset it to push.")
        utils = client_utils()
        utils.get_session().timeout = utils.httpx.Timeout(ANSWER_WAIT)
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
    with _session("") as api:
        return str(retried(api.whoami)["name"])


def require_repo_id(text: str) -> None:
    """Refuse what cannot be the name of a repository.

    Raises:
        HubError: it is not of the form `org/name`.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        client_utils().validate_repo_id(text)
    except HFValidationError:
        valid = False
    else:
        valid = text.count("/") == 1
    if not valid:
        raise HubError(f"{text!r} is not the name of a repository. Write org/name.")


def look_up(repo_id: str, revision: str | None = None) -> Remote | None:
    """A repository as it is at a revision; None if it, or the revision, does not exist.

    A private repository of somebody else looks as if it did not exist.

    Raises:
        HubError: the Hub cannot be reached, or does not answer as one.
    """
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    with _session(repo_id) as api:
        try:
            info = retried(
                lambda: api.model_info(
                    repo_id, revision=revision, files_metadata=True, timeout=ANSWER_WAIT
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
        HubError: it may not, or the Hub cannot be reached.
    """
    with _session(repo_id) as api:
        retried(lambda: api.auth_check(repo_id, write=True))


def create_repository(repo_id: str, *, private: bool) -> None:
    """Create a model repository. One that appeared meanwhile is left as it is.

    Raises:
        HubError: the token does not permit it, or the Hub cannot be reached.
    """
    with _session(repo_id) as api:
        retried(lambda: api.create_repo(repo_id, private=private, exist_ok=True))


def create_branch(repo_id: str, branch: str) -> None:
    """Create a branch from main; one that exists is left as it is.

    Raises:
        HubError: as `create_repository`; also a name that git does not allow.
    """
    with _session(f"{repo_id}@{branch}") as api:
        retried(lambda: api.create_branch(repo_id, branch=branch, exist_ok=True))


def open_pull_request(destination: Destination) -> str | None:
    """The revision (`refs/pr/N`) of the user's open pull request of that title, None if none.

    Raises:
        HubError: the Hub cannot be reached, or has no such model.
    """
    with _session(destination.repo_id) as api:
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
    numbers = [
        entry.num
        for entry in found
        if entry.is_pull_request
        and entry.status in ("open", "draft")
        and entry.title == destination.message
    ]
    return f"refs/pr/{max(numbers)}" if numbers else None


def commit(
    destination: Destination,
    contents: Contents,
    *,
    parent: str,
    progress: Advance | None = None,
) -> Commit:
    """Send files and make one commit of them, on top of `parent` and nothing else.

    A commit whose answer got lost is recognised, not repeated.

    Args:
        destination: where to.
        contents: what it changes.
        parent: the commit that `destination` was when it was looked at.
        progress: called with bytes sent, from worker threads.

    Raises:
        CheckpointError: a file cannot be read any more.
        HubError: see `hub_errors`; the branch is as it was.
    """
    from huggingface_hub.errors import FileDuplicationError

    tried = False

    def attempt(api: Any) -> Commit:
        nonlocal tried
        if tried and (landed := _landed(destination, contents, parent)):
            return landed
        tried = True
        return _create_commit(api, destination, operations, parent)

    uploads, copies = contents.uploads, contents.copies
    operations = [add_operation(upload, progress) for upload in uploads]
    operations += [copy_operation(file) for file in copies]
    operations += [delete_operation(name) for name in contents.deleted]
    with (
        _session(destination.repo_id) as api,
        counted_uploads(progress),
        _warnings_of_client() as remarks,
    ):
        try:
            done = retried(lambda: attempt(api))
        except FileDuplicationError:
            raise HubError(_no_copy(copies[0].repo_id)) from None
        except ValueError as error:
            if str(error).startswith("Cannot duplicate LFS file"):
                raise HubError(_no_copy(copies[0].repo_id)) from None
            raise
    for upload, operation in zip(uploads, operations, strict=False):
        if upload.sha256 is None and operation.upload_info.is_hashed:
            upload.sha256 = operation.upload_info.sha256.hex()
    return replace(done, remarks=tuple(remarks))


def _create_commit(
    api: Any, destination: Destination, operations: Sequence[Any], parent: str
) -> Commit:
    info = api.create_commit(
        destination.repo_id,
        operations,
        commit_message=destination.message,
        commit_description=destination.description,
        revision=destination.revision,
        create_pr=destination.pull_request,
        parent_commit=parent,
    )
    revision = info.pr_revision if destination.pull_request else destination.revision
    return Commit(oid=info.oid, url=info.pr_url or info.commit_url, revision=revision)


@contextmanager
def _warnings_of_client() -> Iterator[list[str]]:
    """Collect what the client would print as Python warnings: the Hub's remarks on a card."""
    remarks: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield remarks
    remarks += [without_secrets(str(w.message)) for w in caught if w.category is UserWarning]


def require_same(repo_id: str, commit: str, contents: Contents) -> None:
    """Check that a commit on the Hub holds what was sent or copied, by size and hash.

    Raises:
        HubError: a file is missing or differs; named.
    """
    remote = look_up(repo_id, commit)
    wrong = contents.missing_in(remote) if remote else repo_id
    if wrong is None:
        return
    if wrong in contents.deleted:
        raise HubError(f"{repo_id} still holds {wrong} after the commit. Push again.")
    if remote is None or wrong not in remote.files:
        raise HubError(
            f"{repo_id} does not hold {wrong} after the commit. Its .gitignore may name the file; "
            "change that and push again."
        )
    raise HubError(
        f"{wrong} of {repo_id} differs from what was sent. Was the local file changed meanwhile? "
        "Push again."
    )


def _landed(destination: Destination, contents: Contents, parent: str) -> Commit | None:
    """The commit of an earlier attempt whose answer got lost."""
    revision: str | None = destination.revision
    if destination.pull_request:
        revision = open_pull_request(destination)
    remote = look_up(destination.repo_id, revision) if revision else None
    if remote is None or revision is None or remote.commit == parent:
        return None
    if contents.missing_in(remote) is not None:
        return None
    page = page_of(destination.repo_id, remote.commit, revision)
    return Commit(oid=remote.commit, url=page, revision=revision)


def page_of(repo_id: str, oid: str, revision: str) -> str:
    """The web page of a commit, or of the pull request `refs/pr/N`."""
    from huggingface_hub import constants

    if revision.startswith("refs/pr/"):
        return f"{constants.ENDPOINT}/{repo_id}/discussions/{revision.removeprefix('refs/pr/')}"
    return f"{constants.ENDPOINT}/{repo_id}/commit/{oid}"


def _no_copy(repo_id: str) -> str:
    return (
        f"The Hub cannot copy the weights of {repo_id} to another repository (that needs Xet "
        "storage and the same region). Convert with the weights and push without --from."
    )
