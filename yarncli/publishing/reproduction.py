"""The commands that make a checkpoint again, according to its record."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence

from yarncli.history import History, Step
from yarncli.publishing.markdown import block, code, plain


def reproduction(history: History, name: str) -> Iterator[str]:
    """The section on how to make the checkpoint again.

    Args:
        history: the steps of yarncli.json.
        name: name of the model: its Hub id, or its directory.
    """
    steps = history.steps
    if not steps:
        return
    yield from ("### How to reproduce it", "")
    yield from block("sh", map(command, _steps(history.steps, name)))
    version = plain(steps[-1].tool_version)
    values = "`yarncli.json` holds every value that was written or replaced."
    yield from ("", f"These commands are for yarncli {version}. {values}")
    if history.origin is None:
        yield from (
            "",
            f"{code(steps[0].source)} is the local directory that the conversion started from.",
        )
    if any(step.options is None for step in steps):
        yield ""
        yield (
            "An older yarncli did not record options, so the commands were derived from the "
            "recorded numbers. Options such as `--spelling` and `--for` may be missing."
        )


def command(words: Sequence[str]) -> str:
    """A command of yarncli, quoted for a shell."""
    return shlex.join(["yarncli", *words])


def short(name: str) -> str:
    """A Hub id without its owner."""
    return name.rpartition("/")[2]


def _steps(steps: Sequence[Step], name: str) -> Iterator[list[str]]:
    """The recorded commands. The outputs of all but the last are called step1, step2, and so on."""
    source = steps[0].source
    source = f"./{source}" if source.startswith("-") else source
    for number, step in enumerate(steps, 1):
        out = short(name) if number == len(steps) else f"step{number}"
        if step.trained:  # TRAINED stands for what the trainer made from `source`
            yield [step.command, "TRAINED", out, "--from", source, *step.arguments()]
        else:
            yield [step.command, source, out, *step.arguments()]
        source = out
