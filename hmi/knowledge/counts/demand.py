"""The demand for n-grams: what holding each would save, for a domain's own lookups and for its whole subtree.

The unit is one lookup that hits and would have missed. Future lookups are what counts: n-grams are weighed by how often
they were looked up, and a little by their bigrams. A lookup under the miss policy `backoff` saves
less: a miss costs no computing there, only the relative error of the row that it gets instead. Such a domain also
requests bigrams that were never looked up, for the sake of windows to come.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.counts.sharing import Bitmaps, DomainCounts, SharingRule
from hmi.knowledge.domains import Parents, children_of
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds, union

# The part of the unigram's error that (mid, next) spares, next to (prev, mid), which is preferred: rows of MiniLM with
# k = 3 were 0.485 of their length from the unigram's, 0.401 from (mid, next)'s and 0.289 from (prev, mid)'s.
_OTHER_SIDE = 0.4
_PRIOR_SHARE = 0.5  # chosen on held-out text; from 0.3 to 1 the hit rates differ by less than 0.2 points


@dataclass(frozen=True, slots=True)
class BackoffEstimates:
    """What the miss policy `backoff` costs a domain, for ascending keys `[n]` that its tables do not hold."""

    # [n], relative error (0..1) of the row that each key gets instead of its own
    errors: Callable[[str, Keys], NDArray[np.float32]]
    # How much smaller the mean error is if the row is a bigram's (prev, mid) and not a unigram's.
    bigram_gain: Callable[[str, Keys], float] = lambda domain, keys: 0.0

    def with_mean_errors(self, means: Mapping[str, float]) -> BackoffEstimates:
        """Use these mean errors for domains whose missing rows an estimator computes; bigrams gain nothing there."""

        def errors(domain: str, keys: Keys) -> NDArray[np.float32]:
            return np.full(len(keys), means[domain], np.float32) if domain in means else self.errors(domain, keys)

        def bigram_gain(domain: str, keys: Keys) -> float:
            return 0.0 if domain in means else self.bigram_gain(domain, keys)

        return BackoffEstimates(errors, bigram_gain) if means else self


@dataclass(frozen=True, slots=True)
class Demand:
    """What a domain and its descendants request."""

    keys: Keys  # ascending [n]
    savings: NDArray[np.float64]  # [n], summed over the subtree
    # [n], how often the key is requested: 1 for each child whose subtree requests it, 2 for the domain's own lookups
    requesters: NDArray[np.int64]
    # [n], how many rows below become needless if the domain holds the key: as `requesters`, but a child of another
    # function counts only the share of its keys that are expected to become aliases
    rows_saved: NDArray[np.float64]
    tenants: Bitmaps  # [n], who asked, in the whole subtree
    common: Keys  # ascending; requested by more than one domain of the subtree
    per_lookup: float  # what one of the domain's own lookups saves on average: 1, or less under `backoff`

    def is_offered(self, kept: NDArray[np.bool_], hysteresis: float) -> NDArray[np.bool_]:
        """Return whether holding each key in the domain itself is worth a row. A key that a single child requests stays
        with the child; one that several request is worth a row if it saves more than one. Where a key was held before
        (`kept`, bool `[n]`), its `rows_saved` count `hysteresis` times.
        """
        return (self.requesters >= 2) & (np.where(kept, self.rows_saved * hysteresis, self.rows_saved) > 1)


class _OwnDemand(NamedTuple):
    """A domain's own ascending keys `[n]`, what holding each saves, and what a lookup saves on average."""

    keys: Keys
    savings: NDArray[np.float64]
    tenants: Bitmaps
    per_lookup: float

    def requests(self) -> _Requests:
        return _requests(self.keys, self.savings, self.tenants, 2, 2.0)


class _Requests(NamedTuple):
    """Keys `[n]` with the values of `Demand`, to be summed by `_merge`."""

    keys: Keys
    savings: NDArray[np.float64]
    requesters: NDArray[np.int64]
    rows_saved: NDArray[np.float64]
    tenants: Bitmaps

    def take(self, index: NDArray[np.intp]) -> _Requests:
        keys, savings, requesters, rows_saved, tenants = self
        return _Requests(keys[index], savings[index], requesters[index], rows_saved[index], tenants[index])


def subtree_demands(
    counts: Mapping[str, DomainCounts],
    parents: Parents,
    upwards: Sequence[str],
    vocabulary: int,
    shares: Mapping[str, float],
    backoff: BackoffEstimates | None,
    rule: SharingRule,
) -> dict[str, Demand]:
    """Return every domain's demand, including that of descendants in its scope.

    Args:
        counts: As `SharingRule.select` leaves them.
        upwards: All domains, children before their parents.
        shares: The share of a domain's demand that counts at its parent; 1 for domains that are not named.
        backoff: None: a lookup under `backoff` that misses is worth as much as one under `exact`.

    Raises `InvalidInput` for invalid weights or shares.
    """
    children = children_of(parents)
    own = _own_demands(counts, vocabulary, backoff, rule)
    demands: dict[str, Demand] = {}
    for domain in upwards:
        below = [child for child in children[domain] if rule.scope(child) == rule.scope(domain)]
        parts = [own[domain].requests()] if domain in own else []
        for child in below:
            demand, share = demands[child], shares.get(child, 1.0)
            parts.append(_requests(demand.keys, demand.savings * share, demand.tenants, 1, share))
        merged = _merge(parts)
        common = NO_KEYS
        if below:
            direct = [own[domain].keys] if domain in own else []
            several = (merged.requesters > 2) | ((merged.requesters == 2) & ~holds(direct, merged.keys))
            common = union([merged.keys[several], *(demands[child].common for child in below)])
        demands[domain] = Demand(*merged, common, own[domain].per_lookup if domain in own else 1.0)
    return demands


def _own_demands(
    counts: Mapping[str, DomainCounts], vocabulary: int, backoff: BackoffEstimates | None, rule: SharingRule
) -> dict[str, _OwnDemand]:
    # Bigram counts tell most when they are summed over all domains; but what one scope asked for is not another's.
    by_scope: dict[str, dict[str, _Requests]] = defaultdict(dict)
    for domain in sorted(counts):
        by_scope[rule.scope(domain)][domain] = _checked(domain, counts[domain], vocabulary)
    own = dict[str, _OwnDemand]()
    for requested in by_scope.values():
        worth = _prior_weights(
            np.concatenate([each.keys for each in requested.values()]),
            np.concatenate([each.savings for each in requested.values()]),
        )
        end = 0
        for domain, each in requested.items():
            start, end = end, end + len(each.keys)
            own[domain] = _own_demand(domain, counts[domain].approximate_share, each, worth[start:end], backoff)
    return own


def _own_demand(
    domain: str, share: float, requested: _Requests, worth: NDArray[np.float64], backoff: BackoffEstimates | None
) -> _OwnDemand:
    """`share` of the lookups ran under `backoff`; `worth` is of each key beyond its own count."""
    keys, weights, tenants = requested.keys, requested.savings, requested.tenants
    savings = weights + worth
    exact = float(weights.sum() + worth.sum())
    if share > 0 and backoff is not None:
        savings *= (1 - share) + share * backoff.errors(domain, keys).astype(np.float64)
    per_lookup = float(savings.sum()) / exact if exact else 1.0
    if share > 0 and backoff is not None:
        gains = np.minimum(weights, 1.0) * (share * backoff.bigram_gain(domain, keys))
        return _with_bigrams(_OwnDemand(keys, savings, tenants, per_lookup), gains)
    return _OwnDemand(keys, savings, tenants, per_lookup)


def _checked(domain: str, counts: DomainCounts, vocabulary: int) -> _Requests:
    """Return the vocabulary's n-grams that were looked up, ascending without duplicates, and their weights."""
    if len(counts.keys) != len(counts.weights) or not (np.isfinite(counts.weights) & (counts.weights >= 0)).all():
        raise InvalidInput(f"domain {domain}: each key needs one weight, finite and not negative")
    if not 0 <= counts.approximate_share <= 1:
        raise InvalidInput(f"domain {domain}: {counts.approximate_share} is not a share of its lookups")
    good = ngrams.in_vocabulary(counts.keys, vocabulary) & (counts.weights > 0)
    return _merge([_requests(counts.keys[good], counts.weights[good], counts.bitmaps[good], 2, 2.0)])


def _with_bigrams(own: _OwnDemand, gains: NDArray[np.float64]) -> _OwnDemand:
    """Add the bigrams of the windows, (prev, mid) and (mid, next).

    A bigram's row replaces new windows, not held ones. So it weighs by how many different windows it has, each of which
    was new once, as in Kneser and Ney's back-off ("Improved backing-off for m-gram language modeling", 1995). `gains`
    are what the row of (prev, mid) would have saved for each window once, `[n]`. Who asked for one of its windows asked
    for the bigram.
    """
    keys, parts = own.keys, [own.requests()]
    for bigrams, gain in ((ngrams.without_next(keys), gains), (ngrams.without_prev(keys), gains * _OTHER_SIDE)):
        longer = (bigrams != keys) & (bigrams != ngrams.unigram(keys)) & (gain > 0)
        parts.append(_requests(bigrams[longer], gain[longer], own.tenants[longer], 2, 2.0))
    merged = _merge(parts)
    return _OwnDemand(merged.keys, merged.savings, merged.tenants, own.per_lookup)


def _prior_weights(keys: Keys, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the lookups `[n]` that each window is worth beyond its own count: half the square root of its expectation.

    Most n-grams were seen once, and are not all worth the same. As in the smoothing of n-gram models (Chen and Goodman,
    "An empirical study of smoothing techniques for language modeling", 1999), a window's expected count is its own less
    a discount, which is the same for all windows and left out, plus more the likelier its bigrams make it.

    The expectation is count(prev, mid) x count(mid, next) / count(mid), as if neighbours were independent. The root has
    three properties. Windows with equal counts differ a little, seldom by as much as a lookup. If no weight grows by
    more than a share, no worth does either, so hysteresis holds. Where a window outweighs another in one domain, more
    weight for it never lets the other overtake.

    Keys are in any order, with duplicates where several domains request the same key. Weights are counts above 0.
    """
    if not len(keys):
        return np.empty(0)
    with_prev = _sums(ngrams.without_next(keys), weights)
    with_next = _sums(ngrams.without_prev(keys), weights)
    middles = ngrams.middles(keys)
    alone = np.bincount(middles, weights)[middles]
    return _PRIOR_SHARE * np.sqrt(with_prev * np.minimum(with_next / alone, 1.0))  # above 1 by rounding alone


def _sums(groups: NDArray[np.uint64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return, for each key `[n]`, the sum of the weights of its group."""
    is_sorted = bool((groups[1:] >= groups[:-1]).all())
    order: Any = slice(None) if is_sorted else np.argsort(groups)
    ordered = groups[order]
    group = np.concatenate([[False], ordered[1:] != ordered[:-1]]).cumsum()
    sums = np.empty(len(groups))
    sums[order] = np.bincount(group, weights[order])[group]
    return sums


def _requests(
    keys: Keys, savings: NDArray[np.float64], tenants: Bitmaps, requesters: int, rows_saved: float
) -> _Requests:
    count = len(keys)
    return _Requests(keys, savings, np.full(count, requesters, np.int64), np.full(count, rows_saved), tenants)


def _merge(parts: Sequence[_Requests]) -> _Requests:
    """Return ascending keys without duplicates, the sums of the other values, and who asked."""
    parts = parts or [_requests(NO_KEYS, np.empty(0), NO_KEYS, 0, 0.0)]
    merged = parts[0] if len(parts) == 1 else _Requests(*(np.concatenate(each) for each in zip(*parts, strict=True)))
    keys = merged.keys
    if not (keys[1:] >= keys[:-1]).all():
        order = np.argsort(keys, kind="stable")  # stable: sums of floats come out the same every time
        merged = merged.take(order)
        keys = merged.keys
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]])[: len(keys)])
    if len(first) == len(keys):
        return merged
    savings, requesters, rows_saved = (np.add.reduceat(each, first) for each in merged[1:4])
    return _Requests(keys[first], savings, requesters, rows_saved, np.bitwise_or.reduceat(merged.tenants, first))
