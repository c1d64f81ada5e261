"""The end of a training: adapter and report are stored, then one transaction makes them the tenant's."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from hmi.adapters.formats import FILE_NAME, load_adapter
from hmi.catalog import ClaimedTraining, NewFile, RegisteredModel, TrainingResult, new_id, training_results
from hmi.errors import LeaseLost, NotFound
from worker.lifecycle import TuningPoint, fail_at
from worker.paths import REPORT, keep_results, result_folder, training_folder
from worker.runtime import Runtime
from worker.tuning.monitor import TrainingMonitor


def publish(runtime: Runtime, claim: ClaimedTraining, folder: Path, monitor: TrainingMonitor) -> RegisteredModel:
    """Serve the adapter in the work folder under the job's name.

    Raises `LeaseLost` for a stale attempt or a job that has ended; `AdapterRefused`, `StorageFull`, `Transient`.
    """
    if claim.spec is None:
        raise NotFound("the base model that this job was made for is gone", code="base_not_found")
    adapter = load_adapter(folder / FILE_NAME)
    adapter.validate(claim.spec)
    report: dict[str, Any] = json.loads((folder / REPORT).read_bytes())
    monitor.record_report(report)
    with (folder / FILE_NAME).open("rb") as weights:
        artifact = runtime.artifacts.put({FILE_NAME: weights}, owner=claim.job_id)
    file = _store_report(runtime, claim, artifact, report)
    fail_at(TuningPoint.STORED)
    monitor.check()
    runtime.storage.move(f"{training_folder(claim.job_id)}/{file.file_id}", file.path)
    result = TrainingResult(artifact, adapter.summary(), file, int(report["trained_tokens"]))
    try:
        with runtime.database.session() as session:
            model = training_results.succeed(session, claim, result)
    except (LeaseLost, NotFound):  # after any other error the transaction may have been committed
        runtime.storage.delete(file.path)
        raise
    keep_results(runtime.storage, claim.job_id, [file.path], training_folder(claim.job_id))
    return model


def _store_report(runtime: Runtime, claim: ClaimedTraining, artifact: str, report: dict[str, Any]) -> NewFile:
    name = f"{claim.principal.tenant_name}/{claim.target}"
    said = {"fine_tuning_job": claim.job_id, "fine_tuned_model": name, "artifact": artifact, **report}
    content = json.dumps(said, indent=1, ensure_ascii=False).encode()
    file_id = new_id("file-")
    # In the folder that is deleted when the job ends: a crash leaves no file behind.
    with runtime.storage.create(f"{training_folder(claim.job_id)}/{file_id}") as out:
        out.write(content)
    return NewFile(
        file_id=file_id,
        purpose="fine-tune-results",
        filename=f"{claim.job_id}_report.json",
        bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        path=f"{result_folder(claim.job_id)}/{file_id}",
    )
