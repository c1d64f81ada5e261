"""Keeping the counts of n-grams bounded, whoever flushes and whether or not a tree is ever rebuilt.

Each place (base model and domain) carries a bound on its rows, to which every write adds what it writes, as if all of
it were new. Only where these bounds exceed what is allowed are rows counted, and only where there really are too
many is anything read: a histogram of weights, which says below what the lightest are to go. They are deleted range by
range of keys, each a short transaction. Reading takes no lock that a writer waits for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from secrets import randbelow

from sqlalchemy import BigInteger, ColumnElement, and_, cast, delete, func, or_, select, update

from hmi.catalog.chunks import ChunkedTransactions
from hmi.catalog.database import Database, change, clock
from hmi.catalog.frequencies import clock_of, take_turn
from hmi.catalog.tables import FrequencyPlace, NgramFrequency
from hmi.catalog.ticks import claim_tick

__all__ = ["Limits", "trim", "trim_in_turn"]

_TICK_SECONDS = 60
_KEPT_SHARE = 0.875  # of what is allowed, so that the next flush does not exceed it again
_BUCKETS = 64  # of the histogram, for each factor e: rows in one differ by 3.2 % at most
_RESIDUES = 1_000_003  # a prime: rows of one bucket, often equal, are told apart by the key's remainder


@dataclass(frozen=True, slots=True)
class Limits:
    """Rows for each base model and domain, and for all of them together."""

    rows_per_place: int
    rows: int


@dataclass(frozen=True, slots=True)
class _Cut:
    """Buckets below `bucket` go, and of that one the rows whose key's remainder, times a number, is below `residues`.

    `zero` is the logarithm of the weight at which buckets begin: that of one count now.
    """

    zero: float
    bucket: int
    residues: int


def trim_in_turn(database: Database, limits: Limits) -> int:
    """As `trim`, once a minute at most, whichever process asks first. Cheap where nothing is to be done."""
    with database.session(read_only=True) as session:
        if not _exceeds(_bounds(database), limits):
            return 0
        tick = int(clock(session) // _TICK_SECONDS)
    with database.session() as session:
        mine = claim_tick(session, "trim-frequencies", tick)
    return trim(database, limits) if mine else 0


def trim(database: Database, limits: Limits) -> int:
    """Forget the lightest n-grams where there are too many; gives how many were forgotten.

    What is forgotten of a place was at most 3.2 % heavier than the lightest that stays there.
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
    forgotten = 0
    pieces = ChunkedTransactions(database)
    for place, (zero, histogram) in histograms.items():
        cuts = [together] if together is not None else []
        if counted[place] > limits.rows_per_place:
            cuts.append(_find_cut(histogram, limits.rows_per_place))
        if cuts:
            forgotten += _delete(pieces, database, place, _Cut(zero, *max(cuts)))
    return forgotten


def _exceeds(rows: Mapping[int, int], limits: Limits) -> bool:
    return sum(rows.values()) > limits.rows or max(rows.values(), default=0) > limits.rows_per_place


def _bounds(database: Database) -> dict[int, int]:
    with database.session(read_only=True) as session:
        rows = session.execute(select(FrequencyPlace.id, FrequencyPlace.rows_bound))
        return {row[0]: row[1] for row in rows}


def _count(database: Database, bounds: Mapping[int, int]) -> dict[int, int]:
    """Rows by place, and the places' bounds brought down to them."""
    with database.session(read_only=True) as session:
        counting = select(NgramFrequency.place_id, func.count()).group_by(NgramFrequency.place_id)
        counted = {row[0]: row[1] for row in session.execute(counting)}
    found = {place: counted.get(place, 0) for place in bounds}
    with database.session() as session:
        take_turn(session)
        for place, rows in found.items():
            # By the difference: what was written since is in the bound, and not in the count.
            lower = FrequencyPlace.rows_bound - (bounds[place] - rows)
            # One that is lower than it was seen was brought down by another trim, and shall not be by two.
            as_seen = (FrequencyPlace.id == place, FrequencyPlace.rows_bound >= bounds[place])
            change(session, update(FrequencyPlace).where(*as_seen).values(rows_bound=lower))
    return found


def _bucket(zero: float) -> ColumnElement[int]:
    return cast((NgramFrequency.log_weight - zero) * _BUCKETS, BigInteger)


def _histogram(database: Database, place: int) -> tuple[float, Counter[int]]:
    """The logarithm of the weight of one count now, and rows by bucket of weight over it."""
    with database.session(read_only=True) as session:
        base_id = session.execute(select(FrequencyPlace.base_id).where(FrequencyPlace.id == place)).scalar_one()
        running = clock_of(session, base_id)
        zero = 0.0 if running is None else running.logarithm(clock(session))
        bucket = _bucket(zero).label("bucket")
        rows = session.execute(select(bucket, func.count()).where(NgramFrequency.place_id == place).group_by(bucket))
        return zero, Counter({row[0]: row[1] for row in rows})


def _find_cut(histogram: Mapping[int, int], limit: int) -> tuple[int, int]:
    """Bucket and residues (see `_Cut`) that leave `_KEPT_SHARE` of `limit` rows."""
    excess = sum(histogram.values()) - int(limit * _KEPT_SHARE)
    for bucket, rows in sorted(histogram.items()):
        if rows >= excess:
            return bucket, -(-_RESIDUES * max(excess, 0) // rows)
        excess -= rows
    return 0, 0


def _delete(pieces: ChunkedTransactions, database: Database, place: int, cut: _Cut) -> int:
    bucket = _bucket(cut.zero)
    # Another choice each time: what is always on the edge shall stay now and then, and what the last trim left over
    # would else be all taken or all spared.
    spread = _RESIDUES // 7 + randbelow(_RESIDUES // 2)
    residue = NgramFrequency.ngram % _RESIDUES * spread % _RESIDUES
    too_light = or_(bucket < cut.bucket, and_(bucket == cut.bucket, residue < cut.residues))
    forgotten, after = 0, -1
    while True:
        rows = pieces.rows
        of_rest = (NgramFrequency.place_id == place, NgramFrequency.ngram > after)
        with database.session(read_only=True) as session:
            keys = select(NgramFrequency.ngram).where(*of_rest).order_by(NgramFrequency.ngram)
            last = session.execute(keys.offset(rows - 1).limit(1)).scalar_one_or_none()
        of_range = of_rest if last is None else (*of_rest, NgramFrequency.ngram <= last)
        with pieces.transaction(rows) as session:
            deleted = change(session, delete(NgramFrequency).where(*of_range, too_light))
            fewer = FrequencyPlace.rows_bound - deleted
            change(session, update(FrequencyPlace).where(FrequencyPlace.id == place).values(rows_bound=fewer))
        forgotten += deleted
        if last is None:
            return forgotten
        after = last
