from __future__ import annotations

import json

import pytest
import torch

from benchmarks import adapters
from benchmarks.adapters import Case, derive
from hmi.adapters.maths import Method


def _case(rank: int, tenants: int, gathered: float, segments: float) -> Case:
    return Case(rank, 16, 64, tenants, 1024, {Method.GATHERED: gathered, Method.SEGMENTS: segments})


def test_rule_is_the_threshold_that_costs_least() -> None:
    cases = [
        _case(4, 64, 1.0, 9.0),
        _case(4, 16, 2.0, 5.0),
        _case(4, 4, 3.0, 3.3),
        _case(8, 4, 4.0, 2.0),
        _case(8, 1, 4.0, 1.0),
    ]
    rule = derive(cases)
    assert (rule.gathered_to_kib, rule.segments_from_kib) == (60, 120)  # 4 * 15 and 8 * 15 vectors of one KiB
    assert (rule.mean_cost, rule.worst_cost) == (1.0, 1.0)
    assert rule.rows_of_one(8, 1024) == 16
    assert rule.rows_of_one(4, 1024) == 31


def test_rule_says_what_it_costs_when_no_threshold_fits_all() -> None:
    rule = derive([_case(4, 4, 1.0, 2.0), _case(8, 4, 2.0, 1.0), _case(16, 4, 1.0, 1.5)])
    assert rule.segments_from_kib == 120
    assert (rule.mean_cost, rule.worst_cost) == (1.167, 1.5)


def test_rule_is_one_way_alone_when_that_always_wins() -> None:
    never = derive([_case(4, 4, 1.0, 2.0), _case(64, 1, 1.0, 2.0)])
    assert (never.segments_from_kib, never.rows_of_one(8, 1024)) == (None, None)
    assert derive([_case(4, 64, 2.0, 1.0), _case(64, 1, 2.0, 1.0)]).gathered_to_kib is None


def test_ways_agree() -> None:
    x = torch.randn(6, 5, 32)
    arena = torch.randn(40, 32)
    of_tenants = torch.randperm(40)[:24].view(2, 3, 4)
    gathered, segments = torch.zeros(6, 5, 32), torch.zeros(6, 5, 32)
    adapters._gathered(gathered, x, arena, of_tenants[:, torch.arange(6) // 2].reshape(-1), 4)
    adapters._segments(segments, x, arena, of_tenants.reshape(-1), 4, 3)
    torch.testing.assert_close(gathered, segments, rtol=1e-4, atol=1e-4)


def test_report_has_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--quick", "--json", "--device", "cpu", "--dtype", "float32", "--width", "32", "--rounds", "1"]
    adapters.main(arguments)
    report = json.loads(capsys.readouterr().out)
    assert {"processor", "device", "dtype", "width", "rows", "cases", "rule"} <= report.keys()
    assert set(report["cases"][0]["microseconds"]) == {"gathered", "segments"}
    assert set(report["rule"]["rows_of_one"]) == {"8", "48"}
    adapters.main(arguments[:1] + arguments[2:])
    assert "cost_of_choose" in capsys.readouterr().out
