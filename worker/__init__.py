"""The device side of the service: Celery workers that run shards, train, build trees and repair the record.

Start with `process`, one worker from start to end, which maps each message to a function. `runtime` holds what a
process has; `job_runner` takes a queued job from its message to its end, `shards` and `tuning` supply the two
kinds of jobs; `trees` rebuilds knowledge trees; `reconcile` repairs what crashes leave behind.
"""

from __future__ import annotations

__all__: list[str] = []
