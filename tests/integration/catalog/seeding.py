"""Rows that the catalog's tests start from, and threads that start together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from hmi.catalog import (
    Batch,
    ClaimedShard,
    Database,
    File,
    JobMessage,
    LineRange,
    NewBatch,
    NewFile,
    Principal,
    RegisteredBase,
    Role,
    Shard,
    ShardResult,
    Tenant,
    bases,
    batches,
    new_id,
    shards,
)
from hmi.catalog.registry.files import create_file
from hmi.catalog.registry.tenants import create_tenant
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


def add_tenant(database: Database, name: str = "acme", *, weight: int = 1) -> Tenant:
    with database.session() as session:
        return create_tenant(session, name, weight=weight)


def principal(tenant: Tenant) -> Principal:
    return Principal(tenant.id, tenant.name, Role.TENANT, "")


def add_base(database: Database, name: str = "mini", artifact: str = "a" * 64) -> RegisteredBase:
    with database.session() as session:
        return bases.register_base(session, name, artifact, SPEC)


def add_file(database: Database, tenant: Tenant, *, expires_at: float | None = None) -> File:
    file_id = new_id("file-")
    with database.session() as session:
        return create_file(
            session,
            tenant.id,
            NewFile(
                file_id=file_id,
                purpose="batch",
                filename="in.jsonl",
                bytes=100,
                sha256="0" * 64,
                path=f"files/{file_id}",
                expires_at=expires_at,
            ),
        )


def spans(count: int, lines: int, cost: int = 0) -> list[LineRange]:
    return [LineRange(index * lines, lines, index * lines * 10, lines * 10, cost) for index in range(count)]


def submit(
    session: Session,
    tenant: Tenant,
    file: File,
    *,
    shard_count: int = 2,
    lines: int = 10,
    cost: int = 0,
    **changes: Any,
) -> Batch:
    arguments: dict[str, Any] = {
        "endpoint": "/v1/classify",
        "completion_window": "24h",
        "window_seconds": 86_400.0,
        "input_file": file,
        "total_lines": shard_count * lines,
        "shards": spans(shard_count, lines, cost),
        "attributes": {},
        "problems": [],
    }
    limits: dict[str, Any] = {"idempotency_key": None, "max_queued_lines": 1_000_000}
    limits |= {name: changes.pop(name) for name in limits if name in changes}
    return batches.create_batch(session, tenant.id, NewBatch(**{**arguments, **changes}), **limits)


def add_batch(database: Database, tenant: Tenant, **changes: Any) -> Batch:
    file = add_file(database, tenant)
    with database.session() as session:
        return submit(session, tenant, file, **changes)


def queue(database: Database, in_flight: int = 1000) -> list[JobMessage]:
    with database.session() as session:
        return shards.dispatch(session, in_flight=in_flight)


def take(database: Database, message: JobMessage, *, owner: str = "w1", lease: float = 60.0) -> ClaimedShard | None:
    with database.session() as session:
        return shards.claim(session, message.job_id, message.attempt, owner=owner, lease_seconds=lease)


def result(lines: int, *, failed: int = 0) -> ShardResult:
    return ShardResult(
        "out", "err" if failed else None, lines - failed, failed, input_tokens=lines * 3, output_tokens=lines
    )


def end(database: Database, message: JobMessage, *, lines: int = 10, failed: int = 0) -> bool:
    with database.session() as session:
        return shards.finish(session, message.job_id, message.attempt, result(lines, failed=failed))


def run_all(database: Database, messages: Sequence[JobMessage], *, lines: int = 10) -> None:
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
