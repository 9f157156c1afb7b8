"""Wiring of mlx-vlm: builds the language model of every folder and asks its rotary modules.

    pip download --no-deps mlx-vlm==0.7.10 && unzip -d /tmp/mlx-vlm mlx_vlm-*.whl
    PYTHONPATH=/tmp/mlx-vlm python -m scripts.wiring.mlx_vlm --version 0.7.10

in an environment as that of `mlx_lm.py`, with transformers, tokenizers and pillow. Model types that
yarncli has no row for are left out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import re
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from scripts.wiring.mlx_lm import filled, lines_of, measured, only_models, record
from scripts.wiring.own_code import NAMED
from scripts.wiring.probes import SIZES, TYPES, failure
from scripts.wiring.table import arguments, update, write
from yarncli.config.families.own_code_rows import OWN_CODE
from yarncli.config.families.table import FAMILIES

MODELS = "mlx_vlm.models"
# Folders whose text part takes all from a `text_config` that no published file has: defaults.
_BY_DEFAULT = ("molmo",)
# Folders whose layers take the whole config; of Phi-3-vision one layer is built, without images.
_WHOLE = {"phi3_v": ("phi3_v", "TransformerBlock"), "phi4mm": ("language", "TextModel")}


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, only="model types")
    version = options.version or importlib.metadata.version("mlx-vlm")
    folder = only_models("mlx_vlm")
    record(importlib.import_module(f"{MODELS}.base").BaseModelConfig)
    found, has = {}, folders(folder)
    wanted = options.only.split(",") if options.only else (*FAMILIES, *NAMED)
    for kind, name in sorted((k, f) for k, f in has.items() if k in wanted):
        found[kind] = entry(kind, name, folder)
        print(kind, found[kind].get("rope"), found[kind].get("note", ""), file=sys.stderr)
    if options.only:
        update("mlx-vlm", found)
        return
    write("mlx-vlm", version, "run", found, others="unsupported", registered=sorted(has))


def folders(package: Path) -> dict[str, str]:
    """Model type → name of its folder."""
    source = (package / "utils.py").read_text(encoding="utf-8")
    table = re.search(r"MODEL_REMAPPING = \{(.*?)\n\}", source, re.S)
    assert table
    renamed = dict(re.findall(r'"([^"]+)": "([^"]+)"', table[1]))
    own = {path.parent.name for path in (package / "models").glob("*/__init__.py")}
    # Where a name is both, the renaming comes first.
    return {k: f for k, f in ({n: n for n in own} | renamed).items() if f in own}


def entry(kind: str, name: str, package: Path) -> dict[str, Any]:
    """The table's entry of one model type."""
    try:
        module = importlib.import_module(f"{MODELS}.{name}")
    except Exception as error:
        return {"rope": "unknown", "note": failure(error)}
    files = [package / "models" / name / file for file in ("language.py", f"{name}.py")]
    evidence = next((line for file in files if file.exists() and (line := lines_of(file))), "")
    evidence = evidence and f"{name}/{evidence}"
    if not hasattr(module, "LanguageModel") and not hasattr(module, "Model"):
        return {"rope": "unknown", "at": f"{name}/__init__.py", "note": "no class to build"}
    found = measured(kind, name, evidence, partial(build, module))
    if kind == "hunyuan":  # as in mlx-lm; its class indexes rope_scaling["alpha"]
        note = "needs rope_scaling with alpha, factor, type"
        return {"rope": "refuses", "types": dict.fromkeys(TYPES, "refuses"), "how": "read",
                "at": evidence, "note": note, "alpha": "no limit"}  # fmt: skip
    if kind in _BY_DEFAULT:
        own = module.TextConfig.from_dict({})
        found["fixed"] = {"hidden_size": own.d_model, "num_attention_heads": own.n_heads,
                          "num_hidden_layers": own.n_layers}  # fmt: skip
    family = FAMILIES.get(kind)
    if family and family.is_wrapper and not family.flat_text:
        found["text"] = dict.fromkeys([f"{kind}_text", family.text_type], kind)
    return found


def build(module: Any, kind: str, config: dict[str, Any]) -> Any:
    """The language model, from the config of the text part, as `load_model` does it."""
    family = FAMILIES.get(kind) or OWN_CODE[kind].family
    if kind in _BY_DEFAULT:
        return module.LanguageModel(module.TextConfig.from_dict({"n_layers": 2}))
    if kind in _WHOLE:
        file, name = _WHOLE[kind]
        made = getattr(importlib.import_module(f"{module.__name__}.{file}"), name)
        return made(module.ModelConfig.from_dict(filled(module.ModelConfig, config)))
    if not hasattr(module, "TextConfig"):
        return module.Model(module.ModelConfig.from_dict(filled(module.ModelConfig, config)))
    text = filled(module.TextConfig, {**config, "model_type": family.text_type or kind})
    whole = {**SIZES, "model_type": kind, "text_config": text, "vision_config": {}}
    if not family.is_wrapper or family.flat_text:
        # As published: Qwen2-VL's class takes the text part from there, whatever text_config says.
        whole = {**text, **whole}
    try:
        outer = module.ModelConfig.from_dict(whole)  # which may change it
    except (AttributeError, KeyError, TypeError):
        outer = MagicMock()  # an image part that the small config lacks
    inner = module.TextConfig.from_dict(whole["text_config"])
    takes = list(inspect.signature(module.LanguageModel.__init__).parameters)[1:]
    return module.LanguageModel(*(inner, outer)[: min(len(takes), 2)])


if __name__ == "__main__":
    main()
