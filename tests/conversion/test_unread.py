"""A RoPE block that no model reads is removed by a conversion, or refused; never edited."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support import configs
from yarncli.checkpoint.source import open_checkpoint
from yarncli.conversion.conversion import decide
from yarncli.conversion.options import ConvertOptions
from yarncli.errors import ConfigError

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}


def converted(folder: Path, config: dict[str, Any], **options: Any) -> dict[str, Any]:
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    chosen = ConvertOptions(factor=2.0, config_only=True, **options)
    return dict(decide(open_checkpoint(folder), chosen).config.value)


@pytest.mark.parametrize("place", ["", "llm_config"])
def test_it_is_removed(tmp_path: Path, place: str) -> None:
    from transformers import AutoConfig

    outer = {"rope_scaling": YARN, "rope_parameters": YARN}
    config = {"model_type": "llava", "text_config": configs.LLAMA}
    found = converted(tmp_path, {**config, **({place: outer} if place else outer)})
    left = found[place] if place else found
    assert not {"rope_scaling", "rope_parameters"} & left.keys()
    (tmp_path / "config.json").write_text(json.dumps(found))
    text = AutoConfig.from_pretrained(tmp_path).get_text_config()
    assert text.rope_parameters["rope_type"] == "yarn"
    assert (text.rope_parameters["factor"], text.rope_parameters["rope_theta"]) == (2.0, 5e5)


def test_so_is_a_copy_for_older_readers(tmp_path: Path) -> None:
    """A yarn beside the text part stops transformers 5.23: AttributeError (run)."""
    mrope = {"type": "mrope", "mrope_section": [16, 24, 24]}
    text = {**configs.LLAMA, "model_type": "qwen2_vl_text", "rope_scaling": mrope}
    config = {**configs.LLAMA, "model_type": "qwen2_vl", "text_config": text, "rope_scaling": mrope}
    found = converted(tmp_path, config)
    assert "rope_scaling" not in found
    assert found["max_position_embeddings"] == 16384
    assert found["text_config"]["rope_scaling"]["factor"] == 2.0


def test_what_own_code_may_read_is_refused(tmp_path: Path) -> None:
    inner = {**configs.LLAMA, "model_type": "internlm2"}
    config = {"model_type": "internvl_chat", "llm_config": inner, "rope_scaling": YARN}
    with pytest.raises(ConfigError, match=r"rope_scaling is outside llm_config"):
        converted(tmp_path, config, assume_like="llama")
