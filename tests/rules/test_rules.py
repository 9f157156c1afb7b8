"""Each rule: a config that breaks it gives that finding at that place, and no other complaint."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support import configs
from yarncli.config.reading import read_rope
from yarncli.history import History, Step
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.rules.catalogue import RULES
from yarncli.rules.check import CheckReport
from yarncli.rules.check import check as check_all

Check = Callable[[dict[str, Any]], CheckReport]

LLAMA = {**configs.LLAMA, "max_position_embeddings": 32768}
YARN = {
    "rope_type": "yarn",
    "type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
LONG = {
    "rope_type": "longrope",
    "type": "longrope",
    "short_factor": [1.0] * 64,
    "long_factor": [2.0] * 64,
    "original_max_position_embeddings": 8192,
}
GEMMA3 = {
    "model_type": "gemma3_text",
    "head_dim": 256,
    "max_position_embeddings": 131072,
    "num_hidden_layers": 6,
    "rope_local_base_freq": 10000.0,
    "rope_theta": 1000000.0,
    "sliding_window": 512,
}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 4096}
QWEN3 = {**LLAMA, "model_type": "qwen3", "rope_theta": 1000000.0}
LLAVA = {"model_type": "llava", "text_config": LLAMA}
QWEN_VL = {
    "model_type": "qwen2_vl",
    "text_config": {**LLAMA, "model_type": "qwen2_vl_text"},
}


def scaled(block: dict[str, Any], base: dict[str, Any] = LLAMA, **more: Any) -> dict[str, Any]:
    """`base` with a scaling in both spellings, so that nothing is wrong but what `block` says."""
    v5 = {**block, "rope_theta": base["rope_theta"]}
    return {**base, "rope_scaling": block, "rope_parameters": v5, **more}


def without(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


# id of the rule, severity, JSON path, the config
CASES: list[tuple[str, str, str, dict[str, Any]]] = [
    ("invalid-value", "error", "rope_scaling", {**LLAMA, "rope_scaling": 1.0}),
    ("invalid-value", "error", "rope_theta", {**LLAMA, "rope_theta": "10000"}),
    ("invalid-value", "error", "max_position_embeddings", {**LLAMA, "max_position_embeddings": 0}),
    ("invalid-value", "warning", "model_type", {"model_type": "gemma3", "hidden_size": 8}),
    (
        "length-float",
        "error",
        "max_position_embeddings",
        {**LLAMA, "max_position_embeddings": 32768.0, "rope_scaling": YARN},
    ),
    (
        "length-float",
        "warning",
        "rope_scaling.original_max_position_embeddings",
        {**LLAMA, "rope_scaling": {**YARN, "original_max_position_embeddings": 8192.0}},
    ),
    (
        "unknown-model-type",
        "note",
        "model_type",
        {**LLAMA, "model_type": "nobody-knows", "rope_scaling": {"type": "linear", "factor": 2.0}},
    ),
    (
        "spelling-conflict",
        "error",
        "rope_scaling.beta_fast",
        {**scaled(YARN), "rope_scaling": {**YARN, "beta_fast": 16.0}},
    ),
    (
        "spelling-conflict",
        "error",
        "rope_scaling.rope_type",
        {**LLAMA, "rope_scaling": YARN, "rope_parameters": {"rope_type": "default"}},
    ),
    ("v5-only", "warning", "rope_parameters", {
        **without(LLAMA, "rope_theta"),
        "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0},
    }),
    ("v5-only", "warning", "rope_parameters", {**LLAMA, "rope_parameters": {**YARN}}),
    ("legacy-only", "note", "rope_scaling", {**LLAMA, "rope_scaling": YARN}),
    (
        "theta-conflict",
        "error",
        "rope_parameters.rope_theta",
        {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    ),
    (
        "theta-lost",
        "error",
        "rope_parameters.rope_theta",
        {
            **without(LLAMA, "rope_theta"),
            "rope_scaling": YARN,
            "rope_parameters": {**YARN, "rope_theta": 500000.0},
        },
    ),
    ("copy-differs", "warning", "rope_theta", {**QWEN_VL, "rope_theta": 1000000.0}),
    ("unread-block", "error", "rope_scaling", {**LLAVA, "rope_scaling": YARN}),
    ("unread-block", "error", "rope_parameters", {**LLAVA, "rope_parameters": LLAMA3}),
    ("unread-block", "error", "rope_scaling", {**LLAVA, "rope_scaling": LONG}),
    ("unread-block", "error", "rope_scaling", {  # a copy for older readers
        **LLAMA,
        "model_type": "qwen2_vl",
        "text_config": {**LLAMA, "model_type": "qwen2_vl_text", "rope_scaling": YARN},
        "rope_scaling": YARN,
    }),
    ("unread-block", "error", "thinker_config.rope_scaling", {
        "model_type": "qwen2_5_omni",
        "thinker_config": {
            "text_config": {**LLAMA, "model_type": "qwen2_5_omni_text"}, "rope_scaling": YARN,
        },
    }),
    ("unread-block", "error", "rope_scaling", {"model_type": "gemma3", "rope_scaling": YARN}),
    ("unread-block", "warning", "rope_scaling", {
        **LLAVA, "rope_scaling": {"rope_type": "linear", "factor": 4.0},
    }),
    ("unread-block", "warning", "rope_scaling", {
        **LLAVA, "rope_scaling": YARN, "max_position_embeddings": 32768,
    }),
    ("unread-block", "warning", "llm_config.rope_scaling", {
        **LLAVA, "llm_config": {"rope_scaling": YARN},
    }),
    ("unread-block", "warning", "rope_scaling", {
        "model_type": "internvl_chat",
        "llm_config": {**LLAMA, "model_type": "internlm2"},
        "rope_scaling": YARN,
    }),
    ("unread-block", "warning", "rope_parameters", {
        "model_type": "a-draft-head", "transformer_layer_config": LLAMA, "rope_parameters": YARN,
    }),
    ("unread-block", "warning", "rope_theta", {
        "model_type": "llava",
        "text_config": without(LLAMA, "rope_theta"),
        "rope_theta": 500000.0,
    }),
    ("unread-block", "warning", "max_position_embeddings", {
        "model_type": "llava",
        "text_config": without(LLAMA, "max_position_embeddings"),
        "max_position_embeddings": 32768,
    }),
    ("theta-missing", "warning", "rope_scaling", {
        **without(QWEN3, "rope_theta"), "rope_scaling": YARN, "rope_parameters": YARN,
    }),
    ("theta-missing", "warning", "rope_scaling", {
        **without(QWEN3, "rope_theta"), "rope_scaling": YARN,
    }),
    ("type-old", "error", "rope_scaling.type", {
        **LLAMA,
        "model_type": "phi3",
        "original_max_position_embeddings": 8192,
        "rope_scaling": {
            **without(LONG, "rope_type", "original_max_position_embeddings"), "type": "su",
        },
    }),
    ("type-old", "error", "rope_scaling.type", {
        **LLAMA,
        "original_max_position_embeddings": 8192,
        "rope_scaling": {**without(LONG, "rope_type"), "type": "su"},
    }),
    ("type-old", "warning", "rope_scaling.type", {
        **LLAMA,
        "model_type": "phi3",
        "original_max_position_embeddings": 8192,
        "rope_scaling": {**without(LONG, "rope_type"), "type": "su"},
    }),
    ("engine-stops", "error", "rope_scaling", {
        **LLAMA, "rope_scaling": {**YARN, "rope_theta": None},
    }),
    ("engine-stops", "warning", "rope_scaling", {
        **LLAMA,
        "architectures": ["LlamaForCausalLM"],
        "rope_scaling": {"type": "mrope"},
    }),
    ("type-conflict", "error", "rope_scaling.type", scaled({**YARN, "type": "linear"})),
    (
        "type-missing",
        "error",
        "rope_scaling",
        {**LLAMA, "rope_scaling": {"factor": 4.0}},
    ),
    (
        "nested-truncate",
        "warning",
        "rope_parameters.full_attention.truncate",
        {
            **GEMMA3,
            "rope_scaling": {**YARN, "truncate": False, "factor": 16.0},
            "rope_parameters": {
                "full_attention": {
                    **YARN, "truncate": False, "factor": 16.0, "rope_theta": 1000000.0,
                },
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
    ),
    ("factor-integer", "error", "rope_scaling.factor", {
        **LLAMA, "rope_scaling": {"rope_type": "linear", "type": "linear", "factor": 4},
    }),
    ("factor-integer", "note", "rope_scaling.factor", {
        **LLAMA, "rope_scaling": {**YARN, "factor": 4},
    }),
    ("length-mismatch", "error", "max_position_embeddings",
     scaled(YARN, max_position_embeddings=8192)),
    ("length-mismatch", "error", "max_position_embeddings",
     scaled(YARN, max_position_embeddings=32770)),
    ("original-missing", "error", "rope_scaling", {
        **LLAMA, "rope_scaling": without(YARN, "original_max_position_embeddings"),
    }),
    ("original-missing", "error", "rope_scaling", {
        **LLAMA, "rope_scaling": without(LLAMA3, "original_max_position_embeddings"),
    }),
    ("original-missing", "warning", "rope_scaling", {**LLAMA, "rope_scaling": LONG}),
    ("original-missing", "warning", "rope_scaling", {
        **LLAMA,
        "rope_scaling": without(LONG, "original_max_position_embeddings"),
        "original_max_position_embeddings": 8192,
    }),
    ("original-missing", "warning", "original_max_position_embeddings", {
        **LLAMA,
        "rope_scaling": without(YARN, "original_max_position_embeddings"),
        "original_max_position_embeddings": 8192,
    }),
    ("original-implausible", "warning", "rope_scaling.original_max_position_embeddings", {
        **LLAMA, "rope_scaling": {**LLAMA3, "original_max_position_embeddings": 32768},
    }),
    ("original-implausible", "warning", "rope_scaling.original_max_position_embeddings", {
        **QWEN3,
        "max_position_embeddings": 163840,
        "rope_scaling": {**YARN, "original_max_position_embeddings": 40960},
    }),
    ("max-raised", "error", "max_position_embeddings", {
        **LLAMA,
        "rope_scaling": {
            "rope_type": "linear", "type": "linear", "factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    }),
    ("max-raised", "error", "max_position_embeddings", {
        **LLAMA,
        "rope_scaling": {"rope_type": "dynamic", "type": "dynamic", "factor": 4.0},
        "original_max_position_embeddings": 8192,
    }),
    ("window-raised", "warning", "max_position_embeddings", {
        **QWEN3,
        "hidden_size": 4096,
        "intermediate_size": 12288,
        "num_hidden_layers": 36,
        "max_position_embeddings": 131072,
    }),
    ("unknown-key", "warning", "rope_scaling.beta_fats", {
        **LLAMA, "rope_scaling": {**YARN, "beta_fats": 16.0},
    }),
    ("attn-factor", "warning", "rope_scaling.attn_factor", {
        **LLAMA, "rope_scaling": {**YARN, "attn_factor": 0.8782488562869419},
    }),
    ("attention-factor", "warning", "rope_scaling.attention_factor", {
        **LLAMA, "rope_scaling": {**YARN, "attention_factor": 1.0},
    }),
    ("mscale-mrope", "error", "text_config.rope_scaling.mscale", {
        **QWEN_VL,
        "text_config": {
            **LLAMA,
            "model_type": "qwen2_vl_text",
            "rope_scaling": {
                **YARN, "mrope_section": [16, 24, 24], "mscale": 1.0, "mscale_all_dim": 1.0,
            },
        },
    }),
    ("mscale-mrope", "error", "text_config.rope_scaling.mscale", {
        **QWEN_VL,
        "text_config": {
            **LLAMA,
            "model_type": "qwen2_vl_text",
            "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
        },
    }),
    ("mscale-disagreement", "warning", "rope_scaling.mscale", {
        **LLAMA, "rope_scaling": {**YARN, "mscale": 0.5},
    }),
    ("baked-twice", "error", "rope_scaling", {
        **LLAMA, "rope_scaling": YARN, "yarncli_baked": {"form": "neutral"},
    }),
    ("baked-twice", "error", "rope_scaling", {
        **LLAMA,
        "rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0},
        "yarncli_baked": {"form": "residual"},
    }),
    ("beta-order", "error", "rope_scaling.beta_fast", {
        **LLAMA, "rope_scaling": {**YARN, "beta_fast": 1.0, "beta_slow": 32.0},
    }),
    ("dual-chunk", "error", "dual_chunk_attention_config", {
        **LLAMA,
        "model_type": "qwen2",
        "max_position_embeddings": 1010000,
        "dual_chunk_attention_config": {
            "chunk_size": 262144, "local_size": 8192, "original_max_position_embeddings": 262144,
        },
    }),
    ("no-ramp", "note", "rope_scaling.high_freq_factor", {
        **LLAMA, "rope_scaling": {**LLAMA3, "high_freq_factor": 1.0},
    }),
    ("longrope-lists", "error", "rope_scaling.long_factor", {
        **LLAMA,
        "rope_scaling": {**LONG, "long_factor": [1.0] * 48},
        "original_max_position_embeddings": 8192,
    }),
    ("stale-length", "warning", "seq_length", {**LLAMA, "seq_length": 8192}),
    ("sliding-window", "warning", "rope_scaling", {**MISTRAL, "rope_scaling": YARN}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "severity", "path", "config"),
    CASES,
    ids=[f"{n}-{case[0]}" for n, case in enumerate(CASES)],
)
def test_a_broken_config_gives_this_finding_and_no_other_complaint(
    check: Check, rule: str, severity: str, path: str, config: dict[str, Any]
) -> None:
    report = check(copy.deepcopy(config))
    found = {(f.rule.id, f.severity, f.to_json()["path"]) for f in report.findings}
    assert (rule, severity, path) in found
    others = {f.rule.id for f in report.findings if f.severity != "note"} - {rule}
    assert not others


def test_every_rule_of_a_config_has_a_case() -> None:
    weights = {
        rule
        for rule in RULES
        if rule.startswith(("index-", "layers-", "shard-", "tensor-", "gguf-"))
    }
    elsewhere = {
        "unreadable", "tokenizer-limit", "lfs-pointer", "change-pending", "engine-misreads",
        "adapter", "adapter-mismatch", "conversion-lost",
    }  # fmt: skip
    assert {case[0] for case in CASES} == RULES.keys() - weights - elsewhere - {"ambiguous-weights"}


CLEAN = {
    "plain": LLAMA,
    "yarn in both spellings": scaled(YARN),
    "yarn, a fractional factor": scaled(
        {**YARN, "factor": 100000 / 8192}, max_position_embeddings=100000
    ),
    "llama3": scaled(LLAMA3),
    "linear with the original maximum": scaled(
        {"rope_type": "linear", "type": "linear", "factor": 4.0}
    ),
    "a neutral temperature": scaled(
        {**YARN, "attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    ),
    "a baked model": scaled(
        {**YARN, "attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0},
        yarncli_baked={"form": "neutral"},
    ),
    "a residual bake": scaled(YARN, yarncli_baked={"form": "residual"}),
    "a baked M-RoPE model": {
        **QWEN_VL,
        "text_config": scaled(
            {
                **YARN,
                "mrope_section": [16, 24, 24],
                "attention_factor": 1.0,
                "attn_factor": 1 / (0.1 * math.log(4) + 1),
            },
            QWEN_VL["text_config"],
        ),
    },
    "a default θ that is lost": {
        **without(LLAMA, "rope_theta"),
        "rope_scaling": YARN,
        "rope_parameters": {**YARN, "rope_theta": 10000.0},
    },
    "longrope on a part of the head": {
        **LLAMA,
        "model_type": "phi3",
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75,
        "rope_scaling": {
            "type": "longrope", "short_factor": [1.0] * 48, "long_factor": [2.0] * 48,
        },
    },
    "su is longrope": scaled(
        {**LONG, "rope_type": "longrope", "type": "su"}, original_max_position_embeddings=8192
    ),
    "mrope is default": {
        **QWEN_VL,
        "text_config": {
            **LLAMA,
            "model_type": "qwen2_vl_text",
            "rope_scaling": {
                "rope_type": "default", "type": "mrope", "mrope_section": [16, 24, 24],
            },
        },
    },
    "integers where floats are meant": {
        **scaled(YARN), "rope_theta": 500000, "max_position_embeddings": 32768,
    },
    "one token of rounding": scaled(YARN, max_position_embeddings=32769),
    "nested and flat": {
        **GEMMA3,
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
    },
    "a window without scaling": MISTRAL,
    "a copy that stops nothing": {
        "model_type": "llava",
        "text_config": {**LLAMA, "rope_scaling": {"type": "linear", "factor": 4.0}},
        "rope_scaling": {"type": "linear", "factor": 4.0},
    },
    "a RoPE of the audio part": {
        "model_type": "musicflamingo",
        "text_config": {**LLAMA, "model_type": "qwen2"},
        "rope_parameters": {"rope_type": "default", "rope_theta": 2000.0},
    },
    "a default θ of every reader": {
        **without(LLAMA, "rope_theta"), "rope_scaling": {"type": "linear", "factor": 4.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("config", CLEAN.values(), ids=CLEAN.keys())
def test_a_correct_config_passes_in_silence(check: Check, config: dict[str, Any]) -> None:
    assert [f for f in check(copy.deepcopy(config)).findings if f.rule.id != "legacy-only"] == []


SILENT = [
    {"model_type": "bert", "max_position_embeddings": 512},
    {"model_type": "bert", "rope_scaling": {"type": "linear", "factor": 4}},
    {"model_type": "gptj", "rotary_dim": 64},
    {"model_type": "something-new", "rope_theta": 10000.0},
    {"diffusion": True, "rope_scaling": 3},
    {"model_type": 7, "rope_scaling": {}},
    {},
]


@pytest.mark.parametrize("config", SILENT)
def test_what_is_no_rope_language_model_passes_in_silence(
    check: Check, config: dict[str, Any]
) -> None:
    assert check(config).findings == ()


def test_a_finding_names_file_and_line(write: Callable[..., Path]) -> None:
    config = scaled({**YARN, "type": "linear"})
    directory = write(config)
    lines = (directory / "config.json").read_text().splitlines()
    report = check_all(str(directory / "config.json"))
    places = {(f.to_json()["path"], f.line) for f in report.findings}
    wanted = [n for n, line in enumerate(lines, 1) if '"type": "linear"' in line]
    assert {line for _, line in places} == set(wanted)
    assert {f.file for f in report.findings} == {str(directory / "config.json")}


def test_the_tokenizer_must_reach_the_window(write: Callable[..., Path]) -> None:
    config = scaled({"rope_type": "linear", "type": "linear", "factor": 4.0})
    directory = write(config, tokenizer_config={"model_max_length": 32768})
    (found,) = check_all(str(directory)).findings
    assert found.rule.id == "tokenizer-limit"
    assert "131,072" in found.message  # linear reads factor × maximum
    for enough in (131072, int(1e30), 1e30):
        directory = write(config, tokenizer_config={"model_max_length": enough})
        assert check_all(str(directory)).findings == ()


@pytest.mark.parametrize(
    ("method", "maximum", "bad"),
    [("linear", 131072, True), ("linear", 32768, False), ("yarn", 131072, False)],
)
@pytest.mark.parametrize("fields", [{}, {"head_dim": "x"}], ids=["readable", "unreadable"])
def test_provenance_proves_a_raised_maximum(
    write: Callable[..., Path], fields: dict[str, Any], method: str, maximum: int, bad: bool
) -> None:
    step = Step(
        command="convert", source="x", plan=make_plan(read_rope(LLAMA), Target(method, factor=4.0))
    )
    block = {"rope_type": "linear", "type": "linear", "factor": 4.0}
    directory = write(
        scaled(block, max_position_embeddings=maximum, **fields),
        yarncli=json.loads(History((step,)).to_bytes()),
    )
    found = [f.rule.id for f in check_all(str(directory)).findings]
    assert found == (["max-raised"] if bad else ["invalid-value"] if fields else [])


def test_findings_are_json(check: Check) -> None:
    report = check({**LLAMA, "rope_scaling": {**YARN, "attn_factor": 0.5}})
    (found,) = [f for f in report.findings if f.severity == "warning"]
    data = json.loads(json.dumps(found.to_json()))
    assert data.keys() == {
        "rule", "severity", "file", "line", "path", "message", "breaks", "engines", "fixable",
    }  # fmt: skip
    assert data["path"] == "rope_scaling.attn_factor"
    assert data["line"] > 1


def test_an_engine_that_is_asked_for_must_do_what_is_meant(write: Callable[..., Path]) -> None:
    path = str(write({**LLAMA, "rope_scaling": {**YARN, "attention_factor": 1.0}}) / "config.json")
    for engine, misread in (("transformers-5", False), ("vllm", False), ("sglang", True)):
        report = check_all(path, engines=[engine])
        found = [f for f in report.findings if f.rule.id == "engine-misreads"]
        assert bool(found) is misread
        assert all(f.severity == "error" and engine in f.message for f in found)


def test_what_is_meant_comes_from_the_record(write: Callable[..., Path]) -> None:
    """A baked model means temperature 1: llama.cpp applies its own."""
    neutral = {**YARN, "attention_factor": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0}
    directory = write(scaled(neutral, yarncli_baked={"form": "neutral"}))
    for engine, misread in (("vllm", False), ("llama.cpp", True)):
        report = check_all(str(directory), engines=[engine])
        assert bool(report.count("error")) is misread


def test_rules_name_engines_that_exist() -> None:
    from yarncli.engines.registry import ENGINES

    assert {engine for rule in RULES.values() for engine in rule.engines} <= ENGINES.keys()
