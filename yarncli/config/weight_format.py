"""The format of stored weights, under its usual name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class WeightFormat:
    """How weights are stored."""

    id: str
    """The key in tables: the quantisation method, then its kind after a colon, then a second format
    after a plus sign. Empty where weights are safetensors in floating point."""
    name: str
    """The name for users."""

    @property
    def method(self) -> str:
        """The method without its kind."""
        return self.id.partition(":")[0]


PLAIN = WeightFormat("", "unquantised safetensors")

_NAMES = {
    "aqlm": "AQLM",
    "auto-round": "AutoRound",
    "awq": "AWQ",
    "bitnet": "BitNet",
    "compressed-tensors": "compressed-tensors",
    "eetq": "EETQ",
    "exl2": "EXL2",
    "exl3": "EXL3",
    "fbgemm_fp8": "FBGEMM FP8",
    "fp8": "FP8",
    "gptq": "GPTQ",
    "hqq": "HQQ",
    "modelopt": "ModelOpt",
    "mxfp4": "MXFP4",
    "mxfp8": "MXFP8",
    "nvfp4": "NVFP4",
    "quanto": "Quanto",
    "quark": "Quark",
    "torchao": "torchao",
}


def stated_format(
    config: Mapping[str, Any], text: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> WeightFormat:
    """The format that a config states; `PLAIN` where it states none.

    Values of a wrong type state nothing: this names a format, and `read_quantisation` judges it.

    Args:
        config: the JSON object of `config.json`.
        text: its text part.
        beside: that of `hf_quant_config.json`, if there is one.
    """
    mlx = _mapping(config, "quantization") or _mapping(text, "quantization")
    found = _found(config, text, beside)
    # mlx-lm writes the same object under both keys (older releases only under the first), without
    # a method.
    if _is_mlx(mlx) or (_is_mlx(found) and not found.get("quant_method")):
        return _mlx(mlx if _is_mlx(mlx) else found, "mlx" if found else "mlx-bare")
    if not found:
        return PLAIN
    if found.get("load_in_4bit") or found.get("load_in_8bit"):
        bits = 4 if found.get("load_in_4bit") else 8
        return WeightFormat("bitsandbytes", f"bitsandbytes {bits}-bit")
    return _named(found)


def stated_cache(
    config: Mapping[str, Any], text: Mapping[str, Any], beside: Mapping[str, Any] | None = None
) -> str | None:
    """The format in which vLLM 0.33 keeps keys and values by itself: "FP8", "NVFP4", or `None`.

    It follows `kv_cache_scheme` of compressed-tensors and ModelOpt, and ModelOpt's
    `kv_cache_quant_algo`; all else is cached as the model computes.

    Args:
        config: the JSON object of `config.json`.
        text: its text part.
        beside: that of `hf_quant_config.json`, if there is one.
    """
    found = _found(config, text, beside)
    method = _method(found)
    inner = {**_mapping(found, "quantization"), **found}
    scheme = inner.get("kv_cache_scheme")
    if method.startswith("modelopt"):
        scheme = scheme or inner.get("kv_cache_quant_algo")
    elif method != "compressed-tensors":
        return None
    if isinstance(scheme, Mapping) and scheme.get("type") == "float":
        scheme = {8: "FP8", 4: "NVFP4"}.get(scheme.get("num_bits", 0))
    name = scheme.upper() if isinstance(scheme, str) else None
    return name if name in ("FP8", "NVFP4") else None


def _found(
    config: Mapping[str, Any], text: Mapping[str, Any], beside: Mapping[str, Any] | None
) -> Mapping[str, Any]:
    """The quantisation config as loaders find it; empty where there is none."""
    found = _mapping(config, "quantization_config") or _mapping(text, "quantization_config")
    found = found or _mapping(config, "compression_config")
    if not found and (modelopt := _mapping(beside or {}, "quantization")):
        return {"quant_method": "modelopt", **modelopt}
    return found


def _named(found: Mapping[str, Any]) -> WeightFormat:
    method = _method(found)
    if method.startswith("modelopt") or (not method and found.get("quant_algo")):
        algorithm = str(found.get("quant_algo") or "").upper()
        if not algorithm:  # of the cache alone
            return PLAIN
        return WeightFormat(f"modelopt:{algorithm}", f"{algorithm} (ModelOpt)")
    if method == "compressed-tensors":
        kind = str(found.get("format") or "dense")
        return WeightFormat(f"{method}:{kind}", f"{method} ({kind})")
    if not method:
        return WeightFormat("unnamed", "a quantisation that config.json does not name")
    bits, experts = found.get("bits"), found.get("moe_quant_algo")
    name = _NAMES.get(method, method)
    if isinstance(experts, str):
        return WeightFormat(f"{method}+{experts}", f"{name} with {experts} experts")
    return WeightFormat(method, f"{name} {bits:g}-bit" if _is_number(bits) else name)


def _method(found: Mapping[str, Any]) -> str:
    named = found.get("quant_method")
    return named.lower().replace("_tensors", "-tensors") if isinstance(named, str) else ""


def _mlx(found: Mapping[str, Any], method: str) -> WeightFormat:
    mode = found.get("mode")
    kind = "" if mode in (None, "affine") else f" ({mode})"
    return WeightFormat(method, f"MLX {found['bits']}-bit{kind}")


def _is_mlx(found: Mapping[str, Any]) -> bool:
    return all(_is_number(found.get(key)) for key in ("bits", "group_size"))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _mapping(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = values.get(key)
    return found if isinstance(found, Mapping) else {}
