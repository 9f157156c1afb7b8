"""`yarncli demo`: a tiny trained checkpoint to try everything on."""

from __future__ import annotations

import shlex
from typing import Annotated

import typer

from yarncli.cli import options
from yarncli.errors import UsageError

EXAMPLES = [
    ("yarncli demo ./demo", "Write the model with its window of 256 tokens."),
    ("yarncli demo ./demo-yarn --tuned", "Write the variant tuned with YaRN ×8."),
    ("yarncli demo ./stories.txt --text", "Write a text to measure it on."),
]


def demo(
    output: options.Output,
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Write the variant fine-tuned with YaRN ×8.")
    ] = False,
    text: Annotated[
        bool, typer.Option("--text", help="Write a text file that the model was not trained on.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Write a tiny trained Llama that comes with the package.

    It retrieves a passkey within its window of 256 tokens and fails far beyond it, so every
    example of the documentation can be tried offline in seconds.
    """
    from yarncli.cli import console
    from yarncli.demo import write_demo, write_demo_text

    if text:
        if tuned:
            raise UsageError("Give --tuned or --text, not both.")
        write_demo_text(output)
    else:
        write_demo(output, tuned=tuned)
    if json:
        console.print_document({"output": str(output)})
        return
    if text:
        console.print_text(f"{output}: stories for yarncli perplexity and regress.")
        return
    console.print_text(f"{output}: a Llama of 650,112 parameters.")
    console.note(f"Next: yarncli inspect {shlex.quote(str(output))}")
