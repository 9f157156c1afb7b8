"""exllamav3: either spelling as it stands in the file; YaRN's factor from the two lengths."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from yarncli.engines.shared import (
    ORIGINAL,
    longrope_scale_by_lengths,
    unmeant,
)
from yarncli.engines.tables import find_row
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
from yarncli.errors import ConfigError
from yarncli.rope import formulas
from yarncli.rope.parameters import RopeParameters, with_frequencies

Block = Mapping[str, Any]


def read(model: Model) -> Reading:
    """What exllamav3 computes; the cache size is the limit, by default max_position_embeddings.

    Reference: `model/config.py`, `read_rope_settings_default`; `util/rope.py`.

    Raises:
        LoaderError: it refuses the config.
        EngineCrash: it fails while it computes the frequencies.
        NotSupported: it has no class for the model.
        NotKnown: its class was not examined, or the numbers are out of all range.
    """
    row = find_row("exllamav3", model)
    row.require_class(model)
    _refuse(model, row.entry)
    scopes = {}
    for name, scope in model.rope.scopes.items():
        try:
            if "settings" in row.entry:
                scopes[name] = _used(model, scope.parameters, name, row.entry["settings"])
            else:
                scopes[name] = _deepseek_v4(model.text, scope.parameters, name)
        except ConfigError as error:
            raise NotKnown(f"Nobody examined what it computes here: {error}") from error
    length = model.rope.max_position_embeddings
    return Reading(scopes, served_length=length, faults=unmeant(model))


def _refuse(model: Model, entry: Block) -> None:
    named = model.config.get("architectures")
    if isinstance(named, list) and len(named) != 1:
        raise LoaderError(f"architectures has {len(named)} entries; it takes exactly one.")
    if entry.get("flat") and model.text_path:
        raise LoaderError("It needs the fields of the text part at the top level of config.json.")
    if entry["class"].startswith("Gemma4") and model.text.get("hidden_size_per_layer_input"):
        raise LoaderError("Gemma 4's per-layer inputs are not implemented: NotImplementedError.")
    for key in ("rope_scaling", "rope_parameters"):
        value = model.text.get(key)
        if value is not None and not isinstance(value, Mapping):
            raise LoaderError(f"{key} is not an object: TypeError.")
        if value is not None and key == "rope_scaling":
            break


def _used(model: Model, p: RopeParameters, name: str, settings: Block) -> Used:
    """One scope, from the text part as it stands in the file.

    Args:
        model: the config.
        p: the scope as transformers 5 reads it, for its sizes.
        name: the scope.
        settings: what the class takes from where, by scope: `scripts/wiring/exllamav3.py`.
    """
    rule = settings.get(name, settings["full_attention"])
    text = model.text
    parameters = model.block("rope_parameters")
    if rule.get("nested"):
        if rule["theta"] == "top" and name not in parameters:
            raise LoaderError(f"rope_parameters.{name} is missing: KeyError.")
        parameters = parameters.get(name) or {}
    top = {"top": text, "scope": parameters, "none": {}}[rule["theta"]]
    also = parameters if rule["theta"] == "top" else {}
    block: Block = {}
    if rule["block"] == "top":
        scaling = text.get("rope_scaling")
        block = parameters if scaling is None else scaling
    kind = block.get("rope_type", block.get("type")) or "default"
    if rule["block"] == "none" and rule["theta"] == "scope":
        # Gemma 4 names the type and gives the class no dict to compute it from.
        kind = parameters.get("rope_type") or "default"
        if kind not in ("default", "mrope", "proportional"):
            raise EngineCrash(f"{kind} in this model gets no settings: AttributeError.")
    width = _width(model, p, rule)
    part = _number(top, also, "partial_rotary_factor", rule.get("default_part", 1.0))
    if isinstance(top.get("rotary_dim"), int):
        part = top["rotary_dim"] / width
    theta = _number(top, also, "rope_theta", rule["default_theta"])
    base = _plain(p, theta, head_dim=width, partial_rotary_factor=part)
    softmax = 1.0
    if rule.get("pair") and kind != "default" and block.get("mscale_all_dim"):
        softmax = formulas.get_mscale(_factor(block), float(block["mscale_all_dim"])) ** 2
    return replace(
        _computed(rule.get("type", kind), base, block, text, bool(rule.get("pair"))),
        softmax_scale_ratio=softmax,
    )


def _number(first: Block, second: Block, key: str, default: float) -> float:
    for block in (first, second):
        value = block.get(key)
        if isinstance(value, int | float):
            return float(value)
    return default


def _width(model: Model, p: RopeParameters, rule: Block) -> int:
    """The width of a head, which not all classes assume as transformers does."""
    if model.family.qk_rope_head_dim is not None:
        return int(model.text.get("qk_rope_head_dim") or model.family.qk_rope_head_dim)
    if model.text.get("head_dim") is not None:
        return p.head_dim
    width = rule.get("default_width")
    if width == "required":
        raise LoaderError(f"head_dim is missing: ValueError. Add head_dim: {p.head_dim}.")
    hidden = model.text.get("hidden_size")
    if width is None and isinstance(hidden, int):
        width = hidden // model.rope.num_attention_heads
    return width or p.head_dim


def _plain(
    p: RopeParameters, rope_theta: float, *, head_dim: int, partial_rotary_factor: float = 1.0
) -> RopeParameters:
    return RopeParameters(
        rope_type="default", rope_theta=rope_theta, head_dim=head_dim,
        max_position_embeddings=p.max_position_embeddings,
        partial_rotary_factor=partial_rotary_factor,
    )  # fmt: skip


def _factor(block: Block, default: float | None = None) -> float:
    if "factor" not in block and default is not None:
        return default
    factor = block.get("factor")
    if not isinstance(factor, int | float):
        raise EngineCrash("It has no number for factor: TypeError or KeyError.")
    return float(factor)


def _computed(kind: str, base: RopeParameters, block: Block, text: Block, pair: bool) -> Used:
    """What its `RoPE` makes of a block."""
    match kind:
        case "default" | "mrope":
            return Used(base)
        case "proportional":
            return Used(replace(base, rope_type=kind, factor=_factor(block, 1.0)))
        case "linear":
            return Used(replace(base, rope_type=kind, factor=_factor(block, 1.0)))
        case "llama3":
            given = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, ORIGINAL: 8192, **block}
            names = ("low_freq_factor", "high_freq_factor", ORIGINAL)
            fields = {key: given[key] for key in names}
            return Used(replace(base, rope_type=kind, factor=_factor(block, 8.0), **fields))
        case "yarn":
            return _yarn(base, block, pair, has_maximum="max_position_embeddings" in text)
        case "longrope" | "su":
            return _longrope(base, block, text.get(ORIGINAL))
    raise LoaderError(f"rope_type {kind!r} is not supported: ValueError.")


def _yarn(base: RopeParameters, block: Block, pair: bool, *, has_maximum: bool) -> Used:
    if not has_maximum:
        raise EngineCrash("yarn without max_position_embeddings: AssertionError.")
    original = block.get(ORIGINAL)
    maximum = base.max_position_embeddings
    if original is not None and (
        not isinstance(original, int | float) or original != int(original)
    ):
        raise EngineCrash(f"{ORIGINAL} is not an integer: ValueError.")
    factor = maximum / original if original else _factor(block)
    fast, slow = _beta(block, "beta_fast", 32.0), _beta(block, "beta_slow", 1.0)
    length = int(original or maximum)
    truncate = bool(block.get("truncate", True))
    scale = block.get("attention_factor")
    if scale is None:
        scale = _yarn_scale(factor, block, pair)
    if factor < 1:
        # Below 1 it speeds the frequencies up, which no setting of transformers does.
        freqs = formulas.yarn_inv_freq(
            base.rope_theta,
            base.rotary_dim,
            factor,
            length,
            truncate=truncate,
            beta_fast=fast,
            beta_slow=slow,
        )
        return Used(with_frequencies(base, freqs), scale)
    yarn = replace(
        base,
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=length,
        truncate=truncate,
        beta_fast=fast,
        beta_slow=slow,
    )
    return Used(yarn, scale)


def _beta(block: Block, key: str, default: float) -> float:
    value = block.get(key, default)
    if not isinstance(value, int | float):
        raise EngineCrash(f"{key} is not a number: TypeError. Leave it out.")
    return float(value)


def _yarn_scale(factor: float, block: Block, pair: bool) -> float:
    top, below = block.get("mscale"), block.get("mscale_all_dim")
    if pair and top and below:
        return formulas.get_mscale(factor, top) / formulas.get_mscale(factor, below)
    return 1.0 if block.get("llama_4_scaling_beta") else formulas.get_mscale(factor)


def _longrope(base: RopeParameters, block: Block, top: object) -> Used:
    """One list for every text, chosen by max_position_embeddings; its scale by the two lengths."""
    original = block.get(ORIGINAL, top)
    if not isinstance(original, int):
        raise EngineCrash(f"longrope without {ORIGINAL}: TypeError.")
    is_longer = base.max_position_embeddings > original
    factors = block.get("long_factor" if is_longer else "short_factor")
    if not isinstance(factors, list):
        raise EngineCrash("longrope without its list of factors: TypeError.")
    found = replace(
        base,
        rope_type="longrope",
        original_max_position_embeddings=original,
        short_factor=tuple(factors),
        long_factor=tuple(factors),
    )
    return Used(found, longrope_scale_by_lengths(found) if is_longer else 1.0)


def _deepseek_v4(text: Block, p: RopeParameters, name: str) -> Used:
    """Two bases; the compressed layers alone are scaled, by `rope_scaling`, without a temperature.

    Reference: `architecture/deepseek_v4.py:81-83`, `modules/dsv4.py:621-623`.
    """
    key, default = ("rope_theta", 1e4) if name == "main" else ("compress_rope_theta", 1.6e5)
    block = text.get("rope_scaling") or {}
    theta = _number(text, {}, key, default)
    width = int(text.get("qk_rope_head_dim") or 64)
    base = _plain(p, theta, head_dim=width)
    if name == "main" or block.get("type", block.get("rope_type")) != "yarn":
        return Used(base)
    if ORIGINAL not in block:
        raise EngineCrash(f"yarn without {ORIGINAL}: KeyError.")
    lengths = {**block, "attention_factor": 1.0}
    maximum = int(block[ORIGINAL] * _factor(block))
    return _yarn(replace(base, max_position_embeddings=maximum), lengths, False, has_maximum=True)


def launch(parts: Launch) -> str:
    """TabbyAPI, the usual server around exllamav3; it takes no config overrides."""
    words = ["python", "main.py", "--model-name", parts.model.source]
    return shlex.join([*words, "--max-seq-len", str(parts.length)])


ENGINE = Engine(
    id="exllamav3",
    name="exllamav3",
    versions="1.6.5",
    read=read,
    launch=launch,
    about=(
        "yarn: the factor is max_position_embeddings / original_max_position_embeddings wherever "
        "the latter is given; `attention_factor` and `truncate` are read, the mscale pair in "
        "DeepSeek V3 alone.",
        "dynamic is refused; longrope uses one list for every text and does not read its "
        "`attention_factor`.",
        "It reads both spellings, `rope_scaling` first; Gemma 3 and OLMo 3 need `rope_scaling`.",
    ),
)
