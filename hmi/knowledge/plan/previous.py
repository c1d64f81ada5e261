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
from hmi.knowledge.counts import BigramGain, Errors
from hmi.knowledge.hierarchy import Parents
from hmi.knowledge.keysets import NO_KEYS, holds
from hmi.knowledge.lookup import KnowledgeTree, level_of, segment_of
from hmi.knowledge.ngrams import Keys, unigram
from hmi.knowledge.plan.backoff_error import BackoffErrors, usual_errors, usual_gain
from hmi.knowledge.plan.progress import CHECK, Progress
from hmi.knowledge.store import Table

__all__ = ["PreviousTable", "PreviousTree", "staying_marks"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PreviousTable:
    """What a domain's table held; all keys ascending.

    Attributes:
        function: Digest of the function of its rows.
        keys: N-grams with a row.
        marks: N-grams of which it only said that the ancestors' row will do.
        above: Digest of the function that the marks refer to; None where no other function lies above.
        sources: The marks that can be relied on, by digest of the function of the row that each stood for: it need
            not be `above`, as the ancestors may have had a mark themselves.
        settled: N-grams with a row whose ancestors gave one too: the two were compared, and differ by more than the
            tolerance. They need not be compared again.
        mark_share: Share (0..1) of marks among the n-grams that ancestors gave too; 1 where nothing is known.
    """

    function: str
    keys: Keys
    marks: Keys = field(default_factory=NO_KEYS.copy)
    above: str | None = None
    sources: Mapping[str, Keys] = field(default_factory=dict)
    settled: Keys = field(default_factory=NO_KEYS.copy)
    mark_share: float = 1.0


def staying_marks(
    known: Sequence[PreviousTable], keys: Keys, gives: Callable[[str, Keys], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """For each key `[n]` whether an old mark holds on: what it stood for is what the ancestors give again.

    Args:
        known: Old tables whose rows are of the domain's function, and whose marks refer to the one above it.
        gives: A function's digest and keys `[m]`: whether the ancestors give a row of this function for each, `[m]`.
    """
    stays = np.zeros(len(keys), bool)
    for table in known:
        for source, marks in table.sources.items():
            marked = np.flatnonzero(~stays & holds([marks], keys))
            stays[marked] = gives(source, keys[marked])
    return stays


@dataclass(frozen=True, slots=True)
class PreviousTree:
    """Attributes:
    tables: The sound ones, by domain, to copy rows from.
    held: What is known of them, by domain.
    sizes: Bytes of all tables by domain, the damaged ones too.
    errors: Measures what would stand in for rows; without a tree what was usual.
    bigram_gain: Measures how much better bigrams do that than unigrams, likewise.
    """

    tables: Mapping[str, Table]
    held: Mapping[str, PreviousTable]
    sizes: Mapping[str, int]
    errors: Errors | None
    bigram_gain: BigramGain | None = None

    @classmethod
    def none(cls) -> Self:
        """Before the first version."""
        return cls({}, {}, {}, usual_errors, usual_gain)

    @classmethod
    def of(
        cls,
        tree: KnowledgeTree | None,
        *,
        tolerance: float,
        old_tolerance: float | None = None,
        mark_shares: Mapping[str, float] | None = None,
        built_parents: Parents | None = None,
        verify: bool = True,
        progress: Callable[[Progress], None] = lambda _: None,
    ) -> Self:
        """Read the tables; one that is damaged is left out and logged, and its rows are computed anew.

        Args:
            tolerance: What the next version is built with.
            old_tolerance: What this one was built with; None: not known, so no mark is relied on.
            mark_shares: What this one was planned with (`TreePlan.mark_shares`). Where ancestors have come to hold none
                of a domain's n-grams, because they hardly were of use to it, nothing else tells so.
            built_parents: Of the domains when this version was built, None where no domain was moved since. What a
                moved domain's marks were compared with may not be what lookups find for them today.
            verify: False where every byte was just read.
            progress: What it raises ends the reading.
        """
        if tree is None or not tree.tables:
            return cls.none()
        sound = _sound(tree.tables, progress) if verify else dict(tree.tables)
        functions = {domain: tree.function_of(domain) or "" for domain in tree.parents}
        rest = KnowledgeTree(tree.number, tree.parents, sound, tree.row_dtype, tree.hidden_size, functions)
        known = mark_shares or {}
        held = {
            domain: _describe(
                rest,
                functions,
                domain,
                tolerance,
                None if _marks_in_doubt(rest, functions, domain, built_parents) else old_tolerance,
                known.get(domain, 1.0),
            )
            for domain in sound
        }
        sizes = {domain: table.bytes for domain, table in tree.tables.items()}
        errors = BackoffErrors(rest)
        return cls(sound, held, sizes, errors, errors.bigram_gain)


def _sound(tables: Mapping[str, Table], progress: Callable[[Progress], None]) -> dict[str, Table]:
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
        progress(Progress(CHECK, done, total))
    return sound


class _Reading:
    """Bytes read of a table, said as rows."""

    def __init__(self, progress: Callable[[Progress], None], done: int, total: int, table: Table) -> None:
        self._progress = progress
        self._done = done
        self._total = total
        self._table = table
        self._bytes = 0

    def __call__(self, size: int) -> None:
        self._bytes += size
        meta = self._table.meta
        rows = min(meta.entries, self._bytes // meta.entry_bytes)
        self._progress(Progress(CHECK, self._done + rows, self._total))


def _marks_in_doubt(
    tree: KnowledgeTree, functions: Mapping[str, str], domain: str, built_parents: Parents | None
) -> bool:
    """Whether the domain was moved to where its ancestors may have another function's row for what it has marked: they
    are of several functions, and may have had marks themselves."""
    line = tree.line(domain)
    _, beyond = segment_of(line, functions)
    if built_parents is None or beyond is None or not level_of(tree.line(beyond), functions):
        return False
    return any(built_parents.get(each) != parent for each, parent in zip(line, (*line[1:], None), strict=True))


def _longer(keys: Keys) -> int:
    return int(np.count_nonzero(unigram(keys) != keys))


def _describe(
    tree: KnowledgeTree,
    functions: Mapping[str, str],
    domain: str,
    tolerance: float,
    old_tolerance: float | None,
    mark_share: float,
) -> PreviousTable:
    table = tree.tables[domain]
    meta = table.meta
    line = tree.line(domain)
    _, beyond = segment_of(line, functions)
    sources: dict[str, Keys] = {}
    settled = NO_KEYS
    if beyond is not None and old_tolerance is not None and meta.above == functions[beyond]:
        if old_tolerance <= tolerance:
            sources = _sources(tree, functions, domain)
        if old_tolerance >= tolerance:
            settled = table.keys[tree.held_at(beyond, table.keys) >= 0]
    if old_tolerance == tolerance:
        # Unigrams may all be there, whoever asks for them: they say nothing of what is asked for.
        marks = sum(_longer(each) for each in sources.values())
        share = (marks + mark_share) / (marks + _longer(settled) + 1)
    else:
        share = 1.0
    return PreviousTable(meta.function, table.keys, table.marks, meta.above, sources, settled, share)


def _sources(tree: KnowledgeTree, functions: Mapping[str, str], domain: str) -> dict[str, Keys]:
    """A table's marks by the function of the row that lookups find for them."""
    marks = tree.tables[domain].marks
    places = tree.held_at(domain, marks)
    line = tree.line(domain)
    by_function: dict[str, NDArray[np.bool_]] = {}
    for place in np.unique(places[places >= 0]).tolist():
        digest = functions[line[place]]
        by_function[digest] = by_function.get(digest, False) | (places == place)
    return {digest: marks[here] for digest, here in by_function.items()}
