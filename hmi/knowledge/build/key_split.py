"""Which of a domain's planned keys stay aliases, which need a row, and which rows have to be compared first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.domains import function_run
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds
from hmi.knowledge.plan import PreviousTable, kept_aliases


@dataclass(frozen=True, slots=True)
class KeySplit:
    domain: str
    function: str  # digest
    foreign: str | None  # the nearest foreign ancestor, if any
    alias_function: str | None  # digest of its function
    aliases: Keys  # ascending keys that were aliases and stay aliases
    rows: Keys  # ascending keys whose own row is needed
    is_uncompared: NDArray[np.bool_]  # for each of `rows`: ancestors give a row too, and the two were not compared yet


def split_keys(
    domain: str,
    keys: Keys,
    functions: Mapping[str, str],
    chain: tuple[str, ...],
    previous: Mapping[str, PreviousTable],
    tree: KnowledgeTree,
) -> KeySplit:
    """Split a domain's planned keys; `functions` are digests by domain.

    In `tree`, the new version, at least the tables of the foreign ancestors are written.
    """
    function = functions[domain]
    _, foreign = function_run(chain, functions)
    if foreign is None:
        return KeySplit(domain, function, None, None, NO_KEYS, keys, np.zeros(len(keys), bool))
    above, alias_function = np.array([functions[each] for each in tree.chain(foreign)]), functions[foreign]
    known = [each for each in previous.values() if (each.function, each.alias_function) == (function, alias_function)]

    def gives(source: str, keys: Keys) -> NDArray[np.bool_]:
        positions = tree.holder_positions(foreign, keys)
        given: NDArray[np.bool_] = (positions >= 0) & (above[positions] == source)
        return given

    is_alias = kept_aliases(known, keys, gives)
    rows = keys[~is_alias]
    is_uncompared = (tree.holder_positions(foreign, rows) >= 0) & ~holds([each.compared for each in known], rows)
    return KeySplit(domain, function, foreign, alias_function, keys[is_alias], rows, is_uncompared)
