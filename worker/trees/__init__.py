"""Knowledge trees: building, publishing and retiring their versions, and deleting what no version names any more.

Start with `rebuild`, which takes one build from its lease to its publication. `build_job` has the steps, `monitor`
paces them beside jobs and records progress, `garbage` cleans up after failed builds and retired versions.
"""

from __future__ import annotations

from worker.trees.garbage import collect_garbage
from worker.trees.rebuilding import claim_period, rebuild, rebuild_all, send_requested

__all__ = ["claim_period", "collect_garbage", "rebuild", "rebuild_all", "send_requested"]
