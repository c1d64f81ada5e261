"""Places where a crash test may kill this process, `HMI_FAIL_AT=after_write`, or put it to sleep until it is woken,
`HMI_PAUSE_AT=after_write`. No effect when unset."""

from __future__ import annotations

import os
import signal
from enum import StrEnum

__all__ = ["PAUSE", "VARIABLE", "BuildPoint", "FailPoint", "TuningPoint", "fail_at"]

VARIABLE = "HMI_FAIL_AT"
PAUSE = "HMI_PAUSE_AT"


class FailPoint(StrEnum):
    """The instants in a shard's life between which a crash must leave different things undone."""

    AFTER_CLAIM = "after_claim"  # leased, nothing written
    AFTER_WRITE = "after_write"  # the shard's files are in place, the catalog knows nothing of them
    BEFORE_FINISH = "before_finish"  # likewise, one statement before the fence
    BEFORE_ACK = "before_ack"  # the shard is done, its message and its batch are not
    BEFORE_COMPLETE = "before_complete"  # the batch's files are in place, the batch is still finalizing


class BuildPoint(StrEnum):
    """Likewise in the life of a tree's build."""

    BEGUN = "build_begun"  # leased, nothing looked at
    COUNTED = "build_counted"  # planned, nothing written
    HALF_COMPUTED = "build_half_computed"  # half of the rows that nobody had, computed
    WRITTEN = "build_written"  # tables are whole in the build's folder
    STORING = "build_storing"  # the first table's digest is announced, its files are on their way
    STORED = "build_stored"  # all tables are artifacts
    PUBLISHED = "build_published"  # served; the build's folder and the oldest version are still there


class TuningPoint(StrEnum):
    """Likewise in the life of a fine-tuning job."""

    CLAIMED = "tuning_claimed"  # leased, nothing read
    CHECKPOINT = "tuning_checkpoint"  # a checkpoint is in the storage, and named in the catalog
    TRAINED = "tuning_trained"  # adapter and report lie in the work folder
    STORED = "tuning_stored"  # and in the storage, where nobody names them
    FINISHED = "tuning_finished"  # the model is registered, the message not acknowledged


def fail_at(point: FailPoint | BuildPoint | TuningPoint) -> None:
    """Die without any clean-up, as a machine does that loses power, or sleep as one does that is suspended, if this
    point was asked for."""
    if os.environ.get(VARIABLE) == point:
        os.kill(os.getpid(), signal.SIGKILL)
    if os.environ.get(PAUSE) == point:
        os.kill(os.getpid(), signal.SIGSTOP)
