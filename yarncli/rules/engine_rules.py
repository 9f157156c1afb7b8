"""What the engines that were asked for will misread, from the same models as `yarncli engines`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.engines.judgement import judge
from yarncli.errors import CheckpointError
from yarncli.history import History
from yarncli.rules.config_view import ConfigView
from yarncli.rules.finding import Finding


def check_engines(
    view: ConfigView, history: History, engines: Iterable[str], checkpoint: Checkpoint
) -> Iterator[Finding]:
    """One finding per engine that will not compute what the config, or its record, means.

    Args:
        view: the config; one that cannot be read has its own finding and gives none here.
        history: the steps of `yarncli.json`.
        engines: ids.
        checkpoint: the files beside the config.

    Raises:
        UsageError: an unknown engine id.
    """
    if view.rope is None:
        return
    try:
        options: dict[str, Any] = {"launch": False, "checkpoint": checkpoint}
        found = judge(view.text.value, history, engines=engines, **options).misreadings()
    except CheckpointError as error:
        yield view.finding("invalid-value", view.base or ("model_type",), str(error))
        return
    path = view.blocks[0].path if view.blocks else (*view.base, view.length_key)
    for engine, messages in found.items():
        message = f"{engine}: {'; '.join(messages)}."
        yield view.finding("engine-misreads", path, message.replace("..", "."))
