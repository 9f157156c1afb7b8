"""Wiring of SGLang: builds its model files on a CPU, every layer but the rotary one a stub.

    pip download --no-deps sglang==0.5.23 && unzip sglang-*.whl -d /tmp/sglang
    python -m scripts.wiring.sglang --package /tmp/sglang [--only llama,qwen3]

Needs torch, transformers and the small packages msgspec, orjson, pybase64, dill. The config goes
through SGLang's own `get_config`, then the class that its registry has for the architecture is
built; what its files pass to `get_rope` is computed by SGLang's own rotary classes.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
import pkgutil
import sys
from pathlib import Path
from typing import Any

from torch import nn

from scripts.wiring import stubs
from scripts.wiring.probes import ORIGINAL, failure, fresh, probes
from scripts.wiring.sizes import TEXT_PARTS, config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, update, write
from scripts.wiring.torch_engines import (
    TooLargeError,
    build,
    entries,
    evidence,
    in_folder,
    layer,
    outcome,
    recorded,
    tolerate_stubs,
    tried,
    width,
)

# The layers' own get_rope serves forward_cpu only; on a GPU they get transformers' rotary class.
READ = {
    "gemma3_text": {
        "rope": "backend",
        "backend": "transformers-5",
        "how": "read",
        "class": "Gemma3ForCausalLM",
        "at": "gemma3_causal.py:595,603",
        "note": "forward_cpu (218) rotates without scaling",
    }
}

ROTARY = "sglang.srt.layers.rotary_embedding"


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel", only="model types",
                        jobs="processes")  # fmt: skip
    version = prepare(Path(options.package))
    version = options.version or version
    classes = architectures()
    chosen = options.only.split(",") if options.only else sorted(model_types())
    make = functools.partial(entry, classes=classes)
    found = entries(make, chosen, int(options.jobs or 1))
    if options.only:
        for kind, item in found.items():
            for name, line in item.get("outcomes", {}).items():
                print(f"{kind:16} {name:40} {line}")
        update("sglang", found)
        return
    write("sglang", version, "run", found, architectures=sorted(classes))


def prepare(folder: Path) -> str:
    """Make SGLang importable with stubs; its version."""
    root = folder / "sglang"
    tolerate_stubs()
    logging.disable(logging.ERROR)
    outside = ("triton", "IPython", "aiohttp", "torchvision", "sentencepiece", "vllm", "sgl_kernel")
    kept = ("sglang.srt.models", "sglang.srt.configs", ROTARY, "sglang.srt.utils.hf_transformers",
            "sglang.srt.utils.hf_transformers_utils", "sglang.srt.utils.hf_transformers_patches",
            "sglang.srt.multimodal.customized_mm_processor_utils")  # fmt: skip
    fused = {"BaseFusedOp": type("BaseFusedOp", (nn.Module,), {})}
    stubs.install(("sglang", *outside), kept, {"sglang.kernels.fused_op": fused, **_distributed()})
    stubs.package("sglang", str(root))
    stubs.package("sglang.srt", str(root / "srt"))
    for name in ("layers", "models", "multimodal"):
        stubs.package(f"sglang.srt.{name}", str(root / "srt" / name))
    stubs.package("sglang.srt.utils", str(root / "srt" / "utils"), **_utils())
    factory = importlib.import_module(f"{ROTARY}.factory")
    package = importlib.import_module(ROTARY)
    for name in ("get_rope", "get_rope_wrapper", "get_rope_cpu"):
        if hasattr(factory, name):
            setattr(package, name, recorded(getattr(factory, name)))
            setattr(factory, name, getattr(package, name))
    importlib.import_module("sglang.srt.utils.hf_transformers_patches").apply_all()
    info = next(folder.glob("sglang-*.dist-info"))
    return info.name.removeprefix("sglang-").removesuffix(".dist-info")


def _distributed() -> dict[str, dict[str, Any]]:
    indices = {"get_pp_indices": lambda count, *_: (0, count)}
    alone = {"get_parallel": lambda: stubs.Alone()}
    return {
        "sglang.srt.distributed": {**indices, "get_pp_group": lambda: stubs.Alone()},
        "sglang.srt.distributed.utils": indices,
        "sglang.srt.runtime_context": alone,
    }


def _utils() -> dict[str, Any]:
    """The functions of `sglang.srt.utils` whose results decide how a model is built."""

    def make_layers(count: int, layer_fn: Any, *args: Any, **kwargs: Any) -> Any:
        prefix = kwargs.get("prefix", "")
        layers = nn.ModuleList()
        for i in range(count):
            layers.append(layer(lambda i=i: layer_fn(idx=i, prefix=f"{prefix}.{i}")))
        pair = kwargs.get("return_tuple") or "pp_rank" in kwargs
        return (layers, 0, count) if pair else layers

    def make_pp_layers(count: int, layer_fn: Any, *args: Any, **kwargs: Any) -> Any:
        return make_layers(count, layer_fn, **{**kwargs, "return_tuple": True})

    def cached(*args: Any, **kwargs: Any) -> Any:
        return lambda function: function

    return {
        "add_prefix": lambda name, prefix: f"{prefix}.{name}" if prefix else name,
        "make_layers": make_layers,
        "make_pp_layers": make_pp_layers,
        "is_cuda": lambda: True,
        "get_device": lambda *_: "cpu",
        "is_remote_url": lambda *_: False,
        "lru_cache_frozenset": cached,
        "logger": logging.getLogger("sglang"),
    }


def architectures() -> dict[str, Any]:
    """Architecture → class, or the exception of importing its file, as its registry makes it."""
    package = sys.modules["sglang.srt.models"]
    found: dict[str, Any] = {}
    for item in pkgutil.walk_packages(package.__path__, "sglang.srt.models."):
        try:
            module = importlib.import_module(item.name)
        except Exception as error:
            found[f"?{item.name}"] = failure(error)
            continue
        entries = vars(module).get("EntryClass")
        if entries is None:
            continue
        for each in entries if isinstance(entries, list) else [entries]:
            if isinstance(each, type):
                found[each.__name__] = each
    for name, problem in [(n, p) for n, p in found.items() if n.startswith("?")]:
        print("not imported:", name, problem, file=sys.stderr)
        del found[name]
    return found


def own_types() -> dict[str, str]:
    """Model types for which SGLang has its own config class → the class's name."""
    common = importlib.import_module("sglang.srt.utils.hf_transformers.common")
    registry = common._CONFIG_REGISTRY
    mine = {k: c for k, c in registry.items() if c.__module__.startswith("sglang")}
    return {k: c.__name__ for k, c in mine.items() if k}


def entry(kind: str, classes: dict[str, Any]) -> dict[str, Any]:
    """The table's entry of one model type."""
    if kind in READ:
        return dict(READ[kind])
    base, architecture = config_for(kind, own_types())
    architecture = TEXT_PARTS.get(kind, architecture)
    found: dict[str, Any] = {}
    if kind in own_types():
        found["config"] = own_types()[kind]
    architecture = resolved(kind, base, architecture)
    if architecture not in classes:
        return {"rope": "unsupported", **found, "backend": "transformers-5", "note": architecture}
    model_class = classes[architecture]
    found["class"] = architecture
    file = evidence(Path(sys.modules[model_class.__module__].__file__ or ""))
    try:
        pairs = max(_pairs(kind, base, architecture, model_class))
    except TooLargeError:
        raise
    except Exception as error:
        return {"rope": "unknown", **found, "at": file, "note": failure(error)}
    outcomes: dict[str, Any] = {}
    for name, asked, config in probes(base, shape_of(kind, pairs)):
        run = functools.partial(_run, kind, architecture, model_class, config)
        outcomes[name] = tried(
            lambda run=run, probe=(asked, name, 2 * pairs), c=config: outcome(
                run(), probe, c.get("layer_types"), ORIGINAL
            )
        )
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found, "at": file}


def resolved(kind: str, base: dict[str, Any], architecture: str) -> str:
    """The architecture after SGLang has loaded the config: some of its config classes rename it."""
    try:
        loaded = load({**base, "model_type": kind, "architectures": [architecture]})
        return str(loaded.architectures[0])
    except Exception:
        return architecture


def _pairs(kind: str, base: dict[str, Any], architecture: str, model_class: Any) -> list[int]:
    errors = []
    for name, _, config in probes(base, shape_of(kind)):
        if name not in ("default both", "default legacy", "yarn both"):
            continue
        try:
            made = _run(kind, architecture, model_class, config)
            rotary = [width(module) for module, _, _ in made]
            if rotary:
                return rotary
            errors.append(LookupError("no rotary module was made"))
        except TooLargeError:
            raise
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _run(kind: str, architecture: str, model_class: Any, config: dict[str, Any]) -> Any:
    """The rotary modules that SGLang makes for a config."""
    factory = importlib.import_module(f"{ROTARY}.factory")
    factory._ROPE_DICT.clear()
    loaded = load({**fresh(config), "model_type": kind, "architectures": [architecture]})
    return build(lambda: model_class(loaded, quant_config=None))


def load(config: dict[str, Any]) -> Any:
    """The config as SGLang loads it."""
    loader = importlib.import_module("sglang.srt.utils.hf_transformers.config")
    return in_folder(config, lambda folder: loader.get_config(folder, trust_remote_code=False))


if __name__ == "__main__":
    main()
