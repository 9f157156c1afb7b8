"""Wiring of exllamav3: builds its config classes and its `RoPE` on a CPU.

    pip download --no-deps exllamav3==1.6.5 && unzip exllamav3-*.whl -d /tmp/exllamav3
    python -m scripts.wiring.exllamav3 --package /tmp/exllamav3

Needs torch. The config class of the architecture reads `config.json`; its rope settings go into the
class that computes sines and cosines. Kernels, loader and modules are stubs.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scripts.wiring import stubs
from scripts.wiring.probes import SIZES, describe, failure, fresh, probes
from scripts.wiring.sizes import OWN, config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, update, write
from scripts.wiring.torch_engines import tried
from scripts.wiring.wrappers import Way, ways

# Where a config class keeps its rope settings → the scope of the layers that get them.
_SETTINGS = {
    "rope_settings": "full_attention",
    "rope_settings_global": "full_attention",
    "rope_settings_local": "sliding_attention",
    "rope_settings_swa": "sliding_attention",
    "rope_settings_sliding": "sliding_attention",
}

# What single config classes ask for.
_KEYS: dict[str, dict[str, Any]] = {
    "glm_moe_dsa": {"indexer_types": ["full"] * 4},
    "gemma4_text": {"hidden_size_per_layer_input": 0},
    "gemma4_unified_text": {"hidden_size_per_layer_input": 0, "global_head_dim": 64},
    "kimi_k2": OWN["deepseek_v3"],
    "laguna": {"gating": "per-head", "layer_types": SIZES["layer_types"]},
    "qwen4_exp_text": {"indexer_n_heads": 2, "indexer_head_dim": 64, "indexer_topk": 8},
    "step3p5": {"num_attention_groups": 2, "partial_rotary_factors": [1.0] * 4,
                "layer_types": SIZES["layer_types"],
                "attention_other_setting": {"num_attention_heads": 4, "num_attention_groups": 2}},
    "mistral4": {"rope_interleave": True},
}  # fmt: skip


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel", only="model types")
    version = prepare(Path(options.package))
    version = options.version or version
    classes = architectures()
    chosen = options.only.split(",") if options.only else sorted(model_types())
    found = {kind: entry(kind, classes) for kind in chosen}
    for kind, item in found.items():
        print(kind, item.get("rope"), item.get("note", ""), file=sys.stderr)
        for name, line in (item.get("outcomes", {}) if options.only else {}).items():
            print(f"{kind:16} {name:40} {line}")
    if options.only:
        update("exllamav3", found)
    else:
        write("exllamav3", version, "run", found, architectures=sorted(classes))


def prepare(folder: Path) -> str:
    """Make exllamav3 importable with stubs; its version."""
    root = folder / "exllamav3"
    kept = ("exllamav3.architecture", "exllamav3.util.rope", "exllamav3.util.file",
            "exllamav3.model.config")  # fmt: skip
    stubs.install(("exllamav3", "flash_attn"), kept)
    stubs.package("exllamav3", str(root))
    for name in ("util", "model", "architecture"):
        stubs.package(f"exllamav3.{name}", str(root / name))
    info = next(folder.glob("exllamav3-*.dist-info"))
    return info.name.removeprefix("exllamav3-").removesuffix(".dist-info")


def architectures() -> dict[str, Any]:
    """Architecture → its config class."""
    found = {}
    folder = Path(sys.modules["exllamav3.architecture"].__path__[0])
    for path in sorted(folder.glob("*.py")):
        if path.stem in ("__init__", "architectures"):
            continue
        module = importlib.import_module(f"exllamav3.architecture.{path.stem}")
        for item in vars(module).values():
            if isinstance(item, type) and isinstance(vars(item).get("arch_string"), str):
                found[item.arch_string] = item
    return found


def entry(kind: str, classes: dict[str, Any]) -> dict[str, Any]:
    """The table's entry of one model type."""
    base, architecture = config_for(kind)
    base = {**base, **_KEYS.get(kind, {})}
    known = ways(kind, architecture, classes, flat=("qwen2_5_vl",))
    if not known:
        return {"rope": "unsupported", "note": architecture}
    way = known[0]
    config_class = classes[way.architecture]
    file = config_class.__module__.rpartition(".")[2] + ".py"
    found = {"class": way.architecture, "at": file}
    if way.wrapper:
        found["wrapper"] = way.wrapper
    if way.flat:
        found["flat"] = True
    if kind in _KEYS:
        found["keys"] = _KEYS[kind]
    try:
        pairs = _pairs(kind, base, way, config_class)
        if kind != "deepseek_v4":
            found["settings"] = _settings_of(kind, base, way, config_class)
    except Exception as error:
        return {"rope": "unknown", **found, "note": failure(error)}
    outcomes = _outcomes(kind, base, pairs, way, config_class)
    same = {
        other.architecture
        for other in known[1:]
        if _outcomes(kind, base, pairs, other, classes[other.architecture]) == outcomes
    }
    if same:
        found["also"] = sorted(same)
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def _outcomes(
    kind: str, base: dict[str, Any], pairs: int, way: Way, config_class: Any
) -> dict[str, Any]:
    return {
        name: tried(
            lambda c=config, probe=(asked, name, 2 * pairs): _lines(
                _run(kind, way, config_class, c), probe
            )
        )
        for name, asked, config in probes(base, shape_of(kind, pairs))
    }


def _pairs(kind: str, base: dict[str, Any], way: Way, config_class: Any) -> int:
    errors: list[Exception] = []
    for name, _, config in probes(base, shape_of(kind)):
        if name not in ("default both", "default legacy", "default v5", "yarn both"):
            continue
        try:
            made = _run(kind, way, config_class, config)
            return max(len(rope.inv_freq) for rope, _ in made.values())
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _settings_of(
    kind: str, base: dict[str, Any], way: Way, config_class: Any
) -> dict[str, dict[str, Any]]:
    """Scope → where the class takes its settings from, and what it assumes without any.

    theta, block     "top", "scope" (its entry of a nested `rope_parameters` alone) or "none"
    nested           whether `rope_parameters` is one per layer type
    default_theta, default_part, default_width    where the config has none; of the width of a head,
                     if it is not hidden_size / num_attention_heads
    type             its RoPE type whatever the config says
    pair             whether the mscale pair counts
    """
    shape = shape_of(kind)
    names = [*shape.scaled, *shape.plain] or ["full_attention", "sliding_attention"]
    bare = {k: v for k, v in base.items() if "partial_rotary" not in k and k != "rotary_dim"}
    bare["max_position_embeddings"] = 64
    entry = {"rope_type": "linear", "factor": 3.0, "rope_theta": 222.0}
    top = {"rope_theta": 111.0, "rope_scaling": {"rope_type": "linear", "factor": 2.0}}

    def loaded(**changes: Any) -> dict[str, Any]:
        return _loaded_settings(_load(kind, way, config_class, {**bare, **changes}))

    marked = loaded(**top, rope_parameters=dict.fromkeys(names, entry))
    nested = loaded(rope_parameters=dict.fromkeys(names, entry))
    empty = loaded(rope_parameters={key: {"rope_type": "default"} for key in names})
    del bare["head_dim"]
    try:
        narrow = loaded(rope_parameters={key: {"rope_type": "default"} for key in names})
    except ValueError:
        narrow = {}
    found: dict[str, dict[str, Any]] = {}
    for scope, settings in marked.items():
        block = (settings.rope_scaling or {}).get("factor")
        found[scope] = {
            "theta": {111.0: "top", 222.0: "scope"}.get(settings.rope_theta, "none"),
            "block": {2.0: "top", 3.0: "scope"}.get(block, "none"),
            "default_theta": empty[scope].rope_theta,
        }
        if nested[scope].rope_theta == 222.0:
            found[scope]["nested"] = True
        if empty[scope].partial_rotary_factor != 1.0:
            found[scope]["default_part"] = empty[scope].partial_rotary_factor
        width = narrow[scope].head_dim if narrow else "required"
        if width != 64:
            found[scope]["default_width"] = width
        if empty[scope].override_type == settings.override_type is not None:
            found[scope]["type"] = settings.override_type
        if settings.yarn_mscale_ratio:
            found[scope]["pair"] = True
    return found


def _lines(made: dict[str, tuple[Any, float]], probe: tuple[str, str, int]) -> Any:
    asked, name, dim = probe
    lines = {}
    for scope, (rope, softmax) in made.items():
        long = rope.inv_freq.tolist(), float(rope.attn_factor)
        lines[scope] = describe(asked, name, long, None, softmax, dim)
    distinct = set(lines.values())
    return distinct.pop() if len(distinct) == 1 else lines


def _load(kind: str, way: Way, config_class: Any, config: dict[str, Any]) -> Any:
    raw = way.config(kind, fresh(config))
    loaded = object.__new__(config_class)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(raw), encoding="utf-8")
        try:
            loaded.__init__(folder)
        except Exception:
            # The text part comes first; the vision part asks for files that are not here.
            if way.wrapper is None or not _loaded_settings(loaded):
                raise
    return loaded


def _loaded_settings(loaded: Any) -> dict[str, Any]:
    """Scope → its `RopeSettings`."""
    rope = importlib.import_module("exllamav3.util.rope")
    found = {}
    for name, scope in _SETTINGS.items():
        settings = getattr(loaded, name, None)
        if isinstance(settings, rope.RopeSettings):
            found[scope] = settings
    for number, settings in enumerate(getattr(loaded, "rope_settings_list", ())):
        found.setdefault(loaded.layer_types[number], settings)
    return found


def _run(
    kind: str, way: Way, config_class: Any, config: dict[str, Any]
) -> dict[str, tuple[Any, float]]:
    """Scope → the rope that exllamav3 makes for it, and the softmax scale times √d."""
    rope = importlib.import_module("exllamav3.util.rope")
    loaded = _load(kind, way, config_class, config)
    softmax = 1.0
    scale, width = getattr(loaded, "sm_scale", None), getattr(loaded, "qk_head_dim", None)
    if isinstance(scale, float) and isinstance(width, int):
        softmax = scale * math.sqrt(width)
    found = {s: (rope.RoPE("cpu", v), softmax) for s, v in _loaded_settings(loaded).items()}
    if kind == "deepseek_v4":
        found = {scope: (made, 1.0) for scope, made in _deepseek_v4(rope, loaded).items()}
    if not found:
        raise LookupError("no rope settings in the config class")
    return found


def _deepseek_v4(rope: Any, loaded: Any) -> dict[str, Any]:
    """Its two ropes, as modules/dsv4.py:621-623 asks for them; no scale."""
    width = loaded.qk_rope_head_dim
    tables = {
        "main": rope.yarn_inv_freq(width, loaded.rope_theta, "cpu"),
        "compress": rope.yarn_inv_freq(
            width, loaded.compress_rope_theta, "cpu", rope_scaling=loaded.rope_scaling
        ),
    }
    return {scope: SimpleNamespace(inv_freq=t, attn_factor=1.0) for scope, t in tables.items()}


if __name__ == "__main__":
    main()
