"""The version that serves, as the next one is planned and built from it.

A build trusts an old table only after reading every byte of it: otherwise a flipped bit would get a good checksum in
the new version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from hmi.errors import Corrupt
from hmi.knowledge.counts import BackoffEstimates
from hmi.knowledge.domains import Parents, function_changes, function_run
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import NO_KEYS, Keys, holds, unigram
from hmi.knowledge.plan.backoff import TYPICAL_BACKOFF, measured_backoff
from hmi.knowledge.store import Table, TableMeta

_log = logging.getLogger(__name__)

# Stages of a build: the previous version's tables are compared with their checksums, rows are computed that it does
# not have, tables are written.
CHECK, COMPUTE, WRITE = "check", "compute", "write"


@dataclass(frozen=True, slots=True)
class BuildProgress:
    # One of the above, or a stage of the caller. Where domains have deltas, `compute` and `write` alternate, and the
    # total of `compute` may grow.
    stage: str
    done: int  # rows
    total: int  # rows


@dataclass(frozen=True, slots=True)
class PreviousTable:
    """What a domain's table held; all keys ascending. `function` and `alias_function` are as in `TableMeta`."""

    function: str
    keys: Keys  # n-grams with a row
    aliases: Keys = field(default_factory=NO_KEYS.copy)  # without a row: the ancestors' row was close enough
    alias_function: str | None = None
    # The aliases that can be relied on, by digest of the function of the row that each referred to. It need not be
    # `alias_function`: the ancestors may have had an alias themselves.
    sources: Mapping[str, Keys] = field(default_factory=dict)
    # N-grams whose row was compared with the ancestors' and differs by more than the tolerance: not compared again.
    compared: Keys = field(default_factory=NO_KEYS.copy)
    alias_share: float = 1.0  # share (0..1) of aliases among the n-grams that ancestors hold too; 1: nothing is known


def kept_aliases(
    known: Sequence[PreviousTable], keys: Keys, gives: Callable[[str, Keys], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Return which keys `[n]` stay aliases: the ancestors give a row of the same function as before.

    `known` are previous tables of the domain's function, whose aliases refer to the function above it. `gives` takes a
    function's digest and keys `[m]`; it returns whether the ancestors give a row of this function for each, `[m]`.
    """
    kept = np.zeros(len(keys), bool)
    for table in known:
        for source, aliases in table.sources.items():
            at = np.flatnonzero(~kept & holds([aliases], keys))
            kept[at] = gives(source, keys[at])
    return kept


@dataclass(frozen=True, slots=True)
class PreviousTree:
    """What the next version is built from, by domain."""

    tables: Mapping[str, Table]  # the intact ones, to copy rows from
    held: Mapping[str, PreviousTable]  # what they hold
    sizes: Mapping[str, int]  # bytes of all tables, including damaged ones
    backoff: BackoffEstimates  # measured on the intact tables; typical values where there are none

    @classmethod
    def empty(cls) -> Self:
        """Return what precedes the first version."""
        return cls({}, {}, {}, TYPICAL_BACKOFF)

    @classmethod
    def read(
        cls,
        tree: KnowledgeTree | None,
        *,
        tolerance: float,
        built_tolerance: float | None = None,
        alias_shares: Mapping[str, float] | None = None,
        built_parents: Parents | None = None,
        progress: Callable[[BuildProgress], None] = lambda _: None,
    ) -> Self:
        """Read the tables. A damaged one is left out and logged, and its rows are computed anew.

        Args:
            tolerance: The next version's.
            built_tolerance: This version's; None: not known, so no alias is relied on.
            alias_shares: This version's `TreePlan.alias_shares`. If ancestors have dropped all of a domain's n-grams,
                since they were hardly of use to it, the tables alone do not show that.
            built_parents: The parents when this version was built, None if no domain was moved since. The aliases of a
                moved domain may have been compared with other rows than lookups find for them today.
            progress: Its exceptions end the reading.
        """
        if tree is None or not tree.tables:
            return cls.empty()
        intact = _verified(tree.tables, progress)
        functions = {domain: tree.function_of(domain) or "" for domain in tree.parents}
        rest = KnowledgeTree(tree.number, tree.parents, intact, tree.row_dtype, tree.hidden_size, functions)
        shares = alias_shares or {}
        held = {}
        for domain in intact:
            known = None if _is_moved(rest, functions, domain, built_parents) else built_tolerance
            held[domain] = _describe(rest, functions, domain, tolerance, known, shares.get(domain, 1.0))
        sizes = {domain: table.bytes for domain, table in tree.tables.items()}
        return cls(intact, held, sizes, measured_backoff(rest))


def _verified(tables: Mapping[str, Table], progress: Callable[[BuildProgress], None]) -> dict[str, Table]:
    intact: dict[str, Table] = {}
    total = sum(table.meta.entries for table in tables.values())
    done = 0
    for domain in sorted(tables):
        table, bytes_read = tables[domain], 0

        def count(size: int, meta: TableMeta = table.meta, done: int = done) -> None:
            nonlocal bytes_read
            bytes_read += size
            progress(BuildProgress(CHECK, done + min(meta.entries, bytes_read // meta.entry_bytes), total))

        try:
            table.verify(count)
        except Corrupt as error:
            _log.warning("the previous rows of domain %s are computed anew: %s", domain, error)
        else:
            intact[domain] = table
        done += table.meta.entries
        progress(BuildProgress(CHECK, done, total))
    return intact


def _is_moved(tree: KnowledgeTree, functions: Mapping[str, str], domain: str, built_parents: Parents | None) -> bool:
    """Return whether the domain was moved to where an alias may find another function's row: its foreign ancestors are
    of several functions, and may have had aliases themselves."""
    chain = tree.chain(domain)
    _, foreign = function_run(chain, functions)
    if built_parents is None or foreign is None or not function_changes(tree.chain(foreign), functions):
        return False
    return any(built_parents.get(each) != parent for each, parent in zip(chain, (*chain[1:], None), strict=True))


def _describe(
    tree: KnowledgeTree,
    functions: Mapping[str, str],
    domain: str,
    tolerance: float,
    built_tolerance: float | None,
    alias_share: float,
) -> PreviousTable:
    table = tree.tables[domain]
    meta = table.meta
    _, foreign = function_run(tree.chain(domain), functions)
    sources: dict[str, Keys] = {}
    compared = NO_KEYS
    if foreign is not None and built_tolerance is not None and meta.alias_function == functions[foreign]:
        if built_tolerance <= tolerance:
            sources = _alias_sources(tree, functions, domain)
        if built_tolerance >= tolerance:
            compared = table.keys[tree.holder_positions(foreign, table.keys) >= 0]
    share = 1.0
    if built_tolerance == tolerance:
        # All unigrams may be held whatever is requested, so they say nothing about requested n-grams.
        longer = [int(np.count_nonzero(unigram(keys) != keys)) for keys in (compared, *sources.values())]
        share = (sum(longer[1:]) + alias_share) / (sum(longer) + 1)
    return PreviousTable(meta.function, table.keys, table.aliases, meta.alias_function, sources, compared, share)


def _alias_sources(tree: KnowledgeTree, functions: Mapping[str, str], domain: str) -> dict[str, Keys]:
    """Return a table's aliases by the function of the row that lookups find for them."""
    aliases = tree.tables[domain].aliases
    positions = tree.holder_positions(domain, aliases)
    digests = np.array([functions[each] for each in tree.chain(domain)])
    found = positions >= 0
    return {
        digest: aliases[found & (digests[positions] == digest)]
        for digest in np.unique(digests[positions[found]]).tolist()
    }
