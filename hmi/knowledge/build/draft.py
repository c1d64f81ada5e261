"""What is known of a domain's planned n-grams before their rows are looked at: which stay marks, which are rows in any
case, and which have to be compared with what the ancestors give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.keysets import NO_KEYS, holds
from hmi.knowledge.lookup import KnowledgeTree, segment_of
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.plan import PreviousTable, TreePlan, staying_marks

__all__ = ["Draft", "draft_domain"]


@dataclass(frozen=True, slots=True)
class Draft:
    """Attributes:
    function: Digest of the domain's function.
    beyond: The nearest ancestor with another function; None where there is none.
    above: Digest of that one's function.
    marks: Ascending keys that were marks and stay marks.
    rows: Ascending keys of which the own row is needed.
    doubtful: bool, for each of `rows`: ancestors give one too, and the two have not been compared.
    """

    domain: str
    function: str
    beyond: str | None
    above: str | None
    marks: Keys
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
    tree: The new version, of which at least the tables beyond the domain's segment are written.
    """
    keys, function = plan.tables[domain], digests[domain]
    _, beyond = segment_of(line, digests)
    if beyond is None:
        return Draft(domain, function, None, None, NO_KEYS, keys, np.zeros(len(keys), bool))
    known = [table for table in old.values() if (table.function, table.above) == (function, digests[beyond])]
    giver = _Giver(tree, beyond, digests)
    stays = staying_marks(known, keys, giver.gives)
    rows = keys[~stays]
    doubtful = giver.gives_any(rows) & ~holds([table.settled for table in known], rows)
    return Draft(domain, function, beyond, digests[beyond], keys[stays], rows, doubtful)


class _Giver:
    """What lookups in the domain above would find."""

    def __init__(self, tree: KnowledgeTree, domain: str, digests: Mapping[str, str]) -> None:
        self._tree = tree
        self._domain = domain
        line = [digests[each] for each in tree.line(domain)]
        self._places = {digest: np.flatnonzero([each == digest for each in line]) for digest in line}

    def gives(self, function: str, keys: Keys) -> NDArray[np.bool_]:
        if function not in self._places:
            return np.zeros(len(keys), bool)
        return np.isin(self._tree.held_at(self._domain, keys), self._places[function])

    def gives_any(self, keys: Keys) -> NDArray[np.bool_]:
        return self._tree.held_at(self._domain, keys) >= 0
