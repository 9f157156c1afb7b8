"""What llama.cpp computes from the keys and tensors of any file, as v0.5.0 did when it was run."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

from support.gguf_rows import ROWS, YARN, Row, yarn
from yarncli.gguf.architectures import find_architecture, load_table
from yarncli.gguf.facts import FREQS, Gguf, Tensor, Typed, typed
from yarncli.gguf.loading import Failure
from yarncli.gguf.runtime import run, run_windowed

# Reference, section 2 of the facts about GGUF: who loads the tensor and gives it to the rotation.
USE = """apertus arcee deci dflash eagle3 exaone exaone4 exaone-moe gemma4 gemma4-assistant granite
granite_swa granitehybrid granitemoe llama llama-embed llama4 minicpm mistral3 nanbeige step35"""
IGNORE = "falcon-h1 llada cogvlm refact pangu-embedded"
LISTS_ONLY = "phi3 phimoe minicpm3"


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_set_of_keys_has_its_answer(row):
    found = run(row.gguf(), context=row.context)
    if row.expected in ("refuses", "aborts"):
        assert isinstance(found, Failure)
        assert found.kind == row.expected
        assert found.because
        return
    assert not isinstance(found, Failure)
    assert found.served_length == row.keys.get("context_length", 256)
    if row.expected == "NaN":
        assert any(map(math.isnan, found.inv_freq))
        assert found.rotation is None
        return
    freqs, scale = row.expected
    assert found.inv_freq == pytest.approx(freqs, rel=1e-9)
    assert found.attention_factor == pytest.approx(scale, rel=1e-9)
    assert found.rotation.inv_freq() == pytest.approx(freqs, rel=1e-9)
    assert found.rotation.inv_freq(4096) == pytest.approx(freqs, rel=1e-9)


def test_a_row_is_there_for_every_line_of_the_facts():
    assert len(ROWS) >= 35
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope.freq_base", 0.0),
        ("rope.freq_base", -5.0),
        ("rope.freq_base", 1.0),
        ("rope.freq_base", math.nan),
        ("rope.scaling.factor", -4.0),
        ("rope.scaling.factor", math.inf),
        ("rope.scaling.factor", math.nan),
        ("rope.scaling.attn_factor", math.nan),
        ("context_length", 0),
    ],
)
@pytest.mark.parametrize("kind", ["yarn", "linear", "longrope", "none"])
def test_no_number_makes_it_fail(key, value, kind):
    keys = {**YARN, "rope.scaling.original_context_length": 0, "rope.scaling.type": kind}
    found = run(Row("", "", {**keys, key: value}).gguf())
    assert not isinstance(found, Failure)
    assert len(found.inv_freq) == 16


@pytest.mark.parametrize("name", USE.split())
def test_architectures_that_use_the_tensor(name):
    assert find_architecture(name).rope_freqs == "used"


@pytest.mark.parametrize("name", IGNORE.split())
def test_architectures_that_ignore_the_tensor(name):
    assert find_architecture(name).rope_freqs == "loaded"


def test_no_other_architecture_loads_it():
    rows = load_table()["architectures"]
    assert {n for n in rows if find_architecture(n).rope_freqs} == {*USE.split(), *IGNORE.split()}
    assert {n for n in rows if find_architecture(n).factors and not find_architecture(n).rope_freqs
            } == {*LISTS_ONLY.split()}  # fmt: skip


def test_the_table_says_how_gguf_names_all_that_it_has_in_common():
    import gguf

    theirs = set(gguf.MODEL_ARCH_NAMES.values())
    ours = set(load_table()["architectures"])
    # Names of gguf-py without a graph: models of images and of sound, drafts, and older names.
    assert len(theirs & ours) > 100


@pytest.mark.parametrize("name", ["gemma3", "cohere2", "gpt-oss", "llama4", "granite_swa"])
def test_windowed_architectures(name):
    assert find_architecture(name).windowed


def test_facts_of_graphs():
    assert find_architecture("llama").rotates == "norm"
    assert find_architecture("qwen3").rotates == "neox"
    assert find_architecture("mamba").rotates == "none"
    assert find_architecture("deepseek2").mla
    assert find_architecture("qwen2vl").sections
    assert find_architecture("exaone4").full_nope
    assert not find_architecture("gemma3").full_nope
    assert find_architecture("mistral3").betas
    assert find_architecture("qwen2").k_scale


def sized(architecture: str, *, tensors=None, **keys) -> Gguf:
    base = {"context_length": 1024, "embedding_length": 128, "rope.freq_base": 1e4}
    base |= {"rope.dimension_count": 32}
    found = {f"{architecture}.{k}": typed(k, v) for k, v in {**base, **keys}.items()}
    found["general.architecture"] = Typed("str", architecture)
    found[f"{architecture}.attention.head_count"] = Typed("u32", 4)
    return Gguf(found, tensors or {})


def scaling(**keys):
    return {f"rope.scaling.{key}": value for key, value in keys.items()}


YARN_KEYS = scaling(type="yarn", factor=4.0, original_context_length=256)


def test_betas_are_read_where_the_graph_reads_them():
    betas = scaling(yarn_beta_fast=16.0, yarn_beta_slow=2.0)
    found = run(sized("mistral3", **YARN_KEYS, **betas))
    assert found.inv_freq == pytest.approx(yarn(4, 256, betas=(16, 2)))
    assert found.rotation.beta_fast == 16


def test_grok_reads_the_share_of_the_ramp():
    """`models/grok.cpp:24-27`; without a share, its factor on attention counts."""
    linear = run(sized("grok", **YARN_KEYS, **scaling(yarn_ext_factor=0.0, yarn_attn_factor=1.2)))
    assert linear.inv_freq == pytest.approx([f / 4 for f in yarn(1, 256)])
    assert linear.attention_factor == pytest.approx(1.2)
    half = run(sized("grok", **YARN_KEYS, **scaling(yarn_ext_factor=0.5)))
    pairs = zip(yarn(4, 256), yarn(1, 256), strict=True)
    assert half.inv_freq == pytest.approx([(y + p / 4) / 2 for y, p in pairs])


def test_windowed_layers_of_gemma_3_have_their_own_base():
    keys = scaling(type="linear", factor=8.0)
    gguf = sized("gemma3", **keys, **{"rope.freq_base": 1e6})
    assert run(gguf).inv_freq[1] == pytest.approx(1e6 ** (-2 / 32) / 8)
    assert run_windowed(gguf).inv_freq[1] == pytest.approx(1e4 ** (-2 / 32))


def test_a_key_of_the_attention_factor_multiplies_the_softmax_scale_of_mla():
    """`models/deepseek2.cpp:439`: the scale of the context, the key in it, is squared there."""
    base = run(sized("deepseek2", **YARN_KEYS))
    twice = run(sized("deepseek2", **YARN_KEYS, **scaling(attn_factor=2.0)))
    assert twice.softmax_scale_ratio == pytest.approx(4 * base.softmax_scale_ratio)


def test_hunyuan_raises_theta_by_alpha():
    found = run(sized("hunyuan_vl", **scaling(alpha=1000.0)))
    assert found.inv_freq[1] == pytest.approx((1e4 * 1000 ** (32 / 30)) ** (-2 / 32))


def test_gemma_4_keeps_its_still_pairs():
    factors = (1.0,) * 4 + (1e30,) * 12
    tensors = {FREQS: Tensor("F32", (16,), factors)}
    found = run(sized("gemma4", tensors=tensors, **{"attention.key_length": 32}))
    assert found.rotation.rope_type == "proportional"
    assert found.rotation.partial_rotary_factor == 0.25


def test_an_ignored_tensor_changes_nothing():
    tensors = {FREQS: Tensor("F16", (16,))}
    found = run(sized("falcon-h1", tensors=tensors))
    assert found.inv_freq == pytest.approx(yarn(1, 256))


def test_granite_has_a_switch():
    """`models/granite.cpp:33-37`: true where it is missing."""
    assert not isinstance(run(sized("granite")), Failure)
    assert run(sized("granite", **scaling(finetuned=False))).kind == "no RoPE"
    assert not isinstance(run(sized("llama", **scaling(finetuned=False))), Failure)


@pytest.mark.parametrize("name", ["qwen2", "gemma3", "smollm3", "cohere2"])
def test_a_graph_without_the_tensor_refuses_it(name):
    tensors = {FREQS: Tensor("F32", (16,), (1.0,) * 16)}
    assert "does not load" in run(sized(name, tensors=tensors)).because


def test_the_version_is_the_one_that_the_tests_run():
    from support.llamacpp import RUNTIME

    assert load_table()["version"].startswith(RUNTIME)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", load_table()["date"])
    assert (Path(__file__).parents[2] / "scripts/wiring/llama_cpp_runtime.py").is_file()
