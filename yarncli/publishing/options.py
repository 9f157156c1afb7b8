"""What a caller can decide about a push."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yarncli.errors import UsageError

MAIN = "main"
# The rules that a user may set aside, each by its name.
ALLOWABLE = (
    "other-library",
    "other-model",
    "other-weights",
    "record-contradicts",
    "configs-apart",
    "old-weights",
)
# What git allows as the name of a branch (git check-ref-format).
_BRANCH = re.compile(
    r"(?![-./])(?!.*(?:\.\.|//|/\.|@\{|\.lock(?:/|$)))[^\s\x00-\x20~^:?*\[\\\x7f]{1,255}(?<![./])"
)


@dataclass(frozen=True, kw_only=True)
class PushOptions:
    """What a caller can decide about a push."""

    public: bool = False
    """Create the repository public, or permit a push to a public one."""

    create_pr: bool = False
    """Open a pull request on the main branch instead of committing, or continue one's own."""

    config_only: bool = False
    """Send only the small config files, yarncli.json and README.md."""

    allow_pickle: bool = False
    """Send files that may run code when they are loaded."""

    allow: Sequence[str] = ()
    """Ids of rules on what a push lands on whose errors become warnings; of `ALLOWABLE`."""

    delete: Sequence[str] = ()
    """Patterns of files of the branch that the commit deletes; what is sent stays."""

    revision: str = MAIN
    """The branch, which is created if it is missing, or `refs/pr/N`."""

    commit_message: str | None = None
    """First line of the commit message; None writes one from the conversion."""

    commit_description: str = ""
    """Text below the first line of the commit message."""

    include: Sequence[str] = ()
    """Patterns of file names; if there are any, other files are not sent."""

    exclude: Sequence[str] = ()
    """Patterns of files that are not sent."""

    copy_from: str | None = None
    """A Hub model whose weights are copied on the Hub instead of sent from here."""

    results: str | Path | None = None
    """A result file of check-passkey (JSONL) for the card."""

    with_card: bool = True
    """Whether README.md is written and sent."""

    force_card: bool = False
    """Send the local README.md even where the Hub has one."""

    licence: str | None = None
    """The licence for the card, as the Hub spells it."""

    base_model: str | None = None
    """The Hub model that the checkpoint was made from; None takes it from yarncli.json."""

    dry_run: bool = False
    """Only read: decide what would be sent, and send nothing."""

    def require_consistent(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            UsageError: they do, or `revision` cannot be the name of a branch.
        """
        if self.create_pr and self.revision != MAIN:
            raise UsageError(
                "--create-pr goes to the main branch, so leave out --revision. To add to a pull "
                "request give --revision refs/pr/N alone."
            )
        if not _BRANCH.fullmatch(self.revision):
            raise UsageError(f"--revision {self.revision!r} cannot be the name of a branch.")
        if self.copy_from and self.config_only:
            raise UsageError("--from publishes weights and --config-only none. Leave one out.")
        if unknown := sorted(set(self.allow) - set(ALLOWABLE)):
            raise UsageError(
                f"--allow {unknown[0]} is no rule that can be allowed. Those are: "
                f"{', '.join(ALLOWABLE)}."
            )
        if self.force_card and not self.with_card:
            raise UsageError("--force-card and --no-card contradict each other. Leave one out.")
