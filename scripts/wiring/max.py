"""Wiring of MAX: which RoPE types the config of each of its architectures looks at, from source.

    pip download --no-deps max && unzip max-*.whl '*.py' '*METADATA' -d /tmp/max
    python -m scripts.wiring.max --package /tmp/max

Nothing is run. A type that no comparison names is not scaled; where a comparison with `!=` raises,
all others are refused.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from scripts.wiring.probes import TYPES
from scripts.wiring.table import arguments, write

_EQUAL = re.compile(r"\brope\w*type\w* == \"(\w+)\"")
_ONLY = re.compile(r"\brope\w*type\w* != \"(\w+)\"")


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel")
    folder = Path(options.package)
    info = next(folder.glob("max-*.dist-info")).name
    version = info.removeprefix("max-").removesuffix(".dist-info")
    root = folder / "max" / "pipelines" / "architectures"
    known = _model_types()
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(root.glob("*/arch.py")):
        for name in re.findall(r"^    name=\"(\w+)\"", path.read_text(encoding="utf-8"), re.M):
            for kind in known.get(name, ()):
                found[kind] = {"class": name, **_entry(path.parent)}
    write("max", options.version or version, "read", found)


def _model_types() -> dict[str, list[str]]:
    """Architecture → model types."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    found: dict[str, list[str]] = {}
    for kind, name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items():
        found.setdefault(name, []).append(kind)
    return found


def _entry(folder: Path) -> dict[str, Any]:
    """What the files of an architecture, or those its config is derived from, compare with."""
    for path in (folder, *_bases(folder)):
        for file in sorted(path.glob("*.py")):
            text = file.read_text(encoding="utf-8")
            named, only = set(_EQUAL.findall(text)), set(_ONLY.findall(text))
            if not named | only:
                continue
            first = (_EQUAL.search(text) or _ONLY.search(text)).start()
            at = f"{path.name}/{file.name}:{text.count(chr(10), 0, first) + 1}"
            rest = "refuses" if only and "raise" in text else "ignores"
            types = {k: "reads" if k in named | only else rest for k in TYPES}
            return {"rope": "mixed", "types": types, "at": at}
    return {"rope": "unknown", "at": folder.name}


def _bases(folder: Path) -> list[Path]:
    """Architectures whose config class a config class here is derived from."""
    config = folder / "model_config.py"
    if not config.exists():
        return []
    text = config.read_text(encoding="utf-8")
    names = re.findall(
        r"from (?:\.\.|max\.pipelines\.architectures\.)(\w+)\.model_config import", text
    )
    return [folder.parent / name for name in dict.fromkeys(names)]


if __name__ == "__main__":
    main()
