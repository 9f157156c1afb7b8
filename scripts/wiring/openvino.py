"""Wiring of OpenVINO through optimum-intel: the model types it exports, from its source.

    pip download --no-deps optimum-intel && unzip optimum_intel-*.whl -d /tmp/ov
    python -m scripts.wiring.openvino --package /tmp/ov

Nothing is run. It traces the model of the installed transformers, so what that computes is what the
graph computes; longrope has a forward function of its own. `transformers` of an entry is the newest
release that its config class allows, where the package as a whole would allow a newer one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from scripts.wiring.sizes import model_types
from scripts.wiring.table import arguments, write
from scripts.wiring.text_parts import wrappers_of


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel")
    folder = Path(options.package)
    info = next(folder.glob("optimum_intel-*.dist-info"))
    version = info.name.removeprefix("optimum_intel-").removesuffix(".dist-info")
    path = folder / "optimum" / "exporters" / "openvino" / "model_configs.py"
    text = path.read_text(encoding="utf-8")
    newest = _newest(text)
    lines, classes = {}, {}
    for match in re.finditer(r"register_in_tasks_manager\(\s*\"([\w-]+)\"", text):
        kind = match[1].replace("-", "_")
        lines.setdefault(kind, text.count("\n", 0, match.start()) + 1)
        named = re.compile(r"^class (\w+)", re.M).search(text, match.end())
        classes.setdefault(kind, named[1] if named else "")
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted(model_types()):
        name = next((k for k in (kind, *wrappers_of(kind)) if k in lines), None)
        if name is None:
            found[kind] = {"rope": "unsupported"}
            continue
        at = f"model_configs.py:{lines[name]}"
        found[kind] = {"rope": "backend", "backend": "transformers", "at": at}
        if classes[name] in newest:
            found[kind]["transformers"] = newest[classes[name]]
    needs = re.search(
        r"Requires-Dist: (transformers[^;\n]*)", (info / "METADATA").read_text("utf-8")
    )
    own = {"longrope": "model_patcher.py: _longrope_forward"}
    version = options.version or version
    rest = {"functions": own, "needs": needs[1] if needs else "", "registered": sorted(lines)}
    write("openvino", version, "read", found, **rest)


def _newest(text: str) -> dict[str, str]:
    """Config class → its MAX_TRANSFORMERS_VERSION, be it of the class that it is derived from."""
    found: dict[str, str] = {}
    for match in re.finditer(r"^class (\w+)\((\w*)[^\n]*\n((?:    .*\n|\n)*)", text, re.M):
        stated = re.search(r"^    MAX_TRANSFORMERS_VERSION = \"([\d.]+)\"", match[3], re.M)
        if stated or match[2] in found:
            found[match[1]] = stated[1] if stated else found[match[2]]
    return found


if __name__ == "__main__":
    main()
