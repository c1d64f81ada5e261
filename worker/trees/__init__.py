"""TODO"""

from __future__ import annotations

from worker.trees.garbage import sweep_builds
from worker.trees.rebuilding import rebuild, rebuild_all, send_requested

__all__ = ["rebuild", "rebuild_all", "send_requested", "sweep_builds"]
