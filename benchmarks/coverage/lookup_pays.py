"""Throughput of the miss policies against the tree's hit rate, beside the ordinary model, in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.coverage.corpora import ROOT, Corpus, Windows, all_texts
from benchmarks.coverage.curve import count
from benchmarks.coverage.pays import crossing, heaviest_for
from benchmarks.coverage.plan import CoveragePlan
from benchmarks.coverage.serving import (
    BACKOFF,
    EXACT,
    EXACT_ALONE,
    ORDINARY,
    Query,
    Rate,
    Server,
    compare,
    open_servers,
)
from hmi.bench import SHAPES, fill_tree, make_base
from hmi.engine import EngineConfig
from hmi.knowledge import Keys, unigrams, union
from hmi.knowledge.counts import DomainCounts

__all__ = ["measure_pays"]


def measure_pays(
    folder: Path, corpora: Sequence[Corpus], tokenizer: Tokenizer, plan: CoveragePlan
) -> list[dict[str, Any]]:
    """The report's part `pays`, one entry for each case."""
    served, warming, counted = _cut(all_texts(corpora), plan)
    counts = count(Windows.of(counted, tokenizer).keys)
    asked = Windows.of(served, tokenizer).keys
    return [_measure(folder, shape, k, tokenizer, plan, served, warming, counts, asked) for shape, k in plan.cases]


def _cut(texts: Sequence[str], plan: CoveragePlan) -> tuple[Sequence[str], Sequence[str], Sequence[str]]:
    """Texts that are timed, texts served before them, and all others, which the tree knows: no text is in two."""
    timed = plan.rounds * plan.portion
    return texts[:timed], texts[timed : timed + plan.warming], texts[timed + plan.warming :]


def _measure(
    folder: Path,
    shape: str,
    k: int,
    tokenizer: Tokenizer,
    plan: CoveragePlan,
    served: Sequence[str],
    warming: Sequence[str],
    counts: DomainCounts,
    asked: Keys,
) -> dict[str, Any]:
    base, ordinary = folder / f"{shape}-k{k}", folder / f"{shape}-k0"
    make_base(base, SHAPES[shape], k, tokenizer)
    make_base(ordinary, SHAPES[shape], 0, tokenizer)
    queries: list[Query] = [(ROOT, text) for text in served]
    portions = [queries[at : at + plan.portion] for at in range(0, len(queries), plan.portion)]
    points = []
    with ExitStack() as stack:
        lasting = open_servers(stack, base, ordinary, plan.device, plan.dtype, miss_cache=False)
        engine = lasting[ORDINARY].engine
        vocabulary = unigrams(lasting[EXACT_ALONE].spec.vocab_size)
        for server in lasting.values():
            server.run(portions[0])  # a process's first run is slower
        for number, rate in enumerate(plan.hit_rates):
            keys = union([vocabulary, heaviest_for(counts, asked, rate)])
            tree = fill_tree(folder / f"{base.name}-{number}", base, keys)
            # An engine of its own, so that its miss_cache holds what this tree lacked and no other.
            with Server(base, EngineConfig(device=plan.device, dtype=plan.dtype)) as kept:
                for server in (kept, lasting[EXACT_ALONE], lasting[BACKOFF]):
                    server.publish(tree)
                kept.run([(ROOT, text) for text in warming])
                points.append(_point(rate, compare({EXACT: kept, **lasting}, portions)))
    return {
        "shape": shape,
        "k": k,
        "device": str(engine.device),
        "dtype": str(engine.dtype).removeprefix("torch."),
        "mean_tokens": round(len(asked) / len(served), 1),
        "points": points,
        "exact_pays_from_hit_rate": _pays_from(points, EXACT),
        "exact_pays_from_hit_rate_without_overlay": _pays_from(points, EXACT_ALONE),
        "computed_per_miss": _computed_per_miss(points),
    }


def _point(rate: float, rates: dict[str, Rate]) -> dict[str, Any]:
    return {"aimed_at": rate, "hit_rate": round(rates[EXACT_ALONE].hit_rate or 0.0, 4)} | {
        name: dataclasses.asdict(rates[name]) for name in (EXACT, EXACT_ALONE, BACKOFF, ORDINARY)
    }


def _pays_from(points: Sequence[dict[str, Any]], name: str) -> float | None:
    found = crossing([point["hit_rate"] for point in points], [point[name]["ratio"] for point in points])
    return None if found is None else round(found, 3)


def _computed_per_miss(points: Sequence[dict[str, Any]]) -> float | None:
    """Different windows computed for each lookup that missed: what repeats in a batch is computed once."""
    shares = [
        point[EXACT_ALONE]["computed"] / (1 - point["hit_rate"])
        for point in points
        if point["hit_rate"] < 0.95 and point[EXACT_ALONE]["computed"] is not None
    ]
    return round(float(np.mean(shares)), 3) if shares else None
