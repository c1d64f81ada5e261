"""From a plan to table folders: copy the rows that the old version has, compute the others.

Domains are built from the root down. First the rows that are nowhere yet are computed into pieces, once for each
function; then tables are written by copying. Where a domain has a delta, its rows can only be compared when the tables
above it are there; so domains are taken in levels, by how often the function changes above them.

A build that is run again takes over the pieces of the one that was cut short and writes its tables anew: that is
copying, and so the result is the same to the byte as if nothing had happened.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hmi.knowledge.build.draft import Draft, draft_domain
from hmi.knowledge.build.gather import BLOCK_ROWS, find_rows, gather, row_blocks
from hmi.knowledge.build.report import BuildReport, DomainReport, report_domain
from hmi.knowledge.build.row_chunks import ComputeRows, RowChunks, RowSource
from hmi.knowledge.build.verify import verify_sample
from hmi.knowledge.domains import ancestor_chains, function_changes
from hmi.knowledge.lookup import KnowledgeTree
from hmi.knowledge.ngrams import Keys, holds, union
from hmi.knowledge.plan import COMPUTE, WRITE, BuildProgress, PreviousTree, TreePlan
from hmi.knowledge.store import EncodedRows, RowRefs, Table, TableMeta, decode, write_table_blocks
from hmi.spec import RowDtype

__all__ = ["BuildProgress", "BuildReport", "ComputeRows", "DomainReport", "build_tree", "verify_sample"]

_PIECES = ".pieces"  # no domain can have this name


def build_tree(
    folder: Path,
    plan: TreePlan,
    old: PreviousTree,
    compute: ComputeRows,
    *,
    row_dtype: RowDtype,
    hidden_size: int,
    tolerance: float,
    progress: Callable[[BuildProgress], None],
    chunk: int = 1024,
) -> BuildReport:
    """Write `<folder>/<domain>/` for every domain of the plan.

    Takes memory for the plan's keys and a block of rows, however many rows there are. What was written is as good as
    its checksums; nothing is read again.

    Args:
        old: The version to copy from; rows of another function, row dtype or hidden size are passed over.
        compute: Called with at most `chunk` keys at a time.
        tolerance: A domain's own row is not stored where its ancestors' differs from it by at most this share of its
            length (L2); 0: it always is.
        progress: Called after each call of `compute` and each block written. What it raises ends the build, and so does
            what `compute` raises.

    Raises:
        Corrupt: A computed row cannot be stored, see `rows.encode`.
        StorageFull: No room left.
    """
    if tolerance < 0:
        raise ValueError(f"not a tolerance: {tolerance}")
    build = _Build(folder, plan, old, compute, row_dtype, hidden_size, tolerance, progress, chunk)
    return build.run()


class _Build:
    def __init__(
        self,
        folder: Path,
        plan: TreePlan,
        old: PreviousTree,
        compute: ComputeRows,
        row_dtype: RowDtype,
        hidden_size: int,
        tolerance: float,
        progress: Callable[[BuildProgress], None],
        chunk: int,
    ) -> None:
        self._folder = folder
        self._plan = plan
        self._old = old
        self._compute = compute
        self._row_dtype = row_dtype
        self._hidden_size = hidden_size
        self._tolerance = tolerance
        self._progress = progress
        self._chunk = chunk
        self._lines = ancestor_chains(plan.parents)
        self._digests = {domain: plan.functions[domain].digest for domain in self._lines}
        self._pieces = RowChunks(
            folder / _PIECES, {each.digest: each for each in plan.functions.values()}, row_dtype, hidden_size
        )
        self._tables: dict[str, Table] = {}
        self._reports: dict[str, DomainReport] = {}
        self._computed = 0
        self._computed_of: dict[str, Keys] = {}  # by function, which may be that of domains on several levels
        self._written, self._total = 0, sum(len(keys) for keys in plan.tables.values())

    def run(self) -> BuildReport:
        levels: defaultdict[int, list[str]] = defaultdict(list)
        for domain in sorted(self._lines, key=lambda each: (len(self._lines[each]), each)):
            levels[function_changes(self._lines[domain], self._digests)].append(domain)
        for level in sorted(levels):
            above = KnowledgeTree(
                0, self._plan.parents, self._tables, self._row_dtype, self._hidden_size, self._digests
            )
            drafts = [
                draft_domain(domain, self._plan, self._digests, self._lines[domain], self._old.held, above)
                for domain in levels[level]
            ]
            self._compute_missing(drafts)
            for draft in drafts:
                self._write(draft, above)
        return BuildReport(self._reports, self._computed, self._tolerance)

    def _copied(self, function: str, domain: str | None = None) -> list[Table]:
        """Old tables to copy this function's rows from; first the domain's own, the likeliest to hold a key."""
        tables = [
            table
            for table in self._old.tables.values()
            if (table.meta.function, table.meta.row_dtype, table.meta.hidden_size)
            == (function, self._row_dtype, self._hidden_size)
        ]
        return sorted(tables, key=lambda table: (table.meta.domain != domain, table.meta.domain))

    def _compute_missing(self, drafts: Sequence[Draft]) -> None:
        """Compute the rows that neither the old version nor a piece has."""
        wanted: defaultdict[str, list[Keys]] = defaultdict(list)
        for draft in drafts:
            places = find_rows(self._copied(draft.function, draft.domain), draft.rows)
            wanted[draft.function].append(draft.rows[places.table < 0])
        functions = {each.digest: each for each in self._plan.functions.values()}
        missing: dict[str, Keys] = {}
        for digest in sorted(wanted):
            keys, before = union(wanted[digest]), self._computed_of.get(digest)
            missing[digest] = keys if before is None else keys[~holds([before], keys)]
            self._computed_of[digest] = keys if before is None else union([before, keys])
        total = self._computed + sum(len(keys) for keys in missing.values())
        for digest, keys in missing.items():
            fresh = keys[find_rows(self._pieces.of(functions[digest]), keys).table < 0]
            known = self._computed + len(keys) - len(fresh)

            def report(done: int, known: int = known) -> None:
                self._progress(BuildProgress(COMPUTE, known + done, total))

            self._pieces.compute(functions[digest], fresh, self._compute, self._chunk, report)
            self._computed += len(keys)
            self._progress(BuildProgress(COMPUTE, self._computed, total))

    def _write(self, draft: Draft, above: KnowledgeTree) -> None:
        domain, function = draft.domain, self._plan.functions[draft.domain]
        copied = self._copied(draft.function, domain)
        sources: list[RowSource] = [*copied, *self._pieces.of(function)]
        places = find_rows(sources, draft.rows)
        same = self._compare(draft, sources, places, above)
        keys, aliases = draft.rows[~same], union([draft.aliases, draft.rows[same]])
        places = RowRefs(places.table[~same], places.row[~same])
        meta = TableMeta(
            domain, draft.function, self._row_dtype, self._hidden_size, len(keys), len(aliases), draft.alias_function
        )
        target = self._folder / domain
        shutil.rmtree(target, ignore_errors=True)
        write_table_blocks(target, meta, keys, self._blocks(sources, places), aliases)
        self._written += len(keys) + len(aliases)
        self._progress(BuildProgress(WRITE, self._written, self._total))
        table = Table.open(target)
        self._tables[domain] = table
        taken = int(np.count_nonzero(places.table < len(copied)))
        self._reports[domain] = report_domain(domain, self._plan, self._old, taken, table)

    def _blocks(self, sources: Sequence[RowSource], places: RowRefs) -> Iterator[EncodedRows]:
        done = self._written
        for block in row_blocks(sources, places, self._row_dtype, self._hidden_size):
            yield block
            done += len(block)
            self._progress(BuildProgress(WRITE, done, self._total))

    def _compare(
        self, draft: Draft, sources: Sequence[RowSource], places: RowRefs, above: KnowledgeTree
    ) -> NDArray[np.bool_]:
        """For each of the draft's rows whether what the ancestors give is as good."""
        same = np.zeros(len(draft.rows), bool)
        if draft.foreign is None or not self._tolerance:
            return same
        doubtful = np.flatnonzero(draft.doubtful)
        for start in range(0, len(doubtful), BLOCK_ROWS):
            part = doubtful[start : start + BLOCK_ROWS]
            stored = gather(sources, RowRefs(places.table[part], places.row[part]), self._row_dtype, self._hidden_size)
            own = decode(stored)
            given = above.lookup(draft.foreign, draft.rows[part]).rows
            same[part] = np.linalg.norm(own - given, axis=1) <= self._tolerance * np.linalg.norm(own, axis=1)
            self._progress(BuildProgress(WRITE, self._written, self._total))
        return same
