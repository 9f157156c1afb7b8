"""What the engines that were asked for will misread, from the same models as `yarncli engines`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from yarncli.engines.intended import Intended, RecordedStep
from yarncli.engines.registry import misreadings
from yarncli.errors import CheckpointError
from yarncli.rules.config_view import ConfigView
from yarncli.rules.finding import Finding


def check_engines(
    view: ConfigView, steps: Sequence[RecordedStep], engines: Iterable[str]
) -> Iterator[Finding]:
    """One finding per engine that will not compute what the config, or its record, means.

    Args:
        view: the config; one that cannot be read has its own finding and gives none here.
        steps: those of `yarncli.json`.
        engines: ids.

    Raises:
        UsageError: an unknown engine id.
    """
    if view.rope is None:
        return
    config = view.text.value
    try:
        intended = Intended.by_record(config, steps)
        found = {engine: misreadings(config, engine, intended) for engine in engines}
    except CheckpointError as error:
        yield view.finding("invalid-value", view.base or ("model_type",), str(error))
        return
    path = view.blocks[0].path if view.blocks else (*view.base, view.length_key)
    for engine, messages in found.items():
        if messages:
            message = f"{engine}: {'; '.join(messages)}."
            yield view.finding("engine-misreads", path, message.replace("..", "."))
