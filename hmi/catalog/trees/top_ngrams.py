"""A domain's n-grams by count, in pages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, func, select, tuple_
from sqlalchemy.orm import Session

from hmi.catalog.database import database_time
from hmi.catalog.schema import FrequencyPlace, NgramFrequency
from hmi.catalog.trees.frequencies import clock_of
from hmi.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class CountedNgram:
    """A packed key and its count, decayed to now."""

    ngram: int
    count: float


def list_top_ngrams(
    session: Session, base_id: str, domain_id: str, *, limit: int, after: int | None = None
) -> list[CountedNgram]:
    """Return the `limit` n-grams of greatest count after `after` (None: from the greatest); ties by ascending key.

    An n-gram whose rank changes between two pages may appear twice, or not at all. Raises `InvalidInput` if `after` has
    no count in the domain (any more).
    """
    clock, lightness = clock_of(session, base_id), -NgramFrequency.log_weight
    statement = select(NgramFrequency.ngram, NgramFrequency.log_weight).where(_of_domain(base_id, domain_id))
    if after is not None:
        last = session.execute(statement.where(NgramFrequency.ngram == after)).one_or_none()
        if last is None:
            raise InvalidInput("that n-gram is not counted in this domain, or not any more", param="after")
        statement = statement.where(tuple_(lightness, NgramFrequency.ngram) > tuple_(-last[1], last[0]))
    rows = session.execute(statement.order_by(lightness, NgramFrequency.ngram).limit(limit)).all()
    if clock is None or not rows:
        return []
    counts = clock.counts(np.array([row[1] for row in rows]), database_time(session))
    return [CountedNgram(row[0], count) for row, count in zip(rows, counts.tolist(), strict=True)]


def count_ngrams(session: Session, base_id: str, domain_id: str) -> int:
    """Return the number of distinct n-grams that are counted in a domain."""
    found = select(func.count()).select_from(NgramFrequency).where(_of_domain(base_id, domain_id))
    return session.scalars(found).one()


def _of_domain(base_id: str, domain_id: str) -> ColumnElement[bool]:
    place = select(FrequencyPlace.id).where(FrequencyPlace.base_id == base_id, FrequencyPlace.domain_id == domain_id)
    return NgramFrequency.place_id == place.scalar_subquery()
