"""Where the row of an n-gram comes from, as a lookup in a domain would find it, without reading rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from hmi.knowledge.lookup.ancestors import AncestorChain
from hmi.knowledge.ngrams import Keys
from hmi.knowledge.store import Table


class KeyLocation(StrEnum):
    """What a lookup of an n-gram takes: the domain's own row, an ancestor's row of the same function, a foreign
    ancestor's that an alias allows, or none."""

    OWN = "own"
    INHERITED = "inherited"
    ALIAS = "alias"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Holder:
    """`domain` is the one whose row is taken; None where there is none."""

    location: KeyLocation
    domain: str | None


def find_holders(
    keys: Keys, chain: Sequence[str], tables: Mapping[str, Table], functions: Mapping[str, str]
) -> list[Holder]:
    """Return, for each key `[n]` in any order, where a lookup in the chain's first domain gets its row.

    A table that is not of its domain's function is skipped, as lookups do; `functions` are digests by domain.
    """
    usable = {each: tables[each] for each in chain if each in tables and tables[each].meta.function == functions[each]}
    searched = AncestorChain(chain, usable, functions)

    def holder(table: int) -> Holder:
        if table < 0:
            return Holder(KeyLocation.MISSING, None)
        domain = chain[int(searched.positions[table])]
        if domain == chain[0]:
            return Holder(KeyLocation.OWN, domain)
        same = functions[domain] == functions[chain[0]]
        return Holder(KeyLocation.INHERITED if same else KeyLocation.ALIAS, domain)

    return [holder(int(table)) for table in searched.find(keys).table]
