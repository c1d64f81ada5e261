"""The demonstration's tables, drawn for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from examples.demo.figures import BatchFigures, TenantFigures
from examples.demo.tenants import BASES
from examples.demo.trees import HitRate
from hmi.cli.render import bytes_words, hit_rate, table
from hmi.schemas import NodeObject

__all__ = ["accuracy_table", "hit_table", "residency_table", "throughput_line"]


def accuracy_table(tenants: Sequence[TenantFigures]) -> Table:
    """Per tenant, its accuracy beside what always giving the most frequent label would reach.

    Fits a terminal of 80 columns.
    """
    rows = [
        (
            each.tenant,
            each.domain,
            BASES[each.base],
            f"{each.kind} {each.rank}",
            each.training,
            each.test,
            round(100 * each.accuracy, 1),
            round(100 * each.majority, 1),
        )
        for each in tenants
    ]
    columns = ("tenant", "domain", "k", "adapter", "train", "test", "acc. %", "maj. %")
    return table(columns, rows)


def hit_table(runs: Sequence[BatchFigures]) -> Table:
    """Per domain, the share of looked-up n-grams that the tree held, one column for each run."""
    domains = sorted({name for run in runs for name in run.hits})
    rows = [(name, *(_found(run.hits.get(name)) for run in runs)) for name in domains]
    rows.append(("all", *(_percent(run.hit_rate) for run in runs)))
    return table(("domain", *(f"tree {run.tree}" for run in runs)), rows)


def residency_table(adapters: int, on_disk: int, nodes: Sequence[NodeObject]) -> Table:
    """Where adapters lie: on disk, and in each worker's host and device memory."""
    rows: list[Sequence[object]] = [("disk", adapters, bytes_words(on_disk), "", "")]
    for node in nodes:
        for place, key in (("host", "host"), ("device", "on_device")):
            use = node.stats[key]
            rows.append(
                (
                    f"{place}: {node.name}",
                    int(use["entries"]),
                    bytes_words(int(use["bytes"])),
                    bytes_words(int(use["budget_bytes"])),
                    hit_rate(int(use["hits"]) + int(use["misses"]), int(use["hits"])),
                )
            )
    return table(("where", "adapters", "bytes", "budget", "found there"), rows)


def throughput_line(run: BatchFigures) -> str:
    return (
        f"{run.lines:,} sentences ({run.tokens:,} tokens) in {run.seconds:.1f} s: "
        f"{run.lines_per_second:,.0f} sentences/s, {run.tokens_per_second:,.0f} tokens/s"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _found(rate: HitRate | None) -> str:
    return hit_rate(rate.lookups, rate.hits) if rate else "-"
