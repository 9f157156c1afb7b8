"""What every command has beside its own options: values, the help page, and what Ctrl-C says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from yarncli.cli import completion, console
from yarncli.errors import CheckpointError
from yarncli.options import choose


class Command(TyperCommand):
    """Accepts words in any case, refuses values in plain English, and completes values.

    A command that prints nothing for a while shows on a terminal that it is still working.
    """

    # The first option under each heading of the help page, and that heading.
    headings: Mapping[str, str] = {}

    def __init__(self, **settings: Any) -> None:
        """Wrap the parameters that Typer made of the command's signature."""
        super().__init__(**settings)
        for each in self.params:
            param: Any = each
            param.process_value = partial(_read, param, param.process_value)
            if complete := completion.completer(self.name or "", param.name):
                param.shell_complete = complete
            if param.metavar is None and param.type_descriptor.annotation in (int, float):
                param.metavar = "NUMBER"

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments and options of the help page."""
        for heading, rows in self.help_sections(ctx).items():
            with formatter.section(heading):
                formatter.write_dl(rows)

    def help_sections(self, ctx: Any) -> dict[str, list[tuple[str, str]]]:
        """The rows of the help page, name and meaning, under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for each in self.get_params(ctx):
            param: Any = each
            heading = self.headings.get(param.name, heading)
            if record := param.get_help_record(ctx):
                if param.param_type_name == "argument":
                    # Typer writes the Python type after the name of an argument.
                    sections.setdefault("Arguments", []).append((param.metavar, record[1]))
                else:
                    sections.setdefault(heading, []).append(record)
        return sections

    def invoke(self, ctx: Any) -> Any:
        """Run the command; say after Ctrl-C what is saved and how to go on."""
        try:
            with console.working():
                return super().invoke(ctx)
        except KeyboardInterrupt:
            if told := _after_interrupt(ctx.params):
                console.note(f"Interrupted. {told}")
            raise


def _read(param: Any, read: Callable[[Any, Any], Any], ctx: Any, value: Any) -> Any:
    """The value of a parameter: find the choice that is meant, then let Typer `read` it."""
    choices = param.type_descriptor.choices
    if choices and isinstance(value, str):
        value = choose(value, map(str, choices), max(param.opts, key=len))
    try:
        return read(ctx, value)
    except typer.BadParameter as error:
        kind = _kind(param)
        if kind and isinstance(value, str):
            error.message = f"{value[:80]!r} is not {kind}."
        raise


def _kind(param: Any) -> str:
    """What a number parameter takes; empty for others, which have their own messages."""
    info = param.type_descriptor.parameter_info
    name = {int: "a whole number", float: "a number"}.get(param.type_descriptor.annotation, "")
    if not name or info.parser:
        return ""
    if info.min is not None and info.max is not None:
        return f"{name} from {info.min} to {info.max}"
    return f"{name} of at least {info.min}" if info.min is not None else name


def _after_interrupt(given: dict[str, Any]) -> str:
    """What is saved, and how to go on; empty if the command says it, or nothing was written."""
    out = given.get("out")
    if "resume" in given:
        return (
            f"{out} holds what was measured so far. The same command with --resume goes on."
            if out
            else "Nothing was saved. With --out FILE results are kept, and --resume goes on."
        )
    if given.get("dry_run"):
        return "A dry run writes nothing."
    source = given.get("source", given.get("trained"))
    if given.get("in_place"):
        from yarncli.checkpoint.directory import require_not_pending

        try:
            require_not_pending(Path(source or ""))
        except CheckpointError as error:
            return str(error)
        return f"{source} is consistent: either unchanged or changed completely."
    if out and not Path(out).exists():
        return f"{out} was not written, and {source} is as it was. Run the same command again."
    return ""
