"""llama.cpp computes the same by each carrier of the temperature, on floats and on blocks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from support.gguf_files import random_file, read_gguf, with_temperature, write_gguf
from support.llamacpp import Job, Outcome, run
from yarncli.gguf.carriers import plan_temperature

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("runtime")]

M = 1.25
TOKENS = [(11 * i) % 500 + 3 for i in range(200)]
PLACES = (40, 120, -1)
MODELS = {
    "llama": {},
    "qwen2": {"biases": True},
    "qwen3": {"k_norm": True},
    "llama Q8_0": {"kind": "Q8_0"},
    "llama Q4_1": {"kind": "Q4_1"},
    "llama Q5_0": {"kind": "Q5_0"},
    "qwen2 Q8_0": {"biases": True, "kind": "Q8_0"},
}


def answers(folder: Path, name: str, carriers: tuple[str, ...]) -> dict[str, Outcome]:
    """What the model gives by each carrier, and unchanged as "no"."""
    options = dict(MODELS[name])
    kind = options.pop("kind", "F32")
    keys, arrays = random_file(name.split()[0], **options)
    # Of keys only: what comes after quantised weights is rounded to 8 bits, which jumps.
    types = {n: kind for n in arrays if n.endswith("attn_k.weight") and kind != "F32"}
    original = write_gguf(folder / "no.gguf", keys, arrays, types)
    jobs = {"no": Job(str(original), TOKENS, PLACES)}
    for carrier in carriers:
        plan = plan_temperature(read_gguf(original), M, carrier)
        made, blocks = with_temperature(arrays, plan, types)
        path = folder / f"{carrier}.gguf"
        write_gguf(path, {**keys, **plan.keys}, made, types, blocks)
        jobs[carrier] = Job(str(path), TOKENS, PLACES)
    return dict(zip(jobs, run(list(jobs.values())), strict=True))


def distance(a: Outcome, b: Outcome) -> float:
    assert a.logits is not None, a.said
    assert b.logits is not None, b.said
    return float(np.abs(np.subtract(a.logits, b.logits)).max())


# Off by 1e-1 and more where a carrier is not exact. Blocks are rounded once more, by some 4e-4,
# which these models with their sharp attention make much of.
@pytest.mark.parametrize(
    ("name", "carriers", "bound"),
    [
        ("llama", ("key", "scale", "weights"), 2e-3),
        ("qwen2", ("key", "scale", "weights"), 2e-3),
        ("qwen3", ("key", "norm"), 2e-3),
        ("llama Q8_0", ("key", "scale"), 2e-3),
        ("qwen2 Q8_0", ("key", "scale"), 5e-2),
        ("llama Q8_0", ("key", "weights"), 0.15),
        ("llama Q5_0", ("key", "weights"), 0.2),
        ("llama Q4_1", ("key", "weights"), 0.3),
    ],
)
def test_carriers_agree(tmp_path, name, carriers, bound):
    found = answers(tmp_path, name, carriers)
    assert distance(found["no"], found["key"]) > 10 * bound, "the temperature must show"
    for carrier in carriers[1:]:
        assert distance(found["key"], found[carrier]) < bound, carrier


def test_a_forgotten_bias_shows(tmp_path):
    keys, arrays = random_file("qwen2", biases=True)
    original = write_gguf(tmp_path / "no.gguf", keys, arrays)
    plan = plan_temperature(read_gguf(original), M, "scale")
    right, _ = with_temperature(arrays, plan, {})
    wrong = {n: arrays[n] if n.endswith("bias") else a for n, a in right.items()}
    paths = [write_gguf(tmp_path / f"{n}.gguf", keys, a) for n, a in (("r", right), ("w", wrong))]
    first, second = run([Job(str(path), TOKENS, PLACES) for path in paths])
    assert distance(first, second) > 5e-2
