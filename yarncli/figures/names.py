"""The names of runs in a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yarncli.errors import UsageError

_MOST_RUNS = 60


def model_name(settings: Mapping[str, Any]) -> str:
    """The model of a run, without its directory; empty if it is not known."""
    return str(settings.get("model") or "").rstrip("/").rpartition("/")[2]


def run_names(runs: Sequence[tuple[Mapping[str, Any], str]]) -> list[str]:
    """A unique name for each run: its setting, and its model if there are several files.

    Args:
        runs: what is recorded in the result file, and the name of the setting.

    Raises:
        UsageError: as `check_number`.
    """
    check_number(len(runs), "runs")
    several = len({id(settings) for settings, _ in runs}) > 1
    names = [f"{model_name(about)}: {name}" if several else name for about, name in runs]
    longer = [
        f"{name} to {window:,}" if names.count(name) > 1 and (window := _window(*run)) else name
        for name, run in zip(names, runs, strict=True)
    ]
    return [
        f"{name} ({longer[: at + 1].count(name)})" if longer.count(name) > 1 else name
        for at, name in enumerate(longer)
    ]


def check_number(number: int, what: str, most: int = _MOST_RUNS) -> None:
    """Refuse what no figure can show legibly.

    Raises:
        UsageError: `number` is larger than `most`.
    """
    if number > most:
        raise UsageError(
            f"There are {number:,} {what} to draw, and a figure holds {most}. Draw fewer of them "
            "at a time, or write a table: --out FILE.csv."
        )


def _window(settings: Mapping[str, Any], name: str) -> int:
    """The extended window of a setting, tokens; 0 if it is not recorded."""
    about = settings.get("variants", {}).get(name)
    window = about.get("window") if isinstance(about, dict) else None
    return window if isinstance(window, int) else 0
