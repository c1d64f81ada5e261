"""Which of a domain's planned keys stay aliases, which need a row, and which rows have to be compared first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.domains import function_run
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds
from hmi.knowledge.plan import PreviousTable, TreePlan, kept_aliases

__all__ = ["Draft", "draft_domain"]


@dataclass(frozen=True, slots=True)
class Draft:
    """Attributes:
    function: Digest of the domain's function.
    foreign: The nearest ancestor with another function; None where there is none.
    above: Digest of that one's function.
    aliases: Ascending keys that were aliases and stay aliases.
    rows: Ascending keys of which the own row is needed.
    doubtful: bool, for each of `rows`: ancestors give one too, and the two have not been compared.
    """

    domain: str
    function: str
    foreign: str | None
    alias_function: str | None
    aliases: Keys
    rows: Keys
    doubtful: NDArray[np.bool_]


def draft_domain(
    domain: str,
    plan: TreePlan,
    digests: Mapping[str, str],
    line: tuple[str, ...],
    old: Mapping[str, PreviousTable],
    tree: KnowledgeTree,
) -> Draft:
    """Args:
    digests: Of each domain's function.
    line: Of the domain.
    tree: The new version, of which at least the tables foreign the domain's segment are written.
    """
    keys, function = plan.tables[domain], digests[domain]
    _, foreign = function_run(line, digests)
    if foreign is None:
        return Draft(domain, function, None, None, NO_KEYS, keys, np.zeros(len(keys), bool))
    known = [table for table in old.values() if (table.function, table.alias_function) == (function, digests[foreign])]
    giver = _Giver(tree, foreign, digests)
    stays = kept_aliases(known, keys, giver.gives)
    rows = keys[~stays]
    doubtful = giver.gives_any(rows) & ~holds([table.compared for table in known], rows)
    return Draft(domain, function, foreign, digests[foreign], keys[stays], rows, doubtful)


class _Giver:
    """What lookups in the domain above would find."""

    def __init__(self, tree: KnowledgeTree, domain: str, digests: Mapping[str, str]) -> None:
        self._tree = tree
        self._domain = domain
        line = [digests[each] for each in tree.chain(domain)]
        self._places = {digest: np.flatnonzero([each == digest for each in line]) for digest in line}

    def gives(self, function: str, keys: Keys) -> NDArray[np.bool_]:
        if function not in self._places:
            return np.zeros(len(keys), bool)
        return np.isin(self._tree.holder_positions(self._domain, keys), self._places[function])

    def gives_any(self, keys: Keys) -> NDArray[np.bool_]:
        return self._tree.holder_positions(self._domain, keys) >= 0
