"""Wiring of CTranslate2: what its Transformers converter writes for the models it has a loader for.

    python -m venv /tmp/ct2 && /tmp/ct2/bin/pip install -c constraints.txt torch transformers \
        ctranslate2==4.8.5
    PYTHONPATH=. /tmp/ct2/bin/python -m scripts.wiring.ctranslate2

A small model of each type goes through the loader, which gives the numbers that a converted model
holds. Its runtime is C++: the frequencies follow from these numbers by the formula of
`src/layers/attention_layer.cc` (OpenNMT/CTranslate2@132258e, `RotaryEmbeddings::initialize`).
`tests/engines/test_exporters_live.py` compares that with what the runtime gives.
"""

from __future__ import annotations

import gc
import logging
import math
import warnings
from functools import partial
from typing import Any

from scripts.wiring.probes import EXTENDED, SHORT_TEXT, TYPES, describe, failure, fresh, probes
from scripts.wiring.sizes import config_for, model_types, shape_of
from scripts.wiring.table import arguments, summary, write
from scripts.wiring.text_parts import class_for, wrapped
from scripts.wiring.torch_engines import in_folder, tried


def main() -> None:
    """Write the table."""
    options = arguments(__doc__, only="model types")
    import ctranslate2
    from ctranslate2.converters import transformers as converter

    prepare()
    found = {kind: entry(kind, converter) for kind in sorted(model_types())}
    if options.only:
        for kind in options.only.split(","):
            for probe, line in found[kind].get("outcomes", found[kind]).items():
                print(f"{kind:16} {probe:40} {line}")
        return
    configs = sorted(converter._MODEL_LOADERS)
    write("ctranslate2", options.version or ctranslate2.__version__, "run", found, configs=configs)


def prepare() -> None:
    """Silence the loaders of transformers; leave out a collection of garbage for every layer."""
    setattr(gc, "collect", lambda *_: 0)  # noqa: B010
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)


def entry(kind: str, converter: Any) -> dict[str, Any]:
    """The table's entry of one model type."""
    from transformers import CONFIG_MAPPING

    name = CONFIG_MAPPING[kind].__name__ if kind in CONFIG_MAPPING else ""
    loader = converter._MODEL_LOADERS.get(name)
    if loader is None:
        return {"rope": "unsupported", "note": name}
    if kind.startswith("gemma4"):
        return _by_layer(kind, loader)
    base, usual = config_for(kind)
    if kind == "falcon":
        base.pop("head_dim", None)  # a property of its config class
        base |= {
            "new_decoder_architecture": False,
            "num_kv_heads": None,
        }  # 7B; 40B is not converted
    if kind == "phi3":
        base["pad_token_id"] = 0
    found = {"class": usual, "at": f"transformers.py: {type(loader).__name__}"}
    run = partial(layers, loader, partial(wrapped, kind, *class_for(kind, usual, ())))
    pairs, problem, fails = 0, "", False
    for probe, _, config in probes(base, shape_of(kind)):
        if probe in ("default both", "linear both", "longrope type") and not pairs:
            try:
                pairs = len(run(config)["full_attention"][0][0])
            except Exception as error:
                problem = problem or failure(error)
                fails = fails or _in_loader(error)
    pairs = pairs or (32 if fails else 0)
    if not pairs:
        return {"rope": "unknown", **found, "note": problem}
    outcomes = {}
    for probe, asked, config in probes(base, shape_of(kind, pairs)):
        outcomes[probe] = tried(lambda c=config, a=asked, p=probe: _lines(a, p, run(c), 2 * pairs))
    return {"outcomes": outcomes, **summary(outcomes), "dim": 2 * pairs, **found}


def _by_layer(kind: str, loader: Any) -> dict[str, Any]:
    """The entry of a type whose layers have two widths, as all published files of it have.

    With one width it converts, but the experts of the models that have some are left out; that is
    not claimed to be right or wrong.
    """
    base, usual = config_for(kind)
    base |= {"global_head_dim": 2 * base["head_dim"]}
    run = partial(layers, loader, partial(wrapped, kind, *class_for(kind, usual, ())))
    asked = next(
        config for probe, _, config in probes(base, shape_of(kind)) if probe == "default v5"
    )
    problem = tried(lambda: run(asked))
    return {"rope": "refuses", "types": dict.fromkeys(TYPES, "refuses"), "two_widths": problem,
            "at": f"transformers.py: {type(loader).__name__}"}  # fmt: skip


def _in_loader(error: Exception) -> bool:
    """Whether it was the converter that failed, not the making of the small model."""
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith("converters/transformers.py"):
            return True
        trace = trace.tb_next
    return False


def _lines(asked: str, probe: str, scopes: dict[str, Any], dim: int) -> Any:
    lines = {name: describe(asked, probe, *pair, dim=dim) for name, pair in scopes.items()}
    return lines if len(set(lines.values())) > 1 else next(iter(lines.values()))


def layers(loader: Any, file: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Kind of layer → long and short (frequencies, scale)."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    loaded = in_folder(file(fresh(config)), lambda folder: AutoConfig.from_pretrained(folder))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(loaded)
    spec = loader.get_model_spec(model)
    kinds = getattr(loaded.get_text_config(), "layer_types", None) or []
    width = getattr(loaded, "head_dim", None)
    width = width or loaded.hidden_size // loaded.num_attention_heads
    found = {}
    for number, layer in enumerate(spec.decoder.layer):
        name = kinds[number] if kinds else "full_attention"
        found[name] = numbers(layer.self_attention, width)
    return found


def numbers(attention: Any, width: int) -> tuple[Any, Any]:
    """Long and short (frequencies, scale) of an attention layer's specification.

    Args:
        attention: an `AttentionSpec` after the loader has filled it.
        width: of a head, which is what rotary_dim 0 stands for.
    """
    values = {k: v for k, v in vars(attention).items() if v is not None}
    dim = int(values["rotary_dim"]) or width
    base, kind = float(values["rotary_base"]), int(values.get("rotary_scaling_type", -1))
    plain = [base ** (-2 * i / dim) for i in range(dim // 2)]
    if kind == 0:
        plain = [f / float(values["rotary_scaling_factor"]) for f in plain]
    if kind == 1:
        for name in ("long", "short"):
            values[f"rotary_scaling_{name}_factor"]  # without it a model does not load
        return _su(values, plain)
    if kind == 2:
        plain = _llama3(values, plain)
    return (plain, 1.0), (plain, 1.0)


def _su(values: dict[str, Any], plain: list[float]) -> tuple[Any, Any]:
    original = int(values.get("original_max_position_embeddings", 0))
    ratio = int(values.get("max_position_embeddings", 0)) // original  # of integers, in C++ too
    scale = math.sqrt(1 + math.log(ratio) / math.log(original)) if ratio > 1 else 1.0
    found = []
    for length in (EXTENDED, SHORT_TEXT):
        name = "long" if max(length, 2048) > original else "short"
        factors = values[f"rotary_scaling_{name}_factor"].tolist()
        found.append(([f / by for f, by in zip(plain, factors, strict=True)], scale))
    return found[0], found[1]


def _llama3(values: dict[str, Any], plain: list[float]) -> list[float]:
    factor = float(values.get("rotary_scaling_factor", 1.0))
    original = int(values.get("original_max_position_embeddings", 0))
    low, high = (float(values[f"rotary_{name}_freq_factor"]) for name in ("low", "high"))
    found = []
    for freq in plain:
        length = 2 * math.pi / freq
        if length < original / high:
            found.append(freq)
        elif length > original / low:
            found.append(freq / factor)
        else:
            smooth = (original / length - low) / (high - low)
            found.append((1 - smooth) * freq / factor + smooth * freq)
    return found


if __name__ == "__main__":
    main()
