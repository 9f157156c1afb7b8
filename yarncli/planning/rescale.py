"""An existing scaling: the window it serves, and how to extend it by the same method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from yarncli.errors import CheckpointError, UnsupportedArchitectureError
from yarncli.rope.method import Method
from yarncli.rope.methods import by_rope_type, keeps_max
from yarncli.rope.parameters import RopeParameters


def scaled_window(p: RopeParameters, *, nested: bool) -> int:
    """The window, in tokens, that a setting serves.

    Args:
        p: the setting.
        nested: whether the config has one setting per layer type; there the factor never
            multiplies the maximum.
    """
    if keeps_max(p.rope_type) and not nested:
        return int(p.resolved_factor() * p.max_position_embeddings)
    return p.max_position_embeddings


def can_rescale(p: RopeParameters) -> bool:
    """Whether a setting can be extended by its own method: its factors are computed."""
    method = by_rope_type(p.rope_type)
    return method is not None and method.rescaled_factor is not None


def rescale(
    settings: Sequence[RopeParameters], length: int, *, nested: bool, original: int | None = None
) -> tuple[Method, list[RopeParameters]]:
    """Extend existing scalings by their own method, and keep everything else.

    Args:
        settings: the settings of the scaled scopes; the first one decides the method.
        length: the new window, tokens.
        nested: as for `scaled_window`.
        original: the window that the model was trained with, tokens, if the settings do not
            state it; it is then written into them, even if the window stays.

    Returns:
        The method, and the new setting for each of `settings`.

    Raises:
        CheckpointError: there is no scaling, or its window is long enough.
        UnsupportedArchitectureError: the factors of this scaling are not computed.
    """
    if not settings:
        raise CheckpointError(
            "There is no scaling to rescale: the RoPE type is 'default'. Leave out --rescale."
        )
    first = settings[0]
    method = by_rope_type(first.rope_type)
    if method is None or method.rescaled_factor is None:
        raise UnsupportedArchitectureError(
            f"rope_type {first.rope_type!r} cannot be rescaled: its factors are searched or "
            "trained, not computed."
        )
    window = scaled_window(first, nested=nested)
    if length < window or (length == window and original is None):
        raise CheckpointError(
            f"The model already reads {window:,} tokens ({method.name}). Ask for more than that."
        )
    if original is not None:
        settings = [replace(p, original_max_position_embeddings=original) for p in settings]
    maximum = first.max_position_embeddings if method.keeps_max and not nested else length
    after = [
        replace(
            p,
            factor=method.rescaled_factor(p, length, window),
            max_position_embeddings=maximum,
        )
        for p in settings
    ]
    return method, after
