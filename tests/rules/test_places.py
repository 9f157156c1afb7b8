"""Settings where no model reads them: --fix moves what is certain, and transformers loads it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import configs
from yarncli.rules.check import check as check_all

ORIGINAL = {"original_max_position_embeddings": 8192}
YARN = {"rope_type": "yarn", "factor": 4.0, **ORIGINAL}
MROPE = {"mrope_section": [16, 24, 24], "rope_type": "default"}
PLAIN = {k: v for k, v in configs.LLAMA.items() if k != "rope_theta"}
Write = Callable[..., Path]


def fixed(folder: Path) -> tuple[dict[str, Any], set[str]]:
    """The config after --fix, and the rules that still have a warning or an error."""
    left = check_all(str(folder), fix=True).findings
    text = (folder / "config.json").read_text()
    return json.loads(text), {f.rule.id for f in left if f.severity != "note"}


def llava(outer: dict[str, Any], **text: Any) -> dict[str, Any]:
    return {"model_type": "llava", "text_config": {**configs.LLAMA, **text}, **outer}


def test_it_moves_into_the_plain_setting_and_keeps_what_is_there(write: Write) -> None:
    """Seen as sgl-project/sglang#27974: the text part has θ and M-RoPE in rope_parameters."""
    from transformers import AutoConfig

    text = {**PLAIN, "rope_parameters": {**MROPE, "rope_theta": 1e7}, "model_type": "qwen3_vl_text"}
    folder = write({"model_type": "qwen3_vl", "text_config": text, "rope_scaling": YARN})
    (found,) = [f for f in check_all(str(folder)).findings if f.severity == "error"]
    assert (found.rule.id, "text_config" in found.message) == ("unread-block", True)
    config, left = fixed(folder)
    assert "rope_scaling" not in config
    block = config["text_config"]["rope_parameters"]
    assert block == {**MROPE, **YARN, "rope_theta": 1e7}
    assert config["text_config"]["max_position_embeddings"] == 32768
    assert not left
    read = AutoConfig.from_pretrained(folder).get_text_config().rope_parameters
    assert (read["rope_type"], read["rope_theta"], read["factor"]) == ("yarn", 1e7, 4.0)


@pytest.mark.parametrize(
    ("outer", "text", "wanted"),
    [
        ({"rope_scaling": YARN}, {}, {"rope_scaling": YARN}),
        ({"rope_scaling": YARN}, {"rope_scaling": None}, {"rope_scaling": YARN}),
        ({"rope_scaling": YARN}, {"rope_scaling": {**YARN}}, {"rope_scaling": YARN}),
        (
            {"rope_scaling": {"type": "linear", "factor": 2}},
            {},
            {"rope_scaling": {"type": "linear", "factor": 2.0}},
        ),
        ({"llm_config": {"rope_scaling": {"type": "linear", "factor": 2.0}}}, {}, None),
    ],
    ids=["alone", "beside null", "a copy", "an integer factor", "a sub-config that is not read"],
)
def test_it_moves(
    write: Write, outer: dict[str, Any], text: dict[str, Any], wanted: dict[str, Any] | None
) -> None:
    config, left = fixed(write(llava(outer, **text)))
    moved = wanted or outer["llm_config"]
    assert {k: config["text_config"][k] for k in moved} == moved
    assert "rope_scaling" not in {**config, **config.get("llm_config", {})}
    assert not left


@pytest.mark.parametrize(
    ("outer", "text"),
    [
        ({"rope_scaling": YARN}, {"rope_scaling": {"type": "linear", "factor": 2.0}}),
        ({"rope_scaling": {**YARN, "rope_theta": 1e4}}, {}),
    ],
    ids=["another scaling", "another θ"],
)
def test_what_the_user_must_decide_stays(
    write: Write, outer: dict[str, Any], text: dict[str, Any]
) -> None:
    before = llava(outer, **text)
    config, left = fixed(write(before))
    assert config == before
    assert "unread-block" in left


def test_only_the_readers_that_miss_a_setting_are_named(write: Write) -> None:
    """Run: mlx-lm 0.32.2 reads rope_parameters of qwen3 (NovaSky-AI/SkyRL#976)."""
    config = {**configs.LLAMA, "model_type": "qwen3", "max_position_embeddings": 32768}
    for kind, named in (
        ("qwen3", "transformers 4 does"),
        ("llama", "transformers 4 and mlx-lm do"),
    ):
        folder = write({**config, "model_type": kind, "rope_parameters": YARN})
        (found,) = [f for f in check_all(str(folder)).findings if f.rule.id == "v5-only"]
        assert f"{named} not read it" in found.message


def test_a_theta_that_nobody_states_is_named_with_what_readers_take(write: Write) -> None:
    """transformers 5.23 reads 10000, mlx-lm 0.32.2 stops: ValueError (both run)."""
    config = {**PLAIN, "model_type": "qwen3", "rope_parameters": YARN}
    (found,) = [f for f in check_all(str(write(config))).findings if f.rule.id == "theta-missing"]
    assert "transformers 5" in found.message.partition(" take 10,000")[0]
    assert "mlx-lm stops" in found.message
    assert found.edit is None
