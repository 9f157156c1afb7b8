"""What mlx-lm's model files compute for configs: runs in an environment of its own.

    python mlx_models.py < questions.json > answers.json

A question is {"config": …, "lengths": […]}, an answer {"error": …} or {"modules": [{"layer",
"path", "inv_freq" and "scale" (a list for each length), "softmax"}]}. Imports nothing of yarncli.
"""

import dataclasses
import importlib
import importlib.util
import json
import math
import re
import sys
import types
from pathlib import Path

import mlx.core as mx

ABOUT_ROPE = re.compile("rope_|theta|rotary|partial")
WORDS = {"bool": False, "int": 2, "float": 1.0, "str": "silu", "ist": [], "ict": {}}
seen = []


def main():
    folder = prepare()
    source = (folder / "utils.py").read_text(encoding="utf-8")
    table = re.search(r"MODEL_REMAPPING = \{(.*?)\n\}", source, re.S)[1]
    files = dict(re.findall(r'"([^"]+)": "([^"]+)"', table))
    answers = []
    for question in json.load(sys.stdin):
        kind = question["config"]["model_type"]
        try:
            answers.append(answer(files.get(kind, kind), **question))
        except Exception as error:
            answers.append({"error": f"{type(error).__name__}: {error}"[:200]})
    json.dump(answers, sys.stdout)


def prepare():
    """Models without what `mlx_lm` itself imports; records of what reaches `mx.fast.rope`."""
    spec = importlib.util.find_spec("mlx_lm")
    package = types.ModuleType("mlx_lm")
    package.__path__ = list(spec.submodule_search_locations)
    sys.modules["mlx_lm"] = package
    base = importlib.import_module("mlx_lm.models.base").BaseModelArgs
    from_dict = base.from_dict.__func__
    base.from_dict = classmethod(lambda cls, params: from_dict(cls, filled(cls, params)))
    rope = mx.fast.rope

    def recorded(x, dims, *, base=None, scale=1.0, freqs=None, **rest):
        seen.append((float(x.reshape(-1)[0].item()), dims, base, scale, freqs))
        return rope(x, dims, base=base, scale=scale, freqs=freqs, **rest)

    mx.fast.rope = recorded
    return Path(package.__path__[0])


def filled(cls, params):
    """The config with a value for each size that the class insists on."""
    found = dict(params)
    for field in dataclasses.fields(cls):
        absent = field.default is field.default_factory is dataclasses.MISSING
        if absent and field.name not in found and not ABOUT_ROPE.search(field.name):
            words = str(field.type)
            found[field.name] = next((v for w, v in WORDS.items() if w in words), None)
    return found


def answer(file, config, lengths):
    module = importlib.import_module(f"mlx_lm.models.{file}")
    model = module.Model(module.ModelArgs.from_dict(config))
    found = []
    for path, part in model.named_modules():
        if not re.search("rope|rotary", type(part).__name__, re.I):
            continue
        if any(word in path for word in ("indexer", "vision", "compressor")):
            continue
        layer = re.search(r"layers\.(\d+)", path)
        calls = [call(part, length) for length in lengths]
        found.append({
            "path": path,
            "layer": int(layer[1]) if layer else None,
            "inv_freq": [freqs for freqs, _ in calls],
            "scale": [scale for _, scale in calls],
            "softmax": softmax(model, path),
        })  # fmt: skip
    return {"modules": found}


def call(part, length):
    """Inverse frequencies and scale for a text of `length` tokens."""
    seen.clear()
    width = next((w for w in (getattr(part, n, None) for n in ("dims", "dim")) if w), 64)
    part(mx.ones((1, 1, 1, int(width))), offset=length - 1)
    amplitude, dims, base, scale, freqs = seen[-1]
    if freqs is not None:
        return [scale / f for f in freqs.tolist()], amplitude
    return [scale * float(base) ** (-2 * i / dims) for i in range(dims // 2)], amplitude


def softmax(model, path):
    """The softmax scale times √d of an MLA attention; 1 for others."""
    owner = model
    for step in path.split(".")[:-1]:
        owner = owner[int(step)] if isinstance(owner, list) else getattr(owner, step)
    width = getattr(owner, "q_head_dim", None) or getattr(owner, "qk_head_dim", None)
    if width and hasattr(owner, "kv_lora_rank") and hasattr(owner, "scale"):
        return float(owner.scale) * math.sqrt(width)
    return 1.0


if __name__ == "__main__":
    main()
