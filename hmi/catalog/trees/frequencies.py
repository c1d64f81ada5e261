"""Counts of n-grams, decaying with time, stored in a form that is never rewritten.

Forward decay (Cormode, Shkapenyuk, Srivastava and Xu, "Forward decay", ICDE 2009): a count at time t weighs
count * 2^((t - landmark) / half life), so that rows written at different times are comparable. The stored value is the
natural logarithm, which does not overflow with age, so the landmark never moves.

Rows are written in key order and by one transaction at a time, which takes its turn before it locks anything. So
flushes never deadlock, and none holds a lock while it waits.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import CursorResult, bindparam, select, tuple_, update
from sqlalchemy.orm import Session

from hmi.catalog.database import Database, database_time, execute_dml, insert_or, lock_for_transaction
from hmi.catalog.schema import Domain, FrequencyPlace, NgramFrequency, RegisteredBase
from hmi.errors import NotFound

_WRITE_LOCK = 0x686D6966  # held by the one transaction that writes frequencies
_PAGE = 8_192  # rows read in one transaction; with more, Python's garbage collection costs a third of the time
# SQL for the logarithm of the sum of two rows' weights.
_LOG_ADD = {
    "sqlite": "hmi_log_add({0}.log_weight, {1}.log_weight)",
    # Below e^-50 it adds nothing to a float; below e^-745 exp() is an error.
    "postgresql": "greatest({0}.log_weight, {1}.log_weight)"
    " + ln(1 + exp(greatest(-abs({0}.log_weight - {1}.log_weight), -50)))",
}
_INSERT = {
    "sqlite": "VALUES (?, ?, ?, ?)",
    "postgresql": "SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::double precision[], %s::bigint[])",
}
_UPSERT = {
    dialect: f"INSERT INTO ngram_frequencies AS f (place_id, ngram, log_weight, tenants) {rows}"
    f" ON CONFLICT (place_id, ngram) DO UPDATE SET log_weight = {_LOG_ADD[dialect].format('f', 'excluded')},"
    " tenants = f.tenants | excluded.tenants"
    for dialect, rows in _INSERT.items()
}


class Clock(NamedTuple):
    """A clock in half-lives: `landmark` in Unix seconds, by the database's clock; `half_life` in seconds."""

    landmark: float
    half_life: float

    def logarithm(self, at: float) -> float:
        """Logarithm of the weight of one count at `at` (Unix seconds)."""
        return (at - self.landmark) / self.half_life * math.log(2.0)

    def counts(self, log_weights: NDArray[np.float64], at: float) -> NDArray[np.float64]:
        """Decay stored weights to `at`."""
        counts: NDArray[np.float64] = np.exp(log_weights - self.logarithm(at))
        return counts

    def changed(self, half_life: float, at: float) -> Clock:
        """The clock with another half-life; both agree on the time `at`, so no row is written."""
        return Clock(at - half_life * (at - self.landmark) / self.half_life, half_life)


class NgramCounts(NamedTuple):
    """Counts to add for one base model and domain."""

    base_id: str
    domain_id: str
    ngrams: ArrayLike  # packed, int64 or uint64 [n]
    counts: ArrayLike  # [n]
    tenants: ArrayLike = 0  # bitmaps of who asked (`hmi.tenant_bits`), [n] or one for all; 0: not known


@dataclass(frozen=True, slots=True)
class CountedBlock:
    """Some of a domain's n-grams."""

    domain: str
    ngrams: NDArray[np.uint64]  # packed keys [n], ascending
    counts: NDArray[np.float64]  # [n], decayed
    tenants: NDArray[np.uint64]  # [n], bitmaps of who asked


class DomainFrequencies(NamedTuple):
    """All of a domain's n-grams; as in `CountedBlock`."""

    ngrams: NDArray[np.uint64]
    weights: NDArray[np.float64]
    tenants: NDArray[np.uint64]


def add(session: Session, parts: Sequence[NgramCounts], *, half_life_seconds: float, at: float | None = None) -> None:
    """Add counts of the time `at` (Unix seconds, None for now), in any order; repeated n-grams are summed.

    It is one transaction; use `ChunkedTransactions` for many rows. Raises `NotFound`.
    """
    take_turn(session)
    at = database_time(session) if at is None else at
    logarithms = {
        base_id: _running_clock(session, base_id, half_life_seconds, at).logarithm(at)
        for base_id in {part.base_id for part in parts}
    }
    places = _places(session, {(part.base_id, part.domain_id) for part in parts})
    by_place: dict[int, list[NgramCounts]] = defaultdict(list)
    for part in parts:
        by_place[places[part.base_id, part.domain_id]].append(part)
    ids = sorted(by_place)
    summed = [_summed(by_place[place]) for place in ids]
    sizes = [len(keys) for keys, _, _ in summed]
    if not any(sizes):
        return
    log_weights = [
        np.log(sums) + logarithms[by_place[place][0].base_id] for place, (_, sums, _) in zip(ids, summed, strict=True)
    ]
    keys, tenants = (np.concatenate([each[column] for each in summed]) for column in (0, 2))
    _upsert(session, np.repeat(ids, sizes), keys, np.concatenate(log_weights), tenants)
    more = update(FrequencyPlace).where(FrequencyPlace.id == bindparam("place"))
    session.connection().execute(
        more.values(rows_bound=FrequencyPlace.rows_bound + bindparam("size")),
        [{"place": place, "size": size} for place, size in zip(ids, sizes, strict=True)],
    )


def load(
    database: Database, base_id: str, *, at: float | None = None, progress: Callable[[int], None] | None = None
) -> dict[str, DomainFrequencies]:
    """Return the counts of a base model, decayed to `at` (Unix seconds, None for now), by domain name.

    Counts that are written meanwhile may be missing. `progress` is called with the number of n-grams of each page.
    """
    pages: dict[str, list[CountedBlock]] = defaultdict(list)
    for block in iter_blocks(database, base_id, at=at):
        pages[block.domain].append(block)
        if progress is not None:
            progress(len(block.ngrams))
    return {
        domain: DomainFrequencies(
            np.concatenate([block.ngrams for block in blocks]),
            np.concatenate([block.counts for block in blocks]),
            np.concatenate([block.tenants for block in blocks]),
        )
        for domain, blocks in pages.items()
    }


def iter_blocks(database: Database, base_id: str, *, at: float | None = None) -> Iterator[CountedBlock]:
    """Yield all counts of a base model, decayed to `at`, by domain name and ascending key, in blocks.

    Each block is read in its own transaction: a long one would keep SQLite from checkpointing its log, and PostgreSQL
    from vacuuming.
    """
    with database.session(read_only=True) as session:
        now = database_time(session) if at is None else at
        clock = clock_of(session, base_id)
        places = session.execute(
            select(Domain.name, FrequencyPlace.id)
            .join(Domain, Domain.id == FrequencyPlace.domain_id)
            .where(FrequencyPlace.base_id == base_id)
            .order_by(Domain.name)
        ).all()
    if clock is None:
        return
    for domain, place in places:
        for ngrams, log_weights, tenants in _iter_pages(database, place):
            yield CountedBlock(domain, ngrams, clock.counts(log_weights, now), tenants)


def clock_of(session: Session, base_id: str) -> Clock | None:
    """Return the decay clock of a base model; None before its first count."""
    columns = select(RegisteredBase.frequency_landmark, RegisteredBase.frequency_half_life).where(
        RegisteredBase.id == base_id
    )
    landmark, half_life = session.execute(columns).one_or_none() or (None, None)
    return None if landmark is None or half_life is None else Clock(landmark, half_life)


def take_turn(session: Session) -> None:
    """Wait until no other transaction writes frequencies. Call it before locking anything else."""
    lock_for_transaction(session, _WRITE_LOCK)


def _running_clock(session: Session, base_id: str, half_life_seconds: float, at: float) -> Clock:
    """Return the base model's clock, created or changed to this half-life if needed."""
    running = clock_of(session, base_id)
    if running is not None and running.half_life == half_life_seconds:
        return running
    running = Clock(at, half_life_seconds) if running is None else running.changed(half_life_seconds, at)
    values = {"frequency_landmark": running.landmark, "frequency_half_life": running.half_life}
    if not execute_dml(session, update(RegisteredBase).where(RegisteredBase.id == base_id).values(**values)):
        raise NotFound(f"there is no base model {base_id}", code="base_not_found", param="base")
    return running


def _places(session: Session, keys: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Return ids by (base id, domain id); create missing ones."""
    missing = sorted(keys)
    columns = (FrequencyPlace.base_id, FrequencyPlace.domain_id, FrequencyPlace.id)
    statement = select(*columns).where(tuple_(*columns[:2]).in_(missing))
    found = {(row[0], row[1]): row[2] for row in session.execute(statement)}
    new = [pair for pair in missing if pair not in found]
    if new:
        rows = [{"base_id": base_id, "domain_id": domain_id, "rows_bound": 0} for base_id, domain_id in new]
        execute_dml(session, insert_or(session, FrequencyPlace).values(rows))
        found.update({(row[0], row[1]): row[2] for row in session.execute(statement)})
    return found


def _summed(parts: Sequence[NgramCounts]) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return the distinct n-grams, ascending, the sums of their counts, and who asked; sums of 0 are dropped."""
    keys = np.concatenate([np.asarray(part.ngrams, dtype=np.int64) for part in parts])
    counts = np.concatenate([np.asarray(part.counts, dtype=np.float64) for part in parts])
    tenants = np.concatenate(
        [np.broadcast_to(np.asarray(part.tenants, dtype=np.int64), np.shape(part.ngrams)) for part in parts]
    )
    unique, places = np.unique(keys, return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(places, weights=counts, minlength=len(unique)).astype(np.float64)
    bitmaps = np.zeros(len(unique), np.int64)
    np.bitwise_or.at(bitmaps, places, tenants)
    return unique[sums > 0], sums[sums > 0], bitmaps[sums > 0]


def _upsert(
    session: Session,
    places: NDArray[np.int64],
    keys: NDArray[np.int64],
    log_weights: NDArray[np.float64],
    tenants: NDArray[np.int64],
) -> None:
    """Write rows in key order, by the driver: many times faster than SQLAlchemy's executemany."""
    connection = session.connection()
    dialect = connection.dialect.name
    columns = (places.tolist(), keys.tolist(), log_weights.tolist(), tenants.tolist())
    if dialect == "sqlite":
        connection.exec_driver_sql(_UPSERT[dialect], list(zip(*columns, strict=True)))
    else:  # array literals, which the driver writes more slowly
        connection.exec_driver_sql(_UPSERT[dialect], tuple(f"{{{','.join(map(repr, each))}}}" for each in columns))


def _iter_pages(
    database: Database, place: int
) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.uint64]]]:
    """Yield pages of a place's n-grams `[n]` ascending, the logarithms of their weights, and who asked."""
    names = ("ngram", "log_weight", "tenants")
    after, full = -1, True
    while full:
        with database.session(read_only=True) as session:
            columns = (getattr(NgramFrequency, name) for name in names)
            of_page = select(*columns).where(NgramFrequency.place_id == place, NgramFrequency.ngram > after)
            # The driver's own rows: four times faster.
            result = session.connection().execute(of_page.order_by(NgramFrequency.ngram).limit(_PAGE))
            rows = cast("CursorResult[Any]", result).cursor.fetchall()
        if rows:
            page = np.array(rows, dtype=list(zip(names, (np.uint64, np.float64, np.uint64), strict=True)))
            yield page["ngram"].copy(), page["log_weight"].copy(), page["tenants"].copy()
            after = int(page["ngram"][-1])
        full = len(rows) == _PAGE
