from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.tenants.fleet import MIXED, keep_tenants
from benchmarks.tenants.plan import QUICK, Traffic, draw_tenants
from benchmarks.tenants.run import as_text, run_plan
from hmi.adapters.formats import load_adapter
from hmi.errors import InvalidInput
from tests.adapter_samples import sample_spec


def test_popular_tenants_are_asked_for_by_zipfs_law_when_traffic_is_skewed() -> None:
    counts = np.sort(np.bincount(draw_tenants(Traffic.ZIPF, 100, 100_000, seed=1), minlength=100))[::-1]
    expected = 100_000 / np.arange(1, 101) / (1 / np.arange(1, 101)).sum()
    np.testing.assert_allclose(counts[:10], expected[:10], rtol=0.1)
    even = np.bincount(draw_tenants(Traffic.UNIFORM, 100, 100_000, seed=1), minlength=100)
    np.testing.assert_allclose(even, 1000, rtol=0.2)


def test_files_are_used_again_and_added_to_when_the_folder_is_kept(tmp_path: Path) -> None:
    spec = sample_spec(k=2)
    first = keep_tenants(tmp_path, spec, 7)
    written = [path.stat().st_mtime_ns for path in first]
    more = keep_tenants(tmp_path, spec, 12)
    assert [path.stat().st_mtime_ns for path in more[:7]] == written
    assert len({path.read_bytes() for path in more}) == 12
    for number, path in enumerate(more):
        adapter = load_adapter(path)
        adapter.validate(spec)
        assert (adapter.kind, adapter.rank) == MIXED[number % len(MIXED)]
    keep_tenants(tmp_path, sample_spec(k=1), 2)
    assert {layer for layer, _ in load_adapter(first[0]).lora} == {1, 2, 3}


def test_report_holds_every_case_when_a_small_plan_is_run(tmp_path: Path) -> None:
    plan = QUICK.with_changes(
        shape="tiny", k=2, tenants=(30,), sequences=96, rounds=1, registrations=20, device="cpu", dtype="float32"
    )
    report = run_plan(tmp_path, plan)
    cases = report["cases"]
    assert [(case["tenants"], case["traffic"], case["slots_share"]) for case in cases] == [
        (1, "one", 1.0),
        *((30, traffic, share) for traffic in ("zipf", "uniform") for share in (1.0, 0.25, 0.0625)),
    ]
    for case in cases:
        assert case["seq_s"] > 0
        assert case["ratio_vs_one_tenant"] > 0
        assert 0 < case["p50_ms"] <= case["p95_ms"]
        for tier in ("host", "on_device"):
            assert 0 < case[tier]["resident_bytes"] <= case[tier]["budget_bytes"]
    for whole in (case for case in cases[1:] if case["slots_share"] == 1):
        assert whole["on_device"]["hit_rate"] == 1
        assert whole["on_device"]["resident_bytes"] == whole["working_set_bytes"]
    assert cases[-1]["on_device"]["evictions"] > 0
    assert report["registration_last_over_first"] > 0
    assert "uniform" in as_text(report)


def test_a_run_that_measures_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput):
        QUICK.with_changes(rounds=0)
