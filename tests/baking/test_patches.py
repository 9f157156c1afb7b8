"""Whatever the shapes: only the rows that were announced change, and all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yarncli.baking.edits import TensorEdit
from yarncli.baking.rows import (
    LayerSizes,
    RowSelection,
    block_k,
    block_q,
    block_v,
    gated_block_k,
    gated_block_q,
)
from yarncli.checkpoint.safetensors import Header, TensorInfo


@st.composite
def selections(draw):
    period = draw(st.integers(1, 12))
    start = draw(st.integers(0, period - 1))
    stop = draw(st.integers(start + 1, period))
    windows = [(start, stop)]
    if stop < period - 1 and draw(st.booleans()):
        windows.append((stop + 1, period))
    begin = draw(st.integers(0, 5))
    end = begin + period * draw(st.integers(1, 4))
    return RowSelection(
        period=period, windows=tuple(windows), begin=begin, end=end, width=draw(st.integers(1, 5))
    )


@settings(max_examples=150)
@given(selections(), st.integers(0, 3), st.integers(0, 40))
def test_patches_touch_the_selected_rows_only(chosen, below, before):
    rows = chosen.end + below
    nbytes = rows * chosen.width * 4
    info = TensorInfo(
        name="t", dtype="F32", shape=(rows, chosen.width), data_offsets=(before, before + nbytes)
    )
    edit = TensorEdit(
        tensor="t", shard="s", info=info, selection=chosen, factor=2.0, power=2, offset=0.0,
        layer=0, kind="t", weight="t", rows=chosen, rows_total=rows, is_norm=False,
    )  # fmt: skip
    file = bytearray(
        b"\x07" * (8 + before) + np.ones(rows * chosen.width, "<f4").tobytes() + b"\x07"
    )
    header = Header(tensors={"t": info}, metadata={}, header_size=8, file_size=len(file))
    for patch in edit.patches(header):
        for offset, length in patch.pieces():
            file[offset : offset + length] = patch.apply(bytes(file[offset : offset + length]))
    values = np.frombuffer(bytes(file[8 + before : 8 + before + nbytes]), "<f4")
    wanted = np.ones((rows, chosen.width), "<f4")
    for start in range(chosen.begin, chosen.end, chosen.period):
        for first, last in chosen.windows:
            wanted[start + first : start + last] = 2.0
    assert np.array_equal(values.reshape(rows, chosen.width), wanted)
    assert set(file[: 8 + before] + file[-1:]) == {7}
    assert edit.nbytes == int((wanted == 2.0).sum()) * 4


@pytest.mark.parametrize(
    ("rule", "rows", "start", "stop"),
    [  # 4 query heads of 8 are 32 rows, 2 key heads 16; so are the values, and the gates are 32
        (block_q, 64, 0, 32),
        (block_k, 64, 32, 48),
        (block_v, 64, 48, 64),
        (gated_block_q, 96, 32, 64),
        (gated_block_k, 96, 64, 80),
    ],
)
def test_the_parts_of_a_fused_tensor(rule, rows, start, stop):
    sizes = LayerSizes(head_dim=8, rotary_dim=8, heads=4, kv_heads=2)
    assert rule(sizes, rows).ranges == [(start, stop)]
    assert rule(sizes, rows + 8) is None
