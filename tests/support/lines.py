"""Launch lines as `yarncli engines` prints them: the cases, and what each line should reach."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from support import engine_cases as cases
from yarncli.config.reading import read_rope
from yarncli.engines.intended import find_intended
from yarncli.engines.judgement import judge
from yarncli.engines.loaders import read_model
from yarncli.engines.registry import ENGINES
from yarncli.engines.serving import serve
from yarncli.engines.types import Used
from yarncli.errors import YarncliError
from yarncli.history import NO_HISTORY, History, Step
from yarncli.jsontext.text import JsonText
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.planning.writing import write_config

SOURCE = "models/my model"  # a name that a shell would split
LENGTH = cases.EXTENDED

Config = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """One printed line."""

    name: str
    """The case."""
    config: Config
    """The config of the checkpoint that it starts."""
    line: str
    """As printed."""
    intended: dict[str, Used]
    """What each scope is to compute."""
    length: int
    """The window to be served, tokens."""


def _text(kind: str, spelling: str = "legacy") -> Config:
    build = cases.flat if kind in cases.FLAT else cases.nested
    config = build(kind, "default", spelling)
    named = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[kind]
    return {"architectures": [named], **{k: v for k, v in config.items() if k != "rope_scaling"}}


def _wrapped(kind: str, text: Config, cls: str) -> Config:
    text = {k: v for k, v in text.items() if k != "architectures"}
    return {"model_type": kind, "architectures": [cls], "text_config": text}


def _bare(extra: str) -> Config:
    """The sizes of a family, without its name."""
    config = cases.flat(extra, "default", "legacy")
    return {k: v for k, v in config.items() if k not in ("model_type", "rope_scaling")}


_MROPE = {"mrope_section": [16, 24, 24]}
_QWEN_VL = {**_bare("qwen2_vl_text"), "rope_scaling": {"type": "mrope", **_MROPE}}
_QWEN3_VL = {**_bare("qwen3"), "model_type": "qwen3_vl_text",
             "rope_scaling": {"rope_type": "default", "mrope_interleaved": True,
                              "mrope_section": [24, 20, 20]}}  # fmt: skip


@cache
def bases() -> dict[str, Config]:
    """Name → an unconverted config with a window of 4,096 tokens."""
    kinds = [kind for kind in (*cases.FLAT, *cases.NESTED) if kind != "qwen2_vl_text"]
    found = {kind: _text(kind) for kind in kinds}
    llama = _text("llama")
    found |= {
        "llava": _wrapped("llava", llama, "LlavaForConditionalGeneration"),
        "mistral3": _wrapped("mistral3", _text("mistral"), "Mistral3ForConditionalGeneration"),
        "gemma3": _wrapped("gemma3", _text("gemma3_text"), "Gemma3ForConditionalGeneration"),
        "qwen3_vl": _wrapped("qwen3_vl", _QWEN3_VL, "Qwen3VLForConditionalGeneration"),
        "internvl": _wrapped("internvl", _text("qwen2"), "InternVLForConditionalGeneration"),
        "qwen2_5_vl": _wrapped(
            "qwen2_5_vl",
            {**_QWEN_VL, "model_type": "qwen2_5_vl_text"},
            "Qwen2_5_VLForConditionalGeneration",
        ),
        # As published: the fields of the text part at top level.
        "qwen2_5_vl flat": {**_QWEN_VL, "model_type": "qwen2_5_vl",
                            "architectures": ["Qwen2_5_VLForConditionalGeneration"]},
        "qwen2_vl flat": {**_QWEN_VL, "model_type": "qwen2_vl",
                          "architectures": ["Qwen2VLForConditionalGeneration"]},
        "llama v5": _text("llama", "v5"),
        "glm4 v5": _text("glm4", "v5"),
        "gemma3_text v5": _text("gemma3_text", "v5"),
        "llama without theta": {k: v for k, v in llama.items() if k != "rope_theta"},
        "llama with lengths": {**llama, "max_sequence_length": 4096, "model_max_length": 4096},
        "qwen2 as mscaled": {**_text("qwen2"), "rope_scaling": {
            **cases.YARN, "factor": 2.0, "mscale": 0.7, "mscale_all_dim": 0.3},
            "max_position_embeddings": 8192},
        "gpt_oss as published": {**_text("gpt_oss"), "max_position_embeddings": 32768,
                                 "rope_scaling": {**cases.YARN, "beta_fast": 32.0,
                                                  "beta_slow": 1.0, "truncate": False}},
        "llama as llama3": {**llama, "rope_scaling": {**cases.LLAMA3, "factor": 2.0},
                            "max_position_embeddings": 8192},
    }  # fmt: skip
    return found


METHODS: dict[str, dict[str, Any]] = {
    "yarn": {"method": "yarn"},
    "yarn temperature": {"method": "yarn", "options": {"attention_factor": 1.05}},
    "yarn betas": {"method": "yarn", "options": {"beta_fast": 64.0, "beta_slow": 2.0}},
    "ntk": {"method": "ntk"},
    "ntk-by-parts": {"method": "ntk-by-parts"},
    "linear": {"method": "linear"},
    "llama3": {"method": "llama3"},
}


# Families that get every method; others get those of `_SOME`.
_ALL_METHODS = "llama qwen3 gpt_oss deepseek_v3 gemma3_text olmo3 llava qwen2_5_vl".split()
_SOME = ("yarn", "ntk", "linear")


@cache
def printed(engine_id: str) -> tuple[Line, ...]:
    """Every launch line with which one engine is right."""
    return tuple(_printed(engine_id))


def _printed(engine_id: str) -> Iterator[Line]:
    for name, base in bases().items():
        every = " as " in name or name in _ALL_METHODS
        for method in METHODS if every else _SOME:
            asked = METHODS[method]
            target = Target(**asked, length=LENGTH)
            original = None
            if " as " in name:
                target = Target(**asked, length=LENGTH, replace_scaling=True)
                original = cases.ORIGINAL
            try:
                yield from _unconverted(f"{name}, {method}", base, target, original, engine_id)
                yield from _converted(f"{name}, {method}", base, target, original, engine_id)
            except YarncliError:  # not for this architecture
                continue


def _unconverted(
    name: str, base: Config, target: Target, original: int | None, engine_id: str
) -> Iterator[Line]:
    text = JsonText.parse(json.dumps(base), "config.json")
    engines = [ENGINES[engine_id]]
    _, (found,) = serve(
        text, NO_HISTORY, target, engines=engines, source=SOURCE, original_length=original
    )
    plan = make_plan(read_rope(base, original_length=original), target)
    history = History((Step(command="convert", source="", plan=plan),))
    intended = find_intended(read_model(base, length=plan.length), history)
    if found.launch and found.launch_is_exact:
        yield Line(f"{name}, as it is", base, found.launch, intended, plan.length)


def _converted(
    name: str, base: Config, target: Target, original: int | None, engine_id: str
) -> Iterator[Line]:
    text = JsonText.parse(json.dumps(base), "config.json")
    rope = read_rope(base, original_length=original)
    plan = make_plan(rope, target)
    config = write_config(text, rope, plan).value
    history = History((Step(command="convert", source="", plan=plan),))
    (found,) = judge(config, history, engines=[engine_id], source=SOURCE).verdicts
    if found.launch and found.launch_is_exact:
        intended = find_intended(read_model(config, length=plan.length), history)
        yield Line(f"{name}, converted", config, found.launch, intended, plan.length)


def problems(line: Line, result: Any) -> list[str]:
    """The difference between what an engine computed for a line and what the line should reach.

    Args:
        line: the line.
        result: of the engine, as `scripts/wiring/record.py` explains it.
    """
    if "error" in result:
        return [f"it failed: {result['error']}"]
    found = []
    if result["served"] != line.length:
        found.append(f"it serves {result['served']}, not {line.length}")
    softmax = next(iter(line.intended.values())).softmax_scale_ratio
    if not math.isclose(result["softmax"], softmax, rel_tol=1e-6):
        found.append(f"softmax scale {result['softmax']}, not {softmax}")
    theirs = result["scopes"]
    scopes = line.intended if set(theirs) == set(line.intended) else None
    if scopes is None:
        # Where the recorder cannot tell the scopes of layers apart, there is one for all.
        scopes = {next(iter(theirs)): scaled(line.intended)}
    for name, used in scopes.items():
        found += _differences(name, used, theirs[name], line.length)
    return found


def scaled(intended: dict[str, Used]) -> Used:
    """The scope that was extended: the first whose setting is not plain, or the first."""
    used = list(intended.values())
    return next((u for u in used if u.parameters.rope_type != "default"), used[0])


def _differences(name: str, used: Used, theirs: Any, length: int) -> list[str]:
    found = []
    ours = used.parameters.inv_freq(length)
    if len(ours) != theirs["pairs"]:
        return [f"{name}: {theirs['pairs']} pairs, not {len(ours)}"]
    wrong = [
        index
        for index, value in theirs["inv_freq"].items()
        if not math.isclose(ours[int(index)], value, rel_tol=2e-5)
    ]
    if wrong:
        found.append(f"{name}: frequencies {wrong}")
    if not math.isclose(theirs["scale"], used.attention_factor, rel_tol=1e-5):
        found.append(f"{name}: scale {theirs['scale']}, not {used.attention_factor}")
    return found
