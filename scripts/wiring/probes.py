"""The configs that every engine is asked about, and words for what it computes.

One small config serves for all model types: `SIZES` holds every key that some model file asks for.
A probe adds a RoPE setting to it. What an engine computes is put into one line by `describe`:

    yarn                    as asked: θ, frequencies and scale on cos and sin
    yarn ramp=default       but with betas 32 and 1, rounded ends of the ramp
    yarn original=4096      but with another original length
    yarn scale=1            but with another scale (`softmax=` for the one of MLA models)
    longrope list=long      the long factors for a short text too
    plain                   θ as asked, not scaled
    plain theta=10000       neither θ nor the scaling
    other 0.5 0.25          none of these; some frequencies
    TypeError: factor       it raised that

The newer spelling, `rope_parameters`, is nested by scope for the families that nest it; the probe
"yarn turned" nests it for the others, and is flat for those.

`plain dim=64` is a rotary width that is not the one asked for. A model whose windowed layers have a
setting of their own gets an object: name of the scope → line.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from yarncli.rope.parameters import RopeParameters

THETA = 654321.0
FACTOR = 4.0
ORIGINAL = 16384
EXTENDED = 65536
SHORT_TEXT = 100
TYPES = ("linear", "dynamic", "yarn", "llama3", "longrope")
SPELLINGS = ("legacy", "v5", "both")
_TOLERANCE = 3e-5

SIZES: dict[str, Any] = {
    "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64,
    "num_hidden_layers": 4, "intermediate_size": 128, "vocab_size": 64, "rms_norm_eps": 1e-6,
    "hidden_act": "silu", "tie_word_embeddings": False,
    "layer_types": ["sliding_attention", "full_attention"] * 2, "sliding_window": 512,
}  # fmt: skip


def setting(kind: str, pairs: int, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keys of a RoPE block of type `kind`, for `pairs` frequencies."""
    block: dict[str, Any] = {"rope_type": kind}
    if kind in ("linear", "dynamic", "yarn"):
        block["type"] = kind  # as `yarncli convert` writes them
    if kind not in ("default", "proportional"):
        block["factor"] = FACTOR
    if kind in ("yarn", "llama3", "longrope"):
        block["original_max_position_embeddings"] = ORIGINAL
    if kind == "llama3":
        block |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    if kind == "longrope":
        block["short_factor"] = [1.0 + i / 100 for i in range(pairs)]
        block["long_factor"] = [1.5 + i / 4 for i in range(pairs)]
    return {**block, **(more or {})}


@dataclass(frozen=True)
class Shape:
    """What the RoPE blocks of a model type look like."""

    pairs: int = 32
    """Frequencies of the rotary part."""
    part: float | None = None
    """`partial_rotary_factor`, which the newer spelling holds in the block."""
    more: Mapping[str, Any] = field(default_factory=dict)
    """Keys that every block of this model type has (`mrope_section`, …)."""
    scaled: tuple[str, ...] = ()
    """Scopes of a nested `rope_parameters` that are scaled; none where it is flat."""
    plain: tuple[str, ...] = ()
    """Scopes that are not."""


def _spelled(block: dict[str, Any], spelling: str, shape: Shape) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if spelling in ("legacy", "both"):
        found["rope_theta"] = THETA
        if block.get("rope_type") != "default":
            found["rope_scaling"] = block
    if spelling in ("v5", "both"):
        found["rope_parameters"] = _parameters(block, shape)
    return found


def _parameters(block: dict[str, Any], shape: Shape) -> dict[str, Any]:
    shared = {} if shape.part is None else {"partial_rotary_factor": shape.part}
    flat = {**block, "rope_theta": THETA, **shared}
    if not shape.scaled:
        return flat
    plain = {"rope_type": "default", "rope_theta": THETA}
    return dict.fromkeys(shape.scaled, flat) | dict.fromkeys(shape.plain, plain)


def window(kind: str) -> int:
    """`max_position_embeddings` as `yarncli convert` writes it."""
    return ORIGINAL if kind in ("linear", "dynamic") else EXTENDED


# Changes to the yarn block in the "both" spelling; `None` deletes the key.
_DELETED = object()
YARN_CHANGES: dict[str, dict[str, Any]] = {
    "yarn only type": {"rope_type": _DELETED},
    "yarn only rope_type": {"type": _DELETED},
    "yarn no factor": {"factor": _DELETED},
    "yarn no original": {"original_max_position_embeddings": _DELETED},
    "yarn no type": {"rope_type": _DELETED, "type": _DELETED},
    "yarn no betas": {"beta_fast": _DELETED, "beta_slow": _DELETED},
    "yarn betas": {"beta_fast": 48.0, "beta_slow": 2.0},
    "yarn truncate": {"truncate": False},
    "yarn attention_factor": {"attention_factor": 1.25},
    "yarn attn_factor": {"attn_factor": 1.25},
    "yarn extrapolation_factor": {"extrapolation_factor": 0.5},
    "yarn mscale": {"mscale": 1.0, "mscale_all_dim": 0.5},
    "yarn mscale 0": {"mscale": 0.0, "mscale_all_dim": 0.0},
    "yarn baked": {"attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
    "yarn factor null": {"factor": None},
    "yarn betas null": {"beta_fast": None, "beta_slow": None},
    "yarn attention_factor null": {"attention_factor": None},
    "yarn integer factor": {"factor": 4},
}


# Plain RoPE of multimodal models in the older spelling, as published configs have it.
MROPE = {
    "mrope": {"type": "mrope"},
    "mrope default": {"type": "default", "rope_type": "default"},
    "mrope rope_type": {"rope_type": "default"},
}
WANTED: set[str] = set()
"""Names of the only probes to run beside those that find the width; all where empty."""

WIDTH_PROBES = ("default both", "default legacy", "yarn both", "yarn legacy")


def probes(sizes: dict[str, Any], shape: Shape) -> Iterator[tuple[str, str, Any]]:
    """(name, asked type, config without `model_type`) for every probe.

    Args:
        sizes: the keys of the model.
        shape: what its RoPE blocks look like.
    """
    for probe in _probes(sizes, shape):
        if not WANTED or probe[0] in (*WIDTH_PROBES, *WANTED):
            yield probe


def _probes(sizes: dict[str, Any], shape: Shape) -> Iterator[tuple[str, str, Any]]:
    pairs, more = shape.pairs, shape.more
    if shape.part is not None:
        sizes = {**sizes, "partial_rotary_factor": shape.part}
    for kind in ("default", *TYPES):
        for spelling in SPELLINGS:
            block = setting(kind, pairs, more)
            fields = {"max_position_embeddings": window(kind), **_spelled(block, spelling, shape)}
            yield f"{kind} {spelling}", kind, {**sizes, **fields}
    yield "no theta", "default", {**sizes, "max_position_embeddings": EXTENDED}
    for name, changes in YARN_CHANGES.items():
        changed = {**setting("yarn", pairs, more), **changes}
        block = {k: v for k, v in changed.items() if v is not _DELETED}
        fields = _spelled(block, "both", shape)
        yield name, "yarn", {**sizes, "max_position_embeddings": EXTENDED, **fields}
    yield from _odd(sizes, shape)


def _odd(sizes: dict[str, Any], shape: Shape) -> Iterator[tuple[str, str, Any]]:
    pairs, more = shape.pairs, shape.more
    base = {**sizes, "max_position_embeddings": EXTENDED}
    yarn, linear = setting("yarn", pairs, more), setting("linear", pairs, more)
    top = {**base, "rope_theta": THETA}

    def spelled(name: str, kind: str, block: dict[str, Any], **keys: Any) -> tuple[str, str, Any]:
        return name, kind, {**base, **_spelled(block, "both", shape), **keys}

    yield spelled("type yarn rope_type linear", "yarn", {**yarn, "rope_type": "linear"})
    other = _parameters(linear, shape)
    yield spelled("rope_scaling yarn rope_parameters linear", "yarn", yarn, rope_parameters=other)
    yield spelled("theta top and block", "default", setting("default", pairs, more),
                  rope_theta=2 * THETA)  # fmt: skip
    silent = _spelled(setting("default", pairs, more), "v5", shape)["rope_parameters"]
    bare = {k: _without_theta(v) for k, v in _without_theta(silent).items()}
    yield "theta top block silent", "default", {**top, "rope_parameters": bare}
    if "mrope_section" in more:
        for name, names in MROPE.items():
            yield name, "default", {**top, "rope_scaling": {**names, **more}}
    if shape.scaled:
        kept = setting("proportional", pairs, {"partial_rotary_factor": 0.25})
        yield spelled("proportional", "proportional", kept)
    yield spelled("yarn top original", "yarn", yarn, original_max_position_embeddings=2048)
    lacking = setting("llama3", pairs, more)
    del lacking["original_max_position_embeddings"]
    yield spelled("llama3 no original", "llama3", lacking)
    yield spelled("linear integer factor", "linear", {**linear, "factor": 4},
                  max_position_embeddings=ORIGINAL)  # fmt: skip
    for name in ("type", "rope_type"):
        bare = {k: v for k, v in linear.items() if k not in ("type", "rope_type")}
        yield spelled(f"linear only {name}", "linear", {**bare, name: "linear"},
                      max_position_embeddings=ORIGINAL)  # fmt: skip
    lists = {**setting("longrope", pairs, more), "type": "longrope"}
    yield spelled("longrope type", "longrope", lists)
    mscales = {**lists, "short_mscale": 1.5, "long_mscale": 1.25}
    yield spelled("longrope mscales", "longrope", mscales)
    yield spelled("longrope su", "longrope", {**lists, "type": "su", "rope_type": "su"})
    yield spelled("longrope attention_factor", "longrope", {**lists, "attention_factor": 1.25})
    yield "rope_scaling null", "default", {**top, "rope_scaling": None}
    yield "rope_scaling empty", "default", {**top, "rope_scaling": {}}
    magic = {"rope_type": "magic", "factor": 4.0}
    yield "unknown type", "default", {**top, "rope_scaling": magic}
    plain = setting("default", pairs, more)
    # The newer spelling of a nested family in a flat one, and the other way round.
    layers = ("full_attention",), ("sliding_attention",)
    turned = replace(shape, scaled=(), plain=())
    if not shape.scaled:
        turned = replace(shape, scaled=layers[0], plain=layers[1])
    yield "yarn turned", "yarn", {**base, **_spelled(yarn, "v5", turned)}
    if shape.part is not None:
        bare = {k: v for k, v in base.items() if k != "partial_rotary_factor"}
        yield "part in block", "default", {**bare, **_spelled(plain, "both", shape)}
        whole = _spelled(plain, "both", replace(shape, part=None))
        yield "no part", "default", {**bare, **whole}


def _without_theta(value: Any) -> Any:
    found = value.items() if isinstance(value, dict) else ()
    return {k: v for k, v in found if k != "rope_theta"} if found else value


def asked(kind: str, dim: int, **changes: Any) -> RopeParameters:
    """The setting that a probe of type `kind` asks for, for `dim` rotary dimensions."""
    block = {k: v for k, v in setting(kind, dim // 2).items() if k not in ("rope_type", "type")}
    for key in ("short_factor", "long_factor"):
        if key in block:
            block[key] = tuple(block[key])
    fields = {"max_position_embeddings": window(kind), "rope_theta": THETA, **block, **changes}
    return RopeParameters(rope_type=kind, head_dim=dim, **fields)


def describe(
    kind: str,
    name: str,
    long: tuple[Sequence[float], float],
    short: tuple[Sequence[float], float] | None = None,
    softmax: float = 1.0,
    dim: int | None = None,
) -> str:
    """One line for what an engine computes.

    Args:
        kind: the type that was asked for.
        name: the probe.
        long: inverse frequencies and scale for a text of the full window.
        short: the same for a short text; where the engine has one set of them, `None`.
        softmax: the softmax scale times √d.
        dim: the rotary width of the probe.
    """
    freqs, scale = long
    text = _frequencies(kind, name, list(freqs), EXTENDED)
    if short is None or _close(short[0], freqs):
        text = {"longrope": "longrope list=long", "dynamic": "dynamic fixed"}.get(text, text)
    else:
        brief = _frequencies(kind, name, list(short[0]), SHORT_TEXT)
        text = text if brief == text else f"{text} short: {brief}"
    if not math.isclose(scale, _scale(kind, name, text), rel_tol=1e-5):
        text += f" scale={scale:.6g}"
    if not math.isclose(softmax, 1.0, rel_tol=1e-5):
        text += f" softmax={softmax:.6g}"
    if dim is not None and 2 * len(freqs) != dim and "dim=" not in text:
        text += f" dim={2 * len(freqs)}"
    return text


def _scale(kind: str, name: str, text: str) -> float:
    """The scale that goes without saying: that of transformers 5 for the type it computes."""
    if not text.startswith(kind) or kind not in ("yarn", "longrope"):
        return 1.0
    changes = {k: v for k, v in YARN_CHANGES.get(name, {}).items() if k in _FIELDS}
    given = {k: v for k, v in changes.items() if v is not _DELETED and v is not None}
    return asked(kind, 64, **given).effective_attention_factor()


_FIELDS = ("attention_factor", "mscale", "mscale_all_dim", "beta_fast", "beta_slow", "truncate")


def _frequencies(kind: str, name: str, freqs: list[float], length: int) -> str:
    dim = 2 * len(freqs)
    if dim < 4:
        return f"other dim={dim}"
    for text, p in _candidates(kind, name, dim):
        if _close(p.inv_freq(length), freqs):
            return text
        if p.rope_type == "longrope" and _close(p.inv_freq(EXTENDED + SHORT_TEXT - length), freqs):
            return f"{text} list={'short' if length == EXTENDED else 'long'}"
    return _fitted(freqs)


def _candidates(kind: str, name: str, dim: int) -> Iterator[tuple[str, RopeParameters]]:
    changes = {k: v for k, v in YARN_CHANGES.get(name, {}).items() if k in _FIELDS}
    given = {k: v for k, v in changes.items() if v is not _DELETED and v is not None}
    if kind == "proportional":
        given["partial_rotary_factor"] = 0.25
    yield kind if kind != "default" else "plain", asked(kind, dim, **given)
    if {"beta_fast", "truncate"} & given.keys():
        yield "yarn ramp=default", asked("yarn", dim)
    for other in ("default", *TYPES):
        yield "plain" if other == "default" else other, asked(other, dim)
    yield "yarn truncate=false", asked("yarn", dim, truncate=False)
    for original in (4096, EXTENDED, 4 * ORIGINAL, 8192, 2048, 2048 * 4, 1024, 32768, 131072):
        p = asked("yarn", dim, original_max_position_embeddings=original)
        yield f"yarn original={original}", p
        p = asked("llama3", dim, original_max_position_embeddings=original)
        yield f"llama3 original={original}", p
    for theta in (1e4, 1e5, 1.5e5, 5e5, 1e6, 5e6, 1e7, 8e6, 5e4):
        for other in ("linear", "yarn", "llama3"):
            yield f"{other} theta={theta:.10g}", asked(other, dim, rope_theta=theta)
        p = asked("yarn", dim, rope_theta=theta, original_max_position_embeddings=4096)
        yield f"yarn theta={theta:.10g} original=4096", p


def _fitted(freqs: list[float]) -> str:
    """The base and factor that give these frequencies, if some do."""
    dim = 2 * len(freqs)
    live = [f for f in freqs if f > 0]
    if len(live) == len(freqs):
        theta = (freqs[0] / freqs[-1]) ** (dim / (dim - 2))
        factor = 1 / freqs[0]
        fit = [1 / factor * theta ** (-2 * i / dim) for i in range(len(freqs))]
        if _close(fit, freqs):
            text = "plain" if abs(factor - 1) < 1e-6 else f"linear factor={factor:.5g}"
            near = THETA if abs(theta / THETA - 1) < 1e-4 else theta
            return text if near == THETA else f"{text} theta={near:.5g}"
    picked = [freqs[len(freqs) // 4], freqs[len(freqs) // 2], freqs[-1]]
    return "other " + " ".join(f"{f:.5g}" for f in picked)


def _close(one: Sequence[float], other: Sequence[float]) -> bool:
    return len(one) == len(other) and all(
        math.isclose(a, b, rel_tol=_TOLERANCE, abs_tol=1e-9)
        for a, b in zip(one, other, strict=True)
    )


def failure(error: BaseException) -> str:
    """An exception as one short line without paths."""
    words = " ".join(str(error).split())
    first = words.partition(". ")[0]
    return f"{type(error).__name__}: {first}"[:90].rstrip()


def fresh(config: dict[str, Any]) -> dict[str, Any]:
    """A copy that a loader may change."""
    return copy.deepcopy(config)
