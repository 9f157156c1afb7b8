"""The RoPE part of the GGUF file that llama.cpp's converter makes from a config.

Which keys a converter writes for which type is in the table `wiring/llama.cpp.json`
(`scripts/wiring/llama_cpp.py`); what the runtime computes from them is in the room `gguf`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from yarncli.engines.shared import ORIGINAL
from yarncli.engines.tables import Row
from yarncli.engines.types import EngineCrash, LoaderError, Model, Used
from yarncli.gguf import runtime
from yarncli.gguf.facts import FREQS, Gguf, Sizes, Tensor, typed
from yarncli.gguf.loading import Failure
from yarncli.gguf.runtime import RUNTIME_THETA, STILL
from yarncli.rope import formulas
from yarncli.rope.parameters import HAVE_ORIGINAL, RopeParameters

# Keys without which transformers does not load a config, so that the converter reads it itself.
_NEEDED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "longrope": ("short_factor", "long_factor"),
}

Block = Mapping[str, Any]


def full_scope(model: Model) -> str:
    """The scope whose setting the converter writes; the others have a θ of their own at most."""
    windowed = {rule.name for rule in model.family.scopes if rule.windowed}
    names = [name for name in model.rope.scopes if name not in windowed]
    return "compress" if "compress" in names else (names or list(model.rope.scopes))[0]


def convert_to_gguf(model: Model, row: Row) -> Gguf:
    """What `convert_hf_to_gguf.py` writes.

    Args:
        model: the config.
        row: its row of the table.

    Raises:
        LoaderError: the converter or gguf-py fails.

    Source: `conversion/base.py`, `TextModel.__init__`, `set_gguf_parameters`; the classes.
    """
    entry = {**row.entry, **row.entry.get("through", {}).get(_architecture(model), {})}
    if "writes" not in entry:
        raise LoaderError(f"Its converter fails: {entry['note']}.")
    block, theta_swa = _parameters(model, row)
    p = sizes(model, row, full_scope(model))
    kind = _kind(str(block["rope_type"]), block, entry["writes"])
    if is_turned(model) and row.outcome("yarn turned").startswith("plain"):
        kind = "default"
    written = entry["writes"].get(kind) or entry["writes"]["default"]
    if "error" in written:
        raise LoaderError(f"Its converter fails on {kind}: {written['error']}.")
    _refuse_gaps(model, row, block, kind, written)
    values = _values(model, block, p) | {"theta_swa": theta_swa}
    keys: dict[str, Any] = {"context_length": window(model, row)}
    for key, word in written.items():
        if key in ("tensors", "requires"):
            continue
        if word == "original" and values["original"] is None:
            raise LoaderError(f"Its converter fails on {kind} without {ORIGINAL}: KeyError.")
        value = values.get(word, word) if isinstance(word, str) else word
        if value is not None:
            keys[key] = value
    tensors = {
        tensor: _tensor(tensor, kind, block, p, values) for tensor in written.get("tensors", ())
    }
    return rope_file(entry["graph"], keys, tensors)


def rope_file(
    architecture: str, keys: Mapping[str, Any], tensors: Mapping[str, Sequence[float]]
) -> Gguf:
    """A file with the types that gguf-py gives keys and tensors.

    Args:
        architecture: the GGUF name.
        keys: name without the prefix of the architecture → value.
        tensors: name → numbers.
    """
    prefixed = {f"{architecture}.{key}": typed(key, value) for key, value in keys.items()}
    name = {"general.architecture": typed("general.architecture", architecture)}
    stored = {n: Tensor("F32", (len(values),), tuple(values)) for n, values in tensors.items()}
    return Gguf({**name, **prefixed}, stored)


def _kind(name: str, block: Block, writes: Block) -> str:
    """The type whose keys are written."""
    kind = {"su": "longrope"}.get(name, name)
    has_factor = block.get("factor") is not None
    if kind in ("linear", "yarn") and not has_factor:
        return "default"
    if kind in ("default", "dynamic") or kind not in writes:
        # Nemotron takes a factor for linear whatever the type; base.py writes nothing for dynamic.
        takes = has_factor and "factor" in writes.get("dynamic", {}).values()
        return "dynamic" if takes or kind == "dynamic" else "default"
    return kind


def _refuse_gaps(model: Model, row: Row, block: Block, kind: str, written: Block) -> None:
    """Refuse what the class reads by index and the config lacks, as the probes showed.

    Raises:
        LoaderError: names the key.
    """
    lacking = [key for key in written.get("requires", ()) if block.get(key) is None]
    raw = _block(model, row.entry, full_scope(model))
    asked = block["rope_type"]
    for probe, key in (("yarn no original", ORIGINAL), ("yarn no factor", "factor")):
        if asked == "yarn" and key not in raw and _fails(row, probe):
            lacking.append(key)
    if row.entry.get("theta") == "required" and block["rope_theta"] is None:
        lacking.append("rope_theta")
    if lacking:
        raise LoaderError(f"Its converter fails on {kind} without {lacking[0]}: KeyError.")
    if is_turned(model) and _fails(row, "yarn turned"):
        raise LoaderError("Its converter fails on rope_parameters of this shape: KeyError.")


def _fails(row: Row, probe: str) -> bool:
    return "Error: " in row.outcome(probe)


def is_turned(model: Model) -> bool:
    """Whether `rope_parameters` is nested where the family has it flat, or the other way round."""
    parameters = model.block("rope_parameters")
    if not parameters or model.block("rope_scaling"):
        return False
    nested = any(isinstance(value, Mapping) for value in parameters.values())
    return nested != bool(model.family.scopes)


def window(model: Model, row: Row) -> int:
    """The window that the converter writes, tokens."""
    found = row.entry.get("window", model.rope.max_position_embeddings)
    if isinstance(found, list):
        stated = (model.text.get(key) for key in found)
        found = next((n for n in stated if n is not None), model.rope.max_position_embeddings)
    return int(found)


def sizes(model: Model, row: Row, scope: str) -> RopeParameters:
    """A scope with the width that the converter writes."""
    p = model.rope.scopes[scope].parameters
    part = row.entry.get("part")
    blocks = (model.text, model.winning_block(scope))
    keys = {*model.family.partial_keys, "partial_rotary_factor", "attn_rotary_emb"}
    keys |= {model.family.rotary_dim_key, "qk_rope_head_dim"} - {""}
    stated = any(block.get(key) is not None for block in blocks for key in keys)
    if part is None or stated or model.rope.is_mla or p.rope_type == "proportional":
        return p
    return replace(p, partial_rotary_factor=part)


def _architecture(model: Model) -> str:
    named = model.config.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _parameters(model: Model, row: Row) -> tuple[dict[str, Any], float | None]:
    """`rope_parameters` of the full layers as the converter has it, and θ of the windowed ones.

    It loads config.json through transformers, and as it stands where that fails.
    """
    scope = full_scope(model)
    block = _block(model, row.entry, scope)
    is_raw = row.entry.get("raw") or _transformers_fails(model, block)
    if is_raw:
        block = _block(model, {**row.entry, "raw": True}, scope)
    kind = block.get("rope_type") or block.get("type") or "default"
    theta = block.get("rope_theta")
    if theta is None:
        theta = next((t for k in _theta_keys(model, scope) if (t := model.text.get(k))), None)
    if theta is None and not is_raw and row.entry.get("theta") != "required":
        theta = model.rope.scopes[scope].parameters.rope_theta
    found = {**block, "rope_type": kind, "rope_theta": theta}
    top, own = model.text.get(ORIGINAL), model.family.original_max_position_embeddings
    if own is not None and not is_raw:
        found[ORIGINAL] = top or own
    elif ORIGINAL not in found and (is_raw or kind not in HAVE_ORIGINAL):
        found |= {} if top is None else {ORIGINAL: top}
    elif ORIGINAL not in found:
        found[ORIGINAL] = model.rope.max_position_embeddings
    others = [s for name, s in model.rope.scopes.items() if name != scope]
    nested = model.block("rope_parameters").get("sliding_attention")
    theta_swa = others[0].parameters.rope_theta if others else None
    if not others and isinstance(nested, Mapping):
        theta_swa = nested.get("rope_theta")
    return found, theta_swa


def _transformers_fails(model: Model, block: Block) -> bool:
    kind = block.get("rope_type") or block.get("type") or "default"
    lacks = any(key not in block for key in _NEEDED.get(kind, ()))
    refuses = model.family.refuses
    return lacks or kind in refuses or (bool(refuses) and kind not in (*_NEEDED, "default"))


def _theta_keys(model: Model, scope: str) -> tuple[str, ...]:
    rule = next((rule for rule in model.family.scopes if rule.name == scope), None)
    return rule.theta_keys if rule else model.family.theta_keys


def _block(model: Model, entry: Block, scope: str) -> Block:
    scaling, parameters = model.block("rope_scaling"), model.block("rope_parameters")
    if entry["graph"] == "deepseek4":
        # Its class reads `rope_scaling` of config.json (conversion/deepseek.py:543-548).
        return {**scaling, "rope_theta": model.text.get("rope_theta") or RUNTIME_THETA}
    if model.family.scopes:
        flat = is_turned(model) and not model.family.fills_scopes
        return parameters if flat else model.winning_block(scope)
    if entry.get("wins") == "rope_parameters" or entry.get("raw"):
        block = parameters or scaling
    else:
        block = scaling or parameters
    nested = block.get("full_attention")
    return nested if isinstance(nested, Mapping) else block or model.family.rope_defaults


def _values(model: Model, block: Block, p: RopeParameters) -> dict[str, Any]:
    """The numbers that a row names."""
    original, whole = block.get(ORIGINAL), block.get("mscale_all_dim")
    found = {k: block.get(k) for k in ("factor", "beta_fast", "beta_slow", "extrapolation_factor")}
    found |= {
        "theta": block.get("rope_theta"),
        "original": original,
        "attention_factor": block.get("attention_factor", block.get("attn_factor")),
        "mscale_all_dim": whole,
        "0.1 mscale_all_dim": None if whole is None else 0.1 * whole,
        "compress_rope_theta": model.text.get("compress_rope_theta") or p.rope_theta,
    }
    ratio = p.max_position_embeddings / original if original else 1.0
    longer = ratio > 1 and isinstance(original, int) and original > 1
    scale = formulas.longrope_attention_factor(ratio, original or 2) if longer else 1.0
    return found | {"longrope scale": scale}


def _tensor(
    name: str, kind: str, block: Block, p: RopeParameters, values: Block
) -> tuple[float, ...]:
    """A tensor of frequency factors."""
    if name != FREQS:
        factors = block.get("long_factor" if "long" in name else "short_factor")
        if not isinstance(factors, list) or len(factors) != p.rotary_dim // 2:
            raise LoaderError(f"Its converter fails: longrope needs {p.rotary_dim // 2} factors.")
        return tuple(factors)
    if kind == "proportional":
        moving = int(p.head_dim * (block.get("partial_rotary_factor") or 1.0) / 2)
        return (1.0,) * moving + (STILL,) * (p.head_dim // 2 - moving)
    theta = values["theta"] or RUNTIME_THETA
    plain = formulas.default_inv_freq(theta, p.rotary_dim)
    scaled = formulas.llama3_inv_freq(
        theta, p.rotary_dim, float(block.get("factor", 8.0)), int(values["original"] or 8192),
        low_freq_factor=float(block.get("low_freq_factor", 1.0)),
        high_freq_factor=float(block.get("high_freq_factor", 4.0)),
    )  # fmt: skip
    return tuple(a / b for a, b in zip(plain, scaled, strict=True))


def used(gguf: Gguf, p: RopeParameters, *, windowed: bool = False) -> Used:
    """What the runtime computes from a converted file.

    Args:
        gguf: the file.
        p: gives the sizes only.
        windowed: whether to compute the layers with a sliding window, or the other layers.

    Raises:
        LoaderError: the runtime refuses the file.
        EngineCrash: it aborts, or computes no numbers.
    """
    compute = runtime.run_windowed if windowed else runtime.run
    found = compute(gguf, sizes=Sizes(p.head_dim, p.rotary_dim))
    if isinstance(found, Failure):
        if found.kind == "aborts":
            raise EngineCrash(f"Its runtime aborts on the converted file: {found.because}.")
        if found.kind == "no RoPE":
            raise EngineCrash(f"Its runtime computes no RoPE: {found.because}.")
        raise LoaderError(f"Its runtime refuses the converted file: {found.because}.")
    if found.rotation is None:
        raise EngineCrash("Its runtime computes no valid numbers from the converted file.")
    return Used(found.rotation, found.attention_factor, found.softmax_scale_ratio)
