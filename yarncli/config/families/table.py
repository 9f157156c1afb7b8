"""What transformers assumes for each model type where `config.json` is silent.

Tests compare every default with the config classes of transformers 5.23.
"""

from __future__ import annotations

from dataclasses import replace

from yarncli.config.families.family import Family
from yarncli.config.families.mixed_rows import MIXED_ROWS
from yarncli.config.families.uniform_rows import UNIFORM_ROWS
from yarncli.config.families.wrapper_rows import WRAPPER_ROWS

# How to add a model type (CONTRIBUTING.md says what else it needs):
#
# 1. Find its config class (`models/NAME/configuration_NAME.py` in transformers) and note every
#    default that differs from those of `Family`, which are Llama's. `family.py` says what each
#    field means and in which order a row gives them.
# 2. Read its model code: which layers rotate, slide or have no attention at all, and which RoPE
#    types it computes. `layer_rule` and `rope_rule` name functions of `layers.py`,
#    `scope_sizes_rule` one of `scopes.py`. Write a new function only where none fits.
# 3. Add the row to `uniform_rows.py` where all layers are alike, to `mixed_rows.py` where they
#    differ, to `wrapper_rows.py` where the text model is a part of it. Names are in alphabetical
#    order. A scope, a default or a reason that several rows share stands in `shared.py`.
# 4. If it cannot be extended, give the reason in `refused_types.py` instead. If it has no RoPE, or
#    for every new release of transformers, run `python scripts/no_rope_types.py`.
# 5. Give it a tiny size in `tests/support/architectures.py` if the common ones do not suit, and run
#    `pytest -m "" tests/config tests/conversion/test_architectures.py`: the tests find the new row
#    by themselves and compare it with the installed transformers.
# 6. Facts about one engine belong to its file in `engines/rules/`, and those about weights to
#    `baking/registry.py`.


def _families() -> dict[str, Family]:
    rows = UNIFORM_ROWS | MIXED_ROWS | WRAPPER_ROWS
    return {name: replace(_of(row, rows), model_type=name) for name, row in rows.items()}


def _of(row: Family, rows: dict[str, Family]) -> Family:
    """The row itself, or the one whose modelling file its remote code shares."""
    if not row.same_as:
        return row
    return replace(
        rows[row.same_as],
        same_as=row.same_as,
        transformers_since=row.transformers_since,
        fast_scoring_tested=row.fast_scoring_tested,
    )


FAMILIES = _families()
