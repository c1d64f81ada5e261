"""A domain's n-grams by count, in pages: those that are no single tenant's secret.

An n-gram is shown if a shared table could hold it: it is public, or enough different tenants asked for it. Of a private
domain the owner sees what it asked for, and every other viewer what is public.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, case, func, or_, select, tuple_
from sqlalchemy.orm import Session

from hmi.catalog.database import bit_count, database_time
from hmi.catalog.registry import DomainView
from hmi.catalog.schema import Audience, FrequencyPlace, NgramFrequency
from hmi.catalog.trees.frequencies import clock_of
from hmi.errors import InvalidInput
from hmi.tenant_bits import PUBLIC, bitmap_of


@dataclass(frozen=True, slots=True)
class CountedNgram:
    """A packed key and its count, decayed to now."""

    ngram: int
    count: float


@dataclass(frozen=True, slots=True)
class NgramTotals:
    """Numbers of a domain's n-grams that are counted."""

    shown: int = 0
    waiting: int = 0  # for more tenants
    unknown: int = 0  # counted before it was recorded who asks


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks at n-grams. `tenant_id` None: the operator; `min_tenants` as in the settings."""

    min_tenants: int
    tenant_id: str | None = None

    def bitmap(self, domain: DomainView) -> int:
        """The bits of which an n-gram of the domain must have one, to be shown if no other tenant asked for it."""
        owns = domain.audience is Audience.PRIVATE and domain.owner_id == self.tenant_id is not None
        return PUBLIC | (bitmap_of(domain.owner_bit) if owns and domain.owner_bit is not None else 0)

    def is_shown(self, domain: DomainView) -> ColumnElement[bool]:
        tenants = NgramFrequency.tenants
        named = tenants.bitwise_and(self.bitmap(domain)) != 0
        if domain.audience is Audience.PRIVATE:
            return named
        return or_(named, bit_count(tenants.bitwise_and(PUBLIC - 1)) >= self.min_tenants)


def list_top_ngrams(
    session: Session, base_id: str, domain: DomainView, viewer: Viewer, *, limit: int, after: int | None = None
) -> list[CountedNgram]:
    """Return the `limit` n-grams of greatest count after `after` (None: from the greatest); ties by ascending key.

    An n-gram whose rank changes between two pages may appear twice, or not at all. Raises `InvalidInput` if `after` is
    not shown in the domain (any more), whether it is counted or not.
    """
    clock, lightness = clock_of(session, base_id), -NgramFrequency.log_weight
    shown = (_of_domain(base_id, domain.id), viewer.is_shown(domain))
    statement = select(NgramFrequency.ngram, NgramFrequency.log_weight).where(*shown)
    if after is not None:
        last = session.execute(statement.where(NgramFrequency.ngram == after)).one_or_none()
        if last is None:
            raise InvalidInput("that n-gram is not shown in this domain, or not any more", param="after")
        statement = statement.where(tuple_(lightness, NgramFrequency.ngram) > tuple_(-last[1], last[0]))
    rows = session.execute(statement.order_by(lightness, NgramFrequency.ngram).limit(limit)).all()
    if clock is None or not rows:
        return []
    counts = clock.counts(np.array([row[1] for row in rows]), database_time(session))
    return [CountedNgram(row[0], count) for row, count in zip(rows, counts.tolist(), strict=True)]


def count_ngrams(session: Session, base_id: str, domain: DomainView, viewer: Viewer) -> NgramTotals:
    """Return how many different n-grams are counted in a domain: those that are shown, and the others."""
    kind = case((viewer.is_shown(domain), "shown"), (NgramFrequency.tenants == 0, "unknown"), else_="waiting")
    numbers = select(kind, func.count()).where(_of_domain(base_id, domain.id)).group_by(kind)
    return NgramTotals(**{row[0]: row[1] for row in session.execute(numbers)})


def _of_domain(base_id: str, domain_id: str) -> ColumnElement[bool]:
    place = select(FrequencyPlace.id).where(FrequencyPlace.base_id == base_id, FrequencyPlace.domain_id == domain_id)
    return NgramFrequency.place_id == place.scalar_subquery()
