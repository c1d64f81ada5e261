"""Planning tables: which n-grams each domain's next table holds, as a pure function of counts and previous version.

From the root down, each domain takes, within its byte budget, the n-grams that save most lookups per byte, for itself
and its descendants together, except those that an ancestor of the same function holds already. A key is offered to a
domain that looks it up itself, and to one with two or more children whose subtrees request it: there it is stored once
(hoisted) and not once in each. A key that a single child requests stays with the child.

A domain with a delta chooses regardless of what its foreign ancestors hold. It stores a row, or an alias of 8 bytes
where the ancestors' row is close enough. Only the rows can tell which (`build`). The plan counts on an alias if the
previous version had it and the ancestors give the same row again: the budget holds whatever the rows turn out to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.counts import BackoffEstimates, Demand, DomainCounts, SharingRule, Waiting, subtree_demands
from hmi.knowledge.domains import Function, Parents, ancestor_chains, function_run
from hmi.knowledge.ngrams import Keys, holds, union
from hmi.knowledge.plan.coverage import PlannedTable, predicted_hit_rates
from hmi.knowledge.plan.previous import PreviousTable, kept_aliases

ALIAS_BYTES = 8  # of an alias: its key
_EVERYTHING = SharingRule()


@dataclass(frozen=True, slots=True)
class TreePlan:
    """What the next version holds, by domain."""

    parents: Parents
    functions: Mapping[str, Function]
    tables: Mapping[str, Keys]  # ascending keys of rows and aliases, possibly none
    predicted: Mapping[str, float] = field(default_factory=dict)  # hit rates (0..1), see `coverage`
    # For each domain whose parent has another function: the share of aliases (0..1) among its n-grams that ancestors
    # hold, as far as it was known. The next plan begins with it.
    alias_shares: Mapping[str, float] = field(default_factory=dict)
    waiting: Mapping[str, Waiting] = field(default_factory=dict)  # n-grams that may not be held yet


def plan_tree(
    counts: Mapping[str, DomainCounts],
    parents: Parents,
    functions: Mapping[str, Function],
    previous: Mapping[str, PreviousTable],
    vocabulary: int,
    node_bytes: int,
    row_bytes: int,
    hysteresis: float = 1.2,
    *,
    backoff: BackoffEstimates | None = None,
    rule: SharingRule = _EVERYTHING,
) -> TreePlan:
    """Plan the next version. The same arguments give the same plan.

    If all domains have one function, a plan given as `previous` with the same counts comes out again. More weight for a
    key never costs it its place in the domain that looked it up, unless its bigrams are windows of other domains too.

    Args:
        counts: By domain; n-grams that are no windows of the vocabulary are ignored.
        previous: The previous version's tables, by domain; empty for the first version.
        node_bytes: Budget of each domain's own table, rows and aliases.
        row_bytes: Bytes of one entry (`rows.entry_bytes`).
        hysteresis: Factor on the saving of a key that the previous version held in the domain, or above it with the
            same function, so that equals do not alternate.
        backoff: For domains with lookups under `backoff`; None: their misses cost as much as those under `exact`.
        rule: What each table may hold, by the tenants that asked.

    Raises `Corrupt` if the parents are no tree, `InvalidInput` for counts of an unknown domain or invalid weights.
    """
    if hysteresis < 1 or row_bytes < ALIAS_BYTES or node_bytes < 0:
        raise ValueError(f"not a budget: {node_bytes} bytes, {row_bytes} a row, hysteresis {hysteresis}")
    chains = ancestor_chains(parents)
    if unknown := sorted(set(counts) - set(chains)):
        raise InvalidInput(f"counts for domains that do not exist: {', '.join(unknown)}")
    selected, waiting = rule.select(counts, parents)
    downwards = sorted(chains, key=lambda domain: (len(chains[domain]), domain))
    digests = {domain: functions[domain].digest for domain in chains}
    shares = _alias_shares(parents, digests, previous)
    demands = subtree_demands(selected, parents, downwards[::-1], vocabulary, shares, backoff, rule)
    # The root holds all unigrams, outside of its budget. So does the topmost domain of another function if a domain of
    # that function has lookups under `backoff`: the root's unigrams are another model's rows.
    always = dict.fromkeys((chain[-1] for chain in chains.values()), ngrams.unigrams(vocabulary))
    for domain in (each for each in counts if counts[each].approximate_share > 0):
        always[function_run(chains[domain], digests)[0][-1]] = ngrams.unigrams(vocabulary)
    planner = _Planner(chains, digests, previous, always, rule)
    for domain in downwards:
        planner.plan_domain(domain, demands.pop(domain), node_bytes, row_bytes, hysteresis)
    predicted = predicted_hit_rates(selected, parents, planner.planned, digests)
    tables = {domain: table.keys for domain, table in planner.planned.items()}
    return TreePlan(dict(parents), dict(functions), tables, predicted, shares, waiting)


class _Planner:
    """Plans one domain after the other, parents first.

    It keeps which function's row lookups will find for planned keys, as far as that is known before rows are compared.
    A domain without foreign ancestors holds rows. Otherwise a key that was compared for the previous version stays a
    row or an alias, unless what the ancestors give has changed; a new key is a row if the ancestors give none.
    """

    def __init__(
        self,
        chains: Mapping[str, tuple[str, ...]],
        digests: Mapping[str, str],
        previous: Mapping[str, PreviousTable],
        always: Mapping[str, Keys],
        rule: SharingRule,
    ) -> None:
        """`digests` are of each domain's function; `always` are keys held outside of the budget, by domain."""
        self._chains = chains
        self._digests = digests
        self._previous = previous
        self._always = always
        self._rule = rule
        self.planned: dict[str, PlannedTable] = {}
        self._sources: dict[str, dict[str, Keys]] = {}  # domain -> digest of the rows' function -> ascending keys

    def plan_domain(self, domain: str, demand: Demand, node_bytes: int, row_bytes: int, hysteresis: float) -> None:
        run, foreign = function_run(self._chains[domain], self._digests)
        always = self._always.get(domain)
        above = [self.planned[each].keys for each in run[1:]] + ([] if always is None else [always])
        kept = self._was_held(run, demand.keys)
        allowed = self._rule.may_be_held(domain, demand.tenants)
        free = allowed & demand.is_offered(kept, hysteresis) & ~holds(above, demand.keys)
        keys, savings, favour = demand.keys[free], demand.savings[free], np.where(kept, hysteresis, 1.0)[free]
        costs = np.where(self._kept_aliases(domain, foreign, keys), ALIAS_BYTES, row_bytes)
        best, least = _best(savings * favour, costs, node_bytes)
        margin = savings[best] - least * costs[best] / favour[best] if least else np.full(len(best), np.inf)
        table = PlannedTable(keys[best], margin, demand.requesters[free][best], demand.common, demand.per_lookup)
        self.planned[domain] = table if always is None else _with_all(always, table)
        self._sources[domain] = self._sources_of(domain, foreign)

    def _was_held(self, run: Sequence[str], keys: Keys) -> NDArray[np.bool_]:
        """Return which keys `[n]` the previous version held in a domain of the run, with the same function."""
        tables = [self._previous[each] for each in run if each in self._previous]
        same = [table for table in tables if table.function == self._digests[run[0]]]
        return holds([each for table in same for each in (table.keys, table.aliases)], keys)

    def _kept_aliases(self, domain: str, foreign: str | None, keys: Keys) -> NDArray[np.bool_]:
        if foreign is None:
            return np.zeros(len(keys), bool)
        return kept_aliases(self._compared_tables(domain, foreign), keys, self._gives(foreign))

    def _sources_of(self, domain: str, foreign: str | None) -> dict[str, Keys]:
        keys, own = self.planned[domain].keys, self._digests[domain]
        if foreign is None:
            return {own: keys}
        tables, gives = self._compared_tables(domain, foreign), self._gives(foreign)
        is_alias = kept_aliases(tables, keys, gives)
        is_compared = holds([table.compared for table in tables], keys)
        is_above = holds([self.planned[each].keys for each in self._run(foreign)], keys)
        aliases = keys[is_alias]
        sources = {each for table in tables for each in table.sources}
        return {own: keys[~is_alias & (is_compared | ~is_above)]} | {
            source: aliases[gives(source, aliases)] for source in sources
        }

    def _compared_tables(self, domain: str, foreign: str) -> list[PreviousTable]:
        """Return the previous tables, of the domain's scope alone, that were compared with the same function's."""
        functions = self._digests[domain], self._digests[foreign]
        scope = self._rule.scope(domain)
        return [
            table
            for each, table in self._previous.items()
            if (table.function, table.alias_function) == functions and self._rule.scope(each) == scope
        ]

    def _gives(self, foreign: str) -> Callable[[str, Keys], NDArray[np.bool_]]:
        known = [self._sources[each] for each in self._run(foreign)]
        return lambda source, keys: holds([each[source] for each in known if source in each], keys)

    def _run(self, domain: str) -> tuple[str, ...]:
        return function_run(self._chains[domain], self._digests)[0]


def _with_all(always: Keys, chosen: PlannedTable) -> PlannedTable:
    """Add ascending keys that are held whatever is requested."""
    keys = union([always, chosen.keys])
    margin, requesters = np.full(len(keys), np.inf), np.full(len(keys), np.iinfo(np.int64).max)
    at = np.searchsorted(keys, chosen.keys)
    margin[at], requesters[at] = chosen.margin, chosen.requesters
    return PlannedTable(keys, margin, requesters, chosen.common, chosen.per_lookup)


def _alias_shares(
    parents: Parents, digests: Mapping[str, str], previous: Mapping[str, PreviousTable]
) -> dict[str, float]:
    """Return `TreePlan.alias_shares`; 1 where nothing is known."""
    shares = {}
    for domain, parent in parents.items():
        if parent is not None and digests[domain] != digests[parent]:
            table = previous.get(domain)
            same = table is not None and (table.function, table.alias_function) == (digests[domain], digests[parent])
            shares[domain] = table.alias_share if table is not None and same else 1.0
    return shares


def _best(savings: NDArray[np.float64], costs: NDArray[np.int64], budget: int) -> tuple[NDArray[np.intp], float]:
    """Return which entries `[n]` to hold, ascending: those with the largest saving per byte that fit, the first of
    equals. Also return the saving per byte of the first that does not fit, 0 if all do.
    """
    if int(costs.sum()) <= budget:
        return np.arange(len(savings)), 0.0
    order = np.argsort(-(savings / costs), kind="stable")
    used = np.cumsum(costs[order])
    fits = used <= budget
    first = int(np.argmin(fits))  # the first that does not fit; smaller ones after it may
    rest = order[first:]
    left = budget - (int(used[first - 1]) if first else 0)
    small = rest[costs[rest] == ALIAS_BYTES][: left // ALIAS_BYTES]
    return np.sort(np.concatenate([order[:first], small])), float(savings[rest[0]] / costs[rest[0]])
