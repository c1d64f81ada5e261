from __future__ import annotations

import pytest

from hmi.adapters.maths import Method, choose_method


@pytest.mark.parametrize("rank", [4, 8, 16, 48, 64])
def test_cpu_chooses_segments_when_one_tenant_has_all_rows(rank: int) -> None:
    assert choose_method("cpu", rank, 64, 1) is Method.SEGMENTS


@pytest.mark.parametrize("rank", [4, 64, 1024])
def test_cpu_gathers_when_every_row_has_its_own_tenant(rank: int) -> None:
    assert choose_method("cpu", rank, 64, 64) is Method.GATHERED


def test_segments_need_fewer_rows_when_the_rank_is_higher() -> None:
    begin = [
        next(rows for rows in range(1, 99) if choose_method("cpu", rank, rows, 1) is Method.SEGMENTS)
        for rank in (4, 16, 64)
    ]
    assert begin == sorted(begin, reverse=True)
    assert begin[-1] > 1


def test_segments_need_fewer_rows_when_numbers_are_wider() -> None:
    assert choose_method("cpu", 16, 10, 1, row_bytes=1536) is Method.GATHERED
    assert choose_method("cpu", 16, 10, 1, row_bytes=3072) is Method.SEGMENTS


def test_cuda_takes_the_kernel() -> None:
    assert {choose_method("cuda", 4, 64, tenants) for tenants in (1, 64)} == {Method.KERNEL}


def test_a_device_that_was_not_measured_gathers() -> None:
    assert choose_method("mps", 64, 64, 1) is Method.GATHERED


def test_no_rows_are_no_error() -> None:
    assert choose_method("cpu", 4, 0, 0) is Method.GATHERED
