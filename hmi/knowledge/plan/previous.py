"""The version that is served, as the next one is planned and built from it.

A build trusts what an old table says only after reading every byte of it: otherwise a flipped bit would get a good
checksum in the new version.
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
from hmi.knowledge.plan.backoff_error import USUAL_BACKOFF, MeasuredBackoff
from hmi.knowledge.plan.progress import CHECK, BuildProgress
from hmi.knowledge.store import Table

__all__ = ["PreviousTable", "PreviousTree", "kept_aliases"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreviousTable:
    """What a domain's table held; all keys ascending.

    Attributes:
        function: Digest of the function of its rows.
        keys: N-grams with a row.
        aliases: N-grams of which it only said that the ancestors' row will do.
        above: Digest of the function that the aliases refer to; None where no other function lies above.
        sources: The aliases that can be relied on, by digest of the function of the row that each stood for: it need
            not be `above`, as the ancestors may have had an alias themselves.
        compared: N-grams with a row whose ancestors gave one too: the two were compared, and differ by more than the
            tolerance. They need not be compared again.
        alias_share: Share (0..1) of aliases among the n-grams that ancestors gave too; 1 where nothing is known.
    """

    function: str
    keys: Keys
    aliases: Keys = field(default_factory=NO_KEYS.copy)
    alias_function: str | None = None
    sources: Mapping[str, Keys] = field(default_factory=dict)
    compared: Keys = field(default_factory=NO_KEYS.copy)
    alias_share: float = 1.0


def kept_aliases(
    known: Sequence[PreviousTable], keys: Keys, gives: Callable[[str, Keys], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """For each key `[n]` whether an old alias holds on: what it stood for is what the ancestors give again.

    Args:
        known: Old tables whose rows are of the domain's function, and whose aliases refer to the one above it.
        gives: A function's digest and keys `[m]`: whether the ancestors give a row of this function for each, `[m]`.
    """
    stays = np.zeros(len(keys), bool)
    for table in known:
        for source, aliases in table.sources.items():
            marked = np.flatnonzero(~stays & holds([aliases], keys))
            stays[marked] = gives(source, keys[marked])
    return stays


@dataclass(frozen=True, slots=True)
class PreviousTree:
    """Attributes:
    tables: The sound ones, by domain, to copy rows from.
    held: What is known of them, by domain.
    sizes: Bytes of all tables by domain, the damaged ones too.
    backoff: Measured on the sound tables; typical values where there are none.
    """

    tables: Mapping[str, Table]
    held: Mapping[str, PreviousTable]
    sizes: Mapping[str, int]
    backoff: BackoffEstimates

    @classmethod
    def empty(cls) -> Self:
        """Before the first version."""
        return cls({}, {}, {}, USUAL_BACKOFF)

    @classmethod
    def read(
        cls,
        tree: KnowledgeTree | None,
        *,
        tolerance: float,
        built_tolerance: float | None = None,
        alias_shares: Mapping[str, float] | None = None,
        built_parents: Parents | None = None,
        verify: bool = True,
        progress: Callable[[BuildProgress], None] = lambda _: None,
    ) -> Self:
        """Read the tables; one that is damaged is left out and logged, and its rows are computed anew.

        Args:
            tolerance: What the next version is built with.
            built_tolerance: What this one was built with; None: not known, so no alias is relied on.
            alias_shares: What this one was planned with (`TreePlan.alias_shares`). Where ancestors have come to hold
                none of a domain's n-grams, because they hardly were of use to it, nothing else tells so.
            built_parents: Of the domains when this version was built, None where no domain was moved since. What a
                moved domain's aliases were compared with may not be what lookups find for them today.
            verify: False where every byte was just read.
            progress: What it raises ends the reading.
        """
        if tree is None or not tree.tables:
            return cls.empty()
        sound = _sound(tree.tables, progress) if verify else dict(tree.tables)
        functions = {domain: tree.function_of(domain) or "" for domain in tree.parents}
        rest = KnowledgeTree(tree.number, tree.parents, sound, tree.row_dtype, tree.hidden_size, functions)
        known = alias_shares or {}
        held = {
            domain: _describe(
                rest,
                functions,
                domain,
                tolerance,
                None if _aliases_in_doubt(rest, functions, domain, built_parents) else built_tolerance,
                known.get(domain, 1.0),
            )
            for domain in sound
        }
        sizes = {domain: table.bytes for domain, table in tree.tables.items()}
        measured = MeasuredBackoff(rest)
        return cls(sound, held, sizes, BackoffEstimates(measured.errors, measured.bigram_gain))


def _sound(tables: Mapping[str, Table], progress: Callable[[BuildProgress], None]) -> dict[str, Table]:
    sound: dict[str, Table] = {}
    total = sum(table.meta.entries for table in tables.values())
    done = 0
    for domain in sorted(tables):
        table = tables[domain]
        read = _Reading(progress, done, total, table)
        try:
            table.verify(read)
        except Corrupt as error:
            _log.warning("the old rows of domain %s are computed anew: %s", domain, error)
        else:
            sound[domain] = table
        done += table.meta.entries
        progress(BuildProgress(CHECK, done, total))
    return sound


class _Reading:
    """Bytes read of a table, said as rows."""

    def __init__(self, progress: Callable[[BuildProgress], None], done: int, total: int, table: Table) -> None:
        self._progress = progress
        self._done = done
        self._total = total
        self._table = table
        self._bytes = 0

    def __call__(self, size: int) -> None:
        self._bytes += size
        meta = self._table.meta
        rows = min(meta.entries, self._bytes // meta.entry_bytes)
        self._progress(BuildProgress(CHECK, self._done + rows, self._total))


def _aliases_in_doubt(
    tree: KnowledgeTree, functions: Mapping[str, str], domain: str, built_parents: Parents | None
) -> bool:
    """Whether the domain was moved to where its ancestors may have another function's row for what it has marked: they
    are of several functions, and may have had aliases themselves."""
    line = tree.chain(domain)
    _, foreign = function_run(line, functions)
    if built_parents is None or foreign is None or not function_changes(tree.chain(foreign), functions):
        return False
    return any(built_parents.get(each) != parent for each, parent in zip(line, (*line[1:], None), strict=True))


def _longer(keys: Keys) -> int:
    return int(np.count_nonzero(unigram(keys) != keys))


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
    line = tree.chain(domain)
    _, foreign = function_run(line, functions)
    sources: dict[str, Keys] = {}
    compared = NO_KEYS
    if foreign is not None and built_tolerance is not None and meta.alias_function == functions[foreign]:
        if built_tolerance <= tolerance:
            sources = _sources(tree, functions, domain)
        if built_tolerance >= tolerance:
            compared = table.keys[tree.holder_positions(foreign, table.keys) >= 0]
    if built_tolerance == tolerance:
        # Unigrams may all be there, whoever asks for them: they say nothing of what is asked for.
        aliases = sum(_longer(each) for each in sources.values())
        share = (aliases + alias_share) / (aliases + _longer(compared) + 1)
    else:
        share = 1.0
    return PreviousTable(meta.function, table.keys, table.aliases, meta.alias_function, sources, compared, share)


def _sources(tree: KnowledgeTree, functions: Mapping[str, str], domain: str) -> dict[str, Keys]:
    """A table's aliases by the function of the row that lookups find for them."""
    aliases = tree.tables[domain].aliases
    places = tree.holder_positions(domain, aliases)
    line = tree.chain(domain)
    by_function: dict[str, NDArray[np.bool_]] = {}
    for place in np.unique(places[places >= 0]).tolist():
        digest = functions[line[place]]
        by_function[digest] = by_function.get(digest, False) | (places == place)
    return {digest: aliases[here] for digest, here in by_function.items()}
