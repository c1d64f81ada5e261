"""What it costs that a shared table holds an n-gram only if enough different tenants asked for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.coverage.corpora import Corpus, Windows
from benchmarks.coverage.planning import Found, Planner, find
from hmi.knowledge import Keys, Parents
from hmi.knowledge.counts import DomainCounts, FrequencyCounter, SharingRule
from hmi.tenant_bits import TENANT_BITS, bitmap_of

_PRIVATE = "private"


def measure_tenants(
    corpus: Corpus,
    windows: Mapping[str, Windows],
    planner: Planner,
    tenants: Sequence[int],
    least: Sequence[int],
    judges: int,
) -> list[dict[str, Any]]:
    """Return the hit rate on new text of the same tenants, by number of tenants and by how many must ask.

    Tenants are dealt to the domains in turns, and a domain's texts to its tenants. `private` gives each tenant a
    private domain below the one that it belongs to. Every `judges`-th text of a tenant is looked up and never counted.
    """
    rows = []
    for number in tenants:
        asked = deal(windows, number, judges)
        for min_tenants in least:
            parents, counts, queries = _shared(corpus.parents, asked)
            rows.append(_row(number, min_tenants, planner, parents, counts, queries, SharingRule(min_tenants)))
        parents, counts, queries = _private(corpus.parents, asked)
        rule = SharingRule(
            max(least), {name: name for name in counts}, {name: _bitmap(int(name.split("-")[-1])) for name in counts}
        )
        rows.append(_row(number, _PRIVATE, planner, parents, counts, queries, rule))
    return rows


Asked = Mapping[str, Mapping[int, tuple[Keys, Keys]]]
"""By domain and tenant: the windows that are counted, and those that are looked up."""


def deal(windows: Mapping[str, Windows], tenants: int, judges: int) -> Asked:
    """Deal each domain's texts to its tenants in turns."""
    domains = sorted(windows)
    asked: dict[str, dict[int, tuple[Keys, Keys]]] = {}
    for place, domain in enumerate(domains):
        mine = range(place, tenants, len(domains))
        texts = [windows[domain].part(text, text + 1) for text in range(len(windows[domain]))]
        asked[domain] = {}
        for turn, tenant in enumerate(mine):
            own = texts[turn :: len(mine)]
            new = own[judges - 1 :: judges]
            seen = [text for index, text in enumerate(own) if index % judges != judges - 1]
            asked[domain][tenant] = _joined(seen), _joined(new)
    return asked


def _shared(parents: Parents, asked: Asked) -> tuple[Parents, dict[str, DomainCounts], dict[str, Keys]]:
    counts = {domain: _count({tenant: seen for tenant, (seen, _) in each.items()}) for domain, each in asked.items()}
    return parents, counts, {domain: _joined([new for _, new in each.values()]) for domain, each in asked.items()}


def _private(parents: Parents, asked: Asked) -> tuple[Parents, dict[str, DomainCounts], dict[str, Keys]]:
    below, counts, queries = dict(parents), {}, {}
    for domain, each in asked.items():
        for tenant, (seen, new) in each.items():
            name = f"{domain}-{tenant}"
            below[name] = domain
            counts[name], queries[name] = _count({tenant: seen}), new
    return below, counts, queries


def _row(
    tenants: int,
    least: int | str,
    planner: Planner,
    parents: Parents,
    counts: Mapping[str, DomainCounts],
    queries: Mapping[str, Keys],
    rule: SharingRule,
) -> dict[str, Any]:
    plan = planner.plan(counts, parents, None, rule=rule)
    found = sum(find(queries, parents, plan.tables).values(), Found())
    return {
        "tenants": tenants,
        "min_tenants": least,
        "hit_rate": round(found.hit_rate, 4),
        "entries": sum(len(keys) for keys in plan.tables.values()) - planner.spec.vocab_size,
        "waiting": sum(each.tenants for each in plan.waiting.values()),
    }


def _count(seen: Mapping[int, Keys]) -> DomainCounts:
    counter = FrequencyCounter(max(1, sum(map(len, seen.values()))))
    for tenant, keys in seen.items():
        counter.count("", "", keys, np.zeros(len(keys), bool), 0, tenants=[(_bitmap(tenant), len(keys))])
    (counted,) = counter.drain()
    return DomainCounts(counted.keys, counted.counts.astype(np.float64), tenants=counted.tenants)


def _bitmap(tenant: int) -> int:
    return bitmap_of(tenant % TENANT_BITS)


def _joined(parts: Sequence[Keys]) -> Keys:
    return np.concatenate(parts) if parts else np.empty(0, np.uint64)
