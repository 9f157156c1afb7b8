"""Rules that compare the window with those of published models."""

from __future__ import annotations

from collections.abc import Iterator

from yarncli.planning.published import multiplied_already, raised_over
from yarncli.rules.config_view import ConfigView, whole
from yarncli.rules.finding import Finding

_ORIGINAL = "original_max_position_embeddings"


def window_raised(view: ConfigView) -> Iterator[Finding]:
    """A maximum above every published one, without any scaling."""
    found = raised_over(view.rope) if view.rope and view.planned_maximum is None else None
    if found is None or view.rope is None:
        return
    models, window = found
    yield view.finding(
        "window-raised",
        (*view.base, view.length_key),
        f"{view.length_key} is {view.rope.max_position_embeddings:,} and there is no scaling; "
        f"models of this type, size and rope_theta ({models.name}) were trained with {window:,}.",
    )


def maximum_multiplied(view: ConfigView) -> Iterator[Finding]:
    """A maximum that is a published window times the factor that engines multiply it by."""
    stated = [whole(block.values.get(_ORIGINAL)) for block in view.blocks]
    known = any(stated) or whole(view.top(_ORIGINAL)) or view.planned_maximum
    found = multiplied_already(view.rope) if view.rope and not known else None
    if found is None or view.rope is None:
        return
    models, window = found
    p = view.rope.scopes["model"].parameters
    yield view.finding(
        "max-raised",
        (*view.base, view.length_key),
        f"{p.rope_type} needs {view.length_key} at the original length; it is "
        f"{p.max_position_embeddings:,}, which looks like the {window:,} of {models.name} times "
        f"the factor {p.resolved_factor():g}.",
        severity="warning",
    )


LENGTH_RULES = (window_raised, maximum_multiplied)
