"""The target of a push: repository, branch or pull request, and visibility. Changes nothing."""

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
# What may stand before org/name: the address of a Hub, or hf://.
_ADDRESS = re.compile(
    r"(?:hf://|https?://[^/]+/|(?:www\.)?(?:huggingface\.co|hf\.co)/)(?:models/)?"
)
_OTHER_KINDS = ("datasets/", "spaces/", "kernels/", "buckets/")


@dataclass(frozen=True, slots=True)
class PushTarget:
    """The target of a push."""

    destination: Destination
    """The repository and its branch; to continue a pull request, its `refs/pr/N`."""

    start: Remote | None = None
    """The present state of the branch; None if the repository does not exist yet."""

    is_new_branch: bool = False
    """Whether the branch must be created from main."""

    is_draft: bool = False
    """Whether it is a pull request that is still a draft."""

    refs: Refs | None = None
    """The present branches and tags; None if they were not needed."""


def repository_name(text: str) -> str:
    """The `org/name` of a target, which may be written as `hf://org/name` or as a web address.

    Raises:
        UsageError: it does not name a model repository; the message shows the right form.
    """
    found = _ADDRESS.match(text)
    name = text[found.end() :].rstrip("/").removesuffix(".git") if found else text
    if name.startswith(_OTHER_KINDS) and name.count("/") > 1:
        raise UsageError(f"{text} is not a model, and push publishes only models. Write ORG/NAME.")
    name, _, revision = name.partition("@") if "@" in name else name.partition("/tree/")
    if revision and writing.is_repo_id(name):
        raise UsageError(f"Give the branch with --revision: {name} --revision {revision}")
    if not writing.is_repo_id(name):
        with_owner = writing.is_repo_id(f"ORG/{text}")
        raise UsageError(
            f"{text!r} is not the name of a repository. "
            + (f"Put its owner before it: ORG/{text}." if with_owner else "Write ORG/NAME.")
        )
    return name


def find_target(local: LocalModel, name: str, notes: list[str]) -> PushTarget:
    """Read the repository `name`, and make sure that the push is intended and permitted.

    Args:
        local: the model to push.
        name: `org/name`.
        notes: gets sentences that the user should read.

    Raises:
        UsageError: it is public without `--public`, or `--revision` is not a branch.
        HubError: no token, no access, no such repository, or the Hub cannot be reached.
    """
    options = local.options
    destination = _destination(local, name)
    nothing_yet = PushTarget(destination, is_new_branch=options.revision != MAIN)
    if options.dry_run and writing.is_offline():
        notes.append("HF_HUB_OFFLINE is set, so every file is treated as new.")
        return nothing_yet
    main = writing.look_up(name)
    if main is None:
        if options.create_pr or options.config_only:
            raise HubError(
                f"{name}: the Hub has no such model, or it is private. A pull request and "
                "--config-only need a repository that exists."
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
            f"--revision {options.revision} is a {kind} of {name}, and push never moves a {kind}. "
            "Give a branch; if it does not exist, it is created."
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
    """The user's name on the Hub; empty in a dry run without a token."""
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
    """A new pull request, or the user's own open pull request with the same title."""
    opened = writing.find_pull_request(destination) if destination.author else None
    start = writing.look_up(destination.repo_id, opened.revision) if opened else None
    if opened is None or start is None:
        return PushTarget(destination, start=main)
    notes.append(f"The push adds to your open pull request {opened.revision}.")
    going_on = replace(destination, revision=opened.revision, pull_request=False)
    return PushTarget(going_on, start=start, is_draft=opened.is_draft)


def _require_visibility(main: Remote, options: PushOptions, notes: list[str]) -> None:
    if main.private:
        if options.public:
            notes.append(
                f"{main.repo_id} is private and stays private. You can change that in its settings "
                "on the Hub."
            )
        return
    is_proposal = options.create_pr or options.revision.startswith(_PULL_REQUEST)
    if not options.public and not (is_proposal and options.config_only):
        raise UsageError(
            f"{main.repo_id} is public, so everybody could read what is sent. Add --public if you "
            "want that."
        )
