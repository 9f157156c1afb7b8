"""One commit on the Hub: ask what it would leave out, send the files, commit, and check it.

The files are sent with the client's pre-upload call, before the commit. So a repository changes in
one step or not at all, and what the Hub already holds is not sent again. The client retries most
requests; only those that it sends once are retried here.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from urllib.parse import quote

from yarncli.errors import HubError
from yarncli.hub.failures import client_utils, retried, without_secrets
from yarncli.hub.uploads import (
    Copy,
    Upload,
    add_operation,
    bounded_memory,
    copy_operation,
    counted_uploads,
    delete_operation,
    uses_xet,
)
from yarncli.hub.writing import Destination, Remote, look_up, session
from yarncli.progress import Advance, ProgressCallback, stage

HASHING = "Hashing"
SENDING = "Sending"
_AT_ONCE = 256  # files per pre-upload request, as in the client


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The result of a push on the Hub."""

    oid: str
    """Full commit hash."""
    url: str
    """Page of the commit, or of the pull request."""
    revision: str
    """The branch or `refs/pr/N` of the commit."""
    remarks: tuple[str, ...] = ()
    """Warnings of the Hub about the card, each as a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """The changes of a commit."""

    uploads: Sequence[Upload] = ()
    """Files to send."""
    copies: Sequence[Copy] = ()
    """Files to copy inside the Hub."""
    deleted: Sequence[str] = ()
    """Names of files to delete."""

    def missing_in(self, remote: Remote) -> str | None:
        """The first file that differs in a commit; None if the commit holds all changes."""
        files: tuple[Upload | Copy, ...] = (*self.uploads, *self.copies)
        for file in files:
            if file.name not in remote.files or not file.equals(remote.files[file.name]):
                return file.name
        return next((name for name in self.deleted if name in remote.files), None)


class Draft:
    """A commit in preparation. The branch changes only when `commit` is called."""

    def __init__(self, destination: Destination, contents: Contents) -> None:
        """Read the beginning of every file.

        Raises:
            CheckpointError: a file cannot be read any more.
        """
        self.destination = destination
        self.contents = contents
        self._progress: Advance | None = None
        self._additions = [add_operation(file, self._count) for file in contents.uploads]
        self._remarks: list[str] = []

    def _count(self, sent: int) -> None:
        if self._progress:
            self._progress(sent)

    def left_out(self) -> list[str]:
        """The files that the Hub would leave out of the commit because of a .gitignore.

        Raises:
            HubError: see `hub_errors`.
        """
        found: list[str] = []
        with session(self.destination.repo_id) as api:
            utils = client_utils()
            url = f"{api.endpoint}/api/models/{self.destination.repo_id}/preupload/"
            url += quote(self.destination.revision, safe="")
            for start in range(0, len(self._additions), _AT_ONCE):
                part = self._additions[start : start + _AT_ONCE]
                answer = utils.http_backoff(
                    "POST",
                    url,
                    headers=utils.build_hf_headers(),
                    params={"create_pr": "1"} if self.destination.pull_request else None,
                    json=self._question(part),
                )
                utils.hf_raise_for_status(answer)
                files = answer.json()["files"]
                found += [file["path"] for file in files if file.get("shouldIgnore")]
        return found

    def _question(self, additions: Sequence[Any]) -> dict[str, Any]:
        """The body of a pre-upload request."""
        files = [
            {
                "path": addition.path_in_repo,
                "sample": base64.b64encode(addition.upload_info.sample).decode(),
                "size": addition.upload_info.size,
            }
            for addition in additions
        ]
        ignoring = self._gitignore()
        return {"files": files} if ignoring is None else {"files": files, "gitIgnore": ignoring}

    def _gitignore(self) -> str | None:
        """The .gitignore after the commit; None if the commit does not change it."""
        name = ".gitignore"
        for upload in self.contents.uploads:
            if upload.name == name:
                with upload.open() as file:
                    return file.read().decode(errors="replace")
        return "# deleted by the same commit\n" if name in self.contents.deleted else None

    def send(self, progress: ProgressCallback | None) -> None:
        """Let the Hub check the card, and send the large files. Nothing is visible yet.

        Raises:
            CheckpointError: a file cannot be read any more.
            HubError: see `hub_errors`.
        """
        uploads, destination = self.contents.uploads, self.destination
        for upload in uploads:
            if upload.name == "README.md":
                with upload.open() as file, session(destination.repo_id) as api:
                    text = file.read().decode(errors="replace")
                    self._remarks = retried(partial(_ask_about_card, api, text))
        if not uses_xet():  # Xet computes the hashes while it sends
            self._hash(progress)
        with (
            session(destination.repo_id) as api,
            warnings.catch_warnings(
                action="ignore"
            ),  # warnings of the client about its own use of httpx
            stage(progress, SENDING, sum(upload.size for upload in uploads)) as self._progress,
            counted_uploads(self._progress),
            bounded_memory([file.size for file in uploads if file.size >= 1 << 20]),
        ):
            try:
                api.preupload_lfs_files(
                    destination.repo_id,
                    self._additions,
                    revision=destination.revision,
                    create_pr=destination.pull_request,
                    free_memory=False,
                    gitignore_content=self._gitignore(),
                )
            except ConnectionError as error:
                _ask_for_words(api, destination, str(error))
                raise
        for upload, addition in zip(uploads, self._additions, strict=True):
            if upload.sha256 is None and addition.upload_info.is_hashed:
                upload.sha256 = addition.upload_info.sha256.hex()

    def _hash(self, progress: ProgressCallback | None) -> None:
        """Compute the hashes with progress; the client would do it silently."""
        uploads = [file for file in self.contents.uploads if file.sha256 is None]
        with stage(progress, HASHING, sum(file.size for file in uploads)) as advance:
            for upload, addition in zip(self.contents.uploads, self._additions, strict=True):
                addition.upload_info.sha256 = bytes.fromhex(upload.hashed(advance))

    def commit(self, destination: Destination, *, parent: str) -> Commit:
        """Make the commit, only if `parent` is still the head of the branch.

        If the answer of the server gets lost, the commit is recognised and not repeated.

        Args:
            destination: the same as before, or the pull request that was opened since.
            parent: the head of the branch when it was read.

        Raises:
            HubError: see `hub_errors`; the branch is unchanged.
        """
        from huggingface_hub.errors import FileDuplicationError

        tried = False

        def attempt(api: Any) -> Commit:
            nonlocal tried
            if tried and (landed := _landed(destination, self.contents, parent)):
                return landed
            tried = True
            return _create_commit(api, destination, operations, parent)

        copies = self.contents.copies
        operations = [*self._additions, *map(copy_operation, copies)]
        operations += map(delete_operation, self.contents.deleted)
        # The client repeats the Hub's warnings about the card, which `send` already knows.
        with session(destination.repo_id) as api, warnings.catch_warnings(action="ignore"):
            try:
                done = retried(lambda: attempt(api))
            except FileDuplicationError:
                raise HubError(_no_copy(copies[0].repo_id)) from None
            except ValueError as error:
                if str(error).startswith("Cannot duplicate LFS file"):
                    raise HubError(_no_copy(copies[0].repo_id)) from None
                raise
        return replace(done, remarks=tuple(self._remarks))


def _create_commit(
    api: Any, destination: Destination, operations: Sequence[Any], parent: str
) -> Commit:
    info = api.create_commit(
        destination.repo_id,
        operations,
        commit_message=destination.message,
        commit_description=destination.description,
        revision=destination.revision,
        parent_commit=parent,
    )
    page = page_of(destination.repo_id, info.oid, destination.revision)
    return Commit(oid=info.oid, url=page, revision=destination.revision)


def _ask_about_card(api: Any, text: str) -> list[str]:
    """Ask the Hub to check a card; returns its warnings, each as a sentence.

    Raises:
        ValueError: the Hub does not accept the metadata; with the client's message.
    """
    utils = client_utils()
    answer = utils.get_session().post(
        f"{api.endpoint}/api/validate-yaml",
        json={"content": text, "repoType": "model"},
        headers=utils.build_hf_headers(),
    )
    if answer.status_code != 400:
        utils.hf_raise_for_status(answer)
    told = answer.json()
    if answer.status_code == 400:
        wrong = "\n".join(f"- {error.get('message')}" for error in told.get("errors", []))
        raise ValueError(f"Invalid metadata in README.md.\n{wrong}")
    found = (without_secrets(str(each.get("message"))) for each in told.get("warnings", []))
    return [f"The Hub warns about README.md: {words}" for words in found]


def _ask_for_words(api: Any, destination: Destination, text: str) -> None:
    """Ask the Hub why it refused access to Xet, because hf_xet drops the reason."""
    if "xet-write-token" not in text or "(403" not in text:
        return
    utils = client_utils()
    revision = quote(destination.revision, safe="")
    answer = utils.get_session().get(
        f"{api.endpoint}/api/models/{destination.repo_id}/xet-write-token/{revision}",
        headers=utils.build_hf_headers(),
        params={"create_pr": "1"} if destination.pull_request else None,
    )
    if answer.status_code == 403 and answer.headers.get("X-Error-Message"):
        utils.hf_raise_for_status(answer)


def require_same(repo_id: str, commit: str, contents: Contents) -> None:
    """Check that a commit on the Hub holds what was sent or copied, by size and hash.

    Raises:
        HubError: a file is missing or differs; the message names it.
    """
    remote = look_up(repo_id, commit)
    wrong = contents.missing_in(remote) if remote else repo_id
    if wrong is None:
        return
    if wrong in contents.deleted:
        raise HubError(f"{repo_id} still holds {wrong} after the commit. Push again.")
    if remote is None or wrong not in remote.files:
        raise HubError(f"{repo_id} does not hold {wrong} after the commit. Push again.")
    raise HubError(
        f"{wrong} of {repo_id} differs from what was sent. The local file may have changed "
        "meanwhile. Push again."
    )


def _landed(destination: Destination, contents: Contents, parent: str) -> Commit | None:
    """The commit of an earlier attempt whose answer got lost, if there is one."""
    remote = look_up(destination.repo_id, destination.revision)
    if remote is None or remote.commit == parent or contents.missing_in(remote) is not None:
        return None
    page = page_of(destination.repo_id, remote.commit, destination.revision)
    return Commit(oid=remote.commit, url=page, revision=destination.revision)


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
