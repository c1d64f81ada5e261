"""Throughput of the miss policies against the tree's hit rate, beside the ordinary model, in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.coverage.corpora import ROOT, Corpus, Windows, all_texts
from benchmarks.coverage.planning import count, heaviest_for
from benchmarks.serving import BACKOFF, EXACT, EXACT_NO_CACHE, ORDINARY, Query, Server, compare, open_servers
from hmi.bench import SHAPES, fill_tree, make_base
from hmi.engine import EngineConfig
from hmi.knowledge import unigrams, union


@dataclass(frozen=True, slots=True)
class PaysPlan:
    """How much is measured."""

    device: str
    dtype: str
    cases: Sequence[tuple[str, int]]  # shape and k of each curve
    hit_rates: Sequence[float]  # the points of each curve
    rounds: int  # of each point
    portion: int  # texts in one round of an engine
    warming: int  # texts served before the first round, which fill the miss cache


def measure_pays(folder: Path, corpora: Sequence[Corpus], tokenizer: Tokenizer, plan: PaysPlan) -> list[dict[str, Any]]:
    """Return the report's part `pays`, one entry for each case.

    The texts that are timed, those that warm the caches and those that the tree knows have no text in common.
    """
    texts = all_texts(corpora)
    timed = plan.rounds * plan.portion
    served, warming, counted = texts[:timed], texts[timed : timed + plan.warming], texts[timed + plan.warming :]
    counts = count(Windows.of(counted, tokenizer).keys)
    looked_up = Windows.of(served, tokenizer).keys
    queries: list[Query] = [(ROOT, text) for text in served]
    portions = [queries[at : at + plan.portion] for at in range(0, len(queries), plan.portion)]
    cases = []
    for shape, k in plan.cases:
        base, ordinary = folder / f"{shape}-k{k}", folder / f"{shape}-k0"
        make_base(base, SHAPES[shape], k, tokenizer)
        make_base(ordinary, SHAPES[shape], 0, tokenizer)
        with ExitStack() as stack:
            lasting = open_servers(stack, base, ordinary, plan.device, plan.dtype, miss_cache=False)
            engine = lasting[ORDINARY].engine
            vocabulary = unigrams(lasting[EXACT_NO_CACHE].spec.vocab_size)
            for server in lasting.values():
                server.run(portions[0])  # a process's first run is slower
            points = []
            for number, rate in enumerate(plan.hit_rates):
                keys = union([vocabulary, heaviest_for(counts, looked_up, rate)])
                tree = fill_tree(folder / f"{base.name}-{number}", base, keys)
                # An engine of its own: its miss cache holds what this tree lacked and no other.
                with Server(base, EngineConfig(device=plan.device, dtype=plan.dtype)) as cached:
                    for server in (cached, lasting[EXACT_NO_CACHE], lasting[BACKOFF]):
                        server.publish(tree)
                    cached.run([(ROOT, text) for text in warming])
                    rates = compare({EXACT: cached, **lasting}, portions)
                point = {name: dataclasses.asdict(each) for name, each in rates.items()}
                points.append({"aimed_at": rate, "hit_rate": round(rates[EXACT_NO_CACHE].hit_rate or 0.0, 4), **point})
        cases.append(
            {
                "shape": shape,
                "k": k,
                "device": str(engine.device),
                "dtype": str(engine.dtype).removeprefix("torch."),
                "points": points,
                "exact_pays_from_hit_rate": _pays_from(points, EXACT),
                "exact_pays_from_hit_rate_without_cache": _pays_from(points, EXACT_NO_CACHE),
            }
        )
    return cases


def crossing(rates: Sequence[float], ratios: Sequence[float], level: float = 1.0) -> float | None:
    """Return the hit rate from which the ratio stays at `level` or above, on straight lines between the points.

    `rates` ascend; `ratios` are the throughput at each, over that of the model that looks nothing up.
    None where the ratio is below `level` at the highest rate; the lowest rate where it is never below.
    """
    below = [place for place, ratio in enumerate(ratios) if ratio < level]
    if not below:
        return rates[0] if rates else None
    last = below[-1]
    if last == len(ratios) - 1:
        return None
    step = (level - ratios[last]) / (ratios[last + 1] - ratios[last])
    return rates[last] + step * (rates[last + 1] - rates[last])


def _pays_from(points: Sequence[dict[str, Any]], name: str) -> float | None:
    found = crossing([point["hit_rate"] for point in points], [point[name]["ratio"] for point in points])
    return None if found is None else round(found, 3)
