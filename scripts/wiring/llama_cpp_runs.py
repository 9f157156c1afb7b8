"""Run tiny models of llama.cpp's architectures, and mark the rows that say what llama.cpp does.

    PYTHONPATH=tests python -m scripts.wiring.llama_cpp_runs [--only NAME,…]

llama.cpp is the library of npm that the tests run (`tests/support/llamacpp.py`). For each
architecture of `yarncli/gguf/architectures.json` a model is grown (`tests/support/gguf_grown.py`)
and changed in one respect at a time (`tests/support/gguf_trials.py`); what rotates is measured in
the graph while it runs. A row gets `run` if every trial does what yarncli foretells from it. Why
the others have none is in `unrun`. The grown models go into `tests/gguf/grown.json`, from which
`make test-full` repeats a part.
"""

from __future__ import annotations

import argparse
import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

from scripts.wiring.llama_cpp_runtime import TABLE, write_table

# What no file alone shows.
_DRAFTS = ("dflash", "eagle3", "gemma4-assistant")
_DRAFT = "a draft model, which runs only beside the model that it drafts for"


def main() -> None:
    """Grow, run, and write both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="names, separated by commas")
    only = parser.parse_args().only
    growing = importlib.import_module("support.gguf_grown")
    library = importlib.import_module("support.llamacpp")
    table = json.loads(TABLE.read_text(encoding="utf-8"))
    rows, unrun = table.pop("architectures"), table.pop("unrun", {})
    names = only.split(",") if only else [name for name in rows if name not in ("clip", *_DRAFTS)]
    stored = json.loads(growing.GROWN.read_text("utf-8")) if growing.GROWN.is_file() else {}
    for name, found in growing.grow(names).items():
        stored.pop(name, None)
        rows[name].pop("run", None)
        if isinstance(found, str):
            unrun[name] = _last(found)
        else:
            stored[name] = found
    for name, faults in _try([name for name in names if name in stored], stored).items():
        if faults:
            unrun[name] = _last(faults[0])
            del stored[name]
        else:
            rows[name]["run"] = True
            unrun.pop(name, None)
        for fault in faults:
            print(f"{name}: {fault}", flush=True)
    unrun |= {"clip": "an encoder of images, not a language model"} | dict.fromkeys(_DRAFTS, _DRAFT)
    table |= {"ran": f"{library.RUNTIME} ({library.PACKAGE} {library.VERSION})", "unrun": unrun}
    write_table(table, rows)
    lines = [f" {json.dumps(name)}: {json.dumps(stored[name])}" for name in sorted(stored)]
    growing.GROWN.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{sum('run' in row for row in rows.values())} of {len(rows)} rows were run")


def _try(names: list[str], grown: dict[str, Any]) -> dict[str, list[str]]:
    """Architecture → what its trials show otherwise than yarncli foretells."""
    trials = importlib.import_module("support.gguf_trials")
    growing = importlib.import_module("support.gguf_grown")
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            models = trials.trials(name, growing.model_of(name, grown[name]))
            found[name] = list(trials.faults(models, Path(folder)))
    return found


def _last(said: str) -> str:
    """The line that says why; without the folder in which the library was built."""
    lines = [line for line in said.splitlines() if "rror" in line or "ASSERT" in line]
    return (lines or said.splitlines()[-1:] or ["?"])[0].rpartition("llama.cpp/")[2].strip()


if __name__ == "__main__":
    main()
