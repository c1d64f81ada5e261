"""Declares counts of unknown origin public: those from before it was recorded who asks."""

from __future__ import annotations

from sqlalchemy import and_, select, update

from hmi.catalog.database import Database, execute_dml
from hmi.catalog.schema import FrequencyPlace, NgramFrequency
from hmi.catalog.trees.chunks import ChunkedTransactions
from hmi.tenant_bits import PUBLIC


def declare_public(database: Database, base_id: str, domain_id: str) -> int:
    """Mark the n-grams of a domain as public of which it is not known who asked; return their number.

    An interrupted call has marked some of them; another one marks the rest.
    """
    of_domain = (FrequencyPlace.base_id == base_id, FrequencyPlace.domain_id == domain_id)
    with database.session(read_only=True) as session:
        place = session.scalars(select(FrequencyPlace.id).where(*of_domain)).one_or_none()
    chunks = ChunkedTransactions(database)
    marked, after, last = 0, -1, 0 if place is not None else None
    while last is not None:
        rows = chunks.rows
        unknown = and_(NgramFrequency.place_id == place, NgramFrequency.tenants == 0, NgramFrequency.ngram > after)
        with database.session(read_only=True) as session:
            keys = select(NgramFrequency.ngram).where(unknown).order_by(NgramFrequency.ngram)
            last = session.execute(keys.offset(rows - 1).limit(1)).scalar_one_or_none()
        of_range = unknown if last is None else and_(unknown, NgramFrequency.ngram <= last)
        with chunks.transaction(rows) as session:
            marked += execute_dml(session, update(NgramFrequency).where(of_range).values(tenants=PUBLIC))
        after = last if last is not None else after
    return marked
