"""Points at which a crash test kills this process (`HMI_FAIL_AT=after_write`) or suspends it (`HMI_PAUSE_AT=...`)."""

from __future__ import annotations

import os
import signal
from enum import StrEnum

VARIABLE = "HMI_FAIL_AT"
PAUSE = "HMI_PAUSE_AT"


class FailPoint(StrEnum):
    """Points in the life of a shard; a crash at each leaves something else undone."""

    AFTER_CLAIM = "after_claim"  # leased, nothing written
    AFTER_WRITE = "after_write"  # the shard's files are in place, the catalog does not name them
    BEFORE_FINISH = "before_finish"  # the same, one statement before the finish
    BEFORE_ACK = "before_ack"  # the shard is done, its message is not acknowledged, its batch not finalized
    BEFORE_COMPLETE = "before_complete"  # the batch's files are in place, the batch is still finalizing


class BuildPoint(StrEnum):
    """Points in the life of a tree's build."""

    BEGUN = "build_begun"  # leased, nothing read
    COUNTED = "build_counted"  # planned, nothing written
    HALF_COMPUTED = "build_half_computed"  # half of the new rows are computed
    WRITTEN = "build_written"  # tables are complete in the build's folder
    STORING = "build_storing"  # the first table's digest is announced, its files are being stored
    STORED = "build_stored"  # all tables are artifacts
    PUBLISHED = "build_published"  # served; the build's folder and the oldest version are still there


class TuningPoint(StrEnum):
    """Points in the life of a fine-tuning job."""

    CLAIMED = "tuning_claimed"  # leased, nothing read
    CHECKPOINT = "tuning_checkpoint"  # a checkpoint is in the storage and named in the catalog
    TRAINED = "tuning_trained"  # adapter and report are in the work folder
    STORED = "tuning_stored"  # and in the storage, not named in the catalog
    FINISHED = "tuning_finished"  # the model is registered, the message not acknowledged


def fail_at(point: FailPoint | BuildPoint | TuningPoint) -> None:
    """Kill (SIGKILL) or suspend (SIGSTOP) this process if the environment names this point."""
    if os.environ.get(VARIABLE) == point:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get(PAUSE) == point:
        os.kill(os.getpid(), signal.SIGSTOP)
