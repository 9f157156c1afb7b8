"""llama.cpp on files that it quantised itself: every weight stays, and the scaling is the same."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from support.gguf_files import random_file, read_gguf, write_gguf
from support.llamacpp import FTYPES, Job, quantise, run
from support.program import invoke
from yarncli.gguf.runtime import run as foretell

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("runtime")]

TOKENS = [(11 * i) % 500 + 3 for i in range(200)]
PLACES = (40, 120, -1)


def tensors(path):
    return {t.name: (t.tensor_type.name, t.data.tobytes()) for t in gguf.GGUFReader(path).tensors}


def distance(a, b):
    assert a.logits is not None, a.said
    assert b.logits is not None, b.said
    return float(np.abs(np.subtract(a.logits, b.logits)).max())


@pytest.mark.parametrize("kind", FTYPES)
def test_a_quantised_file_by_keys_and_by_a_tensor(tmp_path, kind):
    """YaRN by keys, and the same frequencies and temperature as a list in `rope_freqs.weight`."""
    plain = quantise(
        write_gguf(tmp_path / "f32.gguf", *random_file("llama")), tmp_path / "q.gguf", kind
    )
    before = tensors(plain)
    assert before["blk.0.attn_k.weight"][0] == kind
    keys, freqs = tmp_path / "keys.gguf", tmp_path / "freqs.gguf"
    invoke("convert", plain, keys, "--factor", 4, code=0)
    wanted, natural = foretell(read_gguf(keys), context=1024), foretell(read_gguf(plain))
    ratios = (a / b for a, b in zip(natural.inv_freq, wanted.inv_freq, strict=True))
    factors = ",".join(map(repr, ratios))
    words = ["--long-factor", factors, "--short-factor", factors, "--attention-factor"]
    invoke("convert", plain, freqs, "--factor", 4, "--method", "longrope", *words,
           repr(wanted.attention_factor), code=0)  # fmt: skip
    for path in (keys, freqs):
        after = tensors(path)
        after.pop("rope_freqs.weight", None)
        assert after == before
    found = run([Job(str(path), TOKENS, PLACES, 1024) for path in (plain, keys, freqs)])
    # Activations are rounded to 8 bits, which jumps where a sum is another in its last digit.
    assert distance(found[1], found[2]) < 0.1 * distance(found[0], found[1])
