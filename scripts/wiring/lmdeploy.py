"""Wiring of LMDeploy's two engines: what each reads of a config.

    pip download --no-deps lmdeploy==0.18.0
    unzip lmdeploy-*.whl '*.py' '*METADATA' -d /tmp/lmdeploy
    python -m scripts.wiring.lmdeploy --package /tmp/lmdeploy

Needs torch and transformers (5.x). PyTorch engine: `build_rotary_embedding_from_config` and the
rotary classes of its default backend run on a CPU, for the architectures whose model file calls it.
TurboMind: `parse_rope_param` runs; its kernel is C++, so the frequencies of the parsed values are
computed by their formula (no truncate, betas and attention factor as parsed).
"""

from __future__ import annotations

import ast
import importlib
import logging
import re
import warnings
from functools import partial
from pathlib import Path
from typing import Any

from scripts.wiring import own_code, stubs
from scripts.wiring.probes import EXTENDED, SHORT_TEXT, describe, failure, fresh, probes
from scripts.wiring.sizes import config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, update, write
from scripts.wiring.text_parts import class_for, wrapped
from scripts.wiring.torch_engines import in_folder, tolerate_stubs, tried
from yarncli.rope.parameters import RopeParameters

ROTARY = "lmdeploy.pytorch.nn.rotary_embedding"
_SHARED = "build_rotary_embedding_from_config"
_MLA_FILES = ("deepseek_v2", "deepseek_v32", "glm_moe_dsa")


def main() -> None:
    """Write the two tables."""
    options = arguments(__doc__, package="folder of the unpacked wheel", only="model types")
    folder = Path(options.package)
    version = prepare(folder)
    version = options.version or version
    root = folder / "lmdeploy"
    files = torch_files(root)
    own_code.register(own_code.NAMED)
    importlib.import_module("lmdeploy.hf_configs").register_config("kimi_k2")
    chosen = options.only.split(",") if options.only else sorted(model_types(own_code.NAMED))
    torch_types = {kind: torch_entry(kind, files) for kind in chosen}
    supported = turbomind_architectures(root)
    types = {kind: turbomind_entry(kind, supported) for kind in chosen}
    if options.only:
        update("lmdeploy-pytorch", torch_types)
        update("lmdeploy-turbomind", types)
        return
    write("lmdeploy-pytorch", version, "run", torch_types, architectures=sorted(files))
    write("lmdeploy-turbomind", version, "run", types, architectures=sorted(supported))


def prepare(folder: Path) -> str:
    """Make the parts that are run importable; the version."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    for name in ("processing_utils", "models.auto.modeling_auto"):
        importlib.import_module(f"transformers.{name}")  # before anything is a stub
    tolerate_stubs()
    root = folder / "lmdeploy"
    backends = "lmdeploy.pytorch.backends"
    kept = (ROTARY, f"{backends}.rotary_embedding", f"{backends}.default.rotary_embedding",
            "lmdeploy.hf_configs", "lmdeploy.turbomind.models.utils")  # fmt: skip
    base = {"BuildSpec": _BuildSpec}
    stubs.install(("lmdeploy", "_turbomind"), kept, {f"{backends}.base": base})
    for name in ("", ".pytorch", ".pytorch.nn", ".pytorch.backends.default", ".turbomind",
                 ".turbomind.models"):  # fmt: skip
        stubs.package(f"lmdeploy{name}", str(root / name.replace(".", "/").lstrip("/")))
    stubs.package(backends, str(root / "pytorch/backends"), get_backend=lambda: _Backend)
    info = next(folder.glob("lmdeploy-*.dist-info"))
    return info.name.removeprefix("lmdeploy-").removesuffix(".dist-info")


class _BuildSpec:
    def __class_getitem__(cls, item: Any) -> Any:
        return cls


class _Backend:
    @staticmethod
    def build_op(spec: Any, **_: Any) -> Any:
        name = "lmdeploy.pytorch.backends.default.rotary_embedding"
        return importlib.import_module(name)._build_rotary_embedding(spec)


def torch_files(root: Path) -> dict[str, str]:
    """Architecture → model file, as `module_map.py` has it."""
    source = (root / "pytorch/models/module_map.py").read_text(encoding="utf-8")
    found = re.findall(r"'(\w+)':\s*f'\{LMDEPLOY_PYTORCH_MODEL_PATH\}\.(\w+)\.\w+'", source)
    names = dict(found)
    folder = root / "pytorch/models"
    return {arch: str(folder / f"{name}.py") for arch, name in names.items()}


def torch_entry(kind: str, files: dict[str, str]) -> dict[str, Any]:
    """The PyTorch engine's entry of one model type."""
    base, usual = config_for(kind)
    wrapper, architecture = class_for(kind, usual, files)
    if architecture not in files:
        return {"rope": "unsupported", "note": architecture}
    if kind == "minicpmv":
        note = "minicpmv26.py is for version 2.6; others were not followed up"
        return {"rope": "unknown", "class": architecture, "note": note}
    path = Path(files[architecture])
    calls = _calls(path)
    at = f"{path.name}:{','.join(map(str, calls.values()))}"
    # gemma.py has a branch of its own for configs that are nested by layer type.
    is_nested = "build_rotary_embedding" in calls and shape_of(kind).scaled
    if is_nested or not {_SHARED, "build_rotary_params"} & calls.keys():
        return {"rope": "own", "at": at, "how": "read", "class": architecture}
    file = partial(_file, kind, wrapper, architecture)
    run = partial(_torch_numbers, path.stem in _MLA_FILES)
    return _entry(kind, file, base, run, {"class": architecture, "at": at})


def _calls(path: Path) -> dict[str, int]:
    """The rotary functions that a model file calls → line; of files that it builds on, too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wanted = (_SHARED, "build_rotary_params", "build_rotary_embedding")
    found = {}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in wanted
        ):
            found.setdefault(node.func.id, node.lineno)
    if not found:
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                other = path.with_name(f"{node.module.rpartition('.')[2]}.py")
                if other.exists() and other != path and "rotary" in other.read_text("utf-8"):
                    found |= _calls(other)
    return found


def _torch_numbers(is_mla: bool, loaded: Any) -> tuple[Any, Any, float]:
    """Long and short (frequencies, scale) of the PyTorch engine, and its softmax scale × √d."""
    import torch

    rotary = importlib.import_module(ROTARY)
    text = loaded.get_text_config()
    width = getattr(text, "qk_rope_head_dim", None)
    if width:
        text.head_dim = width
    module = rotary.build_rotary_embedding_from_config(text)
    module = getattr(module, "impl", module)
    found = []
    for length in (EXTENDED, SHORT_TEXT):
        # The last position fixes dynamic and longrope, position 1 tells the frequencies.
        cos, sin = module(torch.zeros(1, 1, 1), torch.tensor([[1, length - 1]]))
        half = cos.shape[-1] // 2
        a, b = cos[0, 0, :half].double(), sin[0, 0, :half].double()
        found.append((torch.atan2(b, a).tolist(), float(torch.hypot(a, b)[0])))
    block = rotary.get_rope_parameters(text) or {}
    return found[0], found[1], _softmax(block) if is_mla else 1.0


def _softmax(block: Any) -> float:
    """m(factor · mscale_all_dim)²: pytorch/models/deepseek_v2.py:467, turbomind utils.py:278."""
    get_mscale = importlib.import_module("lmdeploy.turbomind.models.utils")._get_mscale
    all_dim = block.get("mscale_all_dim")
    return float(get_mscale(block.get("factor", 1.0), all_dim) ** 2) if all_dim else 1.0


def turbomind_architectures(root: Path) -> set[str]:
    """The keys of `SUPPORTED_ARCHS`."""
    source = (root / "turbomind/supported_models.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        value = getattr(node, "value", None)
        if isinstance(value, ast.Call) and value.keywords:
            return {word.arg for word in value.keywords if word.arg}
    return set()


def turbomind_entry(kind: str, supported: set[str]) -> dict[str, Any]:
    """TurboMind's entry of one model type."""
    base, usual = config_for(kind)
    wrapper, architecture = class_for(kind, usual, supported)
    if architecture not in supported:
        return {"rope": "unsupported", "note": architecture}
    at = {"class": architecture, "at": "turbomind/models/utils.py:76"}
    file = partial(_file, kind, wrapper, architecture)
    return _entry(kind, file, base, _turbomind_numbers, at)


def _turbomind_numbers(loaded: Any) -> tuple[Any, Any, float]:
    parse = importlib.import_module("lmdeploy.turbomind.models.utils").parse_rope_param
    text = loaded.get_text_config()
    head = getattr(text, "qk_rope_head_dim", None) or getattr(text, "head_dim", None)
    found, maximum = parse(text, head or text.hidden_size // text.num_attention_heads)
    keys = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")
    fields = {k: v for k in keys if (v := getattr(found, k)) is not None}
    if found.type == "yarn":
        fields |= {"beta_fast": found.beta_fast, "beta_slow": found.beta_slow,
                   "original_max_position_embeddings": found.max_position_embeddings}  # fmt: skip
    if found.type in ("default", "linear", "dynamic"):
        fields.pop("original_max_position_embeddings", None)
    p = RopeParameters(
        rope_type=found.type, rope_theta=found.base, head_dim=found.dim,
        max_position_embeddings=maximum, **fields,
    )  # fmt: skip
    scale, softmax = 1.0, 1.0
    if found.type == "yarn":
        scale = float(found.attention_factor)
        softmax = _softmax(text.rope_parameters) if hasattr(text, "kv_lora_rank") else 1.0
    return (p.inv_freq(EXTENDED), scale), (p.inv_freq(SHORT_TEXT), scale), softmax


def _entry(
    kind: str, file: Any, base: dict[str, Any], run: Any, found: dict[str, Any]
) -> dict[str, Any]:
    pairs, problem = 0, ""
    for probe, _, config in probes(base, shape_of(kind)):
        if probe in ("default both", "default legacy", "yarn both"):
            try:
                pairs = len(run(_load(file, config))[0][0])
                break
            except Exception as error:
                problem = problem or failure(error)
    if not pairs:
        return {"rope": "unknown", **found, "note": problem}
    outcomes = {}
    for probe, asked, config in probes(base, shape_of(kind, pairs)):
        outcomes[probe] = tried(
            lambda c=config, a=asked, p=probe: describe(a, p, *run(_load(file, c)), dim=2 * pairs)
        )
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def _file(kind: str, wrapper: str | None, architecture: str, config: dict[str, Any]) -> Any:
    return wrapped(kind, wrapper, architecture, own_code.as_published(kind, config))


def _load(file: Any, config: dict[str, Any]) -> Any:
    from transformers import AutoConfig

    return in_folder(file(fresh(config)), lambda folder: AutoConfig.from_pretrained(folder))


if __name__ == "__main__":
    main()
