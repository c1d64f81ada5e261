"""The end of a training: the model, the result file and the job's last state, in one transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import and_, update
from sqlalchemy.orm import Session

from hmi.catalog.database import change, now
from hmi.catalog.files import create_file
from hmi.catalog.finalizing import NewFile
from hmi.catalog.models import ServedModel, register_model
from hmi.catalog.tuning.events import add_event
from hmi.catalog.tuning.runs import ClaimedJob
from hmi.catalog.tuning_tables import EventLevel, TuningJob, TuningState
from hmi.errors import HmiError, LeaseLost, NotFound

__all__ = ["TuningResult", "fail", "succeed"]


@dataclass(frozen=True, slots=True)
class TuningResult:
    """What a training gave, in the artifact store and in the storage already.

    Attributes:
        artifact: Digest of the adapter.
        summary: The adapter's kind, rank, labels and the like, for listings.
        report: The result file.
    """

    artifact: str
    summary: Mapping[str, Any] = field(hash=False)
    report: NewFile
    trained_tokens: int


def succeed(session: Session, claim: ClaimedJob, result: TuningResult) -> ServedModel:
    """Serve what was trained, and end the job.

    Raises `LeaseLost` where the job belongs to somebody else or has ended; `NotFound` where base model or domain are
    gone. The caller then deletes the report that it wrote.
    """
    if claim.base is None or claim.domain is None:
        raise NotFound("the base model or the domain that this job was made for is gone", code="base_not_found")
    name = f"{claim.principal.tenant_name}/{claim.target}"
    values = {
        "state": TuningState.SUCCEEDED,
        "finished_at": now(),
        "lease_until": None,
        "estimated_finish": None,
        "trained_tokens": result.trained_tokens,
        "fine_tuned_model": name,
        "result_file_id": result.report.file_id,
    }
    if not _end(session, claim, values):
        raise LeaseLost("another worker has the job, or it was cancelled")
    tenant_id = claim.principal.tenant_id
    model = register_model(
        session,
        tenant_id,
        claim.target,
        base=claim.base,
        domain=claim.domain,
        miss_policy=claim.miss_policy,
        artifact=result.artifact,
        summary=result.summary,
    )
    report = result.report
    create_file(
        session,
        tenant_id,
        file_id=report.file_id,
        purpose=report.purpose,
        filename=report.filename,
        bytes=report.bytes,
        sha256=report.sha256,
        path=report.path,
    )
    add_event(session, tenant_id, claim.job_id, f"New fine-tuned model created: {model.name}")
    add_event(session, tenant_id, claim.job_id, "The job has successfully completed")
    return model


def fail(session: Session, claim: ClaimedJob, error: HmiError) -> bool:
    """End a job that cannot be trained, with the reason; False where it belongs to somebody else or has ended."""
    message = error.message.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    said = {"code": error.code, "message": message, "param": error.param}
    values = {"state": TuningState.FAILED, "finished_at": now(), "lease_until": None, "estimated_finish": None}
    if not _end(session, claim, {**values, "error": said}):
        return False
    add_event(session, claim.principal.tenant_id, claim.job_id, message, level=EventLevel.ERROR)
    return True


def _end(session: Session, claim: ClaimedJob, values: Mapping[str, Any]) -> bool:
    mine = and_(TuningJob.id == claim.job_id, TuningJob.attempt == claim.attempt, TuningJob.state == TuningState.LEASED)
    return change(session, update(TuningJob).where(mine).values(**values)) > 0
