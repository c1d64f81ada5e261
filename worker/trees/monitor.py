"""Monitoring of a tree's build: its lease, its pace, and the progress that it records."""

from __future__ import annotations

import time

from hmi.catalog import database_time, trees
from hmi.knowledge.plan import COMPUTE, BuildProgress
from worker.lifecycle import BuildPoint, Lease, fail_at
from worker.runtime import Runtime
from worker.work_monitor import RECORD_SECONDS, WorkMonitor


class BuildMonitor(WorkMonitor):
    """Called at every step of a build."""

    def __init__(self, runtime: Runtime, base_id: str, number: int, lease: Lease) -> None:
        super().__init__(runtime, lease)
        self._build = (base_id, number)
        with runtime.database.session(read_only=True) as session:
            self._catalog_clock = database_time(session) - time.monotonic()
        self._stage = ""
        self._stage_began = self._recorded_at = 0.0

    def __call__(self, progress: BuildProgress) -> None:
        """Record the progress, in rows or what else the stage counts, and pace."""
        self._record_progress(progress)
        if progress.stage == COMPUTE and 2 * progress.done >= progress.total:
            fail_at(BuildPoint.HALF_COMPUTED)
        self._pace()

    def step(self, progress: object = None) -> None:
        """Pace a step that records nothing."""
        self._pace()

    def _record_progress(self, progress: BuildProgress) -> None:
        now = time.monotonic()
        is_new = progress.stage != self._stage
        if is_new:
            self._stage, self._stage_began = progress.stage, now
        if is_new or now - self._recorded_at >= RECORD_SECONDS:
            self._recorded_at = now
            recorded = {
                "stage": progress.stage,
                "done": progress.done,
                "total": progress.total,
                "started_at": self._catalog_clock + self._stage_began,  # the stage, in the catalog's seconds
            }
            lease_seconds = self._runtime.settings.lease_seconds
            self._record(lambda session: trees.extend_build(session, *self._build, lease_seconds, recorded))
