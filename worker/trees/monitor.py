"""What surrounds a tree's build while it runs: its lease, its pace, the word of how far it is, and its folder."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import structlog

from hmi.catalog import database_time, trees
from hmi.errors import HmiError
from hmi.knowledge.plan import COMPUTE, BuildProgress
from worker.lifecycle import BuildPoint, Lease, describe, fail_at
from worker.runtime import Runtime

__all__ = ["BuildMonitor", "build_folder", "build_owner", "builds_folder", "take_over"]

_log = structlog.get_logger(__name__)

_SAY_SECONDS = 2.0


class BuildMonitor:
    """To be called at every step of a build. It ends one that lost its lease or whose worker is stopped, gives way to
    jobs, and writes into the catalog how far the build is. For one thread."""

    def __init__(self, runtime: Runtime, base_id: str, number: int, lease: Lease) -> None:
        self._runtime = runtime
        self._build = (base_id, number)
        self._lease = lease
        self._pace = runtime.pace(self.check)
        with runtime.database.session(read_only=True) as session:
            self._catalog_clock = database_time(session) - time.monotonic()
        self._stage = ""
        self._stage_began = self._said = 0.0

    @property
    def waited_seconds(self) -> float:
        """How long it stood still for jobs."""
        return self._pace.waited_seconds

    def check(self) -> None:
        """Raises `LeaseLost`; `Cancelled` where the worker is stopped."""
        self._lease.check()
        self._runtime.check_running()

    def __call__(self, reached: BuildProgress) -> None:
        """A step that says how far the build is; `reached` in rows, or whatever the stage counts."""
        self._say(reached)
        if reached.stage == COMPUTE and 2 * reached.done >= reached.total:
            fail_at(BuildPoint.HALF_COMPUTED)
        self._pace()

    def step(self, done: object = None) -> None:
        """A step that does not; `done`, whatever it has to report, is not looked at."""
        self._pace()

    def _say(self, reached: BuildProgress) -> None:
        now = time.monotonic()
        is_new = reached.stage != self._stage
        if is_new:
            self._stage, self._stage_began = reached.stage, now
        if not is_new and now - self._said < _SAY_SECONDS:
            return
        self._said = now
        progress = {
            "stage": reached.stage,
            "done": reached.done,
            "total": reached.total,
            "started_at": self._catalog_clock + self._stage_began,  # the stage, in the catalog's seconds
        }
        base_id, number = self._build
        try:
            with self._runtime.database.session() as session:
                kept = trees.extend_build(session, base_id, number, self._runtime.settings.lease_seconds, progress)
        except HmiError as error:
            _log.warning("progress_not_written", number=number, reason=describe(error))
            return
        if not kept:
            self._lease.lose()


def build_owner(base_id: str, number: int) -> str:
    """By which the artifact store knows what a build is storing."""
    return f"{base_id}-{number}"


def builds_folder(cache_dir: Path) -> Path:
    """Where builds write on this machine: `<base id>/<number>/`."""
    return cache_dir / "builds"


def build_folder(cache_dir: Path, base_id: str, number: int) -> Path:
    return builds_folder(cache_dir) / base_id / str(number)


def take_over(cache_dir: Path, base_id: str, number: int) -> Path:
    """The folder of a build, with what the last build of the base model that was cut short here had finished.

    It is moved, so that a builder that comes back after its lease ran out finds nothing left to write to.
    """
    mine = build_folder(cache_dir, base_id, number)
    others = [path for path in mine.parent.iterdir() if path != mine] if mine.parent.is_dir() else []
    for path in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True):
        if mine.exists():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.rename(mine)
    mine.mkdir(parents=True, exist_ok=True)
    return mine
