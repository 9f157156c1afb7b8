"""What transformers assumes for each model type where `config.json` is silent.

Tests compare every default with the config classes of transformers 5.23.
"""

from __future__ import annotations

from dataclasses import replace

from yarncli.config.families.family import Family, ScopeRule
from yarncli.config.families.model_types import NO_ROPE, SAME_AS, UNSUPPORTED, WRAPPER_ROWS
from yarncli.config.families.text_rows import TEXT_ROWS

__all__ = ["FAMILIES", "NO_ROPE", "UNSUPPORTED", "Family", "ScopeRule"]


def _families() -> dict[str, Family]:
    rows = TEXT_ROWS | WRAPPER_ROWS
    rows |= {name: rows[other] for name, other in SAME_AS.items()}
    return {name: replace(row, model_type=name) for name, row in rows.items()}


FAMILIES = _families()
