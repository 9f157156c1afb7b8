"""The wiring table of one engine as a file: outcomes of the probes, and a summary of them.

    python -m scripts.wiring.table      recompute the summaries of all tables

`yarncli/engines/wiring/<engine>.json`, JSON with one model type a line:

    engine, version, date   what was examined, and when the script ran
    how                     "run": the engine's code computed the outcomes; "read": they follow from
                            its source, file and line given
    probes                  the names of the probes (`probes.py`)
    outcomes                distinct lists of outcomes, one line (`describe`) or object of scope →
                            line per probe; a model type has an index into these
    functions               what its shared functions read, where that was looked at
    others                  "unsupported" where the engine has no code for other model types
    registered              its model types, where `model_types` has those only that yarncli has
    configs                 the config classes that it goes by
    causal, unsure          TGI: model types that go to transformers in all releases in question,
                            or in some only
    runs_own_code           whether it runs the code that comes with a checkpoint
    renamed                 class in `architectures` → the model type whose code is taken for it
    model_types             model type → an object of

        outcome     index into `outcomes`; absent where `how` is "read" for this type
        rope        "reads" | "ignores" | "refuses" | "mixed" (see `types`) | "backend" |
                    "unsupported" (no class for it) | "own" (a rotation of its own, not measured) |
                    "none" (no RoPE) | "unknown" (could not be built: see `note`)
        types       RoPE type → "reads" | "differs" | "ignores" | "refuses", convert's spelling
        spelling    "either" | "rope_scaling" | "rope_parameters": what it must have; "both":
                    both at once; "… alone", "one at a time": the other beside it is an error;
                    "none"
        wins        the spelling that counts where the two differ
        dim         rotary width of the model that was built (head_dim 64)
        alpha       Hunyuan-A13B's `dynamic` with `alpha` is computed: "window" where it serves the
                    config's window, else "no limit"
        fixed       mlx-vlm: sizes that are its own, as `theta` and `dim`, whatever the config says
        part        "ignored" where partial_rotary_factor is not read
        needs       keys that the class which reads the config has no default for
        text        of a multimodal model: model type of the text part → whose row counts
        theta       θ where the config has none; "required" if that fails
        default_theta  what its class says, where that is not what `theta` shows
        theta_key   SGLang: where θ is read, which is not the key of the model type
        layers      default of sliding_window_pattern, and whether layer_types goes before it
        share       vLLM: what rotates of a head where the config states no share, if not all of it
        scope       vLLM: the one scope whose rotary module was recorded
        block       vLLM: keys that the blocks of the probes had beside those of the probe
        wrapper     vLLM: the multimodal model type in which the text part was built
        requires    keys whose absence is an error
        attributes  transformers: which of rope_scaling, rope_parameters, rope_theta its class has
        flat        transformers: read as a config of the outer type with all at the top level
        indexes     transformers 4: a key that an attention layer takes out of rope_scaling
        sections    transformers: the `mrope_section` that its class takes where there is none
        backend     another engine whose code runs instead
        config      the engine's own config class, where it replaces transformers'
        class       what `architectures` named
        also        other architectures that gave the same
        wrapper     the model type of the multimodal config around it; flat: with its fields at
                    top level
        keys        what the small config had beside the sizes of `sizes.py`
        at          file:line of the evidence
        note        for people

The entries of `published` are copies of code instead: the model types that it is for (kinds), the
classes that `auto_map` names (config, class) and by which key (auto), what of a head rotates
(width), θ without one (theta), files and their SHA-256, and releases → setting → line. Its engines
are those that run such code, with the oldest and the newest release that they stand for.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
from pathlib import Path
from typing import Any

from scripts.wiring.probes import SPELLINGS, TYPES, WANTED

ROOT = Path(__file__).parents[2]
TABLES = ROOT / "yarncli" / "engines" / "wiring"
RECORDED = ROOT / "tests" / "engines" / "recorded"

Outcomes = dict[str, Any]


def write(
    engine: str, version: str, how: str, types: dict[str, dict[str, Any]], **rest: Any
) -> Path:
    """Write the table of `engine`.

    Args:
        engine: its id.
        version: the release that was examined.
        how: "run" or "read".
        types: model type → its entry; outcomes, if any, under "outcomes".
        **rest: more top-level entries.
    """
    if WANTED:
        update(engine, types)
        return TABLES / f"{engine}.json"
    distinct: list[list[Any]] = []
    # Some probes are of some model types only; theirs come last.
    names = list(dict.fromkeys(name for e in types.values() for name in e.get("outcomes", ())))
    lines = []
    for kind, entry in sorted(types.items()):
        found = dict(entry)
        outcomes = found.pop("outcomes", None)
        if outcomes is not None:
            row = [outcomes.get(name) for name in names]
            if row not in distinct:
                distinct.append(row)
            found = {"outcome": distinct.index(row), **found}
        lines.append(f"  {json.dumps(kind)}: {json.dumps(found, ensure_ascii=False)}")
    head = {"engine": engine, "version": version, "date": today(), "how": how, **rest}
    parts = [f" {json.dumps(k)}: {json.dumps(v, ensure_ascii=False)}" for k, v in head.items()]
    if names:
        parts.append(f' "probes": {json.dumps(names)}')
        rows = ",\n".join("  " + json.dumps(row, ensure_ascii=False) for row in distinct)
        parts.append(f' "outcomes": [\n{rows}\n ]')
    parts.append(' "model_types": {\n' + ",\n".join(lines) + "\n }")
    path = TABLES / f"{engine}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    count: dict[str, int] = {}
    for entry in types.values():
        word = entry.get("rope", "?")
        count[word] = count.get(word, 0) + 1
    print(f"{path.name}: {engine} {version}, {len(types)} model types, {count}")
    return path


def today() -> str:
    """The date, as ISO 8601."""
    return datetime.date.today().isoformat()


def read(engine: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """A written table: its other entries, and model type → entry as `write` takes it."""
    document = json.loads((TABLES / f"{engine}.json").read_text(encoding="utf-8"))
    names, rows = document.pop("probes", []), document.pop("outcomes", [])
    types = document.pop("model_types")
    for entry in types.values():
        if "outcome" in entry:
            row = rows[entry.pop("outcome")]
            found = zip(names, row, strict=True)
            entry["outcomes"] = {name: line for name, line in found if line is not None}
    return document, types


def update(engine: str, found: dict[str, dict[str, Any]], **rest: Any) -> None:
    """Put some model types into a written table; recompute all summaries from the outcomes.

    Where only some probes were run, only their outcomes are replaced.

    Args:
        engine: its id.
        found: model type → its entry.
        **rest: top-level entries to replace.
    """
    document, types = read(engine)
    document |= rest
    for kind, entry in found.items():
        if not WANTED:
            types[kind] = entry
        elif "outcomes" in entry and "outcomes" in types.get(kind, {}):
            types[kind]["outcomes"] |= entry["outcomes"]
    WANTED.clear()
    for entry in types.values():
        if "outcomes" in entry:
            for key in ("rope", "types", "spelling", "wins", "theta", "requires"):
                entry.pop(key, None)
            entry |= summary(entry["outcomes"])
    version, how = document.pop("version"), document.pop("how")
    del document["engine"], document["date"]
    write(engine, version, how, types, **document)


def summary(outcomes: Outcomes) -> dict[str, Any]:
    """The words of a table's entry that follow from the outcomes of the probes."""
    if WANTED:
        return {}
    types = {kind: _of_type(kind, outcomes) for kind in TYPES}
    found: dict[str, Any] = {"rope": _rope(set(types.values())), "types": types}
    plain = [f"default {s}" for s in SPELLINGS]
    if all(is_error(scaled(outcomes[n])) for n in (*plain, "rope_scaling null")):
        found["rope"] = "refuses"
    found["spelling"] = _spelling(types, outcomes)
    wins = _wins(outcomes["rope_scaling yarn rope_parameters linear"])
    if wins:
        found["wins"] = wins
    theta = _theta(outcomes["no theta"])
    if theta is not None:
        found["theta"] = theta
    requires = _requires(outcomes, types["yarn"] in ("reads", "differs"))
    if requires:
        found["requires"] = requires
    return found


def scaled(outcome: Any) -> str:
    """The line of the scope that is scaled: that of the full layers where there are several."""
    if isinstance(outcome, dict):
        return str(outcome.get("full_attention", next(iter(outcome.values()))))
    return str(outcome)


def is_error(line: str) -> bool:
    """Whether a line tells of an exception."""
    return bool(re.match(r"[A-Z][A-Za-z]*(Error|Exception|Exit)\b", line))


def _word_of(kind: str, outcome: Any) -> str:
    line = scaled(outcome)
    kind = "plain" if kind == "default" else kind
    if is_error(line):
        return "refuses"
    if line == kind:
        return "reads"
    if line.startswith(kind):
        return "differs"
    return "ignores" if line.startswith("plain") else "differs"


def _of_type(kind: str, outcomes: Outcomes) -> str:
    """What becomes of a type in the best spelling; that of both at once where none is read."""
    words = [_word_of(kind, outcomes[f"{kind} {s}"]) for s in ("both", "v5", "legacy")]
    return next((word for word in words if word in ("reads", "differs")), words[0])


def _rope(words: set[str]) -> str:
    if len(words) == 1:
        word = words.pop()
        return "reads" if word == "differs" else word
    return "reads" if words <= {"reads", "differs"} else "mixed"


def _spelling(types: dict[str, str], outcomes: Outcomes) -> str:
    read_types = (k for k in ("yarn", *TYPES) if types[k] in ("reads", "differs"))
    kind = next(read_types, "default")
    lines = {s: scaled(outcomes[f"{kind} {s}"]) for s in SPELLINGS}
    word = types.get(kind, "reads")
    taken = [s for s in ("both", "v5", "legacy") if _word_of(kind, lines[s]) == word]
    if not taken:
        return "none"
    works = {s for s in SPELLINGS if lines[s] == lines[taken[0]]}
    return _SPELLING_WORDS[frozenset(works)]


_SPELLING_WORDS = {
    frozenset(SPELLINGS): "either",
    frozenset({"legacy", "both"}): "rope_scaling",
    frozenset({"v5", "both"}): "rope_parameters",
    frozenset({"legacy", "v5"}): "one at a time",
    frozenset({"legacy"}): "rope_scaling alone",
    frozenset({"v5"}): "rope_parameters alone",
    frozenset({"both"}): "both",
}


def _wins(outcome: Any) -> str | None:
    line = scaled(outcome)
    if line.startswith("yarn"):
        return "rope_scaling"
    return "rope_parameters" if line.startswith("linear") else None


def _theta(outcome: Any) -> Any:
    line = scaled(outcome)
    if is_error(line):
        return "required"
    match = re.search(r"theta=([\d.e+]+)", line)
    return float(match[1]) if match else None


_KEYS = {
    "yarn no factor": "factor",
    "yarn no original": "original_max_position_embeddings",
    "yarn no type": "type or rope_type",
    "yarn only type": "rope_type",
    "yarn only rope_type": "type",
}


def _requires(outcomes: Outcomes, is_yarn_read: bool) -> list[str]:
    fails = {name for name, line in outcomes.items() if is_error(scaled(line))}
    found = [key for name, key in _KEYS.items() if name in fails] if is_yarn_read else []
    if "yarn no betas" in fails and "yarn both" not in fails:
        found += ["beta_fast", "beta_slow"]
    if "default legacy" in fails and "rope_scaling null" not in fails:
        found.append("rope_scaling, be it null")
    return found


def arguments(text: str | None, **options: str) -> argparse.Namespace:
    """The command line of a script: `--version` and what `options` names, with their help."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    os.environ["HF_HUB_OFFLINE"] = "1"
    parser.add_argument("--version", help="what to call the release; by default what it says")
    for name, help_text in options.items():
        parser.add_argument(f"--{name.replace('_', '-')}", help=help_text)
    parser.add_argument("--probes", help="names, with commas: replace these outcomes only")
    found = parser.parse_args()
    WANTED.update(found.probes.split(",") if found.probes else ())
    return found


if __name__ == "__main__":
    for table in sorted(TABLES.glob("*.json")):
        if "model_types" in table.read_text(encoding="utf-8"):
            update(table.stem, {})
