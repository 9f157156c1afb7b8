"""Wiring of one transformers release: the config class and the rotary class of every model type.

    python -m scripts.wiring.transformers                  # the installed release
    PYTHONPATH=RELEASE:HUB python -m scripts.wiring.transformers --engine transformers-4.57

Needs torch. For 4.x put a folder with that release, and one with its huggingface_hub and
tokenizers, before everything else. `--types FOLDER…` writes instead which release brought which
model type, from folders that hold unpacked wheels named by version.
"""

from __future__ import annotations

import ast
import json
import logging
import re
import runpy
import sys
import warnings
from pathlib import Path
from typing import Any

from scripts.wiring.probes import EXTENDED, SHORT_TEXT, TYPES, describe, fresh, probes
from scripts.wiring.sizes import as_in_files, config_for, model_types, shape_of
from scripts.wiring.table import ROOT, TABLES, arguments, read, summary, today, update, write
from yarncli.config.families.table import FAMILIES

# Model types of 4.x that rotate by a class which takes no config, read.
READ: dict[str, dict[str, Any]] = {
    "dbrx": {"rope": "ignores", "types": dict.fromkeys(TYPES, "ignores"), "how": "read",
             "spelling": "none", "theta": 10000.0, "inner_theta": "attn_config", "attributes": [],
             "config": "DbrxConfig", "at": "models/dbrx/modeling_dbrx.py: DbrxRotaryEmbedding"},
}  # fmt: skip

_ORACLE = ROOT / "tests" / "support" / "engine_oracle.py"

# A class that puts the frequencies into another order, by its own sections; not in the error text.
SECTIONS = {"ernie4_5_vl_moe_text": [22, 22, 20]}  # modeling_ernie4_5_vl_moe.py:72


def main() -> None:
    """Write the table, or the releases of the model types."""
    options = arguments(__doc__, engine="its id", only="model types", types="folder of releases",
                        attributes="x: add the attributes of the config classes")  # fmt: skip
    if options.types:
        write_types(Path(options.types))
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import transformers

    compute = runpy.run_path(str(_ORACLE))["compute"]
    engine = options.engine or f"transformers-{transformers.__version__.split('.')[0]}"
    if options.attributes:
        attributes(engine)
        return
    chosen = options.only.split(",") if options.only else sorted(model_types())
    found = {}
    for kind in chosen:
        found[kind] = entry(kind, compute)
        print(
            kind, found[kind].get("rope"), found[kind].get("note", ""), file=sys.stderr, flush=True
        )
        for name, line in (found[kind].get("outcomes", {}) if options.only else {}).items():
            print(f"{kind:16} {name:40} {line}")
    if options.only:
        update(engine, found)
    else:
        write(engine, options.version or transformers.__version__, "run", found)


def entry(kind: str, bare_compute: Any) -> dict[str, Any]:
    """The table's entry of one model type."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    place = wrapped(kind, CONFIG_MAPPING_NAMES)
    if place is None:
        return {"rope": "unsupported"}
    path, named = place
    found = _entry(kind, bare_compute, path, named)
    if found["rope"] == "own" and kind in READ:
        return READ[kind]
    if path and found["rope"] == "own":
        flat = _entry(kind, bare_compute, (), named)
        found = found if flat["rope"] == "own" else {**flat, "flat": True, "wrapper": named}
    return found


def _entry(kind: str, bare_compute: Any, path: tuple[str, ...], named: str) -> dict[str, Any]:
    """The same, from a config with the text part at these keys."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    base, _ = config_for(kind)
    found: dict[str, Any] = {"at": f"models/{named}/modeling_{named}.py"}
    if named == kind:
        found["config"] = CONFIG_MAPPING_NAMES[kind]
    else:
        found["note"] = f"built as the text part of {named}"
    if _indexes_sections(named):
        found["indexes"] = "mrope_section"

    def compute(config: dict[str, Any], length: int) -> Any:
        for key in reversed(path):
            config = {key: config}
        return bare_compute({**config, "model_type": named}, length)

    pairs, problem = 0, ""
    for name, _, config in probes(base, shape_of(kind)):
        if name not in ("default both", "default legacy", "yarn both"):
            continue
        given = compute({**config, "model_type": kind}, EXTENDED)
        if "error" not in given:
            pairs = max(len(scope["inv_freq"]) for scope in given["scopes"].values())
            break
        problem = problem or given["error"]
    if not pairs:
        # The oracle finds no rotary class that takes a config: the model rotates by itself.
        word = "own" if problem.startswith("IndexError") else "unknown"
        return {"rope": word, **found, "note": problem[:90]}
    plain = next(c for name, _, c in probes(base, shape_of(kind)) if name == "default legacy")
    sections = own_sections(compute({**plain, "model_type": kind}, EXTENDED))
    if sections or kind in SECTIONS:
        found["sections"] = sections or SECTIONS[kind]
    outcomes = {}
    for name, asked, config in probes(base, shape_of(kind, pairs)):
        file = {**as_in_files(kind, config), "model_type": kind}
        outcomes[name] = outcome(compute, file, (asked, name, 2 * pairs))
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def _indexes_sections(named: str) -> bool:
    """Whether an attention layer takes `mrope_section` out of `rope_scaling`, whatever is there."""
    from transformers import CONFIG_MAPPING

    module = sys.modules[CONFIG_MAPPING[named].__module__]
    files = Path(str(module.__file__)).parent.glob("modeling_*.py")
    return any('.rope_scaling["mrope_section"]' in f.read_text(encoding="utf-8") for f in files)


def wrapped(kind: str, known: Any) -> tuple[tuple[str, ...], str] | None:
    """The keys under which a model type is a part of a registered one, and that one's name."""
    if kind in known:
        return (), kind
    for name, family in FAMILIES.items():
        if not family.is_wrapper or family.text_type != kind:
            continue
        place = wrapped(name, known)
        if place:
            path, top = place
            return (*path, family.text_key), top
    return None


def own_sections(given: Any) -> list[int]:
    """The `mrope_section` that a class takes by itself, where it does not fit a small model."""
    match = re.search(r"split_sizes=\[([\d, ]+)\]", given.get("error", ""))
    return [int(size) for size in match[1].split(",")] if match else []


def attributes(engine: str) -> None:
    """Add to a table which RoPE attributes each config class has: only those can be overridden."""
    from transformers import CONFIG_MAPPING

    _, types = read(engine)
    for kind, item in types.items():
        if kind not in CONFIG_MAPPING:
            continue
        try:
            config = CONFIG_MAPPING[kind]()
        except Exception:
            continue
        names = ("rope_scaling", "rope_parameters", "rope_theta")
        item["attributes"] = [name for name in names if hasattr(config, name)]
    update(engine, types)


def outcome(compute: Any, config: dict[str, Any], probe: tuple[str, str, int]) -> Any:
    """One line, or an object of scope → line."""
    asked, name, dim = probe
    long = compute(fresh(config), EXTENDED)
    if "error" in long:
        return long["error"][:90].rstrip()
    short = compute(fresh(config), SHORT_TEXT) if asked in ("dynamic", "longrope") else None
    lines = {}
    family = FAMILIES.get(config["model_type"])
    width = config.get("qk_rope_head_dim") if family and family.is_mla else None
    for scope, numbers in long["scopes"].items():
        pair = numbers["inv_freq"], numbers["attention_factor"]
        if config["model_type"] in SECTIONS:
            pair = sorted(pair[0], reverse=True), pair[1]
        if width not in (None, 2 * len(pair[0])):
            return f"RuntimeError: cos is {2 * len(pair[0])} wide, what it rotates {width}"
        other = None
        if short and "error" not in short:
            brief = short["scopes"][scope]
            other = brief["inv_freq"], brief["attention_factor"]
        lines[scope] = describe(asked, name, pair, other, long["softmax"], dim)
    distinct = set(lines.values())
    return distinct.pop() if len(distinct) == 1 else dict(sorted(lines.items()))


def write_types(folder: Path) -> None:
    """Write the model types that each release added or dropped."""
    releases = sorted((p.name for p in folder.iterdir()), key=lambda v: [*map(int, v.split("."))])
    known: set[str] = set()
    rows = []
    for release in releases:
        types = registered(folder / release / "transformers" / "models" / "auto")
        row = {"release": release, "added": sorted(types - known), "dropped": sorted(known - types)}
        rows.append(" " + json.dumps({k: v for k, v in row.items() if v}))
        known = types
    head = f'{{"date": "{today()}", "how": "read", "releases": [\n'
    path = TABLES / "transformers-types.json"
    path.write_text(head + ",\n".join(rows) + "\n]}\n", encoding="utf-8")
    print(f"{path.name}: {len(releases)} releases, {len(known)} model types in the last")


def registered(folder: Path) -> set[str]:
    """The keys of `CONFIG_MAPPING_NAMES` in a release's source."""
    found: set[str] = set()
    for name in ("configuration_auto.py", "auto_mappings.py"):
        path = folder / name
        if not path.exists():
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if _is_about_configs(node):
                found |= {k for k in first_strings(node) if k}
    return found


def _is_about_configs(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return any(isinstance(t, ast.Name) and t.id == "CONFIG_MAPPING_NAMES" for t in targets)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        owner = node.func.value
        is_update = node.func.attr == "update" and isinstance(owner, ast.Name)
        return is_update and owner.id == "CONFIG_MAPPING_NAMES"
    return False


def first_strings(node: ast.AST) -> set[str]:
    """Keys of dicts and first members of pairs below a node."""
    found = set()
    for item in ast.walk(node):
        keys = item.keys if isinstance(item, ast.Dict) else []
        if isinstance(item, ast.Tuple) and len(item.elts) == 2:
            keys = item.elts[:1]
        found |= {k.value for k in keys if isinstance(k, ast.Constant) and type(k.value) is str}
    return found


if __name__ == "__main__":
    main()
