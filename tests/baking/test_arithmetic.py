"""Rounding: against torch for every 16-bit number, and against fractions for doubles."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from yarncli.baking.arithmetic import scaler
from yarncli.baking.dtypes import rounding_bound
from yarncli.baking.rows import RowSelection
from yarncli.errors import WeightsError

FACTORS = [1.2964782769, 1.138629436111989, 0.7713, 1.0, 1 / 3]
ALL = RowSelection(period=1, windows=((0, 1),), end=1 << 16)
TORCH = {"F16": torch.float16, "BF16": torch.bfloat16}


def every_number(dtype):
    patterns = torch.arange(1 << 16, dtype=torch.int32).to(torch.uint16)
    return patterns.view(TORCH[dtype])


def run(dtype, factor, values, offset=0.0):
    made = scaler(dtype, factor, offset, ALL, "tensor")(values.view(torch.uint8).numpy().tobytes())
    return torch.frombuffer(bytearray(made), dtype=values.dtype)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("dtype", TORCH)
def test_every_16_bit_number_rounds_to_the_nearest(dtype, factor):
    values = every_number(dtype)
    wide = values.double() * factor
    wanted = wide.to(TORCH[dtype])
    fits = ~values.isnan() & (wanted.isfinite() | values.isinf())
    made = run(dtype, factor, values[fits])
    assert torch.equal(made.view(torch.int16), wanted[fits].view(torch.int16))
    # Subnormals, both zeros and both infinities are among them.
    assert (values[fits].abs() < torch.finfo(TORCH[dtype]).smallest_normal).sum() > 250
    assert values[fits].isinf().sum() == 2


@pytest.mark.parametrize("dtype", TORCH)
def test_nan_keeps_its_payload(dtype):
    values = every_number(dtype)
    nan = values[values.isnan()]
    assert torch.equal(run(dtype, 1.3, nan).view(torch.int16), nan.view(torch.int16))


def test_ties_go_to_even():
    # BF16 between 1 and 2 are multiples of 1/128. Both products lie half-way between two of them.
    values = torch.tensor([1 + 1 / 128, 1 + 3 / 128], dtype=torch.bfloat16)
    assert (values.double() * 1.5 * 128).tolist() == [193.5, 196.5]
    assert (run("BF16", 1.5, values).double() * 128).tolist() == [194.0, 196.0]


@pytest.mark.parametrize(("dtype", "largest"), [("F16", 65504.0), ("BF16", 3.3895313892515355e38)])
def test_overflow_is_an_error_that_names_the_tensor(dtype, largest):
    values = torch.tensor([1.0, -largest], dtype=TORCH[dtype])
    with pytest.raises(WeightsError, match="tensor holds a value that no longer fits"):
        run(dtype, 1.3, values)
    assert run(dtype, 0.9, values).isfinite().all()


def test_overflow_of_single_precision_is_an_error():
    with pytest.raises(WeightsError, match="no longer fits in F32"):
        run("F32", 1.3, torch.tensor([3e38]))
    assert run("F32", 1.3, torch.tensor([float("inf")])).isinf().all()


def test_single_precision_rounds_once():
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    values[:3] = torch.tensor([1e-45, 3e-39, 0.0])
    made = run("F32", 1.2964782769, values)
    assert torch.equal(made, (values.double() * 1.2964782769).float())


def test_double_precision_is_the_nearest_double():
    values = torch.randn(200, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    made = run("F64", 1.138629436111989, values)
    for before, after in zip(values.tolist(), made.tolist(), strict=True):
        assert after == float(Fraction(before) * Fraction(1.138629436111989))


@pytest.mark.parametrize("dtype", ["BF16", "F32"])
def test_an_offset_scales_one_plus_w(dtype):
    values = torch.linspace(-1.5, 2.0, 999).to(TORCH.get(dtype, torch.float32))
    made = run(dtype, 1.3, values, offset=1.0)
    wanted = (1.3 * (values.double() + 1.0) - 1.0).to(values.dtype)
    assert torch.equal(made, wanted)


def test_only_the_windows_change():
    # Two heads of 4 rows, rows 1 and 2 of each; the last two rows lie behind the end.
    chosen = RowSelection(period=4, windows=((1, 3),), end=8, width=3)
    values = np.arange(24, dtype=np.float32)
    made = np.frombuffer(scaler("F32", 10.0, 0.0, chosen, "t")(values.tobytes()), np.float32)
    changed = {i // 3 for i in range(24) if made[i] != values[i]}
    assert changed == {1, 2, 5, 6}
    assert chosen.count == 4
    assert chosen.ranges == [(1, 3), (5, 7)]
    assert np.array_equal(made[3:9], values[3:9] * 10)


@pytest.mark.parametrize(("dtype", "half"), [("BF16", 2.0**-8), ("F16", 2.0**-11)])
def test_the_bound_holds_and_is_reached(dtype, half):
    values = every_number(dtype)
    values = values[values.isfinite() & (values.abs() >= torch.finfo(TORCH[dtype]).smallest_normal)]
    values = values[values.abs() < values.abs().max() / 2]
    exact = values.double() * 1.2964782769
    worst = ((run(dtype, 1.2964782769, values).double() - exact) / exact).abs().max()
    assert worst <= rounding_bound(dtype, 1.2964782769) <= half
    assert worst > half / 2
