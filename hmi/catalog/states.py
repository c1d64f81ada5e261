"""The states of batches and shards in groups, and as conditions in SQL.

A batch is *running* while it is in progress and within its window. Only a running batch's shards are
dispatched; a batch that stops running drops the shards that wait and lets the leased ones finish.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TypeVar

from sqlalchemy import ColumnElement, and_, case, exists, literal
from sqlalchemy.orm import InstrumentedAttribute

from hmi.catalog.database import now
from hmi.catalog.tables import Batch, BatchStatus, Shard, ShardState

__all__ = ["OPEN_BATCH", "OPEN_SHARD", "WAITING_SHARD", "in_running_batch", "is_running", "state", "waiting_or_dropped"]

OPEN_BATCH = (BatchStatus.IN_PROGRESS, BatchStatus.FINALIZING, BatchStatus.CANCELLING)
OPEN_SHARD = (ShardState.PENDING, ShardState.QUEUED, ShardState.LEASED)
WAITING_SHARD = (ShardState.PENDING, ShardState.QUEUED)

StateT = TypeVar("StateT", bound=StrEnum)


def is_running() -> ColumnElement[bool]:
    """On `Batch`: its shards may be dispatched and claimed."""
    return and_(Batch.status == BatchStatus.IN_PROGRESS, Batch.expires_at > now())


def in_running_batch() -> ColumnElement[bool]:
    """On `Shard`: its batch is running."""
    return exists().where(Batch.id == Shard.batch_id, is_running())


def waiting_or_dropped() -> ColumnElement[ShardState]:
    """On `Shard`: what one becomes that is given back: nobody will run it in a batch that has stopped."""
    return case(
        (in_running_batch(), state(Shard.state, ShardState.PENDING)), else_=state(Shard.state, ShardState.DROPPED)
    )


def state(column: InstrumentedAttribute[StateT], value: StateT) -> ColumnElement[StateT]:
    """`value` typed like `column`, for use inside a CASE."""
    return literal(value, column.type)
