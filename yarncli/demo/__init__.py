"""The trained demo checkpoint that ships with the package; made by scripts/train_demo.py."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from yarncli.checkpoint.output import atomic_write, output_directory
from yarncli.errors import UsageError


def write_demo(output: str | Path, *, tuned: bool = False) -> Path:
    """Copy the demo checkpoint into the new directory `output`, completely or not at all.

    Args:
        output: must not exist.
        tuned: the variant with YaRN ×8 (2,048 tokens) that was fine-tuned at 1,024 tokens, instead
            of the base model with its plain 256-token window.

    Returns:
        `output`, as a path.

    Raises:
        UsageError: `output` exists.
        OutputError: it cannot be written.
    """
    output = Path(output)
    packaged = files(__name__) / ("tuned" if tuned else "base")
    with output_directory(output) as staging:
        for file in packaged.iterdir():
            (staging / file.name).write_bytes(file.read_bytes())
    return output


def write_demo_text(output: str | Path) -> Path:
    """Copy the text for measuring the demo: stories that its models were not trained on.

    Args:
        output: the file to write; must not exist.

    Returns:
        `output`, as a path.

    Raises:
        UsageError: `output` exists.
        OutputError: it cannot be written.
    """
    output = Path(output)
    if output.exists():
        raise UsageError(f"{output} already exists. Choose another name.")
    atomic_write(output, (files(__name__) / "stories.txt").read_bytes())
    return output
