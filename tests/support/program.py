"""The yarncli program, in this process or in one of its own."""

from __future__ import annotations

import sys
from typing import Any

from typer.testing import CliRunner, Result

from yarncli.cli.app import app

# As a command line: in a process of its own, with the `yarncli` that these tests import.
PROGRAM = (sys.executable, "-c", "from yarncli.cli.app import main; main()")


def invoke(*arguments: object, code: int | None = None, **options: Any) -> Result:
    """Run the program in this process.

    Args:
        arguments: the command and its arguments, as on the command line.
        code: the exit code that it must have; None for any.
        options: for `CliRunner.invoke`, as `input`.

    Returns:
        What it printed, and its exit code.
    """
    result = CliRunner().invoke(app, [str(a) for a in arguments], prog_name="yarncli", **options)
    assert code is None or result.exit_code == code, result.output
    return result
