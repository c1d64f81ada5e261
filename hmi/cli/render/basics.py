"""What the API answers, drawn for a terminal with rich."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from hmi.schemas import BatchObject, NodeObject

__all__ = [
    "BatchProgress",
    "adapter_words",
    "batch_table",
    "bytes_words",
    "hit_rate",
    "moment",
    "residency",
    "table",
    "workload",
]


def moment(seconds: float | None) -> str:
    """Unix seconds as local date and time, "" for None."""
    if seconds is None:
        return ""
    return datetime.datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def bytes_words(count: int) -> str:
    return decimal(count)


def hit_rate(lookups: int, hits: int) -> str:
    """A percentage, "-" where nothing was looked up."""
    return f"{100 * hits / lookups:.1f} %" if lookups else "-"


def adapter_words(summary: Mapping[str, Any]) -> str:
    """An adapter's summary in one cell: its kind, rank and labels."""
    kind = str(summary.get("kind", "none"))
    rank = f" {summary['rank']}" if summary.get("rank") else ""
    labels = summary.get("labels") or ()
    return f"{kind}{rank}" + (f": {', '.join(map(str, labels))}" if labels else "")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> Table:
    """Plain cells under headings; columns that hold only numbers stand to the right."""
    cells = [list(row) for row in rows]
    drawn = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for place, heading in enumerate(columns):
        numeric = all(isinstance(row[place], int | float) for row in cells)
        drawn.add_column(heading, justify="right" if numeric and cells else "left", overflow="fold")
    for row in cells:
        drawn.add_row(
            *(Text("" if cell is None else f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row)
        )
    return drawn


def residency(nodes: Sequence[NodeObject]) -> Table:
    """Where adapters lie in each worker, by tier, with how often they were found there."""
    rows: list[Sequence[object]] = []
    for node in nodes:
        for tier, key in (("host memory", "host"), ("device memory", "on_device")):
            stats = node.stats.get(key)
            if not isinstance(stats, Mapping):
                continue
            used, budget = int(stats.get("bytes", 0)), int(stats.get("budget_bytes", 0))
            hits, misses = int(stats.get("hits", 0)), int(stats.get("misses", 0))
            rows.append(
                (
                    node.name,
                    node.device,
                    tier,
                    int(stats.get("entries", 0)),
                    f"{bytes_words(used)} of {bytes_words(budget)}" if budget else "not made yet",
                    hit_rate(hits + misses, hits),
                    int(stats.get("evictions", 0)),
                )
            )
    return table(("node", "device", "tier", "adapters", "bytes", "found there", "evicted"), rows)


def workload(nodes: Sequence[NodeObject]) -> Table:
    """What each worker has run."""
    rows = [
        (
            node.name,
            node.pid,
            str(node.stats.get("dtype", "")),
            int(node.stats.get("batches", 0)),
            int(node.stats.get("sequences", 0)),
            int(node.stats.get("tokens", 0)),
            int(node.stats.get("computed_windows", 0)),
            moment(node.seen_at),
        )
        for node in nodes
    ]
    return table(("node", "process", "dtype", "batches", "sequences", "tokens", "computed n-grams", "last seen"), rows)


def batch_table(batches: Iterable[BatchObject]) -> Table:
    """How far batches are."""
    rows = [
        (
            each.id,
            each.status,
            each.endpoint,
            each.request_counts.total,
            each.request_counts.completed,
            each.request_counts.failed,
            moment(each.created_at),
        )
        for each in batches
    ]
    return table(("batch", "status", "endpoint", "lines", "completed", "failed", "created"), rows)


class BatchProgress(Progress):
    """A bar over a batch's lines: `update_from` what the API says of it."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("lines{task.fields[failed]}"),
            TimeElapsedColumn(),
            **options,
        )
        self._bar = self.add_task("batch", total=None, failed="")

    def update_from(self, batch: BatchObject) -> None:
        counts = batch.request_counts
        self.update(
            self._bar,
            description=batch.status.replace("_", " "),
            total=counts.total or None,
            completed=counts.completed + counts.failed,
            failed=f", {counts.failed} failed" if counts.failed else "",
        )
