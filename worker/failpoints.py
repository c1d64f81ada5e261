"""Places where a crash test may kill this process: `HMI_FAIL_AT=after_write`. No effect when unset."""

from __future__ import annotations

import os
import signal
from enum import StrEnum

__all__ = ["VARIABLE", "FailPoint", "fail_at"]

VARIABLE = "HMI_FAIL_AT"


class FailPoint(StrEnum):
    """The instants in a shard's life between which a crash must leave different things undone."""

    AFTER_CLAIM = "after_claim"  # leased, nothing written
    AFTER_WRITE = "after_write"  # the shard's files are in place, the catalog knows nothing of them
    BEFORE_FINISH = "before_finish"  # likewise, one statement before the fence
    BEFORE_ACK = "before_ack"  # the shard is done, its message and its batch are not
    BEFORE_COMPLETE = "before_complete"  # the batch's files are in place, the batch is still finalizing


def fail_at(point: FailPoint) -> None:
    """Die without any clean-up, as a machine does that loses power, if this point was asked for."""
    if os.environ.get(VARIABLE) == point:
        os.kill(os.getpid(), signal.SIGKILL)
