"""How a loader interprets stored weights: the quantisation config says it, not the stored dtype.

Read for transformers 5.23 (`quantizers/`, `utils/quantization_config.py`) and for what vLLM reads
besides: `hf_quant_config.json` and `compression_config`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from yarncli.config import names
from yarncli.errors import ConfigError, UnsupportedArchitectureError
from yarncli.jsontext.fields import Fields
from yarncli.jsontext.text import JsonText

KEY = "quantization_config"
MODELOPT_FILE = "hf_quant_config.json"
ADVICE = "Bake the unquantised checkpoint and quantise the result."

BITSANDBYTES = (
    "it is quantised by bitsandbytes, which packs 4-bit or 8-bit numbers, and their scales, in a "
    "format of its own"
)
NVFP4 = (
    "it is NVFP4: 4-bit floats with an FP8 scale for every 16 of them, which cannot hold the "
    "product, below one scale that engines share between queries, keys and values"
)
MXFP4 = "it is MXFP4: 4-bit floats with power-of-two scales, which cannot hold the product"
MXFP8 = "it is MXFP8: 8-bit floats with power-of-two scales, which cannot hold the product"
_FLOAT_SCALES = frozenset({"float", "float16", "bfloat16", "float32"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheme:
    """How a loader assumes a group of projections to be stored."""

    targets: tuple[str, ...] | None = None
    """Patterns of their names; None for all projections."""
    trouble: str = ""
    """Why their scales cannot carry a factor; empty if they can."""
    block: int | None = None
    """The number of rows under one scale, where they are quantised in blocks."""
    takes_floats: bool = False
    """Whether a projection that is stored in floating point is loaded so (`FP8Linear`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantisation:
    """What the quantisation config says of all projections."""

    where: str
    """The place of the config, as messages show it."""
    schemes: tuple[Scheme, ...]
    """For each projection, the first group that names it counts."""
    left: tuple[str, ...]
    """Patterns of the names of modules that are left in floating point."""
    caches: bool
    """Whether keys and values are cached with scales."""

    def scheme_of(self, module: str) -> Scheme | None:
        """How the loader assumes a projection to be stored; None: in floating point."""
        if any(_names(pattern, module) for pattern in self.left):
            return None
        for scheme in self.schemes:
            if scheme.targets is None or any(_names(t, module) for t in scheme.targets):
                return scheme
        return None


def read_quantisation(
    config: Mapping[str, Any], text: Fields, beside: JsonText | None = None
) -> Quantisation | None:
    """The quantisation that a loader finds; None where there is none.

    Args:
        config: the JSON object of `config.json`.
        text: its text part.
        beside: `hf_quant_config.json`, if there is one.

    Raises:
        ConfigError: a value has the wrong type, or two places contradict.
        UnsupportedArchitectureError: a method that is not known.
    """
    top = Fields(config)
    found = [f for f in (top.mapping(KEY), text.mapping(KEY)) if f is not None and f.values]
    if len(found) > 1 and found[0].values != found[1].values:
        raise ConfigError(
            f"{KEY} and {text.where(KEY)} differ, and engines differ in which they read. Make them "
            "equal or remove one."
        )
    older = top.mapping("compression_config")
    found += [older] if older is not None and older.values else []
    inner = Fields(beside.value if beside else {}, (MODELOPT_FILE,)).mapping("quantization")
    if not found and inner is not None:
        found = [Fields({"quant_method": "modelopt", **inner.values}, inner.path)]
    return _read(found[0]) if found else None


def _read(fields: Fields) -> Quantisation:
    name = _method_of(fields)
    method = _METHODS.get("modelopt" if name.startswith("modelopt") else name)
    if method is None:
        raise UnsupportedArchitectureError(
            f"{fields.where('quant_method')} is {name!r}, and it is not known how loaders read "
            f"such weights, so nothing is baked. {ADVICE}"
        )
    left = [pattern for key in method.left for pattern in _patterns(fields, key)]
    return Quantisation(
        where=".".join(fields.path),
        schemes=tuple(method.schemes(fields)),
        left=(*left, *_left_by_rules(fields)),
        caches=any(
            bool(fields.values.get(key)) for key in ("kv_cache_scheme", "kv_cache_quant_algo")
        ),
    )


def _method_of(fields: Fields) -> str:
    if fields.boolean("load_in_4bit") or fields.boolean("load_in_8bit"):
        return "bitsandbytes"  # older files name no method
    return (fields.text("quant_method") or "").lower()


def _patterns(fields: Fields, key: str) -> tuple[str, ...]:
    """A list of names; GPTQ nests them, one list per step."""
    if not fields.is_list(key):
        fields.mapping(key)  # a string or a number is an error
        return tuple((fields.mapping(key) or Fields({})).values)
    flat = [n for part in fields.values[key] for n in (part if isinstance(part, list) else [part])]
    return Fields({key: flat}, fields.path).strings(key) or ()


def _left_by_rules(fields: Fields) -> list[str]:
    """GPTQModel's negative rules, and modules to which AutoRound gives 16 bits."""
    rules = fields.mapping("dynamic")
    found = [f"re:{rule[2:]}" for rule in (rules.values if rules else ()) if rule[:2] == "-:"]
    extra = fields.mapping("extra_config")
    for name in extra.values if extra else ():
        own = extra.mapping(name) if extra else None
        if own is not None and (own.integer("bits") or 0) >= 16:
            found.append(name)
    return found


# What each method stores


@dataclass(frozen=True, slots=True)
class _Method:
    schemes: Callable[[Fields], list[Scheme]]
    left: tuple[str, ...] = ("modules_to_not_convert",)


def _always(trouble: str) -> Callable[[Fields], list[Scheme]]:
    return lambda fields: [Scheme(trouble=trouble)]


def _unknown(fields: Fields, key: str) -> str:
    return f"{fields.where(key)} is {fields.values.get(key)!r}, an unknown format"


def _fp8(fields: Fields) -> list[Scheme]:
    trouble, kept = "", fields.text("scale_fmt") or "float"
    if kept == "ue8m0":
        trouble = (
            f"{fields.where('scale_fmt')} is 'ue8m0', so a loader rounds its scales to powers of "
            "two, and the factor would be lost"
        )
    elif kept != "float":
        trouble = _unknown(fields, "scale_fmt")
    given = "weight_block_size" in fields.values
    size = fields.integers("weight_block_size") if given else (128, 128)
    block = _rows(size, fields, "weight_block_size")
    return [Scheme(trouble=trouble, block=block, takes_floats=True)]


def _rows(size: tuple[int, ...] | None, fields: Fields, key: str) -> int | None:
    """The rows of a block; the loader's own range check."""
    return None if not size else Fields({key: size[0]}, fields.path).positive(key, 1)


def _gptq(fields: Fields) -> list[Scheme]:
    known = (fields.text("checkpoint_format") or "gptq").lower() in ("gptq", "gptq_v2")
    trouble = "" if known else _unknown(fields, "checkpoint_format")
    if fields.boolean("is_marlin_format"):
        trouble = "it is packed for Marlin, which stores its scales in an order of its own"
    only = _patterns(fields, "modules_in_block_to_quantize")
    return [Scheme(trouble=trouble, targets=only or None)]


def _awq(fields: Fields) -> list[Scheme]:
    key = "format" if fields.has("format") else "version"
    known = (fields.text(key) or "gemm").lower() == "gemm"
    return [Scheme(trouble="" if known else _unknown(fields, key))]


def _auto_round(fields: Fields) -> list[Scheme]:
    packing = (fields.text("packing_format") or "auto_round:auto_gptq").rpartition(":")[2]
    known = packing.removeprefix("auto_") in ("gptq", "awq")
    return [Scheme(trouble="" if known else _unknown(fields, "packing_format"))]


def _modelopt(fields: Fields) -> list[Scheme]:
    algorithm = (fields.text("quant_algo") or "").upper()
    if not algorithm:
        return []  # of the cache alone
    known = {"FP8": "", "NVFP4": NVFP4, "MXFP8": MXFP8, "MXFP4": MXFP4}
    kinds = [kind for kind in known if algorithm.startswith(kind)]
    # Kinds of FP8 with several scales, and mixtures of formats, have longer names.
    exact = algorithm == "FP8" or (kinds and kinds[0] != "FP8")
    return [Scheme(trouble=known[kinds[0]] if exact else _unknown(fields, "quant_algo"))]


def _compressed_tensors(fields: Fields) -> list[Scheme]:
    groups = fields.mapping("config_groups")
    found = []
    for name in groups.values if groups else ():
        group = groups.mapping(name) if groups else None
        weights = group.mapping("weights") if group else None
        if group is None or weights is None:
            continue  # quantised inputs alone
        trouble = _compressed_trouble(fields, group, weights)
        size = weights.values.get("block_structure")
        if isinstance(size, str):  # "128x128" in old files
            size = [int(part) for part in size.split("x") if part.isdecimal()]
        block = Fields({"block_structure": size}, weights.path)
        found.append(
            Scheme(
                targets=_patterns(group, "targets") or None,
                trouble=trouble,
                block=_rows(block.integers("block_structure"), block, "block_structure"),
            )
        )
    return found


def _compressed_trouble(fields: Fields, group: Fields, weights: Fields) -> str:
    holder = group if group.has("format") else fields
    kind = (holder.text("format") or "dense").lower()
    four = weights.text("type") == "float" and weights.integer("num_bits") == 4
    if kind.startswith("nvfp4") or (four and weights.integer("group_size") == 16):
        return NVFP4
    if kind.startswith("mxfp4") or four:
        return MXFP4
    if kind.startswith("mxfp8"):
        return MXFP8
    if kind not in (
        "dense", "float-quantized", "int-quantized", "naive-quantized", "pack-quantized",
        "mixed-precision",
    ):  # fmt: skip
        return _unknown(holder, "format")
    dtype = (weights.text("scale_dtype") or "float32").removeprefix("torch.")
    if dtype not in _FLOAT_SCALES:
        return _unknown(weights, "scale_dtype")
    if fields.values.get("transform_config"):
        return f"{fields.where('transform_config')} rotates it, in a way that is not known"
    return ""


def _own_format(name: str) -> _Method:
    return _Method(_always(f"it is quantised by {name}, which stores scales in its own format"))


_METHODS: dict[str, _Method] = {
    "fp8": _Method(_fp8, ("modules_to_not_convert", "ignored_layers")),
    "fbgemm_fp8": _Method(lambda fields: [Scheme()]),
    "compressed-tensors": _Method(_compressed_tensors, ("ignore",)),
    "gptq": _Method(_gptq),
    "awq": _Method(_awq),
    "auto-round": _Method(_auto_round),
    "modelopt": _Method(_modelopt, ("ignore", "exclude_modules")),
    "bitsandbytes": _Method(_always(BITSANDBYTES), ("llm_int8_skip_modules",)),
    "nvfp4": _Method(_always(NVFP4)),
    "mxfp4": _Method(lambda fields: []),  # of the experts alone
    "mxfp8": _Method(_always(MXFP8), ("modules_to_not_convert", "ignored_layers")),
    "aqlm": _Method(_own_format("aqlm").schemes, ("linear_weights_not_to_quantize",)),
    "hqq": _Method(_own_format("hqq").schemes, ("skip_modules",)),
    "quark": _Method(_own_format("quark").schemes, ("exclude",)),
    **{
        name: _own_format(name)
        for name in (
            "bitnet", "eetq", "fouroversix", "fp_quant", "gemma", "gguf", "higgs", "metal",
            "quanto", "sinq", "spqr", "torchao", "vptq",
        )
    },
}  # fmt: skip


# Names in lists


def _names(pattern: str, module: str) -> bool:
    """Whether an entry of a list matches a module, by any of the comparisons that loaders use."""
    return any(_matches(pattern, name) for name in names.spellings(module))


def _matches(pattern: str, name: str) -> bool:
    pattern = pattern.removesuffix(".weight")
    if pattern == "Linear":  # the class of all projections
        return True
    if not pattern.startswith("re:"):
        if f".{pattern}." in f".{name}." or name.endswith(pattern):
            return True
        if any(fnmatchcase(name, glob) for glob in (pattern, f"{pattern}.*")):
            return True
    compiled = _compiled(pattern.removeprefix("re:"))
    return compiled is not None and compiled.match(name) is not None


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str] | None:
    """A regex of the config; None if it is not valid, or could run for ever."""
    repeats = sum(pattern.count(sign) for sign in "*+{")
    if len(pattern) > 200 or repeats > 3 or re.search(r"\)[*+{]", pattern):
        return None
    try:
        # As transformers does it: the match ends where a part of the name ends.
        return re.compile(rf"(?:{pattern})(?:(?<=\.)|(?=\.|$))")
    except re.error:
        return None
