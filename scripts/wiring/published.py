"""What the published code of model types with their own code does with a RoPE setting.

    PYTHONPATH=RELEASE:HUB python -m scripts.wiring.published --code FOLDER

Runs in one release of transformers after another, each time with those before everything else, as
for `transformers.py`; an outcome goes into `yarncli/engines/wiring/published.json` beside those of
other releases. FOLDER has one folder per entry of `SOURCES`, with the files of the model: taken
from the place that its `source` names. A small model is built from them as users build it, with
`trust_remote_code=True`, and gets a short and a long text; what counts is what reaches the function
that rotates queries and keys. A line is one of `README.md`, or an exception behind the step at
which it came: loading the config, building the model, running it, or generating.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.wiring import probes
from scripts.wiring.probes import describe, failure
from scripts.wiring.table import TABLES, arguments, read, write
from yarncli.engines.published import is_failure, setting_of

# A whole text is run, so the windows are small.
probes.ORIGINAL, probes.EXTENDED = 256, 1024

# Engine → the oldest and the newest release that it stands for.
RANGES = {
    "transformers-5": ("5.20.0", "5.23.0"), "transformers-4.57": ("4.56.2", "4.57.6"),
    "transformers-4.55": ("4.51.3", "4.55.4"), "transformers-4.50": ("4.43.4", "4.50.3"),
    "tgi": ("4.51.3", "4.57.6"),
}  # fmt: skip

_XTUNER = "the package xtuner 0.2.0"
_IPEX = "intel/intel-extension-for-pytorch, tests/cpu/hf_configs"
_MSCALES = {"mscale": 1.0, "mscale_all_dim": 1.0}
_MLA = {
    "qk_rope_head_dim": 64, "qk_nope_head_dim": 64, "v_head_dim": 64, "kv_lora_rank": 32,
    "q_lora_rank": 32, "n_routed_experts": 2, "num_experts_per_tok": 1, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1, "moe_intermediate_size": 32,
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The code of one model type."""

    kinds: tuple[str, ...]
    """The model types that it is published for."""
    config: str
    """What `auto_map` names for AutoConfig."""
    model: str
    """And for the model."""
    source: str
    """Where its text was taken from, and what was left out."""
    keys: dict[str, Any] = field(default_factory=dict)
    """Keys of the small model beside `SIZES`."""
    auto: str = "AutoModelForCausalLM"
    """By which class users load it."""
    rotates: str = "apply_rotary_pos_emb"
    """The function, or the method as Class.method, that gets or gives cos and sin."""
    generates: str = "generate"
    """The method that its page tells users to call."""
    width: str = "hidden_size"
    """The key that says how much of a head rotates; hidden_size where all of it does."""
    theta: float = 10000.0
    """θ where the config has none, as its config class says."""
    note: str = ""
    """What else to say of a reading."""
    inner: str = ""
    """The key of the text part, where the model is a wrapper."""


SOURCES: dict[str, Source] = {
    "internlm2": Source(
        ("internlm2",), "configuration_internlm2.InternLM2Config",
        "modeling_internlm2.InternLM2ForCausalLM",
        f"{_XTUNER}: xtuner/_lite/modelings/internlm2",
        {"bias": False, "attn_implementation": "eager"},
    ),
    "internlm2-reward": Source(
        ("internlm2",), "configuration_internlm2.InternLM2Config",
        "modeling_internlm2.InternLM2ForRewardModel",
        f"{_XTUNER}: xtuner/tools/model_converters/modeling_internlm2_reward, with the config "
        "class of xtuner/_lite/modelings/internlm2",
        {"bias": False, "attn_implementation": "eager", "reward_token_id": 3}, auto="AutoModel",
    ),
    "molmo": Source(
        ("molmo",), "config_molmo.MolmoConfig", "modeling_molmo.MolmoForCausalLM",
        "the package olmocr 0.1.60: olmocr/train/molmo",
        {"embedding_size": 64, "qkv_bias": True, "layer_norm_type": "rms", "norm_after": False,
         "attention_layer_norm": False, "weight_tying": False, "use_position_ids": True},
        rotates="RotaryEmbedding.get_rotary_embedding", generates="generate_from_batch",
    ),
    "deepseek": Source(
        ("deepseek_v3",), "configuration_deepseek.DeepseekV3Config",
        "modeling_deepseek.DeepseekV3ForCausalLM",
        f"{_IPEX}/deepseekv3@3d5e28c, without docstrings, flash attention and training", _MLA,
        width="qk_rope_head_dim",
    ),
    "minimax_m2": Source(
        ("minimax_m2",), "configuration_minimax_m2.MiniMaxM2Config",
        "modeling_minimax_m2.MiniMaxM2ForCausalLM",
        "two public copies, one of them of the modular file, without docstrings and training",
        {"rotary_dim": 32, "use_qk_norm": True, "num_local_experts": 2, "num_experts_per_tok": 1},
        width="rotary_dim", theta=1000000.0,
    ),
    "qwen": Source(
        ("qwen",), "configuration_qwen.QWenConfig", "modeling_qwen.QWenLMHeadModel",
        "zhangningboo/Qwen-7B@1ff2086, without flash attention, quantised caches and chat",
        {"rotary_emb_base": probes.THETA, "kv_channels": 64, "seq_length": 1024,
         "use_dynamic_ntk": True, "use_logn_attn": True, "intermediate_size": 128},
        width="kv_channels",
        note="beyond seq_length its code changes frequencies and queries by itself",
    ),
    "maira2": Source(
        ("maira2",), "configuration_maira2.Maira2Config",
        "modeling_maira2.Maira2ForConditionalGeneration",
        f"{_IPEX}/maira2@43d49b9, without docstrings", inner="text_config",
    ),
}  # fmt: skip

_WRAPPED: dict[str, dict[str, Any]] = {
    "maira2": {"projector_n_layers": 1, "projector_hidden_act": "gelu", "text_type": "phi3",
               "image_token_index": 63, "pad_token_id": 0,
               "vision_config": {"model_type": "dinov2", "hidden_size": 32, "image_size": 28,
                                 "num_attention_heads": 2, "num_hidden_layers": 1,
                                 "patch_size": 14, "reshape_hidden_states": False}},
}  # fmt: skip


def settings(pairs: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Name → the type that is asked for, and the keys of the config."""
    found: dict[str, tuple[str, dict[str, Any]]] = {
        "absent": ("default", {}), "null": ("default", {"rope_scaling": None}),
    }  # fmt: skip
    blocks = []
    for kind in ("linear", "dynamic", "yarn"):
        block = probes.setting(kind, pairs)
        bare = {k: v for k, v in block.items() if k not in ("type", "rope_type")}
        blocks += [{**bare, "type": kind}, {**bare, "rope_type": kind}, block]
    blocks += [{"type": "linear", "factor": int(probes.FACTOR)}, probes.setting("llama3", pairs)]
    published = {**bare, "type": "yarn", "beta_fast": 32, "beta_slow": 1, **_MSCALES}
    blocks += [published, {**published, "factor": int(probes.FACTOR)}]
    for block in blocks:
        kind = str(block.get("type", block.get("rope_type")))
        found[setting_of({"rope_scaling": block})] = kind, {"rope_scaling": block}
    return found


def main() -> None:
    """Run what is asked for in the installed release."""
    options = arguments(__doc__, code="folder with one folder per source", only="sources")
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp()
    import transformers

    release = options.version or transformers.__version__
    types = read("published")[1] if (TABLES / "published.json").exists() else {}
    chosen = options.only.split(",") if options.only else SOURCES
    for name in chosen:
        source = SOURCES[name]
        folder = Path(options.code) / name
        entry = types.setdefault(name, {})
        entry |= {
            "kinds": list(source.kinds), "config": source.config.rpartition(".")[2],
            "class": source.model.rpartition(".")[2], "auto": source.auto,
            "width": source.width, "theta": source.theta, "source": source.source,
            "files": digests(folder),
        }  # fmt: skip
        entry |= {"note": source.note} if source.note else {}
        found = examine(source, folder)
        entry.setdefault("releases", {})[release] = found
        order = sorted(entry["releases"], key=lambda v: [*map(int, v.split("."))])
        entry["releases"] = {key: entry["releases"][key] for key in order}
        print(f"{name} {release}: {json.dumps(found)}", file=sys.stderr, flush=True)
    write("published", "1", "run", types, engines=RANGES)


def digests(folder: Path) -> dict[str, str]:
    """File → SHA-256 of what was run."""
    files = sorted(folder.glob("*.py"))
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def examine(source: Source, folder: Path) -> dict[str, Any]:
    """Setting → line, and the exception that generating gives."""
    found: dict[str, Any] = {}
    works = False
    width = source.keys.get("rotary_dim", source.keys.get("qk_rope_head_dim", 64))
    for name, (asked, keys) in settings(width // 2).items():
        config = small(source, {"max_position_embeddings": probes.window(asked), **keys})
        probes.YARN_CHANGES[name] = _MSCALES if "mscale" in name else {}
        found[name] = outcome(source, folder, config, (asked, name, width))
        if not works and not is_failure(found[name]):
            works = True
            more = {"generation": generation, "continuation": continuation}
            lines = {key: run(source, folder, config) for key, run in more.items()}
            found |= {key: line for key, line in lines.items() if line}
    return found


def small(source: Source, keys: dict[str, Any]) -> dict[str, Any]:
    """The config of a small model."""
    sizes = {k: v for k, v in probes.SIZES.items() if k not in ("layer_types", "sliding_window")}
    text = {**sizes, "num_hidden_layers": 1, "rope_theta": probes.THETA, **source.keys, **keys}
    if "qk_rope_head_dim" in text:
        text.pop("head_dim")
    outer = {
        "model_type": source.kinds[0], "architectures": [source.model.rpartition(".")[2]],
        "auto_map": {"AutoConfig": source.config, source.auto: source.model},
    }  # fmt: skip
    if not source.inner:
        return {**text, **outer}
    more = dict(_WRAPPED[source.kinds[0]])
    text["model_type"] = more.pop("text_type")
    return {source.inner: {**text, "pad_token_id": 0}, **more, **outer}


class Step(Exception):
    """A failure, with the step at which it came."""


def outcome(
    source: Source, folder: Path, config: dict[str, Any], probe: tuple[str, str, int]
) -> str:
    """One line for a config."""
    import torch

    kind, name, width = probe
    try:
        model = build(source, folder, config)
        seen = watch(model, source.rotates)
        angles = {}
        for length in (probes.SHORT_TEXT, probes.EXTENDED):
            seen.clear()
            with torch.no_grad():
                text = torch.zeros(1, length, dtype=torch.long)
                step("running", lambda x=text: model(x, attention_mask=torch.ones_like(x)))
            angles[length] = rotation(seen[0])
    except Step as error:
        return str(error)
    short, long = angles[probes.SHORT_TEXT], angles[probes.EXTENDED]
    scales = [m.softmax_scale * m.q_head_dim**0.5 for m in model.modules()
              if hasattr(m, "softmax_scale")]  # fmt: skip
    changes = kind in ("dynamic", "longrope")
    return describe(kind, name, long, short if changes else None, (scales or [1.0])[0], width)


def build(source: Source, folder: Path, config: dict[str, Any]) -> Any:
    """The model, as users build it."""
    import transformers

    place = Path(tempfile.mkdtemp())
    for path in folder.glob("*.py"):
        shutil.copy(path, place)
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    own = {"trust_remote_code": True}
    loaded = step("loading", lambda: transformers.AutoConfig.from_pretrained(place, **own))
    auto = getattr(transformers, source.auto)
    return step("building", lambda: auto.from_config(loaded, **own)).eval()


def generation(source: Source, folder: Path, config: dict[str, Any]) -> str:
    """The exception of generating some tokens; empty where it works."""
    import torch
    import transformers

    if source.auto != "AutoModelForCausalLM":
        return ""
    model = build(source, folder, config)
    prompt = torch.ones(1, 4, dtype=torch.long)
    asked = {"max_new_tokens": 3, "do_sample": False}
    method = getattr(model, source.generates)
    try:
        if source.generates == "generate":
            keys = {"attention_mask": torch.ones_like(prompt), **asked}
            step("generating", lambda: method(prompt, **keys))
        else:
            wanted = transformers.GenerationConfig(**asked, use_cache=True)
            step("generating", lambda: method({"input_ids": prompt}, wanted))
    except Step as error:
        return str(error)
    return ""


def continuation(source: Source, folder: Path, config: dict[str, Any]) -> str:
    """The exception where a second call gets the cache of the first, as servers call a model."""
    import torch

    model = build(source, folder, config)
    mask = torch.ones(1, 5, dtype=torch.long)
    keys = {"use_cache": True, "return_dict": True}
    try:
        first = step("continuing", lambda: model(mask[:, :4], attention_mask=mask[:, :4], **keys))
        step("continuing", lambda: model(
            mask[:, :1], attention_mask=mask, position_ids=4 * mask[:, :1],
            past_key_values=first.past_key_values, **keys,
        ))  # fmt: skip
    except Step as error:
        return str(error)
    return ""


def step(name: str, run: Callable[[], Any]) -> Any:
    """What a step gives.

    Raises:
        Step: it failed.
    """
    try:
        return run()
    except Exception as error:
        # An import that fails names the file on this machine.
        raise Step(f"{name} {re.sub(r' [(]/.*', '', failure(error))}") from error


def watch(model: Any, named: str) -> list[Any]:
    """A list that gets what the rotating function gets, or gives where it is a method."""
    seen: list[Any] = []
    for module in {sys.modules[type(part).__module__] for part in model.modules()}:
        owner, _, name = named.rpartition(".")
        holder = getattr(module, owner, None) if owner else module
        wanted = getattr(holder, name, None)
        if wanted is None:
            continue
        original = getattr(wanted, "original", wanted)

        def record(
            *args: Any, _run: Any = original, _gives: bool = bool(owner), **keys: Any
        ) -> Any:
            given = _run(*args, **keys)
            taken = [*args, *keys.values()]
            # Either cos and sin follow the queries and keys, or a pair of them follows one tensor.
            pair = taken[1] if isinstance(taken[1], list) else taken[2:4]
            seen.append(given[::-1] if _gives else pair)
            return given

        record.original = original  # type: ignore[attr-defined]
        setattr(holder, name, record)
    return seen


def rotation(pair: Any) -> tuple[list[float], float]:
    """Inverse frequencies and scale from cos and sin at the position 1."""
    import torch

    cos, sin = (tensor.reshape(-1, tensor.shape[-1])[1].double() for tensor in pair)
    half = len(cos) // 2
    return torch.atan2(sin, cos)[:half].tolist(), float((sin**2 + cos**2).sqrt().mean())


if __name__ == "__main__":
    main()
