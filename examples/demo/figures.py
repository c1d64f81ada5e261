"""The demonstration's figures: what `--json` prints and `demo.json` in the data folder keeps."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from examples.demo.batches import BatchRun, Comparison, line_id
from examples.demo.making import MadeAdapter
from examples.demo.tenants import DemoTenant, Portion
from examples.demo.trees import HitRate

__all__ = ["BatchFigures", "DemoFigures", "StepFigures", "TenantFigures", "batch_figures", "tenant_figures"]


@dataclass(frozen=True, slots=True)
class StepFigures:
    title: str
    seconds: float


@dataclass(frozen=True, slots=True)
class TenantFigures:
    """Shares are 0..1 of `test` sentences; `majority` always answers the label most frequent in training."""

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
    """`tree` is the version of the knowledge tree that it ran on; `hits` is by domain."""

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
    """`nodes` says, by worker, what its host and device memory hold of adapters."""

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
