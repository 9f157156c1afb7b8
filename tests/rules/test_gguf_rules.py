"""Each rule on GGUF files, by a file that breaks it and no other."""

from __future__ import annotations

import math
import re

import pytest

from support.gguf_files import demo_keys
from support.gguf_rows import LONGS, ROWS, SHORTS, R
from support.gguf_settings import LENGTH, SETTINGS, yarn8
from yarncli.gguf.facts import FREQS, LONG, SHORT, Gguf, Tensor, Typed, typed
from yarncli.gguf.intended import Intended
from yarncli.gguf.loading import Failure
from yarncli.gguf.plan import plan_setting
from yarncli.gguf.runtime import run
from yarncli.rules.catalogue import RULES
from yarncli.rules.gguf_rules import check_gguf

KEYS_WEIGHT = {"blk.0.attn_k.weight": Tensor("F32", (128, 128))}


def file(architecture="llama", tensors=None, drop=(), **keys) -> Gguf:
    """The demo's sizes; keys with __ for a dot, below `rope.` unless they have one."""
    found = {k.replace("llama.", f"{architecture}."): v for k, v in demo_keys().items()}
    found["general.architecture"] = Typed("str", architecture)
    for name, value in keys.items():
        key = name.replace("__", ".")
        full = key if key.startswith(("qwen2.", "split.")) else f"{architecture}.{key}"
        found[full] = value if isinstance(value, Typed) else typed(key, value)
    for name in drop:
        del found[f"{architecture}.{name}"]
    stored = {
        name: Tensor("F32", (len(values),), tuple(values)) if isinstance(values, tuple) else values
        for name, values in (tensors or {}).items()
    }
    return Gguf(found, {**KEYS_WEIGHT, **stored})


def scaling(**keys):
    return {f"rope__scaling__{key}": value for key, value in keys.items()}


YARN = scaling(type="yarn", factor=8.0, original_context_length=256) | {"context_length": 2048}
CASES = [
    ("gguf-type-unknown", "error", file(**scaling(type="dynamic", factor=4.0)), "aborts"),
    ("gguf-type-unknown", "error", file(**{**YARN, **scaling(type="YARN")}), "aborts"),
    ("gguf-value-type", "error", file(**scaling(factor=Typed("u32", 4))), "u32"),
    ("gguf-value-type", "error", file(context_length=Typed("u64", 256)), "reads only u32"),
    ("gguf-dead-key", "warning", file(**YARN, **scaling(yarn_attn_factor=1.0)),
     "the attention factor is 1.2079"),
    ("gguf-dead-key", "warning", file(**YARN, **scaling(yarn_beta_fast=64.0)),
     "the ramp uses 32"),
    ("gguf-dead-key", "warning", file(**scaling(type="none", factor=4.0)), "type is none"),
    ("gguf-dead-key", "warning", file("cogvlm", **scaling(type="linear", factor=4.0)),
     "rotates by θ 10000 without scaling"),
    ("gguf-original-missing", "warning",
     file(context_length=2048, **scaling(type="yarn", factor=8.0)), "the original is 256"),
    ("gguf-context-not-raised", "warning", file(**{**YARN, "context_length": 256}), "2,048 tokens"),
    ("gguf-type-missing", "warning", file(**scaling(factor=4.0)), "linear"),
    ("gguf-type-missing", "warning", file(rope__scale_linear=4.0), "scale_linear"),
    ("gguf-scaled-twice", "error", file(tensors={FREQS: R}, **YARN), "llama.cpp applies both"),
    ("gguf-scaled-twice", "error",
     file(tensors={FREQS: R}, **scaling(type="linear", factor=2.0)), "linear by 2"),
    ("gguf-tensor-refused", "error", file("qwen2", {FREQS: R}), "does not load"),
    ("gguf-tensor-refused", "error", file(tensors={LONG: LONGS, SHORT: SHORTS}), "type longrope"),
    ("gguf-tensor-refused", "warning", file("falcon-h1", {FREQS: R}), "does not use it"),
    ("gguf-tensor-refused", "warning",
     file("pangu-embedded", {LONG: LONGS, SHORT: SHORTS}, **scaling(type="longrope")),
     "loads rope_factors_long.weight and does not use it"),
    ("gguf-factors-damaged", "error", file(tensors={FREQS: Tensor("F16", (16,))}), "aborts"),
    ("gguf-factors-damaged", "error", file(tensors={FREQS: R[:8]}), "8 numbers, not 16"),
    ("gguf-factors-damaged", "error", file(tensors={FREQS: (0.0, *R[1:])}), "must be positive"),
    ("gguf-factors-damaged", "error", file(tensors={FREQS: (*R[1:], math.nan)}), "place 15"),
    ("gguf-factors-damaged", "error", file(tensors={FREQS: (-1.0, *R[1:])}), "-1.0 at place 0"),
    ("gguf-foreign-key", "warning", file(qwen2__rope__freq_base=1e6), "begin with llama"),
    ("gguf-longrope", "warning",
     file(tensors={LONG: LONGS, SHORT: LONGS}, **scaling(
         type="longrope", factor=4.0, original_context_length=256)), "divided by 4 once more"),
    ("gguf-longrope", "note",
     file(tensors={LONG: LONGS, SHORT: SHORTS}, **scaling(
         type="longrope", original_context_length=256)), "above 256"),
    ("gguf-theta-missing", "warning", file("gpt-oss", drop=("rope.freq_base",)), "150000"),
    ("gguf-windowed-temperature", "warning",
     file("gemma3", attention__sliding_window=128, **scaling(attn_factor=1.2)), "a window of 128"),
    ("gguf-not-loaded", "error", file(drop=("context_length",)), "is missing"),
    ("gguf-not-loaded", "error", file(rope__dimension_count=16), "must be 32"),
    ("gguf-not-loaded", "error", file(**scaling(factor=math.inf)), "no usable frequencies"),
    ("gguf-not-loaded", "error", file(rope__freq_base=-5.0), "θ -5"),
    ("gguf-not-loaded", "error", file("qwen3", rope__dimension_count=16), "aborts when it loads"),
    ("gguf-not-loaded", "note", file("mamba"), "does not use RoPE"),
    ("gguf-not-loaded", "note", file("granite", **scaling(finetuned=False)), "switches RoPE off"),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "severity", "gguf", "said"), CASES)
def test_a_broken_file_gives_this_finding_and_no_other(rule, severity, gguf, said):
    found = check_gguf(gguf, where="m.gguf")
    assert {(f.rule.id, f.severity) for f in found} == {(rule, severity)}
    assert said in found[0].message
    assert found[0].message.endswith(".")


def test_every_rule_has_a_case():
    elsewhere = {"gguf-split-count", "gguf-differs"}
    assert {c[0] for c in CASES} | elsewhere == {r for r in RULES if r.startswith("gguf-")}


def test_a_split_model_with_a_wrong_count():
    gguf = file(split__tensors__count=Typed("i32", 29))
    (found,) = check_gguf(gguf, where="m.gguf", tensor_count=30)
    assert found.rule.id == "gguf-split-count"
    assert found.gguf_edit.keys == {"split.tensors.count": Typed("i32", 30)}
    assert check_gguf(gguf, where="m.gguf", tensor_count=29) == []


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_planned_is_clean_and_like_its_checkpoint(name):
    after = plan_setting(file(), SETTINGS[name], length=LENGTH).applied(file())
    against = Intended(name="the checkpoint", setting=SETTINGS[name], length=LENGTH)
    assert check_gguf(after, where="m.gguf", against=against) == []
    if name == "plain":
        return
    # As the converter leaves it: nothing of the setting is there.
    (found,) = check_gguf(file(context_length=LENGTH), where="m.gguf", against=against)
    assert found.rule.id == "gguf-differs"


def test_how_a_file_differs_is_told():
    """The slowest of the 16 pairs are those that yarn divides by 8."""
    against = Intended(name="Org/Model", setting=yarn8(), length=2048)
    (found,) = check_gguf(file(), where="m.gguf", against=against)
    assert re.fullmatch(
        r"llama\.cpp computes something else than Org/Model: the frequency of pair \d+ is 8 times "
        r"the right one; the attention factor is 1, not 1\.2079; the window is 256, not 2,048 "
        r"tokens\.",
        found.message,
    )
    narrow = Intended(name="Org/Model", setting=yarn8(head_dim=64), length=2048)
    (found,) = check_gguf(file(), where="m.gguf", against=narrow)
    assert "it rotates 16 pairs of dimensions, not 32" in found.message


# They are run, and what is computed cannot be meant.
WRONG = {"rope_freqs and linear", "rope_freqs and yarn", "rope_freqs with a zero"}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_file_that_is_not_run_has_an_error(row):
    severities = {f.severity for f in check_gguf(row.gguf(), where="m.gguf")}
    fails = isinstance(run(row.gguf()), Failure)
    assert ("error" in severities) == (fails or row.name in WRONG)


@pytest.mark.parametrize("case", [c for c in CASES if RULES[c[0]].fixable], ids=lambda c: c[0])
def test_what_can_be_mended_is_clean_afterwards(case):
    gguf = case[2]
    (found,) = check_gguf(gguf, where="m.gguf")
    if found.gguf_edit is None:
        assert "dynamic" in found.message
        return
    rest = {f.rule.id for f in check_gguf(found.gguf_edit.applied(gguf), where="m.gguf")}
    assert found.rule.id not in rest
    assert rest <= {"gguf-type-missing"}


@pytest.mark.parametrize("value", [Typed("str", "4"), Typed("bool", True), Typed("f64", 1.5)])
def test_another_number_is_not_put_in_the_place(value):
    (found,) = check_gguf(file(context_length=value), where="m.gguf")
    assert found.gguf_edit is None
