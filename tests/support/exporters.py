"""What two exporters give, run in an environment of their own; prints JSON.

PYTHONPATH=tests:. python -m support.exporters onnxruntime-genai|ctranslate2|runtime
"""

from __future__ import annotations

import json
import site
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# The window is far above the original length, so that an ignored setting changes every logit.
LLAMA = {
    "vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32, "bos_token_id": 1,
    "eos_token_id": 2, "max_position_embeddings": 4096, "rope_theta": 10000.0,
}  # fmt: skip
SCALINGS: Mapping[str, Mapping[str, Any]] = {
    "default": {},
    "linear": {"rope_type": "linear", "type": "linear", "factor": 4.0},
    "llama3": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0,
               "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
}  # fmt: skip
_TEXT = [(7 * i) % 60 + 3 for i in range(300)]


def config(kind: str, scaling: str) -> dict[str, Any]:
    """The config of a small model."""
    block = SCALINGS[scaling]
    return {**LLAMA, "model_type": kind, **({"rope_scaling": dict(block)} if block else {})}


def tables(engine: str) -> dict[str, Any]:
    """Model type → outcomes, as the script of the engine's table finds them now."""
    from scripts.wiring.sizes import model_types

    if engine == "ctranslate2":
        from ctranslate2.converters import transformers as converter

        from scripts.wiring import ctranslate2

        ctranslate2.prepare()
        found = {kind: ctranslate2.entry(kind, converter) for kind in sorted(model_types())}
    else:
        from scripts.wiring import onnxruntime_genai

        folder = Path(site.getsitepackages()[0])
        onnxruntime_genai.prepare(folder)
        path = folder / "onnxruntime_genai" / "models" / "builder.py"
        builders = onnxruntime_genai.architectures(path)
        found = {k: onnxruntime_genai.entry(k, builders) for k in sorted(model_types())}
    return {kind: item["outcomes"] for kind, item in found.items() if "outcomes" in item}


def runtime() -> dict[str, list[float]]:
    """ "kind scaling" → how far CTranslate2's logits are from transformers', scaled and plain."""
    found = {}
    for kind in ("llama", "mistral"):
        for scaling in SCALINGS:
            with tempfile.TemporaryDirectory() as folder:
                found[f"{kind} {scaling}"] = _differences(kind, scaling, Path(folder))
    return found


def _differences(kind: str, scaling: str, folder: Path) -> list[float]:
    import ctranslate2
    import numpy as np
    import torch
    from ctranslate2.converters import TransformersConverter

    model = _model(config(kind, scaling))
    for tensor in model.parameters():
        if tensor.dim() > 1:
            torch.nn.init.normal_(tensor, std=0.3)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    try:
        TransformersConverter(str(folder)).convert(str(folder / "out"))
    except ValueError:  # attributes that the loader leaves unset
        return []
    generator = ctranslate2.Generator(str(folder / "out"), compute_type="float32")
    given = np.array(generator.forward_batch([[f"t{number}" for number in _TEXT]]))
    plain = _model(config(kind, "default"))
    plain.load_state_dict(model.state_dict())
    with torch.no_grad():
        right = [m(torch.tensor([_TEXT])).logits.numpy() for m in (model, plain)]
    return [float(np.abs(given - logits).max()) for logits in right]


def _model(values: dict[str, Any]) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    kind = values.pop("model_type")
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **values)).eval()


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"t{number}": number for number in range(LLAMA["vocab_size"])}
    inner = Tokenizer(models.WordLevel(words, unk_token="t0"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token="t0", bos_token="t1", eos_token="t2"
    )


if __name__ == "__main__":
    what = sys.argv[1]
    json.dump(runtime() if what == "runtime" else tables(what), sys.stdout)
