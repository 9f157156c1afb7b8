"""Results for a card, mainly those of `check-passkey` and their figure."""

from __future__ import annotations

import importlib.util
import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.errors import CheckpointError, UsageError
from yarncli.evaluation.report import PasskeyReport, read_report
from yarncli.evaluation.variants import as_it_is
from yarncli.gguf.detection import ENDING
from yarncli.publishing.gguf import GgufRepository
from yarncli.publishing.measured import Contexts, Price
from yarncli.publishing.messages import Messages
from yarncli.publishing.section import HEATMAP


@dataclass(frozen=True)
class Results:
    """All measurements for a card, and which passkey results belong to the checkpoint."""

    report: PasskeyReport | None = None
    """All passkey results; None if there are none."""
    setting: str | None = None
    """Name of the setting in `report` that the checkpoint has; None if there is no such setting."""
    price: Price | None = None
    """The price on short texts at the checkpoint's own setting, if that was measured."""
    contexts: Contexts | None = None
    """Perplexity by context at the checkpoint's own setting, if that was measured."""


def read_results(path: str | Path, checkpoint: Checkpoint, messages: Messages) -> Results:
    """Read the results in a file, with a warning for what a reader could misjudge.

    Args:
        path: a JSONL file of `check-passkey --out`.
        checkpoint: the local checkpoint that was measured.
        messages: gets a warning about an incomplete run, about results of another model, and if no
            result is of the checkpoint's own setting.

    Raises:
        CheckpointError: the file cannot be read, or is not a result file.
        UsageError: the file holds no results yet, or none of these GGUF files.
    """
    report = read_report(Path(path))
    if not next(iter(report.cells.values()), ()):
        raise UsageError(f"{path} holds no results yet. Run check-passkey to its end first.")
    done, planned = report.answered, report.planned
    if done < planned:
        messages.add(
            "warning", f"{path} holds {done} of {planned} prompts: the run was not completed."
        )
    if isinstance(checkpoint, GgufRepository):
        only = gguf_setting(path, report.settings, list(report.cells), checkpoint)
        return Results(report=report, setting=only if len(checkpoint.models) == 1 else None)
    name = checkpoint.name
    warn_of_another(path, report.settings.get("model"), checkpoint, messages)
    setting = published_setting(report.settings, list(report.cells), checkpoint)
    if setting is None:
        messages.add(
            "warning",
            f"No setting in {path} is the one in the config.json of {name}, so the metadata of the "
            "card get no result. The table in the card shows all settings.",
        )
    return Results(report=report, setting=setting)


def gguf_setting(
    path: str | Path, settings: Mapping[str, Any], names: Sequence[str], repository: GgufRepository
) -> str:
    """The only setting of a run that measured a file of `repository`.

    The name that the server reports is the only sign of which file was measured.

    Raises:
        UsageError: that name does not fit a file of `repository`.
    """
    measured = str(settings.get("model") or "").rstrip("/").rpartition("/")[2]
    firsts = [Path(model.names[0]).name for model in repository.models]
    if _served(measured) not in map(_served, firsts) or len(names) != 1:
        raise UsageError(
            f"The results in {path} are of {measured or 'a model without a name'!r}, which may not "
            f"be {firsts[0]}. Serve that file under its own name (llama-server --alias "
            f"{shlex.quote(firsts[0])}) and measure it with check-passkey --base-url."
        )
    return names[0]


def _served(name: str) -> str:
    """A name without what servers add or remove: the ending .gguf, and the tag of Ollama."""
    return name.removesuffix(":latest").removesuffix(ENDING)


def warn_of_another(
    path: str | Path, measured: object, checkpoint: Checkpoint, messages: Messages
) -> None:
    """Warn if the measured model has another name than the checkpoint."""
    model = str(measured or "").rstrip("/").rpartition("/")[2]
    if model and model != Path(checkpoint.name).resolve().name:
        messages.add("warning", f"The results in {path} are of {model}, not of {checkpoint.name}.")


def published_setting(
    settings: Mapping[str, Any], names: Sequence[str], checkpoint: Checkpoint
) -> str | None:
    """The name of the measured setting that the checkpoint has; None if there is no such setting.

    A run through a server records one setting without RoPE parameters. It is assumed to have
    measured the checkpoint.

    Args:
        settings: the settings recorded in the result file.
        names: names of the measured settings.
        checkpoint: the checkpoint to publish.
    """
    recorded = settings.get("variants")
    entries = recorded if isinstance(recorded, dict) else {}
    ropes = {
        name: entry.get("rope") if isinstance(entry := entries.get(name), dict) else None
        for name in names
    }
    if len(ropes) == 1 and not any(ropes.values()):
        return next(iter(ropes))
    try:
        own = as_it_is(checkpoint).rope
    except CheckpointError:  # unknown model type
        return None
    return next((name for name, rope in ropes.items() if rope == own), None)


def draw_heatmap(report: PasskeyReport | None, messages: Messages) -> bytes | None:
    """The figure of passkey results as PNG; None without results or, with a note, matplotlib."""
    if report is None:
        return None
    if importlib.util.find_spec("matplotlib") is None:
        messages.add(
            "note",
            "The card has no figure, because matplotlib is missing (pip install 'yarncli[plot]').",
        )
        return None
    from yarncli.figures.passkey import plot_passkey

    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, HEATMAP)
        plot_passkey([report], path)
        return path.read_bytes()
