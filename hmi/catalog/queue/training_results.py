"""The end of a training: model, result file and the job's last state in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.orm import Session

from hmi.catalog.queue.training_events import add_event
from hmi.catalog.queue.trainings import ClaimedTraining, queue
from hmi.catalog.registry import NewFile, RegisteredModel, files, models
from hmi.catalog.schema import EventLevel, JobState
from hmi.errors import HmiError, LeaseLost, NotFound


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a training made; its bytes are stored already."""

    artifact: str  # digest of the adapter
    summary: Mapping[str, Any] = field(hash=False)  # kind, rank, labels and so on, for listings
    report: NewFile
    trained_tokens: int


def succeed(session: Session, claim: ClaimedTraining, result: TrainingResult) -> RegisteredModel:
    """Serve the trained model and end the job.

    Raises `LeaseLost` for a stale attempt, `NotFound` if base model or domain were deleted. The caller then deletes the
    report that it wrote.
    """
    if claim.base is None or claim.domain is None:
        raise NotFound("the base model or the domain that this job was made for is gone", code="base_not_found")
    tenant_id = claim.principal.tenant_id
    ended = queue.finish(
        session,
        claim.job_id,
        claim.attempt,
        JobState.SUCCEEDED,
        trained_tokens=result.trained_tokens,
        fine_tuned_model=f"{claim.principal.tenant_name}/{claim.target}",
        result_file_id=result.report.file_id,
    )
    if not ended:
        raise LeaseLost("another worker has the job, or it was cancelled")
    model = models.register_model(
        session,
        tenant_id,
        claim.target,
        base=claim.base,
        domain=claim.domain,
        miss_policy=claim.miss_policy,
        artifact=result.artifact,
        summary=result.summary,
    )
    files.create_file(session, tenant_id, result.report)
    add_event(session, tenant_id, claim.job_id, f"New fine-tuned model created: {model.name}")
    add_event(session, tenant_id, claim.job_id, "The job has successfully completed")
    return model


def fail(session: Session, claim: ClaimedTraining, error: HmiError) -> bool:
    """End a job that cannot be trained, with the reason; False for a stale attempt."""
    message = error.message.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    stored = {"code": error.code, "message": message, "param": error.param}
    if not queue.finish(session, claim.job_id, claim.attempt, JobState.FAILED, error=stored):
        return False
    add_event(session, claim.principal.tenant_id, claim.job_id, message, level=EventLevel.ERROR)
    return True
