"""A config held against the published models that it has type, sizes and θ of."""

from __future__ import annotations

from yarncli.config.reading import RopeConfig
from yarncli.config.windows import Published, find_published, trained_window
from yarncli.rope.methods import keeps_max


def published_like(rope: RopeConfig) -> Published | None:
    """The published models that a config has type, θ and sizes of, where it has one setting."""
    if "model" not in rope.scopes:
        return None
    theta = rope.scopes["model"].parameters.rope_theta
    return find_published(rope.family, theta, rope.values)


def raised_over(rope: RopeConfig) -> tuple[Published, int] | None:
    """Models like this one and their trained window, where plain RoPE claims more than they read.

    Their largest window counts: a shorter one is that of another version.
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
    """Models like this one and their window, where the maximum is that times linear's factor.

    Linear and dynamic multiply the maximum, so it must be the original one; trainers that write the
    product make engines serve the square.
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
