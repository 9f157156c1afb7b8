"""What transformers assumes for each model type where `config.json` is silent.

Tests compare every default with the config classes of transformers 5.23.
"""

from __future__ import annotations

from dataclasses import replace

from yarncli.rope.family import METHODS, Family, ScopeRule
from yarncli.rope.family_data import TEXT_ROWS
from yarncli.rope.model_types import NO_ROPE, SAME_AS, UNSUPPORTED, WRAPPER_ROWS

__all__ = ["FAMILIES", "METHODS", "NO_ROPE", "UNSUPPORTED", "Family", "ScopeRule"]


def _families() -> dict[str, Family]:
    rows = TEXT_ROWS | WRAPPER_ROWS
    rows |= {name: rows[other] for name, other in SAME_AS.items()}
    return {name: replace(row, model_type=name) for name, row in rows.items()}


FAMILIES = _families()
