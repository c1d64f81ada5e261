"""Which n-grams a table may hold: those that enough different tenants asked for.

Beside each count is a bitmap of the tenants that asked (`hmi.tenant_bits`), 0 if they are not known. Bitmaps of one
n-gram are merged by OR: the result depends neither on the order nor on how often something is merged.

Domains with the same audience have one *scope*. Counts reach a parent's table within a scope alone, so no row moves to
readers from whom its counts did not come. What may not be held anywhere in its scope is left out before anything is
planned: no weight, budget or estimate depends on it.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.domains import Parents
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds
from hmi.tenant_bits import PUBLIC

Bitmaps = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class DomainCounts:
    """A domain's own lookups."""

    keys: Keys  # [n], in any order
    weights: NDArray[np.float64]  # [n], finite and not negative; decayed counts: a lookup of now is 1
    total: float | None = None  # all lookups in that unit, of n-grams that are not kept too; None: the sum of `weights`
    approximate_share: float = 0.0  # share (0..1) of its lookups that ran under the miss policy `backoff`
    tenants: Bitmaps | None = None  # [n], who asked; None: every n-gram is public

    @property
    def bitmaps(self) -> Bitmaps:
        return np.full(len(self.keys), PUBLIC, np.uint64) if self.tenants is None else self.tenants


@dataclass(frozen=True, slots=True)
class Waiting:
    """Numbers of n-grams that are counted for a domain and may not be held yet."""

    tenants: int = 0  # more tenants have to ask for them
    origin: int = 0  # counted before bitmaps were kept: a tenant has to ask again


@dataclass(frozen=True, slots=True)
class SharingRule:
    """What each domain's table may hold. The default: whatever a tenant asked for."""

    min_tenants: int = 1
    scopes: Mapping[str, str] = field(default_factory=dict)  # by domain; the same for domains that are not named
    owners: Mapping[str, int] = field(default_factory=dict)  # bitmap of the only reader, by domain that has only one

    def scope(self, domain: str) -> str:
        return self.scopes.get(domain, "")

    def may_be_held(self, domain: str, bitmaps: Bitmaps) -> NDArray[np.bool_]:
        """Return whether the domain's table may hold n-grams `[n]` that these tenants asked for, in its subtree."""
        return may_be_held(bitmaps, self.min_tenants, self.owners.get(domain, 0))

    def select(
        self, counts: Mapping[str, DomainCounts], parents: Parents
    ) -> tuple[dict[str, DomainCounts], dict[str, Waiting]]:
        """Leave out the n-grams that neither their domain nor an ancestor in its scope may hold; say how many.

        Totals of lookups stay.
        """
        groups: dict[str, list[str]] = defaultdict(list)
        for domain in counts:
            groups[self._top(domain, parents)].append(domain)
        selected: dict[str, DomainCounts] = {}
        waiting: dict[str, Waiting] = {}
        for top, domains in groups.items():
            held = self._shared_keys(top, [counts[domain] for domain in domains])
            for domain in domains:
                selected[domain], waiting[domain] = _split(counts[domain], held)
        return {domain: selected[domain] for domain in counts}, waiting

    def _top(self, domain: str, parents: Parents) -> str:
        """Return the highest ancestor that counts of the domain reach."""
        top = domain
        while (parent := parents.get(top)) is not None and self.scope(parent) == self.scope(top):
            top = parent
        return top

    def _shared_keys(self, top: str, group: Sequence[DomainCounts]) -> Keys | None:
        """Return the ascending keys that `top` may hold; None: all."""
        if all(each.tenants is None for each in group):
            return None
        keys = np.concatenate([each.keys for each in group])
        bitmaps = np.concatenate([each.bitmaps for each in group])
        if not len(keys):
            return NO_KEYS
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        shared: Keys = keys[first][self.may_be_held(top, np.bitwise_or.reduceat(bitmaps[order], first))]
        return shared


def may_be_held(bitmaps: Bitmaps, min_tenants: int, owner: int = 0) -> NDArray[np.bool_]:
    """Return which n-grams `[n]` are public, or were asked for by `min_tenants` different tenants or by the owner.

    `owner` is the bitmap of the only tenant that can read the table; 0: there are several.
    """
    held: NDArray[np.bool_] = bitmaps & np.uint64(PUBLIC | owner) != 0
    if not owner:
        held |= np.bitwise_count(bitmaps & np.uint64(PUBLIC - 1)) >= max(min_tenants, 1)
    return held


def _split(counts: DomainCounts, shared: Keys | None) -> tuple[DomainCounts, Waiting]:
    kept = np.ones(len(counts.keys), bool) if shared is None else holds([shared], counts.keys)
    if kept.all():
        return counts, Waiting()
    bitmaps = counts.bitmaps
    unknown = int(np.count_nonzero(bitmaps[~kept] == 0))
    total = float(counts.weights.sum()) if counts.total is None else counts.total
    rest = dataclasses.replace(
        counts, keys=counts.keys[kept], weights=counts.weights[kept], tenants=bitmaps[kept], total=total
    )
    return rest, Waiting(int(np.count_nonzero(~kept)) - unknown, unknown)
