"""Start-up of yarncli against a bare Typer program with the same commands, options and settings.

`python benchmarks/startup.py [--runs N]` runs the two by turns in child processes and prints the
medians of the ratios, and of the milliseconds that yarncli takes more. The reference program is
derived from the command modules: the same signatures in one file, with empty bodies and nothing
else.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

from yarncli.rope.methods import DEFAULT_METHOD, METHODS

ROOT = Path(__file__).resolve().parent.parent
CLI = ROOT / "yarncli" / "cli"
DEMO = ROOT / "yarncli" / "demo"
CONFIG = DEMO / "base" / "config.json"

# Command line and the most that it may cost: a multiple of the reference, or milliseconds above it.
CASES = (
    (["--help"], "1.25 x"),
    (["inspect", str(CONFIG)], "1.5 x"),
    (["check", str(CONFIG)], "1.25 x"),
    (["convert", str(DEMO / "base"), "--factor", "4", "--dry-run"], "1.4 x"),
    (["bake", str(DEMO / "tuned"), "--dry-run"], "1.8 x"),
    (["engines", str(CONFIG)], "150 ms above"),
)

RUN_YARNCLI = "from yarncli.cli.app import main; main()"
RUN_REFERENCE = "from reference import app; app(prog_name='yarncli')"


class _OptionsInPlace(ast.NodeTransformer):
    """`options.Json` becomes `Json`: the reference is one module."""

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        if isinstance(node.value, ast.Name) and node.value.id == "options":
            return ast.Name(node.attr, node.ctx)
        return node


def reference_source(commands: tuple[str, ...]) -> str:
    """The reference program as Python source."""
    options = (CLI / "options.py").read_text(encoding="utf-8")
    # What yarncli computes from its own modules is written out here, so that they cost nothing.
    methods = f"METHODS = {tuple(METHODS)!r}\nDEFAULT_METHOD = {DEFAULT_METHOD!r}"
    parts = [re.sub(r"^from yarncli\.rope\.methods import .*$", methods, options, flags=re.M)]
    parts.append(
        "app = typer.Typer(name='yarncli', no_args_is_help=True, rich_markup_mode=None,"
        " pretty_exceptions_enable=False)\n"
        "@app.callback()\n"
        "def root(version: Annotated[bool, typer.Option('--version', is_eager=True)] = False):\n"
        "    'Extend the context window of Hugging Face checkpoints, and prove that it worked.'\n"
    )
    for command in commands:
        name = command.replace("-", "_")
        for node in ast.parse((CLI / f"{name}.py").read_text(encoding="utf-8")).body:
            is_entry = isinstance(node, ast.FunctionDef) and node.name == name
            if isinstance(node, ast.FunctionDef) and is_entry:
                node.body = node.body[:1]  # its docstring: the help page
            elif not isinstance(node, ast.Assign):
                continue
            parts.append(ast.unparse(_OptionsInPlace().visit(node)))
            if is_entry:
                parts.append(f"app.command({command!r})({name})")
    return "\n".join(parts) + "\n"


def run_once(code: str, arguments: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall-clock and CPU seconds of one child process."""
    with Path(os.devnull).open("w") as sink:
        started = time.perf_counter()
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code, *arguments],
            environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, sink.fileno(), number) for number in (1, 2)],
        )
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"{arguments} failed with exit code {os.waitstatus_to_exitcode(status)}")
    return wall, usage.ru_utime + usage.ru_stime


def compare(arguments: list[str], folder: str, runs: int) -> str:
    """Medians of the ratios in time and CPU time, and of the milliseconds above the reference."""
    path = os.pathsep.join((str(ROOT), folder))
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": path}
    # Both programs run from byte code, as installed ones do.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    environment["PYTHONPYCACHEPREFIX"] = folder
    pairs = []
    for number in range(runs + 1):
        ours = run_once(RUN_YARNCLI, arguments, environment)
        bare = run_once(RUN_REFERENCE, arguments, environment)
        if number:  # the first pair writes the byte code
            pairs.append((ours, bare))
    ratios = [statistics.median(ours[kind] / bare[kind] for ours, bare in pairs) for kind in (0, 1)]
    above = [
        statistics.median(ours[kind] - bare[kind] for ours, bare in pairs) * 1000 for kind in (0, 1)
    ]
    return (
        f"{ratios[0]:.2f} x the bare program's time, {above[0]:.0f} ms above"
        f" (CPU time {ratios[1]:.2f} x, {above[1]:.0f} ms"
        f"; bare {statistics.median(bare[0] for _, bare in pairs) * 1000:.0f} ms"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=30)
    runs = parser.parse_args().runs
    sys.path.insert(0, str(ROOT))
    from yarncli.cli.app import COMMANDS

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "reference.py").write_text(reference_source(COMMANDS), encoding="utf-8")
        for arguments, limit in CASES:
            if arguments[0] != "--help" and arguments[0] not in COMMANDS:
                continue
            found = compare(arguments, folder, runs)
            print(f"yarncli {arguments[0]}: {found}; aim {limit}; {runs} pairs)")


if __name__ == "__main__":
    main()
