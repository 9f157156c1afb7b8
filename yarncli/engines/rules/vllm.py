"""vLLM: the config as transformers 5 loads it, model files and rotary classes of its own.

What its files pass to the rotary classes is in the table `wiring/vllm.json`; here is what those
classes make of it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from yarncli.engines.architectures import find_class
from yarncli.engines.lengths import served_length, table_rows
from yarncli.engines.loaders import refuse_float_window, version_5
from yarncli.engines.outer import refuse_outer
from yarncli.engines.shared import (
    ORIGINAL,
    deepseek_yarn,
    longrope_scale_by_lengths,
    refuse_gaps,
    refuse_integer_factor,
    refuse_null_head_dim,
    transformers_used,
    with_silent_theta,
)
from yarncli.engines.tables import Row, find_transformers_row, loads_more
from yarncli.engines.types import (
    Engine,
    EngineCrash,
    Launch,
    LoaderError,
    Model,
    NotKnown,
    Reading,
    Used,
)
from yarncli.rope import formulas
from yarncli.rope.parameters import HAVE_ORIGINAL, RopeParameters, mla_softmax

_SAME_TYPE = {("longrope", "su"), ("default", "mrope")}
_PROBED_ORIGINAL = 16384  # of every probe of the table


@dataclass(slots=True, kw_only=True)
class _Start:
    """What the rules collect while they read a config."""

    model: Model
    """The config."""
    row: Row | None
    """The row of the class that it builds; `None` where transformers' own code runs."""
    served: int
    """The default of its maximum length, tokens."""
    notes: list[str]
    """For people."""
    faults: list[str] = field(default_factory=list)
    """What makes the result wrong."""


def read(model: Model) -> Reading:
    """What vLLM 0.33 computes and serves.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails at start-up.
        NotSupported: it has no class for the model, and neither has transformers.
        NotKnown: the class that it builds was not examined for this model type.
    """
    notes: list[str] = []
    row = find_class(model, notes)
    parameters = _parameters(model, row)
    served = served_length(model, row, parameters)
    start = _Start(model=model, row=row, served=served, notes=notes)
    scopes = {name: _used(start, name, p) for name, p in parameters.items()}
    return Reading(
        scopes,
        served_length=served,
        notes=tuple(dict.fromkeys(notes)),
        faults=tuple(dict.fromkeys(start.faults)),
    )


def _parameters(model: Model, row: Row | None) -> dict[str, RopeParameters]:
    """The scopes as transformers 5 reads them, where vLLM accepts them.

    Raises:
        LoaderError: it does not: transformers 5 refuses, or `type` and `rope_type` differ.
        EngineCrash: it fails on the config later.
        NotKnown: vLLM loads what transformers 5 refuses.
    """
    # vLLM checks the type names itself, before its config classes see the dict.
    for name in model.rope.scopes:
        block = model.winning_block(name)
        new, old = block.get("rope_type"), block.get("type")
        if new and old and new != old and (new, old) not in _SAME_TYPE:
            raise LoaderError(
                f"rope_type is {new!r} and type is {old!r}; they must be equal, and "
                "--hf-overrides are applied too late for that. Edit config.json."
            )
        if "mrope" in (new, old) and "mrope_section" not in block:
            raise LoaderError("type 'mrope' without mrope_section: ValueError.")
    if model.text.get("dual_chunk_attention_config"):
        raise EngineCrash(
            "dual_chunk_attention_config: its backend was removed in vLLM 0.11. Drop the key, and "
            "make max_position_embeddings the trained window."
        )
    refuse_outer(model.config, model.text_path, aliases=True)
    # Without a row, transformers' own code runs, so its rules decide.
    if row is None:
        return version_5(model)
    if not loads_more(row):
        refuse_float_window(model)
    elif isinstance(model.text.get(model.rope.length_key), float):
        raise NotKnown("Nobody examined what its own config class does with a window like 4096.0.")
    if model.refusal and (_ignores(row) or loads_more(row)):
        raise NotKnown(f"vLLM loads more than transformers 5 does. {model.refusal}")
    if model.refusal:
        raise LoaderError(model.refusal)
    # Nested families were examined with a flat rope_scaling only where they take one.
    takes_flat = any(rule.takes_flat for rule in model.family.scopes)
    if model.family.scopes and not takes_flat and "rope_scaling" in model.text:
        raise NotKnown(
            f"A {row.model_type} config with rope_scaling was not examined. Remove it, and nest "
            "rope_parameters by layer type."
        )
    flat = model.block("rope_parameters")
    if model.family.scopes and flat and not any(rule.name in flat for rule in model.family.scopes):
        raise NotKnown(f"A {row.model_type} config with flat rope_parameters was not examined.")
    parameters = {name: scope.parameters for name, scope in model.rope.scopes.items()}
    for name, p in parameters.items():
        block = model.winning_block(name)
        if block:
            refuse_gaps(block, p.rope_type)
        nested = any(isinstance(v, Mapping) for v in block.values())
        if nested and not model.family.scopes and not _ignores(row):
            raise EngineCrash(f"{row.model_type} has one setting, not one per layer type.")
    if not _ignores(row):
        refuse_integer_factor(model, parameters)
    return parameters


def _ignores(row: Row) -> bool:
    """Whether the class rotates without scaling, whatever the config says."""
    return bool(row.entry["types"]["yarn"] == "ignores")


def _used(start: _Start, name: str, p: RopeParameters) -> Used:
    """What vLLM computes for one scope; adds notes and faults."""
    model, row = start.model, start.row
    if row is None:
        return _by_transformers(model, p)
    block = model.winning_block(name)
    share = row.entry.get("share")
    if share and not {*model.family.partial_keys, "partial_rotary_factor"} & {*block, *model.text}:
        p = replace(p, partial_rotary_factor=share)
        start.notes.append(f"rotates {share:g} of each head where the config states no share")
    p = with_silent_theta(model, row, block, p)
    _refuse_lacking(model, row, p.rope_type, block)
    if _ignores(row):
        return Used(_ignored(model, row, name, p))
    if row.model_type == "deepseek_v4":
        return _deepseek_v4(model, name, p, block)
    as_yarn = row.outcome("llama3 both").startswith("yarn")
    if block:
        _refuse_by_row(row, p.rope_type, block)
    if p.rope_type in HAVE_ORIGINAL:
        refuse_gaps(block or {"factor": 1.0}, p.rope_type, not_null=(ORIGINAL,))
    if "beta_fast" in row.entry.get("requires", ()):
        return _by_index(start, p, block)
    if p.rope_type == "yarn" or (as_yarn and p.rope_type != "default"):
        return _yarn(start, p, block, as_yarn)
    rows = table_rows(model, row, p)
    if start.served > rows:
        start.faults.append(f"its table of angles ends at {rows:,} tokens")
    if "mrope_section" in block and p.rope_type != "default":
        start.faults.append(
            f"its class for {p.rope_type} takes one position per token, this model has three"
        )
    if p.rope_type == "dynamic":
        return Used(_dynamic(p, start.notes))
    if p.rope_type == "longrope":
        refuse_null_head_dim(model, p, "5")  # the check of its two lists
        return _longrope(p, start.served, start.notes)
    return Used(p)


def _by_transformers(model: Model, p: RopeParameters) -> Used:
    row = find_transformers_row("transformers-5", model)
    failure = row.failure(f"{p.rope_type} both") and row.failure(f"{p.rope_type} v5")
    if failure:
        raise EngineCrash(f"transformers' code fails: {failure}")
    if model.family.scopes and p.truncate is False:
        p = replace(p, truncate=None)  # it looks for the key beside the scopes
    return transformers_used(model, p)


def _refuse_lacking(model: Model, row: Row, kind: str, block: Mapping[str, Any]) -> None:
    """Refuse a dict that lacks what vLLM's own config classes do not fill in.

    Raises:
        LoaderError: names the key.
    """
    lacks = kind in HAVE_ORIGINAL and ORIGINAL not in {*block, *model.text}
    if block and lacks and row.failure("yarn no original"):
        raise LoaderError(f"{kind} without {ORIGINAL} in {row.model_type}: KeyError.")
    if kind == "llama3" and row.failure("llama3 legacy") and not model.block("rope_parameters"):
        raise LoaderError(f"llama3 in rope_scaling alone in {row.model_type}: KeyError rope_theta.")


def _refuse_by_row(row: Row, kind: str, block: Mapping[str, Any]) -> None:
    """Refuse what failed when the class was built.

    Raises:
        EngineCrash: the class fails on this type.
    """
    if "beta_fast" in row.entry.get("requires", ()) or row.outcome("llama3 both").startswith(
        "yarn"
    ):
        return
    probes = [f"{kind} both", f"{kind} v5"]
    if kind == "longrope" and {"short_mscale", "long_mscale"} <= block.keys():
        probes = ["longrope mscales"]
    failures = [row.failure(probe) for probe in probes]
    if all(failures):
        raise EngineCrash(f"{kind} in {row.model_type}: {failures[0]}")


def _ignored(model: Model, row: Row, name: str, p: RopeParameters) -> RopeParameters:
    """Plain RoPE; some classes take θ from the top level alone, or from where DBRX keeps it."""
    theta: Any = p.rope_theta
    inner = model.text.get(model.family.attention_key) if model.family.attention_key else None
    if isinstance(inner, Mapping):
        theta = inner.get("rope_theta", theta)
    elif "theta=" in row.outcome("default v5"):
        rule = next((rule for rule in model.family.scopes if rule.name == name), None)
        keys: tuple[str, ...] = ("rope_theta",)
        default = row.entry["theta"]
        if rule and rule.windowed:
            keys, default = ("swa_rope_theta", *rule.theta_keys), rule.rope_theta
        theta = next((model.text[key] for key in keys if model.text.get(key)), default)
    return replace(p, rope_type="default", rope_theta=float(theta))


def _by_index(start: _Start, p: RopeParameters, block: Mapping[str, Any]) -> Used:
    """YaRN whatever the type, its keys read by name from what the file has: gpt-oss.

    Source: model_executor/models/gpt_oss.py:111.
    """
    filled = p.rope_type in HAVE_ORIGINAL
    found = {ORIGINAL: p.original_length, **block} if filled else block
    for key in ("factor", ORIGINAL, "beta_fast", "beta_slow") if block else ():
        if key not in found:
            raise EngineCrash(f"It reads {key} by name: KeyError. Write it out.")
    if block:
        refuse_gaps(block, "yarn", not_null=("factor", "beta_fast", "beta_slow"))
    start.notes.append("runs yarn whatever the type; attention_factor and mscale are dropped")
    keys = {key: found[key] for key in ("factor", "beta_fast", "beta_slow") if key in found}
    if block:
        keys[ORIGINAL] = p.original_length if filled else found[ORIGINAL]
    bare = replace(
        p, rope_type="yarn", attention_factor=None, mscale=None, mscale_all_dim=None, **keys
    )
    return Used(bare, bare.effective_attention_factor())


def _yarn(start: _Start, p: RopeParameters, block: Mapping[str, Any], as_yarn: bool) -> Used:
    """YaRN, in the classes that know no other type whatever the type.

    Source: layers/rotary_embedding/yarn_scaling_rope.py, mrope.py:321 (`positions_factor`).
    """
    row = start.row
    assert row is not None
    if p.rope_type in HAVE_ORIGINAL:
        p = replace(p, original_max_position_embeddings=p.original_length)
    is_mrope = "mrope_section" in block and not as_yarn
    if is_mrope and block.get("factor", 1.0) is None:
        start.notes.append("factor null switches yarn off in its class for M-RoPE")
        return Used(replace(p, rope_type="default", factor=None))
    if block:
        refuse_gaps(block, p.rope_type, not_null=("factor", "beta_fast", "beta_slow"))
    multiple = _ramp_multiple(row) if is_mrope else 1.0
    rows = int(p.original_length * multiple * p.resolved_factor())
    if start.served > rows:
        start.faults.append(f"its table of angles ends at {rows:,} tokens")
    if as_yarn:
        refuse_gaps(block, p.rope_type, not_null=("mscale", "mscale_all_dim"))
        return deepseek_yarn(p, _deepseek_softmax(p, start.notes))
    scale = p.effective_attention_factor()
    if multiple != 1.0:
        start.notes.append(f"its class for M-RoPE takes {multiple:g} × the original length")
        p = replace(p, original_max_position_embeddings=int(p.original_length * multiple))
    return Used(p, scale)


def _ramp_multiple(row: Row) -> float:
    """By how much the class of M-RoPE stretches the original length before it makes the ramp."""
    found = re.match(r"yarn original=(\d+)", row.outcome("yarn both"))
    return int(found[1]) / _PROBED_ORIGINAL if found else 1.0


def _deepseek_softmax(p: RopeParameters, notes: list[str]) -> float:
    if p.attention_factor != 1.0:
        return mla_softmax(p)
    notes.append("attention_factor 1.0 switches mscale_all_dim's softmax scale off")
    return 1.0


def _deepseek_v4(model: Model, name: str, p: RopeParameters, block: Mapping[str, Any]) -> Used:
    """θ from the top level, any type as YaRN without its temperature, and on `compress` alone.

    Source: models/deepseek_v4/common/rope.py.
    """
    rule = next(rule for rule in model.family.scopes if rule.name == name)
    stated = next((model.text[k] for k in rule.theta_keys if model.text.get(k) is not None), None)
    theta = float(rule.rope_theta if stated is None else stated)
    p = replace(p, rope_theta=theta)
    if name != "compress" or p.rope_type == "default":
        return Used(replace(p, rope_type="default"))
    refuse_gaps(block, p.rope_type, not_null=("factor", "beta_fast", "beta_slow"))
    if p.rope_type in HAVE_ORIGINAL:
        p = replace(p, original_max_position_embeddings=p.original_length)
    return Used(deepseek_yarn(p, 1.0).parameters)


def _dynamic(p: RopeParameters, notes: list[str]) -> RopeParameters:
    """A fixed base from `max_trained_positions`; without that key no scaling at all."""
    trained = p.extra.get("max_trained_positions") or p.max_position_embeddings
    theta = formulas.dynamic_theta(
        p.rope_theta, p.rotary_dim, p.resolved_factor(), p.max_position_embeddings, trained
    )
    if theta == p.rope_theta:
        notes.append("dynamic does nothing: its base does not follow the length of the text")
    return replace(p, rope_type="default", rope_theta=theta)


def _longrope(p: RopeParameters, served: int, notes: list[str]) -> Used:
    long = served > p.original_length
    chosen = p.long_factor if long else p.short_factor
    notes.append(
        f"uses the {'long' if long else 'short'} factors for every text at this maximum length"
    )
    stated = p.extra.get("long_mscale" if long else "short_mscale")
    scale = stated if stated is not None else longrope_scale_by_lengths(p)
    return Used(replace(p, short_factor=chosen, long_factor=chosen), scale)


def launch(parts: Launch) -> str:
    """`vllm serve`, with `--hf-overrides` where fields must change."""
    words = ["vllm", "serve", parts.model.source, "--max-model-len", str(parts.length)]
    return shlex.join([*words, *parts.override_words("--hf-overrides")])


_ABOUT = (
    "linear and dynamic multiply max_position_embeddings by the factor; yarn, llama3 and longrope "
    "take it as it is.",
    "dynamic does not scale; a linear factor must be a float.",
    "longrope: long factors for every text once the maximum exceeds the original window; "
    "`attention_factor` is not read, `short_mscale`/`long_mscale` are.",
    "MLA models: every scaling becomes DeepSeek's YaRN.",
    "`architectures` decides which class is built; what it has no class for runs through "
    "transformers' own code, if that supports it.",
    "Qwen2-VL and its relatives: the ramp of yarn is made with four times the original length.",
)

ENGINE = Engine(
    id="vllm",
    name="vLLM",
    versions="0.33",
    read=read,
    launch=launch,
    override="v5",
    mends_refusals=False,
    merges="nested",
    about=("`attention_factor` and the mscale pair as in transformers.", *_ABOUT),
)
