"""Wiring of llama.cpp: its converter is run, what the runtime does with the keys is read.

    pip download --no-deps --no-binary :all: llama-cpp-python   # needs scikit-build-core
    tar xf llama_cpp_python-*.tar.gz -C /tmp/lcp
    python -m scripts.wiring.llama_cpp --package /tmp/lcp/llama_cpp_python-*/vendor/llama.cpp \
        --version 'v0.5.0 (llama-cpp-python 0.3.36)'

Needs torch and transformers (5.x). The converter class of an architecture reads the config and
writes its keys and generated tensors into a GGUF writer; no weights, no vocabulary. What the
runtime makes of them: `llama_cpp_runtime.py`. A row says what is written:

    graph     the GGUF architecture
    part      the share of a head that rotates where the config does not say
    window    the window of the file, if it is not max_position_embeddings
    raw       transformers does not know the type, so the converter reads config.json itself
    unsure    a shape of the RoPE setting whose outcome the rule does not tell
    inner_theta  the part of the config that holds θ
    through   other architectures that load it, with a graph and `writes` of their own
    writes    RoPE type → key → what stands there: a string, a number, or the name of the config's
              value ("theta", "factor", "original", "0.1 mscale_all_dim", …); `tensors`: the names
              of those generated; `requires`: keys of the config without which it is a KeyError;
              instead of all this, `error`
"""

from __future__ import annotations

import importlib
import logging
import math
import re
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import CONFIG_MAPPING

from scripts.wiring import own_code
from scripts.wiring.llama_cpp_runtime import (
    Facts,
    File,
    computed,
    computed_windowed,
    graph_facts,
    refuse_tensors,
)
from scripts.wiring.probes import (
    EXTENDED,
    FACTOR,
    ORIGINAL,
    SIZES,
    THETA,
    TYPES,
    Shape,
    describe,
    failure,
    fresh,
    probes,
    setting,
)
from scripts.wiring.sizes import OWN, config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, update, write
from scripts.wiring.torch_engines import in_folder, tried
from scripts.wiring.wrappers import Way, ways
from yarncli.config.families.table import FAMILIES

# What single converters ask for.
_KEYS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [0, 1, 2, 3]},
    "deepseek_v4": {
        "compress_ratios": [0, 4, 4, 4], "compress_rope_theta": 160000.0, "o_groups": 1,
        "o_lora_rank": 32, "hc_mult": 1, "hc_sinkhorn_iters": 1, "hc_eps": 1e-6, "index_n_heads": 2,
        "index_head_dim": 64, "index_topk": 8, "num_hash_layers": 0, "swiglu_limit": 1.0,
        "qk_rope_head_dim": 64, "q_lora_rank": 32, "n_shared_experts": 1, "sliding_window": 512,
        "moe_intermediate_size": 32, "routed_scaling_factor": 1.0, "norm_topk_prob": True,
        "scoring_func": "sqrtsoftplus",
    },
    "eurobert": {"classifier_pooling": "mean"},
    "dots1": {"scoring_func": "sigmoid"},
    "dots3_note_text": {"swa_qk_nope_head_dim": 64},
    "gemma4_unified_text": {"global_head_dim": 64, "num_kv_shared_layers": 0},
    "hunyuan_v1_moe": {"moe_topk": [1] * 4, "moe_intermediate_size": [32] * 4,
                       "num_shared_expert": [1] * 4, "num_experts_per_tok": [1] * 4},
    "kimi_k2": OWN["deepseek_v3"],
    "step3p5": {"num_attention_groups": 2, "layer_types": SIZES["layer_types"],
                "attention_other_setting": {"num_attention_heads": 4, "num_attention_groups": 2},
                "moe_num_experts": 2, "moe_top_k": 1, "moe_layers_enum": "1,2",
                "share_expert_dim": 32, "yarn_only_types": ["full_attention"]},
}  # fmt: skip
# Where the window is not max_position_embeddings: a number, or keys, the first that is there
# (conversion/falcon.py:27, chatglm.py:140, dbrx.py:21, base.py:1137).
_WINDOW: dict[str, dict[str, Any]] = {
    "chatglm": {"window": ["seq_length", "hidden_size"]},
    "qwen": {"window": ["max_position_embeddings"]},
    "dbrx": {"window": ["max_seq_len", "max_position_embeddings"]},
    "falcon": {"window": 2048},
    "glm": {"window": ["seq_length", "hidden_size"]},
}
# What the rule cannot tell from a row: shapes of the RoPE setting that were not followed up (where
# it is "flat", the converter fails on all others), and where θ is instead (conversion/dbrx.py:28).
_SPECIAL: dict[str, dict[str, Any]] = {
    "dbrx": {"inner_theta": "attn_config"},
    "deepseek_v4": {"unsure": "proportional"},
    "mimo_v2_flash": {"unsure": "flat"},
    "modernbert": {"unsure": "turned"},
}
# Their blocks of other shapes than their own were not followed up: the rows say "unknown".
_NOT_FOLLOWED = ("laguna", "mellum")
# Drafts of speculative decoding → their classes, with graphs of their own (conversion/llama.py:50,
# qwen.py:666). They are converted beside their target.
_DRAFTS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {"LlamaForCausalLMEagle3": {"num_hidden_layers": 1, "draft_vocab_size": 32}},
    "qwen3": {"DFlashDraftModel": {"dflash_config": {"mask_token_id": 1, "target_layer_ids": [1]}},
              "DSparkDraftModel": {"dflash_config": {"mask_token_id": 1, "target_layer_ids": [1]}}},
}  # fmt: skip
# Keys that these converters ask for and the config classes of transformers 5 moved.
_MOVED = ("KeyError: 'rotary_pct'", "KeyError: 'num_attention_groups'")
_FLAT = ("qwen2_vl", "qwen2_5_vl")


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of llama.cpp", only="model types")
    folder = Path(options.package)
    prepare(folder)
    graphs = graph_facts(folder / "src")
    conversion = importlib.import_module("conversion")
    chosen = options.only.split(",") if options.only else sorted(model_types(own_code.NAMED))
    found = {}
    for kind in chosen:
        found[kind] = entry(kind, conversion, graphs)
        print(
            kind, found[kind].get("rope"), found[kind].get("note", ""), file=sys.stderr, flush=True
        )
        for name, line in (found[kind].get("outcomes", {}) if options.only else {}).items():
            print(f"{kind:16} {name:40} {line}")
    if options.only:
        update("llama.cpp", found)
    else:
        write(
            "llama.cpp",
            options.version or "unknown",
            "run",
            found,
            architectures=sorted(conversion.TEXT_MODEL_MAP),
        )


def prepare(folder: Path) -> None:
    """Make the converter importable, and let it go without tensors."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]
    base = importlib.import_module("conversion.base")
    base.ModelBase.no_mtp = True
    base.ModelBase.index_tensors = lambda *_, **__: {}


def entry(kind: str, conversion: Any, graphs: dict[str, Facts]) -> dict[str, Any]:
    """The table's entry of one model type."""
    base, architecture = config_for(kind)
    base = {**base, **_KEYS.get(kind, {}), "vocab_size": 64}
    known = ways(kind, architecture, conversion.TEXT_MODEL_MAP)
    if not known:
        return {"rope": "unsupported", "note": architecture}
    if kind in _NOT_FOLLOWED:
        note = "flat blocks in a nested family were not followed up"
        return {**_about(kind, known[0], conversion), "rope": "unknown", "note": note}
    problem = ""
    for way in known:
        flat = Way(way.architecture, way.wrapper, flat=True)
        for tried_way in (way, flat) if way.wrapper in _FLAT else (way,):
            for config in _plainest(base, shape_of(kind)):
                try:
                    file = converted(kind, tried_way, conversion, config)
                except Exception as error:
                    problem = problem or failure(error)
                    continue
                return _measured(kind, tried_way, conversion, graphs, base, file, known)
    way = known[0]
    found = _about(kind, way, conversion)
    if problem in _MOVED:
        return {"rope": "refuses", **found, "note": problem}
    return {"rope": "unknown", **found, "note": problem}


def _plainest(base: dict[str, Any], shape: Shape) -> Iterator[dict[str, Any]]:
    """Configs of which one should convert: it tells the width and the architecture."""
    wanted = ("default both", "default legacy", "default v5", "yarn both")
    yield from (config for name, _, config in probes(base, shape) if name in wanted)
    yield from _spellings("proportional", base, shape, {})


def _about(kind: str, way: Way, conversion: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"class": way.architecture}
    if way.wrapper:
        found["wrapper"] = way.wrapper
    if way.flat:
        found["flat"] = True
    if kind in _KEYS:
        found["keys"] = _KEYS[kind]
    found["at"] = f"conversion/{conversion.TEXT_MODEL_MAP[way.architecture]}.py"
    return found


def _measured(
    kind: str,
    way: Way,
    conversion: Any,
    graphs: dict[str, Facts],
    base: dict[str, Any],
    file: File,
    known: list[Way],
) -> dict[str, Any]:
    facts = graphs.get(file.graph, {})
    width = file.keys.get("rope.dimension_count") or file.keys.get("attention.key_length") or 64
    shape = shape_of(kind, int(width) // 2)
    found = {"dim": 2 * shape.pairs, "graph": file.graph, **_about(kind, way, conversion)}
    if (way.wrapper or kind) not in CONFIG_MAPPING:
        found["raw"] = True
    found |= {**_WINDOW.get(kind, {}), **_SPECIAL.get(kind, {})}
    if shape.part is None:
        found["part"] = found["dim"] / base.get("head_dim", 64)
    outcomes = {}
    for name, asked, config in probes(base, shape):
        outcomes[name] = tried(
            lambda c=config, probe=(asked, name, found["dim"]): outcome(
                converted(kind, way, conversion, c), facts, probe, shape
            )
        )
    found["writes"] = _all_writes(kind, way, conversion, base, shape)
    others = _others(kind, way, conversion, known)
    through: dict[str, Any] = {}
    for other in others:
        graph = _graph(kind, other, conversion, base, shape)
        if graph is None:
            continue
        writes = _all_writes(kind, other, conversion, base, shape)
        if (graph, writes) == (file.graph, found["writes"]):
            found.setdefault("also", []).append(other.architecture)
        else:
            through[other.architecture] = {"graph": graph, "writes": writes}
    if through:
        found["through"] = through
    return {"outcomes": outcomes, **summary(outcomes), **found}


def _graph(kind: str, way: Way, conversion: Any, base: dict[str, Any], shape: Shape) -> str | None:
    """The GGUF architecture that a class writes; `None` where it converts nothing."""
    pair = {**shape.more, "mscale": 1.0, "mscale_all_dim": 0.5}
    yarn = list(_spellings("yarn", base, shape, pair))
    for config in (*yarn, *_spellings("proportional", base, shape, {})):
        try:
            return str(converted(kind, way, conversion, config).graph)
        except Exception:
            continue
    return None


def _others(kind: str, way: Way, conversion: Any, known: list[Way]) -> list[Way]:
    """The other classes for this type: those of wrappers, and other names of the same class."""
    same = conversion.get_model_class(way.architecture)
    named = [Way(n, way.wrapper, flat=way.flat) for n in conversion.TEXT_MODEL_MAP
             if _is_same(conversion, n, same) and "Eagle3" not in n]  # fmt: skip
    named += [Way(name) for name in _DRAFTS.get(kind, {})]
    found = {w.architecture: w for w in (*known, *named) if w.architecture != way.architecture}
    return [found[name] for name in sorted(found)]


def _is_same(conversion: Any, name: str, wanted: Any) -> bool:
    try:
        return conversion.get_model_class(name) is wanted
    except (ImportError, KeyError, NotImplementedError):
        return False


def _all_writes(
    kind: str, way: Way, conversion: Any, base: dict[str, Any], shape: Shape
) -> dict[str, Any]:
    kinds = ("default", *TYPES, "proportional")
    return {t: _writes(t, kind, way, conversion, base, shape) for t in kinds}


def _is_rope(key: str) -> bool:
    return ("rope." in key and "dimension" not in key) or "rope_freq" in key


def converted(kind: str, way: Way, conversion: Any, config: dict[str, Any]) -> File:
    """What the converter writes."""
    import gguf

    model_class = conversion.get_model_class(way.architecture)
    draft = _DRAFTS.get(kind, {}).get(way.architecture, {})

    def run(folder: str) -> File:
        target = {"target_model_dir": Path(folder)} if draft else {}
        file = Path(folder, "x.gguf")
        model = model_class(Path(folder), gguf.LlamaFileType.ALL_F32, file, **target)
        model = getattr(model, "impl", model)
        model.set_gguf_parameters()
        tensors = {}
        if kind != "deepseek_v4":  # its extra tensors are experts
            tensors = {n: t.float().tolist() for n, t in model.generate_extra_tensors()}
        graph = gguf.MODEL_ARCH_NAMES[model.model_arch]
        data = model.gguf_writer.kv_data[0]
        keys = {k.removeprefix(f"{graph}."): v.value for k, v in data.items()}
        return File(graph, keys, tensors)

    published = {**own_code.as_published(kind, fresh(config)), **draft}
    found: File = in_folder(way.config(kind, published), run)
    return found


def outcome(file: File, facts: Facts, probe: tuple[str, str, int], shape: Shape) -> Any:
    """One line for what the runtime computes from a file, or one for each scope."""
    refuse_tensors(file, facts)
    asked, name, dim = probe
    lines = {}
    for scope in (*(shape.scaled or ("model",)), *shape.plain):
        windowed = scope in shape.plain
        width = file.keys.get("rope.dimension_count_swa", dim) if windowed else dim
        freqs, scale, softmax = (computed_windowed if windowed else computed)(file, facts, width)
        lines[scope] = describe(asked, name, (freqs, scale), None, softmax, width)
    return next(iter(lines.values())) if len(set(lines.values())) == 1 else lines


_TEXT_KEYS = {"rope.scaling.yarn_beta_fast": "beta_fast",
              "rope.scaling.yarn_beta_slow": "beta_slow",
              "rope.scaling.yarn_ext_factor": "extrapolation_factor",
              "rope.scaling.yarn_attn_factor": "attention_factor"}  # fmt: skip


def _writes(
    rope_type: str, kind: str, way: Way, conversion: Any, base: dict[str, Any], shape: Shape
) -> dict[str, Any]:
    """What the converter writes for one RoPE type; see the docstring above."""
    more = dict(shape.more)
    if rope_type == "yarn":
        more |= {"beta_fast": 48.0, "beta_slow": 2.0, "attention_factor": 1.25,
                 "extrapolation_factor": 0.5}  # fmt: skip
    requires: list[str] = []
    for mscales in ({}, {"mscale": 1.0, "mscale_all_dim": 0.5}):
        extra = {**more, **mscales}
        problem = ""
        configs = list(_spellings(rope_type, base, shape, extra))
        if rope_type == "default" and kind in FAMILIES and FAMILIES[kind].rope_defaults:
            del configs[-1]  # no block at all is the scaling that the class brings itself
        for config in configs:
            try:
                file = converted(kind, way, conversion, config)
            except Exception as error:
                problem = problem or failure(error)
                continue
            if rope_type == "yarn" and not mscales and not requires:
                break  # once more with the pair
            return _described(file, extra, requires)
        else:
            match = re.fullmatch(r"KeyError: '(mscale_all_dim)'", problem)
            if not match:
                return {"error": problem}
            requires.append(match[1])
    return {"error": problem}


def _spellings(
    rope_type: str, base: dict[str, Any], shape: Shape, extra: dict[str, Any]
) -> Iterator[dict[str, Any]]:
    block = setting(rope_type, shape.pairs, extra) | {"rope_theta": THETA}
    if rope_type == "proportional":
        block = {"rope_type": rope_type, "rope_theta": THETA, "partial_rotary_factor": 0.25}
    elif shape.part is not None:
        block["partial_rotary_factor"] = shape.part
    plain = {"rope_type": "default", "rope_theta": 2 * THETA}
    base = {
        **base,
        "max_position_embeddings": EXTENDED,
        "original_max_position_embeddings": ORIGINAL,
    }
    if shape.part is not None:
        base["partial_rotary_factor"] = shape.part
    nested = dict.fromkeys(shape.scaled, block) | dict.fromkeys(shape.plain, plain)
    legacy = {k: v for k, v in block.items() if k != "rope_theta"}
    scaling = {} if rope_type == "default" else {"rope_scaling": legacy}
    yield {**base, "rope_theta": THETA, **scaling, "rope_parameters": nested or block}
    yield {**base, "rope_parameters": nested or block}
    yield {**base, "rope_theta": THETA, **scaling}


def _described(file: File, extra: dict[str, Any], requires: list[str]) -> dict[str, Any]:
    half = extra.get("mscale_all_dim")
    names = {THETA: "theta", 2 * THETA: "theta_swa", FACTOR: "factor", ORIGINAL: "original",
             160000.0: "compress_rope_theta"}  # fmt: skip
    if half:
        names |= {half: "mscale_all_dim", 0.1 * half: "0.1 mscale_all_dim"}
    names[math.sqrt(1 + math.log(4) / math.log(ORIGINAL))] = "longrope scale"
    found: dict[str, Any] = {}
    for key, value in file.keys.items():
        if _is_rope(key):
            named = _TEXT_KEYS.get(key)
            found[key] = named or next((n for v, n in names.items() if v == value), value)
    if file.tensors:
        found["tensors"] = sorted(file.tensors)
    if requires:
        found["requires"] = requires
    return found


if __name__ == "__main__":
    main()
