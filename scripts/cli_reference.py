"""Write docs/reference/cli.md from the commands themselves (`make docs`)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "cli.md"

INTRODUCTION = """\
# Command line

Made from the program by `make docs`; a test keeps it current. Each command has a page of its own
that describes it; exit codes are in [exit-codes.md](../exit-codes.md).
"""


def render() -> str:
    """The whole page as Markdown."""
    from yarncli.cli.app import COMMANDS, app, load_examples

    program: Any = typer.main.get_command(app)
    context = program.make_context("yarncli", [], resilient_parsing=True)
    commands = [program.get_command(context, name) for name in COMMANDS]
    lines = [INTRODUCTION, *_page("yarncli", program, context), "Commands:", ""]
    lines += [f"- [`{c.name}`](#yarncli-{c.name}): {_first_line(c.help)}" for c in commands]
    lines.append("")
    for command in commands:
        child = command.context_class(command, info_name=command.name, parent=context)
        lines += _page(f"yarncli {command.name}", command, child)
        lines += ["Examples:", "", "```sh"]
        for line, purpose in load_examples(command.name):
            lines += [f"# {purpose}", line]
        lines += ["```", ""]
    return "\n".join(lines)


def _page(title: str, command: Any, context: Any) -> Iterator[str]:
    yield from (f"## {title}", "", command.help, "")
    yield from ("```text", f"{title} {' '.join(command.collect_usage_pieces(context))}", "```")
    yield ""
    for heading, rows in _sections(command, context).items():
        yield from (f"| {heading} | Meaning |", "|---|---|")
        for name, meaning in rows:
            yield f"| `{_cell(name)}` | {_cell(meaning)} |"
        yield ""


def _sections(command: Any, context: Any) -> dict[str, list[tuple[str, str]]]:
    """What the help page shows, by heading; the program itself has flags only."""
    if hasattr(command, "help_sections"):
        return command.help_sections(context)
    return {"Options": [p.get_help_record(context) for p in command.get_params(context)]}


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
