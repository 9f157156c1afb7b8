"""A trained model extended in a GGUF file: llama.cpp and transformers give the same logits."""

from __future__ import annotations

import numpy as np
import pytest

from support.gguf_files import read_gguf, write_gguf
from support.llamacpp import Job, run
from support.program import invoke
from support.smollm2 import in_floats, smollm2
from yarncli.gguf.runtime import run as foretell

pytestmark = [
    pytest.mark.full,
    pytest.mark.usefixtures("runtime"),
    pytest.mark.xdist_group("smollm2"),  # one worker makes the model, once
]

TOKENS = [(7919 * i) % 49000 + 17 for i in range(128)]
PLACES = (40, -1)
ORIGINAL = 8192
# Logits go up to 20; sums of 30 layers in another order.
TOLERANCE = 2e-2


@pytest.fixture(scope="module")
def original():
    return smollm2()


@pytest.fixture(scope="module")
def expected(original):
    """What transformers computes, by the factor of YaRN; 1 is the model as it is."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig

    place = {"gguf_file": original.name}
    config = AutoConfig.from_pretrained(original.parent, **place)
    model = AutoModelForCausalLM.from_pretrained(
        original.parent, **place, quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32,
    ).eval()  # fmt: skip
    found = {}
    for factor in (1, 2, 4):
        if factor > 1:
            config.max_position_embeddings = ORIGINAL * factor
            config.rope_parameters = {
                "rope_type": "yarn", "rope_theta": 100000.0, "factor": float(factor),
                "original_max_position_embeddings": ORIGINAL,
            }  # fmt: skip
            model.model.rotary_emb = type(model.model.rotary_emb)(config)
        with torch.no_grad():
            logits = model(torch.tensor([TOKENS])).logits[0]
        found[factor] = logits[list(PLACES)].numpy()
    return found


@pytest.fixture(scope="module")
def floats(original, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("smollm2") / "f32.gguf", *in_floats(original))


def off(path, expected):
    """How far llama.cpp is from the logits expected."""
    (outcome,) = run([Job(str(path), TOKENS, PLACES, 512)])
    assert outcome.logits is not None, outcome.said
    return float(np.abs(np.subtract(outcome.logits, expected)).max())


def test_the_model_as_it_is(floats, expected):
    assert off(floats, expected[1]) < TOLERANCE


@pytest.mark.parametrize("factor", [2, 4])
def test_yarn_by_keys_and_by_a_tensor(floats, expected, factor):
    apart = np.abs(expected[factor] - expected[1]).max()
    assert apart > 10 * TOLERANCE, "the scaling must show"
    out = floats.with_name("out.gguf")
    invoke("convert", floats, out, "--factor", factor, "--overwrite", code=0)
    wanted, natural = foretell(read_gguf(out)), foretell(read_gguf(floats))
    assert wanted.served_length == ORIGINAL * factor
    assert off(out, expected[factor]) < TOLERANCE
    ratios = (a / b for a, b in zip(natural.inv_freq, wanted.inv_freq, strict=True))
    factors = ",".join(map(repr, ratios))
    words = ["--long-factor", factors, "--short-factor", factors, "--attention-factor"]
    invoke("convert", floats, out, "--factor", factor, "--overwrite", "--method", "longrope",
           *words, repr(wanted.attention_factor), code=0)  # fmt: skip
    assert "rope_freqs.weight" in read_gguf(out).tensors
    assert off(out, expected[factor]) < TOLERANCE
