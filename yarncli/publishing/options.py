"""What a caller can decide about a push."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yarncli.errors import UsageError
from yarncli.options import choose

MAIN = "main"
SHORTEST_TITLE = 3  # characters; the Hub client refuses a shorter title of a pull request
# The rules that a user may turn into warnings with --allow.
ALLOWABLE = (
    "other-library",
    "other-model",
    "other-weights",
    "record-contradicts",
    "configs-apart",
    "old-weights",
    "pickle",
    "private-base",
    "gguf-record",
    "gguf-scaled-apart",
)
# Names that git allows for a branch (git check-ref-format).
_BRANCH = re.compile(
    r"(?![-./])(?!.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)))[^\s\x00-\x20~^:?*\[\\\x7f]{1,255}(?<![./])"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REQUEST = re.compile(r"refs/pr/[1-9]\d*")


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What a caller can decide about a push."""

    public: bool = False
    """Create the repository as public, or permit a push to a public repository."""

    create_pr: bool = False
    """Open a pull request on the main branch instead of committing, or continue your open one."""

    config_only: bool = False
    """Send only the small config files, yarncli.json and README.md."""

    allow: Sequence[str] = ()
    """Ids of rules in `ALLOWABLE` whose errors become warnings."""

    delete: Sequence[str] = ()
    """Patterns of files on the branch that the commit deletes, except files that it sends."""

    revision: str = MAIN
    """The branch, which is created if it does not exist, or `refs/pr/N`."""

    tag: str | None = None
    """A tag for the commit. A tag that already names another commit is refused."""

    commit_message: str | None = None
    """First line of the commit message; None generates one from the conversion."""

    commit_description: str = ""
    """Text below the first line of the commit message."""

    include: Sequence[str] = ()
    """Patterns of file names; if given, other files are not sent."""

    exclude: Sequence[str] = ()
    """Patterns of files that are not sent."""

    copy_from: str | None = None
    """A Hub model whose weights are copied inside the Hub instead of sent from this machine."""

    results: str | Path | Sequence[str | Path] | None = None
    """Result files (JSONL) of check-passkey, regress and perplexity for the card, one of each."""

    with_card: bool = True
    """Whether README.md is written and sent."""

    force_card: bool = False
    """Send the local README.md even if the Hub has one."""

    licence: str | None = None
    """The licence for the card, as the Hub spells it."""

    base_model: str | None = None
    """Hub id of the base model; None takes the one in yarncli.json."""

    dry_run: bool = False
    """Decide what would be sent, but send nothing."""

    def require_consistent(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: options contradict each other, or `revision` cannot be the name of a branch.
        """
        self._require_names()
        if self.copy_from and self.config_only:
            raise UsageError("--from publishes weights, --config-only does not. Leave one out.")
        for name in self.allow:
            choose(name, ALLOWABLE, "rule for --allow")
        if self.force_card and not self.with_card:
            raise UsageError("--force-card and --no-card contradict each other. Leave one out.")

    def _require_names(self) -> None:
        """Refuse impossible names of branches and tags, and impossible commit messages."""
        is_request = self.revision.startswith("refs/pr/")
        if self.create_pr and self.revision != MAIN:
            raise UsageError(
                "--create-pr opens a pull request on the main branch, so leave out --revision. To "
                "add to a pull request, give --revision refs/pr/N without --create-pr."
            )
        if self.tag is not None and (self.create_pr or is_request):
            raise UsageError("--tag names a commit on a branch, so it cannot name a pull request.")
        for option, name in {"revision": self.revision, "tag": self.tag or MAIN}.items():
            if not _BRANCH.fullmatch(name) or not is_text(name):
                raise UsageError(f"--{option} {name!r} cannot be the name of a branch or tag.")
            if _COMMIT.fullmatch(name):
                raise UsageError(f"--{option} {name} is a commit. Give the name of a branch.")
            if name.startswith("refs/") and (option == "tag" or not _REQUEST.fullmatch(name)):
                raise UsageError(f"--{option} {name}: write the name without refs/heads/.")
        message = self.commit_message
        if message is not None and len(message.strip()) < (SHORTEST_TITLE if self.create_pr else 1):
            raise UsageError(
                "--commit-message is too short. If you leave it out, it is generated from the "
                "conversion."
            )
        if not is_text(f"{message}{self.commit_description}"):
            raise UsageError("--commit-message and --commit-description must be UTF-8 text.")


def is_text(name: str) -> bool:
    """Whether a text can be UTF-8. Lone surrogates stand for bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
