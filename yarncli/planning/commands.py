"""Options as words of a command line, and the `convert` command that a message suggests."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from yarncli.rope.methods import DEFAULT_METHOD

if TYPE_CHECKING:
    from yarncli.config.reading import RopeConfig
    from yarncli.planning.target import Target


def option_words(name: str, value: Any) -> Iterator[str]:
    """One option on the command line; a list is joined by commas, a flag has no value."""
    flag = name.replace("_", "-")
    if isinstance(value, bool):
        yield f"--{flag}" if value else f"--no-{flag}"
        return
    items = value if isinstance(value, (list, tuple)) else [value]
    shown = (str(item).removesuffix(".0") if isinstance(item, float) else item for item in items)
    yield from (f"--{flag}", ",".join(map(str, shown)))


def convert_command(rope: RopeConfig, target: Target, length: int, **changes: Any) -> str:
    """The `yarncli convert` command for what was asked, with `changes`, as a person can run it.

    Args:
        rope: the config to extend.
        target: what was asked; its method and the options of that method are kept.
        length: the window to reach, tokens.
        changes: further options by their long names, or other values for options of `target`;
            None leaves an option out.
    """
    words = _given(rope, target, length, changes)
    return shlex.join(["yarncli", "convert", "SOURCE", "OUT", *words])


def engines_command(rope: RopeConfig, target: Target, length: int) -> str:
    """The command that shows how engines serve what was asked without a conversion."""
    return shlex.join(["yarncli", "engines", "SOURCE", *_given(rope, target, length, {})])


def _given(
    rope: RopeConfig, target: Target, length: int, changes: Mapping[str, Any]
) -> Iterator[str]:
    given: dict[str, Any] = {
        "assume_like": rope.assume_like,
        "rescale": target.rescale or None,
        "method": target.method if target.method != DEFAULT_METHOD else None,
        "length": length,
        "replace_scaling": target.replace_scaling or None,
        "sliding_window": target.sliding_window,
        **target.options,
        **changes,
    }
    if rope.original_source == "--original-length":
        given = {"original_length": rope.original_length, **given}
    for name, value in given.items():
        if value is not None:
            yield from option_words(name, value)
