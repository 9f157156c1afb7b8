"""The `yarncli` program: its commands, and the one place where failures become exit codes.

A command is a module `yarncli/cli/<name>.py` with a function of that name and `EXAMPLES`, pairs
of a command line and what it does. A command with many options has `HEADINGS`, too: the name of the
first option under each heading of its help page, and that heading. The module is imported only when
the command is called or listed.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from yarncli.cli import console
from yarncli.errors import UsageError, YarncliError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

    from typer.core import TyperCommand

# In the order of `yarncli --help`. How to add a command (CONTRIBUTING.md, “A command”, has the
# details):
#
# 1. Write the function that does the work in its room. It returns a frozen record with `to_json()`.
# 2. Write `cli/NAME.py`: a function of that name (its parameters are the options, its docstring is
#    the help) and a list `EXAMPLES`.
# 3. Add the name here.
# 4. Give it a page in `docs/`, named in `mkdocs.yml` and `README.md`; a public function is also
#    named in `yarncli/__init__.py` and `docs/python-api.md`. Then run `make docs`.
COMMANDS = (
    "inspect",
    "convert",
    "engines",
    "bake",
    "check",
    "check-passkey",
    "perplexity",
    "regress",
    "fit",
    "recipe",
    "finish",
    "plot",
    "card",
    "push",
    "demo",
)

_INTERRUPTED = 130  # 128 + SIGINT
_BROKEN_PIPE = 141  # 128 + SIGPIPE, what a shell reports for `cat FILE | head`


class CommandGroup(TyperGroup):
    """Loads commands on demand and turns every foreseen failure into one line and an exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of all commands, in the order of the help page."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command `cmd_name`, or None; an unknown name loads all, for "Did you mean …?"."""
        for name in (cmd_name,) if cmd_name in COMMANDS else COMMANDS:
            if name not in self.commands:
                self.commands[name] = _load(name, self.params)
        return self.commands.get(cmd_name)

    def make_context(
        self, info_name: Any, args: list[str], parent: Any = None, **extra: Any
    ) -> Any:
        """Read the options before the command, `help COMMAND` as well."""
        own = args[: args.index("--")] if "--" in args else args
        console.begin(json="--json" in own)
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        with _told_as_json():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command; the error boundary of the whole program."""
        try:
            with _told_as_json(), _names_that_fit():
                return super().invoke(ctx)
        except BrokenPipeError as error:
            console.discard_output()
            raise typer.Exit(_BROKEN_PIPE) from error
        except YarncliError as error:
            if console.is_verbose() or os.environ.get("YARNCLI_DEBUG", "0") not in ("", "0"):
                import traceback

                traceback.print_exception(error)
            console.tell(error.severity, str(error))
            raise typer.Exit(error.exit_code) from error


@contextmanager
def _names_that_fit() -> Iterator[None]:
    """Refuse a name that is too long for the system, whichever call meets it first."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        name = os.fspath(error.filename or "")
        raise UsageError(
            f"{name[:60]!r}… has {len(name):,} characters, which is too long for a name on this "
            "system. Look for words that were joined by mistake."
        ) from error


@contextmanager
def _told_as_json() -> Iterator[None]:
    """With `--json`, print a failure as a JSON document if the run has not printed one yet."""
    try:
        yield
    except YarncliError as error:
        console.print_failure(error.exit_code, str(error))
        raise
    except typer.TyperException as error:
        console.print_failure(error.exit_code, error.format_message())
        raise
    except KeyboardInterrupt:
        console.print_failure(_INTERRUPTED, "Interrupted.")
        raise


def load_examples(name: str) -> list[tuple[str, str]]:
    """The examples of the command `name`: pairs of a command line and what it does."""
    examples: list[tuple[str, str]] = _module(name).EXAMPLES
    return examples


def _module(name: str) -> ModuleType:
    return import_module(f"yarncli.cli.{name.replace('-', '_')}")


def _load(name: str, of_all: Iterable[Any]) -> TyperCommand:
    """The command `name`; it also takes the program's own options -q and -v."""
    from yarncli.cli.command import Command

    single = typer.Typer(add_completion=False, rich_markup_mode=None)
    function = getattr(_module(name), name.replace("-", "_"))
    single.command(name, cls=Command, epilog=_epilog(load_examples(name)))(function)
    command: Command = typer.main.get_command(single)  # type: ignore[assignment]
    command.headings = getattr(_module(name), "HEADINGS", {})
    for param in of_all:
        if param.name in ("quiet", "verbose"):
            shared = copy(param)
            shared.expose_value = False
            command.params.append(shared)
    return command


def _epilog(examples: Iterable[tuple[str, str]]) -> str:
    lines = [f"  {command}\n      {purpose}" for command, purpose in examples]
    # A paragraph that starts with \b is not wrapped, so command lines stay whole.
    return "\b\nExamples:\n" + "\n".join(lines)


def _show_version(wanted: bool) -> None:
    if wanted:
        from yarncli import __version__

        typer.echo(f"yarncli {__version__}")
        raise typer.Exit


def _be_quiet(wanted: bool) -> None:
    if wanted:
        console.set_verbosity(-1)


def _be_verbose(wanted: bool) -> None:
    if wanted:
        console.set_verbosity(1)


app = typer.Typer(
    name="yarncli",
    cls=CommandGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=_show_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
    quiet: Annotated[
        bool,
        typer.Option("--quiet", "-q", callback=_be_quiet, help="Print no notes and no progress."),
    ] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            "-v",
            callback=_be_verbose,
            help="Print each stage and the causes of errors.",
        ),
    ] = False,
) -> None:
    """Extend the context window of Hugging Face checkpoints, and prove that it worked.

    SOURCE is a directory, a config.json or a Hub id. If a path of that name exists, it is used;
    hf://org/name[@revision] is always the Hub. `yarncli help COMMAND` shows all options of COMMAND.
    """


def main() -> None:
    """Entry point of the `yarncli` script."""
    console.prepare_output()
    app(prog_name="yarncli")
