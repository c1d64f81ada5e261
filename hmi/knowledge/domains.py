"""Domains: their tree, the ancestor chain of each, and the function that computes its rows.

A domain's *function* is the base model's lower layers with the nearest delta on its ancestor chain. Along a chain,
consecutive domains of one function form a *function run*: within it any domain's row serves the others. A row of a
*foreign ancestor*, one above the run, serves only where an alias says so (see `store`).
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hmi.errors import Corrupt

Parents = Mapping[str, str | None]
"""Each domain's parent by name; None for the root."""


@dataclass(frozen=True, slots=True)
class Function:
    """The lower layers that compute a domain's rows."""

    base: str  # artifact digest of the base model
    delta: str | None = None  # artifact digest of the domain delta (a LoRA on the lower layers), if any

    @property
    def digest(self) -> str:
        """Identifies the function in tables; the base's own digest where there is no delta."""
        return _digest(self.base, self.delta)


def ancestor_chains(parents: Parents) -> dict[str, tuple[str, ...]]:
    """Return each domain's ancestor chain: the domain first, its parent next, the root last.

    Raises `Corrupt` where the parents are no tree: a parent that does not exist, a cycle, two roots.
    """
    chains: dict[str, tuple[str, ...]] = {}
    for domain in parents:
        path: list[str] = []
        at: str | None = domain
        while at is not None and at not in chains:
            if at in path:
                raise Corrupt(f"domain {at} is its own ancestor: {' > '.join([*path[path.index(at) :], at])}")
            if at not in parents:
                raise Corrupt(f"domain {path[-1]} lies under {at}, which does not exist")
            path.append(at)
            at = parents[at]
        chain = chains[at] if at is not None else ()
        for each in reversed(path):
            chain = (each, *chain)
            chains[each] = chain
    roots = sorted({chain[-1] for chain in chains.values()})
    if len(roots) > 1:
        raise Corrupt(f"domains have more than one root: {', '.join(roots)}")
    return chains


def children_of(parents: Parents) -> dict[str, list[str]]:
    """Return each domain's children, sorted by name; an empty list for a leaf."""
    children: dict[str, list[str]] = {domain: [] for domain in parents}
    for domain in sorted(parents):
        parent = parents[domain]
        if parent is not None:
            children[parent].append(domain)
    return children


def functions_of(base: str, parents: Parents, deltas: Mapping[str, str]) -> dict[str, Function]:
    """Return each domain's function, from the artifact digests of the base model and of the domains' deltas.

    Raises `Corrupt` where the parents are no tree.
    """
    return {
        domain: Function(base, next((deltas[each] for each in chain if each in deltas), None))
        for domain, chain in ancestor_chains(parents).items()
    }


def function_run(chain: Sequence[str], functions: Mapping[str, str]) -> tuple[tuple[str, ...], str | None]:
    """Return the first function run of an ancestor chain, and the nearest foreign ancestor above it (None: no such).

    `functions` are digests by domain.
    """
    own = functions[chain[0]]
    for place, domain in enumerate(chain):
        if functions[domain] != own:
            return tuple(chain[:place]), domain
    return tuple(chain), None


def function_changes(chain: Sequence[str], functions: Mapping[str, str]) -> int:
    """Count how often the function changes between the chain's first domain and the root."""
    return sum(functions[one] != functions[other] for one, other in itertools.pairwise(chain))


@functools.lru_cache(maxsize=4096)
def _digest(base: str, delta: str | None) -> str:
    return base if delta is None else hashlib.sha256(f"{base}\n{delta}".encode()).hexdigest()
