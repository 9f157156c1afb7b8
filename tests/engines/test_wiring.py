"""The rules of an engine give what the engine itself gave for every probe of its table.

`yarncli/engines/wiring/<engine>.json` holds what came out when `scripts/wiring/` ran the engine's
code: model types × about sixty settings. The rules may say that they do not know; what they do
claim must be that line.
"""

from __future__ import annotations

from collections import Counter

import pytest

from support.wiring import TABLES, mismatches

# Each takes some seconds; the rules of the others are mostly those of these.
FAST = {"transformers-5", "vllm", "sglang", "mlx-lm", "llama.cpp"}


@pytest.mark.parametrize(
    "engine",
    [pytest.param(name, marks=() if name in FAST else pytest.mark.full) for name in TABLES],
)
def test_the_rules_give_what_the_engine_gave(engine):
    found, known, total = mismatches(engine)
    kinds = Counter(f"{wrong.model_type}: {wrong.probe}" for wrong in found)
    assert not found, "\n".join([str(wrong) for wrong in found[:40]] + [f"{len(kinds)} in all"])
    # Not knowing is not a way out.
    assert known >= 0.9 * total
