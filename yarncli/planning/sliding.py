"""`--sliding-window`: a wider window for models whose every rotary layer attends within one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from yarncli.config.layers import WINDOWED
from yarncli.errors import UnsupportedArchitectureError, UsageError

if TYPE_CHECKING:
    from yarncli.config.reading import RopeConfig

OFF = "off"
SlidingWindow = int | Literal["off"]

# Model types of which transformers 5.23 was run: with a wider window, and with null, a token far
# away is seen again. In others the window may be one of several keys.
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
    """Insist that a window can be made wider, and that this one is.

    Raises:
        UsageError: the model has no window to widen, or the new one is not wider.
        UnsupportedArchitectureError: a wider one would not lengthen it, or nobody examined that.
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
            f"--sliding-window is for models whose every layer attends within one window: "
            f"{', '.join(sorted(WIDENED))}. In this {rope.model_type} model other layers attend "
            "further, or what a wider window does was not examined. Leave it out."
        )
    if window == OFF and set(rope.values.get("layer_types") or ()) & WINDOWED:
        raise UsageError(
            f"--sliding-window off: layer_types names windowed layers. Give the new window instead "
            f"of off; now it is {old:,}."
        )
    if isinstance(window, int) and window <= old:
        raise UsageError(f"--sliding-window {window} is not wider than the {old:,} it has.")


def without_rope(rope: RopeConfig, window: int) -> str:
    """Why a model whose full layers do not rotate cannot be lengthened."""
    return (
        f"The layers of this {rope.model_type} model that attend to the whole text have no RoPE, "
        f"and those that have it attend within {window:,} tokens on purpose. Neither a scaling nor "
        "a wider window can lengthen it; its length is a matter of training."
    )


def widened(
    config: Mapping[str, Any], rope: RopeConfig, window: SlidingWindow
) -> Mapping[str, Any]:
    """The config with another window; null, not absence, says that there is none.

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
    """What stands in the config."""
    return window if isinstance(window, int) else None


def window_note(rope: RopeConfig, window: SlidingWindow) -> str:
    """What a person should know about a widened window.

    Args:
        rope: the config before it.
        window: the new window.
    """
    now = "to the whole text" if window == OFF else f"within {window:,} tokens"
    return (
        f"Every layer attended within {rope.sliding_window:,} tokens and now attends {now}. The "
        "model was not trained so: the YaRN authors trained Mistral-7B-v0.1 for 1,000 steps more. "
        "See what it reads with: yarncli check-passkey OUT"
    )
