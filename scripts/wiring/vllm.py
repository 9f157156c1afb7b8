"""Wiring of vLLM: builds its model files on a CPU, every layer but the rotary one a stub.

    pip download --no-deps vllm==0.33.0 && unzip vllm-*.whl '*.py' '*METADATA' -d /tmp/vllm
    python -m scripts.wiring.vllm --package /tmp/vllm [--only llama,qwen3]

Needs torch and transformers. The config goes through vLLM's own `get_config`, then the class that
its registry names for the architecture is built; what its files pass to `get_rope` is computed by
vLLM's own rotary classes. The served length is that of its own `_get_and_verify_max_len`.
"""

from __future__ import annotations

import ast
import functools
import importlib
import logging
import re
import sys
from pathlib import Path
from typing import Any

import torch
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

ROTARY = "vllm.model_executor.layers.rotary_embedding"
MODELS = "vllm.model_executor.models"
_current: list[Any] = []


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel", only="model types",
                        jobs="processes")  # fmt: skip
    version = prepare(Path(options.package))
    version = options.version or version
    registry, through_transformers = architectures(Path(options.package))
    chosen = options.only.split(",") if options.only else sorted(model_types())
    make = functools.partial(entry, registry=registry, through_transformers=through_transformers)
    found = entries(make, chosen, int(options.jobs or 1))
    if options.only:
        for kind, item in found.items():
            for name, line in item.get("outcomes", {}).items():
                print(f"{kind:16} {name:40} {line}")
        update("vllm", found)
        return
    write(
        "vllm", version, "run", found,
        architectures=sorted(registry), through_transformers=sorted(through_transformers),
    )  # fmt: skip


def prepare(folder: Path) -> str:
    """Make vLLM importable with stubs; its version."""
    root = folder / "vllm"
    for name in (
        "processing_utils",
        "models.auto.image_processing_auto",
        "models.auto.modeling_auto",
    ):
        importlib.import_module(f"transformers.{name}")  # before anything is a stub
    tolerate_stubs()
    logging.disable(logging.ERROR)
    kept = (MODELS, "vllm.models", ROTARY, "vllm.transformers_utils", "vllm.utils.math_utils",
            "vllm.model_executor.layers.utils")  # fmt: skip
    outside = ("triton", "torchvision", "sentencepiece", "aiohttp", "cv2", "soundfile", "librosa",
               "mistral_common", "xgrammar", "regex")  # fmt: skip
    stubs.install(("vllm", *outside), kept, _given())
    stubs.package("vllm", str(root), version="")
    for name in ("model_executor", "utils", "model_executor.layers", "model_executor.models",
                 "models"):  # fmt: skip
        stubs.package(f"vllm.{name}", str(root / name.replace(".", "/")))
    package = importlib.import_module(ROTARY)
    package.get_rope = recorded(package.get_rope)
    info = next(folder.glob("vllm-*.dist-info"))
    return info.name.removeprefix("vllm-").removesuffix(".dist-info")


def _given() -> dict[str, dict[str, Any]]:
    """What vLLM's modules hold whose results decide how a model is built."""

    class CustomOp(nn.Module):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

        @staticmethod
        def register(*_: Any, **__: Any) -> Any:
            return lambda cls: cls

        @classmethod
        def enabled(cls) -> bool:
            return True

    def make_layers(count: int, layer_fn: Any, prefix: str = "", **_: Any) -> Any:
        made = [layer(lambda i=i: layer_fn(prefix=f"{prefix}.{i}")) for i in range(count)]
        return 0, count, nn.ModuleList(made)

    def extract_layer_index(name: str, *_: Any) -> int:
        return int(next(part for part in reversed(name.split(".")) if part.isdigit()))

    alone = {"get_tensor_model_parallel_world_size": lambda: 1,
             "get_tensor_model_parallel_rank": lambda: 0, "get_pp_group": stubs.Alone,
             "get_ep_group": stubs.Alone, "get_tp_group": stubs.Alone,
             "divide": lambda a, b: a // b}  # fmt: skip
    return {
        "vllm.model_executor.custom_op": {"CustomOp": CustomOp, "PluggableLayer": CustomOp},
        "vllm.distributed": alone,
        "vllm.distributed.parallel_state": alone,
        "vllm.distributed.utils": alone,
        "vllm.config": {"get_current_vllm_config": lambda: _current[-1]},
        "vllm.config.utils": {"getattr_iter": _getattr_iter},
        f"{MODELS}.utils": {
            "make_layers": make_layers,
            "extract_layer_index": extract_layer_index,
            "maybe_prefix": lambda prefix, name: f"{prefix}.{name}" if prefix else name,
        },
        f"{MODELS}.interfaces": {},
        f"{MODELS}.interfaces_base": {},
        f"{MODELS}.adapters": {},
        "vllm.transformers_utils.dynamic_module": {},
    }


def _getattr_iter(item: Any, names: Any, default: Any = None, **_: Any) -> Any:
    return next((getattr(item, n) for n in names if hasattr(item, n)), default)


def architectures(folder: Path) -> tuple[dict[str, tuple[str, str]], set[str]]:
    """Architecture → (module, class) of its registry; those that run through transformers."""
    source = (folder / "vllm/model_executor/models/registry.py").read_text(encoding="utf-8")
    tables: dict[str, dict[str, tuple[str, str]]] = {}
    for node in ast.parse(source).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Dict):
            pairs = [(k, v) for k, v in zip(value.keys, value.values, strict=True) if k]
            literal = {}
            for key, item in pairs:
                if isinstance(item, ast.Tuple):
                    literal[ast.literal_eval(key)] = ast.literal_eval(item)
            tables[target.id] = literal
    through = set(tables["_TRANSFORMERS_SUPPORTED_MODELS"])
    names = ("_TEXT_GENERATION_MODELS", "_MULTIMODAL_MODELS")
    return {a: m for name in names for a, m in tables[name].items()}, through


def own_types() -> dict[str, str]:
    """Model types for which vLLM has its own config class → the class's name."""
    config = importlib.import_module("vllm.transformers_utils.config")
    return {k: v for k, v in dict.items(config._CONFIG_REGISTRY) if isinstance(v, str)}


def entry(
    kind: str, registry: dict[str, tuple[str, str]], through_transformers: set[str]
) -> dict[str, Any]:
    """The table's entry of one model type."""
    base, architecture = config_for(kind, own_types())
    architecture = TEXT_PARTS.get(kind, architecture)
    found: dict[str, Any] = {}
    if kind in own_types():
        found["config"] = own_types()[kind]
    if architecture in through_transformers:
        return {"rope": "backend", **found, "backend": "transformers-5", "at": "registry.py:747"}
    if architecture not in registry:
        return {"rope": "unsupported", **found, "backend": "transformers-5", "note": architecture}
    module_name, class_name = registry[architecture]
    found |= {"class": architecture, "at": f"{module_name}.py"}
    try:
        path = module_name if module_name.startswith("vllm.") else f"{MODELS}.{module_name}"
        module = importlib.import_module(path)
        model_class = getattr(module, class_name)
        defined = sys.modules[model_class.__module__]
        found["at"] = evidence(Path(defined.__file__ or f"{module_name}.py"))
        pairs = max(_pairs(kind, base, architecture, model_class))
    except TooLargeError:
        raise
    except Exception as error:
        return {"rope": "unknown", **found, "note": failure(error)}
    outcomes: dict[str, Any] = {}
    for name, asked, config in probes(base, shape_of(kind, pairs)):
        run = functools.partial(_run, kind, architecture, model_class, config)
        outcomes[name] = tried(
            lambda run=run, probe=(asked, name, 2 * pairs), c=config: outcome(
                run(), probe, c.get("layer_types"), ORIGINAL
            )
        )
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def _pairs(kind: str, base: dict[str, Any], architecture: str, model_class: Any) -> list[int]:
    errors: list[Exception] = []
    for name, _, config in probes(base, shape_of(kind)):
        if name not in ("default both", "default legacy", "yarn both"):
            continue
        try:
            made = _run(kind, architecture, model_class, config)
            if made:
                return [width(module) for module, _, _ in made]
            errors.append(LookupError("no rotary module was made"))
        except TooLargeError:
            raise
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _run(kind: str, architecture: str, model_class: Any, config: dict[str, Any]) -> Any:
    """The rotary modules that vLLM makes for a config."""
    importlib.import_module(ROTARY)._ROPE_DICT.clear()
    loaded = load({**fresh(config), "model_type": kind, "architectures": [architecture]})
    engine = engine_config(loaded)
    return build(lambda: model_class(vllm_config=engine, prefix=""))


def load(config: dict[str, Any]) -> Any:
    """The config as vLLM loads it."""
    loader = importlib.import_module("vllm.transformers_utils.config")
    return in_folder(config, lambda folder: loader.get_config(folder, False, config_format="hf"))


def engine_config(loaded: Any, length: int | None = None) -> Any:
    """A stub of `VllmConfig` around a config; `length` tokens are served, by default its own."""
    model = stubs.Stub()
    text = loaded.get_text_config()
    vars(model).update(
        hf_config=loaded, hf_text_config=text, dtype=torch.float32, quantization=None,
        max_model_len=length or served_length(loaded),
    )  # fmt: skip
    engine = stubs.Stub()
    vars(engine).update(
        model_config=model, quant_config=None, parallel_config=stubs.Alone(), lora_config=None,
        cache_config=stubs.Stub(),
    )  # fmt: skip
    _current[:] = [engine]
    return engine


@functools.cache
def _length_function() -> Any:
    """`_get_and_verify_max_len` as it stands in `vllm/config/model.py`."""
    root = Path(sys.modules["vllm"].__path__[0])
    source = (root / "config" / "model.py").read_text(encoding="utf-8")
    start = source.index("def _get_and_verify_max_len(")
    end = re.search(r"\n(?=\S)", source[source.index("-> int:", start) :])
    text = (
        source[start:]
        if end is None
        else source[start : source.index("-> int:", start) + end.start()]
    )
    loader = importlib.import_module("vllm.transformers_utils.config")
    platform = type("Platform", (), {"check_max_model_len": staticmethod(lambda n: n)})
    names = {"iter_rope_parameters": loader.iter_rope_parameters, "logger": stubs.Stub(),
             "current_platform": platform, "Any": Any, "PreTrainedConfig": Any,
             "ModelArchitectureConfig": Any, "envs": stubs.Stub()}  # fmt: skip
    exec(text, names)
    return names["_get_and_verify_max_len"]


def served_length(loaded: Any, length: int | None = None) -> int:
    """What `--max-model-len` is, or becomes without one."""
    name = "vllm.transformers_utils.model_arch_config_convertor"
    module = importlib.import_module(name)
    text = loaded.get_text_config()
    converters = module.MODEL_ARCH_CONFIG_CONVERTORS
    convert = converters.get(text.model_type, module.ModelArchConfigConvertorBase)
    item = convert(loaded, text)
    arch = type("Arch", (), {"derived_max_model_len_and_key": item.derive_max_model_len_and_key()})
    return int(_length_function()(text, arch, None, length, False, None))


if __name__ == "__main__":
    main()
