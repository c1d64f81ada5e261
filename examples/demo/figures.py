"""The figures of the demonstration, which `--json` prints and `demo.json` in the data folder keeps, and its tables."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from examples.demo.batches import BatchRun, Comparison, line_id
from examples.demo.models import MadeAdapter
from examples.demo.steps import StepFigures
from examples.demo.tenants import BASES, DemoTenant, Portion
from examples.demo.trees import HitRate
from hmi.cli.render import bytes_words, hit_rate, table
from hmi.schemas import NodeObject

__all__ = [
    "BatchFigures",
    "DemoFigures",
    "TenantFigures",
    "accuracy_table",
    "batch_figures",
    "hit_table",
    "residency_table",
    "tenant_figures",
    "throughput_line",
]


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """`accuracy` is a share of the `test` sentences, `majority` that of always answering the most frequent label."""

    tenant: str
    model: str
    domain: str
    base: str
    kind: str
    rank: int
    adapter_bytes: int
    training: int
    training_seconds: float
    test: int
    accuracy: float
    majority: float


@dataclass(frozen=True, slots=True)
class BatchFigures:
    """`tree` is the version of the knowledge tree that the batch ran on; `hits` is by domain."""

    id: str
    lines: int
    tokens: int
    seconds: float
    lines_per_second: float
    tokens_per_second: float
    tree: int
    hits: dict[str, HitRate]
    hit_rate: float


@dataclass(frozen=True, slots=True)
class DemoFigures:
    """`nodes` has, by worker, the adapters in its host and device memory."""

    seconds: float
    steps: tuple[StepFigures, ...]
    tenants: tuple[TenantFigures, ...]
    mean_accuracy: float
    mean_majority: float
    batches: tuple[BatchFigures, ...]
    comparison: Comparison
    adapter_bytes_on_disk: int
    nodes: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def tenant_figures(tenant: DemoTenant, portion: Portion, made: MadeAdapter, run: BatchRun) -> TenantFigures:
    usual, _ = Counter(sorted(each.label for each in portion.training)).most_common(1)[0]
    labels = [each.label for each in portion.test]
    right = sum(run.answers[line_id(tenant, number)].label == label for number, label in enumerate(labels))
    return TenantFigures(
        tenant=tenant.name,
        model=tenant.model,
        domain=tenant.domain,
        base=tenant.base,
        kind=tenant.kind,
        rank=tenant.rank,
        adapter_bytes=sum(path.stat().st_size for path in made.folder.iterdir()),
        training=len(portion.training),
        training_seconds=made.seconds,
        test=len(labels),
        accuracy=right / len(labels),
        majority=labels.count(usual) / len(labels),
    )


def batch_figures(run: BatchRun, tree: int, hits: Mapping[str, HitRate]) -> BatchFigures:
    tokens = sum(each.tokens for each in run.answers.values())
    total = HitRate(sum(each.lookups for each in hits.values()), sum(each.hits for each in hits.values()))
    return BatchFigures(
        id=run.id,
        lines=len(run.answers),
        tokens=tokens,
        seconds=run.seconds,
        lines_per_second=len(run.answers) / run.seconds,
        tokens_per_second=tokens / run.seconds,
        tree=tree,
        hits=dict(hits),
        hit_rate=total.share,
    )


def accuracy_table(tenants: Sequence[TenantFigures]) -> Table:
    """Each tenant's accuracy beside that of always answering its most frequent label, in 80 columns."""
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
    """The share of looked-up n-grams that the tree held, a row per domain and a column per run."""
    domains = sorted({name for run in runs for name in run.hits})
    rows = [(name, *(_found(run.hits.get(name)) for run in runs)) for name in domains]
    rows.append(("all", *(_percent(run.hit_rate) for run in runs)))
    return table(("domain", *(f"tree {run.tree}" for run in runs)), rows)


def residency_table(adapters: int, on_disk: int, nodes: Sequence[NodeObject]) -> Table:
    """The adapters on disk and in each worker's host and device memory."""
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
