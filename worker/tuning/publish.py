"""The end of a training: adapter and report go where they stay, then one transaction makes them a tenant's."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import ClaimedTraining, NewFile, ServedModel, TrainingResult, new_id, training_results
from hmi.errors import LeaseLost, NotFound, Transient
from worker.lifecycle import TuningPoint, fail_at
from worker.runtime import Runtime
from worker.shards import result_folder
from worker.tuning.places import REPORT, job_folder
from worker.tuning.watch import TrainingWatch

__all__ = ["publish"]


def publish(runtime: Runtime, claim: ClaimedTraining, folder: Path, watch: TrainingWatch) -> ServedModel:
    """Serve the adapter in the work folder under the job's name.

    Raises `LeaseLost` where the job is somebody else's or has ended; `AdapterRefused`, `StorageFull`, `Transient`.
    """
    if claim.spec is None:
        raise NotFound("the base model that this job was made for is gone", code="base_not_found")
    adapter = load_adapter(folder / FILE_NAME)
    adapter.validate(claim.spec)
    report: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
    watch.say_report(report)
    with (folder / FILE_NAME).open("rb") as weights:
        artifact = runtime.artifacts.put({FILE_NAME: weights}, owner=claim.job_id)
    file = _store_report(runtime, claim, artifact, report)
    fail_at(TuningPoint.STORED)
    watch.check()
    runtime.storage.move(f"{job_folder(claim.job_id)}/{file.file_id}", file.path)
    result = TrainingResult(artifact, adapter.summary(), file, int(report["trained_tokens"]))
    try:
        with runtime.database.session() as session:
            model = training_results.succeed(session, claim, result)
    except (LeaseLost, NotFound):  # of anything else nobody knows whether it was committed
        runtime.storage.delete(file.path)
        raise
    _clean(runtime, claim, file)
    return model


def _store_report(runtime: Runtime, claim: ClaimedTraining, artifact: str, report: dict[str, Any]) -> NewFile:
    name = f"{claim.principal.tenant_name}/{claim.target}"
    said = {"fine_tuning_job": claim.job_id, "fine_tuned_model": name, "artifact": artifact, **report}
    content = json.dumps(said, indent=1, ensure_ascii=False).encode()
    file_id = new_id("file-")
    # In the folder that goes when the job ends: a crash leaves nothing that nobody owns.
    with runtime.storage.create(f"{job_folder(claim.job_id)}/{file_id}") as out:
        out.write(content)
    return NewFile(
        file_id=file_id,
        purpose="fine-tune-results",
        filename=f"{claim.job_id}_report.json",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        path=f"{result_folder(claim.job_id)}/{file_id}",
    )


def _clean(runtime: Runtime, claim: ClaimedTraining, kept: NewFile) -> None:
    """Remove the checkpoints, and what an attempt that died may have left beside the report."""
    folder = result_folder(claim.job_id)
    with contextlib.suppress(OSError, Transient):  # the sweep of `reconcile` comes by again
        for name in runtime.storage.names(folder):
            if f"{folder}/{name}" != kept.path:
                runtime.storage.delete(f"{folder}/{name}")
        runtime.storage.delete(job_folder(claim.job_id))
