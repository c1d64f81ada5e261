"""Fetching what a training needs to this machine: base model, delta, start adapter, files, the last checkpoint."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import structlog

from hmi.adapters.formats import FILE_NAME
from hmi.catalog import ClaimedTraining
from hmi.errors import Corrupt, NotFound
from hmi.storage import translate_full_disk
from worker.paths import CHECKPOINT
from worker.runtime import Runtime
from worker.tuning.protocol import Order

_log = structlog.get_logger(__name__)


def fetch_inputs(runtime: Runtime, claim: ClaimedTraining, folder: Path) -> Order:
    """Create the work folder, fetch into it what is not on this machine, and return the training's order.

    Raises `NotFound` where base model, domain or start model were deleted; `Corrupt` for a file whose content is lost
    and for a damaged artifact; `StorageFull`.
    """
    if claim.base_artifact is None or claim.domain is None:
        raise NotFound("the base model or the domain that this job was made for is gone", code="base_not_found")
    settings = runtime.settings
    with translate_full_disk(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    if claim.checkpoint_path is not None:
        try:
            _download(runtime, claim.checkpoint_path, folder / CHECKPOINT)
        except NotFound as error:
            _log.warning("checkpoint_not_found", job=claim.job_id, reason=error.message)
    delta = runtime.artifacts.folder(claim.delta) / FILE_NAME if claim.delta else None
    start = _start(runtime, claim.config.get("start"))
    validation = claim.validation_path and _local(runtime, claim.validation_path, folder / "validation")
    return Order(
        base=str(runtime.artifacts.folder(claim.base_artifact)),
        delta=str(delta) if delta else None,
        start=str(start) if start else None,
        training=str(_local(runtime, claim.training_path, folder / "training")),
        validation=str(validation) if validation else None,
        plan=dict(claim.config),
        folder=str(folder),
        threads=settings.training_threads or settings.threads or len(os.sched_getaffinity(0)),
        device="cuda:0" if runtime.device.startswith("cuda") else "cpu",
        dtype=settings.dtype,
    )


def _start(runtime: Runtime, artifact: str | None) -> Path | None:
    try:
        return runtime.artifacts.folder(artifact) / FILE_NAME if artifact else None
    except NotFound as error:
        raise NotFound("the model that this job was to begin with is gone", code="model_not_found") from error


def _local(runtime: Runtime, path: str, target: Path) -> Path:
    """Return a stored file on this machine's disk, downloaded to `target` where the storage is remote."""
    found = runtime.storage.local(path)
    try:
        if found is None:
            _download(runtime, path, target)
        elif not found.is_file():
            raise NotFound(f"nothing is stored at {path}")
    except NotFound as error:
        raise Corrupt("the content of one of the job's files is lost", code="file_lost") from error
    return found or target


def _download(runtime: Runtime, path: str, target: Path) -> None:
    with runtime.storage.open(path) as source, translate_full_disk(str(target)), target.open("wb") as out:
        shutil.copyfileobj(source, out, 1024**2)
