"""Tiny checkpoints of real architectures with YaRN, and what is compared before and after."""

import copy
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import architectures
from support.checkpoints import write_index
from support.configs import M4

os.environ["TRANSFORMERS_VERBOSITY"] = "error"

YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
SHORT = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7]
LONGROPE = {
    "rope_type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "short_factor": SHORT,
    "long_factor": [2 * x for x in SHORT],
}
DEFAULT = {"rope_type": "default", "rope_theta": 10000.0}


@dataclass(frozen=True)
class Case:
    """One tiny checkpoint: `changes` go to the config class, `sizes` to the shrunk config."""

    model_type: str
    changes: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, Any] = field(default_factory=dict)
    rope: dict[str, Any] = field(default_factory=lambda: YARN)
    scopes: dict[str, dict[str, Any]] = field(default_factory=dict)
    sides: tuple[str, ...] = ("k", "q", "both")


_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 256,
    "indexer_budget": 256,
    "indexer_compress_ratio": 16,
}
_DOTS = {
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "kv_lora_rank": 32,
    "q_lora_rank": 24,
    "head_dim": 32,
    "qk_nope_head_dim": 24,
    "v_head_dim": 16,
    "qk_rope_head_dim": 8,
}
_GROUPS = {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1}
_HEAD = {"head_dim": 16}
_CLIP = {"clip_qkv": 0.4}
_THETAS = {"layer_rope_theta": [10000.0, 0, 500000.0, 20000.0]}

# What the config classes do not fill in by themselves, or what the shrinking cannot guess.
_NEEDS: dict[str, Case] = {
    "bamba": Case("bamba", {"attn_layer_indices": [1, 3]}),
    "bailing_hybrid": Case(
        "bailing_hybrid",
        sizes={"num_expert_group": 1, "topk_group": 1, "num_experts_per_token": 2},
    ),
    "cohere_compass_text": Case(
        "cohere_compass_text",
        {
            "layer_types": ["sliding_attention", "full_attention"] * 20,
            "rope_parameters": {"sliding_attention": DEFAULT, "full_attention": DEFAULT},
        },
    ),
    # The prediction of bytes decides where patches end; a low threshold gives many.
    "blt": Case(
        "blt",
        {"patching_threshold": 0.0},
        {f"{part}_config": {"num_hidden_layers": 1} for part in ("global", "decoder", "patcher")},
    ),
    "dbrx": Case(
        "dbrx",
        sizes={"attn_config": {"kv_n_heads": 2, "clip_qkv": 0.5, "rope_theta": 10000.0}},
        sides=("both",),
    ),
    "deepseek_v2": Case("deepseek_v2", sizes=_GROUPS),
    "deepseek_v4": Case("deepseek_v4", sides=("k",)),
    "dots1": Case(
        "dots1",
        sizes={"n_routed_experts": 4, "n_shared_experts": 1, "norm_topk_prob": True, **_GROUPS},
    ),
    "dots3_note_text": Case(
        "dots3_note_text",
        sizes={"head_dim": 24, "qk_nope_head_dim": 16, "per_layer_config": {2: _DOTS, 3: _DOTS}},
    ),
    "emu3": Case("emu3", sizes={"vocabulary_map": {"<image>": 5}}),
    "falcon_h1": Case(
        "falcon_h1", sizes={"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16}
    ),
    "gemma3n_text": Case("gemma3n_text", sizes={"num_kv_shared_layers": 0}),
    "gpt_oss": Case("gpt_oss", {"rope_parameters": DEFAULT}),
    "granitemoehybrid": Case(
        "granitemoehybrid",
        {"layer_types": ["mamba", "attention"] * 16, "position_embedding_type": "rope"},
    ),
    "hrm_text": Case("hrm_text", sizes={"num_layers_per_stack": 2, "num_hidden_layers": 16}),
    "hunyuan_v1_dense": Case("hunyuan_v1_dense", sizes=_HEAD),
    "hunyuan_v1_moe": Case("hunyuan_v1_moe", sizes=_HEAD),
    "lfm2_moe": Case("lfm2_moe", {"layer_types": ["conv", "full_attention"] * 16}),
    "minimax": Case("minimax", sizes=_HEAD),
    "ministral": Case("ministral", sizes=_HEAD),
    "mixtral": Case("mixtral", sizes=_HEAD),
    "nemotron": Case("nemotron", sizes={"num_key_value_heads": 2}),
    "phi3": Case("phi3", rope=LONGROPE),
    "phi4_multimodal": Case("phi4_multimodal", rope=LONGROPE),
    "qwen4_exp": Case(
        "qwen4_exp", {"text_config": _INDEXER}, {"text_config": {"indexer_head_dim": 16}}
    ),
    "qwen4_exp_text": Case("qwen4_exp_text", _INDEXER, {"indexer_head_dim": 16}),
    "zamba2": Case(
        "zamba2",
        {"use_mem_rope": True, "use_shared_attention_adapter": True},
        {
            "attention_hidden_size": 128,
            "attention_head_dim": 32,
            "n_mamba_heads": 8,
            "mamba_headdim": 16,
            "kv_channels": 16,
            "num_key_value_heads": 4,
            "hybrid_layer_ids": [2, 3],
            "layers_block_type": ["mamba", "mamba", "hybrid", "hybrid"],
        },
    ),
    **{
        name: Case(name, rope={**YARN, "mrope_section": [2, 3, 3]})
        for name in ("glm4v", "glm_ocr", "paddleocr_vl", "qwen2_5_vl", "qwen2_vl", "qwen3_vl")
    },
    "glm4v_moe": Case("glm4v_moe", rope={**YARN, "mrope_section": [1, 1, 2]}),
    "qwen3_vl_moe": Case("qwen3_vl_moe", rope={**YARN, "mrope_section": [2, 3, 3]}),
    "zaya": Case("zaya", rope={**YARN, "partial_rotary_factor": 1.0}, sides=("k",)),
}

_NAMES = """
afmoe apertus arcee aria_text axk1 axk2 bailing_hybrid bamba beam bitnet blt cohere cohere2
cohere2_moe
cohere_compass_text cwm dbrx deepseek_v2 deepseek_v3 deepseek_v32 deepseek_v4 diffllama doge dots1
dots3_note_text emu3 ernie4_5 ernie4_5_moe exaone4 exaone_moe falcon falcon_h1 flex_olmo flint gemma
gemma2 gemma3 gemma3_text gemma3n_text gemma4 gemma4_text gemma4_unified_text glm glm4 glm4_moe
glm4_moe_lite glm_moe_dsa gpt_neox gpt_neox_japanese gpt_oss granite granite_swa granitemoe
granitemoe_swa granitemoehybrid granitemoeshared helium hrm_text hy_v3 hy_v4 hyperclovax jais2
jetmoe kolibri1 laguna lfm2 lfm2_moe lfm3 llama longcat_flash mellum mimo_v2_flash minicpm3 minimax
minimax_m2 minimax_m3_vl_text ministral ministral3 mistral mixtral mllama modernbert-decoder moshi
nemotron olmo olmo2 olmo3 olmo_hybrid olmoe persimmon phi phi3 phi4_multimodal qwen2 qwen2_moe qwen3
qwen3_5 qwen3_5_moe qwen3_5_moe_text qwen3_5_text qwen3_moe qwen3_next qwen4_exp qwen4_exp_text
seed_oss smollm3 solar_open stablelm starcoder2 vaultgemma youtu zamba2 zaya internlm3 iquestcoder
aya_vision cohere2_vision exaone4_5 gemma4_unified glm4v glm4v_moe glm_ocr internvl lfm2_vl lfm3_vl
llava mistral3 paddleocr_vl paligemma qwen2_5_vl qwen2_vl qwen3_vl qwen3_vl_moe smolvlm
""".split()

_VARIANTS: dict[str, Case] = {
    "llama@longrope": Case("llama", rope=LONGROPE),
    "llama@customfactor": Case("llama", rope={**YARN, "attention_factor": 1.4}),
    "llama@mscale": Case("llama", rope={**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}),
    "llama@tied": Case("llama", {"tie_word_embeddings": True}),
    "llama4_text@noqknorm": Case("llama4_text", {"use_qk_norm": False}),
    "llama4@noqknorm": Case("llama4", {"text_config": {"use_qk_norm": False}}),
    "cohere@qknorm": Case("cohere", {"use_qk_norm": True}),
    "glm4_moe@qknorm": Case("glm4_moe", {"use_qk_norm": True}),
    "phi@qknorm": Case("phi", {"qk_layernorm": True}),
    "stablelm@qknorm": Case("stablelm", {"qk_layernorm": True}),
    "falcon@mha": Case("falcon", {"multi_query": False}),
    "falcon@new": Case(
        "falcon", {"new_decoder_architecture": True, "num_kv_heads": 8}, {"num_kv_heads": 2}
    ),
    "olmo@clip": Case("olmo", sizes=_CLIP, sides=("both",)),
    "olmoe@clip": Case("olmoe", sizes=_CLIP, sides=("both",)),
    "deepseek_v2@noqlora": Case("deepseek_v2", {"q_lora_rank": None}, _GROUPS),
    "deepseek_v3@noqlora": Case("deepseek_v3", {"q_lora_rank": None}),
    "deepseek_v3@mscale": Case("deepseek_v3", rope={**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}),
    "deepseek_v3@nointerleave": Case("deepseek_v3", {"rope_interleave": False}),
    "gemma4_text@keqv": Case("gemma4_text", {"attention_k_eq_v": True}),
    "gemma4_text@kvshare": Case(
        "gemma4_text",
        sizes={
            "num_kv_shared_layers": 2,
            "layer_types": ["sliding_attention", "full_attention"] * 2,
            "per_layer_config": {1: {"head_dim": 32}, 3: {"head_dim": 32}},
        },
    ),
    "qwen2@swa": Case(
        "qwen2", {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 2}
    ),
    "exaone4@noswa": Case(
        "exaone4", sizes={"sliding_window": None, "layer_types": ["full_attention"] * 4}
    ),
    "phi3@partial": Case(
        "phi3",
        {"partial_rotary_factor": 0.5},
        rope={
            **LONGROPE,
            "partial_rotary_factor": 0.5,
            "short_factor": SHORT[:4],
            "long_factor": [2 * x for x in SHORT[:4]],
        },
    ),
    "olmo3@bothyarn": Case("olmo3", scopes={"sliding_attention": {**YARN, "factor": 2.0}}),
    "gemma3_text@bothyarn": Case(
        "gemma3_text", scopes={"sliding_attention": {**YARN, "factor": 2.0}}
    ),
    "gemma3_text@slidingyarn": Case("gemma3_text", scopes={"full_attention": DEFAULT}),
    "gemma3n_text@kvshare": Case("gemma3n_text", sizes={"num_kv_shared_layers": 2}),
    # Layers of three kinds: two θs of their own, and one without RoPE.
    "granite_swa@thetas": Case("granite_swa", sizes=_THETAS),
    "granitemoe_swa@thetas": Case("granitemoe_swa", sizes=_THETAS),
    "minimax_m3_vl_text@indexer": Case(
        "minimax_m3_vl_text",
        sizes={"layer_types": ["full_attention"] + ["minimax_m3_sparse"] * 3},
    ),
}

# One representative per layout and special case runs in `make test`.
_FAST = {
    "llama", "qwen2", "gpt_neox", "phi3", "falcon@new", "olmo2", "qwen3", "gemma3_text@bothyarn",
    "deepseek_v2@noqlora", "deepseek_v3@mscale", "deepseek_v32", "dbrx", "olmo@clip", "persimmon",
    "deepseek_v4", "jetmoe", "zamba2", "zaya", "smollm3", "hrm_text", "longcat_flash", "gemma3",
    "axk2", "dots3_note_text", "qwen2_5_vl", "stablelm@qknorm", "qwen3_next", "hy_v4",
    "granite_swa@thetas", "granitemoe_swa@thetas", "blt",
}  # fmt: skip

CASES = {name: _NEEDS.get(name, Case(name)) for name in _NAMES} | _VARIANTS


def save_checkpoint(case: Case, directory: Path) -> Path:
    """Build the case's model by transformers, save it, and write its RoPE setting."""
    from yarncli.baking import twin
    from yarncli.baking.shrink import shrink

    given = {**copy.deepcopy(case.changes), "model_type": case.model_type}
    config = shrink(twin.expanded(given))
    for key, value in case.sizes.items():
        old = config.get(key)
        nested = key.endswith("_config") and isinstance(value, dict) and isinstance(old, dict)
        config[key] = {**old, **value} if nested else copy.deepcopy(value)
    with twin.quiet():
        twin.save_random(config, directory)
    write_rope_setting(directory, case)
    return directory


def write_rope_setting(directory: Path, case: Case) -> None:
    """Put the case's rope dict into config.json as transformers 5 spells it."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    several = [
        value for key, value in config.items() if case.model_type == "blt" and "_config" in key
    ]
    for text in several or [config.get("text_config", config)]:
        _write_rope_setting(text, case)
    path.write_text(json.dumps(config, indent=2) + "\n")


def _write_rope_setting(text: dict[str, Any], case: Case) -> None:
    text.pop("rope_scaling", None)
    found = text.get("rope_parameters") or {}
    drop = {"low_freq_factor", "high_freq_factor", "mscale", "mscale_all_dim", "attention_factor"}
    if any(isinstance(value, dict) for value in found.values()):
        for name, entry in found.items():
            if isinstance(entry, dict) and "rope_theta" in entry:
                kept = {k: v for k, v in entry.items() if k not in drop}
                if kept.get("rope_type") == "proportional":
                    kept.pop("partial_rotary_factor", None)
                found[name] = {**kept, **case.scopes.get(name, case.rope)}
    else:
        found = {k: v for k, v in found.items() if k not in drop} | case.rope
    text["rope_parameters"] = found
    for key in ("max_position_embeddings", "max_seq_len", "model_max_length"):
        if key in text:
            text[key] = 128
    if case.rope["rope_type"] == "longrope":
        text["original_max_position_embeddings"] = 32


@pytest.fixture(scope="session")
def cases() -> dict[str, Case]:
    """The tiny architectures by name."""
    return CASES


@pytest.fixture
def checkpoint_of(tmp_path):
    """A function that saves a named case below `tmp_path`."""

    def make(name: str, directory: str = "source", **changes: Any) -> Path:
        case = copy.copy(CASES[name])
        for key, value in changes.items():
            object.__setattr__(case, key, value)
        return save_checkpoint(case, tmp_path / directory)

    return make


def pytest_generate_tests(metafunc):
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", architectures.parameters(CASES, _FAST))


LLAMA = {
    "model_type": "llama",
    "hidden_size": 16,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
    },
}
SHAPES = {"q_proj": (32, 16), "k_proj": (16, 16), "v_proj": (16, 16), "o_proj": (16, 32)}


@pytest.fixture(scope="session")
def attention_factor() -> float:
    """Yarn's attention factor at factor 4."""
    return M4


@pytest.fixture
def handmade(tmp_path):
    """A function that writes a small Llama by hand, with two shards, or other tensors."""
    import numpy as np
    from safetensors.numpy import save_file

    def make(changes=None, tensors=None, drop=(), name="source", dtype=np.float32):
        rng = np.random.default_rng(0)
        config = {k: v for k, v in {**LLAMA, **(changes or {})}.items() if v is not None}
        layers = range(config["num_hidden_layers"])
        made = {
            f"model.layers.{layer}.self_attn.{part}.weight": rng.normal(size=shape).astype(dtype)
            for layer in layers
            for part, shape in SHAPES.items()
        }
        made["model.embed_tokens.weight"] = rng.normal(size=(20, 16)).astype(dtype)
        made = {k: v for k, v in {**made, **(tensors or {})}.items() if k not in drop}
        directory = tmp_path / name
        directory.mkdir()
        (directory / "config.json").write_text(json.dumps(config, indent=4) + "\n")
        names = sorted(made)
        middle = len(names) // 2 + 1  # one layer in each
        halves = {"model-00001-of-00002.safetensors": names[:middle]}
        halves["model-00002-of-00002.safetensors"] = names[middle:]
        weight_map = {}
        for file, part in halves.items():
            save_file({n: made[n] for n in part}, directory / file, {"format": "pt", "by": "hand"})
            weight_map |= dict.fromkeys(part, file)
        write_index(directory, weight_map, 1)
        (directory / "tokenizer.json").write_text("{}")
        return directory

    return make


@pytest.fixture(scope="session")
def tensors_of():
    """A function that reads all tensors of a directory with safetensors."""
    from safetensors import safe_open

    def read(directory: Path):
        found = {}
        for path in sorted(directory.glob("*.safetensors")):
            with safe_open(path, "numpy") as file:
                found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return found

    return read


@pytest.fixture(scope="session")
def bake_directory():
    """A function that bakes one directory into another, with options."""

    def run(source: Path, out: Path, **options: Any):
        from yarncli.baking.deciding import BakeSettings, decide_bake
        from yarncli.baking.writing import write_copy
        from yarncli.checkpoint.source import open_checkpoint

        baking = decide_bake(open_checkpoint(str(source)), BakeSettings(**options))
        write_copy(baking, out)
        return baking

    return run
