"""Fine-tuning jobs for a `Worksite`: created as the API creates them, run with a stub training process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from hmi.catalog import (
    JobMessage,
    NewFile,
    NewTuningJob,
    TuningJob,
    files,
    fine_tuning,
    new_id,
    tenants,
    training_events,
    trainings,
)
from hmi.spec import MissPolicy
from tests.adapter_samples import sample_spec
from tests.stub_trainer import STUB_COMMAND
from tests.worksite import Worksite
from worker.runtime import Runtime
from worker.tuning import Step, TrainingRunner, process
from worker.tuning.monitor import TrainingMonitor

__all__ = ["BASE", "at_step", "found_job", "make_job", "queue_jobs", "run_jobs", "said", "use_stub"]

BASE = "tuned"  # of a shape that the stub's adapters fit
TEXT = b'{"text": "a fine film", "label": "good"}\n{"text": "no", "label": "bad"}\n'


def make_job(
    site: Worksite,
    tenant: str = "acme",
    *,
    content: bytes = TEXT,
    suffix: str = "tuned",
    start: str | None = None,
    **stub: Any,
) -> str:
    """Create a job and return its id. `stub` configures its training, `start` is the artifact of its start adapter.

    Registers the base model if it is missing.
    """
    site.add_base(BASE, sample_spec(k=2))
    file_id = new_id("file-")
    with site.storage.create(f"files/{file_id}") as out:
        out.write(content)
    with site.database.session() as session:
        tenant_id = tenants.get_tenant(session, tenant).id
        files.create_file(
            session,
            tenant_id,
            NewFile(
                file_id=file_id,
                purpose="fine-tune",
                filename="reviews.jsonl",
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                path=f"files/{file_id}",
            ),
        )
        new = NewTuningJob(
            model=BASE,
            base=BASE,
            domain="general",
            miss_policy=MissPolicy.EXACT,
            suffix=suffix,
            training_file_id=file_id,
            validation_file_id=None,
            examples=2,
            cost=20,
            request={"model": BASE, "training_file": file_id},
            config={"stub": stub, "start": start},
            attributes={},
        )
        return fine_tuning.create_job(session, tenant_id, new, idempotency_key=None, max_open=100).id


def use_stub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "trainer_command", lambda: STUB_COMMAND)


def at_step(monkeypatch: pytest.MonkeyPatch, done: int, act: Callable[[], object]) -> None:
    """Call `act` once, when a training reports `done` steps."""
    real, acted = TrainingMonitor.step, list[bool]()

    def step(watch: TrainingMonitor, sent: Step) -> None:
        progress: Mapping[str, Any] = sent.progress or {}
        if progress.get("done") == done and not acted:
            acted.append(True)
            act()
        real(watch, sent)

    monkeypatch.setattr(TrainingMonitor, "step", step)


def queue_jobs(site: Worksite) -> list[JobMessage]:
    """Dispatch all pending jobs and return the messages instead of sending them."""
    with site.database.session() as session:
        return trainings.dispatch(session, in_flight=1000)


def run_jobs(runtime: Runtime, site: Worksite) -> int:
    """Run every pending job here, once, and return their number."""
    messages = queue_jobs(site)
    for message in messages:
        TrainingRunner(runtime).run(message.job_id, message.attempt)
    return len(messages)


def found_job(site: Worksite, job_id: str) -> TuningJob:
    with site.database.session(read_only=True) as session:
        return session.get_one(TuningJob, job_id)


def said(site: Worksite, job_id: str) -> list[str]:
    """The messages of the job's events, the oldest first."""
    with site.database.session(read_only=True) as session:
        job = session.get_one(TuningJob, job_id)
        found = training_events.list_events(session, job.tenant_id, job_id, limit=100).items
    return [event.message for event in reversed(found)]
