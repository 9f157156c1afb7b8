"""Wiring of MAX: which RoPE types the graph of each of its architectures takes, from its source.

    pip download --no-deps max && unzip max-*.whl '*.py' '*METADATA' -d /tmp/max
    python -m scripts.wiring.max --package /tmp/max

Nothing is run. `READ` is what was read, per folder of an architecture, with the line that shows it;
the script fails where that line no longer says so. Folders without an entry are "unknown".
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from scripts.wiring.probes import TYPES
from scripts.wiring.sizes import config_for, model_types
from scripts.wiring.table import arguments, write
from scripts.wiring.text_parts import class_for

_LLAMA = {"llama3": "reads", "longrope": "differs"}
_KEYS = "factor original_max_position_embeddings beta_fast beta_slow mscale mscale_all_dim".split()
_DEEPSEEK = {"yarn": "reads", "default": "refuses", "rest": "refuses"}
_LLAMA_AT = ("llama3/model_config.py", 'rope_type == "llama3"')

# Folder → the types it does not pass over, what becomes of the rest, and where that is written.
READ: dict[str, tuple[dict[str, str], tuple[str, str], dict[str, Any]]] = {
    "llama3": (_LLAMA, _LLAMA_AT, {"width": "hidden_size"}),
    "qwen2": (_LLAMA, _LLAMA_AT, {"width": "hidden_size"}),
    "granite": (_LLAMA, _LLAMA_AT, {"width": "hidden_size"}),
    "olmo": (_LLAMA, _LLAMA_AT, {"width": "hidden_size"}),
    "phi3": (_LLAMA, _LLAMA_AT, {"width": "hidden_size"}),
    "qwen3": (_LLAMA, ("qwen3/qwen3.py", "rope = Llama3RotaryEmbedding("), {}),
    "qwen3vl_moe": (
        _LLAMA,
        ("qwen3vl_moe/nn/decoder.py", "rope = Qwen3VLTextRotaryEmbedding("),
        {},
    ),
    "qwen2_5vl": (_LLAMA, ("qwen2_5vl/nn/decoder.py", "rope = Llama3RotaryEmbedding("), {}),
    "olmo2": (_LLAMA, ("olmo2/olmo2.py", "rope = Llama3RotaryEmbedding("), {}),
    "llama4": ({"llama3": "reads"}, ("llama4/model_config.py", 'rope_type == "llama3"'), {}),
    "mistral": ({}, ("mistral/mistral.py", "rope = RotaryEmbedding("), {}),
    "mistral3": ({}, ("mistral/mistral.py", "rope = RotaryEmbedding("), {}),
    "minimax_m2": ({}, ("minimax_m2/minimax_m2.py", "MiniMaxM2RotaryEmbedding("), {}),
    "lfm2": ({}, ("lfm2/lfm2.py", "rope_scaling_params=None"), {}),
    "hy_v3": ({}, ("hy_v3/hy_v3.py", "self.rope = RotaryEmbedding("), {}),
    "gemma3": ({"linear": "reads"}, ("gemma3/model_config.py", 'rope_type == "linear"'), {}),
    # One type for each kind of layer; every other is a ValueError.
    "gemma4": (
        {"rest": "refuses"},
        ("gemma4/model_config.py", 'global_rope_type != "proportional"'),
        {"scopes": {"full_attention": "proportional", "sliding_attention": "default"}},
    ),
    "gpt_oss": (
        {"yarn": "differs", "default": "refuses", "rest": "refuses"},
        ("gpt_oss/model_config.py", "Unknown rope scaling type"),
        {},
    ),
    "deepseekV2": (
        _DEEPSEEK,
        ("deepseekV2/model_config.py", 'rope_type != "yarn"'),
        {"requires": _KEYS},
    ),
    "deepseekV3": (
        _DEEPSEEK,
        ("deepseekV3/model_config.py", 'rope_type != "yarn"'),
        {"requires": _KEYS},
    ),
    "deepseekV3_2": (
        _DEEPSEEK,
        ("deepseekV3/model_config.py", 'rope_type != "yarn"'),
        {"requires": _KEYS},
    ),
    # Its config class keeps the flat dict of the file (hf_config_shims.py, DeepseekV4HFConfig).
    "deepseekV4": (
        {"yarn": "reads", "rest": "refuses"},
        ("deepseekV4/layers/rope.py", "def rope_for_layer("),
        {"requires": _KEYS[:4]},
    ),
    "glm5_1": (
        {"yarn": "reads", "rest": "refuses"},
        ("glm5_1/model_config.py", "return rope_scaling"),
        {"requires": _KEYS},
    ),
}  # fmt: skip


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel")
    folder = Path(options.package)
    info = next(folder.glob("max-*.dist-info")).name
    version = info.removeprefix("max-").removesuffix(".dist-info")
    root = folder / "max" / "pipelines" / "architectures"
    folders = architectures(root)
    found = {}
    for kind in sorted(model_types()):
        _, architecture = class_for(kind, config_for(kind)[1], folders)
        if architecture not in folders:
            found[kind] = {"rope": "unsupported", "note": architecture}
        else:
            found[kind] = {"class": architecture, **entry(root, folders[architecture])}
    write("max", options.version or version, "read", found, architectures=sorted(folders))


def architectures(root: Path) -> dict[str, str]:
    """Architecture → its folder; of two for one name, the one without the newer graph API."""
    found: dict[str, str] = {}
    for path in sorted(root.glob("*/arch.py"), reverse=True):
        for name in re.findall(r"^    name=\"(\w+)\"", path.read_text(encoding="utf-8"), re.M):
            found[name.removesuffix("_ModuleV3")] = path.parent.name
    return found


def entry(root: Path, folder: str) -> dict[str, Any]:
    """The table's entry of an architecture."""
    if folder not in READ:
        return {"rope": "unknown", "at": folder, "note": "not read"}
    words, (file, text), more = READ[folder]
    lines = (root / file).read_text(encoding="utf-8").splitlines()
    number = next(n for n, line in enumerate(lines, 1) if text in line)
    types = {kind: words.get(kind, words.get("rest", "ignores")) for kind in TYPES}
    plain = {"default": words["default"]} if "default" in words else {}
    rope = "mixed" if len(set(types.values())) > 1 else types["yarn"]
    return {"rope": rope, "types": types, **plain, **more, "at": f"{file}:{number}"}


if __name__ == "__main__":
    main()
