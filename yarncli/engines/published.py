"""What the published code of a model type does, where a checkpoint's own code runs.

The table `wiring/published.json` holds what came out when `scripts/wiring/published.py` ran copies
of that code in the oldest and the newest release of each range that an engine stands for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import sha256
from typing import Any

from yarncli.checkpoint.source import Checkpoint
from yarncli.engines.loaders import legacy, states_theta
from yarncli.engines.shared import transformers_numbers
from yarncli.engines.tables import brings_config, class_in, load_table, runs_own_code
from yarncli.engines.types import EngineCrash, LoaderError, Model, NotKnown, Reading

_STEPS = ("loading", "building", "running", "generating", "continuing")


def setting_of(text: Mapping[str, Any]) -> str:
    """The name of a RoPE setting: its type, its keys, and whether its factor is an integer.

    Args:
        text: the text part of a config.
    """
    block = text.get("rope_scaling")
    if not isinstance(block, Mapping):
        return "null" if "rope_scaling" in text and block is None else "absent"
    kind = block.get("type") or block.get("rope_type")
    whole = " integer" if type(block.get("factor")) is int else ""
    return f"{kind}{whole}: {' '.join(sorted(block))}"


def is_failure(line: str) -> bool:
    """Whether a line of the table tells of an exception, behind the step at which it came.

    Args:
        line: the line.
    """
    return line.partition(" ")[0] in _STEPS


def find_published(engine: str, config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The table's entry for the code that a checkpoint brings and the engine would run.

    `None` where the engine has the model type itself, and where that code was not examined.

    Args:
        engine: its id.
        config: the JSON object of `config.json`.
    """
    if not brings_config(config):
        return None
    table, named = load_table("published"), config.get("architectures")
    if engine not in table["engines"] or not runs_own_code(engine, config):
        return None
    for entry in table["model_types"].values():
        classes = class_in(config, "AutoConfig"), class_in(config, entry["auto"])
        known = classes == (entry["config"], entry["class"])
        known = known and config.get("model_type") in entry["kinds"]
        # TGI looks for a causal model.
        known = known and (engine != "tgi" or entry["auto"] == "AutoModelForCausalLM")
        if known and named == [entry["class"]]:
            return dict(entry)
    return None


def published_reading(engine: str, model: Model) -> Reading | None:
    """What the published code computes; `None` where it was not examined.

    Args:
        engine: its id.
        model: the config.

    Raises:
        LoaderError: its config class refuses the setting.
        EngineCrash: it fails in a release of the engine.
        NotKnown: the setting was not examined, or the releases differ.
    """
    entry = None if model.assume_like else find_published(engine, model.config)
    if entry is None:
        return None
    line = _line(engine, model.config, entry, model.text)
    word, _, softmax = line.partition(" softmax=")
    scopes = {}
    for name, p in legacy(model).items():
        width = model.text.get(entry["width"])
        if entry["width"] == "hidden_size" and isinstance(width, int):
            width //= model.rope.num_attention_heads
        theta = p.rope_theta if states_theta(model, name) else entry["theta"]
        if word not in ("plain", p.rope_type) or (width, theta) != (p.rotary_dim, p.rope_theta):
            raise NotKnown(f"The published code of {model.model_type} does not read it so: {line}.")
        p = replace(p, rope_type="default") if word == "plain" else p
        used = transformers_numbers(model, p)
        scopes[name] = used if softmax else replace(used, softmax_scale_ratio=1.0)
    return Reading(scopes, notes=tuple(filter(None, (_note(entry), entry.get("note")))))


def published_failure(
    engine: str, config: Mapping[str, Any], text: Mapping[str, Any]
) -> LoaderError | EngineCrash | None:
    """How the published code fails, whatever the numbers mean; `None` where that is not known.

    Args:
        engine: its id.
        config: the JSON object of `config.json`.
        text: its text part.
    """
    entry = find_published(engine, config)
    try:
        if entry:
            _line(engine, config, entry, text)
    except (LoaderError, EngineCrash) as error:
        return error
    except NotKnown:
        pass
    return None


def differing_file(engine: str, checkpoint: Checkpoint, config: Mapping[str, Any]) -> str | None:
    """The first local file of code that is not the one that was examined.

    `None` where the files are not here, and where the verdict is not by them.

    Args:
        engine: its id.
        checkpoint: the checkpoint.
        config: the JSON object of `config.json`.
    """
    entry = find_published(engine, config)
    if entry is None or checkpoint.directory is None:
        return None
    named = (config["auto_map"][key].rpartition(".")[0] for key in ("AutoConfig", entry["auto"]))
    for name in sorted({*entry["files"], *(f"{module}.py" for module in named)}):
        if checkpoint.file(name):
            found = sha256(checkpoint.read_bytes(name)).hexdigest()
            if found != entry["files"].get(name):
                return str(name)
    return None


def _line(
    engine: str, config: Mapping[str, Any], entry: Mapping[str, Any], text: Mapping[str, Any]
) -> str:
    """The outcome of a setting, the same in the oldest and the newest release.

    Raises:
        LoaderError, EngineCrash: it is an exception in one of them; for TGI, in both.
        NotKnown: there is none, or the two differ.
    """
    releases = load_table("published")["engines"][engine][::-1]
    found = []
    for release in releases:
        found.append(_at(release, engine, config, entry, text))
        # Which of the two TGI has is not known.
        both = len(found) > 1 and all(map(is_failure, found))
        if both or (is_failure(found[-1]) and engine != "tgi"):
            step, _, error = found[-1].partition(" ")
            kind = LoaderError if step == "loading" else EngineCrash
            older = [
                entry["releases"][releases[-1]].get(key, "") for key in ("absent", "generation")
            ]
            also = "" if any(map(is_failure, older)) else f" transformers {releases[-1]} runs it."
            raise kind(f"transformers {release} fails while {step}: {error}.{also} {_note(entry)}")
    if len({*found}) > 1:
        raise NotKnown(
            f"The published code of {config['model_type']} does not do the same in transformers "
            f"{' and '.join(releases)}."
        )
    return found[0]


def _at(
    release: str, engine: str, config: Mapping[str, Any], entry: Mapping[str, Any], text: Any
) -> str:
    """The outcome of a setting in one release.

    Raises:
        NotKnown: there is none.
    """
    lines = dict(entry["releases"][release])
    after = {step: lines.pop(step, "") for step in ("generation", "continuation")}
    line = lines.get(setting_of(text), "")
    if all(map(is_failure, lines.values())):
        return str(line or lines["absent"])
    # What works for a text of one length may fail at the next token, by the same code.
    later = after["continuation" if engine == "tgi" else "generation"]
    if later and not is_failure(line):
        return str(later)
    if not line or config.get("rope_parameters") or text.get("rope_parameters"):
        kind = config["model_type"]
        raise NotKnown(f"Nobody examined what the published code of {kind} makes of this setting.")
    return str(line)


def _note(entry: Mapping[str, Any]) -> str:
    return (
        f"With trust_remote_code=True, by the published code ({entry['source']}); that of this "
        "checkpoint is not compared."
    )
