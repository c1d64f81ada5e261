"""Rows rounded on the device against rows written to a table and read back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from hmi.knowledge.store import round_trip
from hmi.models.layers import round_rows
from hmi.spec import RowDtype

HIDDEN = 24
FLOAT16_MAX = 65504.0
# A row by the size of its numbers: from what counts as zero, past denormal numbers, to the largest that tables hold.
_MAGNITUDES = {RowDtype.INT8: st.integers(-149, 126), RowDtype.FLOAT16: st.integers(-40, 15)}
_VALUES = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 127 / 254, 1 / 127, -1 / 254, 2.0**-30]),
    st.floats(-1, 1, width=32),
)


@st.composite
def _rows(draw: st.DrawFn, dtype: RowDtype) -> NDArray[np.float32]:
    count = draw(st.integers(1, 4))
    rows = draw(arrays(np.float32, (count, HIDDEN), elements=_VALUES, fill=st.just(0.0)))
    magnitudes = draw(arrays(np.int64, (count, 1), elements=_MAGNITUDES[dtype]))
    scaled: NDArray[np.float32] = np.ldexp(rows, magnitudes).astype(np.float32)
    return scaled


def _assert_bits_equal(rows: NDArray[np.float32], dtype: RowDtype) -> None:
    found = round_rows(torch.from_numpy(rows), dtype).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.int32), round_trip(rows, dtype).view(np.int32))


@given(_rows(RowDtype.INT8))
def test_int8_rows_are_those_of_a_table_to_the_bit(rows: NDArray[np.float32]) -> None:
    _assert_bits_equal(rows, RowDtype.INT8)


@given(_rows(RowDtype.FLOAT16))
def test_float16_rows_are_those_of_a_table_to_the_bit(rows: NDArray[np.float32]) -> None:
    _assert_bits_equal(rows, RowDtype.FLOAT16)


@pytest.mark.parametrize("dtype", RowDtype)
def test_rows_of_a_model_are_those_of_a_table_to_the_bit(dtype: RowDtype) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(0, 1, (4000, 384)) * rng.lognormal(0, 2, (4000, 1))
    assert np.abs(rows).max() < FLOAT16_MAX
    _assert_bits_equal(rows.astype(np.float32), dtype)


@pytest.mark.parametrize("peak", [2.0**-100, np.nextafter(np.float32(2.0**-100), np.float32(0)), 2.0**-149, 2.0**126])
def test_int8_rows_at_the_ends_are_those_of_a_table(peak: float) -> None:
    rows = np.linspace(-1, 1, HIDDEN, dtype=np.float32)[None] * np.float32(peak)
    _assert_bits_equal(rows, RowDtype.INT8)
    assert round_rows(torch.from_numpy(rows), RowDtype.INT8).any() == (peak >= 2.0**-100)


def test_halves_round_to_the_even_code() -> None:
    """Codes of halves, with a scale that is exact: 127 / 127 rounds up to itself."""
    rows = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5]], np.float32)
    assert round_rows(torch.from_numpy(rows), RowDtype.INT8).tolist() == [[127, 0, 2, 2, 0, -2, -2]]
    _assert_bits_equal(rows, RowDtype.INT8)


@pytest.mark.parametrize("dtype", RowDtype)
def test_rounding_twice_is_rounding_once(dtype: RowDtype) -> None:
    rows = round_rows(torch.randn(500, 64, generator=torch.Generator().manual_seed(0)) * 8, dtype)
    assert torch.equal(round_rows(rows, dtype), rows)


@pytest.mark.parametrize("dtype", RowDtype)
@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_non_finite_rows_stay_non_finite_and_leave_other_rows_unchanged(dtype: RowDtype, broken: float) -> None:
    rows = torch.randn(3, HIDDEN, generator=torch.Generator().manual_seed(0))
    whole = round_rows(rows, dtype)
    rows[1, 4] = broken
    found = round_rows(rows, dtype)
    assert not found[1].isfinite().all()
    assert torch.equal(found[[0, 2]], whole[[0, 2]])


def test_values_beyond_float16_become_infinite() -> None:
    rows = torch.tensor([[1.0, 2 * FLOAT16_MAX], [1.0, FLOAT16_MAX]])
    found = round_rows(rows, RowDtype.FLOAT16)
    assert not found[0].isfinite().all()
    assert found[1].tolist() == [1.0, FLOAT16_MAX]
