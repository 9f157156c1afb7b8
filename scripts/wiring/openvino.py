"""Wiring of OpenVINO through optimum-intel: the model types it exports, from its source.

    pip download --no-deps optimum-intel && unzip optimum_intel-*.whl -d /tmp/ov
    python -m scripts.wiring.openvino --package /tmp/ov

Nothing is run. It traces the model of the installed transformers, so what that computes is what the
graph computes; longrope has a forward function of its own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from scripts.wiring.sizes import model_types
from scripts.wiring.table import arguments, write


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, package="folder of the unpacked wheel")
    folder = Path(options.package)
    info = next(folder.glob("optimum_intel-*.dist-info"))
    version = info.name.removeprefix("optimum_intel-").removesuffix(".dist-info")
    path = folder / "optimum" / "exporters" / "openvino" / "model_configs.py"
    text = path.read_text(encoding="utf-8")
    lines = {}
    for match in re.finditer(r"register_in_tasks_manager\(\s*\"([\w-]+)\"", text):
        lines.setdefault(match[1].replace("-", "_"), text.count("\n", 0, match.start()) + 1)
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted(model_types()):
        if kind in lines:
            at = f"model_configs.py:{lines[kind]}"
            found[kind] = {"rope": "backend", "backend": "transformers", "at": at}
        else:
            found[kind] = {"rope": "unsupported"}
    needs = re.search(
        r"Requires-Dist: (transformers[^;\n]*)", (info / "METADATA").read_text("utf-8")
    )
    own = {"longrope": "model_patcher.py: _longrope_forward"}
    version = options.version or version
    write("openvino", version, "read", found, functions=own, needs=needs[1] if needs else "")


if __name__ == "__main__":
    main()
