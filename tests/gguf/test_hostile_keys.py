"""Keys that no model has: every command says so, or passes over them, and none has a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.gguf_files import demo_keys, write_gguf
from support.program import invoke
from yarncli.gguf.facts import Typed

FILES: dict[str, tuple[str, dict[str, Typed]]] = {
    "heads as text": ("phi3", {"attention.head_count": Typed("str", "yarn")}),
    "blocks as list": ("llama", {"block_count": Typed("arr", [1, 2])}),
    "a window that is NaN": (
        "gemma3", {"rope.scaling.original_context_length": Typed("f32", float("nan"))},
    ),
    "an endless factor": ("llama", {"rope.scale_linear": Typed("f32", float("inf"))}),
    "a negative θ": ("qwen2vl", {"rope.freq_base": Typed("f32", -1.0)}),
    "a head of one": ("qwen2", {"attention.key_length": Typed("u32", 1)}),
    "heads for some layers": ("llama", {"attention.head_count_kv": Typed("arr", [])}),
    "no heads": ("llama", {"attention.head_count": Typed("u32", 0)}),
}  # fmt: skip
COMMANDS: list[list[Any]] = [
    ["inspect", "FILE", "--table"],
    ["inspect", "FILE", "--json", "--table"],
    ["check", "FILE"],
    ["engines", "FILE"],
    ["convert", "FILE", "OUT", "--factor", 8, "--overwrite"],
    ["convert", "FILE", "--dry-run", "--rescale", "--factor", 2],
    ["bake", "FILE", "OUT", "--attention-factor", 1.2, "--overwrite"],
    ["bake", "FILE", "OUT", "--attention-factor", 1.2, "--carrier", "weights", "--overwrite"],
    ["check", "FILE", "--fix"],
    ["convert", "FILE", "--undo"],
]


@pytest.mark.parametrize("name", FILES)
def test_no_command_has_a_traceback(name: str, tmp_path: Path) -> None:
    architecture, odd = FILES[name]
    keys = {k.replace("llama.", f"{architecture}."): v for k, v in demo_keys().items()}
    keys["general.architecture"] = Typed("str", architecture)
    keys |= {f"{architecture}.{key}": value for key, value in odd.items()}
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    places = {"FILE": write_gguf(tmp_path / "m.gguf", keys, arrays), "OUT": tmp_path / "o.gguf"}
    for command in COMMANDS:
        result = invoke(*[places.get(str(word), word) for word in command])
        assert result.exception is None or isinstance(result.exception, SystemExit), command
        assert result.exit_code in (0, 1, 2, 3)


def test_a_rotary_part_wider_than_the_head_aborts(tmp_path: Path) -> None:
    keys = {k.replace("llama.", "qwen2."): v for k, v in demo_keys().items()}
    keys |= {"general.architecture": Typed("str", "qwen2"),
             "qwen2.attention.key_length": Typed("u32", 16)}  # fmt: skip
    arrays = {"blk.0.attn_k.weight": np.ones((64, 128), np.float32)}
    path = write_gguf(tmp_path / "m.gguf", keys, arrays)
    assert "is 32 and must be 16" in invoke("check", path, code=1).output
