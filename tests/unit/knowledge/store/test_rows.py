from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.store import CHUNK_ROWS, EncodedRows, decode, encode, entry_bytes, round_trip
from hmi.spec import RowDtype

Rows = NDArray[np.float32]
DTYPES = pytest.mark.parametrize("dtype", list(RowDtype))
ROWS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 9)),
    elements=st.floats(-60000, 60000, width=32, allow_subnormal=True),
)


def random_rows(count: int, hidden: int = 16) -> Rows:
    return np.random.default_rng(3).standard_normal((count, hidden)).astype(np.float32)


@given(ROWS)
def test_int8_rows_are_within_half_a_step(rows: Rows) -> None:
    step = np.abs(rows).max(axis=1, keepdims=True) / 127 * (1 + 2**-15)
    assert (np.abs(round_trip(rows, RowDtype.INT8) - rows) <= step / 2 + 2.0**-99).all()


@given(ROWS)
def test_float16_rows_equal_numpys_float16(rows: Rows) -> None:
    encoded = encode(rows, RowDtype.FLOAT16)
    assert encoded.scales is None
    np.testing.assert_array_equal(encoded.rows, rows.astype(np.float16))
    np.testing.assert_array_equal(decode(encoded), rows.astype(np.float16).astype(np.float32))


def test_every_finite_float16_is_decoded_exactly() -> None:
    values = np.arange(2**16, dtype=np.uint16).view(np.float16)
    rows = values[np.isfinite(values)].reshape(1, -1)
    decoded = decode(EncodedRows(rows, None))
    np.testing.assert_array_equal(decoded.view(np.uint32), rows.astype(np.float32).view(np.uint32))


@DTYPES
@given(rows=ROWS)
def test_a_second_round_trip_changes_nothing(dtype: RowDtype, rows: Rows) -> None:
    first = encode(rows, dtype)
    second = encode(decode(first), dtype)
    np.testing.assert_array_equal(first.rows, second.rows)
    if first.scales is not None and second.scales is not None:
        np.testing.assert_array_equal(first.scales, second.scales)


@DTYPES
def test_a_row_is_the_same_whatever_rows_it_comes_with(dtype: RowDtype) -> None:
    rows = random_rows(2 * CHUNK_ROWS + 3)
    rows[5] *= 1000
    together = round_trip(rows, dtype)
    alone = np.concatenate([round_trip(rows[i : i + 1], dtype) for i in range(len(rows))])
    order = np.random.default_rng(0).permutation(len(rows))
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(together[order], round_trip(rows[order], dtype))


def test_codes_use_the_whole_range_but_not_minus_128() -> None:
    encoded = encode(random_rows(300), RowDtype.INT8)
    assert encoded.rows.dtype == np.int8
    assert encoded.rows.min() >= -127
    assert (np.abs(encoded.rows.astype(int)).max(axis=1) == 127).all()


@DTYPES
def test_zero_rows_stay_zero(dtype: RowDtype) -> None:
    rows = np.zeros((2, 4), np.float32)
    rows[1] = 1e-40
    assert not round_trip(rows, dtype).any()


@DTYPES
def test_no_rows_give_no_rows(dtype: RowDtype) -> None:
    assert round_trip(np.empty((0, 4), np.float32), dtype).shape == (0, 4)


@DTYPES
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_encode_names_the_row_when_a_value_is_not_finite(dtype: RowDtype, value: float) -> None:
    rows = random_rows(CHUNK_ROWS + 10)
    rows[CHUNK_ROWS + 4, 2] = value
    with pytest.raises(Corrupt, match=f"row {CHUNK_ROWS + 4} of {CHUNK_ROWS + 10}"):
        encode(rows, dtype)


def test_float16_refuses_what_it_cannot_hold() -> None:
    with pytest.raises(Corrupt, match="70000"):
        encode(np.array([[70000, 1]], np.float32), RowDtype.FLOAT16)


def test_entry_bytes_are_key_row_and_scale() -> None:
    assert entry_bytes(RowDtype.INT8, 384) == 8 + 384 + 4
    assert entry_bytes(RowDtype.FLOAT16, 384) == 8 + 768
