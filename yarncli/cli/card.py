"""`yarncli card`: the model card of a checkpoint or a GGUF file, on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from yarncli.cli import options

EXAMPLES = [
    ("yarncli card ./model-yarn", "Print the card that push would send."),
    ("yarncli card ./model-yarn --results passkey.jsonl", "Add passkey results."),
    (
        "yarncli card ./model-yarn --results passkey.jsonl --results regress.jsonl",
        "Also say what it costs on short texts.",
    ),
    ("yarncli card ./model-yarn --write", "Put it into README.md."),
    ("yarncli card model-128k.gguf", "Print the card for a GGUF repository."),
]

PATH_HELP = "A checkpoint directory, a GGUF file, or a folder of GGUF files of one model."
Results = Annotated[
    list[Path] | None,
    typer.Option(
        "--results", metavar="FILE", help="Result file (JSONL) for the card; may be repeated."
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", metavar="ORG/NAME", help="The model that this one was made from."),
]
Licence = Annotated[
    str | None,
    typer.Option(
        "--license", metavar="ID", help="The licence for the card, in the spelling of the Hub."
    ),
]


def card(
    path: Annotated[Path, typer.Argument(metavar="PATH", show_default=False, help=PATH_HELP)],
    results: Results = None,
    base_model: BaseModel = None,
    licence: Licence = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="ORG/NAME", help="Name of the model on the Hub."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the card to README.md instead of printing it.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Print the model card: what the model is, what was done, how to use it, what was measured.

    An existing card is kept; only the part between the yarncli marks is replaced.
    """
    from yarncli.cli import console
    from yarncli.publishing.card import card as write_card

    made = write_card(
        path, name=name, results=results, base_model=base_model, licence=licence, write=write,
        notify=console.tell,
    )  # fmt: skip
    folder = path if path.is_dir() else path.parent
    if json:
        console.print_json(made.to_json())
    elif not write:
        console.print_text(made.text)
    elif made.written:
        console.note(f"Written in {folder}: {', '.join(made.written)}.")
    else:
        console.note(f"{folder / 'README.md'} needs no change.")
