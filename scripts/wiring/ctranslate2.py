"""Wiring of CTranslate2: what its Transformers converter reads, from its source.

    pip download --no-deps ctranslate2 && unzip ctranslate2-*.whl '*.py' '*METADATA' -d /tmp/ct2
    python -m scripts.wiring.ctranslate2 --package /tmp/ct2

Nothing is run. A loader that calls `get_rotary_params` takes linear, su, longrope and llama3 and
raises NotImplementedError for the rest; one that only names `rotary_dim` rotates without scaling.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from scripts.wiring.probes import TYPES
from scripts.wiring.table import arguments, write


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel")
    folder = Path(options.package)
    info = next(folder.glob("ctranslate2-*.dist-info")).name
    version = info.removeprefix("ctranslate2-").removesuffix(".dist-info")
    path = folder / "ctranslate2" / "converters" / "transformers.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    loaders = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    known = _model_types()
    found = {}
    for node in loaders.values():
        for name in _registered(node):
            if name in known:
                found[known[name]] = {"class": node.name, **_entry(node, loaders)}
    function = {"get_rotary_params": _line(loaders["ModelLoader"], "get_rotary_params")}
    write(
        "ctranslate2",
        options.version or version,
        "read",
        found,
        functions=function,
        note="θ comes from the dict wherever rope_scaling is truthy, not from the top level",
    )


def _model_types() -> dict[str, str]:
    """Config class → model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    return {name: kind for kind, name in CONFIG_MAPPING_NAMES.items()}


def _registered(node: ast.ClassDef) -> list[str]:
    """The config classes that a loader is registered for."""
    calls = [d for d in node.decorator_list if isinstance(d, ast.Call)]
    return [c.args[0].value for c in calls if c.args and isinstance(c.args[0], ast.Constant)]


def _line(node: ast.AST, name: str) -> int:
    """The line of the first call of a function, or of the function itself; 0 without."""
    for item in ast.walk(node):
        called = getattr(getattr(item, "func", None), "attr", None)
        if called == name or getattr(item, "name", None) == name:
            return int(item.lineno)
    return 0


def _entry(node: ast.ClassDef, loaders: dict[str, ast.ClassDef]) -> dict[str, Any]:
    own = node
    line = _line(own, "get_rotary_params")
    if not _line(own, "get_model_spec"):  # that of the class it is derived from
        bases = [loaders[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in loaders]
        if bases:
            return _entry(bases[0], loaders)
    text = ast.unparse(own)
    if line or "_SUPPORTED_ROPE_SCALING" in text:
        llama3 = "reads" if "RotaryScalingType.Llama3" in text else "differs"
        types = {"linear": "reads", "dynamic": "refuses", "yarn": "refuses", "llama3": llama3}
        longrope = "reads" if "long_factor" in text else "differs"
        at = f"transformers.py:{line or own.lineno}"
        return {"rope": "mixed", "types": {**types, "longrope": longrope}, "at": at}
    if "rotary_dim" in text:
        types = dict.fromkeys(TYPES, "ignores")
        return {"rope": "ignores", "types": types, "at": f"transformers.py:{own.lineno}"}
    return {"rope": "none", "at": f"transformers.py:{own.lineno}"}


if __name__ == "__main__":
    main()
