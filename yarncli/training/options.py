"""What a caller can decide about `finish`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class FinishOptions:
    """How to finish what a trainer left."""

    adapter: bool = False
    """It is a LoRA adapter: the plan is stamped beside it."""
    dtype: Literal["keep", "auto"] = "keep"
    """Keep the weights byte for byte as they were trained, or cast them back to the conversion's
    dtype."""
    in_place: bool = False
    """Change the trained directory itself; config files are kept as `*.orig`."""
    clean: bool = False
    """In place: remove what the trainer left besides the model."""
    dry_run: bool = False
    """Prove and decide everything, and write nothing."""
    overwrite: bool = False
    """Replace the output if it exists and holds a checkpoint."""
    fsync: bool = False
    """Survive a power cut too: flush the output to the disk."""
