"""N-grams by how often they are asked for: a domain's heaviest ones in pages, and all of a base model's in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Row, func, select, tuple_
from sqlalchemy.orm import Session

from hmi.catalog.database import Database, clock
from hmi.catalog.decay import Clock
from hmi.catalog.frequencies import clock_of, iter_pages
from hmi.catalog.tables import Domain, FrequencyPlace, NgramFrequency
from hmi.errors import InvalidInput

__all__ = ["CountedBlock", "CountedNgram", "count_ngrams", "iter_blocks", "list_heaviest"]


@dataclass(frozen=True, slots=True)
class CountedNgram:
    """`ngram` is a packed key, `count` how often it was asked for, decayed to now."""

    ngram: int
    count: float


@dataclass(frozen=True, slots=True)
class CountedBlock:
    """Some of a domain's n-grams: packed keys uint64 `[n]` ascending, and their decayed counts float64 `[n]`."""

    domain: str
    ngrams: NDArray[np.uint64]
    counts: NDArray[np.float64]


def list_heaviest(
    session: Session, base_id: str, domain_id: str, *, limit: int, after: int | None = None
) -> list[CountedNgram]:
    """The `limit` n-grams of greatest count that follow `after` (None: from the heaviest); of equals the smaller first.

    Counts go on while somebody reads page by page: an n-gram whose place changes meanwhile may come twice, or not.
    Raises `InvalidInput` where `after` is not counted in the domain (any more).
    """
    running, lightness = clock_of(session, base_id), -NgramFrequency.log_weight
    statement = select(NgramFrequency.ngram, NgramFrequency.log_weight).where(_of_domain(base_id, domain_id))
    if after is not None:
        last = session.execute(statement.where(NgramFrequency.ngram == after)).one_or_none()
        if last is None:
            raise InvalidInput("that n-gram is not counted in this domain, or not any more", param="after")
        # Heavier ones first, of equals the smaller key: one comparison of pairs.
        statement = statement.where(tuple_(lightness, NgramFrequency.ngram) > tuple_(-last[1], last[0]))
    rows = session.execute(statement.order_by(lightness, NgramFrequency.ngram).limit(limit)).all()
    if running is None or not rows:
        return []
    ngrams, counts = _decayed(rows, running, clock(session))
    return [CountedNgram(*each) for each in zip(ngrams.tolist(), counts.tolist(), strict=True)]


def count_ngrams(session: Session, base_id: str, domain_id: str) -> int:
    """How many different n-grams are counted in a domain."""
    found = select(func.count()).select_from(NgramFrequency).where(_of_domain(base_id, domain_id))
    return session.scalars(found).one()


def iter_blocks(database: Database, base_id: str) -> Iterator[CountedBlock]:
    """Everything that is counted for a base model, domain by domain and ascending, a block in memory at a time.

    Each block is read in a transaction of its own, as `frequencies.load` does it.
    """
    with database.session(read_only=True) as session:
        now, running = clock(session), clock_of(session, base_id)
        places = session.execute(
            select(Domain.name, FrequencyPlace.id)
            .join(Domain, Domain.id == FrequencyPlace.domain_id)
            .where(FrequencyPlace.base_id == base_id)
            .order_by(Domain.name)
        ).all()
    if running is None:
        return
    for domain, place in places:
        for ngrams, log_weights in iter_pages(database, place):
            yield CountedBlock(domain, ngrams, running.counts(log_weights, now))


def _of_domain(base_id: str, domain_id: str) -> Any:
    place = select(FrequencyPlace.id).where(FrequencyPlace.base_id == base_id, FrequencyPlace.domain_id == domain_id)
    return NgramFrequency.place_id == place.scalar_subquery()


def _decayed(
    rows: Sequence[Row[int, float]], running: Clock, at: float
) -> tuple[NDArray[np.uint64], NDArray[np.float64]]:
    page = np.array([tuple(row) for row in rows], dtype=[("ngram", np.uint64), ("log_weight", np.float64)])
    return page["ngram"].copy(), running.counts(page["log_weight"], at)
