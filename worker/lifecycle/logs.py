"""Log lines of worker, beat and Flower: fields instead of prose, never a tenant's text or keys."""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from celery import signals

from hmi import logs
from hmi.errors import HmiError

# Several lines for every message, a few messages a second even when nothing happens.
_CHATTY = ("alembic.runtime.migration", "celery.app.trace", "celery.beat", "celery.worker.strategy")


def configure_logs(level: str, *, as_json: bool) -> None:
    """Configure logging as `hmi.logs` does, keep Celery from changing it, and silence its line for each message."""
    logs.configure_logs(level, as_json=as_json)
    if level.upper() != "DEBUG":
        for name in _CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
    # With a receiver for this signal Celery configures no logging itself.
    signals.setup_logging.connect(_keep_logging)


def _keep_logging(**_: Any) -> None:
    return


@contextlib.contextmanager
def log_errors(log: Any, event: str, *kinds: type[BaseException], **fields: Any) -> Iterator[None]:
    """Log the errors of these kinds that the block raises, by default any `Exception`, instead of raising them."""
    kinds = kinds or (Exception,)
    try:
        yield
    except kinds as error:
        log.warning(event, reason=describe(error), **fields)


def describe(error: BaseException) -> str:
    """Describe an error for the log and the catalog.

    Of a foreign error only the type and the innermost frames: its message may quote a tenant's text.
    """
    if isinstance(error, HmiError):
        return f"{error.code}: {error.message}"
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
    return f"{type(error).__name__} at {places}" if places else type(error).__name__
