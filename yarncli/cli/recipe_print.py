"""What `recipe` prints, and the table of trainers that `engines --trainers` shows."""

from __future__ import annotations

import shlex

from yarncli.checkpoint.source import open_checkpoint
from yarncli.cli import console
from yarncli.config.reading import read_rope
from yarncli.training.recipe import SCHEMA_VERSION, Recipe, memory_words
from yarncli.training.trainers import trainers


def print_recipe(found: Recipe) -> None:
    """Print the memory that training needs, what was written, and the notes."""
    console.print_text(f"memory for each GPU: {memory_words(found.memory)}")
    if found.counted:
        console.print_text(f"data: {found.counted.describe()}")
    for name in found.files:
        console.print_text(f"  {name}")
    for text in found.notes:
        console.note(text)
    console.print_text(f"next: {shlex.quote(str(found.output / 'README.md'))} has the commands")


def print_trainers(source: str, *, json: bool) -> None:
    """Print what each trainer does with its own RoPE option and with a converted checkpoint.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    rope = read_rope(open_checkpoint(source).config().value)
    scaled = any(s.parameters.rope_type != "default" for s in rope.scopes.values())
    known = trainers().values()
    if json:
        rows = [each.to_json() for each in known]
        document = {"schema_version": SCHEMA_VERSION, "scaled": scaled, "trainers": rows}
        console.print_json(document)
        return
    console.print_table(
        ["trainer", "version", "known by", "with this checkpoint, without a RoPE option"],
        [[t.id, t.versions, t.evidence, t.converted] for t in known],
    )
    console.print_text("")
    console.print_table(
        ["trainer", "its own RoPE option, and what that does"],
        [[t.id, f"{t.route}: {t.result}"] for t in known],
    )
    if not scaled:
        console.note(
            "This checkpoint has no RoPE scaling. Convert it before you train it, unless only its "
            "θ was changed."
        )
