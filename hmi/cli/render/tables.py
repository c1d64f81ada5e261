"""Tables of workers, batches and jobs, and the words in their cells."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from hmi.schemas import BatchObject, JobObject, NodeObject

if TYPE_CHECKING:
    from hmi.training.distill import Fidelity


def moment(seconds: float | None) -> str:
    """Local date and time of Unix seconds, "" for None."""
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
    """Plain cells under headings; columns of numbers are aligned to the right."""
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
    """The adapters in each worker by tier, and how often each tier had the one that was needed."""
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
    """The work of each worker."""
    rows = []
    for node in nodes:
        counts = [int(node.stats.get(name, 0)) for name in ("batches", "sequences", "tokens", "computed_windows")]
        rows.append((node.name, node.pid, str(node.stats.get("dtype", "")), *counts, moment(node.seen_at)))
    return table(("node", "process", "dtype", "batches", "sequences", "tokens", "computed n-grams", "last seen"), rows)


def batch_table(batches: Iterable[BatchObject]) -> Table:
    """The state of batches."""
    rows = []
    for batch in batches:
        counts = (batch.request_counts.total, batch.request_counts.completed, batch.request_counts.failed)
        rows.append((batch.id, batch.status, batch.endpoint, *counts, moment(batch.created_at)))
    return table(("batch", "status", "endpoint", "lines", "completed", "failed", "created"), rows)


def job_table(jobs: Iterable[JobObject]) -> Table:
    """The state of fine-tuning jobs."""
    rows = []
    for job in jobs:
        progress, details = job.hmi.progress, job.hmi
        share = f"{100 * progress.done // progress.steps}%" if progress and progress.steps else ""
        task = details.task.replace("_", " ")
        made = job.fine_tuned_model
        rows.append((job.id, job.status, job.model, task, details.examples, share, made, moment(job.created_at)))
    return table(("job", "status", "from", "task", "examples", "done", "model", "created"), rows)


def fidelity_table(k: int, before: Fidelity, fitted: Fidelity, after: Fidelity) -> Table:
    """The relative errors of a base model against the unchanged model, by layer from the k-th."""
    stages = (before, fitted, after)
    names = ["after the lookup", *(f"layer {k + number}" for number in range(1, len(after.layers))), "text's mean"]
    errors = zip(*((*each.layers, each.pooled) for each in stages), strict=True)
    rows = [(name, *(f"{error:.3f}" for error in row)) for name, row in zip(names, errors, strict=True)]
    perplexities = [each.perplexity for each in stages if each.perplexity]
    if len(perplexities) == len(stages):
        original = perplexities[0].original
        rows += [
            (f"perplexity, of {original:.2f}", *(f"{each.perplexity:.2f}" for each in perplexities)),
            ("divergence of the next token, nats", *(f"{each.divergence:.2f}" for each in perplexities)),
            ("same likeliest token, %", *(f"{100 * each.agreement:.2f}" for each in perplexities)),
        ]
    return table(("error against the unchanged model", "converted", "fitted", "distilled"), rows)
