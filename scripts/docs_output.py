"""Run the console blocks of the documentation and compare their output with the pages.

    python scripts/docs_output.py             say which pages differ
    python scripts/docs_output.py --update    write what the commands print into the pages

A block is fenced as ```console; its lines that start with `$ ` are commands, and all other lines
are their output (stdout and stderr together). All blocks of a page run in order in one empty
directory. A line `[…]` in the shown output stands for any lines. A block within an HTML comment is
run as well, but not shown: it makes the files for a page ($TESTS is the directory of the tests).
"""

from __future__ import annotations

import argparse
import difflib
import fnmatch
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_ANY = "[…]"


@dataclass(frozen=True)
class Block:
    """One console block of a page."""

    page: Path
    """The file."""
    line: int
    """The line of its fence, from 1."""
    shown: str
    """Its commands and their output on the page."""

    def run(self, directory: Path) -> str:
        """The block with the present output of its commands; a `[…]` that still matches stays.

        Raises:
            SystemExit: a command failed in a way that no page shows.
        """
        out = ""
        for part in re.split(r"^(?=\$ )", self.shown, flags=re.MULTILINE):
            command, _, shown = part.partition("\n")
            if not command:
                continue
            printed = _run(command.removeprefix("$ "), directory)
            out += f"{command}\n{shown if _matches(shown, printed) else printed}"
        return out


def blocks(page: Path) -> list[Block]:
    """The console blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = _BLOCK.finditer(text)
    return [Block(page, text.count("\n", 0, block.start()) + 1, block[1]) for block in found]


def render(page: Path) -> str:
    """The page with the present output of every command."""
    waiting = iter(blocks(page))
    with tempfile.TemporaryDirectory() as directory:
        return _BLOCK.sub(
            lambda _: f"```console\n{next(waiting).run(Path(directory))}```",
            page.read_text(encoding="utf-8"),
        )


def _run(command: str, directory: Path) -> str:
    """The output of a command on an 88-column terminal without colour."""
    bin_directory = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_directory}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "88",
        "NO_COLOR": "1",
        "HF_HUB_OFFLINE": "1",
        "TESTS": str(ROOT / "tests"),
    }
    done = subprocess.run(
        command,
        shell=True,
        cwd=directory,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode not in (0, 1, 2, 3):
        raise SystemExit(f"{command}: exit code {done.returncode}\n{done.stdout}")
    return "".join(line.rstrip() + "\n" for line in done.stdout.splitlines())


def _matches(shown: str, printed: str) -> bool:
    if _ANY not in shown:
        return shown == printed
    literal = shown.replace("[", "[[]").replace("[[]…]\n", "*")
    return fnmatch.fnmatchcase(printed, literal)


def main() -> None:
    """Check or update every page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--update", action="store_true")
    parser.add_argument("pages", nargs="*", type=Path, default=PAGES)
    arguments = parser.parse_args()
    stale = False
    for page in arguments.pages:
        text, now = page.read_text(encoding="utf-8"), render(page)
        if text == now:
            continue
        stale = True
        if arguments.update:
            page.write_text(now, encoding="utf-8")
        else:
            sys.stdout.writelines(
                difflib.unified_diff(text.splitlines(True), now.splitlines(True), str(page), "now")
            )
    raise SystemExit(int(stale and not arguments.update))


if __name__ == "__main__":
    main()
