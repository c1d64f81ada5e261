"""What a worker process needs around its work, without knowing the work: pinning to a device, log lines, leases and the
thread that extends them, pacing beside jobs, periodic actions, stopping, and the points at which crash tests kill it.

Nothing here imports torch. Start with `leases`.
"""

from __future__ import annotations

from worker.lifecycle.device import PinnedDevice, node_name, pin_device
from worker.lifecycle.failpoints import BuildPoint, FailPoint, TuningPoint, fail_at
from worker.lifecycle.leases import Lease, LeaseKeeper
from worker.lifecycle.logs import configure_logs, describe, log_errors
from worker.lifecycle.pace import Pace
from worker.lifecycle.periodic import Periodic, Stopping

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
    "log_errors",
    "node_name",
    "pin_device",
]
