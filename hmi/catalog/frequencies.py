"""How often n-grams are asked for, fading with time; see `catalog.decay`.

Rows are written in the order of their key and by one transaction at a time, which waits for its turn before it
has locked anything. So flushes never lock each other out, and none holds a lock while it waits.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sqlalchemy import CursorResult, bindparam, select, tuple_, update
from sqlalchemy.orm import Session

from hmi.catalog.database import Database, change, clock, insert_or, lock_for_transaction
from hmi.catalog.decay import LOG_ADD, Clock
from hmi.catalog.tables import BaseModel, Domain, FrequencyPlace, NgramFrequency
from hmi.errors import NotFound

__all__ = ["Counts", "DomainFrequencies", "add", "add_all", "clock_of", "iter_pages", "load", "take_turn"]

_TURN = 0x686D6966  # of all transactions that write frequencies
_PAGE = 50_000  # rows read in one transaction
_INSERT = {
    "sqlite": "VALUES (?, ?, ?)",
    "postgresql": "SELECT * FROM unnest(%s::integer[], %s::bigint[], %s::double precision[])",
}
_UPSERT = {
    dialect: f"INSERT INTO ngram_frequencies AS f (place_id, ngram, log_weight) {rows}"
    f" ON CONFLICT (place_id, ngram) DO UPDATE SET log_weight = {LOG_ADD[dialect].format('f', 'excluded')}"
    for dialect, rows in _INSERT.items()
}


class Counts(NamedTuple):
    """What to add for one base model and domain: packed n-grams int64 or uint64 `[n]`, and how often each, `[n]`."""

    base_id: str
    domain_id: str
    ngrams: ArrayLike
    counts: ArrayLike


class DomainFrequencies(NamedTuple):
    """`ngrams` packed keys, uint64 [n] ascending; `weights` their decayed counts, float64 [n]."""

    ngrams: NDArray[np.uint64]
    weights: NDArray[np.float64]


def add(
    session: Session,
    base_id: str,
    domain_id: str,
    ngrams: ArrayLike,
    counts: ArrayLike,
    *,
    half_life_seconds: float,
    at: float | None = None,
) -> None:
    """As `add_all`, for one domain."""
    add_all(session, [Counts(base_id, domain_id, ngrams, counts)], half_life_seconds=half_life_seconds, at=at)


def add_all(session: Session, parts: Sequence[Counts], *, half_life_seconds: float, at: float | None = None) -> None:
    """Add counts of n-grams asked for at `at` (Unix seconds, None for now), in any order; repeats are summed.

    All of it is one transaction, so `catalog.pieces` cuts what is long. Raises `NotFound`.
    """
    take_turn(session)
    at = clock(session) if at is None else at
    logarithms = {
        base_id: _running_clock(session, base_id, half_life_seconds, at).logarithm(at)
        for base_id in {part.base_id for part in parts}
    }
    places = _places(session, {(part.base_id, part.domain_id) for part in parts})
    by_place: dict[int, list[Counts]] = defaultdict(list)
    for part in parts:
        by_place[places[part.base_id, part.domain_id]].append(part)
    ids, keys, log_weights = list[int](), list[NDArray[np.int64]](), list[NDArray[np.float64]]()
    for place, each in sorted(by_place.items()):
        unique, sums = _summed(each)
        ids.append(place)
        keys.append(unique)
        log_weights.append(np.log(sums) + logarithms[each[0].base_id])
    if not any(map(len, keys)):
        return
    sizes = [len(each) for each in keys]
    _upsert(session, np.repeat(ids, sizes), np.concatenate(keys), np.concatenate(log_weights))
    more = update(FrequencyPlace).where(FrequencyPlace.id == bindparam("place"))
    session.connection().execute(
        more.values(rows_bound=FrequencyPlace.rows_bound + bindparam("size")),
        [{"place": place, "size": size} for place, size in zip(ids, sizes, strict=True)],
    )


def load(
    database: Database, base_id: str, *, at: float | None = None, progress: Callable[[int], None] | None = None
) -> dict[str, DomainFrequencies]:
    """What was counted for a base model, decayed to `at` (Unix seconds, None for now), by domain name.

    Read in pages, each a transaction of its own: no long one keeps SQLite from starting its log anew, or
    PostgreSQL from clearing old rows away. What is counted meanwhile may be in it or not.

    Args:
        progress: Called with the number of n-grams of each page; what it raises ends the reading.
    """
    with database.session(read_only=True) as session:
        now = clock(session) if at is None else at
        running = clock_of(session, base_id)
        places = session.execute(
            select(Domain.name, FrequencyPlace.id)
            .join(Domain, Domain.id == FrequencyPlace.domain_id)
            .where(FrequencyPlace.base_id == base_id)
            .order_by(Domain.name)
        ).all()
    if running is None:
        return {}
    found = {}
    for domain, place in places:
        pages = []
        for page in iter_pages(database, place):
            pages.append(page)
            if progress is not None:
                progress(len(page[0]))
        if pages:
            log_weights = np.concatenate([page[1] for page in pages])
            found[domain] = DomainFrequencies(
                np.concatenate([page[0] for page in pages]), running.counts(log_weights, now)
            )
    return found


def clock_of(session: Session, base_id: str) -> Clock | None:
    """The clock of a base model's weights; None before anything was counted."""
    columns = select(BaseModel.frequency_landmark, BaseModel.frequency_half_life).where(BaseModel.id == base_id)
    landmark, half_life = session.execute(columns).one_or_none() or (None, None)
    return None if landmark is None or half_life is None else Clock(landmark, half_life)


def take_turn(session: Session) -> None:
    """Wait until no other transaction writes frequencies; to be called before anything else is locked."""
    lock_for_transaction(session, _TURN)


def _running_clock(session: Session, base_id: str, half_life_seconds: float, at: float) -> Clock:
    """The base model's clock, started or changed to this half-life first where it has to be."""
    running = clock_of(session, base_id)
    if running is not None and running.half_life == half_life_seconds:
        return running
    running = Clock(at, half_life_seconds) if running is None else running.changed(half_life_seconds, at)
    values = {"frequency_landmark": running.landmark, "frequency_half_life": running.half_life}
    if not change(session, update(BaseModel).where(BaseModel.id == base_id).values(**values)):
        raise NotFound(f"there is no base model {base_id}", code="base_not_found", param="base")
    return running


def _places(session: Session, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], int]:
    """Ids by (base id, domain id), made where they are new."""
    missing = sorted(wanted)
    columns = (FrequencyPlace.base_id, FrequencyPlace.domain_id, FrequencyPlace.id)
    statement = select(*columns).where(tuple_(*columns[:2]).in_(missing))
    found = {(row[0], row[1]): row[2] for row in session.execute(statement)}
    new = [pair for pair in missing if pair not in found]
    if new:
        rows = [{"base_id": base_id, "domain_id": domain_id, "rows_bound": 0} for base_id, domain_id in new]
        change(session, insert_or(session, FrequencyPlace).values(rows))
        found.update({(row[0], row[1]): row[2] for row in session.execute(statement)})
    return found


def _summed(parts: Sequence[Counts]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """N-grams, each once and ascending, and the sums of their counts, those above 0."""
    keys = np.concatenate([np.asarray(part.ngrams, dtype=np.int64) for part in parts])
    counts = np.concatenate([np.asarray(part.counts, dtype=np.float64) for part in parts])
    unique, places = np.unique(keys, return_inverse=True)
    sums: NDArray[np.float64] = np.bincount(places, weights=counts, minlength=len(unique)).astype(np.float64)
    return unique[sums > 0], sums[sums > 0]


def _upsert(
    session: Session, places: NDArray[np.int64], keys: NDArray[np.int64], log_weights: NDArray[np.float64]
) -> None:
    """By the driver, which is many times faster than an ORM's executemany; rows in the order of their key."""
    connection = session.connection()
    dialect = connection.dialect.name
    columns = (places.tolist(), keys.tolist(), log_weights.tolist())
    connection.exec_driver_sql(_UPSERT[dialect], list(zip(*columns, strict=True)) if dialect == "sqlite" else columns)


def iter_pages(database: Database, place: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float64]]]:
    """A place's n-grams, uint64 `[n]` ascending, and the logarithms of their weights, `[n]`, page by page.

    Each page is read in a transaction of its own.
    """
    after, full = -1, True
    while full:
        with database.session(read_only=True) as session:
            columns = (NgramFrequency.ngram, NgramFrequency.log_weight)
            of_page = select(*columns).where(NgramFrequency.place_id == place, NgramFrequency.ngram > after)
            # Rows as the driver gives them: a quarter of the time.
            result = session.connection().execute(of_page.order_by(NgramFrequency.ngram).limit(_PAGE))
            rows = cast("CursorResult[Any]", result).cursor.fetchall()
        if rows:
            page = np.array(rows, dtype=[("ngram", np.uint64), ("log_weight", np.float64)])
            yield page["ngram"].copy(), page["log_weight"].copy()
            after = int(page["ngram"][-1])
        full = len(rows) == _PAGE
