"""The demonstration's tables fit the narrowest terminal that people use."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from examples.demo.figures import (
    BatchFigures,
    TenantFigures,
    accuracy_table,
    hit_table,
    residency_table,
    throughput_line,
)
from examples.demo.tenants import FULL, DemoTenant
from examples.demo.trees import HitRate
from hmi.schemas import NodeObject
from tests.answers import filled

RUN = BatchFigures("batch_1", 3777, 98_000, 10.0, 377.7, 9800.0, 7, {"movies": HitRate(100, 25)}, 0.25)


def drawn(table: Table) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=80).print(table)
    return [line.strip() for line in out.getvalue().splitlines() if line.strip()]


def figures(tenant: DemoTenant) -> TenantFigures:
    return TenantFigures(
        tenant=tenant.name,
        model=tenant.model,
        domain=tenant.domain,
        base=tenant.base,
        kind=tenant.kind,
        rank=tenant.rank,
        adapter_bytes=600_000,
        training=1000,
        training_seconds=5.0,
        test=504,
        accuracy=0.875,
        majority=0.5,
    )


def test_every_tenant_has_one_line_when_the_terminal_is_narrow() -> None:
    lines = drawn(accuracy_table([figures(each) for each in FULL.tenants]))
    assert len(lines) == len(FULL.tenants) + 2
    assert all(line.endswith(" 87.5     50.0") for line in lines[2:])


def test_every_tier_has_one_line_when_a_worker_reported() -> None:
    use = {"entries": 14, "bytes": 12_300_000, "budget_bytes": 2**31, "hits": 3, "misses": 1}
    node = filled(NodeObject, name="hmi-cuda0@gpu-server-12", device="cuda:0", stats={"host": use, "on_device": use})
    lines = drawn(residency_table(14, 12_300_000, [node]))
    assert len(lines) == 5
    assert lines[-1].endswith("75.0 %")


def test_domains_without_lookups_are_marked_when_runs_are_compared() -> None:
    other = BatchFigures("batch_2", 1, 1, 1.0, 1.0, 1.0, 8, {"news": HitRate(2, 2)}, 1.0)
    rows = [line.split() for line in drawn(hit_table([RUN, other]))[2:]]
    assert rows == [["movies", "25.0", "%", "-"], ["news", "-", "100.0", "%"], ["all", "25.0", "%", "100.0", "%"]]


@pytest.mark.parametrize("words", ["3,777 sentences (98,000 tokens) in 10.0 s", "378 sentences/s", "9,800 tokens/s"])
def test_throughput_has_both_units(words: str) -> None:
    assert words in throughput_line(RUN)
