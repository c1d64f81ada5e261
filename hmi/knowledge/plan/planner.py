"""Which n-grams each domain's table should hold: a pure function of counts and the old version.

From the root down, each domain takes, within its byte budget, the n-grams that save most lookups per byte: its own and
its descendants' together, less what the domains above it hold already that have the same function. An n-gram is offered
to a domain that is asked for it directly, and to one with two or more children whose subtrees want it: there it is
stored once (hoisted) instead of once in each. One that a single child wants stays with the child.

In a domain with a delta, rows above it are another function's, and it chooses whatever its ancestors hold. What it
chooses is stored as a row, or as an alias of 8 bytes where the ancestors' row is as good. Only the rows can tell which
(`build`). The plan counts on an alias where the previous version had one and the ancestors give the same row again, so
that the budget holds whatever the rows turn out to be.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.counts import BackoffEstimates, DomainCounts, subtree_demands
from hmi.knowledge.domains import Function, Parents, ancestor_chains, function_run
from hmi.knowledge.ngrams import Keys, holds, union
from hmi.knowledge.plan.coverage import PlannedTable, predicted_hit_rates
from hmi.knowledge.plan.previous import PreviousTable, kept_aliases

__all__ = ["ALIAS_BYTES", "TreePlan", "plan_tree"]

ALIAS_BYTES = 8
"""What an alias takes: its key."""


@dataclass(frozen=True, slots=True)
class TreePlan:
    """What the next version holds.

    Attributes:
        functions: By domain.
        tables: Ascending keys, as rows or aliases, for every domain, be they none.
        predicted: Hit rate (0..1) to be expected of each domain that was asked for anything, see `coverage`.
        alias_shares: Of each domain with another function above it, the share of aliases (0..1) among its n-grams that
            ancestors hold, as far as it was known. The next plan begins with it.
    """

    parents: Parents
    functions: Mapping[str, Function]
    tables: Mapping[str, Keys]
    predicted: Mapping[str, float] = field(default_factory=dict)
    alias_shares: Mapping[str, float] = field(default_factory=dict)


def plan_tree(
    demands: Mapping[str, DomainCounts],
    parents: Parents,
    functions: Mapping[str, Function],
    old: Mapping[str, PreviousTable],
    vocabulary: int,
    node_bytes: int,
    row_bytes: int,
    hysteresis: float = 1.2,
    *,
    backoff: BackoffEstimates | None = None,
) -> TreePlan:
    """Plan the next version.

    The same arguments give the same plan. While all domains have one function, a plan given as `old` with the same
    counts comes out again. More weight for a key never loses its place for the domain that asked for it, where its
    bigrams are no other windows' of other domains: those gain a little of it too, and what that moves between domains
    may need its place.

    Args:
        demands: By domain; n-grams that are no windows of the vocabulary are left out.
        functions: Of every domain.
        old: The old version's tables, by domain; empty for the first.
        vocabulary: Tokens of the model. The root holds all unigrams, outside of any budget; and so does the topmost
            domain of another function, where domains of that function are served approximately: those of the root
            would be another model's rows.
        node_bytes: Budget of each domain's own table, rows and aliases.
        row_bytes: What one entry takes (`rows.entry_bytes`).
        hysteresis: A key that the old version held in the domain or above it, with the same function, counts as this
            much heavier there, so that two equals do not take turns.
        backoff: For domains with lookups under `backoff`; None: their misses cost as much as those under `exact`.

    Raises:
        Corrupt: The parents are no tree.
        InvalidInput: Counts of a domain that does not exist, or weights that are none.
    """
    if hysteresis < 1 or row_bytes < ALIAS_BYTES or node_bytes < 0:
        raise ValueError(f"not a budget: {node_bytes} bytes, {row_bytes} a row, hysteresis {hysteresis}")
    lines = ancestor_chains(parents)
    if unknown := sorted(set(demands) - set(lines)):
        raise InvalidInput(f"counts for domains that do not exist: {', '.join(unknown)}")
    downwards = sorted(lines, key=lambda domain: (len(lines[domain]), domain))
    digests = {domain: functions[domain].digest for domain in lines}
    shares = _alias_shares(parents, digests, old)
    wanted = subtree_demands(demands, parents, downwards[::-1], vocabulary, shares, backoff)
    alone = ngrams.unigrams(vocabulary)
    tops = {
        function_run(lines[each], digests)[0][-1] for each, counts in demands.items() if counts.approximate_share > 0
    }
    tables: dict[str, Keys] = {}
    held: dict[str, PlannedTable] = {}
    rows = _SureRows(digests, lines, tables, old)
    for domain in downwards:
        segment, foreign = function_run(lines[domain], digests)
        holds_all = len(segment) == 1 and (foreign is None or domain in tops)
        above = [tables[each] for each in segment[1:]] or ([alone] if holds_all else [])
        demand = wanted.pop(domain)
        kept = _kept(old, segment, digests[domain], demand.keys)
        free = demand.offered(kept, hysteresis) & ~holds(above, demand.keys)
        keys, savings, favour = demand.keys[free], demand.savings[free], np.where(kept, hysteresis, 1.0)[free]
        costs = np.where(rows.kept_aliases(domain, foreign, keys), ALIAS_BYTES, row_bytes)
        best, least = _best(savings * favour, costs, node_bytes)
        spare = savings[best] - least * costs[best] / favour[best] if least else np.full(len(best), np.inf)
        chosen = PlannedTable(keys[best], spare, demand.voters[free][best], demand.common, demand.per_lookup)
        held[domain] = _with_all(alone, chosen) if holds_all else chosen
        tables[domain] = held[domain].keys
        rows.add(domain, foreign)
    predicted = predicted_hit_rates(demands, parents, held, digests)
    return TreePlan(dict(parents), dict(functions), tables, predicted, shares)


def _with_all(always: Keys, chosen: PlannedTable) -> PlannedTable:
    """The same with ascending keys that are held whoever asks."""
    keys = union([always, chosen.keys])
    spare, voters = np.full(len(keys), np.inf), np.full(len(keys), np.iinfo(np.int64).max)
    at = np.searchsorted(keys, chosen.keys)
    spare[at], voters[at] = chosen.spare, chosen.voters
    return PlannedTable(keys, spare, voters, chosen.common, chosen.per_lookup)


def _alias_shares(parents: Parents, digests: Mapping[str, str], old: Mapping[str, PreviousTable]) -> dict[str, float]:
    """How many of a domain's n-grams are as good with rows of its parent's other function; 1 where nothing is known."""
    shares = {}
    for domain, parent in parents.items():
        if parent is not None and digests[domain] != digests[parent]:
            table = old.get(domain)
            same = table is not None and (table.function, table.alias_function) == (digests[domain], digests[parent])
            shares[domain] = table.alias_share if table is not None and same else 1.0
    return shares


def _kept(old: Mapping[str, PreviousTable], segment: tuple[str, ...], function: str, keys: Keys) -> NDArray[np.bool_]:
    tables = [old[each] for each in segment if each in old and old[each].function == function]
    return holds([each for table in tables for each in (table.keys, table.aliases)], keys)


class _SureRows:
    """Which function's row lookups will find for planned n-grams, as far as that is sure before rows are compared.

    A domain with no other function above it holds rows. Below one, an n-gram of the old version that was compared stays
    what it is, unless what the ancestors give has changed; a new one is a row if the ancestors give none.
    """

    def __init__(
        self,
        digests: Mapping[str, str],
        lines: Mapping[str, tuple[str, ...]],
        tables: Mapping[str, Keys],
        old: Mapping[str, PreviousTable],
    ) -> None:
        self._digests = digests
        self._lines = lines
        self._tables = tables
        self._old = old
        self._sure: dict[str, dict[str, Keys]] = {}  # domain -> function's digest -> ascending keys

    def kept_aliases(self, domain: str, foreign: str | None, keys: Keys) -> NDArray[np.bool_]:
        """For each key `[n]` whether it would surely be an alias in the domain."""
        if foreign is None:
            return np.zeros(len(keys), bool)
        return kept_aliases(self._known(domain, foreign), keys, self._gives(foreign))

    def add(self, domain: str, foreign: str | None) -> None:
        """The domain's planned keys are final."""
        keys, own = self._tables[domain], self._digests[domain]
        if foreign is None:
            self._sure[domain] = {own: keys}
            return
        known, gives = self._known(domain, foreign), self._gives(foreign)
        aliases = kept_aliases(known, keys, gives)
        compared = holds([table.compared for table in known], keys)
        above = holds([self._tables[each] for each in self._segment(foreign)], keys)
        sure: dict[str, Keys] = {own: keys[~aliases & (compared | ~above)]}
        marked = keys[aliases]
        for source in {source for table in known for source in table.sources}:
            sure[source] = marked[gives(source, marked)]
        self._sure[domain] = sure

    def _known(self, domain: str, foreign: str) -> list[PreviousTable]:
        wanted = self._digests[domain], self._digests[foreign]
        return [table for table in self._old.values() if (table.function, table.alias_function) == wanted]

    def _gives(self, foreign: str) -> Callable[[str, Keys], NDArray[np.bool_]]:
        segment = self._segment(foreign)

        def gives(source: str, keys: Keys) -> NDArray[np.bool_]:
            return holds([self._sure[each][source] for each in segment if source in self._sure[each]], keys)

        return gives

    def _segment(self, domain: str) -> tuple[str, ...]:
        return function_run(self._lines[domain], self._digests)[0]


def _best(savings: NDArray[np.float64], costs: NDArray[np.int64], budget: int) -> tuple[NDArray[np.intp], float]:
    """Which entries `[n]` to hold, ascending: those of most saving per byte that fit, of equals the first.

    Also the saving per byte of the first that does not fit, 0 where all do.
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
