"""Wiring of mlx-lm: builds every model file and asks its rotary modules.

    python -m venv /tmp/mlx && /tmp/mlx/bin/pip install 'mlx[cpu]' numpy
    /tmp/mlx/bin/pip install --no-deps mlx-lm
    /tmp/mlx/bin/python -m scripts.wiring.mlx_lm

Runs on a Linux CPU. Models are built from a small config; mlx is lazy, so no weight is computed.
What the rotary module passes to `mx.fast.rope` for an input of ones gives frequencies and scale.
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import inspect
import math
import re
import sys
import types as python_types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx

from scripts.wiring.probes import (
    EXTENDED,
    SHORT_TEXT,
    SIZES,
    TYPES,
    describe,
    failure,
    fresh,
    probes,
)
from scripts.wiring.sizes import ABOUT_ROPE, LARGER, OWN, PARTIAL, shape_of
from scripts.wiring.table import arguments, summary, write
from yarncli.config.families.table import FAMILIES

MODELS = "mlx_lm.models"
# Model files that cannot be built here, read: the line that makes or leaves out the rotation.
_PLAIN = {"rope": "ignores", "types": dict.fromkeys(TYPES, "ignores"), "how": "read"}
READ: dict[str, dict[str, Any]] = {
    "olmo": {**_PLAIN, "spelling": "rope_scaling", "theta": 10000.0, "at": "olmo.py:60",
             "note": "needs the package ai2-olmo: SystemExit without"},
    "nanochat": {**_PLAIN, "spelling": "rope_scaling", "theta": 10000.0, "at": "nanochat.py:90"},
    "openelm": {**_PLAIN, "theta": 10000.0, "at": "openelm.py:78",
                "note": "reads rope_freq_constant"},
    "phixtral": {**_PLAIN, "theta": 10000.0, "at": "phixtral.py:42", "note": "no key for θ"},
    "hunyuan": {"rope": "refuses", "types": dict.fromkeys(TYPES, "refuses"), "how": "read",
                "at": "hunyuan.py:41,103", "note": "needs rope_scaling with alpha, factor, type",
                "alpha": "no limit"},
    "kimi_k3": {"rope": "none", "how": "read", "at": "kimi_k3.py"},
    "kimi_linear": {"rope": "none", "how": "read", "at": "kimi_linear.py"},
    "jamba": {"rope": "none", "how": "read", "at": "jamba.py"},
    "nemotron_h": {"rope": "none", "how": "read", "at": "nemotron_h.py"},
}  # fmt: skip
_calls: list[tuple[Any, ...]] = []
_read: list[type] = []


def main() -> None:
    """Write the table."""
    options = arguments(__doc__)
    only_models()
    version = options.version or importlib.metadata.version("mlx-lm")
    record()
    files = modules()
    found = {}
    for kind, module in sorted(files.items()):
        found[kind] = READ.get(module) or entry(kind, module)
        text = text_parts(kind, module, files)
        found[kind] |= {"text": text} if text else {}
        print(kind, found[kind].get("rope"), found[kind].get("note", ""), file=sys.stderr)
    write("mlx-lm", version, "run", found, others="unsupported", renamed=renamed())


def record(base: Any = None) -> None:
    """Note what reaches `mx.fast.rope`, and which classes, made from `base`, read the config."""
    mx.fast.rope = _recorded(mx.fast.rope)
    base = base or importlib.import_module(f"{MODELS}.base").BaseModelArgs
    from_dict = base.from_dict.__func__

    def noted(cls: type, params: Any) -> Any:
        _read.append(cls)
        return from_dict(cls, params)

    base.from_dict = classmethod(noted)


def only_models(name: str = "mlx_lm") -> Path:
    """Let the models of a package be imported without what the package itself imports.

    Returns:
        Its folder.
    """
    spec = importlib.util.find_spec(name)
    assert spec
    assert spec.submodule_search_locations
    package = python_types.ModuleType(name)
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules[name] = package
    return Path(package.__path__[0])


def modules() -> dict[str, str]:
    """Model type → name of its model file."""
    folder = Path(inspect.getfile(importlib.import_module(MODELS))).parent
    names = {path.stem for path in folder.glob("*.py")}
    source = (folder.parent / "utils.py").read_text(encoding="utf-8")
    table = re.search(r"MODEL_REMAPPING = \{(.*?)\n\}", source, re.S)
    assert table
    renamed = dict(re.findall(r'"([^"]+)": "([^"]+)"', table[1]))
    with_args = {n: n for n in names if "ModelArgs" in (folder / f"{n}.py").read_text("utf-8")}
    return {n: m for n, m in {**with_args, **renamed}.items() if n != "base"}


def renamed() -> dict[str, str]:
    """Class in `architectures` → the model type whose file is taken for it."""
    source = Path(str(sys.modules["mlx_lm"].__path__[0]), "utils.py").read_text(encoding="utf-8")
    table = re.search(r"MODEL_ARCHITECTURE_REMAPPING = \{(.*?)\n\}", source, re.S)
    return dict(re.findall(r'\("[^"]+", "([^"]+)"\): "([^"]+)"', table[1])) if table else {}


def text_parts(kind: str, name: str, files: dict[str, str]) -> dict[str, str]:
    """For a multimodal model: model type of its text part → the model type whose row counts.

    The types are those that the file names, those whose file it imports, and its own.
    """
    source = Path(str(sys.modules["mlx_lm"].__path__[0]), "models", f"{name}.py").read_text("utf-8")
    if "text_config" not in source:
        return {}
    named = re.findall(r'text_config\.get\("model_type"\) == "(\w+)"', source)
    taken = re.findall(r"\b(\w+)\.Model\(", source)
    taken += re.findall(r"^from \.(\w+) import \w*Model\b", source, re.M)
    inner = next((file for file in taken if file not in named), name)
    same = [k for k, file in files.items() if file == inner and not k.endswith("_text")]
    family = FAMILIES.get(kind)
    own = [f"{kind}_text", *([family.text_type] if family and family.text_type else [])]
    return dict.fromkeys([*own, *same], kind) | {k: k for k in named}


def entry(kind: str, name: str) -> dict[str, Any]:
    """The table's entry of one model type."""
    try:
        module = importlib.import_module(f"{MODELS}.{name}")
    except (Exception, SystemExit) as error:
        return {"rope": "refuses", "note": failure(error)}
    return measured(kind, name, lines_of(Path(module.__file__ or "")), partial(build, module))


Build = Callable[[str, dict[str, Any]], Any]


def measured(kind: str, name: str, evidence: str, make: Build) -> dict[str, Any]:
    """The entry of a model type whose models `make` builds from a name and a config."""
    sizes = {**SIZES, **LARGER, **OWN.get(kind, OWN.get(name, {}))}
    try:
        pairs = _pairs(make, kind, sizes)
    except Exception as error:
        word = "none" if isinstance(error, LookupError) and not evidence else "unknown"
        return {"rope": word, "at": evidence or f"{name}.py", "note": failure(error)}
    outcomes: dict[str, Any] = {}
    for probe, asked, config in probes(sizes, shape_of(kind, pairs)):
        outcomes[probe] = _outcome(make, kind, (asked, probe, 2 * pairs), config)
    part = PARTIAL.get(kind)
    ignored = part is not None and 2 * pairs != int(sizes["head_dim"] * part)
    return {
        "outcomes": outcomes,
        **summary(outcomes),
        "dim": 2 * pairs,
        **({"part": "ignored"} if ignored else {}),
        **fields(),
        "at": evidence or f"{name}.py",
    }


def fields() -> dict[str, Any]:
    """Of the class that read the text part last: keys without a default, and some defaults."""
    missing = dataclasses.MISSING
    for args in reversed(_read):
        found = {field.name: field for field in dataclasses.fields(args)}
        if not {"hidden_size", "d_model", "hidden_dim"} & found.keys():
            continue
        bare = (n for n, f in found.items() if f.default is f.default_factory is missing)
        theta = getattr(found.get("rope_theta"), "default", None)
        default: dict[str, Any] = {"default_theta": theta} if isinstance(theta, int | float) else {}
        pattern = getattr(found.get("sliding_window_pattern"), "default", None)
        if isinstance(pattern, int):
            default["layers"] = {"pattern": pattern, "types": "layer_types" in found}
        return {"needs": sorted(bare), **default}
    return {}


def _pairs(make: Build, kind: str, sizes: dict[str, Any]) -> int:
    """How many frequencies the full layers have, from the first plain config that works."""
    errors: list[Exception] = []
    plain = ("default both", "default legacy", "yarn both", "yarn legacy")
    for _, _, config in (p for p in probes(sizes, shape_of(kind)) if p[0] in plain):
        try:
            return max(len(m[0][0]) for m in _measure(make, kind, config))
        except Exception as problem:
            errors.append(problem)
    raise errors[1]  # that of "default both"


def filled(args_class: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The config with a value for every field that the class insists on."""
    found = dict(config)
    for field in dataclasses.fields(args_class):
        absent = field.default is field.default_factory is dataclasses.MISSING
        if absent and field.name not in found and not ABOUT_ROPE.search(field.name):
            words = str(field.type)
            by_type = {"bool": False, "int": 2, "float": 1.0, "str": "silu", "ist": [], "ict": {}}
            found[field.name] = next((v for w, v in by_type.items() if w in words), None)
    return found


def lines_of(file: Path) -> str:
    """Where the file makes its rotary module."""
    made = re.compile(r"(?<!class )\b(\w*RoPE|initialize_rope|fast\.rope)\(")
    lines = file.read_text(encoding="utf-8").splitlines()
    found = [str(i) for i, line in enumerate(lines, 1) if made.search(line)]
    name = file.name
    if not found:
        inner = re.findall(r"^from \. import (\w+)|^from \.(\w+) import", "\n".join(lines), re.M)
        files = [a or b for a, b in inner if (a or b) not in ("base", "cache")]
        return f"{name} → {', '.join(files)}" if "text_config" in "\n".join(lines) else ""
    return f"{name}:{','.join(found)}"


def _outcome(make: Build, kind: str, probe: tuple[str, str, int], config: dict[str, Any]) -> Any:
    asked, name, dim = probe
    try:
        measured = _measure(make, kind, config)
    except Exception as error:
        return failure(error)
    lines: dict[str, str] = {}
    for long, short, softmax, scope in measured:
        lines.setdefault(scope, describe(asked, name, long, short, softmax, dim))
    distinct = set(lines.values())
    return distinct.pop() if len(distinct) == 1 else dict(sorted(lines.items()))


def build(module: Any, kind: str, config: dict[str, Any]) -> Any:
    """The model of a file, from the config of its text part."""
    args_class = module.ModelArgs
    names = {field.name for field in dataclasses.fields(args_class)}
    nested = next((n for n in ("text_config", "language_config") if n in names), None)
    if nested:
        classes = [
            c for n, c in vars(module).items() if n.startswith("Text") and inspect.isclass(c)
        ]
        inner = filled(classes[0], config) if classes else config
        config = {"model_type": kind, nested: {**inner, "model_type": f"{kind}_text"}, **SIZES}
    return module.Model(args_class.from_dict(filled(args_class, config)))


def _measure(make: Build, kind: str, config: dict[str, Any]) -> list[Any]:
    """For every rotary module of the model: long and short (frequencies, scale), softmax, scope."""
    model = make(kind, {**fresh(config), "model_type": kind})
    found = []
    for path, part in model.named_modules():
        if not re.search("rope|rotary", type(part).__name__, re.I):
            continue
        if any(word in path for word in ("indexer", "vision", "visual", "compressor")):
            continue
        long, short = _call(part, EXTENDED), _call(part, SHORT_TEXT)
        layer = re.search(r"layers\.(\d+)", path)
        scope = _scope(layer, path)
        found.append((long, short, _softmax(model, path), scope))
    if not found:
        raise LookupError("no rotary module in the model")
    return found


def _scope(layer: re.Match[str] | None, path: str) -> str:
    if layer is None:
        return "full_attention" if "local" not in path else "sliding_attention"
    return SIZES["layer_types"][int(layer[1]) % 4]


def _softmax(model: Any, path: str) -> float:
    """The softmax scale times √d of an MLA attention; 1 for others."""
    owner: Any = model
    for step in path.split(".")[:-1]:
        owner = owner[int(step)] if isinstance(owner, list) else getattr(owner, step)
    if not hasattr(owner, "kv_lora_rank") or not hasattr(owner, "scale"):
        return 1.0
    width = getattr(owner, "q_head_dim", None) or getattr(owner, "qk_head_dim", None)
    return float(owner.scale) * math.sqrt(width) if width else 1.0


def _call(part: Any, length: int) -> tuple[list[float], float]:
    """Frequencies and scale of a rotary module for a text of `length` tokens."""
    names = ("_frequencies", "inv_freq", "_inv_freq", "original_inv_freq")
    own = next((found for n in names if (found := getattr(part, n, None)) is not None), None)
    if own is not None:  # cos and sin are computed from these, without mx.fast.rope
        scale = float(getattr(part, "_scale", 1.0))
        return [scale * f for f in own.tolist()], float(getattr(part, "attention_scaling", 1.0))
    _calls.clear()
    width = next((w for w in (getattr(part, n, None) for n in ("dims", "dim")) if w), 64)
    part(mx.ones((1, 1, 1, int(width))), offset=length - 1)
    (x, dims, base, scale, freqs) = _calls[-1]
    amplitude = float(x.reshape(-1)[0].item())
    if freqs is not None:
        return [scale / f for f in freqs.tolist()], amplitude
    return [scale * float(base) ** (-2 * i / dims) for i in range(dims // 2)], amplitude


def _recorded(rope: Any) -> Any:
    def record(
        x: Any, dims: int, *, traditional: bool = False, base: Any = None, scale: float = 1.0,
        offset: Any = 0, freqs: Any = None, **rest: Any,
    ) -> Any:  # fmt: skip
        _calls.append((x, dims, base, scale, freqs))
        return rope(
            x, dims, traditional=traditional, base=base, scale=scale, offset=offset, freqs=freqs
        )

    return record


if __name__ == "__main__":
    main()
