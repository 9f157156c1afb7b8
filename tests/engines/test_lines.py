"""Every launch line that is printed, fed to the engine's own parsing.

vLLM and SGLang as recorded by `scripts/wiring/record.py --lines`, transformers live. The results
hold what the engine itself computed when it was started with that line.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scripts.wiring.llama_cpp_runtime import File, computed
from support import engine_oracle as oracle
from support.lines import SOURCE, Line, printed, problems, scaled
from yarncli.engines.gguf import convert_to_gguf
from yarncli.engines.loaders import read_model, version_5
from yarncli.engines.tables import find_row
from yarncli.gguf.architectures import load_table

FOLDER = Path(__file__).parent / "recorded"


def lines_of(engine: str) -> tuple[Line, ...]:
    """The printed lines, of which there are many."""
    found = printed(engine)
    kinds = [line.name.rpartition(", ")[2] for line in found]
    assert min(kinds.count("as it is"), kinds.count("converted")) >= 75
    return found


def as_result(found: Any, line: Line) -> Any:
    """What the oracle computed, in the words of a recording; transformers sets no limit."""
    if "error" in found:
        return found
    scopes = {
        name: {
            "pairs": len(scope["inv_freq"]),
            "inv_freq": dict(enumerate(scope["inv_freq"])),
            "scale": scope["attention_factor"],
        }
        for name, scope in found["scopes"].items()
    }
    return {"scopes": scopes, "softmax": found["softmax"], "served": line.length}


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_the_engine_computes_what_its_line_promises(engine):
    record = json.loads((FOLDER / f"lines-{engine}.json").read_text(encoding="utf-8"))
    recorded = {(name, words): record["results"][i] for name, words, i in record["lines"]}
    wrong = {}
    for line in lines_of(engine):
        words = shlex.split(line.line)
        result = recorded.get((line.name, " ".join(words[words.index(SOURCE) + 1 :])))
        # Record them again if a line changes: its proof is gone.
        found = problems(line, result) if result else ["this line is not recorded"]
        if found:
            wrong[line.name] = found
    assert not wrong


def test_transformers_5_computes_what_its_line_promises():
    wrong = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for line in lines_of("transformers-5"):
            result = oracle.compute_line(line.config, line.line, line.length)
            found = problems(line, as_result(result, line))
            if found:
                wrong[line.name] = found
    assert not wrong


@pytest.mark.full
def test_transformers_4_57_computes_what_its_line_promises():
    python = os.environ.get("YARNCLI_TF4_PYTHON")
    if not python:
        pytest.skip("YARNCLI_TF4_PYTHON names no Python with transformers 4.57; make test-full")
    lines = lines_of("transformers-4.57")
    cases = [{"config": x.config, "line": x.line, "length": x.length} for x in lines]
    run = subprocess.run(
        [python, oracle.__file__], input=json.dumps({"cases": cases}), text=True,
        capture_output=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    results = json.loads(run.stdout)["results"]
    wrong = {}
    for line, result in zip(lines, results, strict=True):
        found = problems(line, as_result(result, line))
        if found:
            wrong[line.name] = found
    assert not wrong


def value_of(words: list[str], option: str) -> str | None:
    return words[words.index(option) + 1] if option in words else None


def run_llama_cpp(line: Line) -> Any:
    """The numbers of a converted file with the flags of a line.

    The library is not here: what it does with keys and flags is its formula, `llama-context.cpp`
    and `ggml-cpu/ops.cpp`. A flag takes the place of its key.
    """
    words = shlex.split(line.line)
    model = read_model(line.config, length=line.length)
    name = next(n for n, used in line.intended.items() if used is scaled(line.intended))
    p = version_5(model)[name]
    gguf = convert_to_gguf(model, find_row("llama.cpp", model))
    keys = {name.removeprefix(f"{gguf.architecture}."): v.value for name, v in gguf.keys.items()}
    for word, following in itertools.pairwise(words):
        if word == "--override-kv":
            key, _, value = following.removeprefix(f"{gguf.architecture}.").partition("=")
            kind, _, number = value.partition(":")
            keys[key] = {"int": int, "float": float}[kind](number)
    betas: dict[str, Any] = {}
    for option, key in (
        ("--rope-scaling", "rope.scaling.type"),
        ("--rope-scale", "rope.scaling.factor"),
        ("--rope-freq-base", "rope.freq_base"),
        ("--yarn-orig-ctx", "rope.scaling.original_context_length"),
        ("--yarn-beta-fast", "rope.scaling.yarn_beta_fast"),
        ("--yarn-beta-slow", "rope.scaling.yarn_beta_slow"),
    ):
        given = value_of(words, option)
        if given is not None:
            keys[key] = given if key.endswith("type") else float(given)
            betas |= {"betas": True} if "beta" in key else {}  # a flag is read in every graph
    tensors = {name: list(tensor.values) for name, tensor in gguf.tensors.items()}
    facts = load_table()["architectures"][gguf.architecture]
    file = File(gguf.architecture, keys, tensors)
    freqs, scale, _ = computed(file, {**facts, **betas}, p.rotary_dim)
    served = min(int(value_of(words, "-c") or 0), int(keys["context_length"]))
    scope = {"pairs": len(freqs), "inv_freq": dict(enumerate(freqs)), "scale": scale}
    softmax = scaled(line.intended).softmax_scale_ratio
    return {"scopes": {name: scope}, "softmax": softmax, "served": served}


def test_llama_cpp_computes_what_its_line_promises():
    wrong = {}
    for line in lines_of("llama.cpp"):
        used = scaled(line.intended)
        name = next(n for n in line.intended if line.intended[n] is used)
        found = problems(replace(line, intended={name: used}), run_llama_cpp(line))
        if found:
            wrong[line.name] = found
    assert not wrong


@pytest.mark.parametrize("engine", ["vllm", "sglang", "llama.cpp"])
def test_a_shell_reads_the_words_that_were_meant(engine):
    lines = [x for x in lines_of(engine) if "yarn," in x.name][:40]
    script = "\n".join(f"printf '%s\\0' {line.line}; printf '\\n'" for line in lines)
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True)
    for line, told in zip(lines, run.stdout.splitlines(), strict=True):
        words = told.split("\0")[:-1]
        assert words == shlex.split(line.line)
        for option in ("--hf-overrides", "--json-model-override-args"):
            given = value_of(words, option)
            assert given is None or isinstance(json.loads(given), dict)


BREAKS = {
    "theta lost": ("'rope_theta': 500000.0", "'nothing': 0"),
    "factor off": ("'factor': 8.0", "'factor': 4.0"),
    "original length off": (
        "'original_max_position_embeddings': 4096",
        "'original_max_position_embeddings': 8192",
    ),
    "temperature off": ("'rope_type': 'yarn'", "'attention_factor': 1.0, 'rope_type': 'yarn'"),
    "wrong nesting": ("config.get_text_config()", "config"),
}


@pytest.mark.parametrize("what", BREAKS)
def test_a_broken_line_is_noticed(what):
    wanted = "llava, yarn, as it is"
    line = next(x for x in lines_of("transformers-5") if x.name == wanted)
    old, new = BREAKS[what]
    broken = line.line.replace(old, new)
    assert broken != line.line
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = oracle.compute_line(line.config, broken, line.length)
    assert problems(line, as_result(result, line))
