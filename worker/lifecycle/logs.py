"""Log lines of worker, beat and Flower: fields instead of prose, never text or keys of tenants."""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from typing import Any

from celery import signals

from hmi import logs
from hmi.errors import HmiError

__all__ = ["configure_logs", "describe"]

# Several lines for every message, a few messages a second even when nothing happens.
_CHATTY = ("alembic.runtime.migration", "celery.app.trace", "celery.beat", "celery.worker.strategy")


def configure_logs(level: str, *, as_json: bool) -> None:
    """As `hmi.logs`; Celery leaves it so, and is quiet about each message unless debugging."""
    logs.configure_logs(level, as_json=as_json)
    if level.upper() != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    # A receiver here is what tells Celery that logging is set up.
    signals.setup_logging.connect(_leave_logging_alone)


def _leave_logging_alone(**_: Any) -> None:
    return


def describe(error: BaseException) -> str:
    """What went wrong and where, for the log and the shard's row.

    Of an error that is not our own only the type and the innermost frames: its message may quote a
    tenant's text.
    """
    if isinstance(error, HmiError):
        return f"{error.code}: {error.message}"
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}" if places else type(error).__name__
