"""`yarncli recipe`: files for fine-tuning a conversion with an existing trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from yarncli.cli import options

EXAMPLES = [
    (
        "yarncli recipe ./model-128k --train-length 64k --gpus 8 --out ./recipe",
        "Write files for transformers.Trainer and accelerate.",
    ),
    (
        "yarncli recipe ./model-128k --trainer trl --train-length 32k --data t.jsonl --out ./r",
        "Count the texts that are long enough.",
    ),
    (
        "yarncli recipe ./model-64k --train-length 64k --stage2 128k --out ./recipe",
        "Train in two stages, as in the paper.",
    ),
    (
        "yarncli recipe ./model-128k --trainer axolotl --train-length 32k --tuning lora --out ./r",
        "Train a LoRA adapter.",
    ),
]


def recipe(
    converted: Annotated[
        str,
        typer.Argument(
            metavar="CONVERTED", show_default=False, help="A checkpoint that yarncli converted."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", metavar="DIRECTORY", show_default=False, help="Directory to write."),
    ],
    train_length: Annotated[
        int,
        typer.Option(
            "--train-length",
            metavar="TOKENS",
            parser=options.parse_length,
            show_default=False,
            help="The length of the training texts: 32768, 32k.",
        ),
    ],
    trainer: Annotated[
        str,
        typer.Option(
            "--trainer",
            metavar="ID",
            help="Write for transformers, trl, axolotl, llamafactory or swift.",
        ),
    ] = "transformers",
    stage2: Annotated[
        int | None,
        typer.Option(
            "--stage2",
            metavar="TOKENS",
            parser=options.parse_length,
            help="Context window of a second stage.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="PATH", help="Training texts to count: JSON lines or parquet."
        ),
    ] = None,
    gpus: Annotated[int, typer.Option("--gpus", help="Number of GPUs.")] = 1,
    tuning: Annotated[
        Literal["full", "lora"],
        typer.Option("--tuning", help="Train all weights, or LoRA with norms and embeddings."),
    ] = "full",
    json: options.Json = False,
) -> None:
    """Write the files for fine-tuning a conversion with a trainer, and say what it will take.

    The files set no RoPE option: the checkpoint has the setting, and RoPE options of trainers
    crash, change the factor or are ignored. A guard compares the training model with the plan.
    """
    from yarncli.cli import console, recipe_print
    from yarncli.training.recipe import RecipeOptions
    from yarncli.training.recipe import recipe as write

    chosen = RecipeOptions(
        trainer=trainer, train_length=train_length, stage2=stage2, data=data, gpus=gpus,
        tuning=tuning,
    )  # fmt: skip
    found = write(converted, out, chosen)
    if json:
        console.print_json(found.to_json())
    else:
        recipe_print.print_recipe(found)
