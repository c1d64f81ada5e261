"""Traffic in time order: counted, and the tree planned anew from decayed counts at the end of every period."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.coverage.corpora import ROOT, Corpus, shuffled
from benchmarks.coverage.planning import Found, Planner, find
from hmi.knowledge import NO_KEYS, Keys, Parents, ancestor_chains, holds
from hmi.knowledge.counts import DomainCounts, FrequencyCounter, LookupCounts
from hmi.knowledge.plan import PreviousTable

REFERENCE = "reference"  # the domain of all glosses; its subjects drift

_MAX_KEYS = 2_000_000  # per domain, the engine's default

_FIRST_DOMAINS = {"movies", "news"}
# Nature, matter and motion before the drift; people, things and speech after it: about half of the text each.
_FIRST_SUBJECTS = {
    *("adj.all", "adj.pert", "noun.act", "noun.animal", "noun.body", "noun.food", "noun.location", "noun.object"),
    *("noun.phenomenon", "noun.plant", "noun.process", "noun.quantity", "noun.shape", "noun.state", "noun.substance"),
    *("verb.body", "verb.change", "verb.consumption", "verb.contact", "verb.motion"),
}
# Shares of the first half's domains and subjects that come before the drift, and of the others' that come after it.
_SENTENCES_SHARE, _GLOSSES_SHARE = 0.75, 0.9

Period = Mapping[str, Sequence[str]]
"""The texts between two rebuilds, by domain."""


@dataclass(frozen=True, slots=True)
class Served:
    """One period, answered by the version that was planned at the end of the period before."""

    found: Found
    by_domain: Mapping[str, Found]
    predicted: float | None  # hit rate that this version's plan predicted; None for the first period
    entries: int  # of the version planned at the end of this period
    added: int  # of these entries, those that the version before did not hold in the same domain


class DecayingCounts:
    """Counts of one base model under forward decay (Cormode et al., ICDE 2009), as the catalog keeps them.

    A count at time t weighs 2^(t / half-life), and what is read at time T is divided by 2^(T / half-life).
    """

    def __init__(self, half_life: float) -> None:
        self._half_life = half_life
        self._counts: dict[str, DomainCounts] = {}

    def add(self, deltas: Iterable[LookupCounts], at: float) -> None:
        """Add the counts that a counter held when it was drained at time `at`."""
        factor = 2.0 ** (at / self._half_life)
        for delta in deltas:
            old = self._counts.get(delta.domain, DomainCounts(NO_KEYS, np.empty(0), 0.0))
            keys, places = np.unique(np.concatenate([old.keys, delta.keys]), return_inverse=True)
            every = np.concatenate([old.weights, delta.counts * factor])
            weights = np.bincount(places, every, len(keys)).astype(np.float64)
            self._counts[delta.domain] = DomainCounts(keys, weights, (old.total or 0.0) + delta.lookups * factor)

    def load(self, at: float) -> dict[str, DomainCounts]:
        """Return the counts by domain, as they weigh at time `at`."""
        factor = 2.0 ** (at / self._half_life)
        return {
            domain: DomainCounts(each.keys, each.weights / factor, (each.total or 0.0) / factor)
            for domain, each in self._counts.items()
        }


def replay(
    periods: Sequence[Mapping[str, Keys]], parents: Parents, planner: Planner, node_entries: int, half_life: float
) -> list[Served]:
    """Answer each period's windows, count them and plan the next version; `half_life` is in periods."""
    counter = FrequencyCounter(_MAX_KEYS)
    counts = DecayingCounts(half_life)
    tables: Mapping[str, Keys] = {}
    predicted: float | None = None
    served = []
    for number, queries in enumerate(periods):
        by_domain = find(queries, parents, tables)
        for domain, keys in queries.items():
            hit = holds([tables[each] for each in ancestor_chains(parents)[domain] if each in tables], keys)
            counter.count(planner.base, domain, keys, hit, number, inherited=by_domain[domain].inherited)
        counts.add(counter.drain(), at=number + 1)
        demands = counts.load(at=number + 1)
        held = {domain: PreviousTable(planner.base, keys) for domain, keys in tables.items() if len(keys)}
        plan = planner.plan(demands, parents, node_entries, held)
        before, tables = tables, plan.tables
        added = sum(len(np.setdiff1d(keys, before.get(domain, keys[:0]))) for domain, keys in tables.items())
        entries = sum(len(keys) for keys in tables.values())
        served.append(Served(sum(by_domain.values(), Found()), by_domain, predicted, entries, added))
        predicted = _mean(plan.predicted, {domain: each.total or 0.0 for domain, each in demands.items()})
    return served


def parents_of(sentences: Corpus) -> Parents:
    """The demonstration's domains and one more for the glosses."""
    return {**sentences.parents, REFERENCE: ROOT}


def drifting(sentences: Corpus, definitions: Corpus, periods: int) -> tuple[list[Period], list[Period]]:
    """`periods` periods before a drift and as many after it. No text comes twice."""
    before, after = list[tuple[str, str]](), list[tuple[str, str]]()
    for source, domain, texts in _sources(sentences, definitions):
        share = _GLOSSES_SHARE if domain == REFERENCE else _SENTENCES_SHARE
        is_first = source in _FIRST_DOMAINS | _FIRST_SUBJECTS
        cut = round((share if is_first else 1 - share) * len(texts))
        before += [(domain, text) for text in texts[:cut]]
        after += [(domain, text) for text in texts[cut:]]
    return _periods(before, periods), _periods(after, periods)


def _sources(sentences: Corpus, definitions: Corpus) -> list[tuple[str, str, Sequence[str]]]:
    """Return (source, domain that its texts are looked up in, texts that no source before it has)."""
    seen: set[str] = set()
    sources = list[tuple[str, str, Sequence[str]]]()
    for corpus, domain_of in ((sentences, lambda source: source), (definitions, lambda _: REFERENCE)):
        for source in sorted(corpus.texts):
            new = [text for text in corpus.texts[source] if text not in seen]
            seen.update(new)
            sources.append((source, domain_of(source), new))
    return sources


def _periods(texts: Sequence[tuple[str, str]], count: int) -> list[Period]:
    """Cut into parts of equally many texts, each a fair sample of all."""
    domain_of = {text: domain for domain, text in texts}
    ordered = shuffled(domain_of, salt="time")
    periods = list[Period]()
    for number in range(count):
        period: dict[str, list[str]] = defaultdict(list)
        for text in ordered[len(ordered) * number // count : len(ordered) * (number + 1) // count]:
            period[domain_of[text]].append(text)
        periods.append(dict(period))
    return periods


def _mean(rates: Mapping[str, float], weights: Mapping[str, float]) -> float | None:
    total = sum(weights[domain] for domain in rates)
    return sum(rates[domain] * weights[domain] for domain in rates) / total if total else None
