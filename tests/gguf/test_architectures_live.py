"""The table of architectures against llama.cpp.

What rotates is measured in a tiny model of each architecture. Those that take Llama's tensors have
a model large enough for their logits to show a temperature by each carrier.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.gguf_files import Arrays, random_file, read_gguf, with_temperature, write_gguf
from support.gguf_grown import GROWN, model_of
from support.gguf_trials import TOKENS as FEW
from support.gguf_trials import compared, disagreements, trials
from support.llamacpp import Job, Outcome, run
from yarncli.gguf.architectures import find_architecture
from yarncli.gguf.carriers import plan_temperature, why_not
from yarncli.gguf.facts import FREQS, LONG, Gguf, Tensor, Typed
from yarncli.gguf.loading import Failure
from yarncli.gguf.plan import plan_setting
from yarncli.gguf.runtime import run as foretell
from yarncli.rope.parameters import RopeParameters

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("runtime")]

TOKENS = [(11 * i) % 500 + 3 for i in range(120)]
PLACES = (60, -1)
SAME, OTHER = 2e-3, 2e-2
# Those that take Llama's tensors, with a norm of the keys or biases where they want these.
NORMED = ("exaone4", "hunyuan-dense", "hunyuan_vl", "maincoder", "qwen3")
TIED = ("gemma",)  # their words are their output, too
MODELS = (
    "arcee", "deci", "dream", "ernie4_5", "exaone", *TIED, "granite", "granitemoe", "internlm2",
    "llada", "llama", "minicpm", "mistral3", "nanbeige", "phi3", "qwen2", "seed_oss", "smollm3",
    "xverse", *NORMED,
)  # fmt: skip


GREW = json.loads(GROWN.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Name → trial → the changed model, and what became of it.

    All keys of yarn are in one trial. `scripts/wiring/llama_cpp_runs.py` makes the others too.
    """
    folder, models = tmp_path_factory.mktemp("grown"), {}
    for name, grown in GREW.items():
        changed, row = trials(name, model_of(name, grown)), find_architecture(name)
        wanted = {"yarn": True, "tensor": row.rope_freqs, "plain": row.softmax}
        models |= {(name, each): changed[each] for each in changed if wanted.get(each)}
    jobs = [
        Job(str(write_gguf(folder / f"{n}.gguf", *each)), FEW, watch=True)
        for n, each in enumerate(models.values())
    ]
    found = {name: {} for name in GREW}
    for (name, trial), outcome in zip(models, run(jobs), strict=True):
        found[name][trial] = models[name, trial], outcome
    return found


@pytest.mark.xdist_group("grown")
@pytest.mark.parametrize("name", GREW)
def test_what_rotates_is_foretold(name, measured):
    found = measured[name]
    for changed, outcome in found.values():
        assert outcome.ran, outcome.said
        assert [*disagreements(changed, outcome)] == []
    if "plain" in found:
        assert [*compared("yarn", *found["yarn"], found["plain"][1])] == []


def model(name: str) -> tuple[dict[str, Typed], Arrays]:
    """A small model of an architecture."""
    keys, arrays = random_file(name, biases=name == "qwen2", k_norm=name in NORMED)
    keys[f"{name}.logit_scale"] = Typed("f32", 1.0)
    if name in TIED:
        del arrays["output.weight"]
        keys |= {f"{name}.attention.{x}_length": Typed("u32", 64) for x in ("key", "value")}
    for n in range(3):
        block = f"blk.{n}."
        if name == "arcee":
            del arrays[f"{block}ffn_gate.weight"]
        if name == "phi3":
            parts = [arrays.pop(f"{block}attn_{part}.weight") for part in "qkv"]
            arrays[f"{block}attn_qkv.weight"] = np.concatenate(parts)
            up = [arrays.pop(f"{block}ffn_{part}.weight") for part in ("gate", "up")]
            arrays[f"{block}ffn_up.weight"] = np.concatenate(up)
        if name in ("exaone4", "seed_oss"):
            arrays[f"{block}post_attention_norm.weight"] = arrays.pop(f"{block}ffn_norm.weight")
        if name == "exaone4":
            del arrays[f"{block}attn_norm.weight"]
            arrays[f"{block}post_ffw_norm.weight"] = np.ones(256, np.float32)
    return keys, arrays


def outcomes(folder: Path, name: str) -> dict[str, Outcome]:
    """The model plain, divided by 4 in two ways, and at 1.25 by each carrier that is exact."""
    keys, arrays = model(name)
    plain = write_gguf(folder / "plain.gguf", keys, arrays)
    scaling = {f"{name}.rope.scaling.type": Typed("str", "linear"),
               f"{name}.rope.scaling.factor": Typed("f32", 4.0)}  # fmt: skip
    files = {
        "plain": plain,
        "linear": write_gguf(folder / "linear.gguf", {**keys, **scaling}, arrays),
        "tensor": write_gguf(
            folder / "tensor.gguf", keys, {**arrays, FREQS: np.full(32, 4, np.float32)}
        ),
    }
    said = read_gguf(plain)
    layers = [0, 1, 2] if name == "smollm3" else None  # its fourth would not rotate
    factor = {f"{name}.rope.scaling.attn_factor": Typed("f32", 1.25)}
    files["key"] = write_gguf(folder / "key.gguf", {**keys, **factor}, arrays)
    for carrier in ("scale", "norm", "weights"):
        if not why_not(said, carrier, layers):
            plan = plan_temperature(said, 1.25, carrier, layers=layers)
            made, _ = with_temperature(arrays, plan, {})
            files[carrier] = write_gguf(folder / f"{carrier}.gguf", {**keys, **plan.keys}, made)
    jobs = [Job(str(path), TOKENS, PLACES) for path in files.values()]
    return dict(zip(files, run(jobs), strict=True))


def distance(a: Outcome, b: Outcome) -> float:
    assert a.logits is not None, a.said
    assert b.logits is not None, b.said
    return float(np.abs(np.subtract(a.logits, b.logits)).max())


@pytest.mark.parametrize("name", MODELS)
def test_an_architecture(tmp_path, name):
    found, row = outcomes(tmp_path, name), find_architecture(name)
    assert distance(found["plain"], found["linear"]) > OTHER
    if row.rope_freqs == "used":
        assert distance(found["tensor"], found["linear"]) < SAME
    elif row.rope_freqs == "loaded":
        assert distance(found["tensor"], found["plain"]) < SAME
    else:
        assert found["tensor"].logits is None
        assert not found["tensor"].aborted
        keys, _ = model(name)
        gguf = Gguf(keys, {FREQS: Tensor("F32", (32,), (4.0,) * 32)})
        assert isinstance(foretell(gguf), Failure)
    if row.late_norm:
        assert distance(found["plain"], found["key"]) < SAME
        return
    carriers = [c for c in ("scale", "norm", "weights") if c in found]
    assert carriers
    assert distance(found["plain"], found["key"]) > OTHER
    for carrier in carriers:
        assert distance(found["key"], found[carrier]) < SAME, carrier


def planned(folder: Path, name: str, n: int, setting: RopeParameters, **changes: bool) -> Job:
    """A job on the model with a setting planned into it."""
    keys, arrays = model(name)
    gguf = read_gguf(write_gguf(folder / f"{n}.before.gguf", keys, arrays))
    row = replace(find_architecture(name), **changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("yarncli.gguf.facts.find_architecture", lambda _: row)
        patch.setattr("yarncli.gguf.refusals.find_architecture", lambda _: row)
        plan = plan_setting(gguf, setting, length=1024)
        keys = plan.applied(gguf).keys
    added = {n: np.array(values, np.float32) for n, values in plan.tensors.items()}
    path = write_gguf(folder / f"{n}.gguf", keys, {**arrays, **added})
    return Job(str(path), TOKENS, PLACES, 1024)


YARN = RopeParameters(
    rope_type="yarn", rope_theta=1e4, head_dim=64, factor=4.0,
    original_max_position_embeddings=256, max_position_embeddings=1024,
)  # fmt: skip


def test_lists_of_phi_3_give_what_keys_do(tmp_path):
    """Its graph takes yarn by keys, too; a beta that is another number asks for the lists."""
    by_keys = planned(tmp_path, "phi3", 0, YARN)
    lists = planned(tmp_path, "phi3", 1, replace(YARN, beta_fast=32.0000001))
    assert LONG in read_gguf(Path(lists.path)).tensors
    first, second = run([by_keys, lists])
    assert distance(first, second) < SAME


def test_betas_of_mistral_3_are_read_as_keys(tmp_path):
    betas = replace(YARN, beta_fast=8.0, beta_slow=2.0)
    keys = planned(tmp_path, "mistral3", 0, betas)
    tensor = planned(tmp_path, "mistral3", 1, betas, betas=False)
    other = planned(tmp_path, "mistral3", 2, YARN)
    first, second, third = run([keys, tensor, other])
    assert distance(first, second) < SAME
    assert distance(first, third) > OTHER
