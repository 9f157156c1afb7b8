"""Wiring of ONNX Runtime GenAI: builds its model builders and asks them for their cos/sin caches.

    pip download --no-deps onnxruntime-genai
    unzip onnxruntime_genai-*.whl '*.py' '*METADATA' -d /tmp/og
    python -m scripts.wiring.onnxruntime_genai --package /tmp/og

Needs torch and transformers 5. The config is loaded by `AutoConfig`, as `builder.py` does; which
builder takes an architecture is read from `create_model`. The graph library is a stub: only the
builder's `__init__` and its `make_rotary_embedding_caches_from_scratch` run.
"""

from __future__ import annotations

import ast
import importlib
import logging
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from scripts.wiring import own_code, stubs
from scripts.wiring.probes import describe, failure, fresh, probes
from scripts.wiring.sizes import config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, update, write
from scripts.wiring.text_parts import class_for, wrapped
from scripts.wiring.torch_engines import in_folder, tried

# Builders of several graphs → that of the text part (builders/qwen.py:885, 1684).
_TEXT_PARTS = {"Qwen35MoEModel": "Qwen35MoETextModel", "Qwen35Model": "Qwen35TextModel"}

# What their builders do after the shared part was not followed up.
_NOT_FOLLOWED = ("chatglm", "phi3_v", "phi4mm")

# The config classes of transformers 5.23 give the widths of these by layer, and refuse an access
# to one width for all, which the builder asks for; published files have two widths.
_BY_LAYER = {
    "gemma4_text": {"global_head_dim": 128},
    "gemma4_unified_text": {"global_head_dim": 128},
}


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel", only="model types")
    folder = Path(options.package)
    version = prepare(folder)
    version = options.version or version
    own_code.register(own_code.NAMED)
    builders = architectures(folder / "onnxruntime_genai" / "models" / "builder.py")
    chosen = options.only.split(",") if options.only else sorted(model_types(own_code.NAMED))
    found = {kind: entry(kind, builders) for kind in chosen}
    for kind, item in found.items():
        for name, line in (item.get("outcomes", {}) if options.only else {}).items():
            print(f"{kind:16} {name:40} {line}")
    if options.only:
        update("onnxruntime-genai", found)
    else:
        write("onnxruntime-genai", version, "run", found, architectures=sorted(builders))


def prepare(folder: Path) -> str:
    """Make the builders importable with stubs; the version."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    for name in ("processing_utils", "models.auto.modeling_auto"):
        importlib.import_module(f"transformers.{name}")  # before anything is a stub
    stubs.install(("onnx_ir", "onnxruntime", "onnx", "onnxscript", "quantization", "torchvision"))
    models = folder / "onnxruntime_genai" / "models"
    sys.path.insert(0, str(models))
    info = next(folder.glob("onnxruntime_genai-*.dist-info"))
    return info.name.removeprefix("onnxruntime_genai-").removesuffix(".dist-info")


def architectures(path: Path) -> dict[str, tuple[str, int]]:
    """Architecture → the name of its builder, and the line of `create_model`."""
    found: dict[str, tuple[str, int]] = {}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.If):
            continue
        names = [c.value for c in ast.walk(node.test) if isinstance(c, ast.Constant)]
        made = [
            call.value.func.id
            for call in node.body
            if isinstance(call, ast.Assign)
            and isinstance(call.value, ast.Call)
            and isinstance(call.value.func, ast.Name)
            and isinstance(call.targets[0], ast.Name)
            and call.targets[0].id == "onnx_model"
        ]
        for name in names:
            if made and isinstance(name, str) and name.endswith(("LM", "Generation", "Model")):
                # Phi-3 has two builders: the one for texts beyond the original window wins.
                found[name] = made[-1], node.lineno
    return found


def entry(kind: str, builders: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """The table's entry of one model type."""
    base, usual = config_for(kind)
    wrapper, architecture = class_for(kind, usual, builders)
    if architecture not in builders:
        return {"rope": "unsupported", "note": architecture}
    name, line = builders[architecture]
    found = {"class": architecture, "builder": name, "at": f"builder.py:{line}"}
    if kind in _NOT_FOLLOWED:
        return {"rope": "unknown", **found, "note": "its own part of the builder was not followed"}

    def file(config: dict[str, Any]) -> dict[str, Any]:
        published = own_code.as_published(kind, fresh(config))
        return wrapped(kind, wrapper, architecture, published)

    run = partial(_run, file, _builder(name))
    base |= _BY_LAYER.get(kind, {})
    pairs, problem = 0, ""
    for probe, _, config in probes(base, shape_of(kind)):
        if probe in ("default both", "default legacy", "yarn both"):
            try:
                pairs = len(run(config)[0])
                break
            except Exception as error:
                problem = problem or failure(error)
                # An attribute that this transformers does not have says nothing about RoPE.
                is_answer = _in_rope(error) and not isinstance(error, AttributeError)
                pairs = pairs or (32 if is_answer or kind in _BY_LAYER else 0)
    if not pairs:
        return {"rope": "unknown", **found, "note": problem}
    outcomes = {}
    for probe, asked, config in probes(base, shape_of(kind, pairs)):
        outcomes[probe] = tried(
            lambda c=config, a=asked, p=probe: describe(a, p, *_pair(run(c)), dim=2 * pairs)
        )
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def _pair(given: tuple[Any, ...]) -> tuple[Any, Any]:
    freqs, scale, *short = given
    return (freqs, scale), (tuple(short) if short else None)


def _builder(name: str) -> Any:
    """The class that makes the text part's graph."""
    builders = importlib.import_module("builders")
    return getattr(builders, _TEXT_PARTS.get(name, name))


def _run(file: Any, builder: Any, config: dict[str, Any]) -> tuple[Any, ...]:
    """Frequencies and scale of the caches that a builder makes; of the short ones too.

    Args:
        file: a probe's config → the whole of `config.json`.
        builder: the class.
        config: of the text part.
    """
    from transformers import AutoConfig

    loaded = in_folder(file(config), lambda folder: AutoConfig.from_pretrained(folder))
    _require_known_type(loaded.get_text_config())
    model = builder.__new__(builder)
    problem: Exception | None = None
    try:
        builder.__init__(model, loaded, stubs.Stub(), stubs.Stub(), "cpu", "", {})
    except Exception as error:
        problem = error
    if "rope_attrs" not in vars(model) or _in_rope(problem):
        raise problem or LookupError("no rope_attrs")
    lists = model.rope_attrs.get("multi_cache")
    if not lists:
        return _numbers(model)
    model.rope_attrs |= {"rescale_factors": lists["long_factor"], "mscale": lists["long_mscale"]}
    long = _numbers(model)
    model.rope_attrs |= {"rescale_factors": lists["short_factor"], "mscale": lists["short_mscale"]}
    return (*long, *_numbers(model))


def _require_known_type(text: Any) -> None:
    """Fail as transformers' model does, which `make_model` builds for its weights."""
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = (getattr(text, "rope_parameters", None) or {}).get("rope_type", "default")
    if kind != "default":
        ROPE_INIT_FUNCTIONS[kind]


def _in_rope(problem: Exception | None) -> bool:
    trace = problem.__traceback__ if problem else None
    while trace is not None:
        if trace.tb_frame.f_code.co_name in ("make_rope_init", "make_mscale", "make_config_init"):
            return True
        trace = trace.tb_next
    return False


def _numbers(model: Any) -> tuple[list[float], float]:
    import torch

    model.rope_attrs["cache_length"] = 2
    cos, sin = (t.double() for t in model.make_rotary_embedding_caches_from_scratch())
    half = int(model.rope_attrs["partial_rotary_factor"] * model.head_size) // 2
    freqs = torch.atan2(sin[1, :half], cos[1, :half])
    return freqs.tolist(), float(torch.hypot(cos[1, 0], sin[1, 0]))


if __name__ == "__main__":
    main()
