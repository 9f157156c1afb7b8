"""Rules on the numbers of a scaling: factor, lengths, temperature, and keys nobody reads."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from yarncli.history import BAKED_MARKER, FILE_NAME
from yarncli.jsontext.text import Path, format_path
from yarncli.rope import formulas
from yarncli.rope.methods import keeps_max
from yarncli.rope.parameters import HAVE_ORIGINAL, RopeParameters
from yarncli.rules.config_view import Block, ConfigView, whole
from yarncli.rules.finding import Edit, Finding

_ORIGINAL = "original_max_position_embeddings"
_MANY = 20  # unknown keys of one dict that are named
_SHORTEST = 128  # tokens; no model was trained on less

# Keys that some engine or some model's own code reads, beside those of RopeParameters.
_OTHER_KEYS = frozenset(
    """
    type attn_factor extrapolation_factor short_mscale long_mscale mrope_section mrope_interleaved
    xdrope_section llama_4_scaling_beta alpha max_trained_positions apply_yarn_scaling finetuned
    max_position_embeddings
    """.split()
)
_KNOWN_KEYS = frozenset(RopeParameters.__dataclass_fields__) - {"extra", "head_dim"} | _OTHER_KEYS


def factor_integer(view: ConfigView) -> Iterator[Finding]:
    """An integer factor, which crashes two engines under linear scaling."""
    for block in view.blocks:
        factor = block.values.get("factor")
        if type(factor) is not int or whole(factor) is None or block.rope_type is None:
            continue
        linear = block.rope_type == "linear"
        path = (*block.path, "factor")
        yield view.finding(
            "factor-integer",
            path,
            f"{format_path(path)} is the integer {factor}; "
            + (f"vLLM and SGLang stop. Write {factor}.0." if linear else f"write {factor}.0."),
            severity="error" if linear else "note",
            edit=Edit({path: float(factor)}),
        )


def length_mismatch(view: ConfigView) -> Iterator[Finding]:
    """The yarn invariant: factor × original = maximum, to one token."""
    maximum = view.maximum
    for block in view.blocks:
        factor, original = block.number("factor"), _original_of(view, block)
        if block.rope_type != "yarn" or not (factor and original and maximum):
            continue
        if abs(factor * original - maximum) > 1:
            path = (*view.base, view.length_key)
            yield view.finding(
                "length-mismatch",
                path,
                f"factor {factor:g} × {_ORIGINAL} {original:,} is {factor * original:,.0f}, but "
                f"{view.length_key} is {maximum:,}.",
                edit=_raise_maximum(view, factor * original, original),
            )
            return


def _raise_maximum(view: ConfigView, product: float, original: int) -> Edit | None:
    """Raise a maximum that still is the original length; any other value may be intended."""
    known = view.family.known_originals if view.family else {}
    untouched = view.maximum == original or known.get(view.maximum or 0) == original
    if not untouched or product != int(product):
        return None
    return Edit({(*view.base, view.length_key): int(product)})


def _original_of(view: ConfigView, block: Block) -> int | None:
    return whole(block.values.get(_ORIGINAL)) or whole(view.top(_ORIGINAL))


def original_missing(view: ConfigView) -> Iterator[Finding]:
    """A method that needs the original length is not told it, or not everywhere it is read."""
    for block in view.blocks:
        if block.rope_type not in HAVE_ORIGINAL:
            continue
        inside, top = block.values.get(_ORIGINAL), view.top(_ORIGINAL)
        if view.family is None and block.rope_type == "longrope":
            continue  # only the model's own code reads it, and nobody knows where it looks
        if inside is None and top is None:
            yield view.finding(
                "original-missing",
                block.path,
                f"{format_path(block.path)} is {block.rope_type} without {_ORIGINAL}; "
                "each engine takes another length instead.",
                severity=None if view.family else "warning",
            )
        elif block.rope_type == "longrope":
            yield from _one_sided(view, block, inside, top)
        elif inside is None:
            path = (*block.path, _ORIGINAL)
            yield view.finding(
                "original-missing",
                (*view.base, _ORIGINAL),
                f"{_ORIGINAL} is outside {format_path(block.path)}, where most engines do not read "
                "it.",
                edit=Edit({path: top}),
                severity="warning",
            )


def _one_sided(view: ConfigView, block: Block, inside: Any, top: Any) -> Iterator[Finding]:
    assert view.family is not None
    declared = view.family.original_max_position_embeddings is not None
    in_4 = view.family.transformers_since != "5" and not view.family.same_as
    if inside is None and not declared:
        path, where = (*block.path, _ORIGINAL), "inside the RoPE dict (transformers 5 reads it)"
    elif top is None and in_4 and view.text.get((*view.base, "rope_scaling")):
        path, where = (*view.base, _ORIGINAL), "at top level (transformers 4 reads only that)"
    else:
        return
    value = top if inside is None else inside
    yield view.finding(
        "original-missing",
        block.path,
        f"longrope needs {_ORIGINAL} {where} too.",
        edit=Edit({path: value}),
        severity="warning",
    )


def original_implausible(view: ConfigView) -> Iterator[Finding]:
    """An original length longer than the window, tiny, or known to be another."""
    known = view.family.known_originals if view.family else {}
    for block in view.blocks:
        original, maximum = _original_of(view, block), view.maximum
        if block.rope_type not in HAVE_ORIGINAL or original is None or maximum is None:
            continue
        path: Path = (*block.path, _ORIGINAL)
        if original in known:
            problem = (
                f"is {original:,}, the window this model ships with; it was trained with "
                f"{known[original]:,}"
            )
        elif original > maximum:
            problem = f"is {original:,}, longer than {view.length_key} {maximum:,}"
        elif original == maximum and block.rope_type == "llama3":
            problem = f"is {original:,}, as long as {view.length_key}: nothing was extended"
        elif original < _SHORTEST:
            problem = f"is {original}; no model was trained on so few tokens"
        else:
            continue
        yield view.finding("original-implausible", path, f"{format_path(path)} {problem}.")


def max_raised(view: ConfigView) -> Iterator[Finding]:
    """linear and dynamic need the original maximum; a known original shows that it was raised."""
    maximum = view.maximum
    for block in view.blocks:
        if not keeps_max(block.rope_type or "") or maximum is None:
            continue
        original = _original_of(view, block) or view.planned_maximum
        if original is None or maximum <= original:
            continue
        factor = block.number("factor") or 1.0
        path = (*view.base, view.length_key)
        exact = maximum == int(factor * original) or original == view.planned_maximum
        yield view.finding(
            "max-raised",
            path,
            f"{block.rope_type} needs the original length {original:,} as {view.length_key}; "
            f"it is {maximum:,}.",
            edit=Edit({path: original}) if exact else None,
        )
        return


def unknown_key(view: ConfigView) -> Iterator[Finding]:
    """A key that nothing reads, often a misspelled one."""
    labels = {rule.name for rule in view.family.scopes} if view.family else set()
    known = _KNOWN_KEYS | labels
    for block in view.blocks if view.family else ():
        unknown = [key for key in block.values if key not in known]
        for key in unknown[:_MANY]:
            from difflib import get_close_matches

            # A very long key is close to no known one, and a comparison takes quadratic time.
            close = get_close_matches(key[:60], sorted(_KNOWN_KEYS), 1, 0.8)
            hint = f"; did you mean {close[0]}?" if close else "."
            path = (*block.path, key)
            yield view.finding(
                "unknown-key", path, f"No engine reads {format_path(path)[:200]}{hint}"
            )
        if rest := len(unknown[_MANY:]):
            message = f"No engine reads {rest:,} more keys of {format_path(block.path)}."
            yield view.finding("unknown-key", block.path, message)


def attn_factor(view: ConfigView) -> Iterator[Finding]:
    """`attn_factor` that is not the neutral form of a model with multimodal RoPE."""
    for block in view.blocks:
        value, factor = block.number("attn_factor"), block.number("factor")
        if value is None or value == 1:
            continue
        neutral = factor and math.isclose(value * formulas.get_mscale(factor), 1, rel_tol=1e-6)
        if _is_mrope(view, block) and neutral and block.number("attention_factor") == 1:
            continue
        path = (*block.path, "attn_factor")
        yield view.finding(
            "attn-factor",
            path,
            f"{format_path(path)} {value:g} changes the temperature in SGLang; transformers and "
            "vLLM ignore it.",
        )


def attention_factor(view: ConfigView) -> Iterator[Finding]:
    """An attention factor other than the default, which half of the engines do not read."""
    for block in view.blocks:
        value, factor = block.number("attention_factor"), block.number("factor")
        if block.rope_type != "yarn" or value is None or not factor:
            continue
        mscale, all_dim = block.number("mscale"), block.number("mscale_all_dim")
        computed = formulas.yarn_attention_factor(factor, mscale, all_dim)
        if _is_mrope(view, block) and (by_sglang := block.number("attn_factor")) is not None:
            computed = by_sglang * formulas.get_mscale(factor)
        if not math.isclose(value, computed, rel_tol=1e-6):
            path = (*block.path, "attention_factor")
            yield view.finding(
                "attention-factor",
                path,
                f"{format_path(path)} is {value:g}; engines that do not read it use {computed:g}.",
            )


def mscale_mrope(view: ConfigView) -> Iterator[Finding]:
    """mscale or mscale_all_dim in a model with M-RoPE, at which SGLang stops."""
    for block in view.blocks:
        keys = [key for key in ("mscale", "mscale_all_dim") if key in block.values]
        if keys and block.rope_type == "yarn" and _is_mrope(view, block):
            path = (*block.path, keys[0])
            yield view.finding(
                "mscale-mrope",
                path,
                f"SGLang stops at {format_path(path)}, as the model has multimodal RoPE.",
            )


def mscale_disagreement(view: ConfigView) -> Iterator[Finding]:
    """Values that transformers uses only if neither is 0, and other engines use always."""
    for block in view.blocks:
        factor = block.number("factor")
        given = {"mscale", "mscale_all_dim"} & block.values.keys()
        own = block.values.get("attention_factor") is not None
        if not given or not factor or block.rope_type != "yarn" or own:
            continue
        mscale, all_dim = block.number("mscale"), block.number("mscale_all_dim")
        theirs = formulas.get_mscale(factor, 1.0 if mscale is None else mscale)
        theirs /= formulas.get_mscale(factor, all_dim or 0.0)
        ours = formulas.yarn_attention_factor(factor, mscale, all_dim)
        if not math.isclose(ours, theirs, rel_tol=1e-6):
            path = (*block.path, sorted(given)[0])
            yield view.finding(
                "mscale-disagreement",
                path,
                f"{format_path(block.path)}: from mscale and mscale_all_dim, transformers computes "
                f"the attention factor {ours:g}, and other engines compute {theirs:g}.",
            )


def baked_twice(view: ConfigView) -> Iterator[Finding]:
    """The weights carry the temperature twice, or once and the config still has one."""
    marker, bakes = view.text.value.get(BAKED_MARKER), view.bakes
    if len(bakes) > 1:
        yield view.finding(
            "baked-twice",
            (BAKED_MARKER,),
            f"{FILE_NAME} records {len(bakes)} bakes: the weights carry the temperature that many "
            "times. Bake the unbaked checkpoint again, once.",
        )
    if not (marker or bakes) or view.rope is None:
        return
    where = BAKED_MARKER if marker else FILE_NAME
    marker = marker or bakes[-1].to_json()  # transformers drops the marker when it saves a config
    residual = isinstance(marker, dict) and marker.get("form") == "residual"
    for scope in view.rope.scopes.values():
        p = scope.parameters
        applied, left = p.effective_attention_factor(), 1.0
        if residual and p.rope_type == "yarn":  # the config keeps plain yarn on purpose
            left = formulas.yarn_attention_factor(p.resolved_factor())
        if not math.isclose(applied, left, rel_tol=1e-9):
            yield view.finding(
                "baked-twice",
                scope.path or (BAKED_MARKER,),
                f"{where} says that the weights carry the temperature; the config should "
                f"apply an attention factor of {left:g} and applies {applied:g}.",
            )


def _is_mrope(view: ConfigView, block: Block) -> bool:
    return "mrope_section" in block.values or bool(view.rope and view.rope.mrope)


SCALING_RULES = (
    factor_integer,
    length_mismatch,
    original_missing,
    original_implausible,
    max_raised,
    unknown_key,
    attn_factor,
    attention_factor,
    mscale_mrope,
    mscale_disagreement,
    baked_twice,
)
