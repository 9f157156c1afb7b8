"""What mlx-lm and mlx-vlm compute from a config, by their tables.

Both take the model file named after the outer `model_type`. Most files pass a dict and θ to the
package's `initialize_rope`, but read them from different places. The tables say from where, and
what is computed per RoPE type; the functions here apply that to the values of a config.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.config.families.family import ScopeRule
from yarncli.engines.mlx_sizes import (
    ERROR,
    PART,
    THETA,
    class_share,
    find_theta,
    number,
    with_part,
)  # fmt: skip
from yarncli.engines.shared import (
    IGNORES_ROPE_PARAMETERS,
    ORIGINAL,
    longrope_scale_by_lengths,
    mscale_ratio,
    refuse_gaps,
)
from yarncli.engines.tables import Row, find_row, load_table
from yarncli.engines.types import EngineCrash, LoaderError, Model, NotKnown, Reading, Used
from yarncli.errors import ConfigError
from yarncli.rope.parameters import (
    HAVE_ORIGINAL,
    RopeParameters,
    canonical_rope_type,
    mla_softmax,
    with_frequencies,
)

_BLOCKS = ("rope_scaling", "rope_parameters")
_LENGTH = "max_position_embeddings"
# Keys of a block that are computed with as they stand, so that a null is a TypeError.
_COMPUTED = (
    "factor", ORIGINAL, "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "low_freq_factor",
    "high_freq_factor", "short_factor", "long_factor",
)  # fmt: skip
_OLD_ORIGINAL = 4096
_LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}


def read_by_table(engine: str, model: Model) -> Reading:
    """What one of the two engines computes; they set no limit on the length.

    Args:
        engine: the name of its table.
        model: the config.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails while loading.
        NotSupported: it has no model file for it.
        NotKnown: nobody examined what it does with it.
    """
    row = find_model_file(engine, model)
    notes = _missing(row, model)
    if not {rule.name for rule in model.family.scopes} <= {"full_attention", "sliding_attention"}:
        raise NotKnown(f"{row.model_type} has several kinds of layers, not examined one by one.")
    others = row.outcome("yarn both", "sliding_attention")
    if not model.family.scopes and row.outcome("yarn both") != others:
        raise NotKnown(
            f"{row.release} has two kinds of layers in {row.model_type}, not examined one by one."
        )
    is_v5 = _reads_parameters(row, model)
    scopes = {}
    for name, scope in model.rope.scopes.items():
        block = model.block("rope_parameters" if is_v5 else "rope_scaling")
        if is_v5 and model.family.scopes:
            entry = block.get(name)
            block = entry if isinstance(entry, Mapping) else {}
        scopes[name] = _scope(row, model, name, scope.parameters, block, is_v5)
    if not is_v5 and model.block("rope_parameters") and not model.block("rope_scaling"):
        notes.append(IGNORES_ROPE_PARAMETERS)
    return Reading(scopes, notes=tuple(notes), faults=_layer_faults(row, model))


def _layer_faults(row: Row, model: Model) -> tuple[str, ...]:
    """Whether the file takes other layers for the windowed ones, which have a setting of theirs."""
    rule = row.entry.get("layers")
    if rule is None or not any(scope.windowed for scope in model.family.scopes):
        return ()
    if rule["types"] and model.text.get("layer_types") is not None:
        return ()
    pattern = model.text.get("sliding_window_pattern", rule["pattern"])
    layers = range(model.rope.num_hidden_layers)
    theirs = tuple(i for i in layers if not isinstance(pattern, int) or (i + 1) % (pattern or 1))
    if theirs == model.rope.windowed_layers:
        return ()
    return (
        f"windowed layers by sliding_window_pattern ({pattern}), not those that the config has",
    )


def _missing(row: Row, model: Model) -> list[str]:
    """A note on keys that the file insists on and the config does not have.

    Raises:
        EngineCrash: one of them is about RoPE.
    """
    missing = [key for key in row.entry.get("needs", ()) if key not in model.text]
    text = f"{row.release} insists on {{}} for {row.model_type}: TypeError while loading without."
    rope = [key for key in missing if key in (*_BLOCKS, THETA, PART)]
    if rope:
        raise EngineCrash(text.format(", ".join(rope)))
    return [text.format(", ".join(missing))] if missing else []


def find_model_file(engine: str, model: Model) -> Row:
    """The row of the model file that is taken: that of the outer model type.

    Raises:
        NotSupported: there is no such file.
        NotKnown: the config brings its own code, or has a text part that the file is not made for.
    """
    if model.config.get("model_file"):
        raise NotKnown("The config names a model_file: its own code decides, nobody examined it.")
    named = model.config.get("architectures")
    first = str(named[0]) if isinstance(named, list) and named else ""
    renamed = load_table(engine).get("renamed", {})
    row = find_row(engine, model, renamed.get(first, model.model_type))
    if not model.text_path:
        return row
    kind = str(model.text.get("model_type") or model.rope.model_type)
    taken = row.entry.get("text", {}).get(kind)
    if taken is None:
        raise NotKnown(
            f"Nobody examined what {row.release} does with {row.model_type} around {kind}."
        )
    return row if taken == row.model_type else find_row(engine, model, taken)


def _reads_parameters(row: Row, model: Model) -> bool:
    """Whether the file takes its setting from `rope_parameters`."""
    spelling = str(row.entry.get("spelling"))
    if spelling == "either" and row.entry["rope"] != "ignores":
        older = model.text.get("rope_scaling") is not None
        newer = bool(model.block("rope_parameters"))
        return newer and not (older and row.entry.get("wins") == "rope_scaling")
    return spelling.startswith("rope_parameters")


def _scope(
    row: Row, model: Model, name: str, sizes: RopeParameters, block: Mapping[str, Any], is_v5: bool
) -> Used:
    """One scope, from the dict that the file reads for it."""
    rule = next((r for r in model.family.scopes if r.name == name), None)
    if rule and is_v5 and not block:
        return _without_entry(row, model, sizes, rule)
    theta = find_theta(row, model, name, block)
    if rule and rule.windowed and not is_v5:
        line = row.outcome("yarn both", "sliding_attention") or "plain"
        if line.startswith("plain"):
            if "theta=" in line:
                own = (model.text.get(key) for key in rule.theta_keys)
                theta = next((t for t in own if t is not None), rule.rope_theta)
            return Used(_plain(sizes, theta))
    line = _line(row, model, block, is_v5)
    if ERROR.match(line):
        raise LoaderError(f"{row.release} stops while loading {row.model_type}: {line}.")
    if not line.startswith("proportional"):
        sizes = with_part(row, model, block, sizes)
    return _used(row, model, block, _plain(sizes, theta), line)


def _without_entry(row: Row, model: Model, sizes: RopeParameters, rule: ScopeRule) -> Used:
    """A scope that the nested setting has no entry for."""
    layers = "sliding_attention" if rule.windowed else "full_attention"
    probe = "yarn turned" if model.block("rope_parameters") else "default legacy"
    line = row.outcome(probe, layers)
    if ERROR.match(line):
        raise LoaderError(f"{row.release} stops while loading {row.model_type}: {line}.")
    if not line.startswith("plain"):
        raise NotKnown(f"What {row.release} assumes for {row.model_type} has no formula here.")
    default = re.search(r"theta=([\d.e+]+)", line)
    share = replace(sizes, partial_rotary_factor=class_share(row))
    return Used(_plain(share, float(default[1]) if default else rule.rope_theta))


def _plain(sizes: RopeParameters, theta: Any) -> RopeParameters:
    try:
        return RopeParameters(
            rope_type="default",
            rope_theta=number(THETA, theta),
            head_dim=sizes.head_dim,
            max_position_embeddings=sizes.max_position_embeddings,
            partial_rotary_factor=sizes.partial_rotary_factor,
        )
    except ConfigError as error:
        raise LoaderError(str(error)) from error


# What becomes of a dict


def _line(row: Row, model: Model, block: Mapping[str, Any], is_v5: bool) -> str:
    """What the file makes of a dict, as a line of the table."""
    # This file scales even plain RoPE, so the probes do not show what it does with a setting.
    if "factor=" in row.outcome("default legacy"):
        if any(model.text.get(key) is not None for key in _BLOCKS):
            raise NotKnown(f"{row.model_type} has a scaling of its own in {row.release}.")
        return row.outcome("default legacy")
    if row.entry["rope"] == "ignores":
        return _line_if_ignored(row, block)
    if model.block("rope_parameters") and not is_v5:
        alone, both = row.outcome("default legacy"), row.outcome("default both")
        if ERROR.match(both) and not ERROR.match(alone):
            return both
    # An empty dict, a null and a missing key are three different probes.
    spelling = "v5" if is_v5 else "legacy"
    if not block:
        stated = "rope_scaling" in model.text and not is_v5
        empty = model.text.get("rope_scaling") is not None
        odd = "rope_scaling empty" if empty else "rope_scaling null"
        return row.outcome(odd if stated else f"default {spelling}")
    name, odd = _name(row, block)
    if odd:
        return odd
    # The names that have probes of their own come first, then the probe of the type.
    kind = canonical_rope_type(name)
    if name == "proportional":
        return row.outcome(name) or "other"
    if name == "su":
        return row.outcome("longrope su")
    if kind == "default":
        spelled = (
            "mrope"
            if name == "mrope"
            else f"mrope {'default' if block.get('type') else 'rope_type'}"
        )
        if "mrope_section" in block and not is_v5 and row.outcome(spelled):
            return row.outcome(spelled)
        plain = row.outcome("default v5" if is_v5 else "yarn no type")
        if ERROR.match(plain) or plain.startswith("yarn"):
            raise NotKnown(f"Nobody examined what {row.release} does with rope_type {name!r}.")
        return plain
    if kind == "longrope" and block.get("type"):
        has_scales = {"short_mscale", "long_mscale"} <= block.keys()
        return row.outcome("longrope mscales" if has_scales else "longrope type")
    if kind == "linear" and isinstance(block.get("factor"), int):
        kind, spelling = "linear integer", "factor"
    return row.outcome(f"{kind} {spelling}") or row.outcome("unknown type")


def _line_if_ignored(row: Row, block: Mapping[str, Any]) -> str:
    """Plain, but for a dict that lacks what the file looks at before it drops it."""
    if block and canonical_rope_type(str(block.get("type") or block.get("rope_type"))) != "default":
        typed = block.get("type") or block.get("rope_type")
        looked = {"no factor": block.get("factor"), "no original": block.get(ORIGINAL),
                  "no type": typed, "betas null": block.get("beta_fast", 0)}  # fmt: skip
        absent = [row.outcome(f"yarn {what}") for what, value in looked.items() if value is None]
        return next((line for line in absent if ERROR.match(line)), "plain")
    return "plain"


def _name(row: Row, block: Mapping[str, Any]) -> tuple[str, str]:
    """The type that the file reads; or the line that a dict without that name gave."""
    old, new = block.get("type"), block.get("rope_type")
    by = next((kind for kind in ("yarn", "linear") if row.word(kind) != "refuses"), "")
    if not old and not new:
        line = row.outcome("yarn no type")
        return ("yarn", "") if line.startswith("yarn") else ("default", line)
    if old and new and old != new:
        line = row.outcome("type yarn rope_type linear")
        if ERROR.match(line) or row.word("yarn") not in ("reads", "differs"):
            raise NotKnown(f"Nobody examined which name of the type {row.release} reads.")
        return str(old if line.startswith("yarn") else new), ""
    if old and new:
        return str(old), ""
    line = row.outcome(f"{by} only {'type' if old else 'rope_type'}") if by else ""
    fails = ERROR.match(line) or (line.startswith("plain") and row.word(by) == "reads")
    return str(old or new), line if fails else ""


def _used(
    row: Row, model: Model, block: Mapping[str, Any], plain: RopeParameters, line: str
) -> Used:
    """The numbers for a dict that the file makes `line` of."""
    kind = line.split()[0]
    if kind == "plain":
        if "scale=" not in line:
            return Used(plain)
        # LongRoPE's class with factors of 1.
        return Used(plain, longrope_scale_by_lengths(_with_original(row, plain, block)))
    if kind == "proportional" and "dim=" not in line:
        share = number(PART, block.get(PART, 1.0))
        return Used(replace(plain, rope_type=kind, partial_rotary_factor=share))
    own = re.search(r"^linear factor=([\d.]+)", line)
    if own:  # a file that turns texts without a scaling as if there were one
        return Used(with_frequencies(plain, [f / float(own[1]) for f in plain.inv_freq(1)]))
    if kind not in ("linear", "dynamic", "yarn", "llama3", "longrope"):
        raise NotKnown(f"What {row.release} computes for {row.model_type} has no formula here.")
    refuse_gaps(block, kind, not_null=_COMPUTED)
    if kind in ("dynamic", "longrope") and _LENGTH not in model.text:
        raise NotKnown(f"The default of {_LENGTH} in {row.release} was not looked at.")
    own_scale = "scale=1.25" in row.outcome("longrope mscales") and "long_mscale" in block
    if kind == "longrope" and "scale=" in line and not own_scale:
        # phi3 takes the original length from the top level.
        block = {**block, ORIGINAL: model.text.get(ORIGINAL, _OLD_ORIGINAL)}
    p = _setting(row, plain, block, kind)
    if kind == "yarn":
        softmax = mla_softmax(p) if "softmax=" in row.outcome("yarn mscale") else 1.0
        return Used(p, mscale_ratio(p), softmax)
    if kind != "longrope":
        return Used(p)
    if "list=long" in line:
        p = replace(p, short_factor=p.long_factor)
    return Used(
        p,
        number("long_mscale", block["long_mscale"]) if own_scale else longrope_scale_by_lengths(p),
    )


def _setting(
    row: Row, plain: RopeParameters, block: Mapping[str, Any], kind: str
) -> RopeParameters:
    found = {**_LLAMA3, **block} if kind == "llama3" else block
    fields = {k: found[k] for k in _COMPUTED if k in found and k != ORIGINAL}
    for key in ("short_factor", "long_factor"):
        if key in fields:
            if not isinstance(fields[key], list):
                raise LoaderError(f"{key} is no list.")
            fields[key] = tuple(fields[key])
    try:
        p = replace(plain, rope_type=kind, **fields)
    except (ConfigError, TypeError) as error:
        raise LoaderError(str(error)) from error
    return _with_original(row, p, block) if kind in HAVE_ORIGINAL else p


def _with_original(row: Row, p: RopeParameters, block: Mapping[str, Any]) -> RopeParameters:
    original = block.get(ORIGINAL)
    if original is None:
        if p.rope_type == "longrope":
            raise LoaderError(f"longrope without {ORIGINAL} in its block: KeyError.")
        line = row.outcome(f"{'llama3' if p.rope_type == 'llama3' else 'yarn'} no original")
        if ERROR.match(line):
            raise LoaderError(f"{row.release} stops while loading {row.model_type}: {line}.")
        default = re.search(r"original=(\d+)", line)
        otherwise = 8192 if p.rope_type == "llama3" else _OLD_ORIGINAL
        original = int(default[1]) if default else otherwise
    try:
        return replace(p, original_max_position_embeddings=int(number(ORIGINAL, original)))
    except ConfigError as error:
        raise LoaderError(str(error)) from error
