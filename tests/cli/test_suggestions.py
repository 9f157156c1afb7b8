"""What a message tells the user to run works: each message is brought about, its commands run."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support import commands
from support.checkpoints import PACKAGE
from support.configs import LLAMA
from support.gguf_files import demo_keys, write_gguf
from support.program import invoke
from yarncli.demo import write_demo
from yarncli.gguf.facts import Typed
from yarncli.rules.catalogue import RULES

RUN = Path(__file__).parents[1] / "fixtures" / "0.1.0" / "passkey.jsonl"
NAMES = "bake|card|check-passkey|check|convert|demo|engines|finish|fit|inspect|plot|push|recipe"
# A command ends where the sentence does, or before what is said in brackets.
COMMAND = re.compile(
    rf"yarncli (?:{NAMES})(?: (?!\(|shows |If )[^ ;`\n]+(?<!\.))*(?: [^ ;`\n]+\.)?"
)

Prepare = Callable[[Path], Path]


def config(values: dict[str, Any]) -> Prepare:
    """A checkpoint that is a config alone."""

    def write(place: Path) -> Path:
        (place / "model").mkdir()
        (place / "model" / "config.json").write_text(json.dumps(values, indent=2))
        return place / "model"

    return write


def demo(*arguments: object, **fields: Any) -> Prepare:
    """The demo model with other values in its config, after a command in place on it."""

    def write(place: Path) -> Path:
        model = write_demo(place / "model")
        path = model / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
        if arguments:
            invoke(arguments[0], model, *arguments[1:], "--in-place", code=0)
        return model

    return write


def gguf_file(place: Path) -> Path:
    """The demo as a GGUF file, without weights but one."""
    write_demo(place / "model")  # what a conversion of a checkpoint would need
    arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
    return write_gguf(place / "m.gguf", demo_keys(), arrays)


def gguf_with(freqs: list[float] | None = None, **keys: Any) -> Prepare:
    """That file with other keys, a tensor of frequency factors, two names, and a copy."""

    def write(place: Path) -> Path:
        write_demo(place / "model")
        found = demo_keys() | {
            f"llama.{name.replace('__', '.')}": value for name, value in keys.items()
        }
        arrays = {"blk.0.attn_k.weight": np.ones((128, 128), np.float32)}
        if freqs:
            arrays["rope_freqs.weight"] = np.array(freqs, np.float32)
        path = write_gguf(place / "m.gguf", found, arrays)
        (place / "other.gguf").hardlink_to(path)
        shutil.copy(path, place / "copy.gguf")
        return path

    return write


def demo_with_gguf(place: Path) -> Path:
    """The demo, and what llama.cpp's converter would make of its conversion `made`."""
    gguf_file(place).rename(place / "made.gguf")
    return place / "model"


def demo_that_holds_gguf(place: Path) -> Path:
    """The demo with its GGUF file, and another that is no model, in its directory."""
    model = demo_with_gguf(place)
    shutil.copy(place / "made.gguf", model / "m.gguf")
    write_gguf(model / "vocabulary.gguf", demo_keys(), {})
    return model


def shallow_with_gguf(place: Path) -> Path:
    """As `demo_with_gguf`, with one layer of the demo: a passkey in 8,448 tokens is soon asked."""
    model = demo_with_gguf(place)
    path = model / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 1}))
    return model


def half(place: Path) -> Path:
    """Two shards without an index."""
    model = write_demo(place / "model")
    shutil.copy(model / "model.safetensors", model / "model-00001-of-00002.safetensors")
    (model / "model.safetensors").unlink()
    return model


def half_baked(place: Path) -> Path:
    """A bake in place that was killed."""
    commands.write_model(place / "model")
    invoke("convert", place / "model", "--in-place", "--factor", 4, code=0)
    commands.half_bake(place)
    return place / "model"


def baked_with_an_adapter(place: Path) -> Path:
    """An unbaked base, a bake of it, and in `adapter` one that was not scaled with that."""
    model = place / "model"
    commands.write_model(model)
    invoke("convert", model, "--in-place", "--factor", 4, code=0)
    invoke("bake", model, place / "baked0", code=0)
    commands.write_adapter(place / "adapter")
    path = place / "adapter" / "adapter_config.json"
    named = {"base_model_name_or_path": str(place / "baked0")}
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    return model


def trained(place: Path) -> Path:
    """What a trainer saved of a conversion, which lies beside it as `conv`."""
    model = demo("convert", "--factor", 8)(place)
    shutil.copytree(model, place / "conv")
    path, gone = model / "config.json", ("rope_scaling", "rope_theta")
    kept = {k: v for k, v in json.loads(path.read_text()).items() if k not in gone}
    path.write_text(json.dumps(kept))
    (model / "yarncli.json").unlink()
    (model / "trainer_state.json").write_text("{}")
    return model


def plain_adapter(place: Path) -> Path:
    """A conversion, and in `adapter` a LoRA that names it and has no record."""
    model = place / "model"
    commands.write_model(model)
    invoke("convert", model, "--in-place", "--factor", 4, code=0)
    commands.write_adapter(place / "adapter")
    path = place / "adapter" / "adapter_config.json"
    named = {"base_model_name_or_path": str(model)}
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    return model


YARN3 = {"rope_type": "yarn", "factor": 3.0}
# The fields of Qwen3-8B as ms-swift #5146 has it: extended, the original window not stated.
SWIFT = {
    **LLAMA,
    "model_type": "qwen3",
    "rope_theta": 1000000.0,
    "max_position_embeddings": 122880,
    "rope_scaling": YARN3,
}
DUAL = {
    **LLAMA,
    "model_type": "qwen2",
    "max_position_embeddings": 1010000,
    "dual_chunk_attention_config": {
        "chunk_size": 262144,
        "original_max_position_embeddings": 262144,
    },
}
HEAD = {**LLAMA, "architectures": ["LlamaForCausalLMEagle3"]}
MISTRAL = {**LLAMA, "model_type": "mistral", "sliding_window": 4096}
RAISED = {
    **LLAMA,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
}
YARN_KEYS = {
    "rope__scaling__type": Typed("str", "yarn"), "rope__scaling__factor": Typed("f32", 4.0),
}  # fmt: skip
FROM = {"FILE": "SOURCE", "CHECKPOINT": "model"}
CONVERT = ("convert", "SOURCE", "OUT", "--config-only")

# Name → what there is, what is typed, its exit code, what the user puts for a word, the commands.
CASES: dict[str, tuple[Prepare, tuple[object, ...], int, dict[str, object], int]] = {
    "largest measured factor": (
        shallow_with_gguf, ("convert", "SOURCE", "MADE", "--factor", 33), 0, {"OUT": "MADE"}, 3,
    ),
    "wider window": (
        config(MISTRAL), (*CONVERT, "--length", "64k"), 3, {}, 1,
    ),
    "dual chunk attention": (config(DUAL), (*CONVERT, "--length", "2M"), 3, {}, 1),
    "a GGUF file converted": (
        gguf_file, ("convert", "SOURCE", "MADE", "--factor", 4), 0, {}, 1,
    ),
    "a GGUF file beside": (
        demo_that_holds_gguf, ("convert", "SOURCE", "MADE", "--factor", 4), 0, {}, 3,
    ),
    "a GGUF file served longer": (
        gguf_file, ("engines", "SOURCE", "--length", "1k"), 2, {"N": 1024, "OUT": "MADE"}, 1,
    ),
    "a GGUF file mended elsewhere": (
        gguf_with(rope__scaling__original_context_length=Typed("u32", 256), **YARN_KEYS),
        ("check", "SOURCE", "--fix"), 3, {"OUT.gguf": "MADE"}, 1,
    ),
    "a GGUF file mended as a copy": (
        gguf_with(context_length=Typed("u64", 256)),
        ("check", "SOURCE", "--fix"), 3, {"COPY": "copy.gguf"}, 1,
    ),
    "extended": (config(SWIFT), (*CONVERT, "--length", "256k"), 3, {}, 2),
    "extended by ntk": (
        demo("convert", "--method", "ntk", "--factor", 4),
        ("convert", "SOURCE", "OUT", "--factor", 8), 3, {}, 1,
    ),
    "raised": (config(RAISED), (*CONVERT, "--length", "256k"), 3, {}, 2),
    "multiplied": (
        config({**RAISED, "rope_scaling": {"rope_type": "dynamic", "factor": 16.0}}),
        (*CONVERT, "--length", "256k"), 3, {}, 1,
    ),
    "no config is right": (
        demo(),
        ("convert", "SOURCE", "OUT", "--factor", 8, "--attention-factor", 1.3,
         "--for", "vllm,llama.cpp"),
        3, {"OUT": "MADE"}, 3,
    ),
    "a trained conversion": (
        trained, ("check", "SOURCE"), 0, {"CONVERTED": "conv"}, 1,
    ),
    "an adapter without a record": (plain_adapter, ("check", "adapter"), 0, {}, 1),
    "trained before it is a conversion": (
        demo(), ("recipe", "SOURCE", "--train-length", 256, "--out", "OUT"), 3,
        {"TOKENS": 1024}, 1,
    ),
    "finished": (
        trained, ("finish", "SOURCE", "OUT", "--from", "conv"), 0, {"OUT": "OUT"}, 1,
    ),
    "bake in place": (
        demo("convert", "--factor", 4),
        ("convert", "SOURCE", "--in-place", "--factor", 2, "--bake"), 2, {}, 1,
    ),
    "an adapter of a baked base": (
        baked_with_an_adapter, ("check", "adapter"), 1, {"ADAPTER_OUT": "adapter-out"}, 1,
    ),
    "half a model": (half, ("convert", "SOURCE", "OUT", "--factor", 4), 3, {}, 1),
    "interrupted": (half_baked, ("convert", "SOURCE", "OUT", "--factor", 8), 3, {}, 1),
    "draft head": (
        config(HEAD), ("engines", "SOURCE", "--length", "128k"), 0, {"TARGET": "SOURCE"}, 1,
    ),
    "served only after a conversion": (
        demo(), ("engines", "SOURCE", "--method", "linear", "--factor", 4, "--engine", "max"), 0,
        {}, 1,
    ),
    "served by what convert writes otherwise": (
        demo(), ("engines", "SOURCE", "--factor", 4, "--engine", "onnxruntime-genai"), 0, {}, 1,
    ),
    "other engines": (
        demo_with_gguf, ("convert", "SOURCE", "MADE", "--factor", 4), 0, {}, 2,
    ),
    "the best setting": (
        demo(),
        ("fit", "SOURCE", "--factor", 4, "--budget", 1, "--prompts", 2, "--texts", 2,
         "--lengths", 200), 0, {}, 1,
    ),
    "next": (demo(), ("inspect", "SOURCE"), 0, {}, 0),
    "a server": (
        demo(),
        ("check-passkey", "--base-url", "http://127.0.0.1:9/v1", "--compare", "yarn"), 2,
        {"ONE.jsonl": RUN, "OTHER.jsonl": RUN}, 1,
    ),
}  # fmt: skip


def said(result: Any) -> str:
    """Everything printed."""
    return str(result.stdout + "\n" + result.stderr)


def suggested(text: str) -> list[list[str]]:
    """The commands in a message, as words."""
    return [match.removesuffix(".").split()[1:] for match in COMMAND.findall(text)]


def run_all(found: list[list[str]], place: Path, words: dict[str, object]) -> None:
    """Run each command with what the user puts in; findings that it mends are exit code 1."""
    for number, command in enumerate(found):
        put = {"OUT": place / f"out{number}", "BAKED": place / "baked", **words}
        filled = [str(put.get(word, word)) for word in command]
        if command[0] == "convert" and "--config-only" not in filled and not (
            place / "model" / "tokenizer.json"
        ).exists() and "OUT" in command:  # fmt: skip
            filled.append("--config-only")
        result = invoke(*filled)
        mends = command[0] == "check"
        assert result.exit_code in ((0, 1) if mends else (0,)), (command, result.output)


@pytest.mark.parametrize("name", CASES)
def test_every_command_of_a_message_works(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, typed, code, words, count = CASES[name]
    monkeypatch.chdir(tmp_path)
    places: dict[str, object] = {"SOURCE": prepare(tmp_path), "MADE": tmp_path / "made"}
    result = invoke(*[places.get(word, word) for word in map(str, typed)], code=code)
    found = suggested(said(result))
    print(found)
    assert len(found) == count, said(result)
    if name == "no config is right":  # its last command goes on from a conversion without --for
        invoke("convert", places["SOURCE"], places["MADE"], *map(str, typed[3:7]), code=0)
        *found, last = found
        run_all([last], tmp_path, {**places, "OUT": places["MADE"]})
        words = {}
    run_all(found, tmp_path, {**places, **{k: places.get(str(v), v) for k, v in words.items()}})


# What rules advise: rule → the config that breaks it, and what the user puts for a word.
MENDS: dict[str, tuple[Prepare, dict[str, object]]] = {
    "v5-only": (demo(), {"N": 1024}),
    "legacy-only": (demo(), {"N": 1024}),
    "window-raised": (config(RAISED), {"N": 262144, "L": 8192}),
    "attn-factor": (demo(rope_scaling={**YARN3, "attn_factor": 1.1}), {"M": 1.1}),
    "attention-factor": (
        demo("convert", "--factor", 4, "--attention-factor", 1.3), {},
    ),
    "dual-chunk": (config({**LLAMA, "model_type": "qwen2"}), {"N": 65536}),
    "sliding-window": (config(MISTRAL), {"N": 65536}),
    "engine-misreads": (demo(), {"N": 1024, "ENGINE": "vllm"}),
    "change-pending": (half_baked, {"DIR": "SOURCE"}),
    "gguf-dead-key": (gguf_with(rope__scaling__yarn_beta_fast=Typed("f32", 16.0)), FROM),
    "gguf-original-missing": (gguf_with(**YARN_KEYS), FROM),
    "gguf-scaled-twice": (gguf_with([2.0] * 16, **YARN_KEYS), FROM),
    "gguf-factors-damaged": (gguf_with([0.0] * 16), FROM),
    "gguf-theta-missing": (gguf_with(), FROM),
    "conversion-lost": (trained, {"DIR": "SOURCE", "CONVERTED": "conv"}),
}  # fmt: skip


@pytest.mark.parametrize("rule", [name for name in RULES if "`yarncli " in RULES[name].mend])
def test_every_command_of_a_rule_works(
    rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, words = MENDS[rule]
    monkeypatch.chdir(tmp_path)
    places = {"SOURCE": prepare(tmp_path)}
    run_all(
        suggested(RULES[rule].mend), tmp_path,
        {**places, **{k: places.get(str(v), v) for k, v in words.items()}},
    )  # fmt: skip


# The places in the source that tell the user to run something, and the cases that cover them. A
# new one needs a case above.
COVERED = {
    "checkpoint/completeness.py": {"half a model"},
    "checkpoint/directory.py": {"interrupted"},
    "checkpoint/recovery.py": {"interrupted"},
    "cli/convert_print.py": {"a GGUF file beside"},
    "cli/engines_print.py": {"other engines"},
    "cli/gguf_print.py": {"a GGUF file converted"},
    "conversion/for_engines.py": {"no config is right"},
    "conversion/options.py": {"bake in place"},
    "engines/drafts.py": {"draft head"},
    "engines/judgement.py": {"a GGUF file served longer"},
    "engines/serving.py": {"served only after a conversion"},
    "evaluation/fit_report.py": {"the best setting"},
    "evaluation/connecting.py": {"a server"},
    "cli/finish_print.py": {"finished"},
    "history/__init__.py": {"extended by ntk"},
    "history/adapters.py": {"an adapter without a record"},
    "planning/commands.py": {"extended", "raised", "multiplied", "wider window"},
    "planning/plan.py": {"dual chunk attention", "largest measured factor"},
    "planning/sliding.py": {"wider window"},
    "rules/adapter_rules.py": {"an adapter of a baked base"},
    "rules/gguf_copy.py": {"a GGUF file mended elsewhere", "a GGUF file mended as a copy"},
    "rules/training_rules.py": {"a trained conversion"},
    "training/recipe.py": {"trained before it is a conversion"},
}
# They are names, or told and tried elsewhere: the card's lines and pushes in tests/publishing.
OTHERS = {
    "cli/demo.py", "evaluation/result_file.py", "publishing/local.py", "publishing/plan.py",
    "publishing/proposal.py", "publishing/push.py", "publishing/reproduction.py",
    "publishing/section.py",
}  # fmt: skip


def test_a_path_with_a_space_is_quoted(tmp_path: Path) -> None:
    place = tmp_path / "a model"
    told = invoke("demo", place, code=0).stderr
    assert f"yarncli inspect '{place}'\n" in told
    told = invoke("convert", place, "--in-place", "--factor", 4, code=0).stderr
    assert f"yarncli engines '{place}' shows" in told
    (tmp_path / "a place").mkdir()
    baked_with_an_adapter(tmp_path / "a place")
    adapter = tmp_path / "a place" / "adapter"
    told = invoke("check", adapter, code=1).stdout
    assert f"yarncli bake SOURCE OUT --adapter '{adapter}' ADAPTER_OUT" in told
    named = {"base_model_name_or_path": str(tmp_path / "a place" / "model")}
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **named}))
    told = invoke("check", adapter, code=0).stdout
    assert f"yarncli finish '{adapter}' --from '{named['base_model_name_or_path']}'" in told


def test_every_message_with_a_command_has_a_case() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = [n for n in ast.walk(tree) if isinstance(n, (ast.Constant, ast.List))]
        documented = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and isinstance(node.body[0], ast.Expr)
        }
        examples = {
            id(part)
            for node in tree.body
            if isinstance(node, ast.Assign) and "EXAMPLES" in ast.unparse(node.targets[0])
            for part in ast.walk(node)
        }
        for node in told:
            text = ast.unparse(node)
            is_command = re.search(rf"yarncli (?:{NAMES})\b|^\['yarncli',", text)
            if is_command and id(node) not in documented | examples:
                found.add(path.relative_to(PACKAGE).as_posix())
    assert found == COVERED.keys() | OTHERS
    assert set.union(*COVERED.values()) <= CASES.keys()
