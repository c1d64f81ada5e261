"""Removes deleted tenants from the n-gram counts.

Deleting a tenant records its bit (`ForgottenTenant`). The next builds clear the bit from all bitmaps: what only that
tenant asked for is deleted, and of the other counts the tenant's share goes, taken to be that of each who asked.
Tenants that have the same bit lose it too, so an n-gram waits for them rather than being held too early.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable

from sqlalchemy import Double, and_, cast, delete, func, select, update
from sqlalchemy.orm import Session

from hmi.catalog.database import Database, bit_count, database_time, execute_dml, log
from hmi.catalog.schema import ForgottenTenant, FrequencyPlace, NgramFrequency
from hmi.catalog.trees.chunks import ChunkedTransactions
from hmi.tenant_bits import bitmap_of


def forget_tenants(database: Database, *, settled_seconds: float, progress: Callable[[int], None] | None = None) -> int:
    """Remove the tenants that were deleted; return the number of n-grams whose count changed or is gone.

    A worker may still write counts of a tenant for some time after it was deleted. A tenant is removed again by later
    calls until it was deleted more than `settled_seconds` ago. An interrupted call is continued by the next one.
    `progress` is called with the number of rows of each transaction.
    """
    with database.session(read_only=True) as session:
        forgotten = session.scalars(select(ForgottenTenant)).all()
        settled_before = database_time(session) - settled_seconds
        places = _stored_places(session)
        known = set(session.scalars(select(FrequencyPlace.id)))
    if not forgotten:
        places = [place for place in places if place not in known]
    mask = functools.reduce(operator.or_, (bitmap_of(tenant.bit) for tenant in forgotten), 0)
    chunks = ChunkedTransactions(database)
    changed = 0
    for place in places:
        # The place went with its domain, or its domain's audience became wider.
        changed += _forget(chunks, database, place, mask if place in known else None, progress or (lambda _: None))
    settled = [tenant.tenant_id for tenant in forgotten if tenant.created_at < settled_before]
    if settled:
        with database.session() as session:
            execute_dml(session, delete(ForgottenTenant).where(ForgottenTenant.tenant_id.in_(settled)))
    return changed


def count_affected(database: Database, bit: int) -> int:
    """Return how many n-grams have the tenant's bit; with more tenants than bits, others may have asked for some."""
    with database.session(read_only=True) as session:
        has_bit = NgramFrequency.tenants.bitwise_and(bitmap_of(bit)) != 0
        return session.scalars(select(func.count()).select_from(NgramFrequency).where(has_bit)).one()


def _stored_places(session: Session) -> list[int]:
    """Return the places that have rows, each by one step in the index."""
    found: list[int] = []
    while True:
        above = NgramFrequency.place_id > (found[-1] if found else -1)
        place = session.scalar(select(func.min(NgramFrequency.place_id)).where(above))
        if place is None:
            return found
        found.append(place)


def _forget(
    chunks: ChunkedTransactions, database: Database, place: int, mask: int | None, progress: Callable[[int], None]
) -> int:
    """Clear the bits of `mask` in a place's rows, range by range; None deletes all rows."""
    tenants = NgramFrequency.tenants
    rest = tenants.bitwise_and(~(mask or 0))
    is_affected = tenants.bitwise_and(mask or 0) != 0
    share = cast(bit_count(rest), Double) / bit_count(tenants)
    changed, after = 0, -1
    while True:
        rows = chunks.rows
        of_rest = and_(NgramFrequency.place_id == place, NgramFrequency.ngram > after)
        with database.session(read_only=True) as session:
            keys = select(NgramFrequency.ngram).where(of_rest).order_by(NgramFrequency.ngram)
            last = session.execute(keys.offset(rows - 1).limit(1)).scalar_one_or_none()
        of_range = of_rest if last is None else and_(of_rest, NgramFrequency.ngram <= last)
        with chunks.transaction(rows) as session:
            alone = delete(NgramFrequency).where(of_range)
            deleted = execute_dml(session, alone if mask is None else alone.where(is_affected, rest == 0))
            changed += deleted
            fewer = FrequencyPlace.rows_bound - deleted
            execute_dml(session, update(FrequencyPlace).where(FrequencyPlace.id == place).values(rows_bound=fewer))
            if mask is not None:
                shared = update(NgramFrequency).where(of_range, is_affected)
                weight = NgramFrequency.log_weight + log(share)
                changed += execute_dml(session, shared.values(log_weight=weight, tenants=rest))
        progress(rows)
        if last is None:
            return changed
        after = last
