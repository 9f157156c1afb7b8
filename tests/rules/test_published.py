"""Published configs, cut to the fields that RoPE depends on: no errors, few and known warnings."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from yarncli.config.families.table import FAMILIES
from yarncli.rules.check import CheckReport

PUBLISHED: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "published.json").read_text()
)

# What is really wrong with them, held against engines' behaviour by hand.
WARNINGS = {
    # transformers 5 looks for the original length in the dict, Llama's class declares none on top.
    "microsoft/llama3-8b-longrope2": {"original-missing"},
    # Saved by transformers 5: the yarn dict is invisible to transformers 4 and mlx-lm.
    "nvidia/Kimi-K2.7-Code-NVFP4": {"v5-only"},
    # 32786 is a slip for 32768.
    "openbmb/MiniCPM-V-4": {"original-implausible"},
}


# MiniCPM 4: its own code reads the original length inside the dict, and nowhere else.
MINICPM4 = {
    "model_type": "minicpm",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32768,
    "rope_scaling": {
        "rope_type": "longrope",
        "long_factor": [1.0] * 64,
        "short_factor": [1.0] * 64,
        "original_max_position_embeddings": 32768,
    },
    "vocab_size": 73448,
}
SCOUT = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "hidden_size": 5120,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "max_position_embeddings": 10485760,
        "attention_chunk_size": 8192,
        "rope_theta": 500000.0,
        "rope_scaling": {
            "factor": 16.0,
            "high_freq_factor": 1.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": 8192,
            "rope_type": "llama3",
        },
    },
}


@pytest.mark.parametrize(
    ("config", "notes"),
    [(MINICPM4, {"unknown-model-type"}), (SCOUT, {"no-ramp", "legacy-only", "sliding-window"})],
    ids=["MiniCPM4", "Llama-4-Scout"],
)
def test_what_published_models_really_have_is_at_most_a_note(
    check: Callable[[dict[str, Any]], CheckReport], config: dict[str, Any], notes: set[str]
) -> None:
    report = check(config)
    assert {f.severity for f in report.findings} == {"note"}
    assert {f.rule.id for f in report.findings} == notes
    assert not any(f.edit for f in report.findings)


def test_the_set_is_large_and_scaled_enough() -> None:
    assert len(PUBLISHED) >= 40
    assert sum("rope_scaling" in json.dumps(c) for c in PUBLISHED.values()) >= 20
    assert sum("rope_parameters" in json.dumps(c) for c in PUBLISHED.values()) >= 5


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_config_has_no_error(
    check: Callable[[dict[str, Any]], CheckReport], name: str
) -> None:
    report = check(PUBLISHED[name])
    assert [f.message for f in report.findings if f.severity == "error"] == []
    warned = {f.rule.id for f in report.findings if f.severity == "warning"}
    assert warned == WARNINGS.get(name, set())


@pytest.mark.parametrize(
    ("name", "break_it"),
    [
        ("meta-llama/Meta-Llama-3.1-8B", {"rope_scaling.original_max_position_embeddings": None}),
        ("deepseek-ai/DeepSeek-R1", {"max_position_embeddings": 4096}),
        ("Qwen/Qwen3-8B", {"rope_scaling": {"type": "linear", "factor": 4}}),
        ("microsoft/Phi-3-mini-128k-instruct", {"rope_scaling.long_factor": [1.0] * 47}),
    ],
)
def test_the_same_configs_broken_have_errors(
    check: Callable[[dict[str, Any]], CheckReport], name: str, break_it: dict[str, Any]
) -> None:
    config = json.loads(json.dumps(PUBLISHED[name]))
    for path, value in break_it.items():
        *parents, key = path.split(".")
        place = config
        for parent in parents:
            place = place[parent]
        place[key] = value
    assert check(config).count("error") == 1


@pytest.mark.full
@pytest.mark.skipif("YARNCLI_TF4_PYTHON" not in os.environ, reason="set by make test-full")
def test_the_model_types_that_transformers_4_does_not_know() -> None:
    """Every family is either new in transformers 5 or known to transformers 4.57."""
    code = """
import json, pathlib, re, transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES as names
found = set(names)
for file in pathlib.Path(transformers.__file__).parent.glob("models/*/configuration_*.py"):
    found.update(re.findall('^    model_type = "([^"]+)"', file.read_text(), re.M))
print(json.dumps(sorted(found)))
"""
    done = subprocess.run(
        [os.environ["YARNCLI_TF4_PYTHON"], "-c", code], capture_output=True, text=True, check=True
    )
    known = set(json.loads(done.stdout))
    new = {name for name, family in FAMILIES.items() if family.transformers_since == "5"}
    assert FAMILIES.keys() - known == new
