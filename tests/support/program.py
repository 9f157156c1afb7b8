"""The yarncli program, in this process or in one of its own."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


def interrupt(is_time: Callable[[], Any], *arguments: object) -> str:
    """Run the program in a process of its own and press Ctrl-C once `is_time()`.

    Returns:
        What it said on stderr. It must have ended with 130.
    """
    process = subprocess.Popen([*PROGRAM, *map(str, arguments)], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not is_time() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 130, told
    return str(told)
