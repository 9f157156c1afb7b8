"""Passkey results for a card: the file of `check-passkey`, and its figure."""

from __future__ import annotations

import importlib.util
import shlex
import tempfile
from dataclasses import dataclass
from pathlib import Path

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation.report import PasskeyReport, read_report
from yarncli.evaluation.variants import as_it_is
from yarncli.gguf.detection import ENDING
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.messages import Messages
from yarncli.publishing.section import HEATMAP


@dataclass(frozen=True)
class Results:
    """Passkey results, and which of them are the checkpoint's."""

    report: PasskeyReport
    """All of them."""
    setting: str | None
    """The setting that the checkpoint itself has; None where none of them is it."""


def read_results(path: str | Path, checkpoint: Checkpoint, messages: Messages) -> Results:
    """The results in a file; `messages` get a warning where a reader could misjudge them.

    Args:
        path: a JSONL file of `check-passkey --out`.
        checkpoint: the local one that the results should be of.
        messages: is told of an incomplete run, of results of another model, and of results that
            are all of other settings.

    Raises:
        CheckpointError: the file cannot be read, or is not a result file.
        UsageError: it holds no results yet, or none of these GGUF files.
    """
    report = read_report(Path(path))
    if not next(iter(report.cells.values()), ()):
        raise UsageError(f"{path} holds no results yet. Run check-passkey to its end first.")
    done, planned = report.answered, report.planned
    if done < planned:
        messages.add(
            "warning", f"{path} holds {done} of {planned} prompts: the run was not completed."
        )
    measured = str(report.settings.get("model") or "").rstrip("/").rpartition("/")[2]
    if isinstance(checkpoint, GgufRepository):
        return Results(report, _of_gguf(path, report, measured, checkpoint))
    name = checkpoint.name
    if measured and measured != Path(name).resolve().name:
        messages.add("warning", f"The results in {path} are of {measured}, not of {name}.")
    setting = _published_setting(report, checkpoint)
    if setting is None:
        messages.add(
            "warning",
            f"No setting in {path} is the one in the config.json of {name}, so the metadata of the "
            "card get no result. The table in the card shows all settings.",
        )
    return Results(report, setting)


def _of_gguf(
    path: str | Path, report: PasskeyReport, measured: str, repository: GgufRepository
) -> str | None:
    """The setting for the metadata: that of the one file there is; None where there are several.

    A server names what it serves, and that is all that tells whose results these are.

    Raises:
        UsageError: they are of no file of `repository`.
    """
    firsts = [Path(model.names[0]).name for model in repository.models]
    known = {_served(name) for name in firsts}
    if _served(measured) not in known or len(report.cells) != 1:
        raise UsageError(
            f"The results in {path} are of {measured or 'a model without a name'!r}, and not known "
            f"to be of {firsts[0]}. Serve that file under its own name (llama-server --alias "
            f"{shlex.quote(firsts[0])}), and measure it with check-passkey --base-url."
        )
    return next(iter(report.cells)) if len(known) == 1 else None


def _served(name: str) -> str:
    """A file as servers name it: with or without its ending, under Ollama with a tag."""
    return name.removesuffix(":latest").removesuffix(ENDING)


def _published_setting(report: PasskeyReport, checkpoint: Checkpoint) -> str | None:
    """The name of the setting in a report that the checkpoint itself has; None where none is it.

    A report of one setting that does not record its RoPE parameters, as that of a server, is taken
    to be of the checkpoint.
    """
    recorded = report.settings.get("variants")
    entries = recorded if isinstance(recorded, dict) else {}
    ropes = {
        name: entry.get("rope") if isinstance(entry := entries.get(name), dict) else None
        for name in report.cells
    }
    if len(ropes) == 1 and not any(ropes.values()):
        return next(iter(ropes))
    try:
        own = as_it_is(checkpoint).rope
    except CheckpointError:  # nobody knows how this model type is read
        return None
    return next((name for name, rope in ropes.items() if rope == own), None)


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
