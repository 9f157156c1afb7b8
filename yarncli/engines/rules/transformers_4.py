"""transformers 4.x: three generations of YaRN, all reading `rope_scaling` and top-level θ only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from yarncli.config.families.family import Release
from yarncli.config.families.table import FAMILIES
from yarncli.engines.loaders import is_v5_only, legacy, refuse_aliases
from yarncli.engines.shared import (
    ORIGINAL,
    factor_by_lengths,
    from_pretrained,
    mla_softmax,
    phimoe_scale,
    refuse_null_head_dim,
)
from yarncli.engines.types import Engine, EngineCrash, LoaderError, Model, Reading, Used
from yarncli.rope.formulas import longrope_attention_factor
from yarncli.rope.parameters import RopeParameters

# Rotary classes of their own, with the scaling types each knows.
_OWN_ROTARY: dict[str, tuple[str, ...]] = {
    "chameleon": ("linear", "dynamic"),
    "dbrx": (),
    "idefics": (),
    "modernbert-decoder": (),
    "nemotron": (),
}
_SOFTMAX = frozenset({"deepseek_v3", "longcat_flash"})
# θ where the file has none, where version 5 assumes another.
_THETA = {
    "cohere": 1e4,
    "falcon_h1": 1e5,
    "kyutai_speech_to_text": 1e5,
    "olmo3": 1e4,
    "persimmon": 25e3,
    "qwen3_vl_moe_text": 5e6,
    "qwen3_vl_text": 5e6,
}
# Config classes that accept these keys of `rope_scaling` and no other, and these types.
_FACTOR_ONLY = (frozenset({"type", "factor"}), ("linear", "dynamic"))
_LISTS_ONLY = (frozenset({"type", "short_factor", "long_factor"}), ("longrope", "su", "yarn"))
_STRICT = {
    "chameleon": _FACTOR_ONLY,
    "olmo": _FACTOR_ONLY,
    "olmo2": _FACTOR_ONLY,
    "phi3": _LISTS_ONLY,
    "phi4_multimodal": _LISTS_ONLY,
}

_IGNORES = "ignores rope_parameters without a word: θ and scaling are its defaults"

Yarn = Callable[[Model, RopeParameters], tuple[RopeParameters, float]]


def _yarn_50(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """4.43 – 4.50: the window is the original length; no mscale, no truncate."""
    p = replace(
        p, original_max_position_embeddings=None, truncate=None, mscale=None, mscale_all_dim=None
    )
    return p, p.effective_attention_factor()


def _yarn_55(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """4.51 – 4.55: the factor is the ratio of the lengths wherever the original one is given."""
    original = model.block("rope_scaling").get(ORIGINAL)
    if original is None:
        p = replace(p, original_max_position_embeddings=None)
    else:
        p = factor_by_lengths(p, original, "the two lengths")
    return p, p.effective_attention_factor()


def _yarn_57(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """4.56 – 4.57: as transformers 5."""
    stated = model.block("rope_scaling") or model.family.rope_defaults
    p = replace(p, original_max_position_embeddings=stated.get(ORIGINAL))
    return p, p.effective_attention_factor()


def _longrope(model: Model, p: RopeParameters) -> tuple[RopeParameters, float]:
    """All of 4.x: only the top-level original length counts, and it overrides the factor."""
    original = model.text.get(ORIGINAL, model.family.original_max_position_embeddings)
    if model.rope.model_type == "phimoe":
        original = model.block("rope_scaling").get(ORIGINAL, original)
    if original:
        factor = p.max_position_embeddings / original
    elif p.factor is not None:
        factor, original = p.factor, p.max_position_embeddings
    else:
        raise EngineCrash("longrope without factor and top-level original_max_position_embeddings.")
    scale = p.attention_factor or longrope_attention_factor(factor, original)
    p = replace(p, original_max_position_embeddings=original, factor=max(factor, 1.0))
    return p, scale


def _knows(version: Release, model_type: str) -> bool:
    """Whether a checkpoint may name this model type."""
    family = FAMILIES.get(model_type)
    # The names of the releases sort as the releases do.
    return family is not None and family.registered and family.transformers_since <= version


def _reader(version: Release, yarn: Yarn) -> Callable[[Model], Reading]:
    def read(model: Model) -> Reading:
        if not _knows(version, model.model_type):
            own = " The checkpoint's own code would run instead." * ("auto_map" in model.config)
            raise LoaderError(f"It does not know the model type {model.model_type!r}.{own}")
        refuse_aliases(model)
        _refuse_strict(model)
        parameters = legacy(model, default_theta=_THETA.get(model.rope.model_type))
        scopes = {name: _used(model, p, version, yarn) for name, p in parameters.items()}
        return Reading(scopes, notes=(_IGNORES,) if is_v5_only(model) else ())

    return read


def _refuse_strict(model: Model) -> None:
    """What single config classes insist on.

    Raises:
        LoaderError: it is not given.
    """
    block = model.block("rope_scaling")
    mscales = [block.get(name) for name in ("short_mscale", "long_mscale")]
    if model.rope.model_type == "phimoe" and block and None in mscales:
        raise LoaderError("phimoe needs the numbers short_mscale and long_mscale.")
    rule = _STRICT.get(model.rope.model_type)
    if rule is None or not block:
        return
    keys, types = rule
    if set(block) != keys or block["type"] not in types:
        raise LoaderError(
            f"For {model.rope.model_type} it accepts rope_scaling with exactly the keys "
            f"{', '.join(sorted(keys))} and type {' or '.join(types)}."
        )


def _used(model: Model, p: RopeParameters, version: Release, yarn: Yarn) -> Used:
    kind = model.rope.model_type
    own = _OWN_ROTARY.get(kind)
    if own is not None and p.rope_type not in own:
        return Used(replace(p, rope_type="default"))
    _crash_on_habits(model, p, version)
    refuse_null_head_dim(model, p, version)
    softmax = 1.0
    if kind in _SOFTMAX and version != "4.50" and p.rope_type != "default" and p.mscale_all_dim:
        softmax = mla_softmax(p)
    if p.rope_type == "yarn":
        p, scale = yarn(model, p)
        return Used(p, scale, softmax)
    if p.rope_type == "longrope":
        p, scale = _longrope(model, p)
        if kind == "phimoe":
            scale = phimoe_scale(p, model.length)
        return Used(p, scale, softmax)
    stated = model.block("rope_scaling") or model.family.rope_defaults
    if p.rope_type == "llama3" and ORIGINAL not in stated:
        raise EngineCrash("llama3 without original_max_position_embeddings: KeyError.")
    return Used(p, 1.0, softmax)


def _crash_on_habits(model: Model, p: RopeParameters, version: str) -> None:
    """What single model classes fail on.

    Raises:
        EngineCrash: such a case.
    """
    kind = model.rope.model_type
    if kind == "gpt_oss" and p.rope_type == "llama3" and version == "4.55":
        raise EngineCrash("llama3 for gpt_oss: AttributeError while the config is checked.")
    if kind == "llama4_text" and p.rope_type not in ("default", "llama3"):
        raise EngineCrash(f"llama4 computes llama3 whatever the type; {p.rope_type}: KeyError.")
    if kind.startswith("hunyuan_v1") and p.rope_type == "dynamic":
        raise EngineCrash(f"{kind}: dynamic needs alpha, KeyError.")
    if kind == "jetmoe" and version != "4.57":
        raise EngineCrash("jetmoe: it computes half the frequencies the heads need.")
    if kind in ("qwen3_vl_text", "qwen3_vl_moe_text") and not model.block("rope_scaling"):
        raise EngineCrash(f"{kind} needs rope_scaling with mrope_section.")


def _engine(version: Release, versions: str, yarn: Yarn, about: str) -> Engine:
    return Engine(
        id=f"transformers-{version}",
        name=f"transformers {version}",
        versions=versions,
        basis="run",
        read=_reader(version, yarn),
        launch=from_pretrained,
        override="legacy",
        about=(
            about,
            "`rope_parameters` is ignored without a warning; `type` beats `rope_type`.",
            "longrope takes the original length from the top level only.",
        ),
    )


ENGINES = (
    _engine("4.57", "4.56 – 4.57", _yarn_57, "yarn as in transformers 5."),
    _engine(
        "4.55",
        "4.51 – 4.55",
        _yarn_55,
        "yarn: `factor` is replaced by max_position_embeddings / original_max_position_embeddings; "
        "a config that leaves the maximum at the original window switches YaRN off.",
    ),
    _engine(
        "4.50",
        "4.43 – 4.50",
        _yarn_50,
        "yarn: `original_max_position_embeddings`, `mscale` and `truncate` are not read; the ramp "
        "is placed for max_position_embeddings, which is wrong once that is extended.",
    ),
)
