"""`--sliding-window`: a wider window for models in which every layer with RoPE has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from yarncli.config.layers import WINDOWED
from yarncli.errors import UnsupportedArchitectureError, UsageError

if TYPE_CHECKING:
    from yarncli.config.reading import RopeConfig

OFF = "off"
SlidingWindow = int | Literal["off"]

# Model types that were run in transformers 5.23: with a wider window and with null, a token far
# away is seen again. In other model types several keys may set the window.
WIDENED = frozenset(
    {"ministral3", "mistral", "mixtral", "phi3", "phimoe", "qwen3_moe", "starcoder2"}
)


def can_widen(rope: RopeConfig) -> bool:
    """Whether RoPE and the window can be extended together."""
    rotating = {i for scope in rope.scopes.values() for i in scope.layers}
    return (
        rope.model_type in WIDENED
        and not rope.nope_layers
        and bool(rotating)
        and rotating <= set(rope.windowed_layers)
    )


def require_widenable(rope: RopeConfig, window: SlidingWindow) -> None:
    """Check that the model has a window to widen, and that the new window is wider.

    Raises:
        UsageError: the model has no window to widen, or the new one is not wider.
        UnsupportedArchitectureError: a wider window would not extend the model, or it is not known
            whether it would.
    """
    old = rope.sliding_window
    if old is None:
        raise UsageError(
            f"--sliding-window: this {rope.model_type} model uses no sliding window. Leave it out."
        )
    if rope.nope_layers:
        raise UnsupportedArchitectureError(without_rope(rope, old))
    if not can_widen(rope):
        raise UnsupportedArchitectureError(
            f"--sliding-window is for models in which every layer attends within one window: "
            f"{', '.join(sorted(WIDENED))}. In this {rope.model_type} model some layers attend "
            "further, or yarncli does not know what a wider window does. Leave it out."
        )
    if window == OFF and set(rope.values.get("layer_types") or ()) & WINDOWED:
        raise UsageError(
            f"--sliding-window off cannot be used, because layer_types names windowed layers. Give "
            f"the new window in tokens; now it is {old:,}."
        )
    if isinstance(window, int) and window <= old:
        raise UsageError(
            f"--sliding-window {window} is not wider than the present window of {old:,} tokens."
        )


def without_rope(rope: RopeConfig, window: int) -> str:
    """The message for a model in which layers with full attention have no RoPE."""
    return (
        f"The layers of this {rope.model_type} model that attend to the whole text have no RoPE, "
        f"and those that have it attend within {window:,} tokens on purpose. Neither a scaling nor "
        "a wider window can lengthen it; only training can."
    )


def widened(
    config: Mapping[str, Any], rope: RopeConfig, window: SlidingWindow
) -> Mapping[str, Any]:
    """The config with another window; null means that there is none, a missing key does not.

    Raises:
        UsageError, UnsupportedArchitectureError: as `require_widenable`.
    """
    require_widenable(rope, window)

    def edited(part: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
        if path:
            return {**part, path[0]: edited(part[path[0]], path[1:])}
        return {**part, rope.family.window_key: window_value(window)}

    return edited(config, rope.text_path)


def window_value(window: SlidingWindow) -> int | None:
    """The value to write into the config."""
    return window if isinstance(window, int) else None


def window_note(rope: RopeConfig, window: SlidingWindow) -> str:
    """The note on a widened window.

    Args:
        rope: the config before the change.
        window: the new window.
    """
    now = "to the whole text" if window == OFF else f"within {window:,} tokens"
    return (
        f"Every layer attended within {rope.sliding_window:,} tokens and now attends {now}. The "
        "model was not trained like this; the YaRN authors trained Mistral-7B-v0.1 for 1,000 more "
        "steps. Measure how far it reads with: yarncli check-passkey OUT"
    )
