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
from typing import Any

from scripts.wiring import stubs
from scripts.wiring.probes import describe, failure, fresh, probes
from scripts.wiring.sizes import config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, update, write
from scripts.wiring.torch_engines import tried

# Where a config class keeps its rope settings → the scope of the layers that get them.
_SETTINGS = {
    "rope_settings": "full_attention",
    "rope_settings_global": "full_attention",
    "rope_settings_local": "sliding_attention",
}


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
    if architecture not in classes:
        return {"rope": "unsupported", "note": architecture}
    config_class = classes[architecture]
    file = config_class.__module__.rpartition(".")[2] + ".py"
    found = {"class": architecture, "at": file}
    try:
        pairs = _pairs(kind, base, architecture, config_class)
    except Exception as error:
        return {"rope": "unknown", **found, "note": failure(error)}
    outcomes: dict[str, Any] = {}
    for name, asked, config in probes(base, shape_of(kind, pairs)):
        outcomes[name] = tried(
            lambda c=config, probe=(asked, name, 2 * pairs): _lines(
                _run(kind, architecture, config_class, c), probe
            )
        )
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def _pairs(kind: str, base: dict[str, Any], architecture: str, config_class: Any) -> int:
    errors: list[Exception] = []
    for name, _, config in probes(base, shape_of(kind)):
        if name not in ("default both", "default legacy", "yarn both"):
            continue
        try:
            made = _run(kind, architecture, config_class, config)
            return max(len(rope.inv_freq) for rope, _ in made.values())
        except Exception as error:
            errors.append(error)
    raise errors[0]


def _lines(made: dict[str, tuple[Any, float]], probe: tuple[str, str, int]) -> Any:
    asked, name, dim = probe
    lines = {}
    for scope, (rope, softmax) in made.items():
        long = rope.inv_freq.tolist(), float(rope.attn_factor)
        lines[scope] = describe(asked, name, long, None, softmax, dim)
    distinct = set(lines.values())
    return distinct.pop() if len(distinct) == 1 else lines


def _run(
    kind: str, architecture: str, config_class: Any, config: dict[str, Any]
) -> dict[str, tuple[Any, float]]:
    """Scope → the rope that exllamav3 makes for it, and the softmax scale times √d."""
    rope = importlib.import_module("exllamav3.util.rope")
    raw = {**fresh(config), "model_type": kind, "architectures": [architecture]}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "config.json").write_text(json.dumps(raw), encoding="utf-8")
        loaded = config_class(folder)
    softmax = 1.0
    scale, width = getattr(loaded, "sm_scale", None), getattr(loaded, "qk_head_dim", None)
    if isinstance(scale, float) and isinstance(width, int):
        softmax = scale * math.sqrt(width)
    found = {}
    for name, scope in _SETTINGS.items():
        settings = getattr(loaded, name, None)
        if isinstance(settings, rope.RopeSettings):
            found[scope] = rope.RoPE("cpu", settings), softmax
    for number, settings in enumerate(getattr(loaded, "rope_settings_list", ())):
        found.setdefault(loaded.layer_types[number], (rope.RoPE("cpu", settings), softmax))
    if not found:
        raise LookupError("no rope settings in the config class")
    return found


if __name__ == "__main__":
    main()
