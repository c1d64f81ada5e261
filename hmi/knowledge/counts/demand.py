"""What domains are asked for, and what holding it would save: each domain's own lookups, and its subtree's together.

The unit of saving is one lookup that is answered instead of missed. Future lookups are what counts: n-grams are weighed
by how often they were asked for, and a little by their bigrams (`evidence`). A domain's lookups under the miss policy
`backoff` save less: a miss costs no computing there, only the error of the row that stands in, relative to the right
one. There bigrams are wanted that nobody asked for: they stand in for windows to come.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.counts.bigram_prior import worth_of_bigrams
from hmi.knowledge.domains import Parents, children_of
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds, union

__all__ = ["BackoffEstimates", "Demand", "subtree_demands"]


@dataclass(frozen=True, slots=True)
class BackoffEstimates:
    """What the miss policy `backoff` costs a domain, for ascending keys `[n]` that its tables do not hold.

    Attributes:
        errors: Relative error (0..1) of the row that each key gets instead of its own, float32 `[n]`.
        bigram_gain: How much smaller the mean error is where the row is a bigram's (prev, mid) and not a unigram's.
    """

    errors: Callable[[str, Keys], NDArray[np.float32]]
    bigram_gain: Callable[[str, Keys], float] = lambda domain, keys: 0.0

    def with_mean_errors(self, means: Mapping[str, float]) -> BackoffEstimates:
        """Use these mean errors for domains whose missing rows an estimator computes; bigrams gain nothing there."""

        def errors(domain: str, keys: Keys) -> NDArray[np.float32]:
            return np.full(len(keys), means[domain], np.float32) if domain in means else self.errors(domain, keys)

        def bigram_gain(domain: str, keys: Keys) -> float:
            return 0.0 if domain in means else self.bigram_gain(domain, keys)

        return BackoffEstimates(errors, bigram_gain) if means else self


# What (mid, next) spares of the unigram's error, beside (prev, mid): rows of MiniLM with k = 3 were 0.485 of their
# length from the unigram's, 0.401 from the one's and 0.289 from the other's, which is taken where both are there.
_OTHER_SIDE = 0.4


@dataclass(frozen=True, slots=True)
class DomainCounts:
    """How often a domain was asked for what.

    Attributes:
        keys: uint64 `[n]`, in any order.
        weights: float64 `[n]`, finite and not negative; decayed counts: a lookup of now is 1.
        total: All its lookups in that unit, those of n-grams that are not kept included; None: the sum of `weights`.
        approximate_share: Share (0..1) of its lookups that ran under the miss policy `backoff`.
    """

    keys: Keys
    weights: NDArray[np.float64]
    total: float | None = None
    approximate_share: float = 0.0


@dataclass(frozen=True, slots=True)
class Demand:
    """What a domain and all below it are asked for.

    Attributes:
        keys: uint64 `[n]`, ascending.
        savings: float64 `[n]`, summed over the subtree: more for every lookup, be it of this key alone.
        voters: int64 `[n]`, how many want that the domain itself holds the key: a child whose subtree is asked for it
            is one, the domain's own lookups are two.
        votes: float64 `[n]`, how many rows that is expected to make needless: a child of another function has the part
            of a vote that its aliases are of what its ancestors hold.
        common: Ascending keys, those that more than one domain of the subtree asks for.
        per_lookup: What one of the domain's own lookups saves on average: 1, or less where rows stand in.
    """

    keys: Keys
    savings: NDArray[np.float64]
    voters: NDArray[np.int64]
    votes: NDArray[np.float64]
    common: Keys
    per_lookup: float

    def offered(self, kept: NDArray[np.bool_], hysteresis: float) -> NDArray[np.bool_]:
        """Whether the domain itself may hold each key: what a single child wants stays with the child, and what several
        want is worth a row where it spares more than one.

        Args:
            kept: bool `[n]`, it was held before: its votes count `hysteresis` times.
        """
        return (self.voters >= 2) & (np.where(kept, self.votes * hysteresis, self.votes) > 1)


class _Own(NamedTuple):
    """What a domain itself is asked for: ascending keys `[n]`, what holding each saves, and a lookup on average."""

    keys: Keys
    savings: NDArray[np.float64]
    per_lookup: float


_Part = tuple[Keys, NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]  # as a demand's


def subtree_demands(
    counts: Mapping[str, DomainCounts],
    parents: Parents,
    upwards: Sequence[str],
    vocabulary: int,
    passed_on: Mapping[str, float],
    backoff: BackoffEstimates | None,
) -> dict[str, Demand]:
    """Every domain's demand, its descendants' included.

    Args:
        upwards: All domains, children before their parents.
        passed_on: By what share of itself a domain's demand, and its vote, count at its parent; 1 for those not named.
        backoff: None: a lookup under `backoff` that misses is worth as much as one under `exact`.

    Raises `InvalidInput` for weights or shares that are none.
    """
    children = children_of(parents)
    own = _own_demands(counts, vocabulary, backoff)
    demands: dict[str, Demand] = {}
    for domain in upwards:
        parts = [_votes(own[domain].keys, own[domain].savings, 2, 2.0)] if domain in own else []
        for child in children[domain]:
            below, share = demands[child], passed_on.get(child, 1.0)
            parts.append(_votes(below.keys, below.savings * share, 1, share))
        keys, savings, voters, votes = _merge(parts)
        common = NO_KEYS
        if children[domain]:
            asked = [own[domain].keys] if domain in own else []
            several = (voters > 2) | ((voters == 2) & ~holds(asked, keys))
            common = union([keys[several], *(demands[child].common for child in children[domain])])
        per_lookup = own[domain].per_lookup if domain in own else 1.0
        demands[domain] = Demand(keys, savings, voters, votes, common, per_lookup)
    return demands


def _own_demands(
    counts: Mapping[str, DomainCounts], vocabulary: int, backoff: BackoffEstimates | None
) -> dict[str, _Own]:
    domains = sorted(counts)
    asked = {domain: _checked(domain, counts[domain], vocabulary) for domain in domains}
    # Bigrams tell most where they are counted over all domains together.
    worth = worth_of_bigrams(
        np.concatenate([NO_KEYS, *(keys for keys, _ in asked.values())]),
        np.concatenate([np.empty(0), *(weights for _, weights in asked.values())]),
    )
    own = dict[str, _Own]()
    end = 0
    for domain, (keys, weights) in asked.items():
        start, end = end, end + len(keys)
        savings = weights + worth[start:end]
        share = counts[domain].approximate_share
        if share > 0 and backoff is not None:
            savings *= (1 - share) + share * backoff.errors(domain, keys).astype(np.float64)
        exact = float(weights.sum() + worth[start:end].sum())
        per_lookup = float(savings.sum()) / exact if exact else 1.0
        if share > 0 and backoff is not None:
            new = np.minimum(weights, 1.0) * (share * backoff.bigram_gain(domain, keys))
            own[domain] = _Own(*_with_bigrams(keys, savings, new), per_lookup)
        else:
            own[domain] = _Own(keys, savings, per_lookup)
    return own


def _checked(domain: str, counts: DomainCounts, vocabulary: int) -> tuple[Keys, NDArray[np.float64]]:
    """N-grams of the vocabulary that were asked for, each once and ascending, and their weights."""
    if len(counts.keys) != len(counts.weights) or not (np.isfinite(counts.weights) & (counts.weights >= 0)).all():
        raise InvalidInput(f"domain {domain}: each key needs one weight, finite and not negative")
    if not 0 <= counts.approximate_share <= 1:
        raise InvalidInput(f"domain {domain}: {counts.approximate_share} is not a share of its lookups")
    good = ngrams.in_vocabulary(counts.keys, vocabulary) & (counts.weights > 0)
    keys, weights, _, _ = _merge([_votes(counts.keys[good], counts.weights[good], 2, 2.0)])
    return keys, weights


def _with_bigrams(
    keys: Keys, savings: NDArray[np.float64], new: NDArray[np.float64]
) -> tuple[Keys, NDArray[np.float64]]:
    """The same and the bigrams of the windows, (prev, mid) and (mid, next).

    What a bigram stands in for is not what its windows are asked for, as they may be held, but what is new of it: as
    in Kneser and Ney's back-off ("Improved backing-off for m-gram language modeling", 1995) it weighs by how many
    windows it has, for each was new once.

    Args:
        new: What standing in for each window once would save, `[n]`, of (prev, mid).
    """
    parts = [_votes(keys, savings, 2, 2.0)]
    for bigrams, gain in ((ngrams.without_next(keys), new), (ngrams.without_prev(keys), new * _OTHER_SIDE)):
        longer = (bigrams != keys) & (bigrams != ngrams.unigram(keys)) & (gain > 0)
        parts.append(_votes(bigrams[longer], gain[longer], 2, 2.0))
    keys, savings, _, _ = _merge(parts)
    return keys, savings


def _votes(keys: Keys, savings: NDArray[np.float64], voters: int, votes: float) -> _Part:
    return keys, savings, np.full(len(keys), voters, np.int64), np.full(len(keys), votes)


def _merge(parts: Sequence[_Part]) -> _Part:
    """Each key once, ascending, with the sums of all else."""
    parts = parts or [(np.empty(0, np.uint64), np.empty(0), np.empty(0, np.int64), np.empty(0))]
    if len(parts) == 1:
        keys, savings, voters, votes = parts[0]
    else:
        keys, savings, voters, votes = (np.concatenate(each) for each in zip(*parts, strict=True))
    if not len(keys):
        return keys, savings, voters, votes
    if not (keys[1:] >= keys[:-1]).all():
        order = np.argsort(keys, kind="stable")  # stable: sums of floats come out the same every time
        keys, savings, voters, votes = keys[order], savings[order], voters[order], votes[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    if len(first) == len(keys):
        return keys, savings, voters, votes
    return (
        keys[first],
        np.add.reduceat(savings, first),
        np.add.reduceat(voters, first),
        np.add.reduceat(votes, first),
    )
