"""Wiring of llama.cpp: its converter is run, what the runtime does with the keys is read.

    pip download --no-deps --no-binary :all: llama-cpp-python   # needs scikit-build-core
    tar xf llama_cpp_python-*.tar.gz -C /tmp/lcp
    python -m scripts.wiring.llama_cpp --package /tmp/lcp/llama_cpp_python-*/vendor/llama.cpp \
        --version 'v0.5.0 (llama-cpp-python 0.3.36)'

Needs torch and transformers (5.x). The converter class of an architecture reads the config and
writes its keys and generated tensors into a GGUF writer; no weights, no vocabulary. `src/models`
says which graphs load `rope_freqs.weight`; a file with a tensor that its graph does not load is
refused. The frequencies are those of `llama-context.cpp` and `ggml-cpu/ops.cpp` for these keys.
"""

from __future__ import annotations

import importlib
import logging
import math
import re
import sys
import warnings
from pathlib import Path
from typing import Any

from scripts.wiring.probes import EXTENDED, ORIGINAL, describe, failure, fresh, probes
from scripts.wiring.sizes import config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, update, write
from scripts.wiring.torch_engines import in_folder, tried
from yarncli.rope import formulas

Keys = dict[str, Any]

# Graphs that read the betas, and those that read yarn_log_multiplier (src/models/*.cpp, get_key).
_READS_BETAS = frozenset({"mistral3", "grok"})
_READS_LOG = frozenset({"mistral3", "deepseek2", "deepseek32", "glm-dsa"})

# Converters that ask for keys which transformers 5 does not give, as it moved them; gemma4's
# asserts that its full layers are "proportional".
_REFUSES = frozenset({"cohere2", "gpt_neox", "gemma4_text"})


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of llama.cpp", only="model types")
    folder = Path(options.package)
    prepare(folder)
    loads, uses = runtime_lists(folder / "src" / "models")
    conversion = importlib.import_module("conversion")
    chosen = options.only.split(",") if options.only else sorted(model_types())
    found = {}
    for kind in chosen:
        found[kind] = entry(kind, conversion, loads, uses)
        print(
            kind, found[kind].get("rope"), found[kind].get("note", ""), file=sys.stderr, flush=True
        )
        for name, line in (found[kind].get("outcomes", {}) if options.only else {}).items():
            print(f"{kind:16} {name:40} {line}")
    if options.only:
        update("llama.cpp", found)
    else:
        write("llama.cpp", options.version or "unknown", "run", found,
              architectures=sorted(conversion.TEXT_MODEL_MAP),
              runtime={"loads rope_freqs": sorted(loads), "uses it": sorted(uses)})  # fmt: skip


def prepare(folder: Path) -> None:
    """Make the converter importable, and let it go without tensors."""
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    sys.path[:0] = [str(folder), str(folder / "gguf-py")]
    base = importlib.import_module("conversion.base")
    base.ModelBase.no_mtp = True
    base.ModelBase.index_tensors = lambda *_, **__: {}


def runtime_lists(folder: Path) -> tuple[set[str], set[str]]:
    """Graphs, by file, that load `rope_freqs.weight`; those that give it to the rotation."""
    loads, uses = set(), set()
    for path in folder.glob("*.cpp"):
        text = path.read_text(encoding="utf-8")
        if "tn(LLM_TENSOR_ROPE_FREQS" in text:
            loads.add(path.stem)
            if "get_rope_factors(" in text or re.search(r"layers\[\w+\]\.rope_freqs", text):
                uses.add(path.stem)
    # granite-moe has a graph of granite's.
    return loads, uses | ({"granite-moe"} & loads)


def entry(kind: str, conversion: Any, loads: set[str], uses: set[str]) -> dict[str, Any]:
    """The table's entry of one model type."""
    base, architecture = config_for(kind)
    base = {**base, "vocab_size": 64}
    if architecture not in conversion.TEXT_MODEL_MAP:
        return {"rope": "unsupported", "note": architecture}
    found = {
        "class": architecture,
        "at": f"conversion/{conversion.TEXT_MODEL_MAP[architecture]}.py",
    }
    pairs, problem, graph = 0, "", ""
    for name, _, config in probes(base, shape_of(kind)):
        if name not in ("default both", "default legacy", "yarn both"):
            continue
        try:
            graph, keys, _ = converted(kind, architecture, conversion, config)
            pairs = (
                int(keys.get("rope.dimension_count") or keys.get("attention.key_length") or 64) // 2
            )
            break
        except Exception as error:
            problem = problem or failure(error)
    if not pairs:
        word = "refuses" if kind in _REFUSES else "unknown"
        return {"rope": word, **found, "note": problem}
    outcomes = {}
    for name, asked, config in probes(base, shape_of(kind, pairs)):
        outcomes[name] = tried(
            lambda c=config, a=asked, n=name: outcome(
                converted(kind, architecture, conversion, c), (a, n, 2 * pairs), loads, uses
            )
        )
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, "graph": graph, **found}


def converted(
    kind: str, architecture: str, conversion: Any, config: dict[str, Any]
) -> tuple[str, Keys, dict[str, list[float]]]:
    """Architecture, keys without its prefix, and generated tensors that the converter writes."""
    import gguf

    raw = {**fresh(config), "model_type": kind, "architectures": [architecture]}
    model_class = conversion.get_model_class(architecture)

    def run(folder: str) -> tuple[str, Keys, dict[str, list[float]]]:
        model = model_class(Path(folder), gguf.LlamaFileType.ALL_F32, Path(folder, "x.gguf"))
        model.set_gguf_parameters()
        tensors = {n: t.float().tolist() for n, t in model.generate_extra_tensors()}
        graph = gguf.MODEL_ARCH_NAMES[model.model_arch]
        data = model.gguf_writer.kv_data[0]
        keys = {k.removeprefix(f"{graph}."): v.value for k, v in data.items()}
        return graph, keys, tensors

    return in_folder(raw, run)


def outcome(
    file: tuple[str, Keys, dict[str, list[float]]],
    probe: tuple[str, str, int],
    loads: set[str],
    uses: set[str],
) -> Any:
    """One line for what the runtime computes from a file."""
    graph, keys, tensors = file
    asked, name, dim = probe
    freqs_of = tensors.get("rope_freqs.weight")
    stem = graph if graph in loads else graph.replace("moe", "-moe").replace("hybrid", "-hybrid")
    if freqs_of is not None and stem not in loads:
        return "RuntimeError: the graph does not load rope_freqs.weight, the file is refused"
    if freqs_of is not None and stem not in uses:
        freqs_of = None
    freqs, scale = computed(graph, keys, freqs_of, tensors, dim)
    line = describe(asked, name, (freqs, scale), None, 1.0, dim)
    window = keys.get("context_length")
    return line if window in (ORIGINAL, EXTENDED, None) else f"{line} context={window}"


def computed(
    graph: str, keys: Keys, factors: list[float] | None, tensors: dict[str, list[float]], dim: int
) -> tuple[list[float], float]:
    """Frequencies and attention scale. Reference: llama-context.cpp, ggml-cpu/ops.cpp."""
    theta = float(keys.get("rope.freq_base", 10000.0))
    kind = keys.get("rope.scaling.type", "linear")
    factor = float(keys.get("rope.scaling.factor", 0.0)) or 1.0
    original = int(keys.get("rope.scaling.original_context_length", keys["context_length"]))
    scale = float(keys.get("rope.scaling.attn_factor", 1.0))
    freqs = formulas.default_inv_freq(theta, dim)
    if factors is None and "rope_factors_long.weight" in tensors:
        longer = keys["context_length"] > original
        factors = tensors[f"rope_factors_{'long' if longer else 'short'}.weight"]
    if factors is not None:
        freqs = [f / r for f, r in zip(freqs, factors, strict=False)]
    if kind == "linear":
        freqs = [f / factor for f in freqs]
    if kind == "yarn":
        fast, slow = 32.0, 1.0
        if graph in _READS_BETAS:
            fast = keys.get("rope.scaling.yarn_beta_fast", fast)
            slow = keys.get("rope.scaling.yarn_beta_slow", slow)
        freqs = formulas.yarn_inv_freq(theta, dim, factor, original, beta_fast=fast, beta_slow=slow)
        log = keys.get("rope.scaling.yarn_log_multiplier", 0.0) if graph in _READS_LOG else 0.0
        scale *= formulas.get_mscale(factor)
        if log:
            scale /= 1.0 + log * math.log(factor)
    return freqs, scale


if __name__ == "__main__":
    main()
