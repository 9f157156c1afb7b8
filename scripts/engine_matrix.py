"""Write docs/engines.md, the compatibility matrix, from the engines' own rules (`make docs`)."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yarncli.config.families.table import FAMILIES
from yarncli.config.reading import read_rope
from yarncli.engines.judgement import judge
from yarncli.engines.registry import ENGINES
from yarncli.engines.verdict import EngineView
from yarncli.errors import CheckpointError
from yarncli.history import History, Step
from yarncli.jsontext.text import JsonText
from yarncli.planning.plan import make_plan, window_of
from yarncli.planning.rope_plan import RopePlan
from yarncli.planning.target import Target
from yarncli.planning.writing import Spelling, write_rope
from yarncli.rope.methods import METHODS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "engines.md"

_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_attention_heads": 32,
    "num_hidden_layers": 4,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
}
_QWEN3 = {**_LLAMA, "model_type": "qwen3", "head_dim": 128, "rope_theta": 1000000.0}
_QWEN_VL = {
    **_LLAMA,
    "model_type": "qwen2_5_vl",
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
}
_GEMMA3 = {
    "model_type": "gemma3_text",
    "num_hidden_layers": 6,
    "max_position_embeddings": 8192,
    "rope_theta": 1000000.0,
    "rope_local_base_freq": 10000.0,
}
_OLMO3 = {**_LLAMA, "model_type": "olmo3"}
_MLA = {
    **_LLAMA,
    "model_type": "deepseek_v3",
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "rope_theta": 10000.0,
}
_LISTS = {
    "short_factor": tuple(1 + i / 100 for i in range(64)),
    "long_factor": tuple(1 + i / 20 for i in range(64)),
}


@dataclass(frozen=True)
class Case:
    """One row: a model converted from 8,192 to 32,768 tokens."""

    name: str
    method: str
    base: Mapping[str, Any] = field(default_factory=lambda: _LLAMA)
    spelling: Spelling = "both"
    options: Mapping[str, Any] = field(default_factory=dict)
    edited: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()


def cases() -> Iterator[Case]:
    """The rows: every method as it is, then settings of some methods and other architectures."""
    for method in METHODS.values():
        lists = {name: value for name, value in _LISTS.items() if name in method.options}
        yield Case(method.name, method.name, options=lists)
    yield from _VARIANTS


_VARIANTS = (
    Case("yarn, custom temperature", "yarn", options={"attention_factor": 1.05}),
    Case("yarn, custom betas", "yarn", options={"beta_fast": 64.0, "beta_slow": 2.0}),
    Case("yarn, truncate: false", "yarn", options={"truncate": False}),
    Case("llama3 on Qwen 3", "llama3", _QWEN3),
    Case("yarn on Gemma 2", "yarn", {**_LLAMA, "model_type": "gemma2", "head_dim": 128}),
    Case("yarn on Gemma 3 (scopes)", "yarn", _GEMMA3),
    Case("yarn on OLMo 3 (scopes)", "yarn", _OLMO3),
    Case("yarn on Qwen2.5-VL (M-RoPE)", "yarn", _QWEN_VL),
    Case("ntk-by-parts on Qwen2.5-VL (M-RoPE)", "ntk-by-parts", _QWEN_VL),
    Case("yarn on DeepSeek-V3 (MLA)", "yarn", _MLA),
    Case("yarn, rope_scaling only", "yarn", spelling="legacy"),
    Case("yarn, rope_parameters only", "yarn", spelling="v5", without=("rope_theta",)),
    Case(
        "yarn as in many model cards (maximum not raised)",
        "yarn",
        edited={"max_position_embeddings": 8192},
    ),
)

_SYMBOLS = {
    "exact": "✓",
    "differs": "≠",
    "ignores": "–",
    "refuses": "✗",
    "crashes": "✗",
    "unsupported": "✗",
    "unknown": "?",
}

_TYPE_SYMBOLS = {**_SYMBOLS, "unsupported": "·"}

_TYPES_HEAD = """\
## Model types

An engine may know a RoPE type, but not use it in all of its model files. Each model type below was
extended by yarn ×4 as `yarncli convert` writes it; if its class has a scaling of its own, that was
doubled. Types that no method extends are left out.

- ✓ as intended
- ≠ something differs
- – the scaling is ignored: the model reads no further than before
- ✗ the engine refuses the config, or fails
- · the engine has no code for the model type
- ? not known
"""

_HEAD = """\
# What each engine computes from a config

This page is made from the rules in `yarncli/engines/rules/` by `make docs`; a test keeps it
current. For your own checkpoint, `yarncli engines SOURCE` uses the same rules, and shows all
numbers and launch lines.

The transformers rules are compared with the libraries themselves in more than a thousand configs.
The other engines do not run in the tests: their source was read, and their rules are compared with
values recorded from them.

A checkpoint whose model type a transformers release does not have runs the code that it brings,
with `trust_remote_code=True`. The verdict is then on the code that was published for the type:
copies of it were run in the oldest and the newest release of each range. It is "unknown" for other
types, and where a file of code beside the config is not the one that was run.

The verdicts on this page are about RoPE only. If the weights are quantised, or not safetensors,
`yarncli engines` has one more column: whether the engine can load that format (MLX, bitsandbytes,
AWQ, GPTQ, compressed-tensors, FP8, MXFP4, NVFP4, EXL3, GGUF, pickles). This was read in the
engine's own code at a named version; otherwise the column says "format not judged". An engine that
cannot load the weights `refuses`.

The table is for a Llama with a window of 8,192 tokens (unless the row says otherwise) that was
converted to 32,768. A yarn checkpoint whose temperature was baked into the weights is read like
ntk-by-parts:

- ✓ frequencies, temperature and length are as intended
- ✓* they are as intended with the override or flag that `yarncli engines` prints
- ≠ something differs: see below the table
- – the scaling is ignored
- ✗ the engine refuses the config, fails, or has no code for the model
- ? not known
"""


# Tried in turn, for the types whose class defaults are no model that can be extended.
_BASES: tuple[dict[str, Any], ...] = (
    {},
    {"hidden_size": 4096, "num_attention_heads": 32, "head_dim": 128},
    {"sliding_window": None},
)


def by_type() -> Iterator[tuple[str, tuple[EngineView, ...]]]:
    """Each model type that can be extended, with the verdicts on it: yarn, or its own scaling."""
    for kind, family in sorted(FAMILIES.items()):
        if not family.is_wrapper and (found := _extended(kind)):
            config, plan = found
            yield (
                kind,
                judge(config, History((Step(command="convert", source="", plan=plan),))).verdicts,
            )


def _extended(kind: str) -> tuple[dict[str, Any], RopePlan] | None:
    for base, rescale in itertools.product(_BASES, (False, True)):
        text = JsonText.parse(json.dumps({"model_type": kind, **base}), "config.json")
        try:
            rope = read_rope(text.value)
            length = 2 * window_of(rope) if rescale else 4 * rope.original_length
            plan = make_plan(rope, Target(length=length, rescale=rescale))
            return write_rope(text, rope, plan, "both").value, plan
        except CheckpointError:
            continue
    return None


def views(case: Case) -> tuple[EngineView, ...]:
    """The verdicts on one row."""
    text = JsonText.parse(json.dumps(case.base), "config.json")
    rope = read_rope(text.value)
    plan = make_plan(rope, Target(case.method, length=32768, options=case.options))
    config = write_rope(text, rope, plan, case.spelling).value
    config = {k: v for k, v in {**config, **case.edited}.items() if k not in case.without}
    return judge(config, History((Step(command="convert", source="", plan=plan),))).verdicts


def render() -> str:
    """The whole page as Markdown."""
    rows = [(case, views(case)) for case in cases()]
    head = " | ".join(ENGINES)
    lines = [_HEAD, f"| | {head} |", "|---|" + ":-:|" * len(ENGINES)]
    for case, found in rows:
        lines.append(f"| {case.name} | {' | '.join(map(_cell, found))} |")
    lines += ["", "## What differs", ""]
    for case, found in rows:
        lines += _differences(case, found)
    lines += _type_matrix()
    lines += ["## The engines", ""]
    for engine in ENGINES.values():
        how = "run by the tests" if engine.basis == "run" else "predicted from its source"
        lines += [f"### {engine.name} (`{engine.id}`)", "", f"Versions: {engine.versions}; {how}."]
        lines += ["", *(f"- {text}" for text in engine.about), ""]
    return "\n".join([*lines, _TAIL])


def _type_matrix() -> Iterator[str]:
    """Model types × engines."""
    yield from ("", _TYPES_HEAD, f"| | {' | '.join(ENGINES)} |")
    yield "|---|" + ":-:|" * len(ENGINES)
    for kind, found in by_type():
        cells = (_TYPE_SYMBOLS[view.status] for view in found)
        yield f"| `{kind}` | {' | '.join(cells)} |"
    yield ""


def _cell(view: EngineView) -> str:
    fixed = view.launch_is_exact and view.status != "exact"
    return "✓*" if fixed else _SYMBOLS[view.status]


def _differences(case: Case, found: list[EngineView]) -> Iterator[str]:
    wrong = [view for view in found if view.status != "exact"]
    if not wrong:
        return
    yield f"**{case.name}**"
    yield ""
    for view in wrong:
        texts = dict.fromkeys([view.summary(), *view.notes])
        shown = [text for text in texts if not any(text != o and text in o for o in texts)]
        yield f"- {view.engine.id} ({view.status}): {'; '.join(shown).rstrip('.')}."
    yield ""


_TAIL = """\
## JSON

`yarncli engines SOURCE --json` prints one document:

| field | |
|---|---|
| `schema_version` | 1 |
| `intended_from` | `yarncli.json` (the recorded plan), or the reader: `transformers 5` |
| `assume_like` | the type that an unknown one was assumed to be like; else `null` |
| `engines[].engine`, `.versions`, `.basis` | the id, the versions described, `run` or `read` |
| `engines[].status` | `exact`, `differs`, `ignores`, `refuses`, `crashes`, … as above |
| `engines[].weights` | `format`, `status` and `version`; `null` for plain safetensors |
| `engines[].served_length` | tokens; `null` where the engine sets no limit |
| `….scopes[].scope`, `.inv_freq`, `.at_length` | frequencies, radians per token, at that length |
| `….scopes[].attention_factor`, `.attention_factor_ratio` | on cos and sin; over the intended one |
| `….scopes[].softmax_scale_ratio` | what multiplies the softmax scale 1/√d (MLA models) |
| `….scopes[].largest_deviation`, `…_pair`, `…_length` | of the frequencies, and where |
| `engines[].notes` | text for people |
| `engines[].launch`, `.launch_is_exact` | the launch line; whether the engine is right with it |

`at_length` is the length the engine serves; dynamic and longrope depend on it. Deviations are
looked for at short texts as well. For a GGUF file, an entry has `engine`, `name`, `basis`,
`status`, `served_length` and `what`, and beside `engines` there are `launch` and `modelfile`.
"""


def main() -> None:
    """Write the page; with `--check` only say whether it is current."""
    if "--check" in sys.argv:
        sys.exit(PAGE.read_text(encoding="utf-8") != render())
    PAGE.write_text(render(), encoding="utf-8")


if __name__ == "__main__":
    main()
