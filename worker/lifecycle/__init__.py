"""TODO"""

from __future__ import annotations

from worker.lifecycle.device import PinnedDevice, node_name, pin_device
from worker.lifecycle.failpoints import BuildPoint, FailPoint, TuningPoint, fail_at
from worker.lifecycle.leases import Lease, LeaseKeeper
from worker.lifecycle.logs import configure_logs, describe
from worker.lifecycle.pace import Pace
from worker.lifecycle.periodic import Periodic
from worker.lifecycle.stopping import Stopping

__all__ = [
    "BuildPoint",
    "FailPoint",
    "Lease",
    "LeaseKeeper",
    "Pace",
    "Periodic",
    "PinnedDevice",
    "Stopping",
    "TuningPoint",
    "configure_logs",
    "describe",
    "fail_at",
    "node_name",
    "pin_device",
]
