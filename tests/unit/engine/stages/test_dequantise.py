from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from hmi.engine import decode_rows
from hmi.knowledge.store import CHUNK_ROWS, NO_ROW, StoredRows
from hmi.spec import RowDtype
from tests.unit.knowledge.tables import HIDDEN, as_keys, make_table


@pytest.mark.parametrize("row_dtype", list(RowDtype))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("count", [0, 1, CHUNK_ROWS, 2 * CHUNK_ROWS + 3])
def test_rows_are_those_that_numpy_decodes(tmp_path: Path, row_dtype: RowDtype, dtype: torch.dtype, count: int) -> None:
    table = make_table(tmp_path, "general", as_keys(range(100)), row_dtype)
    rows = StoredRows(row_dtype, HIDDEN, 100)
    rows.add(table, np.arange(100))
    positions = np.random.default_rng(0).integers(0, 101, count)
    scales = None if rows.scales is None else torch.from_numpy(rows.scales)
    decoded = decode_rows(torch.from_numpy(rows.codes), scales, torch.from_numpy(positions), dtype)
    expected = torch.from_numpy(rows.decode(positions)).to(dtype)
    assert decoded.dtype == dtype
    torch.testing.assert_close(decoded, expected, rtol=0, atol=0)
    assert not decoded[torch.from_numpy(positions == NO_ROW)].any()


def test_rows_go_into_the_given_buffer(tmp_path: Path) -> None:
    rows = StoredRows(RowDtype.FLOAT16, HIDDEN, 3)
    rows.add(make_table(tmp_path, "general", as_keys(range(3)), RowDtype.FLOAT16), np.arange(3))
    out = torch.full((5, HIDDEN), 7.0)
    decoded = decode_rows(torch.from_numpy(rows.codes), None, torch.tensor([1, 2]), torch.float32, out)
    assert decoded.data_ptr() == out.data_ptr()
    assert decoded.tolist() == rows.decode(np.array([1, 2])).tolist()
    assert (out[2:] == 7).all()
