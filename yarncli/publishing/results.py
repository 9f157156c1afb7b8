"""Passkey results for a card: the file of `check-passkey`, and its figure."""

from __future__ import annotations

import importlib.util
import math
import tempfile
from pathlib import Path

from yarncli.errors import UsageError
from yarncli.evaluation.report import PasskeyReport, read_report
from yarncli.publishing.messages import Messages
from yarncli.publishing.section import HEATMAP


def read_results(path: str | Path, name: str, messages: Messages) -> PasskeyReport:
    """The results in a file; `messages` get a warning where a reader could misjudge them.

    Args:
        path: a JSONL file of `check-passkey --out`.
        name: the directory of the checkpoint that the results should be of.
        messages: is told of an incomplete run, and of results of another model.

    Raises:
        CheckpointError: the file cannot be read, or is not a result file.
        UsageError: it holds no results yet.
    """
    report = read_report(Path(path))
    cells = sum(map(len, report.cells.values()))
    if not next(iter(report.cells.values()), ()):
        raise UsageError(f"{path} holds no results yet. Run check-passkey to its end first.")
    if cells < (planned := _prompts_planned(report)):
        messages.add(
            "warning", f"{path} holds {cells} of {planned} prompts: the run was not completed."
        )
    measured = str(report.settings.get("model") or "").rstrip("/").rpartition("/")[2]
    if measured and measured != Path(name).resolve().name:
        messages.add("warning", f"The results in {path} are of {measured}, not of {name}.")
    return report


def draw_heatmap(report: PasskeyReport, messages: Messages) -> bytes | None:
    """The figure of the results as PNG; None, with a note, where matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        messages.add(
            "note", "The card has no figure: that needs matplotlib (pip install 'yarncli[plot]')."
        )
        return None
    from yarncli.figures.passkey import plot_passkey

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, HEATMAP)
        plot_passkey([report], path)
        return path.read_bytes()


def _prompts_planned(report: PasskeyReport) -> int:
    """How many prompts the settings of a run ask for; 0 where they do not tell."""
    lengths, variants = report.settings.get("lengths"), report.settings.get("variants")
    each = [report.settings.get(name) for name in ("depths", "trials")]
    if not isinstance(lengths, list) or not isinstance(variants, dict):
        return 0
    return len(lengths) * len(variants) * math.prod(n if type(n) is int else 0 for n in each)
