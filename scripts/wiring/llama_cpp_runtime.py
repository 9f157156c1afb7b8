"""What llama.cpp's runtime makes of a file: facts read from its graphs, and its formulas.

Facts, by GGUF architecture (`src/models/*.cpp`; none where nothing is special):

    rope_freqs    "used", or "loaded" and not given to the rotation; a file with this tensor is
                  refused by every other graph
    factors       long and short lists are loaded
    betas         the keys of the betas are read
    log           "tenfold": yarn_log_multiplier is divided by 0.1; "as is"
    softmax       the softmax scale is multiplied (MLA)
    sliding       how windowed layers rotate where it is not as the others do: `theta` "full" or
                  the number without `rope.freq_base_swa`; `key`: whether that is read; `scaled`
    compress      two bases, the compressed layers alone scaled
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarncli.rope import formulas

Facts = dict[str, Any]

_UNSCALED = re.compile(r"freq_base, 1\.0,\s*0\.0, 1\.0, beta_fast")
_OWN_BASE = re.compile(
    r"^(?!\s*//).*(get_rope_freq_base *\(|\? hparams\.rope_freq_base_train_swa)", re.M
)


@dataclass(frozen=True)
class File:
    """What the converter wrote."""

    graph: str
    """The GGUF architecture."""
    keys: Mapping[str, Any]
    """Keys without the architecture's prefix."""
    tensors: Mapping[str, list[float]] = field(default_factory=dict)
    """Generated tensors."""


class RefusedError(RuntimeError):
    """The runtime does not load the file."""


def graph_facts(source: Path) -> dict[str, Facts]:
    """GGUF architecture → what is special about its graph.

    Args:
        source: the folder `src` of llama.cpp.
    """
    names = dict(re.findall(r"\{ (LLM_ARCH_\w+),\s+\"([^\"]+)\"", _text(source / "llama-arch.cpp")))
    made = re.findall(r"case (LLM_ARCH_\w+):\s+return new llama_model_(\w+)\(",
                      _text(source / "llama-model.cpp"))  # fmt: skip
    header = _text(source / "models" / "models.h")
    parents = dict(re.findall(r"struct llama_model_(\w+) : public llama_model_(\w+) \{", header))
    parents |= {
        match[1]: match[2]
        for block in header.split("\n};")
        if (match := re.search(r"struct llama_model_(\w+) .*using graph = llama_model_(\w+)::graph",
                               block, re.S))
    }  # fmt: skip
    found = {}
    for arch, name in made:
        text = ""
        kind: str | None = name
        while kind and kind != "base":
            path = source / "models" / f"{kind.replace('_', '-')}.cpp"
            path = path if path.exists() else source / "models" / f"{kind}.cpp"
            text += _text(path) if path.exists() else ""
            kind = parents.get(kind)
        facts = _facts(text)
        if facts:
            found[names[arch]] = facts
    return dict(sorted(found.items()))


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _facts(text: str) -> Facts:
    found: Facts = {}
    uses = "get_rope_factors(" in text or re.search(r"layers\[\w+\]\.rope_freqs", text)
    if "tn(LLM_TENSOR_ROPE_FREQS" in text:
        found["rope_freqs"] = "used" if uses else "loaded"
    if "tn(LLM_TENSOR_ROPE_FACTORS_LONG" in text:
        found["factors"] = True
    if re.search(r"get_key\(LLM_KV_ROPE_SCALING_YARN_BETA_FAST", text):
        found["betas"] = True
    if re.search(r"get_key\(LLM_KV_ROPE_SCALING_YARN_LOG_MUL", text):
        found["log"] = "tenfold" if "rope_yarn_log_mul /= 0.1f" in text else "as is"
    if "attn_factor_org" in text:
        found["softmax"] = True
    if "dsv4_compress_rope_base" in text:
        found["compress"] = True
    same = "rope_freq_base_train_swa  = hparams.rope_freq_base_train;" in text.replace(
        "swa =", "swa  ="
    )
    if _UNSCALED.search(text):
        found["sliding"] = {"theta": "full", "key": False, "scaled": False}
    elif _OWN_BASE.search(text):
        found["sliding"] = {
            "theta": "full" if same else 10000.0,
            "key": "LLM_KV_ROPE_FREQ_BASE_SWA" in text,
            "scaled": "rope_freq_scale_train_swa = hparams.rope_freq_scale_train" in text,
        }
    return found


def refuse_tensors(file: File, facts: Facts) -> None:
    """Refuse a file with a tensor that its graph does not load.

    Raises:
        RefusedError: names it.
    """
    lists = any(name.startswith("rope_factors") for name in file.tensors)
    if "rope_freqs.weight" in file.tensors and "rope_freqs" not in facts:
        raise RefusedError("the graph does not load rope_freqs.weight, the file is refused")
    if lists and "factors" not in facts:
        raise RefusedError("the graph does not load rope_factors, the file is refused")


def computed(file: File, facts: Facts, dim: int) -> tuple[list[float], float, float]:
    """Frequencies, attention scale and softmax scale × √d of a full layer.

    Reference: llama-context.cpp:114-214, ggml-cpu/ops.cpp, models/deepseek2.cpp:433-443.
    """
    keys = file.keys
    theta = float(keys.get("rope.freq_base", 10000.0))
    kind = keys.get("rope.scaling.type", "linear")
    factor = float(keys.get("rope.scaling.factor", 0.0)) or 1.0
    factor = 1.0 if kind == "none" else factor
    original = int(keys.get("rope.scaling.original_context_length", keys["context_length"]))
    if facts.get("compress"):
        theta = float(keys["attention.compress_rope_freq_base"])
    freqs = formulas.default_inv_freq(theta, dim)
    factors = file.tensors.get("rope_freqs.weight")
    if facts.get("rope_freqs") != "used":
        factors = None
    if factors is None and "rope_factors_long.weight" in file.tensors:
        longer = keys["context_length"] > original
        factors = file.tensors[f"rope_factors_{'long' if longer else 'short'}.weight"]
    ramp = freqs
    ratio = 1.0
    if kind == "yarn":
        betas = (32.0, 1.0)
        if facts.get("betas"):
            betas = tuple(
                float(keys.get(f"rope.scaling.yarn_beta_{name}", given))
                for name, given in zip(("fast", "slow"), betas, strict=True)
            )
        ramp = formulas.yarn_inv_freq(
            theta, dim, factor, original, beta_fast=betas[0], beta_slow=betas[1]
        )
        ratio = _ratio(file, facts, factor)
    elif kind in ("linear", "longrope"):
        ramp = [f / factor for f in freqs]
    if factors is not None:
        ramp = [f / r for f, r in zip(ramp, factors, strict=False)]
    scale = ratio * float(keys.get("rope.scaling.attn_factor", 1.0))
    softmax = 1.0
    if facts.get("softmax"):
        original_factor = ratio if kind == "yarn" else formulas.get_mscale(factor)
        softmax = (original_factor * formulas.get_mscale(factor, _log(file, facts))) ** 2
    return ramp, 1.0 if facts.get("compress") else scale, softmax


def _log(file: File, facts: Facts) -> float:
    if "log" not in facts:
        return 0.0
    value = float(file.keys.get("rope.scaling.yarn_log_multiplier", 0.0))
    return value * 10 if facts["log"] == "tenfold" else value


def _ratio(file: File, facts: Facts, factor: float) -> float:
    log = _log(file, facts)
    if not log:
        return formulas.get_mscale(factor)
    top = log if file.graph == "deepseek2" else 1.0
    return formulas.get_mscale(factor, top) / formulas.get_mscale(factor, log)


def computed_windowed(file: File, facts: Facts, dim: int) -> tuple[list[float], float, float]:
    """The same for a windowed layer, and for an uncompressed one of DeepSeek V4."""
    theta = float(file.keys.get("rope.freq_base", 10000.0))
    scale = float(file.keys.get("rope.scaling.attn_factor", 1.0))
    if facts.get("compress"):
        return formulas.default_inv_freq(theta, dim), 1.0, 1.0
    rule = facts.get("sliding")
    if rule is None:
        return computed(file, facts, dim)
    if rule["theta"] != "full":
        theta = rule["theta"]
    if rule["key"]:
        theta = float(file.keys.get("rope.freq_base_swa", theta))
    if not rule["scaled"]:
        return formulas.default_inv_freq(theta, dim), scale if rule["key"] else 1.0, 1.0
    changed = File(file.graph, {**file.keys, "rope.freq_base": theta}, file.tensors)
    return computed(changed, facts, dim)
