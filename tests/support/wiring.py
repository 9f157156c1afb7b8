"""The probes of the wiring tables, put to the rules of `yarncli engines`.

PYTHONPATH=tests:. python -m support.wiring mlx-lm [--type qwen3] [--probe "yarn both"]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from scripts.wiring.own_code import NAMED, as_published
from scripts.wiring.probes import EXTENDED, SHORT_TEXT, SIZES, describe, probes
from scripts.wiring.sizes import ABOUT_ROPE, as_in_files, config_for, shape_of
from scripts.wiring.table import is_error
from scripts.wiring.table import read as read_table
from yarncli.config.families.table import FAMILIES
from yarncli.engines.loaders import read_model
from yarncli.engines.own_code import read_own
from yarncli.engines.registry import ENGINES
from yarncli.engines.types import NoReading, NotKnown, NotSupported, Reading
from yarncli.errors import CheckpointError

# Tables whose outcomes were computed by the engine's own code.
TABLES = (
    "transformers-5 transformers-4.57 transformers-4.55 transformers-4.50 vllm sglang mlx-lm "
    "mlx-vlm exllamav3 llama.cpp onnxruntime-genai lmdeploy-pytorch lmdeploy-turbomind ctranslate2"
).split()


@dataclass(frozen=True)
class Mismatch:
    """One probe where a rule and its engine differ."""

    model_type: str
    probe: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        return f"{self.model_type}, {self.probe}: rule {self.ours}; engine {self.theirs}"


def mismatches(engine: str, only: str = "", probe: str = "") -> tuple[list[Mismatch], int, int]:
    """Where the rules are wrong; how many outcomes they judged, and how many there are."""
    _, types = read_table(engine)
    wrong, known, total = [], 0, 0
    for kind, entry in types.items():
        is_known = kind in FAMILIES or kind in NAMED
        if not is_known or "outcomes" not in entry or (only and kind != only):
            continue
        for name, asked, config in configs(kind, entry):
            if (probe and name != probe) or name not in entry["outcomes"]:
                continue
            ours = predicted(engine, asked, name, config, entry["dim"])
            # Of a type with its own code, few settings have a known meaning at all.
            total += ours is not None or kind not in NAMED
            if ours is None:
                continue
            known += 1
            theirs = entry["outcomes"][name]
            if isinstance(ours, Mapping) and entry.get("scope") in ours:
                ours = {entry["scope"]: ours[entry["scope"]]}
            if not _agree(ours, theirs):
                wrong.append(Mismatch(kind, name, ours, theirs))
    return wrong, known, total


def configs(kind: str, entry: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(name, asked type, config) of every probe of a model type, as its script had them."""
    sizes, architecture = config_for(kind)
    # The scripts give every key that a class insists on, except those that probes are about.
    needed = [key for key in entry.get("needs", ()) if not ABOUT_ROPE.search(key)]
    sizes = {key: SIZES.get(key, 2) for key in needed} | sizes | entry.get("keys", {})
    outer = entry.get("wrapper", kind)
    top = {"architectures": [entry.get("class", architecture)], "model_type": outer}
    family, path = FAMILIES.get(outer), []
    is_flat = "flat" in entry or (
        outer == kind and family is not None and family.flat_text and "text" not in entry
    )
    while family is not None and family.is_wrapper:
        path.append(family.text_key)
        family = FAMILIES[family.text_type]
    for name, asked, config in probes(sizes, shape_of(kind, entry["dim"] // 2, entry.get("block"))):
        config = as_published(kind, as_in_files(kind, config))
        if path and not is_flat:
            config = {**config, "model_type": kind if kind != outer else family.model_type}
            for key in reversed(path):
                config = {key: config}
        yield name, asked, {**config, **top}


def predicted(engine: str, asked: str, name: str, config: dict[str, Any], dim: int) -> Any:
    """What the rules say: scope → line of a table, or an error; `None` where they do not know."""
    try:
        is_own = config["model_type"] in NAMED
        model = read_own(config) if is_own else read_model(config)
    except CheckpointError:
        return None  # the command stops there, so nothing is claimed
    if model is None:
        return None
    try:
        reading = ENGINES[engine].read(model)
    except (NotKnown, NotSupported):
        return None
    except NoReading as error:
        return f"error: {error}"
    used = {n for n, scope in model.rope.scopes.items() if scope.layers} or {*reading.scopes}
    # A scope that no layer of the small model is in has no say in what the engine computes.
    return {n: _line(asked, name, reading, n, dim) for n in reading.scopes if n in used}


def _line(asked: str, name: str, reading: Reading, scope: str, dim: int) -> str:
    used = reading.scopes[scope]
    long, short = (
        (used.parameters.inv_freq(length), used.attention_factor)
        for length in (EXTENDED, SHORT_TEXT)
    )
    return describe(asked, name, long, short, used.softmax_scale_ratio, dim)


def _agree(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, str) and ours.startswith("error"):
        return is_error(theirs) if isinstance(theirs, str) else False
    lines = set(ours.values())
    if not isinstance(theirs, Mapping):
        return lines == {theirs}
    if not ours.keys() & theirs.keys():
        return set(theirs.values()) == lines
    return all(ours.get(scope, line) == line for scope, line in theirs.items())


def main() -> None:
    """Print the mismatches of one engine."""
    parser = argparse.ArgumentParser()
    parser.add_argument("engine", choices=TABLES)
    parser.add_argument("--type", default="")
    parser.add_argument("--probe", default="")
    options = parser.parse_args()
    wrong, known, total = mismatches(options.engine, options.type, options.probe)
    for each in wrong:
        print(each)
    print(f"{len(wrong)} wrong of {known} judged, {total} in all")


if __name__ == "__main__":
    main()
