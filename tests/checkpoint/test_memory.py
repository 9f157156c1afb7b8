"""Memory: caches as transformers really allocates them, and what a container leaves."""

import dataclasses
import os

import pytest

from support import architectures
from yarncli.checkpoint.memory import CachePart, available_memory, kv_cache_bytes, kv_cache_parts
from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import read_rope

# Tokens: below and above the window of the tiny configs.
SHORT, LONG, WINDOW = 12, 40, 16

TEXT = {name for name, f in FAMILIES.items() if not (f.is_wrapper or f.same_as)}

# What the tiny configs leave out, or have as no published model has it.
CHANGES = {
    "deepseek_v4": {"num_key_value_heads": 1},
    "falcon": {"new_decoder_architecture": False, "multi_query": True},
    "falcon new": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "gemma4_text": {"num_kv_shared_layers": 1, "attention_k_eq_v": True,
                    "num_global_key_value_heads": 1,
                    "layer_types": ["sliding_attention", "full_attention"] * 2},
    "hrm_text": {"num_layers_per_stack": 1, "num_hidden_layers": 8},
    "hy_v4": {"indexer_types": ["full", "shared"] * 2},
    "minimax": {"sliding_window": None},
    "mistral_large4_text": {"kv_source_layers": [0, 1, 1, 3], "no_rope_layers": [1, 1, 1, 0]},
    "qwen3_omni_moe_text": {"sliding_window": None},
}  # fmt: skip
# In every run; the rest of the table is under the mark `full`.
USUAL = {
    "bamba", "cohere2", "dbrx", "deepseek_v2", "deepseek_v3", "deepseek_v4", "exaone4", "falcon",
    "falcon new", "gemma2", "gemma3_text", "gemma3n_text", "gemma4_text", "glm4_moe",
    "glm_moe_dsa", "gpt_neox", "gpt_oss", "granitemoehybrid", "lfm2", "llama", "llama4_text",
    "longcat_flash", "mimo_v2_flash", "minicpm3", "minimax", "mistral", "mistral4", "mixtral",
    "mllama_text_model", "olmo3", "phi3", "qwen2", "qwen3", "qwen3_next", "smollm3", "stablelm",
    "step3p5", "zamba2",
}  # fmt: skip
# Encoders and decoders that keep no cache of their own, or need more than tokens.
NO_CACHE = {
    "cohere_compass_text", "embedding_gemma2_text", "esmc", "eurobert", "granite4_vision_text",
    "gte", "hunyuan_vl_text", "idefics", "jina_embeddings_v3", "modernbert",
    "muse_glimmer_assistant", "neomme", "nomic_bert", "openai_privacy_filter", "ultrabert",
}  # fmt: skip
STATES = {
    "conv_states",
    "recurrent_states",
    "buffer_kv",
    "buffer_gate",
    "overlap_kv",
    "overlap_gate",
}


def tensors(value):
    """All tensors of floating point in `value`, however deep; positions and sizes are not."""
    if hasattr(value, "nbytes"):
        return [value] if value.is_floating_point() else []
    inner = value.values() if isinstance(value, dict) else value
    return [t for item in inner for t in tensors(item)] if isinstance(value, (dict, list)) else []


def allocated(model, inputs):
    """Bytes of keys and values that transformers holds after one forward."""
    import torch

    with torch.no_grad():
        cache = model(**inputs, use_cache=True).past_key_values
    held = []
    for layer in cache.layers:
        kept = {name: value for name, value in vars(layer).items() if name not in STATES}
        held.append(sum(tensor.nbytes for tensor in tensors(kept)))
    return sum(held)


@pytest.mark.parametrize(
    "name",
    [
        name if name in USUAL else pytest.param(name, marks=pytest.mark.full)
        for name in sorted({*TEXT, *CHANGES} - NO_CACHE)
    ],
)
def test_a_cache_is_as_large_as_transformers_allocates_it(name):
    """Float32. A windowed layer keeps one token fewer than its window between two calls."""
    model_type = name.split()[0]
    fields = architectures.tiny_fields(model_type, **CHANGES.get(name, {}))
    model = architectures.build_model(architectures.build_config(fields))
    parts = kv_cache_parts(fields, read_rope(fields))
    kept = [dataclasses.replace(p, window=p.window and p.window - 1) for p in parts]
    for length in (SHORT, LONG):
        held = allocated(model, architectures.forward_inputs(model_type, length))
        assert kv_cache_bytes(kept, length, 4) == held, length
    newest = sum(part.width * 4 for part in parts if part.window)
    assert kv_cache_bytes(parts, LONG, 4) == kv_cache_bytes(kept, LONG, 4) + newest


# Files of a control group, per version: limit, usage, and a statistic with its value.
V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
V2 = ("memory.max", "memory.current", "inactive_file")


def write_machine(root, membership, groups, free=1000):
    """A root directory with `free` kB available and control groups {path: (names, values)}."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9999 kB\nMemAvailable: {free} kB\n")
    (root / "proc/self/cgroup").write_text(membership)
    for path, (names, (limit, usage, reclaimable)) in groups.items():
        directory = root / "sys/fs/cgroup" / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / names[0]).write_text(f"{limit}\n")
        (directory / names[1]).write_text(f"{usage}\n")
        (directory / "memory.stat").write_text(f"anon 5\n{names[2]} {reclaimable}\n")
    return root


@pytest.mark.parametrize(
    ("membership", "groups", "expected"),
    [
        ("", {}, 1000 * 1024),
        ("0::/\n", {"": (V2, ("max", 700, 0))}, 1000 * 1024),
        # A container with a namespace of its own: it is at the top.
        ("0::/\n", {"": (V2, (50_000, 30_000, 4_000))}, 24_000),
        # The strictest of the groups above counts.
        (
            "0::/a.slice/b.service\n",
            {"a.slice": (V2, (9_000, 8_000, 0)), "a.slice/b.service": (V2, (8_000, 500, 0))},
            1_000,
        ),
        # Version 1: the memory controller; the host's path is not there, its group at the top is.
        (
            "9:cpu:/docker/x\n4:memory:/docker/x\n",
            {"memory": (V1, (60_000, 20_000, 1_500))},
            41_500,
        ),
        (
            "4:memory:/job\n0::/\n",
            {"memory": (V1, (2**63 - 4096, 0, 0)), "memory/job": (V1, (5_000, 2_000, 10))},
            3_010,
        ),
    ],
    ids=["none", "no limit", "namespace", "nested", "version 1", "version 1 nested"],
)
def test_a_container_s_limit_counts(tmp_path, membership, groups, expected):
    assert available_memory(write_machine(tmp_path, membership, groups)) == expected


def test_without_proc_the_system_is_asked(tmp_path):
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < available_memory(tmp_path) <= pages


def test_where_the_file_is_silent_the_family_s_sizes_count():
    """MiniCPM3: latent 256 and 32 rotated. Gemma 3n: 15 of 35 layers cache nothing."""
    minicpm = {"model_type": "minicpm3"}
    assert set(kv_cache_parts(minicpm, read_rope(minicpm))) == {CachePart(256 + 32)}
    gemma = {"model_type": "gemma3n_text"}
    parts = kv_cache_parts(gemma, read_rope(gemma))
    assert parts.count(CachePart(2 * 2 * 256, 512)) == 16
    assert parts.count(CachePart(2 * 2 * 256)) == 4


def test_windows_can_be_left_out():
    """check-passkey's own cache keeps every token, so that it can go back."""
    parts = [CachePart(8, 16), CachePart(8)]
    assert kv_cache_bytes(parts, 40, 2) == 2 * 8 * (16 + 40)
    assert kv_cache_bytes(parts, 40, 2, windows=False) == 2 * 8 * (40 + 40)
