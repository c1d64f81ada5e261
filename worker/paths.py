"""Where the worker writes: in the storage, and for trainings on its own disk."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from hmi.errors import Transient
from hmi.storage import Storage

SHARDS = "shards"
TRAININGS = "tuning"

CHECKPOINT = "checkpoint.safetensors"  # these two in a training's work folder
REPORT = "report.json"


def shard_folder(batch_id: str) -> str:
    """The folder of everything that is written for a batch until it completes; it is then deleted as a whole."""
    return f"{SHARDS}/{batch_id}"


def training_folder(job_id: str) -> str:
    """The folder of everything that is stored for a fine-tuning job until it ends; it is then deleted as a whole."""
    return f"{TRAININGS}/{job_id}"


def checkpoint_path(job_id: str, attempt: int) -> str:
    """Where one attempt stores its checkpoint; no other attempt writes there."""
    return f"{training_folder(job_id)}/{attempt}.safetensors"


def result_folder(job_id: str) -> str:
    """The folder of the result files of a batch or a fine-tuning job."""
    return f"results/{job_id}"


def keep_results(storage: Storage, job_id: str, kept: Collection[str], working_folder: str) -> None:
    """Delete the working folder of a job that ended, and result files that an attempt that died left beside `kept`."""
    folder = result_folder(job_id)
    with contextlib.suppress(OSError, Transient):  # `reconcile` deletes the working folder later
        for path in {f"{folder}/{name}" for name in storage.names(folder)}.difference(kept):
            storage.delete(path)
        storage.delete(working_folder)


@dataclass(frozen=True, slots=True)
class ShardPaths:
    """Where one attempt writes; no other attempt writes there."""

    output: str
    error: str

    @classmethod
    def of(cls, batch_id: str, shard_id: str, attempt: int) -> ShardPaths:
        stem = f"{shard_folder(batch_id)}/{shard_id}.{attempt}"
        return cls(output=f"{stem}.output.jsonl", error=f"{stem}.error.jsonl")


def work_folder(cache_dir: Path, job_id: str, attempt: int) -> Path:
    """The folder of one attempt of a training on this machine."""
    return cache_dir / TRAININGS / f"{job_id}.{attempt}"


def delete_work_folders(cache_dir: Path, running: Collection[tuple[str, int]]) -> None:
    """Delete the work folders of attempts that do not run any more."""
    kept = {work_folder(cache_dir, *each) for each in running}
    for path in (cache_dir / TRAININGS).glob("*"):
        if path not in kept:
            shutil.rmtree(path, ignore_errors=True)
