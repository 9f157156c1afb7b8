"""`baked-twice` from the record: transformers drops the marker, yarncli.json still holds."""

from __future__ import annotations

from typing import Any

import pytest

from yarncli.rules.check import check

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 2,
    "max_position_embeddings": 32768,
    "rope_theta": 10000.0,
}
NEUTRAL = {"attention_factor": 1.0}


def bake(form: str = "neutral", **more: Any) -> dict[str, Any]:
    """A bake as yarncli.json records it."""
    factors = {"model": 1.1386294361119891}
    baked = {"form": form, "side": "k", "layout": "llama", "attention_factor": factors}
    return {
        "command": "bake", "source": "m", "tool_version": "0.1.0", "options": {}, "plan": None,
        "replaced": [], "baked": baked | more, "config_only": False,
    }  # fmt: skip


@pytest.mark.parametrize("lone", [False, True])
@pytest.mark.parametrize(
    ("changes", "steps", "told"),
    [
        ({}, [bake()], ["attention factor of 1 and applies 1.13863"]),
        ({}, [bake("residual")], []),
        (NEUTRAL, [bake()], []),
        (NEUTRAL, [bake("residual")], ["attention factor of 1.13863 and applies 1."]),
        (NEUTRAL, [bake(), bake()], ["records 2 bakes"]),
        ({}, [bake(), bake()], ["records 2 bakes", "attention factor of 1 and applies 1.13863"]),
        ({}, [bake(adapter=True)], []),
    ],
    ids=["back", "residual", "baked", "overdone", "two", "two and back", "adapter"],
)
def test_the_record_alone_tells_that_weights_are_baked(write, lone, changes, steps, told):
    config = {**LLAMA, "rope_scaling": {**YARN, **changes}}
    place = write(config, yarncli={"schema_version": 2, "steps": steps})
    report = check(str(place / "config.json" if lone else place))
    found = [f.message for f in report.findings if f.rule.id == "baked-twice"]
    assert len(found) == len(told)
    assert all(part in message for part, message in zip(told, found, strict=True))


def test_a_record_that_cannot_be_read_is_named_beside_a_lone_config(write):
    place = write(LLAMA, yarncli={"schema_version": 99})
    (found,) = check(str(place / "config.json")).findings
    assert "yarncli.json does not have the schema_version" in found.message
