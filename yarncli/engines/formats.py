"""Which engine can load weights of which format; this verdict is separate from that on RoPE.

Each entry was read in the engine's own code at the version named, or run: what a method name of
`quantization_config` selects there, and what happens to one that it does not know. Whether a GPU
has the kernels for it is another question.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from yarncli.config.weight_format import WeightFormat
from yarncli.engines.verdict import EngineView, WeightsView

_Answer = Literal["loads", "refuses", "misreads"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loader:
    """What one engine does with formats; a format that is not named here was not judged."""

    version: str
    """The version read."""
    loads: str = ""
    """Ids of formats, or methods for all their kinds."""
    refuses: Mapping[str, str] = field(default_factory=dict)
    """Id or method → what it does instead of loading it."""
    misreads: Mapping[str, str] = field(default_factory=dict)
    """Id or method → how the engine misinterprets it."""
    others: str = ""
    """What it says to every quantisation that it does not know; empty where that is not known."""

    def answer(self, weights: WeightFormat) -> tuple[_Answer, str] | None:
        """The answer and its reason; `None` where nobody looked."""
        for key in (weights.id, weights.method):
            if key in self.loads.split():
                return "loads", ""
            if key in self.refuses:
                return "refuses", self.refuses[key]
            if key in self.misreads:
                return "misreads", self.misreads[key]
        known = {each.partition(":")[0] for each in self.loads.split()}
        is_new = weights.method not in (*known, *_FILES) and "+" not in weights.id
        return ("refuses", self.others) if self.others and is_new else None


# Formats that no quantization_config names.
_FILES = ("pickle", "gguf", "consolidated", "mlx-bare")

_UNNAMED = "its quantization_config has no quant_method, and it stops with a ValueError"
_SKIPPED = (
    "it does not know the method, skips the quantisation with a warning, and uses the stored "
    "numbers as weights"
)
_TRANSFORMERS_4 = (
    "aqlm awq bitnet bitsandbytes compressed-tensors eetq fbgemm_fp8 fp8 gptq higgs hqq pickle "
    "quanto quark spqr torchao vptq"
)
_TRANSFORMERS_5 = f"{_TRANSFORMERS_4} auto-round fp_quant mxfp4"
_NO_GGUF = "it finds no weights without gguf_file"
_ONLY_SAFETENSORS = "it reads safetensors only, and finds no weights"


def _transformers(version: str, loads: str) -> _Loader:
    skipped = dict.fromkeys(
        ("modelopt:FP8", "exl2", "exl3", *({"auto-round", "mxfp4"} - set(loads.split()))), _SKIPPED
    )
    packed = "it skips the quantisation, and the packed weights do not have the model's shapes"
    refuses = {
        "mlx": _UNNAMED,
        "mlx-bare": "the packed weights do not have the model's shapes",
        "unnamed": _UNNAMED,
        "modelopt:NVFP4": packed,
        "gguf": _NO_GGUF,
    }
    return _Loader(version=version, loads=loads, refuses=refuses, misreads=skipped)


_LOADERS: Mapping[str, _Loader] = {
    "transformers-5": _transformers(
        "5.23", f"{_TRANSFORMERS_5} fouroversix gemma metal mxfp8 nvfp4 sinq"
    ),
    "transformers-4.57": _transformers("4.57.6", _TRANSFORMERS_5),
    "transformers-4.55": _transformers("4.55.4", _TRANSFORMERS_5),
    "transformers-4.50": _transformers("4.50.3", _TRANSFORMERS_4),
    "vllm": _Loader(
        version="0.33",
        loads="auto-round awq compressed-tensors fp8 gptq modelopt:FP8 modelopt:MIXED_PRECISION "
        "modelopt:MXFP8 modelopt:NVFP4 mxfp4 mxfp8 pickle quark torchao",
        refuses={
            **dict.fromkeys(
                ("mlx", "mlx-bare"),
                "it takes them for unquantised weights; the packed ones do not have the model's "
                "shapes",
            ),
            "fbgemm_fp8": "the method is deprecated; --allow-deprecated-quantization lets it load",
            "fp_quant": "the method is deprecated; --allow-deprecated-quantization lets it load",
            "gguf": "it has no loader for GGUF, and finds no weights",
        },
        others="it stops with 'Unknown quantization method'; a plugin may bring it",
    ),
    "sglang": _Loader(
        version="0.5.23",
        loads="auto-round awq bitsandbytes compressed-tensors fp8 gptq modelopt:FP8 "
        "modelopt:MXFP8 modelopt:NVFP4 mxfp4 mxfp8 pickle quark",
        refuses={
            "mlx": "it stops with 'Unknown quantization method'; on Apple's machines it loads 4 "
            "and 8 bits",
        },
        others="it stops with 'Unknown quantization method'",
    ),
    "llama.cpp": _Loader(
        version="as in llama-cpp-python 0.3.36",
        loads="bitnet compressed-tensors:float-quantized compressed-tensors:int-quantized "
        "compressed-tensors:naive-quantized compressed-tensors:nvfp4-pack-quantized "
        "compressed-tensors:pack-quantized fp8 gguf gptq modelopt:FP8 modelopt:NVFP4 pickle",
        refuses={
            **dict.fromkeys(
                ("mlx", "mlx-bare"),
                "its converter has no names for the scales and biases of packed weights",
            ),
            **dict.fromkeys(
                ("aqlm", "auto-round", "awq", "bitsandbytes", "exl3", "hqq", "quark", "torchao"),
                "its converter stops with 'Quant method is not yet supported'",
            ),
        },
    ),
    "mlx-lm": _Loader(
        version="0.32.2",
        loads="awq bitnet compressed-tensors:mxfp4-pack-quantized "
        "compressed-tensors:nvfp4-pack-quantized compressed-tensors:pack-quantized mlx mlx-bare "
        "modelopt:NVFP4 mxfp4 mxfp8",
        refuses={
            "compressed-tensors": "it stops with 'unsupported compressed-tensors format'",
            "modelopt": "it stops with 'Unsupported modelopt quant_algo'",
            **dict.fromkeys(("pickle", "gguf", "consolidated"), "it finds no model*.safetensors"),
        },
    ),
    "mlx-vlm": _Loader(
        version="0.7.10",
        loads="compressed-tensors:mxfp4-pack-quantized compressed-tensors:pack-quantized mlx "
        "mlx-bare modelopt:NVFP4 mxfp4",
        refuses=dict.fromkeys(("pickle", "gguf"), _ONLY_SAFETENSORS),
    ),
    "tgi": _Loader(version="3, at 05d0aa6", loads="awq compressed-tensors exl2 gptq"),
    "tensorrt-llm": _Loader(
        version="at 008e0af", loads="fp8 modelopt:FP8 modelopt:NVFP4 mxfp4 mxfp8 nvfp4"
    ),
    "ollama": _Loader(
        version="importer, at 05fca2e",
        refuses={
            **dict.fromkeys(("mlx", "mlx-bare"), "it stops with 'unknown data type: U32'"),
            **dict.fromkeys(("awq", "gptq"), "it stops with 'unknown data type: I32'"),
            "fp8": "it stops with 'unknown data type: F8_E4M3'",
        },
    ),
    "exllamav3": _Loader(
        version="1.6.5",
        loads="exl3 fp8",
        refuses={
            **dict.fromkeys(("mlx", "mlx-bare"), "it stops with 'Unknown dtype U32'"),
            **dict.fromkeys(("pickle", "gguf"), _ONLY_SAFETENSORS),
        },
    ),
    "onnxruntime-genai": _Loader(
        version="0.18",
        loads="awq gptq olive quark",
        refuses={
            "mlx": "its builder finds no quant_method and stops with a KeyError",
            "bitsandbytes": "its builder stops with 'not currently supported'",
        },
    ),
    "lmdeploy-pytorch": _Loader(
        version="0.18",
        loads="awq compressed-tensors fp8 smooth_quant",
        refuses={"mlx": "it finds no quant_method and stops with a KeyError"},
        others="it stops with 'Unsupported quant method'",
    ),
    "lmdeploy-turbomind": _Loader(
        version="0.18",
        loads="awq compressed-tensors:pack-quantized fp8 gptq mxfp4",
        others="it stops with 'unsupported quant_config'",
    ),
    "max": _Loader(
        version="26.7",
        refuses=dict.fromkeys(
            ("awq", "auto-round", "bitsandbytes", "hqq", "torchao"),
            "it stops with 'Unrecognized quantization config'",
        ),
    ),
    # Both load a checkpoint with transformers.
    "ctranslate2": _Loader(version="4.8", refuses={"mlx": _UNNAMED, "unnamed": _UNNAMED}),
    "openvino": _Loader(version="2.2", refuses={"mlx": _UNNAMED, "unnamed": _UNNAMED}),
}


def with_weights(view: EngineView, weights: WeightFormat) -> EngineView:
    """The verdict on RoPE and the one on the format of the weights together.

    If an engine does not load the weights, it computes nothing, and its reading of the config does
    not matter.

    Args:
        view: the verdict on RoPE.
        weights: their format; plain weights are loaded by all, and change nothing.
    """
    if not weights.id:
        return view
    loader = _LOADERS.get(view.engine.id)
    answer = loader.answer(weights) if loader else None
    if loader is None or answer is None:
        return replace(view, weights=WeightsView(format=weights.name, status="not judged"))
    status, reason = answer
    found = WeightsView(format=weights.name, status=status, version=loader.version)
    if status == "loads" or view.status in ("unsupported", "unknown"):
        return replace(view, weights=found)
    note = f"{found.describe()}: {reason}"
    if status == "refuses":  # what it would make of the config says nothing then
        return replace(
            view, weights=found, status="refuses", notes=(note,), faults=(), scopes=(),
            served_length=None, launch=None, launch_is_exact=False,
        )  # fmt: skip
    return replace(
        view,
        weights=found,
        status="differs" if view.has_reading else view.status,
        notes=(note, *view.notes),
        faults=(note, *view.faults),
        launch_is_exact=False,
    )
