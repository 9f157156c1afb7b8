"""`yarncli check` against a bare Typer program, and its cost per config in a large repository.

`python benchmarks/check.py [--runs N]` runs both by turns in child processes and prints the median
of the ratios; then one call with 200 configs against one with a single config.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "yarncli" / "demo" / "base" / "config.json"
MANY = 200

YARNCLI = "from yarncli.cli.app import main; main()"
# The smallest program with the same options that reads its argument.
REFERENCE = """
import json
from typing import Annotated, Literal
import typer

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

@app.callback()
def root() -> None: ...

@app.command()
def check(
    paths: Annotated[list[str], typer.Argument()],
    fix: Annotated[bool, typer.Option("--fix")] = False,
    strict: Annotated[bool, typer.Option("--strict")] = False,
    ignore: Annotated[list[str] | None, typer.Option("--ignore")] = None,
    whole: Annotated[bool, typer.Option("--whole")] = False,
    require_weights: Annotated[bool, typer.Option("--require-weights")] = False,
    format: Annotated[Literal["text", "github"], typer.Option("--format")] = "text",
    explain: Annotated[str | None, typer.Option("--explain")] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    for path in paths:
        with open(path) as file:
            json.load(file)

app()
"""


def seconds(code: str, arguments: list[str]) -> float:
    """Wall-clock time of one child process."""
    with Path(os.devnull).open("w") as sink:
        started = time.perf_counter()
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code, "check", *arguments],
            os.environ,
            file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), 1)],
        )
        os.waitpid(child, 0)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    ratios = []
    for _ in range(runs):
        bare = seconds(REFERENCE, [str(CONFIG)])
        ratios.append(seconds(YARNCLI, [str(CONFIG)]) / bare)
    print(f"one config: {statistics.median(ratios):.2f} x the bare program (aim 1.25 x)")
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number in range(MANY):
            path = Path(folder, str(number), "config.json")
            path.parent.mkdir()
            path.write_bytes(CONFIG.read_bytes())
            paths.append(str(path))
        extra = []
        for _ in range(runs):
            one = seconds(YARNCLI, paths[:1])
            extra.append((seconds(YARNCLI, paths) - one) / (MANY - 1))
    print(f"{MANY} configs: {1000 * statistics.median(extra):.2f} ms per further file (aim 3 ms)")


if __name__ == "__main__":
    main()
