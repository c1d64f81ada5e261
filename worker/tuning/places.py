"""Where fine-tuning jobs are kept while they run: checkpoints in the storage, a folder on the worker's disk."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

__all__ = ["CHECKPOINT", "CHECKPOINTS", "REPORT", "checkpoint_path", "forget_folders", "job_folder", "work_folder"]

CHECKPOINTS = "tuning"
CHECKPOINT = "checkpoint.safetensors"  # these two in the work folder
REPORT = "report.json"

_WORK = "tuning"


def job_folder(job_id: str) -> str:
    """Everything that is stored for a job lies here until it ends; then the folder goes as a whole."""
    return f"{CHECKPOINTS}/{job_id}"


def checkpoint_path(job_id: str, attempt: int) -> str:
    """Where one attempt keeps its checkpoint; no other attempt writes there."""
    return f"{job_folder(job_id)}/{attempt}.safetensors"


def work_folder(cache_dir: Path, job_id: str, attempt: int) -> Path:
    """An attempt's own folder on this machine."""
    return cache_dir / _WORK / f"{job_id}.{attempt}"


def forget_folders(cache_dir: Path, running: Collection[tuple[str, int]]) -> None:
    """Remove what attempts that do not run any more have left on this machine."""
    kept = {f"{job_id}.{attempt}" for job_id, attempt in running}
    folder = cache_dir / _WORK
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)
