"""Bounds the number of n-gram counts, independently of tree builds.

Each place (base model and domain) has an upper bound of its rows; every write adds its rows as if all were new. Rows
are counted only if these bounds exceed the limits. If there really are too many, a histogram of weights gives the
cut below which rows are deleted, range by range of keys, each in a short transaction. Reading blocks no writer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import randbelow

from sqlalchemy import BigInteger, ColumnElement, and_, cast, delete, func, or_, select, update

from hmi.catalog.database import Database, database_time, execute_dml
from hmi.catalog.nodes import claim_tick
from hmi.catalog.schema import FrequencyPlace, NgramFrequency
from hmi.catalog.trees.chunks import ChunkedTransactions
from hmi.catalog.trees.frequencies import clock_of, take_turn

_TICK_SECONDS = 60
_KEPT_SHARE = 0.875  # of the limit, so that the next flush does not exceed it again
_BUCKETS = 64  # of the histogram, for each factor e: rows in one differ by 3.2 % at most
_RESIDUES = 1_000_003  # a prime: splits rows of one bucket, often of equal weight, by a hash of the key


@dataclass(frozen=True, slots=True)
class FrequencyLimits:
    """Maximum number of rows for each base model and domain, and in total."""

    rows_per_place: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Cut:
    """Rows in buckets below `bucket` are deleted, and in that one the rows whose hashed key is below `residues`.

    `zero` is the logarithm of the weight at which buckets begin: that of one count now.
    """

    zero: float
    bucket: int
    residues: int


def trim_frequencies_if_due(database: Database, limits: FrequencyLimits) -> int:
    """`trim_frequencies`, at most once a minute over all processes. Cheap if no limit is exceeded."""
    with database.session(read_only=True) as session:
        if not _exceeds(_bounds(database), limits):
            return 0
        tick = int(database_time(session) // _TICK_SECONDS)
    with database.session() as session:
        mine = claim_tick(session, "trim-frequencies", tick)
    return trim_frequencies(database, limits) if mine else 0


def trim_frequencies(database: Database, limits: FrequencyLimits) -> int:
    """Delete the n-grams of least weight where there are too many; return the number of deleted ones.

    A deleted n-gram of a place weighs at most 3.2 % more than any remaining one.
    """
    seen = _bounds(database)
    if not _exceeds(seen, limits):
        return 0
    counted = _count(database, seen)
    if not _exceeds(counted, limits):
        return 0
    histograms = {place: _histogram(database, place) for place in counted}
    excess = sum(counted.values()) > limits.rows
    together = _find_cut(sum((each for _, each in histograms.values()), Counter()), limits.rows) if excess else None
    deleted_rows = 0
    chunks = ChunkedTransactions(database)
    for place, (zero, histogram) in histograms.items():
        cuts = [together] if together is not None else []
        if counted[place] > limits.rows_per_place:
            cuts.append(_find_cut(histogram, limits.rows_per_place))
        if cuts:
            deleted_rows += _delete(chunks, database, place, _Cut(zero, *max(cuts)))
    return deleted_rows


def _exceeds(rows: Mapping[int, int], limits: FrequencyLimits) -> bool:
    return sum(rows.values()) > limits.rows or max(rows.values(), default=0) > limits.rows_per_place


def _bounds(database: Database) -> dict[int, int]:
    with database.session(read_only=True) as session:
        rows = session.execute(select(FrequencyPlace.id, FrequencyPlace.rows_bound))
        return {row[0]: row[1] for row in rows}


def _count(database: Database, bounds: Mapping[int, int]) -> dict[int, int]:
    """Count rows by place and lower the places' bounds to the counts."""
    with database.session(read_only=True) as session:
        counting = select(NgramFrequency.place_id, func.count()).group_by(NgramFrequency.place_id)
        counted = {row[0]: row[1] for row in session.execute(counting)}
    found = {place: counted.get(place, 0) for place in bounds}
    with database.session() as session:
        take_turn(session)
        for place, rows in found.items():
            # By the difference: rows that were written since are in the bound but not in the count.
            lower = FrequencyPlace.rows_bound - (bounds[place] - rows)
            # A bound that is lower than seen was lowered by a concurrent trim.
            as_seen = (FrequencyPlace.id == place, FrequencyPlace.rows_bound >= bounds[place])
            execute_dml(session, update(FrequencyPlace).where(*as_seen).values(rows_bound=lower))
    return found


def _bucket(zero: float) -> ColumnElement[int]:
    return cast((NgramFrequency.log_weight - zero) * _BUCKETS, BigInteger)


def _histogram(database: Database, place: int) -> tuple[float, Counter[int]]:
    """Return the logarithm of the weight of one count now, and the number of rows by bucket above it."""
    with database.session(read_only=True) as session:
        base_id = session.execute(select(FrequencyPlace.base_id).where(FrequencyPlace.id == place)).scalar_one()
        running = clock_of(session, base_id)
        zero = 0.0 if running is None else running.logarithm(database_time(session))
        bucket = _bucket(zero).label("bucket")
        rows = session.execute(select(bucket, func.count()).where(NgramFrequency.place_id == place).group_by(bucket))
        return zero, Counter({row[0]: row[1] for row in rows})


def _find_cut(histogram: Mapping[int, int], limit: int) -> tuple[int, int]:
    """Return the bucket and residues (see `_Cut`) that leave `_KEPT_SHARE` of `limit` rows."""
    excess = sum(histogram.values()) - int(limit * _KEPT_SHARE)
    for bucket, rows in sorted(histogram.items()):
        if rows >= excess:
            return bucket, -(-_RESIDUES * max(excess, 0) // rows)
        excess -= rows
    return 0, 0


def _delete(chunks: ChunkedTransactions, database: Database, place: int, cut: _Cut) -> int:
    bucket = _bucket(cut.zero)
    # A new hash each time, so that no n-gram on the edge is deleted by every trim.
    spread = _RESIDUES // 7 + randbelow(_RESIDUES // 2)
    residue = NgramFrequency.ngram % _RESIDUES * spread % _RESIDUES
    too_light = or_(bucket < cut.bucket, and_(bucket == cut.bucket, residue < cut.residues))
    deleted_rows, after = 0, -1
    while True:
        rows = chunks.rows
        of_rest = (NgramFrequency.place_id == place, NgramFrequency.ngram > after)
        with database.session(read_only=True) as session:
            keys = select(NgramFrequency.ngram).where(*of_rest).order_by(NgramFrequency.ngram)
            last = session.execute(keys.offset(rows - 1).limit(1)).scalar_one_or_none()
        of_range = of_rest if last is None else (*of_rest, NgramFrequency.ngram <= last)
        with chunks.transaction(rows) as session:
            deleted = execute_dml(session, delete(NgramFrequency).where(*of_range, too_light))
            fewer = FrequencyPlace.rows_bound - deleted
            execute_dml(session, update(FrequencyPlace).where(FrequencyPlace.id == place).values(rows_bound=fewer))
        deleted_rows += deleted
        if last is None:
            return deleted_rows
        after = last
