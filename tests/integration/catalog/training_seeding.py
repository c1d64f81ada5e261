"""Fine-tuning jobs that the catalog's tests start from."""

from __future__ import annotations

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from hmi.catalog import (
    ClaimedTraining,
    Database,
    File,
    JobMessage,
    NewTuningJob,
    Tenant,
    TuningJob,
    execute_dml,
    fine_tuning,
    training_events,
    trainings,
)
from hmi.spec import MissPolicy
from tests.integration.catalog.seeding import add_file

__all__ = ["add_job", "create", "lapse", "messages_of", "new_job", "queue_jobs", "row", "take_job"]


def new_job(file: File, **changes: Any) -> NewTuningJob:
    fields: dict[str, Any] = {
        "model": "mini",
        "base": "mini",
        "domain": "general",
        "miss_policy": MissPolicy.EXACT,
        "suffix": "sentiment",
        "training_file_id": file.id,
        "validation_file_id": None,
        "examples": 10,
        "cost": 100,
        "request": {"model": "mini", "training_file": file.id},
        "config": {},
        "attributes": {},
    }
    return NewTuningJob(**fields | changes)


def create(
    session: Session, tenant: Tenant, new: NewTuningJob, *, key: str | None = None, most: int = 100
) -> TuningJob:
    return fine_tuning.create_job(session, tenant.id, new, idempotency_key=key, max_open=most)


def add_job(database: Database, tenant: Tenant, **changes: Any) -> TuningJob:
    file = add_file(database, tenant)
    with database.session() as session:
        return create(session, tenant, new_job(file, **changes))


def queue_jobs(database: Database, in_flight: int = 1000) -> list[JobMessage]:
    with database.session() as session:
        return trainings.dispatch(session, in_flight=in_flight)


def take_job(
    database: Database, message: JobMessage, *, owner: str = "w1", lease: float = 60.0
) -> ClaimedTraining | None:
    with database.session() as session:
        return trainings.claim(session, message.job_id, message.attempt, owner=owner, lease_seconds=lease)


def lapse(database: Database, job_id: str) -> None:
    """Let the job's lease have run out."""
    with database.session() as session:
        execute_dml(session, update(TuningJob).where(TuningJob.id == job_id).values(lease_until=1.0))


def row(database: Database, job_id: str) -> TuningJob:
    with database.session(read_only=True) as session:
        return session.get_one(TuningJob, job_id)


def messages_of(database: Database, job: TuningJob) -> list[str]:
    """The messages of the job's events, oldest first."""
    with database.session(read_only=True) as session:
        found = training_events.list_events(session, job.tenant_id, job.id, limit=100).items
    return [event.message for event in reversed(found)]
