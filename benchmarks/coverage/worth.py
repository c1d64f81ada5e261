"""The curve: how much of new text is held, against entries, bytes and the text that was counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.coverage.corpora import Corpus, Windows
from benchmarks.coverage.curve import Growth, Point, count, growth, split, sweep
from benchmarks.coverage.plan import CoveragePlan
from benchmarks.coverage.planning import Planner

__all__ = ["measure_worth"]

_LARGEST = 6  # domains of a corpus whose growth is shown
_WORTH = 2 / 3  # hit rate that the growth is continued to


def measure_worth(corpus: Corpus, tokenizer: Tokenizer, planner: Planner, plan: CoveragePlan) -> dict[str, Any]:
    """The report's part `curve` for one corpus."""
    windows = {domain: Windows.of(texts, tokenizer) for domain, texts in corpus.texts.items()}
    counted, asked = {}, {}
    for domain, each in windows.items():
        counted[domain], asked[domain] = split(each)
    counts = {domain: count(keys) for domain, keys in counted.items()}
    points = sweep(counts, asked, corpus, planner, plan.budgets)
    return {
        "corpus": corpus.name,
        "texts": sum(map(len, corpus.texts.values())),
        "tokens": sum(len(each.keys) for each in windows.values()),
        "distinct": sum(len(each.keys) for each in counts.values()),
        "seen_once_share": round(_seen_once(counts), 4),
        "points": [_point(each) for each in points],
        "growth": [_growth(each) for each in _growths(corpus, windows, tokenizer)],
    }


def _seen_once(counts: Mapping[str, Any]) -> float:
    weights = np.concatenate([each.weights for each in counts.values()])
    return float(np.mean(weights == 1))


def _growths(corpus: Corpus, windows: Mapping[str, Windows], tokenizer: Tokenizer) -> list[Growth]:
    largest = sorted(windows, key=lambda domain: -len(windows[domain].keys))[:_LARGEST]
    everything = dataclasses.replace(corpus, texts={"all": _fair(corpus)})
    return [
        *(growth(domain, windows[domain]) for domain in largest),
        growth("all", Windows.of(everything.texts["all"], tokenizer)),
    ]


def _fair(corpus: Corpus) -> list[str]:
    """All texts so that any stretch of them has every domain's share: the hundredth part of each, then the next."""
    return [
        text
        for part in range(100)
        for texts in corpus.texts.values()
        for text in texts[len(texts) * part // 100 : len(texts) * (part + 1) // 100]
    ]


def _point(point: Point) -> dict[str, Any]:
    return {
        "node_entries": point.node_entries,
        "entries": point.entries,
        "bytes": point.bytes,
        "hit_rate": round(point.found.hit_rate, 4),
        "own_share": round(1 - point.found.inherited_share, 4),
        "inherited_share": round(point.found.inherited_share, 4),
    }


def _growth(growth: Growth) -> dict[str, Any]:
    return {
        **dataclasses.asdict(growth),
        "hit_rate": [round(rate, 4) for rate in growth.hit_rate],
        "tokens_for_two_thirds": float(f"{growth.tokens_for(_WORTH):.3g}"),
    }
