"""Wiring of SGLang: builds its model files on a CPU, every layer but the rotary one a stub.

    pip download --no-deps sglang==0.5.23 && unzip sglang-*.whl -d /tmp/sglang
    python -m scripts.wiring.sglang --package /tmp/sglang [--only llama,qwen3]

Needs torch, the transformers that the release pins (5.19.0) and the small packages msgspec, orjson,
pybase64, dill, einops. The config goes through SGLang's own `get_config`, then the class that its
registry has for the architecture is built; what its files pass to `get_rope` is computed by
SGLang's own rotary classes. A text part is built inside each multimodal class as well, vision and
audio parts left out. Beside the keys that `table.py` explains, a type has

    classes     architectures that gave these outcomes
    others      architectures that gave other ones

and the table `through_transformers`: architectures that SGLang has no class for and leaves to its
transformers backend (`model_loader/utils.py`, `resolve_transformers_arch`).
"""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
import logging
import math
import pkgutil
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from scripts.wiring import own_code, stubs
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
from yarncli.config.families.table import FAMILIES

# The layers' own get_rope serves forward_cpu only; on a GPU they get transformers' rotary class.
READ: dict[str, dict[str, Any]] = {
    "gemma3_text": {
        "rope": "backend",
        "backend": "transformers-5",
        "how": "read",
        "class": "Gemma3ForCausalLM",
        "classes": ["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
        "at": "gemma3_causal.py:595,603",
        "note": "forward_cpu (218) rotates without scaling",
    },
    "qwen3_omni_moe_text": {
        "rope": "unknown",
        "class": "Qwen3OmniMoeForConditionalGeneration",
        "note": "of its parts, only the rotary module of another one was recorded",
    },
}

# What files of a model type name beside transformers' own class.
NAMED: dict[str, tuple[str, ...]] = {
    "kimi_k2": ("DeepseekV3ForCausalLM",),
    "kimi_k25": ("KimiK25ForConditionalGeneration",),
    "llama": ("LlamaForCausalLMEagle3",),
    "phimoe": ("PhiMoEForCausalLM",),
    "qwen3": ("DFlashDraftModel", "DSparkDraftModel"),
    "internlm2": ("InternLM2ForRewardModel",),
}

# Where a class takes θ from that is not the key of the model type (models/qwen.py:167,
# utils/hf_transformers/common.py:501).
THETA_KEY = {"qwen": "rope_theta"}

# Scopes of the layers where the config says them in other words than `layer_types`.
LAYERS = {"deepseek_v4": ["compress", "compress", "main", "compress"]}

ROTARY = "sglang.srt.layers.rotary_embedding"


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel", only="model types",
                        jobs="processes")  # fmt: skip
    version = prepare(Path(options.package))
    version = options.version or version
    classes = architectures()
    find_wrappers()
    chosen = options.only.split(",") if options.only else sorted(model_types(own_code.NAMED))
    make = functools.partial(entry, classes=classes)
    found = entries(make, chosen, int(options.jobs or 1))
    if options.only:
        for kind, item in found.items():
            for name, line in item.get("outcomes", {}).items():
                print(f"{kind:16} {name:40} {line}")
        update("sglang", found)
        return
    through = sorted(set(through_transformers()) - set(classes))
    write("sglang", version, "run", found, architectures=sorted(classes),
          through_transformers=through)  # fmt: skip


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
    stubs.install(
        ("sglang", *outside), kept, {"sglang.kernels.fused_op": fused, **_distributed(root)}
    )
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
    own_code.register(set(own_code.NAMED) - set(own_types()))
    info = next(folder.glob("sglang-*.dist-info"))
    return info.name.removeprefix("sglang-").removesuffix(".dist-info")


def _distributed(root: Path) -> dict[str, dict[str, Any]]:
    indices = {"get_pp_indices": lambda count, *_: (0, count)}
    alone = {"get_parallel": lambda: stubs.Alone()}
    return {
        "sglang.srt.distributed": {**indices, "get_pp_group": lambda: stubs.Alone()},
        "sglang.srt.distributed.utils": indices,
        "sglang.srt.runtime_context": alone,
        "sglang.kernels.ops.attention.dsv4.rope": {"precompute_freqs_cis": _deepseek_v4_rope(root)},
        "sglang.srt.layers.linear": {"resolve_linear_parallel_group": lambda *_: (0, 1)},
    }


def _utils() -> dict[str, Any]:
    """The functions of `sglang.srt.utils` whose results decide how a model is built."""

    def make_layers(count: int, layer_fn: Any, *args: Any, **kwargs: Any) -> Any:
        prefix = kwargs.get("prefix", "")
        layers = nn.ModuleList()
        for i in range(count):
            make = functools.partial(layer_fn, idx=i, prefix=f"{prefix}.{i}")
            layers.append(layer(make))
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
    _leave_out_senses(found)
    transformers.AutoModel.from_config = lambda *_, **__: stubs.Stub()
    return found


_SENSES = re.compile(
    r"vis(ion|ual)|vit\b|siglip|clip|pixtral|audio|whisper|projector|tower|encoder", re.IGNORECASE
)


def _leave_out_senses(classes: dict[str, Any]) -> None:
    """Make stubs of the vision and audio parts that model files build."""
    for name, module in list(sys.modules.items()):
        if name.startswith("sglang.srt.models."):
            for part, value in list(vars(module).items()):
                if isinstance(value, type) and part not in classes and _SENSES.search(part):
                    setattr(module, part, stubs.Stub())


def _deepseek_v4_rope(package: Path) -> Any:
    """DeepSeek-V4's own function for its table, noted as `get_rope` is."""
    path = package / "kernels" / "ops" / "attention" / "dsv4" / "rope.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    tree.body = [n for n in tree.body if getattr(n, "name", "") == "precompute_freqs_cis"]
    scope: dict[str, Any] = {"lru_cache": lambda *_: lambda f: f, "torch": torch, "math": math}
    exec(compile(tree, str(path), "exec"), scope)

    def module(**kwargs: Any) -> Any:
        table = scope["precompute_freqs_cis"](**kwargs)
        found = nn.Identity()
        found.register_buffer("cos_sin_cache", torch.cat([table.real, table.imag], -1))
        return found

    make = recorded(module)
    return lambda **kwargs: make(**kwargs).cos_sin_cache


def own_types() -> dict[str, str]:
    """Model types for which SGLang has its own config class → the class's name."""
    common = importlib.import_module("sglang.srt.utils.hf_transformers.common")
    registry = common._CONFIG_REGISTRY
    mine = {k: c for k, c in registry.items() if c.__module__.startswith("sglang")}
    return {k: c.__name__ for k, c in mine.items() if k}


@functools.cache
def through_transformers() -> tuple[str, ...]:
    """Architectures of transformers that SGLang's backend would take."""
    found = []
    for name in dir(transformers):
        if not re.search(r"(For[A-Z]\w+|Model)$", name):
            continue
        try:
            if getattr(transformers, name).is_backend_compatible():
                found.append(name)
        except (AttributeError, ImportError, ValueError):
            continue
    return tuple(found)


def entry(kind: str, classes: dict[str, Any]) -> dict[str, Any]:
    """The table's entry of one model type."""
    if kind in READ:
        return dict(READ[kind])
    base, architecture = config_for(kind, own_types())
    architecture = TEXT_PARTS.get(kind, architecture)
    found: dict[str, Any] = {}
    if kind in own_types():
        found["config"] = own_types()[kind]
    if kind not in transformers.CONFIG_MAPPING and kind not in own_types():
        why = f"transformers {transformers.__version__}, which it pins, has no such model type"
        return {"rope": "unsupported", "note": why}
    tries = list(candidates(kind, base, architecture, classes))
    if not tries:
        return {**_without_class(kind, architecture), **found}
    made = [(wiring, _outcomes(wiring)) for wiring in tries]
    working = [pair for pair in made if "outcomes" in pair[1]]
    first, first_found = (working or made)[0]
    file = evidence(Path(sys.modules[first.model_class.__module__].__file__ or ""))
    found["class"] = first.resolved
    if kind == "hunyuan":  # factory.py:291 and rope_variant.py:684, which no probe has
        found["alpha"] = "window"
    if not working:
        return {"rope": "unknown", **found, "at": file, "note": first_found["note"]}
    outcomes = first_found["outcomes"]
    same = {w.architecture for w, f in working if not _difference(f, outcomes)}
    found["classes"] = sorted(same | {first.resolved})
    others = {w.architecture: _difference(f, outcomes) for w, f in made}
    others = {name: why for name, why in sorted(others.items()) if name not in same}
    if others:
        found["others"] = others
    if kind in THETA_KEY:
        found["theta_key"] = THETA_KEY[kind]
    if (
        kind in FAMILIES
        and FAMILIES[kind].scopes
        and all(isinstance(line, str) for line in outcomes.values())
    ):
        found["scope"] = "full_attention"  # the small model has no other layers
    return {"outcomes": outcomes, **summary(outcomes), "dim": first_found["dim"], **found,
            "at": file}  # fmt: skip


def _difference(found: dict[str, Any], usual: dict[str, Any]) -> str:
    """What is other in the outcomes of a second class; empty where nothing is."""
    if "note" in found:
        return str(found["note"])
    # What is nested for a flat type fails here or there: not worth a class of its own.
    lines = {k: v for k, v in found["outcomes"].items() if k != "yarn turned"}
    other = [name for name, line in lines.items() if line != usual[name]]
    return f"{len(other)} probes, {other[0]}: {found['outcomes'][other[0]]}" if other else ""


def _without_class(kind: str, architecture: str) -> dict[str, Any]:
    """The entry of a type that no class is for: SGLang's transformers backend, or nothing."""
    wanted = {architecture, *(name for _, name in WRAPPERS.get(kind, ()))} - {"None"}
    through = sorted(wanted & set(through_transformers()))
    if through:
        return {"rope": "backend", "backend": "transformers-5", "classes": through}
    known = [name for name in sorted(wanted) if hasattr(transformers, name)]
    why = "is_backend_compatible() is false" if known else "no class for it"
    return {"rope": "unsupported", "note": f"{', '.join(known) or architecture}: {why}"}


@dataclass(frozen=True)
class Wiring:
    """One class that a model type can be built with."""

    kind: str
    """The model type of the text part."""
    wrapper: str
    """The model type of the whole; empty where the text part stands alone."""
    architecture: str
    """As the config names it."""
    resolved: str
    """The class that SGLang makes of that."""
    model_class: Any
    """The class itself."""
    base: dict[str, Any]
    """The keys of the text part."""

    def config(self, text: dict[str, Any]) -> dict[str, Any]:
        """The whole config around the keys of its text part."""
        text = {**own_code.as_published(self.kind, fresh(text)), "model_type": self.kind}
        named = {"architectures": [self.architecture]}
        if not self.wrapper:
            return {**text, **named}
        key = FAMILIES[self.wrapper].text_key
        return {"model_type": self.wrapper, **named, key: text, **INSIDE.get(self.wrapper, {})}

    def run(self, text: dict[str, Any]) -> Any:
        """The rotary modules that SGLang makes for a config."""
        return _run(self.kind, self.architecture, self.model_class, self.config(text))


# Multimodal model types that hold any text model: what they are known to hold.
HELD = {
    "mistral3": ("mistral", "ministral3"), "llava": ("llama", "mistral", "qwen2"),
    "voxtral": ("llama",), "qwen2_audio": ("qwen2",), "glmasr": ("llama",),
    "shieldgemma2": ("gemma3_text",), "kimi_k25": ("deepseek_v3", "kimi_k2"),
}  # fmt: skip

# What a multimodal config needs beside its text part.
INSIDE: dict[str, dict[str, Any]] = {"gemma4": {"vision_config": {}, "audio_config": None}}

WRAPPERS: dict[str, list[tuple[str, str]]] = {}
"""Text part → (multimodal model type, architecture)."""


def find_wrappers() -> None:
    """Fill `WRAPPERS` from transformers and SGLang's own config classes."""
    from transformers import CONFIG_MAPPING
    from transformers.models.auto import modeling_auto as auto

    common = importlib.import_module("sglang.srt.utils.hf_transformers.common")
    names: dict[str, set[str]] = {}
    tables = (v for k, v in vars(auto).items() if k.startswith("MODEL") and "NAMES" in k)
    for table in tables:
        for kind, name in table.items():
            for each in name if isinstance(name, tuple) else (name,):
                names.setdefault(kind, set()).add(str(each))
    for kind, family in FAMILIES.items():
        if not family.is_wrapper:
            held: tuple[str, ...] = (kind,)
        elif kind in HELD:
            held = HELD[kind]
        else:
            try:
                config = common._CONFIG_REGISTRY.get(kind) or CONFIG_MAPPING[kind]
                held = (config().get_text_config().model_type,)
            except Exception:
                continue
        for text in held:
            known = {*names.get(kind, ()), *NAMED.get(kind, ())}
            pairs = [(kind if family.is_wrapper else "", name) for name in sorted(known)]
            WRAPPERS.setdefault(text, []).extend(pairs)


def candidates(
    kind: str, base: dict[str, Any], architecture: str, classes: dict[str, Any]
) -> Iterator[Wiring]:
    """The classes that a model type can be built with, that of a text model first."""
    seen = set()
    named = [("", name) for name in (architecture, *NAMED.get(kind, ()))]
    for wrapper, name in (*named, *WRAPPERS.get(kind, ())):
        alone = Wiring(kind, wrapper, name, name, None, base)
        target = resolved(alone)
        if (wrapper, name) not in seen and target in classes:
            seen.add((wrapper, name))
            yield replace(alone, resolved=target, model_class=classes[target])


def resolved(wiring: Wiring) -> str:
    """The architecture after SGLang has loaded the config: some of its config classes rename it."""
    try:
        return str(load(wiring.config(wiring.base)).architectures[0])
    except Exception:
        return wiring.architecture


def _outcomes(wiring: Wiring) -> dict[str, Any]:
    try:
        pairs = max(_pairs(wiring))
    except TooLargeError:
        raise
    except Exception as error:
        return {"note": failure(error)}
    outcomes: dict[str, Any] = {}
    for name, asked, config in probes(wiring.base, shape_of(wiring.kind, pairs)):
        layers = LAYERS.get(wiring.kind, config.get("layer_types"))
        probe = functools.partial(_line, wiring, config, (asked, name, 2 * pairs), layers)
        outcomes[name] = tried(probe)
    return {"outcomes": outcomes, "dim": 2 * pairs}


def _line(
    wiring: Wiring, config: dict[str, Any], probe: tuple[str, str, int], layers: list[str] | None
) -> Any:
    return outcome(wiring.run(config), probe, layers, ORIGINAL)


def _pairs(wiring: Wiring) -> list[int]:
    errors: list[Exception] = []
    for name, _, config in probes(wiring.base, shape_of(wiring.kind)):
        if name not in ("default both", "default legacy", "yarn both", "yarn legacy"):
            continue
        try:
            rotary = [width(module) for module, _, _ in wiring.run(config)]
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
    loaded = load({"model_type": kind, "architectures": [architecture], **fresh(config)})
    failed: list[Exception] = []

    def make() -> Any:
        try:
            return model_class(config=loaded, quant_config=None)
        except Exception as error:
            failed.append(error)
            raise

    made = build(make)
    layers = LAYERS.get(kind) or getattr(loaded.get_text_config(), "layer_types", None) or ["model"]
    seen = {layers[number % len(layers)] for _, number, _ in made if number is not None}
    if failed and seen and seen != set(layers):
        raise failed[0]  # the layers of one kind were made, those of another failed
    return made


def load(config: dict[str, Any]) -> Any:
    """The config as SGLang loads it."""
    loader = importlib.import_module("sglang.srt.utils.hf_transformers.config")
    loaded = in_folder(config, lambda folder: loader.get_config(folder, trust_remote_code=False))
    # As configs/model_config.py:908-913 does.
    loaded.encoder_only = loaded.language_only = loaded.language_model_only = False
    return loaded


if __name__ == "__main__":
    main()
