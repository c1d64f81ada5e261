"""What surrounds long work that gives way to jobs: its lease, its pace, and the record of its progress."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlalchemy.orm import Session

from hmi.errors import HmiError
from worker.lifecycle import Lease, describe
from worker.runtime import Runtime

_log = structlog.get_logger(__name__)

RECORD_SECONDS = 2.0  # between two records of progress


class WorkMonitor:
    """Ends work that lost its lease or whose worker stops, and paces it (see `Runtime.pace`). For one thread."""

    def __init__(self, runtime: Runtime, lease: Lease, share: float | None = None) -> None:
        self._runtime = runtime
        self._lease = lease
        self._pace = runtime.pace(self.check, share)

    @property
    def waited_seconds(self) -> float:
        """How long the work waited for jobs."""
        return self._pace.waited_seconds

    def check(self) -> None:
        """Raises `LeaseLost`; `Cancelled` if the worker stops."""
        self._lease.check()
        self._runtime.stopping.check()

    def _record(self, write: Callable[[Session], bool]) -> bool:
        """Write progress to the catalog; False if the database does not answer, which is logged and ends no work.

        Raises `LeaseLost` if `write` returns False: the attempt is stale.
        """
        try:
            with self._runtime.database.session() as session:
                kept = write(session)
        except HmiError as error:
            _log.warning("progress_not_recorded", work=self._lease.name, reason=describe(error))
            return False
        if not kept:
            self._lease.lost = True
            self._lease.check()
        return True
