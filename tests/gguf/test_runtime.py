"""What llama.cpp computes from the keys and tensors of any file, as v0.5.0 did when it was run."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from support.gguf_grown import GROWN
from support.gguf_rows import ROWS, YARN, Row, yarn
from support.llamacpp import PACKAGE, RUNTIME, VERSION
from yarncli.errors import UnsupportedArchitectureError
from yarncli.gguf.architectures import find_architecture, load_table
from yarncli.gguf.dead import dead_keys
from yarncli.gguf.facts import FREQS, LONG, SHORT, Gguf, Tensor, Typed, typed
from yarncli.gguf.loading import Failure
from yarncli.gguf.refusals import refuse_no_model
from yarncli.gguf.runtime import run, run_windowed

# Who loads the tensor and gives it to the rotation, by a reading of the source of v0.5.0 by hand.
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


def test_rows_are_many_and_each_has_its_name():
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


def test_a_row_is_run_if_its_model_is_there_to_be_run_again():
    table = load_table()
    run_rows = {name for name in table["architectures"] if find_architecture(name).run}
    assert run_rows == set(json.loads(GROWN.read_text(encoding="utf-8")))
    assert run_rows.isdisjoint(table["unrun"])
    assert run_rows | set(table["unrun"]) == set(table["architectures"])
    assert table["ran"] == f"{RUNTIME} ({PACKAGE} {VERSION})"


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


@pytest.mark.parametrize(
    ("name", "kind"), [("llama", "refuses"), ("qwen2", "aborts"), ("stablelm", None)]
)
def test_a_part_of_the_head(name, kind):
    found = run(sized(name, **{"rope.dimension_count": 16}))
    assert (found.kind if isinstance(found, Failure) else None) == kind


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


def test_granite_moe_does_not_read_the_switch():
    assert not isinstance(run(sized("granitemoe", **scaling(finetuned=False))), Failure)


@pytest.mark.parametrize("name", ["bert", "starcoder"])
def test_graphs_without_rotation(name):
    assert run(sized(name)).kind == "no RoPE"


def test_baichuan_rotates_with_32_blocks_only():
    """`models/baichuan.cpp:77`: its larger model has ALiBi."""
    assert not isinstance(run(sized("baichuan", block_count=32)), Failure)
    assert run(sized("baichuan", block_count=40)).kind == "no RoPE"
    assert not isinstance(run(sized("baichuan")), Failure)


def test_afmoe_needs_a_window():
    """`models/afmoe.cpp:123`: its graph asks for inputs that no other memory has."""
    keys = {"attention.sliding_window": 32}
    assert not isinstance(run(sized("afmoe", block_count=5, **keys)), Failure)
    assert run(sized("afmoe", block_count=5)).kind == "aborts"


def test_graphs_that_take_nothing_from_the_file():
    """`models/cogvlm.cpp:115`; `models/deepseek2.cpp:484`."""
    linear = scaling(type="linear", factor=4.0, attn_factor=1.25)
    for name, keys in (("cogvlm", {"rope.freq_base": 123.0}), ("deepseek2-ocr", {})):
        gguf = sized(name, **linear, **keys)
        assert run(gguf).inv_freq == pytest.approx(yarn(1, 256))
        assert run(gguf).attention_factor == 1
        misleading = {dead.name for dead in dead_keys(gguf) if dead.misleads}
        assert misleading == {f"{name}.{key}" for key in (*linear, *keys)}
        with pytest.raises(UnsupportedArchitectureError, match="whatever the file says"):
            refuse_no_model(gguf)
    other = run(sized("deepseek2-ocr", **{"rope.freq_base": 123.0}))
    assert (other.kind, other.key) == ("aborts", "deepseek2-ocr.rope.freq_base")


def test_windowed_layers_of_laguna_have_no_attention_factor():
    gguf = sized("laguna", **YARN_KEYS, **scaling(attn_factor=1.1))
    assert run(gguf).attention_factor == pytest.approx(1.1 * (1 + 0.1 * math.log(4)))
    assert run_windowed(gguf).attention_factor == 1


def test_windows_that_a_file_does_not_state():
    assert sized("gemma2", block_count=4).windowed_blocks == {0, 2}
    assert sized("llama4", block_count=4).windowed_blocks == {0, 1, 2}
    assert sized("llama4", block_count=4, **{"attention.sliding_window": 0}).window is None
    keys = {"attention.sliding_window": 16}
    assert sized("exaone4", block_count=30, **keys).window is None
    assert len(sized("exaone4", block_count=64).windowed_blocks) == 48


def test_lists_that_a_graph_loads_and_does_not_use():
    """`models/pangu-embed.cpp`."""
    lists = {name: Tensor("F32", (16,), (2.0,) * 16) for name in (LONG, SHORT)}
    gguf = sized("pangu-embedded", tensors=lists, **scaling(type="longrope"))
    assert run(gguf).inv_freq == pytest.approx(yarn(1, 256))


@pytest.mark.parametrize("name", ["qwen2", "gemma3", "smollm3", "cohere2"])
def test_a_graph_without_the_tensor_refuses_it(name):
    tensors = {FREQS: Tensor("F32", (16,), (1.0,) * 16)}
    assert "does not load" in run(sized(name, tensors=tensors)).because


def test_the_version_is_the_one_that_the_tests_run():
    assert load_table()["version"].startswith(RUNTIME)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", load_table()["date"])
    assert (Path(__file__).parents[2] / "scripts/wiring/llama_cpp_runtime.py").is_file()
