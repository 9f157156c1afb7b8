"""Where a push goes: the repository, the branch or pull request, and who may see it. Only reads."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from yarncli.errors import HubError, UsageError
from yarncli.hub import writing
from yarncli.hub.writing import Destination, Refs, Remote
from yarncli.publishing.local import LocalModel
from yarncli.publishing.options import MAIN, PushOptions

_PULL_REQUEST = "refs/pr/"
# What may stand before org/name: the address of a Hub, and hf://.
_ADDRESS = re.compile(
    r"(?:hf://|https?://[^/]+/|(?:www\.)?(?:huggingface\.co|hf\.co)/)(?:models/)?"
)
_OTHER_KINDS = ("datasets/", "spaces/", "kernels/", "buckets/")


@dataclass(frozen=True, slots=True)
class PushTarget:
    """Where a push goes."""

    destination: Destination
    """The repository and its branch; for a pull request that is continued, its `refs/pr/N`."""

    start: Remote | None = None
    """What the push builds upon; None where the repository is still to be created."""

    is_new_branch: bool = False
    """Whether the branch is still to be created, from main."""

    is_draft: bool = False
    """Whether it is a pull request that is not up for review yet."""

    refs: Refs | None = None
    """The branches and tags that are there; None where nobody needed to know."""


def repository_name(text: str) -> str:
    """`org/name` of a target, which may be given as `hf://org/name` or as the address of its page.

    Raises:
        UsageError: it names no model repository; with the form that does.
    """
    found = _ADDRESS.match(text)
    name = text[found.end() :].rstrip("/").removesuffix(".git") if found else text
    if name.startswith(_OTHER_KINDS) and name.count("/") > 1:
        raise UsageError(f"{text} is no model, and push publishes models alone. Write ORG/NAME.")
    name, _, revision = name.partition("@") if "@" in name else name.partition("/tree/")
    if revision and writing.is_repo_id(name):
        raise UsageError(f"Give the branch apart: {name} --revision {revision}")
    if not writing.is_repo_id(name):
        with_owner = writing.is_repo_id(f"ORG/{text}")
        raise UsageError(
            f"{text!r} is not the name of a repository. "
            + (f"Put its owner before it: ORG/{text}." if with_owner else "Write ORG/NAME.")
        )
    return name


def find_target(local: LocalModel, name: str, notes: list[str]) -> PushTarget:
    """Look at the repository `name`, and make sure that the push is meant and permitted.

    Args:
        local: what is pushed.
        name: `org/name`.
        notes: what a person should know is added here.

    Raises:
        UsageError: it is public and the user has not said so, or `--revision` is no branch.
        HubError: no token, no access, no such repository, or the Hub cannot be reached.
    """
    options = local.options
    destination = _destination(local, name)
    nothing_yet = PushTarget(destination, is_new_branch=options.revision != MAIN)
    if options.dry_run and writing.is_offline():
        notes.append("HF_HUB_OFFLINE is set, so every file counts as new.")
        return nothing_yet
    main = writing.look_up(name)
    if main is None:
        if options.create_pr or options.config_only:
            raise HubError(
                f"{name}: the Hub has no such model, or it is private. A pull request and "
                "--config-only need one that exists."
            )
        return nothing_yet
    _require_visibility(main, options, notes)
    if options.create_pr:
        return _pull_request(destination, main, notes)
    is_request = options.revision.startswith(_PULL_REQUEST)
    refs = None
    if options.tag or (options.revision != MAIN and not is_request):
        refs = writing.list_refs(name)
    if destination.author and not is_request:
        writing.require_write_access(name)
    branch = main if options.revision == MAIN else writing.look_up(name, options.revision)
    if is_request and branch is None:
        raise HubError(f"{name} has no {options.revision}. Open a pull request with --create-pr.")
    if branch is not None and not is_request and refs and options.revision not in refs.branches:
        kind = "tag" if options.revision in refs.tags else "commit"
        raise UsageError(
            f"--revision {options.revision} is a {kind} of {name}, which stays as it is. Give a "
            "branch; one that is not there is made."
        )
    return PushTarget(destination, start=branch or main, is_new_branch=branch is None, refs=refs)


def _destination(local: LocalModel, name: str) -> Destination:
    options = local.options
    return Destination(
        repo_id=name,
        author=_author(options),
        message=(options.commit_message or _message(local)).strip(),
        description=options.commit_description,
        revision=options.revision,
        pull_request=options.create_pr,
    )


def _author(options: PushOptions) -> str:
    """The user's name; empty where a dry run has no token to ask with."""
    if options.dry_run and (writing.is_offline() or not writing.has_token()):
        return ""
    return writing.who_am_i()


def _message(local: LocalModel) -> str:
    done = local.history.plan
    to = f"{done.length:,} tokens with {done.method}" if done else ""
    if local.options.config_only:
        return f"Extend the context window to {to}" if to else "Correct the RoPE configuration"
    name = Path(local.checkpoint.name).resolve().name
    return f"Upload {name}: {to}" if to else f"Upload {name}"


def _pull_request(destination: Destination, main: Remote, notes: list[str]) -> PushTarget:
    """A new pull request, or the user's own open one of the same title."""
    opened = writing.find_pull_request(destination) if destination.author else None
    start = writing.look_up(destination.repo_id, opened.revision) if opened else None
    if opened is None or start is None:
        return PushTarget(destination, start=main)
    notes.append(f"Your open pull request {opened.revision} is continued.")
    going_on = replace(destination, revision=opened.revision, pull_request=False)
    return PushTarget(going_on, start=start, is_draft=opened.is_draft)


def _require_visibility(main: Remote, options: PushOptions, notes: list[str]) -> None:
    if main.private:
        if options.public:
            notes.append(f"{main.repo_id} is private and stays so; change it in its settings.")
        return
    is_proposal = options.create_pr or options.revision.startswith(_PULL_REQUEST)
    if not options.public and not (is_proposal and options.config_only):
        raise UsageError(
            f"{main.repo_id} is public, so everybody could read what is sent. Add --public if that "
            "is meant."
        )
