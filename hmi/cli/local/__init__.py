"""TODO"""

from __future__ import annotations

from hmi.cli.local.ports import is_free
from hmi.cli.local.processes import ServiceEvent
from hmi.cli.local.supervisor import Services

__all__ = ["ServiceEvent", "Services", "is_free"]
