"""What a transformers release computes for configs: run by any Python that has one installed.

Reads {"cases": [{"config", "length", "line"?}, …]} as JSON on stdin, or is called in-process. With
a line, Python statements that load a model, they are run and count. For each config:
{"scopes": {name: {"inv_freq", "attention_factor"}}, "softmax"} or {"error"}.
"""

import copy
import importlib
import inspect
import json
import logging
import re
import sys
import warnings


def compute(config, length):
    """The numbers of the model's own rotary class after a text of `length` tokens."""
    try:
        return _compute(copy.deepcopy(config), length)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _compute(raw, length):
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[raw["model_type"]].from_dict(raw)
    return compute_loaded(config.get_text_config(), length)


def compute_line(raw, line, length):
    """The same for what the statements of `line` give to the model class."""
    try:
        return compute_loaded(_given(copy.deepcopy(raw), line).get_text_config(), length)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _given(raw, line):
    from transformers import CONFIG_MAPPING

    found = []

    class Config:
        @staticmethod
        def from_pretrained(source):
            return CONFIG_MAPPING[raw["model_type"]].from_dict(raw)

    class Model:
        @staticmethod
        def from_pretrained(source, config=None):
            found.append(config or Config.from_pretrained(source))

    names = dict.fromkeys(re.findall(r"(\w+)\.from_pretrained", line), Model)
    exec(line, {**names, "AutoConfig": Config})
    return found[0]


def compute_loaded(text, length):
    """The same for the loaded config of a text model."""
    import torch

    torch.set_num_threads(1)
    module = _modelling(text)
    rotary_class = _rotary_class(module, type(text).__name__)
    if '.rope_scaling["mrope_section"]' in inspect.getsource(module):
        text.rope_scaling["mrope_section"]  # as its attention layers take it
    if hasattr(module, "get_llama_4_attn_scale"):
        rope = text.rope_parameters
        keys = ("llama_4_scaling_beta", "original_max_position_embeddings")
        module.get_llama_4_attn_scale(torch.tensor([[length]]), *map(rope.get, keys))
    scopes = {}
    for name, rotary in _instances(rotary_class, text):
        if text.model_type == "phimoe":
            scopes[name] = _phimoe(torch, rotary, length)
            continue
        layer_type = name if getattr(rotary, "layer_types", None) else None
        prefix = f"{layer_type}_" if layer_type else ""
        _grow(torch, rotary, length, layer_type)
        scale = getattr(rotary, f"{prefix}attention_scaling", 1.0)
        inv_freq = getattr(rotary, f"{prefix}inv_freq")
        scopes[name] = {
            "inv_freq": [float(f"{f:.9g}") for f in inv_freq.tolist()],
            "attention_factor": float(scale),
        }
    return {"scopes": scopes, "softmax": _softmax(torch, module, text)}


def _modelling(text):
    """The module of the model's code: that of its causal class where it borrows another's."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as CAUSAL

    package = type(text).__module__.replace("configuration_", "modeling_")
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError:
        import transformers

        name = getattr(transformers, CAUSAL[text.model_type]).__module__
        return importlib.import_module(name)


def _rotary_class(module, config_name):
    stem = config_name.removesuffix("Config")
    found = [
        member
        for name, member in vars(module).items()
        if inspect.isclass(member)
        and name.endswith("RotaryEmbedding")
        and member.__module__ == module.__name__
        and "config" in inspect.signature(member.__init__).parameters
    ]
    parts = ("Vision", "Audio", "Encoder", "DiT")
    found = [m for m in found if m.__name__.startswith(stem) or _is_text(m, parts)]
    # The model's own, before those of its other parts.
    found.sort(
        key=lambda m: (m.__name__ != f"{stem}RotaryEmbedding", not m.__name__.startswith(stem))
    )
    return found[0]


def _is_text(member, parts):
    return not any(part in member.__name__ for part in parts)


def _instances(rotary_class, text):
    """Every rotary object that the model builds, by scope."""
    import transformers

    if transformers.__version__ >= "5":
        rotary = rotary_class(config=text)
        layer_types = getattr(rotary, "layer_types", None)
        if not layer_types:
            return [("model", rotary)]
        return [(n, rotary) for n in dict.fromkeys(layer_types) if hasattr(rotary, f"{n}_inv_freq")]
    if text.model_type in ("gemma3_text", "gemma3n_text"):
        local = copy.deepcopy(text)
        local.rope_theta = text.rope_local_base_freq
        local.rope_scaling = {"rope_type": "default"}
        return [
            ("full_attention", rotary_class(config=text)),
            ("sliding_attention", rotary_class(config=local)),
        ]
    if text.model_type == "modernbert":
        wide, local = copy.deepcopy(text), copy.deepcopy(text)
        wide.rope_theta = text.global_rope_theta
        local.rope_theta = text.local_rope_theta or text.global_rope_theta
        return [
            ("full_attention", rotary_class(config=wide)),
            ("sliding_attention", rotary_class(config=local)),
        ]
    if text.model_type == "olmo3":
        return [
            ("full_attention", rotary_class(config=text)),
            ("sliding_attention", rotary_class(config=text, rope_type="default")),
        ]
    return [("model", rotary_class(config=text))]


def _phimoe(torch, rotary, length):
    """PhiMoE computes both numbers anew in each forward pass."""
    hidden = torch.zeros(1, 1, 4)
    try:
        cos, sin = rotary(hidden, torch.tensor([[length - 1]]))
        inv_freq, _ = rotary.rope_init_fn(rotary.config)
    except (TypeError, IndexError, RuntimeError, AttributeError):  # before 5 it takes a length
        cos, sin = rotary(hidden, seq_len=length)
        inv_freq = rotary.rope_init_fn(rotary.config, hidden.device, length)[0]
    last = (cos.reshape(-1, cos.shape[-1])[-1] ** 2 + sin.reshape(-1, sin.shape[-1])[-1] ** 2)[0]
    return {
        "inv_freq": [float(f"{f:.9g}") for f in inv_freq.tolist()],
        "attention_factor": float(f"{float(last) ** 0.5:.7g}"),
    }


def _grow(torch, rotary, length, layer_type):
    """One forward pass at the last position, which is what dynamic and longrope follow."""
    keywords = {"layer_type": layer_type} if layer_type else {}
    position = torch.tensor([[length - 1]])
    hidden = torch.zeros(1, 1, 4)
    try:
        rotary(hidden, position, **keywords)
    except (RuntimeError, IndexError, ValueError, TypeError):
        rotary(hidden, position.expand(3, 1, 1), **keywords)


def _softmax(torch, module, text):
    """The softmax scale over 1/√d of the model's attention; 1 for models without MLA."""
    if not getattr(text, "qk_rope_head_dim", None):
        return 1.0
    ends = ("Attention", "MLA")
    classes = [m for n, m in vars(module).items() if n.endswith(ends) and inspect.isclass(m)]
    own = [
        m for m in classes if m.__module__ == module.__name__ and "FlashAttention" not in m.__name__
    ]
    with torch.device("meta"):
        attention = own[0](text, 0)
    width = getattr(attention, "qk_head_dim", None) or attention.head_dim
    return attention.scaling * width**0.5


def main():
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    import transformers

    cases = json.load(sys.stdin)["cases"]
    results = [
        compute_line(case["config"], case["line"], case["length"])
        if "line" in case
        else compute(case["config"], case["length"])
        for case in cases
    ]
    json.dump({"transformers": transformers.__version__, "results": results}, sys.stdout)


if __name__ == "__main__":
    main()
