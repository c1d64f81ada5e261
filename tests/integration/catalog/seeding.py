"""Rows that the catalog's tests start from, and threads that start together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from hmi.catalog import (
    BaseModel,
    Batch,
    ClaimedShard,
    Database,
    File,
    NewShard,
    Principal,
    Role,
    Shard,
    ShardMessage,
    ShardResult,
    Tenant,
    new_id,
    register_base,
)
from hmi.catalog.batches import create_batch
from hmi.catalog.files import create_file
from hmi.catalog.shards import claim, dispatch, finish
from hmi.catalog.tenants import create_tenant
from hmi.spec import Family, HPLMSpec

SPEC = HPLMSpec(
    family=Family.BERT,
    vocab_size=100,
    hidden_size=8,
    layers=2,
    heads=2,
    intermediate_size=16,
    max_positions=32,
    type_vocab_size=2,
    layer_norm_eps=1e-12,
    activation="gelu",
    pad_token_id=0,
)

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, slots=True)
class AProblem:
    code: str
    line: int | None
    message: str
    param: str | None = None


def add_tenant(database: Database, name: str = "acme", *, weight: int = 1) -> Tenant:
    with database.session() as session:
        return create_tenant(session, name, weight=weight)


def principal(tenant: Tenant) -> Principal:
    return Principal(tenant.id, tenant.name, Role.TENANT, "")


def add_base(database: Database, name: str = "mini", artifact: str = "a" * 64) -> BaseModel:
    with database.session() as session:
        return register_base(session, name, artifact, SPEC)


def add_file(database: Database, tenant: Tenant, *, expires_at: float | None = None) -> File:
    file_id = new_id("file-")
    with database.session() as session:
        return create_file(
            session,
            tenant.id,
            file_id=file_id,
            purpose="batch",
            filename="in.jsonl",
            bytes=100,
            sha256="0" * 64,
            path=f"files/{file_id}",
            expires_at=expires_at,
        )


def spans(count: int, lines: int, cost: int = 0) -> list[NewShard]:
    return [NewShard(index * lines, lines, index * lines * 10, lines * 10, cost) for index in range(count)]


def submit(
    session: Session, tenant: Tenant, file: File, *, shards: int = 2, lines: int = 10, cost: int = 0, **changes: Any
) -> Batch:
    arguments: dict[str, Any] = {
        "endpoint": "/v1/classify",
        "completion_window": "24h",
        "window_seconds": 86_400.0,
        "input_file": file,
        "total_lines": shards * lines,
        "shards": spans(shards, lines, cost),
        "attributes": {},
        "problems": [],
        "idempotency_key": None,
        "max_queued_lines": 1_000_000,
    }
    return create_batch(session, tenant.id, **{**arguments, **changes})


def add_batch(database: Database, tenant: Tenant, **changes: Any) -> Batch:
    file = add_file(database, tenant)
    with database.session() as session:
        return submit(session, tenant, file, **changes)


def queue(database: Database, in_flight: int = 1000) -> list[ShardMessage]:
    with database.session() as session:
        return dispatch(session, in_flight=in_flight)


def take(database: Database, message: ShardMessage, *, owner: str = "w1", lease: float = 60.0) -> ClaimedShard | None:
    with database.session() as session:
        return claim(session, message.shard_id, message.attempt, owner=owner, lease_seconds=lease)


def result(lines: int, *, failed: int = 0) -> ShardResult:
    return ShardResult(
        "out", "err" if failed else None, lines - failed, failed, input_tokens=lines * 3, output_tokens=lines
    )


def end(database: Database, message: ShardMessage, *, lines: int = 10, failed: int = 0) -> bool:
    with database.session() as session:
        return finish(session, message.shard_id, message.attempt, result(lines, failed=failed))


def run_all(database: Database, messages: Sequence[ShardMessage], *, lines: int = 10) -> None:
    for message in messages:
        assert take(database, message) is not None
        assert end(database, message, lines=lines)


def shard(database: Database, shard_id: str) -> Shard:
    with database.session(read_only=True) as session:
        return session.get_one(Shard, shard_id)


def race(calls: Sequence[Callable[[], ResultT]]) -> list[ResultT | Exception]:
    """Start all calls at one moment, each in a thread; their results, or what they raised, in order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], ResultT]) -> ResultT | Exception:
        barrier.wait(timeout=30)
        try:
            return call()
        except Exception as error:  # noqa: BLE001 - the test looks at it
            return error

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))
