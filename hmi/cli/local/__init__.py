"""All services of one HMI on this machine, as supervised child processes: what `hmi up` runs.

`supervisor.Services` starts and stops them; `processes` watches and restarts them; `services` has their command lines
and environments; `redis` is the embedded broker.
"""

from __future__ import annotations

from hmi.cli.local.ports import is_free
from hmi.cli.local.processes import ServiceEvent, ServiceState
from hmi.cli.local.supervisor import Services

__all__ = ["ServiceEvent", "ServiceState", "Services", "is_free"]
