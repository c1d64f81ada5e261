"""TODO"""

from __future__ import annotations

from hmi.catalog.tuning import dispatching, ending, events, jobs, recovery, runs
from hmi.catalog.tuning.dispatching import TuningMessage
from hmi.catalog.tuning.ending import TuningResult
from hmi.catalog.tuning.jobs import NewTuningJob
from hmi.catalog.tuning.runs import ClaimedJob

__all__ = [
    "ClaimedJob",
    "NewTuningJob",
    "TuningMessage",
    "TuningResult",
    "dispatching",
    "ending",
    "events",
    "jobs",
    "recovery",
    "runs",
]
