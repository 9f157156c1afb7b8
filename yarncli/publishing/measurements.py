"""All measurements for a card, from the result files of check-passkey, regress and perplexity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import UsageError
from yarncli.evaluation.losses import PerplexityReport, read_perplexity_report
from yarncli.evaluation.regress import RegressReport, read_regress_report
from yarncli.evaluation.result_file import read_results as read_lines
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.measured import Contexts, Price
from yarncli.publishing.messages import Messages
from yarncli.publishing.results import (
    Results,
    gguf_setting,
    published_setting,
    read_results,
    warn_of_another,
)

ResultFiles = str | Path | Sequence[str | Path] | None
"""Type of the argument `results`: one file, several, or none."""


@dataclass(frozen=True)
class _File:
    """A result file, with the checkpoint and the receiver of messages."""

    path: str | Path
    checkpoint: Checkpoint
    messages: Messages

    def setting(self, settings: Mapping[str, Any], names: Sequence[str]) -> str | None:
        """The measured setting that the checkpoint has; warns if the file has no such setting."""
        if isinstance(self.checkpoint, GgufRepository):
            return gguf_setting(self.path, settings, names, self.checkpoint)
        measured = settings.get("converted") or settings.get("model")
        warn_of_another(self.path, measured, self.checkpoint, self.messages)
        found = published_setting(settings, names, self.checkpoint)
        if found is None:
            self.messages.add(
                "warning",
                f"No setting in {self.path} is the one in the config.json of "
                f"{self.checkpoint.name}, so the card does not show these results.",
            )
        return found

    def warn_cut(self, done: str) -> None:
        """Warn that a run was not completed."""
        self.messages.add("warning", f"{self.path} holds {done}: the run was not completed.")

    def require_some(self, found: object, command: str) -> None:
        """Refuse a file without results."""
        if not found:
            raise UsageError(f"{self.path} holds no results yet. Run {command} to its end first.")


def read_all(files: ResultFiles, checkpoint: Checkpoint, messages: Messages) -> Results | None:
    """Read the measurements in result files; None if there are no files.

    Args:
        files: JSONL files of --out, at most one of each command.
        checkpoint: the local checkpoint that was measured. Of regress and perplexity, only results
            at its own setting are used.
        messages: gets warnings about what a reader could misjudge, as in `read_results`.

    Raises:
        CheckpointError: a file cannot be read, or is not a result file.
        UsageError: a file holds no results yet, or two files come from the same command.
    """
    paths = [files] if isinstance(files, str | Path) else list(files or ())
    kinds = {path: read_lines(Path(path)).kind for path in paths}
    for kind, count in Counter(kinds.values()).items():
        if count > 1:
            named = " and ".join(str(path) for path in paths if kinds[path] == kind)
            raise UsageError(
                f"{named} are of the same command. Give --results one file per command."
            )
    found = Results()
    for path, kind in sorted(kinds.items(), key=lambda item: item[1]):
        file = _File(path, checkpoint, messages)
        if kind == "regress":
            found = replace(found, price=_price(file, read_regress_report(Path(path))))
        elif kind == "perplexity":
            found = replace(found, contexts=_contexts(file, read_perplexity_report(Path(path))))
        else:
            asked = read_results(path, checkpoint, messages)
            found = replace(found, report=asked.report, setting=asked.setting)
    return found if paths else None


def _price(file: _File, report: RegressReport) -> Price | None:
    file.require_some(any(report.divergences.values()), "regress")
    name = file.setting(report.settings, list(report.divergences))
    if name is None or not report.divergences[name]:
        return None
    done, planned = len(report.divergences[name]), report.settings["texts"]
    if done < planned:
        file.warn_cut(f"{done} of {planned} texts")
    return Price(settings=report.settings, cost=report.regression(name))


def _contexts(file: _File, report: PerplexityReport) -> Contexts | None:
    file.require_some(any(report.losses.values()), "perplexity")
    name = file.setting(report.settings, list(report.losses))
    if name is None or not report.losses[name]:
        return None
    results = report.results(name)
    windows = Counter(loss.length for loss in report.losses[name])
    planned = report.settings["lengths"]
    uneven = report.settings["layout"] != "sliding" and len(set(windows.values())) > 1
    if len(results) < len(planned) or uneven:
        file.warn_cut("a part of its results")
    return Contexts(settings=report.settings, results=tuple(results))
