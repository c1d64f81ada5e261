"""OpenAI's fine-tuning job object from the catalog's job."""

from __future__ import annotations

from hmi.catalog import JobState, TuningJob
from hmi.schemas import JobObject

_STATUS = {
    JobState.PENDING: "queued",
    JobState.QUEUED: "queued",
    JobState.LEASED: "running",
    JobState.SUCCEEDED: "succeeded",
    JobState.FAILED: "failed",
    JobState.CANCELLED: "cancelled",
}


def view_job(job: TuningJob, tenant: str) -> JobObject:
    config = job.config["config"]
    chosen = {
        "n_epochs": config["epochs"],
        "batch_size": config["batch_size"],
        "learning_rate_multiplier": job.config["learning_rate_multiplier"],
    }
    return JobObject(
        id=job.id,
        created_at=job.created_at,
        estimated_finish=job.estimated_finish,
        finished_at=job.finished_at,
        status=_STATUS[job.state],
        error=job.error,
        model=job.model,
        fine_tuned_model=job.fine_tuned_model,
        organization_id=tenant,
        training_file=job.training_file_id,
        validation_file=job.validation_file_id,
        result_files=[] if job.result_file_id is None else [job.result_file_id],
        trained_tokens=job.trained_tokens,
        hyperparameters=chosen,
        method={"supervised": {"hyperparameters": chosen}},
        seed=config["seed"],
        metadata=job.attributes or None,
        hmi={
            "task": job.config["task"],
            "base": job.base,
            "domain": job.domain,
            "miss_policy": job.miss_policy,
            "kind": config["kind"],
            "rank": config["rank"],
            "max_tokens": config["max_tokens"],
            "suffix": job.target,
            "examples": job.examples,
            "started_at": job.started_at,
            "progress": job.progress,
        },
    )
