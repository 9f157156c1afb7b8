"""Files that trainers leave beside a model, and configs as trainers change them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LEFT = {
    "training_args.bin": b"\x80\x04never opened",
    "checkpoint-60/optimizer.pt": b"\x80\x04never opened",
    "checkpoint-60/rng_state.pth": b"x",
    "checkpoint-60/trainer_state.json": b'{"global_step": 60, "max_steps": 60}',
    "runs/events.out.tfevents.1": b"x",
}


def leave(out: Path) -> Path:
    """Put a trainer's own files beside a model."""
    for name, data in LEFT.items():
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_bytes(data)
    return out


def edit(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; a value of None removes one."""
    values = {**json.loads(path.read_text()), **changes}
    kept = {k: v for k, v in values.items() if v is not None or k not in changes}
    path.write_text(json.dumps(kept, indent=2))
