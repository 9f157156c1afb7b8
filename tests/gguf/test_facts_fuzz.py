"""No set of keys and tensors makes the reading, the rules or a plan fail."""

from __future__ import annotations

import math
import random
from contextlib import suppress

import pytest

from support.gguf_files import demo_keys
from yarncli.errors import YarncliError
from yarncli.gguf.architectures import load_table
from yarncli.gguf.carriers import CARRIERS, plan_temperature, why_not
from yarncli.gguf.facts import FACTORS, KEY_TYPES, PATTERN, SECTIONS, Gguf, Tensor, Typed
from yarncli.gguf.plan import plan_extension
from yarncli.gguf.reading import read_gguf
from yarncli.gguf.rope_config import as_rope_config
from yarncli.gguf.runtime import run, run_windowed
from yarncli.planning.plan import make_plan
from yarncli.planning.target import Target
from yarncli.rules.gguf_rules import check_gguf

KEYS = [*KEY_TYPES, SECTIONS, PATTERN, "attention.head_count", "attention.head_count_kv",
        "nextn_predict_layers", "attention.clamp_kqv"]  # fmt: skip
VALUES = {
    "u32": (0, 1, 7, 32, 64, 128, 256, 1024, 2**31, 2**32 - 1),
    "i32": (-1, 4),
    "f32": (0.0, 1.0, -3.5, 0.5, 4.0, 256.0, 1e30, math.inf, math.nan),
    "f64": (4.0, 1e300),
    "str": ("", "yarn", "linear", "none", "longrope", "dynamic"),
    "bool": (True, False),
    "arr": ((1, 2), (4, 4, 4), (True, False, True)),
}
FACTOR_VALUES = (1.0, 2.0, 0.0, -1.0, math.nan, 1e30, 1e-30)


def made_up(rng: random.Random) -> Gguf:
    """A file of an architecture with some of its keys and tensors changed at random."""
    name = rng.choice([*load_table()["architectures"], "llama"])
    keys = {k.replace("llama.", f"{name}."): v for k, v in demo_keys().items()}
    keys["general.architecture"] = Typed("str", name)
    for _ in range(rng.randint(0, 6)):
        key = rng.choice(KEYS)
        kind = KEY_TYPES.get(key, "u32") if rng.random() < 0.8 else rng.choice([*VALUES])
        keys[f"{name}.{key}"] = Typed(kind, rng.choice(VALUES[kind]))
        if rng.random() < 0.1:
            keys.pop(f"{name}.{rng.choice(KEYS)}", None)
    tensors = {f"blk.{n}.attn_k.weight": Tensor("Q8_0", (128, 128)) for n in range(3)}
    if rng.random() < 0.2:
        tensors = {"blk.0.attn_qkv.weight": Tensor("F32", (128, 384))}
    if rng.random() < 0.2:
        tensors["blk.0.attn_k_norm.weight"] = Tensor("F32", (32,))
    for factors in FACTORS:
        if rng.random() < 0.2:
            values = tuple(rng.choice(FACTOR_VALUES) for _ in range(rng.choice((16, 16, 8))))
            stored = rng.random() < 0.8
            kind = "F32" if stored else "F16"
            tensors[factors] = Tensor(kind, (len(values),), values if stored else None)
    return Gguf(keys, tensors)


@pytest.mark.parametrize("seed", range(4))
def test_there_is_always_an_answer(seed):
    rng = random.Random(seed)
    for _ in range(150):
        gguf = made_up(rng)
        run(gguf, context=rng.choice((None, 1, 5000)))
        run_windowed(gguf)
        read_gguf(gguf)
        check_gguf(gguf, where="m.gguf", tensor_count=3)
        for carrier in CARRIERS:
            why_not(gguf, carrier)
        replaces = rng.random() < 0.5
        method = rng.choice(("yarn", "ntk", "linear", "llama3", "ntk-by-parts"))
        target = Target(method=method, length=2048, replace_scaling=replaces)
        with suppress(YarncliError):
            plan_temperature(gguf, 1.2)
        said = ""
        try:
            config = as_rope_config(gguf, original_length=256, replaces=replaces)
            plan_extension(gguf, make_plan(config, target), replaces=replaces)
        except YarncliError as error:
            said = str(error)
        assert "bug in yarncli" not in said, gguf
