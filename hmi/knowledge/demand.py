"""What domains are asked for, and what holding it would save: each domain's own lookups, and its subtree's together.

The unit of saving is one lookup that is answered instead of missed. A domain's lookups under the miss policy `backoff`
save less: a miss costs no computing there, only the error of the row that stands in, relative to the right one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.errors import InvalidInput
from hmi.knowledge import ngrams
from hmi.knowledge.hierarchy import Parents, children_of
from hmi.knowledge.ngrams import Keys

__all__ = ["Demand", "DomainCounts", "Errors", "subtree_demands"]

Errors = Callable[[str, Keys], NDArray[np.float32]]
"""A domain and ascending keys `[n]` to the relative error (0..1) of the row that would stand in for each, `[n]`."""


@dataclass(frozen=True, slots=True)
class DomainCounts:
    """How often a domain was asked for what.

    Attributes:
        keys: uint64 `[n]`, in any order.
        weights: float64 `[n]`, finite and not negative; decayed counts, in any unit.
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
        savings: float64 `[n]`, summed over the subtree.
        voters: int64 `[n]`, how many want that the domain itself holds the key: a child whose subtree is asked for it
            is one, the domain's own lookups are two.
        votes: float64 `[n]`, how many rows that is expected to make needless: a child of another function has the part
            of a vote that its marks are of what its ancestors hold.
    """

    keys: Keys
    savings: NDArray[np.float64]
    voters: NDArray[np.int64]
    votes: NDArray[np.float64]

    def offered(self, kept: NDArray[np.bool_], hysteresis: float) -> NDArray[np.bool_]:
        """Whether the domain itself may hold each key: what a single child wants stays with the child, and what several
        want is worth a row where it spares more than one.

        Args:
            kept: bool `[n]`, it was held before: its votes count `hysteresis` times.
        """
        return (self.voters >= 2) & (np.where(kept, self.votes * hysteresis, self.votes) > 1)


_Part = tuple[Keys, NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]  # as a demand's


def subtree_demands(
    counts: Mapping[str, DomainCounts],
    parents: Parents,
    upwards: Sequence[str],
    vocabulary: int,
    errors: Errors | None,
    passed_on: Mapping[str, float],
) -> dict[str, Demand]:
    """Every domain's demand, its descendants' included.

    Args:
        upwards: All domains, children before their parents.
        errors: None: whatever stands in is as bad as nothing.
        passed_on: By what share of itself a domain's demand, and its vote, count at its parent; 1 for those not named.

    Raises `InvalidInput` for weights or shares that are none.
    """
    children = children_of(parents)
    demands: dict[str, Demand] = {}
    for domain in upwards:
        parts = [_own(domain, counts[domain], vocabulary, errors)] if domain in counts else []
        for child in children[domain]:
            below, share = demands[child], passed_on.get(child, 1.0)
            count = len(below.keys)
            parts.append((below.keys, below.savings * share, np.ones(count, np.int64), np.full(count, share)))
        demands[domain] = Demand(*_merge(parts))
    return demands


def _own(domain: str, counts: DomainCounts, vocabulary: int, errors: Errors | None) -> _Part:
    """A domain's own lookups."""
    if len(counts.keys) != len(counts.weights) or not (np.isfinite(counts.weights) & (counts.weights >= 0)).all():
        raise InvalidInput(f"domain {domain}: each key needs one weight, finite and not negative")
    share = counts.approximate_share
    if not 0 <= share <= 1:
        raise InvalidInput(f"domain {domain}: {share} is not a share of its lookups")
    good = ngrams.in_vocabulary(counts.keys, vocabulary) & (counts.weights > 0)
    count = int(np.count_nonzero(good))
    own = counts.keys[good], counts.weights[good], np.full(count, 2, np.int64), np.full(count, 2.0)
    keys, savings, voters, votes = _merge([own])
    if share > 0 and errors is not None:
        savings = savings * ((1 - share) + share * errors(domain, keys).astype(np.float64))
    return keys, savings, voters, votes


def _merge(parts: Sequence[_Part]) -> _Part:
    """Each key once, ascending, with the sums of all else."""
    parts = parts or [(np.empty(0, np.uint64), np.empty(0), np.empty(0, np.int64), np.empty(0))]
    keys, savings, voters, votes = (np.concatenate(each) for each in zip(*parts, strict=True))
    if not len(keys):
        return keys, savings, voters, votes
    if not (keys[1:] >= keys[:-1]).all():
        order = np.argsort(keys, kind="stable")  # stable: sums of floats come out the same every time
        keys, savings, voters, votes = keys[order], savings[order], voters[order], votes[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    return (
        keys[first],
        np.add.reduceat(savings, first),
        np.add.reduceat(voters, first),
        np.add.reduceat(votes, first),
    )
