"""llama.cpp itself on the files that `test_runtime.py` speaks of: its logits are those foretold."""

from __future__ import annotations

import math

import numpy as np
import pytest

from support.gguf_files import Arrays, demo_keys, write_gguf
from support.gguf_oracle import demo_logits
from support.gguf_rows import ROWS
from support.gguf_settings import GOLDEN, LENGTH, SETTINGS, distance
from support.gguf_settings import PLACES as GOLDEN_PLACES
from support.llamacpp import Job, run
from yarncli.gguf import runtime as foretold
from yarncli.gguf.facts import Gguf, Tensor
from yarncli.gguf.loading import Failure
from yarncli.gguf.plan import plan_setting

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("runtime")]

TOKENS = [(7 * i) % 500 + 3 for i in range(400)]
PLACES = (50, 200, -1)
# Single precision on both sides; a wrong neighbour is off by 1 or more.
TOLERANCE = 2e-3


def text(row):
    """As much as the context of a row takes."""
    window = row.gguf().get("context_length", 256)
    return TOKENS[: row.context or window]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, demo_tensors: Arrays):
    """What became of the file of each row."""
    folder = tmp_path_factory.mktemp("rows")
    jobs = []
    for n, row in enumerate(ROWS):
        arrays, types = dict(demo_tensors), {}
        for name, given in row.tensors.items():
            kind, values = given if isinstance(given[0], str) else ("F32", given)
            arrays[name] = np.array(values, np.float16 if kind == "F16" else np.float32)
        path = write_gguf(folder / f"{n}.gguf", row.gguf().keys, arrays, types)
        jobs.append(Job(str(path), text(row), PLACES, row.context or 0))
    return dict(zip([row.name for row in ROWS], run(jobs), strict=True))


def test_there_is_an_outcome_for_each(outcomes):
    assert len(outcomes) == len(ROWS)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_row(row, outcomes):
    given = outcomes[row.name]
    found = foretold.run(row.gguf(), context=row.context)
    if isinstance(found, Failure):
        assert given.logits is None
        assert given.aborted == (found.kind == "aborts"), given.said
        return
    assert given.logits is not None, given.said
    assert given.window == found.served_length
    if any(map(math.isnan, found.inv_freq)):
        assert np.isnan(given.logits).any()
        return
    expected = demo_logits(found.inv_freq, found.attention_factor, text(row), PLACES)
    assert np.abs(np.subtract(expected, given.logits)).max() < TOLERANCE


@pytest.fixture(scope="module")
def planned(tmp_path_factory, demo_tensors: Arrays):
    """What became of the demo with each golden setting planned into it."""
    folder = tmp_path_factory.mktemp("settings")
    demo = Gguf(demo_keys(), {"blk.0.attn_k.weight": Tensor("F32", (128, 128))})
    jobs = []
    for n, p in enumerate(SETTINGS.values()):
        made = plan_setting(demo, p, length=LENGTH)
        arrays = {name: np.array(values, np.float32) for name, values in made.tensors.items()}
        path = folder / f"{n}.gguf"
        write_gguf(path, made.applied(demo).keys, {**demo_tensors, **arrays})
        jobs.append(Job(str(path), GOLDEN["tokens"], GOLDEN_PLACES, LENGTH))
    return dict(zip(SETTINGS, run(jobs), strict=True))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_planned_setting_gives_the_golden_logits(name, planned):
    assert planned[name].logits is not None, planned[name].said
    assert distance(planned[name].logits, name) < TOLERANCE
    assert planned[name].window == LENGTH
