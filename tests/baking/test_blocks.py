"""Scaled blocks, dequantised by gguf-py, are the scaled weights within what was measured."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf.constants import GGML_QUANT_SIZES

from yarncli.baking.blocks import FORMATS, block_scaler, row_bytes
from yarncli.errors import WeightsError

M2 = 1.297
WIDTH, ROWS = 512, 64
# Relative to the tensor, for weights of 0.02 and of 0.002, as measured with v0.5.0.
BOUNDS = {"F32": (1e-7, 1e-7), "F16": (3e-4, 1.1e-3), "BF16": (2e-3, 2e-3)}
_NORMAL, _TWO, _SUBNORMAL = (3e-4, 1.2e-3), (9e-4, 7e-3), (1.2e-3, 1e-2)
BOUNDS |= dict.fromkeys(("Q4_0", "Q5_0", "Q8_0", "TQ1_0", "TQ2_0"), _NORMAL)
BOUNDS |= dict.fromkeys(("Q4_1", "Q5_1"), _TWO)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)) / np.sqrt(np.mean(b**2)))


def dequantised(data: bytes, kind: gguf.GGMLQuantizationType) -> np.ndarray:
    size = GGML_QUANT_SIZES[kind][1]
    types = {"F32": "<f4", "F16": "<f2"}
    raw = np.frombuffer(data, types.get(kind.name, np.uint8))
    shaped = raw if kind.name in types else raw.reshape(-1, size)
    return gguf.dequantize(shaped, kind).reshape(-1)


@pytest.mark.parametrize("kind", sorted(BOUNDS))
def test_formats_that_gguf_quantises(kind):
    for spread, bound in zip((0.02, 0.002), BOUNDS[kind], strict=True):
        weights = np.random.default_rng(1).normal(0, spread, (ROWS, WIDTH)).astype(np.float32)
        number = gguf.GGMLQuantizationType[kind]
        stored = gguf.quantize(weights, number).tobytes()
        assert len(stored) == ROWS * row_bytes(kind, WIDTH, "x")
        made = block_scaler(kind, M2, "x")(stored)
        assert rms(dequantised(made, number), M2 * dequantised(stored, number)) < bound


def random_blocks(kind: str, scale: float) -> bytes:
    """Blocks with random integers and scales about `scale`."""
    known, rng = FORMATS[kind], np.random.default_rng(2)
    data = rng.integers(0, 256, (300, known.size), np.uint8)
    for place in known.scales:
        halves = (scale * (1 + rng.random(300))).astype("<f2")
        data[:, place : place + 2] = halves.view(np.uint8).reshape(-1, 2)
    if not known.scales:  # IQ1_M: four digits in the upper halves of four words
        words, halves = data[:, 48:].view("<u2"), (scale * (1 + rng.random(300))).astype("<f2")
        for n in range(4):
            digits = (halves.view("<u2") >> (4 * n)) & 0xF
            words[:, n] = (words[:, n] & 0x0FFF) | (digits << 12)
    return data.tobytes()


# gguf-py dequantises these and does not quantise to them; d as it is for weights of 0.02.
SCALES = {"Q2_K": 1e-3, "Q3_K": 3e-4, "Q4_K": 3e-4, "Q5_K": 1e-4, "Q6_K": 1.5e-5, "IQ1_S": 2e-3,
          "IQ1_M": 2e-3, "IQ2_XXS": 3e-4, "IQ2_XS": 3e-4, "IQ2_S": 3e-4, "IQ3_XXS": 4e-4,
          "IQ3_S": 4e-4, "IQ4_NL": 2e-4, "IQ4_XS": 1e-5}  # fmt: skip


@pytest.mark.parametrize("kind", SCALES)
def test_formats_that_gguf_only_reads(kind):
    number = gguf.GGMLQuantizationType[kind]
    data = random_blocks(kind, SCALES[kind])
    made = block_scaler(kind, M2, "x")(data)
    bound = 1.2e-2 if kind in ("Q6_K", "IQ4_XS") else 2e-3
    assert rms(dequantised(made, number), M2 * dequantised(data, number)) < bound


@pytest.mark.parametrize("kind", FORMATS)
def test_only_the_scales_change(kind):
    data = random_blocks(kind, 1e-3)
    made = block_scaler(kind, 2.0, "x")(data)
    known = FORMATS[kind]
    a, b = (np.frombuffer(x, np.uint8).reshape(-1, known.size).copy() for x in (data, made))
    assert (a != b).any()
    for place in known.scales:
        a[:, place : place + 2] = b[:, place : place + 2] = 0
    if not known.scales:
        a[:, 48:] &= np.tile(np.array([0xFF, 0x0F], np.uint8), 4)
        b[:, 48:] &= np.tile(np.array([0xFF, 0x0F], np.uint8), 4)
    assert (a == b).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_sizes_are_those_of_gguf(kind):
    elements, size = GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    assert (FORMATS[kind].elements, FORMATS[kind].size) == (elements, size)


@pytest.mark.parametrize("kind", ["MXFP4", "NVFP4", "Q1_0", "Q8_1", "I8", "type 99"])
def test_formats_without_such_a_scale_are_refused(kind):
    with pytest.raises(WeightsError, match=f"stored as {kind}"):
        row_bytes(kind, WIDTH, "blk.0.attn_k.weight")


def test_a_row_is_whole_blocks():
    with pytest.raises(WeightsError, match="not a multiple of the block size 256"):
        row_bytes("Q4_K", 320, "blk.0.attn_k.weight")


def test_a_scale_that_overflows_is_no_infinity():
    data = random_blocks("Q8_0", 2e4)
    with pytest.raises(WeightsError, match="--carrier key"):
        block_scaler("Q8_0", 4.0, "blk.0.attn_k.weight")(data)
