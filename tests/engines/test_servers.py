"""vLLM, SGLang and llama.cpp: numbers that were taken from running their own functions.

The golden values are those recorded for vLLM 0.33, SGLang 0.5.23 and llama.cpp's converter and
runtime; none of them can run here.
"""

from __future__ import annotations

import math

import pytest

from support.configs import M4, NARROW_LLAMA
from yarncli.engines.gguf import convert_to_gguf
from yarncli.engines.judgement import judge
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES
from yarncli.engines.tables import find_row, load_table
from yarncli.engines.types import EngineCrash, LoaderError, NoReading

LLAMA = {**NARROW_LLAMA, "max_position_embeddings": 32768}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8192}
NEUTRAL = {"attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
MROPE = {
    **LLAMA,
    "model_type": "qwen2_vl_text",
    "architectures": ["Qwen2VLForConditionalGeneration"],
    "num_attention_heads": 4,
    "rope_theta": 1e6,
}
MLA = {
    **LLAMA,
    "model_type": "deepseek_v3",
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
}


def scaled(block, base=LLAMA, **fields):
    return {**base, **fields, "rope_scaling": block}


def read(engine, config):
    return ENGINES[engine].read(read_model(config))


def scale(engine, config):
    (used,) = read(engine, config).scopes.values()
    return used.attention_factor


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        # (vllm, sglang, llama.cpp, mlx-lm, tgi, tensorrt-llm, exllamav3)
        ({}, (M4, M4, M4, M4, M4, M4, M4)),
        ({"attention_factor": 1.0}, (1.0, M4, M4, M4, M4, M4, 1.0)),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, (1.0, 1.0, M4, 1.0, 1.0, 1.0, M4)),
        ({"attn_factor": 1 / M4}, (M4, 1.0, M4, M4, M4, M4, M4)),
        (NEUTRAL, (1.0, 1.0, M4, 1.0, 1.0, 1.0, 1.0)),
        ({**NEUTRAL, "attn_factor": 1 / M4}, (1.0, 1 / M4, M4, 1.0, 1.0, 1.0, 1.0)),
        ({"mscale": 0.0, "mscale_all_dim": 0.0}, (M4, 1.0, M4, 1.0, None, None, M4)),
    ],
)
def test_who_honours_which_temperature_field(block, expected):
    engines = ("vllm", "sglang", "llama.cpp", "mlx-lm", "tgi", "tensorrt-llm", "exllamav3")
    found = [scale(engine, scaled({**YARN, **block})) for engine in engines]
    for engine, ours, theirs in zip(engines, found, expected, strict=True):
        if theirs is not None:
            assert ours == pytest.approx(theirs, rel=1e-9), engine


def test_m_rope_with_mscale_stops_sglang_only():
    section = {"mrope_section": [16, 24, 24]}
    config = scaled({**YARN, **section, **NEUTRAL}, MROPE)
    with pytest.raises(EngineCrash, match="TypeError"):
        read("sglang", config)
    assert scale("vllm", config) == 1.0
    advised = scaled({**YARN, **section, "attention_factor": 1.0, "attn_factor": 1 / M4}, MROPE)
    assert scale("sglang", advised) == pytest.approx(1.0)
    assert scale("vllm", advised) == 1.0


@pytest.mark.parametrize(
    ("block", "fields", "lengths"),
    [
        # (vllm, sglang, llama.cpp)
        (YARN, {}, (32768, 32768, 32768)),
        (YARN, {"max_position_embeddings": 8192}, (8192, 8192, 8192)),
        (
            {"rope_type": "linear", "factor": 4.0},
            {"max_position_embeddings": 8192},
            (32768, 32768, 8192),
        ),
        ({"rope_type": "linear", "factor": 4.0}, {}, (131072, 131072, 32768)),
        (
            {"rope_type": "linear", "factor": 4.0, "original_max_position_embeddings": 8192},
            {"max_position_embeddings": 8192},
            (32768, 8192, 8192),
        ),
        (
            {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0},
            {},
            (32768, 32768, 32768),
        ),
        (YARN, {"seq_length": 4096}, (4096, 4096, 32768)),
    ],
)
def test_served_lengths(block, fields, lengths):
    config = scaled(block, **fields)
    found = tuple(read(e, config).served_length for e in ("vllm", "sglang", "llama.cpp"))
    assert found == lengths


def test_gemma_3_is_exempt_from_the_multiplication():
    config = {
        "model_type": "gemma3_text",
        "max_position_embeddings": 131072,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
    }
    assert read("vllm", config).served_length == 131072
    assert read("sglang", config).served_length == 131072


def test_vllm_does_no_dynamic_scaling_and_its_table_is_short():
    config = scaled({"rope_type": "dynamic", "factor": 4.0}, max_position_embeddings=8192)
    reading = read("vllm", config)
    assert reading.served_length == 32768
    assert any("8,192" in fault for fault in reading.faults)
    plain = [500000.0 ** (-2 * i / 64) for i in range(32)]
    assert reading.scopes["model"].parameters.inv_freq(32768) == pytest.approx(plain)
    (found,) = judge(config, engines=["vllm"]).verdicts
    assert found.status == "ignores"


def test_sglang_freezes_dynamic_at_the_full_window():
    config = scaled({"rope_type": "dynamic", "factor": 4.0}, max_position_embeddings=8192)
    p = read("sglang", config).scopes["model"].parameters
    base = 500000.0 * (4.0 * 32768 / 8192 - 3.0) ** (64 / 62)
    for length in (100, 32768):
        assert p.inv_freq(length) == pytest.approx([base ** (-2 * i / 64) for i in range(32)])
    (found,) = judge(config, engines=["sglang"]).verdicts
    assert found.status == "differs"
    assert found.scopes[0].deviation == pytest.approx(0.92, abs=0.005)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_an_integer_factor_stops_linear(engine):
    with pytest.raises(EngineCrash, match=r"4\.0"):
        read(engine, scaled({"rope_type": "linear", "factor": 4}))


def test_vllm_insists_on_one_type_name():
    config = scaled({**YARN, "type": "linear"})
    with pytest.raises(LoaderError, match="linear"):
        read("vllm", config)
    assert scale("sglang", config) == pytest.approx(M4)  # rope_type wins there
    assert scale("transformers-4.57", config) == 1.0  # type wins there


def test_gpt_oss_in_vllm_drops_the_temperature_fields():
    betas = {"beta_fast": 32.0, "beta_slow": 1.0}
    config = scaled({**YARN, **NEUTRAL, **betas}, LLAMA, model_type="gpt_oss", head_dim=64)
    assert scale("vllm", config) == pytest.approx(M4)
    assert scale("transformers-5", config) == 1.0


def test_mla_temperature_sits_in_the_softmax_scale():
    block = {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}
    for engine in ("transformers-5", "vllm", "sglang", "mlx-lm", "llama.cpp"):
        (used,) = read(engine, scaled(block, MLA)).scopes.values()
        assert (used.attention_factor, used.softmax_scale_ratio) == (
            pytest.approx(1.0),
            pytest.approx(M4**2),
        ), engine
    switched = scaled({**block, "attention_factor": 1.0}, MLA)
    assert read("vllm", switched).scopes["model"].softmax_scale_ratio == 1.0
    assert read("transformers-5", switched).scopes["model"].softmax_scale_ratio > 1.2
    with pytest.raises(EngineCrash, match="original_max_position_embeddings"):
        read("vllm", scaled({"rope_type": "linear", "factor": 4.0}, MLA))


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
@pytest.mark.parametrize("rope_type", ["yarn", "linear"])
def test_an_mla_models_scaling_is_deepseeks_yarn_whatever_its_type(engine, rope_type):
    block = {**YARN, "rope_type": rope_type, "mscale": 1.0, "mscale_all_dim": 0.5}
    used = read(engine, scaled(block, MLA)).scopes["model"]
    frequencies = used.parameters.inv_freq()
    # The fastest pair is kept and the slowest divided by the factor, that is not linear's.
    assert frequencies[0] == 1.0
    assert frequencies[-1] == pytest.approx(500000.0 ** (-62 / 64) / 4)
    # DeepSeek's modelling code: m(s·mscale) / m(s·mscale_all_dim), and m(s·mscale_all_dim)².
    half = 0.05 * math.log(4) + 1
    assert used.attention_factor == pytest.approx(M4 / half)
    assert used.softmax_scale_ratio == pytest.approx(half**2)


def test_a_factor_below_one_from_the_lengths():
    """A maximum that was lowered below the original window."""
    lowered = scaled(YARN, max_position_embeddings=4096)
    with pytest.raises(EngineCrash, match=r"a factor of 0\.5 from the"):
        read("transformers-4.55", lowered)
    used = read("exllamav3", lowered).scopes["model"]  # it checks nothing and runs twice as fast
    assert used.parameters.inv_freq()[-1] == pytest.approx(2 * 500000.0 ** (-62 / 64))


def test_olmo_3_with_rope_parameters_only_loses_everything_in_sglang():
    nested = {
        "full_attention": {**YARN, "rope_theta": 5e5},
        "sliding_attention": {"rope_type": "default", "rope_theta": 5e5},
    }
    base = {k: v for k, v in LLAMA.items() if k != "rope_theta"} | {"model_type": "olmo3"}
    base["num_hidden_layers"] = 4
    (found,) = judge({**base, "rope_parameters": nested}, engines=["sglang"]).verdicts
    assert found.status == "ignores"
    both = {**base, "rope_theta": 5e5, "rope_scaling": YARN, "rope_parameters": nested}
    (found,) = judge(both, engines=["sglang"]).verdicts
    assert found.status == "exact"


def test_longrope_scale_comes_from_the_lengths_in_engines_that_ignore_the_factor():
    block = {
        "rope_type": "longrope",
        "factor": 4.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": 8192,
        "short_factor": [1.0] * 32,
        "long_factor": [4.0] * 32,
    }
    by_lengths = math.sqrt(1 + math.log(4) / math.log(8192))
    for engine in ("vllm", "sglang", "mlx-lm"):
        assert scale(engine, scaled(block)) == pytest.approx(by_lengths), engine
    stated = scaled({**block, "short_mscale": 1.0, "long_mscale": 1.0})
    assert (scale("vllm", stated), scale("sglang", stated)) == (1.0, 1.0)
    # vLLM serves the top-level original length where there is one, and then never the long factors.
    short = {**stated, "original_max_position_embeddings": 8192}
    assert read("vllm", short).served_length == 8192
    assert read("vllm", short).scopes["model"].parameters.long_factor == (1.0,) * 32


def written(config):
    model = read_model(config)
    return convert_to_gguf(model, find_row("llama.cpp", model))


def test_the_keys_in_a_gguf_file(tmp_path):
    """The keys, held against the names that the gguf package writes and reads."""
    import gguf

    found = written(scaled({**YARN, **NEUTRAL, "beta_fast": 64.0}))
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, found.architecture)
    writer.add_context_length(32768)
    writer.add_rope_freq_base(500000.0)
    writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
    writer.add_rope_scaling_factor(4.0)
    writer.add_rope_scaling_orig_ctx_len(8192)
    writer.add_rope_scaling_yarn_attn_factor(1.0)
    writer.add_rope_scaling_yarn_beta_fast(64.0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    fields = gguf.GGUFReader(path).fields
    stored = {k: f.contents() for k, f in fields.items() if not k.startswith("GGUF.")}
    assert {name: value.value for name, value in found.keys.items()} == stored
    kinds = {"UINT32": "u32", "FLOAT32": "f32", "STRING": "str"}
    types = {k: kinds[fields[k].types[0].name] for k in stored}
    assert {name: value.type for name, value in found.keys.items()} == types
    name = gguf.Keys.Rope.SCALING_ATTN_FACTOR.format(arch="llama")
    (found,) = judge(scaled({**YARN, **NEUTRAL}), engines=["llama.cpp"]).verdicts
    assert name in (found.launch or "")


def test_the_architecture_names_are_those_of_gguf():
    import gguf

    table = load_table("llama.cpp")
    names = {entry["graph"] for entry in table["model_types"].values() if "graph" in entry}
    # The package is older than the converter, so it lacks the newest.
    assert len(names & set(gguf.MODEL_ARCH_NAMES.values())) > 40


@pytest.mark.parametrize(
    ("model_type", "status"),
    [
        ("llama", "exact"),
        ("mistral", "exact"),
        ("granite", "refuses"),  # gguf-py has no such tensor for it
        ("smollm3", "refuses"),  # the graph does not load it
        ("qwen2", "ignores"),
        ("qwen3", "ignores"),
    ],
)
def test_llama3_survives_in_llama_class_files_only(model_type, status):
    block = {**YARN, "rope_type": "llama3", "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    config = scaled(block, LLAMA, model_type=model_type)
    (found,) = judge(config, engines=["llama.cpp"]).verdicts
    assert found.status == status


def test_gemma_files_lose_even_theta():
    config = scaled(None, LLAMA, model_type="gemma2", head_dim=64)
    (found,) = judge(config, engines=["llama.cpp"]).verdicts
    assert found.status == "ignores"
    assert found.launch is not None
    # --rope-freq-base would leave the windowed layers at 10000.
    assert "--override-kv gemma2.rope.freq_base=float:500000" in found.launch


def test_llama_cpp_ends_the_ramp_at_whole_dimensions_and_reads_no_betas():
    for block in ({"truncate": False}, {"beta_fast": 64.0, "beta_slow": 2.0}):
        (found,) = judge(scaled({**YARN, **block}), engines=["llama.cpp"]).verdicts
        assert found.status == "differs"
        assert found.scopes[0].deviation > 0.1
    assert found.launch is not None  # betas have flags
    assert "--yarn-beta-fast 64" in found.launch


def test_ollama_drops_yarn_by_rope_type_and_fails_on_other_types():
    (llama,) = judge(scaled(YARN), engines=["ollama"]).verdicts
    assert llama.status == "ignores"
    by_type = {**YARN, "type": "yarn"}
    (qwen,) = judge(scaled(by_type, LLAMA, model_type="qwen2"), engines=["ollama"]).verdicts
    assert qwen.status == "differs"
    assert qwen.scopes[0].attention_factor == 1.0  # it cancels the kernel's own
    linear = {"type": "linear", "factor": 4.0}
    with pytest.raises(EngineCrash, match="panics"):
        read("ollama", scaled(linear, LLAMA, model_type="qwen2"))


def test_tgi_does_nothing_for_linear_and_exllamav3_takes_the_ratio_of_lengths():
    (tgi,) = judge(scaled({"rope_type": "linear", "factor": 4.0}), engines=["tgi"]).verdicts
    assert tgi.status == "ignores"
    kept = scaled({**YARN, "factor": 16.0})
    assert read("exllamav3", kept).scopes["model"].parameters.factor == 4.0


def test_mlx_lm_and_tensorrt_llm_have_an_original_length_of_their_own():
    block = {"rope_type": "yarn", "factor": 4.0}
    for engine, length in (("mlx-lm", 4096), ("tensorrt-llm", 1024)):
        p = read(engine, scaled(block)).scopes["model"].parameters
        assert p.original_length == length


@pytest.mark.parametrize(
    ("engine", "reads"),
    [
        ("vllm", True),
        ("sglang", True),
        ("exllamav3", True),
        ("llama.cpp", False),
        ("mlx-lm", False),
        ("tgi", False),
        ("tensorrt-llm", False),
    ],
)
def test_who_reads_truncate(engine, reads):
    (found,) = judge(scaled({**YARN, "truncate": False}), engines=[engine]).verdicts
    assert found.status == ("exact" if reads else "differs")


def test_mlx_lm_always_uses_the_long_factors():
    block = {
        "rope_type": "longrope",
        "type": "longrope",
        "original_max_position_embeddings": 8192,
        "short_factor": [1.0] * 32,
        "long_factor": [4.0] * 32,
    }
    used = read("mlx-lm", scaled(block)).scopes["model"]
    assert used.parameters.inv_freq(100)[0] == pytest.approx(0.25)
    vllm = read("vllm", scaled(block)).scopes["model"]
    assert vllm.parameters.inv_freq(100)[0] == pytest.approx(0.25)  # it serves 32,768 at once
    sglang = read("sglang", scaled(block)).scopes["model"]
    assert sglang.parameters.inv_freq(100)[0] == pytest.approx(1.0)


SECTIONS = {"mrope_section": [16, 24, 24]}


def test_vllm_makes_qwen2_vls_ramp_with_four_times_the_original_length():
    """`MRotaryEmbedding` of vLLM 0.33, mrope.py:349; a quarter of the length mends it."""
    (found,) = judge(scaled({**YARN, **SECTIONS}, MROPE), engines=["vllm"]).verdicts
    assert found.status == "differs"
    quarter = scaled({**YARN, **SECTIONS, "original_max_position_embeddings": 2048}, MROPE)
    right = read("transformers-5", scaled({**YARN, **SECTIONS}, MROPE)).scopes["model"]
    mended = read("vllm", quarter)
    assert mended.scopes["model"].parameters.inv_freq() == right.parameters.inv_freq()
    assert (mended.served_length, mended.faults) == (32768, ())


def test_vllm_has_one_position_per_token_for_other_types_than_yarn():
    linear = {**SECTIONS, "rope_type": "linear", "factor": 4.0}
    assert any("one position" in fault for fault in read("vllm", scaled(linear, MROPE)).faults)


@pytest.mark.parametrize("key", ["beta_fast", "beta_slow", "factor"])
def test_gpt_oss_in_vllm_reads_its_keys_by_name(key):
    block = {**YARN, "beta_fast": 32.0, "beta_slow": 1.0}
    del block[key]
    with pytest.raises(NoReading, match="KeyError"):
        read("vllm", scaled(block, LLAMA, model_type="gpt_oss", head_dim=64))


@pytest.mark.parametrize(
    ("architectures", "status"),
    [
        (["LlamaForCausalLM"], "exact"),
        (["LlamaForSequenceClassification"], "exact"),
        (["NobodysForCausalLM", "LlamaForCausalLM"], "exact"),
        (["NobodysForCausalLM"], "unsupported"),
        (["Qwen3ForCausalLM"], "unknown"),
        (["Olmo2ForCausalLM"], "exact"),  # transformers' code, which takes any config of its type
        ("LlamaForCausalLM", "unknown"),
        ([], "exact"),
        (None, "exact"),
    ],
)
def test_vllm_builds_what_architectures_names(architectures, status):
    """registry.py `resolve_model_cls`; without a name the base model, which serves embeddings."""
    (found,) = judge({**scaled(YARN), "architectures": architectures}, engines=["vllm"]).verdicts
    assert found.status == status
    if not architectures:
        assert any("embeddings" in note for note in found.notes)


def test_no_override_mends_what_vllm_refuses_while_it_loads_the_config():
    """config/model.py:692 applies dicts of --hf-overrides after `get_config` has raised."""
    (found,) = judge(scaled({**YARN, "type": "linear"}), engines=["vllm"]).verdicts
    assert (found.status, found.launch) == ("refuses", None)


def test_vllm_has_no_backend_for_dual_chunk_attention():
    config = {**LLAMA, "dual_chunk_attention_config": {"chunk_size": 262144}}
    with pytest.raises(EngineCrash, match=r"0\.11"):
        read("vllm", config)


@pytest.mark.parametrize(
    ("block", "status"),
    [
        ({"type": "mrope"}, "refuses"),  # without sections: ValueError, config.py:642
        ({**YARN, "original_max_position_embeddings": None}, "crashes"),
        ({**YARN, "beta_fast": None}, "crashes"),
        ({**YARN, "attention_factor": None}, "exact"),
        ({"factor": 4.0}, "differs"),  # config/model.py:2605 multiplies the length by it
    ],
)
def test_odd_dicts_in_vllm(block, status):
    (found,) = judge(scaled(block), engines=["vllm"]).verdicts
    assert found.status == status
    if status == "differs":
        assert found.served_length == 4 * 32768
