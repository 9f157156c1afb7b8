"""What llama.cpp's runtime makes of a file: facts read from its graphs, and its formulas.

    python -m scripts.wiring.llama_cpp_runtime --package /tmp/lcp/…/vendor/llama.cpp \
        --version 'v0.5.0 (llama-cpp-python 0.3.36)'

writes `yarncli/gguf/architectures.json`: a row for every GGUF architecture that the runtime knows
(`src/llama-arch.cpp`), with what is special about its graph (`src/models/*.cpp`):

    rotates       "norm": pairs of neighbours; "neox": pairs half a head apart; "none": no RoPE
    sections      `rope.dimension_sections` is read: M-RoPE where it is there
    whole_head    a file whose rotary width is not that of a head "refuses" to load, or "aborts"
    windowed      it can have layers that attend within a sliding window
    pattern       of so many layers one has no window where the file does not say: the last one, or
                  with dense_first the first one
    full_nope     where some layers are windowed, the others do not rotate
    nope          layers that do not rotate can stand between those that do
    switch        `rope.scaling.finetuned` false switches RoPE off
    hybrid        some layers mix tokens by other means than attention
    mla           multi-head latent attention
    late_norm     the norm of the keys comes after the rotation, and undoes any factor on it
    k_scale       `blk.N.attn_k.scale` multiplies the keys
    base_swa      `rope.freq_base_swa` is read
    alpha         `rope.scaling.alpha` raises θ
    rope_freqs    "used", or "loaded" and not given to the rotation; a file with this tensor is
                  refused by every other graph
    factors       long and short lists are loaded
    betas         the keys of the betas are read
    ramp          the keys of yarn's share and attention factor are read (Grok)
    log           "tenfold": yarn_log_multiplier is divided by 0.1; "as is"
    softmax       the softmax scale is multiplied (MLA)
    sliding       how windowed layers rotate where it is not as the others do: `theta` "full" or
                  the number without `rope.freq_base_swa`; `key`: whether that is read; `scaled`
    compress      two bases, the compressed layers alone scaled
    fixed         θ 10000 without scaling whatever the file says; another θ in it is "ignored", or
                  the process "aborts"
    blocks        it rotates with this number of blocks only
    default_window   the window where the file states none
    needs_window  the process aborts on a file without a window
    windowed_blocks  with this number of blocks only there is a window
    run           tiny models of it were run, and did what the row says (`llama_cpp_runs.py`)

`_SEEN` corrects what the patterns below misread, as `llama_cpp_runs.py` showed: run it after this.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.wiring.table import arguments, today
from yarncli.rope import formulas

TABLE = Path(__file__).resolve().parents[2] / "yarncli" / "gguf" / "architectures.json"

Facts = dict[str, Any]

# What ran otherwise than the patterns say; `None` takes a fact away.
_SEEN: dict[str, Facts] = {
    "afmoe": {"needs_window": True},  # its graph has the inputs of windows only
    "baichuan": {"blocks": 32},  # the graph asks for the type 7B, which 32 blocks give
    "bert": {"rotates": "none"},  # its graph is that of nomic-bert, which rotates
    "cogvlm": {"fixed": "ignores"},  # ggml_rope without the keys
    "deepseek2-ocr": {"fixed": "aborts", "rotates": "neox"},  # models/deepseek2.cpp:472-486
    "dots3note": {"sliding": {"theta": 10000.0, "key": True, "scaled": True}},
    "exaone4": {"default_window": 4096, "windowed_blocks": 64},  # models/exaone4.cpp:4-6
    "gemma2": {"default_window": 4096},
    "granitemoe": {"switch": None},  # has Granite's graph, and does not read the switch
    "laguna": {"sliding": {"theta": "full", "key": True, "scaled": False, "factor": False}},
    "lfm2moe": {"windowed": None},  # has the graph of LFM2, and does not read the window
    "llama4": {"default_window": 8192, "late_norm": True},  # ggml_rms_norm after the rotation
    "starcoder": {"rotates": "none"},
    "talkie": {"late_norm": True},  # its norm of the keys has no weights
}

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


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of llama.cpp")
    head = {"engine": "llama.cpp", "version": options.version or "unknown", "date": today()}
    write_table(head, graph_facts(Path(options.package) / "src"))


def write_table(head: Mapping[str, Any], facts: Mapping[str, Facts]) -> None:
    """Write what is said of the whole, and a line for each architecture."""
    rows = ",\n".join(f"  {json.dumps(n)}: {json.dumps(each)}" for n, each in facts.items())
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    text = ",\n".join([*lines, f' "architectures": {{\n{rows}\n }}'])
    TABLE.write_text(f"{{\n{text}\n}}\n", encoding="utf-8")


def graph_facts(source: Path) -> dict[str, Facts]:
    """GGUF architecture → what is special about its graph.

    Args:
        source: the folder `src` of llama.cpp.
    """
    rotations = _rotations(_text(source / "llama-model.cpp"))
    hybrid = _text(source / "llama-arch.cpp").split("bool llm_arch_is_hybrid(", 1)[1]
    for arch in re.findall(r"LLM_ARCH_\w+", hybrid.split("\n}", 1)[0]):
        rotations[arch]["hybrid"] = True
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
        facts = {**_facts(text), **rotations[arch], **_SEEN.get(names[arch], {})}
        found[names[arch]] = {key: fact for key, fact in facts.items() if fact is not None}
    return dict(sorted(found.items()))


def _rotations(text: str) -> dict[str, Facts]:
    """Constant of an architecture → how it rotates, and whether the head must rotate whole."""
    body = text.split("llama_rope_type llama_model_rope_type(", 1)[1].split("\n}", 1)[0]
    found: dict[str, Facts] = {}
    waiting: list[str] = []
    for match in re.finditer(r"case (LLM_ARCH_\w+):|return ([^;]+);", body):
        if match[1]:
            waiting.append(match[1])
            continue
        kinds = re.findall(r"LLAMA_ROPE_TYPE_(\w+)", match[2])
        # M-RoPE where the file has sections comes first; it rotates halves like neox.
        kind = {"NONE": "none", "NORM": "norm"}.get(kinds[-1], "neox")
        found |= {arch: {"rotates": kind} for arch in waiting}
        waiting = []
    refused = re.search(r"if \(([^{]*)\) \{\s+if \(hparams.n_rot_full != ", text)
    assert refused
    for arch in re.findall(r"LLM_ARCH_\w+", refused[1]):
        found[arch]["whole_head"] = "refuses"
    return found


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _facts(text: str) -> Facts:
    found: Facts = {}
    if re.search(r"get_key_or_arr\(LLM_KV_ROPE_DIMENSION_SECTIONS", text):
        found["sections"] = True
    if re.search(r"swa_type\s+= LLAMA_SWA_TYPE_(?!NONE)", text):
        found["windowed"] = True
    if re.search(r"^\s*GGML_ASSERT\(n_embd_head == n_rot\)", text, re.M):
        found["whole_head"] = "aborts"
    pattern = re.search(r"load_swa_pattern\(ml, (\d+)(, [^)]*true)?\)", text)
    if pattern:
        found |= {"pattern": int(pattern[1])} | ({"dense_first": True} if pattern[2] else {})
    if _rotates_windowed_only(text):
        found["full_nope"] = True
    if re.search(r"n_no_rope_layer_step|force_rope|ATTENTION_ROPE_PATTERN", text):
        found["nope"] = True
    switch = re.search(r"get_key\(LLM_KV_ROPE_SCALING_FINETUNED", text)
    if switch and "hparams.rope_finetuned = true;" not in text:  # MiniCPM has Granite's graph only
        found["switch"] = True
    if "rope_scaling_alpha" in text:
        found["alpha"] = True
    if "LLM_KV_ATTENTION_KV_LORA_RANK" in text:
        found["mla"] = True
    norm = re.search(r"build_norm\([^;]*attn_k_norm", text)
    rotation = re.search(r"\bK(?:cur)? = ggml_rope_(?:ext|multi)", text)
    if norm and rotation and rotation.start() < norm.start():
        found["late_norm"] = True
    if re.search(r"build_qkv\(|\bwk_s\b", text):
        found["k_scale"] = True
    if re.search(r"get_key\(LLM_KV_ROPE_FREQ_BASE_SWA", text):
        found["base_swa"] = True
    uses = "get_rope_factors(" in text or re.search(r"layers\[\w+\]\.rope_freqs", text)
    if "tn(LLM_TENSOR_ROPE_FREQS" in text:
        found["rope_freqs"] = "used" if uses else "loaded"
    if "tn(LLM_TENSOR_ROPE_FACTORS_LONG" in text:
        found["factors"] = True
    if re.search(r"get_key\(LLM_KV_ROPE_SCALING_YARN_BETA_FAST", text):
        found["betas"] = True
    if re.search(r"get_key\(LLM_KV_ROPE_SCALING_YARN_EXT_FACTOR", text):
        found["ramp"] = True
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


def _rotates_windowed_only(text: str) -> bool:
    """Whether the only rotation of a graph stands behind a question for a windowed layer."""
    asked = r"if \((use_rope|is_local_layer|is_swa|hparams\.is_swa\(il\))\) \{[^{}]*?"
    behind = re.search(asked + r"Qcur = ggml_rope_ext", text)
    if not behind or len(re.findall(r"Qcur\s+= ggml_rope_ext", text)) > 1:
        return False
    name = behind[1]
    return "is_swa" in name or bool(re.search(rf"{name}\s+= hparams\.is_swa\(il\)", text))


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
    lists = "rope_factors_long.weight" in file.tensors and facts.get("rope_freqs") != "loaded"
    if factors is None and lists:
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
        applied = rule["key"] and rule.get("factor", True)
        return formulas.default_inv_freq(theta, dim), scale if applied else 1.0, 1.0
    changed = File(file.graph, {**file.keys, "rope.freq_base": theta}, file.tensors)
    return computed(changed, facts, dim)


if __name__ == "__main__":
    main()
