"""Keyset pagination on (created_at, id), so that concurrent inserts shift no page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import Session

from hmi.catalog.schema import Batch, File, TuningJob
from hmi.errors import InvalidInput

Order = Literal["asc", "desc"]
ItemT = TypeVar("ItemT")
RowT = TypeVar("RowT", File, Batch, TuningJob)


@dataclass(frozen=True, slots=True)
class Page(Generic[ItemT]):
    """Items in order; `has_more`: others follow the last one."""

    items: list[ItemT]
    has_more: bool


def read_page(
    session: Session,
    table: type[RowT],
    statement: Select[RowT],
    tenant_id: str,
    *,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[RowT]:
    """Return the `limit` rows of `statement` after the tenant's row `after` (None: from the start).

    `statement` selects from `table` without an order. Raises `InvalidInput` if the tenant has no row `after`.
    """
    key = tuple_(table.created_at, table.id)
    statement = statement.where(table.tenant_id == tenant_id)
    if after is not None:
        row = session.execute(
            select(table.created_at, table.id).where(table.tenant_id == tenant_id, table.id == after)
        ).one_or_none()
        if row is None:
            raise InvalidInput(f"there is nothing with the id {after[:80]!r} to list after", param="after")
        place = tuple_(*row)
        statement = statement.where(key < place if order == "desc" else key > place)
    columns = [table.created_at, table.id]
    ordered = statement.order_by(*(column.desc() if order == "desc" else column.asc() for column in columns))
    rows = list(session.scalars(ordered.limit(limit + 1)))
    return Page(rows[:limit], has_more=len(rows) > limit)
