"""Compare a config with the published models of the same type, sizes and θ."""

from __future__ import annotations

from yarncli.config.reading import RopeConfig
from yarncli.config.windows import Published, find_published, trained_window
from yarncli.rope.methods import keeps_max


def published_like(rope: RopeConfig) -> Published | None:
    """The published models of the same type, θ and sizes; None if there are several settings."""
    if "model" not in rope.scopes:
        return None
    theta = rope.scopes["model"].parameters.rope_theta
    return find_published(rope.family, theta, rope.values)


def raised_over(rope: RopeConfig) -> tuple[Published, int] | None:
    """Models like this one and their trained window, if a config without scaling claims more.

    The largest window of these models counts, because shorter windows belong to other versions.
    """
    models = published_like(rope)
    if models is None or rope.scopes["model"].parameters.rope_type != "default":
        return None
    longest = models.windows[-1]
    if rope.max_position_embeddings <= longest:
        return None
    theta = rope.scopes["model"].parameters.rope_theta
    return models, trained_window(rope.family, theta, rope.values, longest) or longest


def multiplied_already(rope: RopeConfig) -> tuple[Published, int] | None:
    """Models like this one and their window, if the maximum is that window times the factor.

    Engines multiply the maximum by the factor for linear and dynamic, so the maximum must be the
    original window. Some trainers write the product; engines then multiply twice.
    """
    models = published_like(rope)
    if models is None or rope.maximum_is_window:
        return None
    p = rope.scopes["model"].parameters
    factor = p.resolved_factor()
    if not keeps_max(p.rope_type) or factor <= 1 or rope.max_position_embeddings in models.windows:
        return None
    for window in reversed(models.windows):
        if abs(window * factor - rope.max_position_embeddings) <= 1:
            return models, window
    return None
