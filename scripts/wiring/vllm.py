"""Wiring of vLLM: builds its model files on a CPU, every layer but the rotary one a stub.

    pip download --no-deps vllm==0.33.0 && unzip vllm-*.whl '*.py' '*METADATA' -d /tmp/vllm
    python -m scripts.wiring.vllm --package /tmp/vllm [--only llama,qwen3]

Needs torch and transformers. The config goes through vLLM's own `get_config`, then the class that
its registry names for the architecture is built; what its files pass to `get_rope` is computed by
vLLM's own rotary classes. The served length is that of its own `_get_and_verify_max_len`.

The text part of a multimodal model is built by the wrapper's class, from the wrapper's config.
`wrappers` of the table says, of each wrapper, whether its text part comes out as that model type
does alone. What the registry lacks runs through transformers if transformers has a class that its
`_try_resolve_transformers` accepts: `through_transformers` of the table names these classes.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import logging
import re
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

from scripts.wiring import own_code, stubs, torch_engines
from scripts.wiring.probes import ORIGINAL, failure, fresh, probes
from scripts.wiring.sizes import config_for, model_types, shape_of
from scripts.wiring.table import arguments, read, summary, update, write
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
_registry: dict[str, tuple[str, str]] = {}
_rows: dict[str, dict[str, Any]] = {}
_named: list[bool] = []

# Model type → the architecture that published checkpoints name, where transformers has another.
PUBLISHED = {
    "bailing_hybrid": "BailingMoeV2_5ForCausalLM",
    "phimoe": "PhiMoEForCausalLM",
    "step3p5": "Step3p5ForCausalLM",
    "kimi_k25": "KimiK25ForConditionalGeneration",
}
# What a wrapper's config has beside its text part: towers of one layer, which cost no time.
_TOWER = {"vision_config": {"depth": 1, "num_hidden_layers": 1}, "vocab_size": 64}


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel", only="model types",
                        wrappers="only these wrappers, pairs", jobs="processes")  # fmt: skip
    version = prepare(Path(options.package))
    version = options.version or version
    registry, through_transformers = architectures(Path(options.package))
    _registry.update(registry)
    if options.wrappers:
        document, types = read("vllm")
        checked = check_wrappers(types, options.wrappers.split(","))
        update("vllm", {}, wrappers={**document.get("wrappers", {}), **checked})
        return
    chosen = (
        options.only.split(",")
        if options.only
        else sorted(model_types([*own_types(), *own_code.NAMED]) - {*wrappers()})
    )
    make = functools.partial(entry, through_transformers=through_transformers)
    found = entries(make, chosen, int(options.jobs or 1))
    rest: dict[str, Any] = {
        "architectures": {a: f"{m}.{c}" for a, (m, c) in sorted(registry.items())},
        "through_transformers": sorted(through_transformers),
        "unnamed": unnamed(),
    }
    if options.only:
        for kind, item in found.items():
            for name, line in item.get("outcomes", {}).items():
                print(f"{kind:16} {name:40} {line}")
        update("vllm", found, **rest)
        return
    write("vllm", version, "run", found, **rest, wrappers=check_wrappers(found))


def check_wrappers(
    types: dict[str, dict[str, Any]], names: list[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Wrapper or pair → its entry; see `wrapper_entry`."""
    _rows.update(types)
    found = entries(wrapper_entry, names or [*sorted(wrappers()), *PAIRS], 1)
    return dict(sorted(found.items()))


def unnamed() -> dict[str, str]:
    """Model type → the architecture that is taken where the config names none."""
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    from yarncli.config.families.table import FAMILIES

    names = {kind: MODEL_MAPPING_NAMES.get(kind) for kind in sorted(FAMILIES)}
    return {k: v[0] if isinstance(v, list | tuple) else v for k, v in names.items() if v}


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
    _drop_stubs("empty", "tensor", "zeros", "ones", "arange", "full")
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
    own_code.register(set(own_code.NAMED) - set(own_types()))
    info = next(folder.glob("vllm-*.dist-info"))
    return info.name.removeprefix("vllm-").removesuffix(".dist-info")


def _drop_stubs(*names: str) -> None:
    """Let functions of torch do without a device or data type that is a stub."""

    def tolerant(function: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            known = {k: v for k, v in kwargs.items() if not isinstance(v, stubs.Stub)}
            return function(*args, **known)

        return call

    for name in names:
        setattr(torch, name, tolerant(getattr(torch, name)))


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

    class SupportsMultiModal:
        @contextlib.contextmanager
        def _mark_tower_model(self, *_: Any, **__: Any) -> Any:
            """What a vision or audio tower does and makes is of no interest."""
            before = len(torch_engines._made)
            with contextlib.suppress(Exception):
                yield
            del torch_engines._made[before:]
            for name in ("visual", "vision_tower", "audio_tower"):
                if name not in vars(self)["_modules"]:
                    setattr(self, name, nn.Identity())

        @contextlib.contextmanager
        def _mark_language_model(self, *_: Any, **__: Any) -> Any:
            yield

        _mark_composite_model = _mark_language_model

        def configure_mm_token_handling(self, *_: Any, **__: Any) -> None:
            """Of no interest."""

    lora = type("SupportsLoRA", (), {"packed_modules_mapping": {}, "embedding_modules": {}})
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
            "init_vllm_registered_model": _inner_model,
        },
        f"{MODELS}.interfaces": {"SupportsMultiModal": SupportsMultiModal, "SupportsLoRA": lora},
        f"{MODELS}.interfaces_base": {},
        f"{MODELS}.adapters": {},
        "vllm.model_executor.model_loader.utils": {
            "initialize_model": lambda vllm_config, **_: _inner_model(vllm_config)
        },
        "vllm.transformers_utils.dynamic_module": {},
    }


def _getattr_iter(item: Any, names: Any, default: Any = None, **_: Any) -> Any:
    return next((getattr(item, n) for n in names if hasattr(item, n)), default)


def _inner_model(
    vllm_config: Any, *, hf_config: Any = None, architectures: Any = None, **_: Any
) -> Any:
    """The model of a wrapper's text part, as `init_vllm_registered_model` finds its class."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = vllm_config.model_config.hf_config if hf_config is None else hf_config
    default = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)]
    named = architectures or config.architectures or default
    _named.append(bool(architectures) and architectures != config.architectures)
    return model_class(named[0])(vllm_config=engine_config(config), prefix="language_model")


def model_class(architecture: str) -> Any:
    """The class that the registry names for an architecture."""
    module_name, name = _registry[architecture]
    path = module_name if module_name.startswith("vllm.") else f"{MODELS}.{module_name}"
    return getattr(importlib.import_module(path), name)


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
    backend = set(tables.pop("_TRANSFORMERS_SUPPORTED_MODELS"))
    for name in [n for n in tables if not n.endswith("_MODELS")] + ["_TRANSFORMERS_BACKEND_MODELS"]:
        tables.pop(name, None)
    registry = {a: m for table in tables.values() for a, m in table.items()}
    return registry, backend | _compatible() - set(registry)


def _compatible() -> set[str]:
    """The classes of transformers that `_try_resolve_transformers` of the registry accepts."""
    import transformers
    from transformers.models.auto import modeling_auto

    lists = ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MULTIMODAL_LM")
    names = {
        name
        for item in lists
        for name in getattr(modeling_auto, f"MODEL_FOR_{item}_MAPPING_NAMES").values()
    }
    found = set()
    for name in names:
        cls = getattr(transformers, name, None)
        if cls and (cls.is_backend_compatible() or cls._can_set_attn_implementation()):
            found.add(name)
    return found


def own_types() -> dict[str, str]:
    """Model types for which vLLM has its own config class → the class's name."""
    config = importlib.import_module("vllm.transformers_utils.config")
    return {k: v for k, v in dict.items(config._CONFIG_REGISTRY) if isinstance(v, str)}


@functools.cache
def wrappers() -> dict[str, tuple[str, tuple[str, ...], str]]:
    """Multimodal model type → model type of its text part, where that lies, architecture."""
    from transformers.models.auto import modeling_auto as auto

    from yarncli.config.families.table import FAMILIES

    found = {}
    for kind, family in FAMILIES.items():
        path: tuple[str, ...] = ()
        name = kind
        while family is not None and family.is_wrapper:
            path, name = (*path, family.text_key), str(family.text_type)
            family = FAMILIES.get(name)
        named = next(
            (
                names[kind]
                for names in (
                    auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
                    auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
                )
                if kind in names
            ),
            "",
        )
        named = PUBLISHED.get(kind, named)
        if path and named and name in FAMILIES:
            found[kind] = (name, path, named)
    return found


def entry(kind: str, through_transformers: set[str]) -> dict[str, Any]:
    """The table's entry of one model type."""
    base, architecture = config_for(kind, own_types())
    architecture = PUBLISHED.get(kind, architecture)
    found: dict[str, Any] = {}
    if kind in own_types():
        found["config"] = own_types()[kind]
    inside = {w: item for w, item in wrappers().items() if item[0] == kind}
    if architecture not in _registry:
        for wrapper, (_, _, named) in inside.items():
            if named in _registry:
                return {**_built(kind, base, named, wrapper), **found}
    if kind in _UNRELIABLE:
        return {"rope": "unknown", **found, "class": architecture, "note": _UNRELIABLE[kind]}
    if architecture in _registry:
        return {**_built(kind, base, architecture), **found}
    named_too = [architecture, *(item[2] for item in inside.values())]
    backend = next((name for name in named_too if name in through_transformers), None)
    if backend:
        return {"rope": "backend", **found, "class": backend, "backend": "transformers-5"}
    return {"rope": "unsupported", **found, "note": architecture}


def _built(
    kind: str, base: dict[str, Any], architecture: str, wrapper: str | None = None
) -> dict[str, Any]:
    """The entry of a model type that the registry has a class for."""
    found: dict[str, Any] = {"class": architecture, "at": f"{_registry[architecture][0]}.py"}
    if wrapper:
        found["wrapper"] = wrapper
    try:
        defined = sys.modules[model_class(architecture).__module__]
        found["at"] = evidence(Path(defined.__file__ or found["at"]))
        pairs = max(_pairs(kind, base, architecture, wrapper))
    except TooLargeError:
        raise
    except Exception as error:
        return {"rope": "unknown", **found, "note": failure(error)}
    outcomes: dict[str, Any] = {}
    shape = shape_of(kind, pairs, BLOCKS.get(kind))
    for name, asked, config in probes(base, shape):
        run = functools.partial(_run, kind, architecture, config, wrapper)
        outcomes[name] = tried(
            lambda run=run, probe=(asked, name, 2 * pairs), c=config: outcome(
                run(), probe, c.get("layer_types"), ORIGINAL
            )
        )
    if "none" in outcomes.values():
        return {"rope": "unknown", **found, "note": "no rotary module was made for some probes"}
    if shape.part is None and not shape.scaled and pairs < 32 and base.get("head_dim") == 64:
        found["share"] = pairs / 32
    if kind in BLOCKS:
        found["block"] = BLOCKS[kind]
    if kind in _SCOPES:
        found["scope"] = _SCOPES[kind]
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def wrapper_entry(wrapper: str) -> dict[str, Any]:
    """Whether a wrapper's text part, or another class, comes out as the model type does alone.

    `any`: the class of the text part is the one that its own model type has, not the wrapper's
    choice, so that every text model comes out as it does alone.
    """
    architecture, kind = PAIRS[wrapper] if wrapper in PAIRS else wrappers()[wrapper][::-2]
    row = _rows.get(kind, {})
    found: dict[str, Any] = {"class": architecture, "text": kind}
    if architecture not in _registry:
        return {"rope": "backend", **found}
    if "outcomes" not in row:
        return {"rope": row.get("rope", "unknown"), **found}
    base, _ = config_for(kind, own_types())
    _named.clear()
    differ = []
    for name, asked, config in probes(base, shape_of(kind, row["dim"] // 2, BLOCKS.get(kind))):
        if name not in WRAPPER_PROBES:
            continue
        line = tried(
            lambda c=config, probe=(asked, name, row["dim"]): outcome(
                _run(kind, architecture, c, None if wrapper in PAIRS else wrapper),
                probe,
                c.get("layer_types"),
                ORIGINAL,
            )
        )
        if line != row["outcomes"][name]:
            differ.append(f"{name}: {line}")
    found["any"] = bool(_named) and not any(_named)
    if differ:
        return {"rope": "differs", **found, "note": differ[0]}
    return {"rope": "same", **found}


# Other classes that published checkpoints of a model type name: base models and drafts.
PAIRS = {
    f"{kind} {name}": (name, kind)
    for kind, names in {
        "internlm2": ("InternLM2ForRewardModel",),
        "llama": ("LlamaForCausalLMEagle3", "EagleLlamaForCausalLM"),
        "mistral": ("MistralModel",),
        "qwen3": ("DFlashDraftModel", "DSparkDraftModel"),
    }.items()
    for name in names
}
WRAPPER_PROBES = ("default both", "linear both", "yarn both", "yarn v5", "yarn legacy",
                  "llama3 both")  # fmt: skip

# Model type → keys that its RoPE block has in vLLM's probes, beside those of `sizes.BLOCK`.
_INTERLEAVED = {"mrope_section": [12, 10, 10], "mrope_interleaved": True}
BLOCKS: dict[str, dict[str, Any]] = {
    "qwen3_vl_text": _INTERLEAVED,
    "qwen3_vl_moe_text": _INTERLEAVED,
    "qwen3_omni_moe_text": _INTERLEAVED,
    "qwen3_5_text": {"mrope_section": [4, 2, 2], "mrope_interleaved": True},
    "qwen3_5_moe_text": {"mrope_section": [4, 2, 2], "mrope_interleaved": True},
}


# Model type → why what is recorded of it is not what it computes.
_UNRELIABLE = {"bailing_hybrid": "what gives its RoPE block lies in a module that is a stub"}

# Model type → the scope that the layers have whose rotary module is recorded.
_SCOPES = {"deepseek_v4": "compress", "laguna": "full_attention"}


def _pairs(
    kind: str, base: dict[str, Any], architecture: str, wrapper: str | None = None
) -> list[int]:
    errors: list[Exception] = []
    for name, _, config in probes(base, shape_of(kind, more=BLOCKS.get(kind))):
        if name not in ("default both", "default legacy", "yarn both"):
            continue
        try:
            made = _run(kind, architecture, config, wrapper)
            if made:
                return [width(module) for module, _, _ in made]
            errors.append(LookupError("no rotary module was made"))
        except TooLargeError:
            raise
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _run(kind: str, architecture: str, config: dict[str, Any], wrapper: str | None = None) -> Any:
    """The rotary modules that vLLM makes for a config, or for a wrapper's config around it."""
    importlib.import_module(ROTARY)._ROPE_DICT.clear()
    whole = {**own_code.as_published(kind, fresh(config)), "model_type": kind}
    if wrapper:
        for key in reversed(wrappers()[wrapper][1]):
            whole = {key: whole}
        # Molmo 2's own check wants as many vision layers as its adapter names.
        small = wrappers()[wrapper][1] == ("text_config",) and wrapper != "molmo2"
        tower = _TOWER if small else {}
        whole |= {"model_type": wrapper, **tower}
    loaded = load({**whole, "architectures": [architecture]})
    engine = engine_config(loaded)
    return build(lambda: model_class(architecture)(vllm_config=engine, prefix=""))


def load(config: dict[str, Any]) -> Any:
    """The config as vLLM loads it."""
    loader = importlib.import_module("vllm.transformers_utils.config")
    return in_folder(config, lambda folder: loader.get_config(folder, False, config_format="hf"))


def engine_config(loaded: Any, length: int | None = None) -> Any:
    """A stub of `VllmConfig` around a config; `length` tokens are served, by default its own."""
    model, multimodal = stubs.Stub(), type("Given", (stubs.Stub,), {"__bool__": lambda _: True})()
    text = loaded.get_text_config()
    vars(multimodal).update(get_video_pruning_spec=lambda: None)
    vars(model).update(
        hf_config=loaded, hf_text_config=text, dtype=torch.float32, quantization=None,
        max_model_len=length or served_length(loaded), multimodal_config=multimodal,
        get_multimodal_config=lambda: multimodal, try_get_generation_config=dict,
        use_mla=getattr(text, "kv_lora_rank", None) is not None,
    )  # fmt: skip
    engine = stubs.Stub()
    vars(engine).update(
        model_config=model, quant_config=None, parallel_config=stubs.Alone(), lora_config=None,
        cache_config=stubs.Stub(),
        with_hf_config=lambda config, architectures=None: engine_config(config),
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
