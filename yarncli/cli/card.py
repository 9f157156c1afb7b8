"""`yarncli card`: the model card of a checkpoint, on stdout."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = [
    ("yarncli card ./model-yarn", "Print the card that push would send."),
    ("yarncli card ./model-yarn --results passkey.jsonl", "With passkey results."),
    (
        "yarncli card ./model-yarn --results passkey.jsonl --results regress.jsonl",
        "And the price on short texts.",
    ),
    ("yarncli card ./model-yarn --write", "Put it into README.md."),
]

Results = Annotated[
    list[Path] | None,
    typer.Option(
        "--results", metavar="FILE", help="Results (JSONL) for the card; may be repeated."
    ),
]
BaseModel = Annotated[
    str | None,
    typer.Option("--base-model", metavar="ORG/NAME", help="What the model was made from."),
]
Licence = Annotated[
    str | None,
    typer.Option("--license", metavar="ID", help="The licence for the card, as the Hub spells it."),
]


def card(
    path: Annotated[
        Path, typer.Argument(metavar="PATH", show_default=False, help="A checkpoint directory.")
    ],
    results: Results = None,
    base_model: BaseModel = None,
    licence: Licence = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="ORG/NAME", help="What the model will be called."),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write it to README.md instead of printing it.")
    ] = False,
) -> None:
    """Print the model card: what the model is, what was done, how to use it, what was measured.

    The card that is there is kept; only the part between the yarncli marks is renewed.
    """
    from yarncli.cli import console
    from yarncli.publishing.card import card as write_card

    made = write_card(
        path, name=name, results=results, base_model=base_model, licence=licence, write=write,
        notify=console.tell,
    )  # fmt: skip
    if not write:
        console.print_text(made.text)
    elif made.written:
        console.note(f"Written in {path}: {', '.join(made.written)}.")
    else:
        console.note(f"{path / 'README.md'} needs no change.")
